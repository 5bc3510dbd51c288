//! The messages of SWUpdate's two sockets: C structures in the byte order and alignment of this machine, as `network_ipc.h`
//! and `progress_ipc.h` have them since release 2021.11. They are written and read here field by field.

const MAGIC: u32 = 0x1405_2001;
const API_VERSION: u32 = 1;

const REQ_INSTALL: u32 = 0;
const ACK: u32 = 1;
const GET_STATUS: u32 = 3;
const NOTIFY_STREAM: u32 = 11;

const SOURCE_LOCAL: u32 = 4;
/// Whatever the daemon was started with: a dry run ends with success as well.
const RUN_INSTALL: u32 = 2;

const IDLE: u32 = 0;
const START: u32 = 1;
const SUCCESS: u32 = 3;
const ERROR_LEVEL: u32 = 1;

/// `sizeof(size_t)`, and the alignment of what contains one.
const WORD: usize = size_of::<usize>();
/// `software_set` and `running_mode`, with the zero at their ends.
pub(crate) const MAX_NAME: usize = 256;
/// `struct swupdate_request`.
const REQUEST: usize = (4 * 3usize).next_multiple_of(WORD) + WORD + 512 + 2 * MAX_NAME + WORD;
/// `ipc_message`: magic, type, and a union whose largest member is the request with 2 KiB of data behind it.
pub(super) const MESSAGE: usize = 8 + (REQUEST + 4 + 2048).next_multiple_of(WORD);

/// The software set and the mode of it that are to be installed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    pub software_set: &'a str,
    pub mode: &'a str,
}

/// Everything about it that is not zero. The daemon reads it with one `read`.
pub(super) fn install(selection: Selection<'_>) -> Vec<u8> {
    let mut words = [API_VERSION, SOURCE_LOCAL, RUN_INSTALL].map(u32::to_ne_bytes).concat();
    // Padding, `len` and `info`.
    words.resize(words.len().next_multiple_of(WORD) + WORD + 512, 0);
    for name in [selection.software_set, selection.mode] {
        let end = words.len() + MAX_NAME;
        words.extend(name.bytes().take(MAX_NAME - 1));
        words.resize(end, 0);
    }
    message(REQ_INSTALL, &words)
}

pub(super) fn get_status() -> Vec<u8> {
    message(GET_STATUS, &[])
}

pub(super) fn notify_stream() -> Vec<u8> {
    message(NOTIFY_STREAM, &[])
}

fn message(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut message = [MAGIC.to_ne_bytes(), kind.to_ne_bytes()].concat();
    message.extend_from_slice(data);
    message.resize(MESSAGE, 0);
    message
}

/// `None`: the daemon said no, or something else, with these words.
pub(super) fn accepted(answer: &[u8]) -> Result<(), String> {
    match (word(answer, 0), word(answer, 4)) {
        (MAGIC, ACK) => Ok(()),
        (MAGIC, _) => Err(text(answer, 8)),
        _ => Err("this is not SWUpdate".to_owned()),
    }
}

/// What the daemon is doing, and how the last installation ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub idle: bool,
    pub last_succeeded: bool,
}

pub(super) fn status(answer: &[u8]) -> Status {
    // Each answer takes the oldest of the queued notifications along, and has its status instead of the daemon's.
    let idle = word(answer, 8) == IDLE && text(answer, 8 + 12).is_empty();
    Status { idle, last_succeeded: word(answer, 12) == SUCCESS }
}

/// One installation, as the notifications tell it. What handlers print comes along, also as errors that they survive: it
/// has ended when the daemon is idle again.
#[derive(Debug, Default)]
pub(super) struct Run {
    started: bool,
    succeeded: bool,
    errors: Vec<String>,
}

impl Run {
    /// Enough to see the cause, which is said first.
    const MAX_ERRORS: usize = 4;

    pub(super) fn has_begun(&self) -> bool {
        self.started
    }

