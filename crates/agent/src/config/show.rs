//! The settings as understood, in the form of the file that would give them.

use std::fmt::{Display, Formatter, Result};
use std::path::Path;
use std::time::Duration;

use connection::Proxy;
#[cfg(feature = "websocket")]
use connection::Transport;
use device::{Checked, CommandSpec, FileTarget, FirmwareTarget};
use dispatcher::ConfigFile;
use dispatcher::policy::Policy;

use ::publish::Encoding;

use super::boot::show_slots;
use super::connection::Anonymous;
use super::swupdate::show_swupdate;
use super::{LogFormat, Settings, ShadowFile, Version};

impl Display for Settings {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        path(f, "state_directory", &self.state_directory)?;
        match &self.helper {
            None => writeln!(f, "\n# [helper]: not configured, and one process does everything")?,
            Some(helper) => {
                writeln!(f, "\n[helper]")?;
                path(f, "socket", &helper.socket)?;
                text(f, "user", &helper.user)?;
                path(f, "state_directory", &helper.state_directory)?;
                seconds(f, "idle_seconds", helper.idle)?;
            }
        }
        let c = &self.connection;
        writeln!(f, "\n[connection]")?;
        text(f, "endpoint", &c.endpoint)?;
        text(f, "transport", c.transport())?;
        match &c.fallback {
            None => writeln!(f, "port = {}", c.route.port)?,
            Some(fallback) => writeln!(f, "# port: {}, and then {}", c.route.port, fallback.port)?,
        }
        proxy(f, &c.proxy)?;
        match c.thing_name.as_str() {
            "" => writeln!(f, "# thing_name: what the cloud says")?,
            name => text(f, "thing_name", name)?,
        }
        if !c.client_id.is_empty() {
            text(f, "client_id", &c.client_id)?;
        }
        match c.generation {
            Some(0) => {}
            Some(number) => writeln!(f, "# generation {number} of the device's own, which is in force:")?,
            None if c.anonymous.is_some() => writeln!(f, "# certificate, private_key: none")?,
            None => writeln!(f, "# not there yet:")?,
        }
        match &c.anonymous {
            None => {
                path(f, "certificate", &c.identity.certificate)?;
                path(f, "private_key", &c.identity.private_key)?;
                path(f, "root_ca", &c.identity.root_ca)?;
            }
            Some(Anonymous { root_ca: Some(root_ca) }) => path(f, "root_ca", root_ca)?,
            Some(Anonymous { root_ca: None }) => writeln!(f, "# root_ca: the system's")?,
        }
        for (key, value) in [
            ("keep_alive_seconds", c.keep_alive),
            ("connect_timeout_seconds", c.connect_timeout),
            ("request_timeout_seconds", c.request_timeout),
            ("reconnect_min_seconds", c.reconnect_min),
            ("reconnect_max_seconds", c.reconnect_max),
            ("stable_after_seconds", c.stable_after),
            ("poll_interval_seconds", c.poll_interval),
        ] {
            seconds(f, key, value)?;
        }
        #[cfg(feature = "websocket")]
        if let Transport::WebSocket(signer) = &c.route.transport {
            super::credentials::show(f, signer)?;
        }
        self.provisioning.show(f)?;
        match &self.host.firmware {
            None => writeln!(f, "\n# [firmware]: not configured")?,
            Some(checked) => {
                writeln!(f, "\n[firmware]")?;
                firmware(f, &checked.target)?;
            }
        }
        self.health(f)?;
        if self.configs.is_empty() {
            writeln!(f, "\n# [config]: not configured")?;
        }
        for config in &self.configs {
            self.config(f, config)?;
        }
        self.shadows(f)?;
        writeln!(f, "\n[reboot]")?;
        command(f, "command", &self.host.reboot.command, "command_timeout_seconds")?;
        path(f, "boot_id_file", &self.host.reboot.boot_id_file)?;
        policy(f, &self.policy, &self.host.hook)?;
        path(f, "hold_directory", &self.host.holds.directory)?;
        writeln!(f, "inhibitors = {}", self.host.holds.inhibitors)?;
        self.trust(f)?;
        writeln!(f, "\n[download]")?;
        writeln!(f, "max_size_bytes = {}", self.download.limits.max_size)?;
        writeln!(f, "min_rate_bytes_per_second = {}", self.download.limits.min_rate)?;
        seconds(f, "rate_window_seconds", self.download.limits.rate_window)?;
        writeln!(f, "max_rate_bytes_per_second = {}", self.download.limits.max_rate)?;
        seconds(f, "timeout_seconds", self.download.limits.deadline)?;
        writeln!(f, "allow_http = {}", self.download.allow_http)?;
        match &self.download.root_ca {
            Some(root_ca) => path(f, "root_ca", root_ca)?,
            None => writeln!(f, "# root_ca: the system's")?,
        }
        writeln!(f, "\n[report]")?;
        seconds(f, "progress_interval_seconds", self.progress_interval)?;
        writeln!(f, "step_timeout_minutes = {}", self.step_timeout.unwrap_or_default().as_secs() / 60)?;
        writeln!(f, "\n[operation]")?;
        seconds(f, "timeout_seconds", self.operation_timeout)?;
        self.seeing(f)?;
        writeln!(f, "\n[log]")?;
        text(f, "format", if self.log.format == LogFormat::Json { "json" } else { "auto" })?;
        text(f, "level", &self.log.level.to_string())
    }
}

