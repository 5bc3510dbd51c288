//! From the artifact's bytes to the image's, on a thread of its own and in bounded memory.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bytes::{Buf, Bytes};
use downloader::{Hashed, Hasher, SinkError, Writeback};
use tokio::sync::{mpsc, oneshot};

use crate::device::Compression;
use crate::error::DeviceError;

/// `xz -7` and `zstd -19` stay within these. Whoever asks for more memory is refused: a device has little, and what it
/// takes to decode is the sender's choice.
const XZ_MEMORY_KIB: u32 = 32 << 10;
const ZSTD_WINDOW_LOG: u32 = 23;
/// Decoded at a time.
const BLOCK: usize = 64 << 10;
/// Arrived and not yet decoded: 16 pieces of at most 16 KiB.
const QUEUE: usize = 16;
const PIECE: usize = 16 << 10;

pub(super) struct Decoder {
    input: Option<mpsc::Sender<Bytes>>,
    outcome: Option<oneshot::Receiver<Result<Decoded, DeviceError>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub(super) struct Decoded {
    /// The artifact, as it arrived.
    pub arrived: Hashed,
    /// The image, as it was sent to the slot.
    pub image: Hashed,
    pub writeback: Writeback,
}

impl Decoder {
    /// `writeback` is at its beginning.
    pub(super) fn start(compression: Compression, writeback: Writeback) -> Result<Self, DeviceError> {
        let (input, queue) = mpsc::channel(QUEUE);
        let (report, outcome) = oneshot::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let input_end = Input { queue, current: Bytes::new(), hasher: Hasher::default() };
        let thread = std::thread::Builder::new().name("artifact-decode".to_owned()).spawn(move || {
            let _ = report.send(decode(compression, input_end, writeback, &stopped)); // nobody listens after a drop
        });
        let thread = thread.map_err(|error| SinkError::storage("start a thread", error))?;
        Ok(Self { input: Some(input), outcome: Some(outcome), stop, thread: Some(thread) })
    }

    /// Counts in `taken` what was queued, also if it is dropped while waiting.
    pub(super) async fn push(&mut self, mut bytes: Bytes, taken: &mut u64) -> Result<(), DeviceError> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            let length = piece.len() as u64;
            let sent = match &self.input {
                Some(input) => input.send(piece).await.is_ok(),
                None => false,
            };
            if !sent {
                return Err(self.outcome().await.err().unwrap_or_else(ended_early));
            }
            *taken += length;
        }
        Ok(())
    }

    /// Everything was pushed: all of it is decoded, and on its way to the slot.
    pub(super) async fn finish(mut self) -> Result<Decoded, DeviceError> {
        self.input = None;
        self.outcome().await
    }

    async fn outcome(&mut self) -> Result<Decoded, DeviceError> {
        match self.outcome.take() {
            Some(outcome) => outcome.await.unwrap_or_else(|_| Err(ended_early())),
            None => Err(ended_early()),
        }
    }
}

impl Drop for Decoder {
    /// Waits, so that nothing writes to the slot any more: a block away.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.input = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic has already shown as a missing outcome
        }
    }
}

fn ended_early() -> DeviceError {
    SinkError::storage("decompress the artifact", io::Error::other("its thread has ended")).into()
}

fn decode(
    compression: Compression,
    mut input: Input,
    mut writeback: Writeback,
    stop: &AtomicBool,
) -> Result<Decoded, DeviceError> {
    let failed = |error: io::Error| DeviceError::Decompression { compression, error };
    let mut hasher = Hasher::default();
    {
        let mut image = reader(compression, &mut input).map_err(failed)?;
        let mut block = vec![0; BLOCK];
        while !stop.load(Ordering::Relaxed) {
            let decoded = match image.read(&mut block) {
                Ok(0) => break,
                Ok(read) => block.get(..read).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            hasher.update(decoded);
            // A bomb ends here: at the slot's end.
            writeback.push_blocking(Bytes::copy_from_slice(decoded))?;
        }
    }
    if !input.fill_buf().map_err(failed)?.is_empty() {
        return Err(failed(io::Error::other("there are bytes behind its end")));
    }
    Ok(Decoded { arrived: input.hasher.finish(), image: hasher.finish(), writeback })
}

/// Several streams in a row are one image, as the formats' own programs have it.
fn reader(compression: Compression, input: &mut Input) -> io::Result<Box<dyn Read + '_>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_MEMORY_KIB)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

/// What arrives, hashed as it is handed on.
struct Input {
    queue: mpsc::Receiver<Bytes>,
    current: Bytes,
    hasher: Hasher,
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.queue.blocking_recv() {
                Some(bytes) => {
                    self.hasher.update(&bytes);
                    self.current = bytes;
                }
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount.min(self.current.len()));
    }
}

impl Read for Input {
    /// Short only at the end: a decoder may take less than it asked for as the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let available = self.fill_buf()?;
            let length = available.len().min(rest.len());
            if length == 0 {
                break;
            }
            rest.iter_mut().zip(available).for_each(|(to, from)| *to = *from);
            self.consume(length);
            filled += length;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use downloader::Digest;

