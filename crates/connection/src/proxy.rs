//! The way through an HTTP proxy: CONNECT with basic authentication, and what may be answered.

use std::fmt;
use std::io;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::head::{self, HeadError};

/// Of what a proxy says.
const SHOWN: usize = 40;

/// How the endpoint is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    #[default]
    None,
    /// `HTTPS_PROXY` or `ALL_PROXY`, but for what `NO_PROXY` names; the same in small letters.
    Environment,
    Http(HttpProxy),
}

#[derive(Clone, PartialEq, Eq)]
pub struct HttpProxy {
    host: String,
    port: u16,
    login: Option<Login>,
}

#[derive(Clone, PartialEq, Eq)]
struct Login {
    user: String,
    password: String,
}

/// A proxy's URL cannot be used. What it says is not repeated: it may hold a password.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("expected http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with %XX for what is special in a URL")]
pub struct MalformedProxy;

/// Why there is no way through a proxy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    #[error("what HTTPS_PROXY or ALL_PROXY names cannot be used: {0}")]
    Environment(MalformedProxy),
    #[error("it does not let {target} through ({answer}): does it allow CONNECT to this host and port?")]
    Forbidden { target: String, answer: String },
    #[error("it wants to know who asks ({answer}): are the user and the password of `proxy` right?")]
    Authentication { answer: String },
    #[error("it wants to be asked by way of {scheme}, and only Basic is known here ({answer})")]
    Scheme { scheme: String, answer: String },
    #[error("it does not reach {target} ({answer})")]
    Refused { target: String, answer: String },
    #[error("it is no HTTP proxy: {0}")]
    NotAProxy(String),
    #[error("it closed the connection instead of answering")]
    Closed,
    #[error("{0}")]
    Broken(io::Error),
}

impl Proxy {
    /// The one to ask for this endpoint, if there is one.
    pub(crate) fn of(&self, host: &str, port: u16) -> Result<Option<HttpProxy>, ProxyError> {
        match self {
            Self::None => Ok(None),
            Self::Http(proxy) => Ok(Some(proxy.clone())),
            Self::Environment => HttpProxy::from_environment(&Matcher::from_env(), host, port),
        }
    }
}

impl HttpProxy {
    /// A password that is not in the URL may be given beside it.
    pub fn parse(url: &str, password: Option<String>) -> Result<Self, MalformedProxy> {
        let rest = url.trim_end_matches('/').strip_prefix("http://").ok_or(MalformedProxy)?;
        let (login, address) = match rest.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, rest),
        };
        let (host, port) = address.rsplit_once(':').ok_or(MalformedProxy)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(MalformedProxy)?;
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(MalformedProxy);
        }
        let login = match (login, password) {
            (None, None) => None,
            (None, Some(_)) => return Err(MalformedProxy),
            (Some(login), password) => Some(Login::parse(login, password).ok_or(MalformedProxy)?),
        };
        Ok(Self { host: host.to_owned(), port, login })
    }

    fn from_environment(matcher: &Matcher, host: &str, port: u16) -> Result<Option<Self>, ProxyError> {
        let Ok(target) = format!("https://{}", authority(host, port)).parse() else { return Ok(None) };
        let Some(found) = matcher.intercept(&target) else { return Ok(None) };
        let malformed = ProxyError::Environment(MalformedProxy);
        let uri = found.uri();
        let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(malformed) };
        let address = format!("http://{}", authority(host, uri.port_u16().unwrap_or(80)));
        let mut proxy = Self::parse(&address, None).map_err(ProxyError::Environment)?;
        proxy.login = match found.basic_auth().map(|header| header.to_str().ok().and_then(Login::from_header))
        {
            Some(None) => return Err(malformed),
            Some(login) => login,
            None => None,
        };
        Ok(Some(proxy))
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Without the password: for people.
    pub fn shown(&self) -> String {
        let login = self.login.as_ref().map(|login| format!("{}@", encoded(&login.user)));
        format!("http://{}{}", login.unwrap_or_default(), authority(&self.host, self.port))
    }

    /// With the password: for programs that go through the same proxy.
    pub fn url(&self) -> String {
        let login = |login: &Login| format!("{}:{}@", encoded(&login.user), encoded(&login.password));
        let login = self.login.as_ref().map(login).unwrap_or_default();
        format!("http://{login}{}", authority(&self.host, self.port))
    }

    pub fn has_password(&self) -> bool {
        self.login.as_ref().is_some_and(|login| !login.password.is_empty())
    }

    /// From a connection to the proxy to one that ends at `host:port`.
    pub(crate) async fn tunnel(&self, tcp: &mut TcpStream, host: &str, port: u16) -> Result<(), ProxyError> {
        let target = authority(host, port);
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(Login { user, password }) = &self.login {
            let login = BASE64_STANDARD.encode(format!("{user}:{password}"));
            request += &format!("Proxy-Authorization: Basic {login}\r\n");
        }
        request += "\r\n";
        tcp.write_all(request.as_bytes()).await.map_err(broken)?;
        let head = match head::read(tcp).await {
            Ok(head) => head,
            Err(HeadError::Io(error)) => return Err(broken(error)),
            Err(other) => return Err(ProxyError::NotAProxy(other.to_string())),
        };
        let answer = head.status_line();
        match head.status {
            200..=299 => Ok(()),
            407 => {
                Err(match head.field("Proxy-Authenticate").and_then(|schemes| schemes.split(' ').next()) {
                    Some(scheme) if !scheme.eq_ignore_ascii_case("basic") => {
                        ProxyError::Scheme { scheme: scheme.escape_default().take(SHOWN).collect(), answer }
                    }
                    _ => ProxyError::Authentication { answer },
                })
            }
            401 | 403 | 405 => Err(ProxyError::Forbidden { target, answer }),
            // A web server takes CONNECT for a file's name, or for nothing it knows.
            400 | 404 | 501 => Err(ProxyError::NotAProxy(format!("it answers {answer}"))),
            _ => Err(ProxyError::Refused { target, answer }),
        }
    }
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Login {
    fn parse(text: &str, beside: Option<String>) -> Option<Self> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
        let (user, password) = match (text.split_once(':'), beside) {
            (Some((user, password)), None) => (decoded(user)?, decoded(password)?),
            (None, beside) => (decoded(text)?, beside.unwrap_or_default()),
            (Some(_), Some(_)) => return None,
        };
        // RFC 7617: the first colon ends the user's name. Line ends would end the header.
        let legal =
            !user.is_empty() && !user.contains(':') && !(user.clone() + &password).contains(char::is_control);
        legal.then_some(Self { user, password })
    }

    fn from_header(header: &str) -> Option<Self> {
        let text = String::from_utf8(BASE64_STANDARD.decode(header.strip_prefix("Basic ")?).ok()?).ok()?;
        let (user, password) = text.split_once(':').unwrap_or((&text, ""));
        Some(Self { user: user.to_owned(), password: password.to_owned() })
    }
}

