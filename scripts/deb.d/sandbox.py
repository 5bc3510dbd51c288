"""What each process may do, tried from inside: its own unit, with the probe in the place of the program."""

import json
import re

REFUSED, DONE = "refused", "done"
# What comes of it for the process with the network, and for the helper.
EXPECTED = {
    "write to /etc": (REFUSED, DONE),
    "write to /etc/fleethand": (REFUSED, DONE),
    "write to /usr/bin": (REFUSED, DONE),
    "write to /opt/product": (REFUSED, DONE),
    "write to /boot": (REFUSED, DONE),
    "write to /var/lib": (REFUSED, DONE),
    "write to /home": (REFUSED, REFUSED),
    "write to /root": (REFUSED, REFUSED),
    "write to /var/lib/fleethand": (DONE, DONE),
    "write to /var/lib/fleethand-helper": (REFUSED, DONE),
    "write to /run/fleethand": (DONE, DONE),
    "read the configuration": (DONE, DONE),
    "change the configuration": (REFUSED, DONE),
    "read /etc/shadow": (REFUSED, DONE),
    "read root's files": (REFUSED, DONE),
    "list the helper's state": (REFUSED, DONE),
    "open a disk": (REFUSED, DONE),
    "read another process's environment": (REFUSED, REFUSED),
    "signal another process": (REFUSED, DONE),
    "connect to the cloud": (DONE, REFUSED),
    "connect to the helper": (DONE, DONE),
    "make a raw socket": (REFUSED, REFUSED),
    "make a packet socket": (REFUSED, REFUSED),
    "become root by sudo": (REFUSED, REFUSED),
    "make a set-user-id file": (REFUSED, DONE),
    "make a user namespace": (REFUSED, REFUSED),
    "mount": (REFUSED, REFUSED),
    "load a module": (REFUSED, REFUSED),
    "set the clock": (REFUSED, REFUSED),
    "change a kernel setting": (REFUSED, REFUSED),
    "write and run memory": (REFUSED, DONE),
    "order systemd to start a unit": (REFUSED, DONE),
    "reboot": (REFUSED, DONE),
}


def probe(machine, unit, disk):
    """What the probe says in the place of a unit's program."""
    text = machine.run(f"cat /lib/systemd/system/{unit}.service")
    text = re.sub(r"^ExecStart=.*$", "ExecStart=/usr/bin/python3 /run/probe.py\nStandardOutput=file:/run/probe.json", text, flags=re.M)
    text = re.sub(r"^(Type|WatchdogSec|Restart\w*|Requires|Also|WantedBy)=.*\n", "", text, flags=re.M)
    text = text.replace("[Service]\n", f"[Service]\nType=oneshot\nEnvironment=PROBE_DISK={disk}\n")
    (machine.tree / "etc/systemd/system/probe.service").write_text(text)
    machine.run("rm -f /run/probe.json; systemctl daemon-reload; systemctl start probe.service")
    said = json.loads(machine.run("cat /run/probe.json"))
    machine.run("rm /etc/systemd/system/probe.service; systemctl daemon-reload")
    return said


def assert_confined(machine, script, disk):
    """Prints what is refused and what is not, and is content only with what is expected."""
    machine.put("/run/probe.py", script.read_text())
    machine.run("mkdir -p /opt/product; touch /root/.profile")
    network, helper = (probe(machine, unit, disk) for unit in ("fleethand", "fleethand-helper"))
    wrong = []
    print(f"\n  {'tried from inside':<36} {'with the network':<18} the helper")
    for name, expected in EXPECTED.items():
        found = tuple(DONE if said[name] == DONE else REFUSED for said in (network, helper))
        print(f"  {name:<36} {found[0]:<18} {found[1]}")
        if found != expected:
            wrong.append(f"{name}: {network[name]}, {helper[name]}; expected {expected}")
    assert set(network) == set(EXPECTED), "the probe tries something else"
    assert not wrong, "\n".join(wrong)
