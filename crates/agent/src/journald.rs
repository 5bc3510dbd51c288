//! Log lines for journald with their fields: `journalctl JOB_ID=…`, `journalctl MESSAGE_ID=…`. MESSAGE is the same line
//! that a person would read without journald. `docs/status.md` lists what is public of this.

use std::fmt::{Debug, Write};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// A field that is longer is cut: a datagram has its limit, and no line of ours needs more.
const MAX_VALUE: usize = 16 * 1024;

/// What an event is called in the code, and in the journal. Public: added to, never changed.
const MESSAGE_IDS: &[(&str, &str)] = &[
    ("started", "8efae4c1f57a43178bb3d287d1db8d46"),
    ("stopping", "eef16941546b42d99be2e3ccb0521747"),
    ("connected", "aeae274175624e8ea2c74a679c5885f3"),
    ("not-connected", "582800925fd44af2b2ee9468e136e822"),
    ("job-begun", "6881cb6476f141a8a22b296d69ac4758"),
    ("job-succeeded", "679f3c427a6545b3ab698b7d489e1fec"),
    ("job-failed", "8bcb38987b004c7986f257545a0947d4"),
    ("job-rejected", "0cdedd4504a947028dfaf6623d75e119"),
    ("rolling-back", "2c1d97df184442fc9d09747199553d41"),
    ("rebooting", "28ebebf4b8f6406f85d294fd4fe1674d"),
    ("shadow-applied", "d9eec59d732b4a829ddc5fcaa02e6de4"),
    ("shadow-refused", "5df3ecaaa6324759a8720ab8fd5bfb0f"),
    ("certificate-expires", "d270386680204e2bb6a7d34b32ab81e1"),
];

/// Does standard error lead to the journal? Only then are its lines journald's: the variable is inherited by whatever is
/// started from a service, with its output anywhere.
pub fn is_standard_error() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

pub struct Journald {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journald {
    pub fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A journal that is full or hangs must not hold up a job; such a line is lost.
        socket.set_nonblocking(true)?;
        // Not connected: journald may start anew.
        socket.send_to(b"", path)?;
        Ok(Self { socket, path: path.to_owned() })
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journald {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.inherit(of_span);
            }
        }
        let datagram = fields.datagram(*event.metadata().level(), event.metadata().name());
        match self.socket.send_to(&datagram, &self.path) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                // Standard error leads to the journal, too, by another way.
                let _ = io::Write::write_all(&mut io::stderr(), format!("{}\n", fields.line()).as_bytes());
            }
            _ => {}
        }
    }
}

/// What an event or a span has said, in order.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}"));
    }
}

impl Fields {
    fn add(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.others.push((name, value)),
        }
    }

    /// The event knows better than the spans around it.
    fn inherit(&mut self, span: &Self) {
        for (name, value) in &span.others {
            if self.others.iter().all(|(known, _)| known != name) {
                self.others.push((name, value.clone()));
            }
        }
    }

    fn line(&self) -> String {
        let mut line = self.message.clone();
        for (name, value) in &self.others {
            let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c.is_control());
            let _ = if plain { write!(line, " {name}={value}") } else { write!(line, " {name}={value:?}") };
        }
        line
    }

    fn datagram(&self, level: Level, name: &str) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(512);
        append(&mut datagram, "MESSAGE", &self.line());
        append(&mut datagram, "PRIORITY", priority(level));
        append(&mut datagram, "SYSLOG_IDENTIFIER", "fleethand");
        if let Some((_, id)) = MESSAGE_IDS.iter().find(|(known, _)| *known == name) {
            append(&mut datagram, "MESSAGE_ID", id);
        }
        for (name, value) in &self.others {
            append(&mut datagram, &name.to_ascii_uppercase().replace('.', "_"), value);
        }
        datagram
    }
}

