//! What is in a bundle: `rauc info`, which checks its signature first. Every version of RAUC has it; over D-Bus only
//! newer ones tell of the images.

use std::collections::BTreeMap;
use std::path::Path;

use downloader::Digest;
use serde::Deserialize;

use super::error::{RaucError, one_line};
use crate::Halt;
use crate::command::{self, CommandSpec};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Manifest {
    pub compatible: String,
    images: Vec<BTreeMap<String, Image>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Image {
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    pub filename: Option<String>,
    #[serde(default)]
    checksum: Option<String>,
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    hooks: Vec<String>,
}

/// What is written into a slot byte for byte, and so can be read back there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    pub class: String,
    pub file: String,
    pub digest: Digest,
    pub size: u64,
}

pub(super) async fn inspect(rauc: &CommandSpec, bundle: &Path) -> Result<Manifest, RaucError> {
    let mut spec = rauc.clone();
    let more = ["info".to_owned(), "--output-format=json".to_owned(), bundle.display().to_string()];
    spec.arguments.extend(more);
    let mut printed = Vec::new();
    let mut keep = |bytes: &[u8]| printed.extend_from_slice(bytes);
    // Its own halt: what stops the operation is asked for before anything is written.
    command::run_watched(&spec, &[], &Halt::default(), &mut keep).await.map_err(RaucError::BundleRefused)?;
    Manifest::parse(&String::from_utf8_lossy(&printed))
}

impl Manifest {
    fn parse(text: &str) -> Result<Self, RaucError> {
        serde_json::from_str(text.trim())
            .map_err(|error| RaucError::BundleUnknown(one_line(&error.to_string())))
    }

    /// The images for this variant of the device; one without a variant is for all that have none of their own.
    fn images<'a>(&'a self, variant: &'a str) -> impl Iterator<Item = (&'a String, &'a Image)> {
        let all = || self.images.iter().flatten();
        let own = move |class: &String| {
            all().any(|(other, image)| other == class && image.variant.as_deref() == Some(variant))
        };
        all().filter(move |(class, image)| match &image.variant {
            Some(theirs) => theirs == variant,
            None => !own(class),
        })
    }

    /// Says no to a file of which not even the length or the digest makes sense.
    pub(super) fn raw(&self, variant: &str) -> Result<Vec<Raw>, RaucError> {
        let mut found = Vec::new();
        for (class, image) in self.images(variant) {
            let (Some(file), true) = (&image.filename, image.is_raw()) else { continue };
            let unknown = || RaucError::BundleUnknown(format!("no length and sha256 for {}", one_line(file)));
            let digest = image.checksum.as_ref().and_then(|hex| format!("sha256:{hex}").parse().ok());
            let (digest, size) = digest.zip(image.size).ok_or_else(unknown)?;
            found.push(Raw { class: class.clone(), file: file.clone(), digest, size });
        }
        Ok(found)
    }
}

impl Image {
    /// Not an archive that is unpacked, not a volume of a flash translation layer, and nothing that a hook writes or
    /// changes.
    fn is_raw(&self) -> bool {
        let name = self.filename.as_deref().unwrap_or_default();
        let raw = [".img", ".ext4", ".squashfs", ".vfat", ".erofs"].iter().any(|end| name.ends_with(end));
        raw && !self.hooks.iter().any(|hook| hook == "install" || hook == "post-install")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(images: &str, variant: &str) -> Result<Vec<(String, u64)>, String> {
        let text =
            format!(r#"{{"compatible":"board","version":"2","build":null,"hooks":[],"images":{images}}}"#);
        let raw = Manifest::parse(&text).and_then(|manifest| manifest.raw(variant));
        raw.map(|all| all.into_iter().map(|raw| (raw.file, raw.size)).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn only_what_is_written_byte_for_byte_can_be_read_back() {
        let image = |class: &str, file: &str, more: &str| {
            let sum = "ab".repeat(32);
            format!(r#"{{"{class}":{{"filename":"{file}","checksum":"{sum}","size":7{more}}}}}"#)
        };
        let cases = [
            (image("rootfs", "a.img", ""), "", vec!["a.img"]),
            (image("rootfs", "a.ext4", r#","hooks":["pre-install"],"variant":null"#), "", vec!["a.ext4"]),
            (image("rootfs", "a.tar.xz", ""), "", vec![]),
            (image("rootfs", "a.img", r#","hooks":["install"]"#), "", vec![]),
            (image("rootfs", "a.img", r#","hooks":["post-install"]"#), "", vec![]),
            (r#"{"rootfs":{"filename":null,"hooks":["install"]}}"#.to_owned(), "", vec![]),
            ([image("a", "a.img", ""), image("b", "b.vfat", "")].join(","), "", vec!["a.img", "b.vfat"]),
            (
                [image("a", "all.img", ""), image("a", "x.img", r#","variant":"x""#)].join(","),
                "x",
                vec!["x.img"],
            ),
            (
                [image("a", "all.img", ""), image("a", "x.img", r#","variant":"x""#)].join(","),
                "y",
                vec!["all.img"],
            ),
        ];
        for (images, variant, expected) in cases {
            let found = raw(&format!("[{images}]"), variant).unwrap();
            let expected: Vec<_> = expected.into_iter().map(|file| (file.to_owned(), 7)).collect();
            assert_eq!(found, expected, "{images} {variant}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for images in [
            "7",
            r#"[{"rootfs":{"filename":"a.img","size":7}}]"#,
            r#"[{"rootfs":{"filename":"a.img","checksum":"ab","size":7}}]"#,
            r#"[{"rootfs":{"filename":"a.img","checksum":"ab","size":-1}}]"#,
        ] {
            assert!(raw(images, "").unwrap_err().starts_with("what RAUC says"), "{images}");
        }
    }
}