    /// `Some`: it has ended.
    pub(super) fn hear(&mut self, notification: &[u8]) -> Option<Result<(), String>> {
        let (status, level, text) = (word(notification, 8), word(notification, 16), text(notification, 20));
        match status {
            START => *self = Self { started: true, ..Self::default() },
            // Of the installation before.
            _ if !self.started => {}
            SUCCESS => self.succeeded = true,
            IDLE if self.succeeded => return Some(Ok(())),
            IDLE => return Some(Err(std::mem::take(&mut self.errors).join("; "))),
            _ if level == ERROR_LEVEL && self.errors.len() < Self::MAX_ERRORS => self.errors.push(text),
            _ => {}
        }
        None
    }
}

/// What a connection to the progress socket begins with since 2024.12: a version and `ACK`.
pub(super) const GREETING: usize = 8;

pub(super) fn is_greeting(bytes: &[u8]) -> bool {
    bytes.get(4..GREETING) == Some(b"ACK\0")
}

/// `struct progress_msg` is packed since 2026.05, and says no other version for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProgressLayout {
    pub size: usize,
    steps: usize,
}

impl ProgressLayout {
    /// The beginning of any message that is long enough to tell them apart.
    pub(super) const HEAD: usize = 24;

    pub(super) fn of(head: &[u8]) -> Self {
        // Before the number of steps come four words and a long one of zeros: nothing is downloaded by SWUpdate itself.
        let aligned = 12_usize.next_multiple_of(align_of::<u64>()) + 8;
        let steps = if word(head, 20) == 0 { aligned } else { 20 };
        let size = steps + 12 + 256 + 64 + 8 + 2048;
        Self { size: if steps == 20 { size } else { size.next_multiple_of(align_of::<u64>()) }, steps }
    }

    /// Of all steps together.
    pub(super) fn percent(self, message: &[u8]) -> Option<u8> {
        let [all, step, percent] = [0, 4, 8].map(|offset| u64::from(word(message, self.steps + offset)));
        let done = step.checked_sub(1)? * 100 + percent.min(100);
        u8::try_from(done.checked_div(all)?.min(100)).ok()
    }
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    let bytes = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.map_or(u32::MAX, |bytes| u32::from_ne_bytes(*bytes))
}