impl Settings {
    fn shadows(&self, f: &mut Formatter<'_>) -> Result {
        let shadows = &self.shadows;
        for ShadowFile { shadow, file } in &shadows.files {
            if self.configs.contains(file) {
                writeln!(f, "\n[[shadow]]")?;
                text(f, "name", shadow)?;
                text(f, "config", &file.name)?;
            } else {
                self.file(f, "shadow", file)?;
            }
        }
        writeln!(f, "\n[shadows]\nreport = {}", shadows.report.is_some())?;
        if let Some(report) = &shadows.report {
            seconds(f, "report_interval_seconds", report.interval)?;
            let without: Vec<_> = report.without.iter().map(|member| member.name()).collect();
            writeln!(f, "report_without = {without:?}")?;
        }
        text(f, "report_package", shadows.report_package.name())?;
        match &shadows.firmware_package {
            Some(name) => text(f, "firmware_package", name)?,
            None => writeln!(f, "# firmware_package: none")?,
        }
        for package in &shadows.packages {
            writeln!(f, "\n[[shadows.packages]]")?;
            text(f, "name", &package.name)?;
            match &package.version {
                Version::Of(version) => text(f, "version", version)?,
                Version::In(file) => path(f, "version_file", file)?,
                Version::Agent => writeln!(f, "# version: the agent's own")?,
            }
            let pair = |(name, value): (&String, &String)| format!("{name:?} = {value:?}");
            let attributes: Vec<_> = package.attributes.iter().map(pair).collect();
            writeln!(f, "attributes = {{ {} }}", attributes.join(", "))?;
        }
        Ok(())
    }

    fn config(&self, f: &mut Formatter<'_>, config: &ConfigFile) -> Result {
        self.file(f, "config", config)
    }

    fn file(&self, f: &mut Formatter<'_>, table: &str, config: &ConfigFile) -> Result {
        let Some(Checked { target, health }) = self.host.configs.get(&config.name) else { return Ok(()) };
        writeln!(f, "\n[[{table}]]")?;
        text(f, "name", &config.name)?;
        file(f, target, "reload_command", "reload_timeout_seconds")?;
        text(f, "format", config.format.name())?;
        match &config.schema {
            Some(schema) => path(f, "schema", schema)?,
            None => writeln!(f, "# schema: none")?,
        }
        match health.checks.first() {
            Some(check) => {
                command(f, "health_command", check, "health_timeout_seconds")?;
                seconds(f, "health_interval_seconds", health.interval)
            }
            None => writeln!(f, "# health_command: none"),
        }
    }

    fn seeing(&self, f: &mut Formatter<'_>) -> Result {
        match &self.status_socket {
            Some(socket) => {
                writeln!(f, "\n[status]")?;
                path(f, "socket", socket)?;
            }
            None => writeln!(f, "\n# [status]: not configured")?,
        }
        match &self.metrics {
            Some(metrics) => {
                writeln!(f, "\n[metrics]")?;
                path(f, "file", &metrics.file)?;
                seconds(f, "interval_seconds", metrics.interval)?;
            }
            None => writeln!(f, "\n# [metrics]: not configured")?,
        }
        let Some(publish) = &self.publish else {
            return writeln!(f, "\n# [publish]: not configured");
        };
        writeln!(f, "\n[publish]")?;
        path(f, "socket", &publish.socket)?;
        writeln!(f, "topic_prefix = {:?}", publish.rules.prefixes)?;
        seconds(f, "batch_seconds", publish.batch_for)?;
        writeln!(f, "max_bytes = {}", publish.max_bytes)?;
        match &publish.encoding {
            Encoding::Json => writeln!(f, "gzip = false"),
            Encoding::Gzip { suffix } => {
                writeln!(f, "gzip = true")?;
                text(f, "gzip_suffix", suffix)
            }
        }
    }