fn encoded(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

/// `host:port`, as URLs and CONNECT have it.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn broken(error: io::Error) -> ProxyError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            ProxyError::Closed
        }
        _ => ProxyError::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_understood_as_browsers_do_and_shown_without_its_password() {
        let cases = [
            ("http://proxy:3128", None, "http://proxy:3128", "http://proxy:3128"),
            ("http://10.0.0.1:8080/", None, "http://10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("http://[fd00::1]:8080", None, "http://[fd00::1]:8080", "http://[fd00::1]:8080"),
            ("http://u:p%40ss@proxy:1", None, "http://u@proxy:1", "http://u:p%40ss@proxy:1"),
            ("http://u:a@b@proxy:1", None, "http://u@proxy:1", "http://u:a%40b@proxy:1"),
            ("http://u@proxy:1", Some("s:cret"), "http://u@proxy:1", "http://u:s%3Acret@proxy:1"),
        ];
        for (text, password, shown, url) in cases {
            let proxy = HttpProxy::parse(text, password.map(str::to_owned)).unwrap();
            assert_eq!((proxy.shown().as_str(), proxy.url().as_str()), (shown, url));
            assert_eq!(format!("{proxy:?}"), shown);
            assert_eq!(HttpProxy::parse(&proxy.url(), None).unwrap(), proxy);
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_being_repeated() {
        for (text, password) in [
            ("", None),
            ("proxy:3128", None),
            ("https://proxy:3128", None),
            ("socks5://proxy:1080", None),
            ("http://proxy", None),
            ("http://proxy:0", None),
            ("http://:3128", None),
            ("http://proxy/path:3128", None),
            ("http://:secret@proxy:3128", None),
            ("http://u%0d%0aX:secret@proxy:3128", None),
            ("http://u:secret@proxy:3128", Some("another")),
            ("http://proxy:3128", Some("nobody's")),
        ] {
            let refused = HttpProxy::parse(text, password.map(str::to_owned)).unwrap_err();
            assert!(!refused.to_string().contains("secret"));
        }
    }

    #[test]
    fn the_environment_names_a_proxy_and_its_exceptions() {
        let of = |url: &str, no: &str, host: &str| {
            let matcher = Matcher::builder().https(url.to_owned()).no(no.to_owned()).build();
            HttpProxy::from_environment(&matcher, host, 8883).map(|found| found.map(|proxy| proxy.url()))
        };
        let found = of("http://us%40er:p:w@proxy:3128", "", "endpoint").unwrap();
        assert_eq!(found.as_deref(), Some("http://us%40er:p%3Aw@proxy:3128"));
        assert_eq!(of("proxy", "", "endpoint").unwrap().as_deref(), Some("http://proxy:80"));
        assert_eq!(of("http://proxy:1", ".amazonaws.com", "x.amazonaws.com").unwrap(), None);
        assert_eq!(of("", "", "endpoint").unwrap(), None);
        assert!(of("socks5://proxy:1080", "", "endpoint").is_err());
        assert_eq!(of("http://proxy:1", "10.0.0.0/8", "10.1.2.3").unwrap(), None);
    }
}
