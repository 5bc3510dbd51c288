//! A compressed artifact on its way into a slot: an image that is not longer than the slot, and that the slot gives back,
//! or a sentence. The first two bytes say how it is packed and in what pieces it arrives. The module is the device's own, by
//! way of a link.
#![no_main]
#![allow(dead_code)]

mod decode;
mod device {
    pub use ::device::Compression;
}
mod error {
    pub use ::device::DeviceError;
}

use std::sync::Arc;

use bytes::Bytes;
use decode::Decoder;
use device::Compression;
use downloader::{Digest, Hashed, Writeback};
use error::DeviceError;
use libfuzzer_sys::fuzz_target;

const ROOM: u64 = 256 << 10;
const PACKED: [Compression; 3] = [Compression::Gzip, Compression::Xz, Compression::Zstd];

async fn decode(compression: Compression, packed: &[u8], piece: usize) -> Result<(Hashed, Hashed), DeviceError> {
    let slot = Arc::new(tempfile::tempfile().unwrap());
    let mut decoder = Decoder::start(compression, Writeback::start(&slot, 0, ROOM)?)?;
    let mut taken = 0;
    for piece in packed.chunks(piece) {
        decoder.push(Bytes::copy_from_slice(piece), &mut taken).await?;
    }
    let decoded = decoder.finish().await?;
    assert!(decoded.arrived.len == packed.len() as u64 && decoded.arrived.digest == Digest::of_bytes(packed));
    Ok((decoded.image, decoded.writeback.finish().await?))
}

fuzz_target!(|bytes: &[u8]| {
    let [kind, piece, packed @ ..] = bytes else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let compression = PACKED[usize::from(*kind) % PACKED.len()];
    match runtime.block_on(decode(compression, packed, usize::from(*piece) * 16 + 1)) {
        Ok((image, written)) => assert!(image == written && image.len <= ROOM),
        Err(error) => {
            let reason = error.reason();
            assert!(["decompression-failed", "no-space"].contains(&reason), "{reason}: {error}");
        }
    }
});