    use super::*;

    const ROOM: u64 = 4 << 20;
    const PACKED: [Compression; 3] = [Compression::Gzip, Compression::Xz, Compression::Zstd];

    /// What the format's own program makes of it.
    fn pack(compression: Compression, options: &[&str], bytes: &[u8]) -> Vec<u8> {
        let mut child = Command::new(compression.name())
            .arg("-c")
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    fn image() -> Vec<u8> {
        (0..1_500_000_u32).map(|i| (i * 31 + i / 251 * (i / 7919)) as u8).collect()
    }

    /// Decodes pieces of this many bytes into a slot; what the slot then gives back.
    async fn decode(compression: Compression, packed: &[u8], piece: usize) -> Result<Vec<u8>, DeviceError> {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let writeback = Writeback::start(&file, 0, ROOM)?;
        let mut decoder = Decoder::start(compression, writeback)?;
        let mut taken = 0;
        for piece in packed.chunks(piece) {
            decoder.push(Bytes::copy_from_slice(piece), &mut taken).await?;
        }
        let decoded = decoder.finish().await?;
        assert_eq!((taken, decoded.arrived.len), (packed.len() as u64, packed.len() as u64));
        assert_eq!(decoded.arrived.digest, Digest::of_bytes(packed));
        assert_eq!(decoded.writeback.finish().await?, decoded.image);
        let mut bytes = vec![0; usize::try_from(decoded.image.len).unwrap()];
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, 0).unwrap();
        Ok(bytes)
    }

    #[tokio::test]
    async fn what_the_formats_own_programs_pack_is_unpacked_in_pieces_of_any_size() {
        let image = image();
        for compression in PACKED {
            let packed = pack(compression, &[], &image);
            let twice = [packed.as_slice(), &packed].concat();
            for piece in [1009, 16 << 10, 1 << 20] {
                assert!(decode(compression, &packed, piece).await.unwrap() == image, "{compression:?}");
                // As `cat a.gz b.gz` makes them, with the boundary anywhere in a piece.
                let expected = [image.as_slice(), &image].concat();
                assert!(decode(compression, &twice, piece).await.unwrap() == expected, "{compression:?}");
            }
        }
        for strongest in [(Compression::Xz, "-7"), (Compression::Zstd, "-19"), (Compression::Gzip, "-9")] {
            let packed = pack(strongest.0, &[strongest.1], &image);
            assert!(decode(strongest.0, &packed, 4096).await.unwrap() == image, "{strongest:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_whole_is_no_image() {
        let image = &image()[..100_000];
        for compression in PACKED {
            let packed = pack(compression, &[], image);
            let with = |at: usize, byte: u8| {
                let mut damaged = packed.clone();
                damaged[at] ^= byte;
                damaged
            };
            let cases = [
                ("cut off", packed[..packed.len() - 1].to_vec()),
                ("cut in half", packed[..packed.len() / 2].to_vec()),
                ("something behind it", [packed.as_slice(), b"and more"].concat()),
                ("another header", with(0, 0x80)),
                ("damaged", with(packed.len() / 2, 0xff)),
                ("something else", image.to_vec()),
            ];
            for (case, bytes) in cases {
                let error = decode(compression, &bytes, 16 << 10).await.unwrap_err();
                assert_eq!(error.reason(), "decompression-failed", "{compression:?} {case}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn a_bomb_ends_at_the_end_of_the_slot() {
        let zeros = vec![0; 64 << 20];
        for compression in PACKED {
            let bomb = pack(compression, &[], &zeros);
            let error = decode(compression, &bomb, 16 << 10).await.unwrap_err();
            assert_eq!(error.reason(), "no-space", "{compression:?}: {error}");
        }
    }

    #[tokio::test]
    async fn what_needs_more_memory_than_a_device_has_is_refused() {
        let large = image().repeat(24);
        let cases = [(Compression::Xz, vec!["-9"]), (Compression::Zstd, vec!["--long=27", "--no-progress"])];
        for (compression, options) in cases {
            let packed = pack(compression, &options, &large);
            let error = decode(compression, &packed, 16 << 10).await.unwrap_err();
            assert_eq!(error.reason(), "decompression-failed", "{error}");
            assert!(error.to_string().contains("memory"), "{error}");
        }
    }

    /// A decoder that is dropped half-way ends, and leaves the slot alone.
    #[tokio::test]
    async fn a_drop_in_the_middle_waits_for_the_thread() {
        for compression in PACKED {
            let packed = pack(compression, &[], &image());
            let file = Arc::new(tempfile::tempfile().unwrap());
            let mut decoder = Decoder::start(compression, Writeback::start(&file, 0, ROOM).unwrap()).unwrap();
            decoder.push(packed[..packed.len() / 2].to_vec().into(), &mut 0).await.unwrap();
            drop(decoder);
            assert_eq!(Arc::strong_count(&file), 1);
        }
    }
}