/// As systemd.journal-fields(7) and the native protocol have it: a value with a line break is sent with its length.
fn append(datagram: &mut Vec<u8>, name: &str, value: &str) {
    let value = value.get(..value.floor_char_boundary(MAX_VALUE)).unwrap_or(value);
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

/// syslog's numbers.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tracing_subscriber::prelude::*;

    use super::*;

    /// What journald would store: reads the protocol as its documentation has it.
    fn stored(datagram: &[u8]) -> HashMap<String, String> {
        let (mut fields, mut rest) = (HashMap::new(), datagram);
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| b"=\n".contains(byte)).unwrap();
            let name = String::from_utf8(rest[..end].to_vec()).unwrap();
            assert!(
                name.chars().all(|c| c.is_ascii_uppercase() || c == '_') && !name.starts_with('_'),
                "{name}"
            );
            let (value, length) = if rest[end] == b'=' {
                let length = rest[end..].iter().position(|byte| *byte == b'\n').unwrap();
                (&rest[end + 1..end + length], end + length + 1)
            } else {
                let length = u64::from_le_bytes(rest[end + 1..end + 9].try_into().unwrap()) as usize;
                (&rest[end + 9..end + 9 + length], end + 9 + length + 1)
            };
            let value = String::from_utf8(value.to_vec()).unwrap();
            assert!(fields.insert(name.clone(), value).is_none(), "{name} twice");
            rest = &rest[length..];
        }
        fields
    }

    fn logged(log: impl FnOnce()) -> Vec<HashMap<String, String>> {
        let folder = tempfile::tempdir().unwrap();
        let journald = UnixDatagram::bind(folder.path().join("socket")).unwrap();
        journald.set_nonblocking(true).unwrap();
        let layer = Journald::at(&folder.path().join("socket")).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let mut buffer = vec![0; 1 << 20];
        std::iter::from_fn(|| journald.recv(&mut buffer).ok().map(|length| stored(&buffer[..length])))
            .filter(|fields| !fields.is_empty())
            .collect()
    }

    #[test]
    fn an_outcome_has_its_id_and_fields_and_a_line_for_people() {
        let all = logged(|| {
            tracing::warn!(name: "job-failed", job_id = %"job-7", execution = 2_u64, reason = "timeout", detail = "still on", "ended");
        });
        let expected = [
            ("MESSAGE", "ended job_id=job-7 execution=2 reason=timeout detail=\"still on\""),
            ("MESSAGE_ID", "8bcb38987b004c7986f257545a0947d4"),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "fleethand"),
            ("JOB_ID", "job-7"),
            ("EXECUTION", "2"),
            ("REASON", "timeout"),
            ("DETAIL", "still on"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(all, [HashMap::from(expected)]);
    }

    #[test]
    fn what_is_logged_during_a_job_has_its_id_and_nothing_can_forge_a_field() {
        let all = logged(|| {
            let _job = tracing::error_span!("job", job_id = "job-7", execution = 1).entered();
            tracing::error!(target_name = "a\nPRIORITY=0", execution = 9, "two\nlines");
        });
        assert_eq!(all.len(), 1);
        let get = |name: &str| all[0].get(name).map_or("", String::as_str);
        assert_eq!((get("JOB_ID"), get("EXECUTION"), get("PRIORITY")), ("job-7", "9", "3"));
        assert_eq!(get("TARGET_NAME"), "a\nPRIORITY=0");
        assert!(get("MESSAGE").starts_with("two\nlines"));
        assert!(!all[0].contains_key("MESSAGE_ID"));
    }

    #[test]
    fn long_values_are_cut_and_a_journal_that_is_full_holds_nothing_up() {
        let all = logged(|| {
            for _ in 0..10_000 {
                tracing::info!(long = "ä".repeat(MAX_VALUE), "much");
            }
        });
        assert!(!all.is_empty() && all.len() < 10_000, "{}", all.len());
        assert_eq!(all[0]["LONG"].len(), MAX_VALUE);
    }

    #[test]
    fn every_message_id_is_one_of_its_own_and_documented() {
        let documented = include_str!("../../../docs/status.md");
        for (n, (name, id)) in MESSAGE_IDS.iter().enumerate() {
            assert!(id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
            assert!(documented.contains(id), "{name}");
            assert!(MESSAGE_IDS[..n].iter().all(|(other, known)| other != name && known != id), "{name}");
        }
    }

    #[test]
    fn a_missing_journal_is_told_from_one_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Journald::at(&folder.path().join("socket")).is_err());
    }
}