/// To its zero. Its end may be missing, and it may hold anything.
fn text(bytes: &[u8], offset: usize) -> String {
    let bytes = bytes.get(offset..).unwrap_or_default();
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let bytes = bytes.get(..bytes.len().min(200)).unwrap_or_default();
    String::from_utf8_lossy(bytes).replace(char::is_control, " ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn the_structures_have_the_sizes_and_offsets_that_a_c_compiler_gives_them() {
        let request = install(Selection { software_set: "stable", mode: "slot-b" });
        assert_eq!((request.len(), REQUEST), (3120, 1056));
        assert_eq!(&request[8 + 536..][..7], b"stable\0");
        assert_eq!(&request[8 + 792..][..7], b"slot-b\0");
        assert_eq!(ProgressLayout::of(&[0; 24]), ProgressLayout { size: 2416, steps: 24 });
        let packed = [0, 0, 0, 0, 0, 3_u32].map(u32::to_ne_bytes).concat();
        assert_eq!(ProgressLayout::of(&packed), ProgressLayout { size: 2408, steps: 20 });
    }

    #[test]
    fn a_name_that_is_too_long_is_cut_and_ended() {
        let long = "x".repeat(1000);
        let request = install(Selection { software_set: &long, mode: "m" });
        assert_eq!(request.len(), MESSAGE);
        let names = REQUEST - WORD - 2 * MAX_NAME;
        assert_eq!(&request[8 + names + MAX_NAME - 1..][..3], b"\0m\0");
    }

    #[test]
    fn only_the_daemon_says_yes() {
        assert_eq!(accepted(&message(ACK, &[])), Ok(()));
        assert_eq!(
            accepted(&message(2, b"Installation in progress\0old")),
            Err("Installation in progress".into())
        );
        assert_eq!(accepted(b"HTTP/1.1 200 OK"), Err("this is not SWUpdate".into()));
        assert_eq!(accepted(b""), Err("this is not SWUpdate".into()));
    }

    #[test]
    fn the_daemon_is_idle_when_it_says_so_and_has_nothing_to_tell() {
        let status_of = |current: u32, last: u32, text: &str| {
            let words = [current, last, 0].map(u32::to_ne_bytes).concat();
            status(&message(ACK, &[&words, text.as_bytes()].concat()))
        };
        assert_eq!(status_of(IDLE, SUCCESS, ""), Status { idle: true, last_succeeded: true });
        assert_eq!(status_of(IDLE, 4, ""), Status { idle: true, last_succeeded: false });
        assert!(!status_of(IDLE, SUCCESS, "Waiting for requests...").idle);
        assert!(!status_of(2, SUCCESS, "").idle);
        assert_eq!(status(b""), Status { idle: false, last_succeeded: false });
    }

    fn hear(notifications: &[(u32, u32, &str)]) -> Vec<Option<Result<(), String>>> {
        let mut run = Run::default();
        let hear = |(status, level, text): &(u32, u32, &str)| {
            let words = [*status, 0, *level].map(u32::to_ne_bytes).concat();
            run.hear(&message(NOTIFY_STREAM, &[&words, text.as_bytes()].concat()))
        };
        notifications.iter().map(hear).collect()
    }

    #[test]
    fn a_run_ends_when_the_daemon_is_idle_again_and_well_only_with_success() {
        let (run, failure) = (2, 4);
        let ended = |notifications: &[_]| hear(notifications).pop().unwrap();
        let start = (START, 3, "Software Update started !");
        let idle = (IDLE, 3, "Waiting for requests...");
        let error = (failure, ERROR_LEVEL, "HASH mismatch");
        assert_eq!(ended(&[start, (run, 3, "x"), (SUCCESS, 3, "SWUPDATE successful !"), idle]), Some(Ok(())));
        assert_eq!(ended(&[start, error, idle]), Some(Err("HASH mismatch".into())));
        assert_eq!(ended(&[start, idle]), Some(Err(String::new())));
        // An error that a handler survived.
        assert_eq!(ended(&[start, error, (SUCCESS, 3, ""), idle]), Some(Ok(())));
        // What the installation before said late.
        assert_eq!(ended(&[(SUCCESS, 3, ""), idle, start, error, idle]), Some(Err("HASH mismatch".into())));
        assert_eq!(hear(&[(SUCCESS, 3, ""), idle]), [None, None]);
        let many: Vec<_> = std::iter::once(start).chain([error; 1000]).chain([idle]).collect();
        assert_eq!(ended(&many), Some(Err(["HASH mismatch"; 4].join("; "))));
    }

    #[test]
    fn percent_is_of_all_steps() {
        for layout in [ProgressLayout { size: 2416, steps: 24 }, ProgressLayout { size: 2408, steps: 20 }] {
            let percent = |all: u32, step: u32, percent: u32| {
                let mut message = vec![0; layout.steps];
                message.extend([all, step, percent].map(u32::to_ne_bytes).concat());
                layout.percent(&message)
            };
            let cases = [
                ((1, 0, 0), None),
                ((0, 1, 0), None),
                ((1, 1, 42), Some(42)),
                ((1, 1, 200), Some(100)),
                ((2, 1, 50), Some(25)),
                ((2, 2, 50), Some(75)),
                ((1, 2, 0), Some(100)),
                ((1, u32::MAX, u32::MAX), Some(100)),
            ];
            for ((all, step, of), expected) in cases {
                assert_eq!(percent(all, step, of), expected, "{all} {step} {of}");
            }
        }
    }
}
