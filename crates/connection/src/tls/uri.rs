//! The name of a key in a token: a PKCS#11 URI (RFC 7512), as far as it names one private key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

const SCHEME: &str = "pkcs11:";
/// What tells the token, and the key in it.
const KNOWN: [&str; 8] = ["token", "manufacturer", "model", "serial", "slot-id", "object", "id", "type"];

#[derive(Clone, PartialEq, Eq)]
pub struct Uri {
    #[cfg_attr(not(feature = "pkcs11"), allow(dead_code, reason = "it is understood all the same"))]
    attributes: BTreeMap<&'static str, Vec<u8>>,
    /// The library that speaks to the token.
    pub module: PathBuf,
    /// The file with the PIN.
    pub pin: Option<PathBuf>,
    shown: String,
}

/// Values are not shown: one of them may be a PIN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a PKCS#11 URI that can be used: {0}")]
pub struct UriError(String);

impl Uri {
    /// `None` for what is a file.
    pub fn of(private_key: &Path) -> Option<Result<Self, UriError>> {
        let text = private_key.to_str()?.strip_prefix(SCHEME)?;
        Some(parse(text).map_err(UriError))
    }

    pub fn is_one(private_key: &str) -> bool {
        private_key.starts_with(SCHEME)
    }

    #[cfg(feature = "pkcs11")]
    pub(super) fn get(&self, attribute: &str) -> Option<&[u8]> {
        self.attributes.get(attribute).map(Vec::as_slice)
    }
}

/// Without the query, in which the PIN's place is.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.shown)
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn parse(text: &str) -> Result<Uri, String> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let mut attributes = BTreeMap::new();
    for part in path.split(';').filter(|part| !part.is_empty()) {
        let (name, value) = pair(part)?;
        let known = KNOWN.into_iter().find(|known| *known == name);
        let name = known.ok_or_else(|| format!("`{name}` is not understood"))?;
        if attributes.insert(name, decode(name, value)?).is_some() {
            return Err(format!("`{name}` is there twice"));
        }
    }
    if attributes.get("type").is_some_and(|kind| kind != b"private") {
        return Err("expected `type=private`, or none".to_owned());
    }
    if !attributes.contains_key("object") && !attributes.contains_key("id") {
        return Err("it names no key: expected `object=` or `id=`".to_owned());
    }
    let (mut module, mut pin) = (None, None);
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = pair(part)?;
        let file = |name| {
            let path =
                String::from_utf8(decode(name, value)?).map_err(|_| format!("`{name}` is not UTF-8"))?;
            let path = PathBuf::from(path.strip_prefix("file:").unwrap_or(&path));
            path.is_absolute()
                .then_some(path)
                .ok_or_else(|| format!("`{name}` is not the whole path of a file"))
        };
        match name {
            "module-path" => module = Some(file("module-path")?),
            "pin-source" => pin = Some(file("pin-source")?),
            "pin-value" => {
                return Err("a PIN belongs into a file of its own, and not into a configuration: `pin-source=file:/…`"
                    .to_owned());
            }
            other => return Err(format!("`{other}` is not understood")),
        }
    }
    let module = module.ok_or("expected `?module-path=/…`, the token's library")?;
    Ok(Uri { attributes, module, pin, shown: path.to_owned() })
}

fn pair(part: &str) -> Result<(&str, &str), String> {
    part.split_once('=').ok_or_else(|| "an attribute has no `=`".to_owned())
}

fn decode(name: &str, value: &str) -> Result<Vec<u8>, String> {
    let mut bytes = value.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => decoded.push((high * 16 + low) as u8),
            _ => return Err(format!("`{name}` has a `%` that is not followed by two hexadecimal digits")),
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Result<Uri, UriError>> {
        Uri::of(Path::new(text))
    }

    #[test]
    fn what_names_one_key_is_understood() {
        assert_eq!(read("/etc/fleethand/identity/private.key"), None);
        let text = "pkcs11:token=My%20token;object=k;id=%01%ff;type=private?module-path=/usr/lib/m.so&pin-source=file:/p%3F";
        let uri = read(text).unwrap().unwrap();
        assert_eq!(uri.attributes["token"], b"My token");
        assert_eq!(uri.attributes["id"], [1, 255]);
        assert_eq!(
            (uri.module.to_str(), uri.pin.as_deref()),
            (Some("/usr/lib/m.so"), Some(Path::new("/p?")))
        );
        assert_eq!(uri.to_string(), "pkcs11:token=My%20token;object=k;id=%01%ff;type=private");
        let short = read("pkcs11:object=k?module-path=/m.so").unwrap().unwrap();
        assert_eq!(short.pin, None);
    }

    #[test]
    fn what_does_not_is_refused_without_a_word_of_a_secret() {
        for (text, problem) in [
            ("pkcs11:", "names no key"),
            ("pkcs11:token=t?module-path=/m", "names no key"),
            ("pkcs11:object=k", "expected `?module-path"),
            ("pkcs11:object=k?module-path=m.so", "not the whole path"),
            ("pkcs11:object=k;type=cert?module-path=/m", "type=private"),
            ("pkcs11:object=k;object=l?module-path=/m", "`object` is there twice"),
            ("pkcs11:object=%4?module-path=/m", "hexadecimal"),
            ("pkcs11:object=%zz?module-path=/m", "hexadecimal"),
            ("pkcs11:object=k;secret?module-path=/m", "no `=`"),
            ("pkcs11:object=k;library-version=3?module-path=/m", "`library-version` is not understood"),
            ("pkcs11:object=k?module-path=/m&pin-source=|/bin/secret", "not the whole path"),
            ("pkcs11:object=k?module-path=/m&pin-value=secret", "a file of its own"),
        ] {
            let error = read(text).unwrap().unwrap_err().to_string();
            assert!(error.contains(problem) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
