//! Which URLs the agent may fetch from, and how they are shown: never with their query, which is what makes a
//! presigned URL a secret.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use reqwest::Url;

/// An accepted URL. Shown without query and fragment, by `Display` and `Debug` alike; there is no way to have the
/// whole text but to send the request.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceUrl(Url);

/// Why a URL was refused. Holds nothing of the URL but its scheme or host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("it is not an absolute URL: {0}")]
    Invalid(String),
    #[error("plain http is only allowed to this machine, and `{host}` is not; expected https")]
    PlainHttp { host: String },
    #[error("its scheme is `{0}`, expected https")]
    Scheme(String),
    #[error("it holds a user name or a password")]
    Credentials,
    #[error("{from} redirects to plain http on `{host}`")]
    Downgrade { from: String, host: String },
    #[error("more than {limit} redirects")]
    TooManyRedirects { limit: u32 },
}

impl SourceUrl {
    /// https; plain http to a loopback address, or to anywhere if `allow_http`.
    pub fn parse(text: &str, allow_http: bool) -> Result<Self, UrlError> {
        let url = Url::parse(text).map_err(|e| UrlError::Invalid(e.to_string()))?;
        Self::accept(url, allow_http)
    }

    /// A file on this machine. No document can name one: `parse` refuses the scheme.
    pub fn local(path: &Path) -> Result<Self, UrlError> {
        let absolute = std::path::absolute(path).map_err(|e| UrlError::Invalid(e.to_string()))?;
        let url = Url::from_file_path(&absolute);
        url.map(Self).map_err(|()| UrlError::Invalid(format!("{} is not a path", absolute.display())))
    }

    pub(crate) fn local_path(&self) -> Option<PathBuf> {
        if self.0.scheme() == "file" { self.0.to_file_path().ok() } else { None }
    }

    fn accept(mut url: Url, allow_http: bool) -> Result<Self, UrlError> {
        match url.scheme() {
            "https" => {}
            "http" if allow_http || is_loopback(&url) => {}
            "http" => return Err(UrlError::PlainHttp { host: host(&url) }),
            other => return Err(UrlError::Scheme(other.chars().take(32).collect())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::Credentials);
        }
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// Where a `Location` leads. What began over https stays there.
    pub(crate) fn redirected(&self, location: &str, allow_http: bool) -> Result<Self, UrlError> {
        let target = self.0.join(location).map_err(|e| UrlError::Invalid(e.to_string()))?;
        if self.0.scheme() == "https" && target.scheme() == "http" {
            return Err(UrlError::Downgrade { from: self.to_string(), host: host(&target) });
        }
        Self::accept(target, allow_http)
    }

    pub(crate) fn expose(&self) -> Url {
        self.0.clone()
    }
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.0.path())
    }
}

impl fmt::Debug for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_or_this_machine() {
        for accepted in [
            "https://bucket.s3.eu-west-1.amazonaws.com/fw.bin?X-Amz-Signature=abc",
            "HTTPS://example.com:8443/a/b",
            "http://127.0.0.1:8080/a",
            "http://127.9.9.9/a",
            "http://[::1]:80/a",
            "http://localhost/a",
            "http://LOCALHOST/a",
        ] {
            assert!(SourceUrl::parse(accepted, false).is_ok(), "{accepted}");
        }
        assert!(SourceUrl::parse("http://example.com/a", true).is_ok());
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        use UrlError::*;
        let plain = |host: &str| PlainHttp { host: host.to_owned() };
        let cases = [
            ("http://example.com/a", plain("example.com")),
            ("http://localhost.example.com/a", plain("localhost.example.com")),
            ("http://127.0.0.1.example.com/a", plain("127.0.0.1.example.com")),
            ("http://128.0.0.1/a", plain("128.0.0.1")),
            ("http://[::2]/a", plain("[::2]")),
            ("ftp://example.com/a", Scheme("ftp".to_owned())),
            ("file:///etc/shadow", Scheme("file".to_owned())),
            ("s3://bucket/key", Scheme("s3".to_owned())),
            ("https://user@example.com/a", Credentials),
            ("https://user:pw@example.com/a", Credentials),
            ("https://:pw@example.com/a", Credentials),
        ];
        for (text, expected) in cases {
            assert_eq!(SourceUrl::parse(text, false), Err(expected), "{text}");
        }
        for text in ["", "fw.bin", "/fw.bin", "https://", "https://exa mple.com/", "//example.com/a"] {
            assert!(matches!(SourceUrl::parse(text, true), Err(Invalid(_))), "{text}");
        }
        assert_eq!(SourceUrl::parse("ftp://example.com/a", true), Err(Scheme("ftp".to_owned())));
    }

    #[test]
    fn the_query_is_never_shown() {
        let url =
            SourceUrl::parse("https://example.com:8443/a%20b?X-Amz-Signature=SECRET#SECRET", false).unwrap();
        for shown in [url.to_string(), format!("{url:?}"), format!("{:#?}", Some(&url))] {
            assert!(shown.contains("https://example.com:8443/a%20b"), "{shown}");
            assert!(!shown.contains("SECRET") && !shown.contains('?'), "{shown}");
        }
        let error = SourceUrl::parse("http://example.com/a?SECRET", false).unwrap_err();
        assert!(!format!("{error}{error:?}").contains("SECRET"));
    }

    #[test]
    fn a_redirect_stays_on_https() {
        let secure = SourceUrl::parse("https://example.com/a/b", false).unwrap();
        assert_eq!(secure.redirected("../c?q", false).unwrap().to_string(), "https://example.com/c");
        assert_eq!(secure.redirected("//other/x", false).unwrap().to_string(), "https://other/x");
        let downgrade = secure.redirected("http://127.0.0.1/x?SECRET", true).unwrap_err();
        assert!(matches!(downgrade, UrlError::Downgrade { .. }), "{downgrade}");
        assert!(!downgrade.to_string().contains("SECRET"));
        assert_eq!(secure.redirected("https://a:b@c/", false), Err(UrlError::Credentials));

        let plain = SourceUrl::parse("http://127.0.0.1/a", false).unwrap();
        assert!(plain.redirected("http://localhost/b", false).is_ok());
        assert!(plain.redirected("https://example.com/b", false).is_ok());
        assert!(plain.redirected("http://example.com/b", false).is_err());
    }
}
