//! A device of two processes: the agent as a user without privileges, and the helper.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::unistd::{User, geteuid};

use super::cloud::signal;
use super::{Device, until};

/// Who the agent is: `nobody` where this is run by root, and otherwise who runs it.
pub fn agent_user() -> User {
    let user = if geteuid().is_root() { User::from_name("nobody") } else { User::from_uid(geteuid()) };
    user.unwrap().unwrap()
}

impl Device {
    /// From now on it is two processes.
    pub fn divide(&mut self) {
        self.divide_keeping(&self.path("helper"));
        fs::create_dir(self.path("state")).unwrap();
        self.give_to_the_agent(&self.path("state"));
    }

    /// The helper's state is there. Who calls this makes the agent's.
    pub fn divide_keeping(&mut self, state: &Path) {
        let user = agent_user();
        if geteuid().is_root() {
            fs::set_permissions(self.folder.path(), Permissions::from_mode(0o755)).unwrap();
            for name in self.names().into_iter().filter(|name| name.contains("private")) {
                self.give_to_the_agent(&self.path(&name));
            }
            self.user = Some((user.uid.as_raw(), user.gid.as_raw()));
        }
        let lines = format!("socket = \"helper.sock\"\nuser = {:?}\nstate_directory = {state:?}", user.name);
        self.configure("helper", &lines);
    }

    pub fn give_to_the_agent(&self, path: &Path) {
        let user = agent_user();
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }

    /// As systemd would: started again whenever it ends, however it does.
    pub fn start_helper(&self) -> Helper {
        let (pid, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let mut next = self.command(&["helper"]);
        let (its_pid, is_over) = (Arc::clone(&pid), Arc::clone(&over));
        let keeper = std::thread::spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                let mut child: Child = next.spawn().unwrap();
                its_pid.store(child.id(), Ordering::SeqCst);
                while child.try_wait().unwrap().is_none() {
                    if is_over.load(Ordering::SeqCst) {
                        let _ = child.kill();
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                its_pid.store(0, Ordering::SeqCst);
            }
        });
        let helper = Helper { pid, over, keeper: Some(keeper) };
        let socket = self.path("helper.sock");
        until("the helper", || std::os::unix::net::UnixStream::connect(&socket).ok());
        helper
    }

    /// What a fleethand that systemd has started by its socket finds: descriptor 3, and whose it is.
    pub fn start_helper_by_socket(&self) -> Child {
        let script = "import os, socket, sys\n\
            path = sys.argv[1]\n\
            if os.path.exists(path): os.unlink(path)\n\
            listener = socket.socket(socket.AF_UNIX)\n\
            listener.bind(path)\n\
            os.chmod(path, 0o666)\n\
            listener.listen()\n\
            if listener.fileno() != 3: os.dup2(listener.fileno(), 3)\n\
            os.set_inheritable(3, True)\n\
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n\
            os.execv(sys.argv[2], sys.argv[2:])\n";
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let socket = self.path("helper.sock");
        let child = Command::new("python3")
            .args(["-c", script, socket.to_str().unwrap(), env!("CARGO_BIN_EXE_fleethand"), "helper"])
            .args(["--config", self.config().to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        until("the helper", || std::os::unix::net::UnixStream::connect(&socket).ok());
        child
    }
}

pub struct Helper {
    pid: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

impl Helper {
    pub fn pid(&self) -> u32 {
        until("the helper to run", || Some(self.pid.load(Ordering::SeqCst)).filter(|pid| *pid != 0))
    }

    /// It is another process afterwards.
    pub fn kill(&self) {
        self.end("KILL");
    }

    pub fn stop(&self) {
        self.end("TERM");
    }

    fn end(&self, how: &str) {
        let pid = self.pid();
        signal(pid, how);
        until("the helper to end", || (self.pid.load(Ordering::SeqCst) != pid).then_some(()));
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.keeper.take().unwrap().join();
    }
}
