//! Who else writes the files: inotify on their folders, because a file that is replaced is another file.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;

/// What the kernel puts before a name: watch, mask, cookie, and how long the name is; each four bytes.
const HEAD: usize = 16;
/// Room for an event with the longest name.
const BUFFER: usize = HEAD + 256;

pub struct Watch {
    /// Of the events, which are read like a pipe.
    events: Option<Receiver>,
    /// In the order of the files. Two of one name in two folders are looked at together, which does no harm.
    names: Vec<OsString>,
}

impl Watch {
    /// What cannot be watched is looked at when something else happens to it.
    pub fn new<'p>(files: impl Iterator<Item = &'p Path>) -> Self {
        let files: Vec<_> = files.collect();
        let names = files.iter().map(|file| file.file_name().unwrap_or_default().to_owned()).collect();
        if files.is_empty() {
            return Self { events: None, names };
        }
        let events = begin(&files);
        let events = events.inspect_err(|error| tracing::warn!(%error, "edits of files are not seen")).ok();
        Self { events, names }
    }

    /// Which of the files were written, moved or removed; never, where nothing is watched. Cancel-safe.
    pub async fn written(&mut self) -> Vec<usize> {
        let Some(events) = &self.events else { return std::future::pending().await };
        loop {
            if events.readable().await.is_err() {
                return std::future::pending().await;
            }
            // As much as there is at the moment: an editor says several things about one file.
            let mut seen = Vec::new();
            let mut buffer = [0; 4 * BUFFER];
            while let Ok(length @ 1..) = events.try_read(&mut buffer) {
                self.files_in(buffer.get(..length).unwrap_or_default(), &mut seen);
            }
            if !seen.is_empty() {
                return seen;
            }
        }
    }

    fn files_in(&self, mut events: &[u8], seen: &mut Vec<usize>) {
        while let Some((head, rest)) = events.split_at_checked(HEAD) {
            let word = |at: usize| head.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
            let (mask, length) = (word(4).unwrap_or_default(), word(12).unwrap_or_default() as usize);
            let Some((name, rest)) = rest.split_at_checked(length) else { return };
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            // So much happened that nobody knows to which.
            let lost = mask & AddWatchFlags::IN_Q_OVERFLOW.bits() != 0;
            let meant = |file: &OsString| lost || file.as_bytes() == name;
            let files = self.names.iter().enumerate().filter(|(_, file)| meant(file));
            seen.extend(files.map(|(at, _)| at).filter(|at| !seen.contains(at)).collect::<Vec<_>>());
            events = rest;
        }
    }
}

fn begin(files: &[&Path]) -> std::io::Result<Receiver> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE;
    for file in files {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Err(error) = inotify.add_watch(folder, flags) {
            tracing::warn!(file = %file.display(), %error, "edits of this file are not seen");
        }
    }
    Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_that_are_written_replaced_or_removed_are_named_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let (a, b) = (file("a.json"), file("b.json"));
        let mut watch = Watch::new([a.as_path(), b.as_path()].into_iter());
        std::fs::write(file("other"), "1").unwrap();
        std::fs::write(&b, "1").unwrap();
        assert_eq!(watch.written().await, [1]);
        std::fs::write(file("new"), "2").unwrap();
        std::fs::rename(file("new"), &a).unwrap();
        assert_eq!(watch.written().await, [0]);
        std::fs::remove_file(&a).unwrap();
        std::fs::remove_file(&b).unwrap();
        assert_eq!(watch.written().await, [0, 1]);
    }

    #[test]
    fn what_is_torn_is_read_as_far_as_it_goes() {
        let watch = Watch { events: None, names: vec!["a".into()] };
        let event = |mask: u32, name: &[u8]| {
            let words = [1, mask, 0, name.len() as u32];
            [words.map(u32::to_ne_bytes).concat(), name.to_vec()].concat()
        };
        let whole = event(8, b"a\0\0\0");
        for length in 0..whole.len() {
            let mut seen = Vec::new();
            watch.files_in(&whole[..length], &mut seen);
            assert_eq!(seen, [0; 0]);
        }
        let mut seen = Vec::new();
        watch.files_in(&[whole, event(0x4000, b"")].concat(), &mut seen);
        assert_eq!(seen, [0]);
    }
}