    fn trust(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "\n[device]\ncompatible = {:?}", self.host.compatible)?;
        let Some(trust) = &self.host.trust else {
            return writeln!(f, "\n# [release]: not configured, and firmware needs no signature");
        };
        writeln!(f, "\n[release]")?;
        path(f, "keys", &trust.folder)?;
        for id in trust.keyring.key_ids() {
            writeln!(f, "# {id}")?;
        }
        writeln!(f, "threshold = {}", trust.keyring.threshold())
    }

    fn health(&self, f: &mut Formatter<'_>) -> Result {
        let Some(Checked { health, .. }) = &self.host.firmware else { return Ok(()) };
        writeln!(f, "\n[health]")?;
        let words = |spec: &CommandSpec| {
            std::iter::once(&spec.program).chain(&spec.arguments).cloned().collect::<Vec<_>>()
        };
        writeln!(f, "commands = {:?}", health.checks.iter().map(words).collect::<Vec<_>>())?;
        if let Some(first) = health.checks.first() {
            seconds(f, "command_timeout_seconds", first.timeout)?;
        }
        seconds(f, "interval_seconds", health.interval)?;
        seconds(f, "within_seconds", health.within)?;
        writeln!(f, "cloud = {}", self.cloud_within.is_some())
    }
}

fn firmware(f: &mut Formatter<'_>, target: &FirmwareTarget) -> Result {
    match target {
        FirmwareTarget::File(target) => {
            text(f, "target", "file")?;
            file(f, target, "command", "command_timeout_seconds")
        }
        FirmwareTarget::Command(target) => {
            text(f, "target", "command")?;
            writeln!(f, "\n[firmware.installer]")?;
            command(f, "command", &target.command, "timeout_seconds")?;
            path(f, "staging", &target.staging)
        }
        FirmwareTarget::Slots(target) => show_slots(f, target),
        #[cfg(feature = "rauc")]
        FirmwareTarget::Rauc(target) => {
            text(f, "target", "rauc")?;
            writeln!(f, "\n[firmware.rauc]")?;
            command(f, "command", &target.command, "timeout_seconds")?;
            path(f, "staging", &target.staging)?;
            writeln!(f, "max_size_bytes = {}", target.max_bundle)?;
            writeln!(f, "read_back = {}", target.read_back)
        }
        FirmwareTarget::Swupdate(target) => show_swupdate(f, target),
    }
}

/// A password is not for whoever looks over a shoulder, nor for a ticket.
fn proxy(f: &mut Formatter<'_>, proxy: &Proxy) -> Result {
    match proxy {
        Proxy::None => writeln!(f, "# proxy: none"),
        Proxy::Environment => text(f, "proxy", "environment"),
        Proxy::Http(proxy) => {
            let remark = if proxy.has_password() { " # and its password" } else { "" };
            writeln!(f, "proxy = {:?}{remark}", proxy.shown())
        }
    }
}

fn policy(f: &mut Formatter<'_>, policy: &Policy, hook: &Option<CommandSpec>) -> Result {
    writeln!(f, "\n[policy]")?;
    let windows = policy.windows.iter();
    let windows: Vec<_> = windows
        .map(|w| format!("{{ start = {:?}, minutes = {} }}", w.start.to_string(), w.minutes))
        .collect();
    writeln!(f, "windows = [{}]", windows.join(", "))?;
    match policy.zone.name() {
        Some(name) => text(f, "time_zone", name)?,
        None => writeln!(f, "# time_zone: the system's")?,
    }
    match hook {
        Some(spec) => command(f, "hook", spec, "hook_timeout_seconds")?,
        None => writeln!(f, "# hook: none")?,
    }
    seconds(f, "hook_interval_seconds", policy.hook_interval)
}

fn file(f: &mut Formatter<'_>, target: &FileTarget, command_key: &str, timeout_key: &str) -> Result {
    path(f, "file", &target.file)?;
    match &target.command {
        Some(spec) => command(f, command_key, spec, timeout_key),
        None => writeln!(f, "# {command_key}: none"),
    }
}

fn command(f: &mut Formatter<'_>, key: &str, spec: &CommandSpec, timeout_key: &str) -> Result {
    command_line(f, key, &spec.program, &spec.arguments)?;
    seconds(f, timeout_key, spec.timeout)
}

pub(super) fn command_line(
    f: &mut Formatter<'_>,
    key: &str,
    program: &String,
    arguments: &[String],
) -> Result {
    let words: Vec<_> = std::iter::once(program).chain(arguments).collect();
    writeln!(f, "{key} = {words:?}")
}

pub(super) fn seconds(f: &mut Formatter<'_>, key: &str, value: Duration) -> Result {
    writeln!(f, "{key} = {}", value.as_secs())
}

pub(super) fn path(f: &mut Formatter<'_>, key: &str, value: &Path) -> Result {
    text(f, key, &value.to_string_lossy())
}

pub(super) fn text(f: &mut Formatter<'_>, key: &str, value: &str) -> Result {
    writeln!(f, "{key} = {value:?}")
}
