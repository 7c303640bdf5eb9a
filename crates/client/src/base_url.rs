//! The authority's base URL.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

/// The longest path of a unix socket that the kernel accepts, in bytes.
const LONGEST_SOCKET_PATH: usize = 107;

/// The authority's base URL: `https`, or `http` to this host, without any part that could hold a secret. An optional
/// path prefix is kept, without a slash at its end. `unix:` with an absolute path is a unix socket of this host.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// The URL of requests: on a unix socket, that of this host.
    url: Url,
    text: String,
    socket: Option<PathBuf>,
}

/// Why a text is not a base URL. Never repeats the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseUrlError {
    /// The text is not a URL.
    Malformed,
    /// The scheme is neither `https` nor `http`.
    Scheme,
    /// The scheme is `http`, but the host is another one.
    Unencrypted,
    /// The URL contains a user name or a password.
    UserInfo,
    /// The URL contains a query or a fragment.
    Trailing,
    /// The path contains the API's own path, which is added to every request.
    ApiPath,
    /// `unix:` is followed by something that is not the absolute path of a socket.
    Socket,
    /// `unix:` is followed by slashes, as in a URL with a host.
    SocketSlashes,
    /// The text is a path, as of a socket, without a scheme.
    PlainPath,
}

impl BaseUrl {
    /// Parses a base URL. `http` is accepted only for `127.0.0.0/8`, `::1` and `localhost`, unless `allow_http`. `unix:` is
    /// followed by the absolute path of a socket.
    ///
    /// Fails with a [`BaseUrlError`] that says what would be valid.
    pub fn parse(text: &str, allow_http: bool) -> Result<Self, BaseUrlError> {
        let text = text.trim();
        // The URL standard drops tabs and line feeds and repairs slashes; a user who typed those meant something else.
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(BaseUrlError::Malformed);
        }
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.starts_with("//")) {
            return Self::of_socket(path);
        }
        if text.starts_with("unix://") {
            return Err(BaseUrlError::SocketSlashes);
        }
        if text.starts_with(['/', '.', '~']) {
            return Err(BaseUrlError::PlainPath);
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Err(BaseUrlError::Malformed) };
        if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
            return Err(BaseUrlError::Scheme);
        }
        if rest.is_empty() || rest.starts_with('/') {
            return Err(BaseUrlError::Malformed);
        }
        let url = Url::parse(text).map_err(|_| BaseUrlError::Malformed)?;
        if !url.username().is_empty() || url.password().is_some() || rest.split('/').next().unwrap_or("").contains('@')
        {
            return Err(BaseUrlError::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BaseUrlError::Trailing);
        }
        let text = url.as_str().trim_end_matches('/').to_owned();
        if text.ends_with("/api/v1") || text.ends_with("/api") {
            return Err(BaseUrlError::ApiPath);
        }
        let base = Self { url, text, socket: None };
        if !base.is_https() && !base.is_loopback() && !allow_http {
            return Err(BaseUrlError::Unencrypted);
        }
        Ok(base)
    }

    fn of_socket(path: &str) -> Result<Self, BaseUrlError> {
        if !path.starts_with('/') || path.ends_with('/') || path.len() > LONGEST_SOCKET_PATH {
            return Err(BaseUrlError::Socket);
        }
        let url = Url::parse("http://localhost").map_err(|_| BaseUrlError::Malformed)?;
        Ok(Self { url, text: format!("unix:{path}"), socket: Some(path.into()) })
    }

    /// The path of the unix socket, if it is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// The URL as text, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether requests are encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether the URL leads to this host, by name or address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let Some(host) = self.url.host_str() else { return false };
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        let named = || host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case("localhost");
        address.map_or_else(|_| named(), |address| address.to_canonical().is_loopback())
    }

    /// The URL of an endpoint, given as a path that begins with a slash.
    pub(super) fn endpoint(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let prefix = self.url.path().trim_end_matches('/');
        url.set_path(&format!("{prefix}{path}"));
        url
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for BaseUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a URL; write https:// and a host, as in https://machineid.io",
            Self::Scheme => "the URL must begin with https:// (or http:// or unix: for an authority on this host)",
            Self::Unencrypted => {
                "http:// would send the org key unencrypted; write https://, or name an authority on this host \
                 (127.0.0.1, ::1, localhost), or allow plain http explicitly"
            }
            Self::UserInfo => {
                "the URL contains a user name or a password; leave them out, the org key is given separately"
            }
            Self::Trailing => "the URL contains a query or a fragment; end it at the host or the path",
            Self::Socket => {
                "write unix: and the absolute path of the authority's socket, of at most 107 bytes, as in \
                 unix:/run/machineid-authority/api.sock"
            }
            Self::SocketSlashes => {
                "the URL of a unix socket has no host: write unix: and the absolute path, with one slash, as in \
                 unix:/run/machineid-authority/api.sock"
            }
            Self::PlainPath => {
                "a path is no URL; for the unix socket of an authority write unix: before its absolute path, as in \
                 unix:/run/machineid-authority/api.sock"
            }
            Self::ApiPath => "the URL names the API's own path; leave /api/v1 out, it is added to every request",
        })
    }
}

impl std::error::Error for BaseUrlError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, BaseUrlError> {
        BaseUrl::parse(text, false).map(|base| base.to_string())
    }

    #[test]
    fn takes_https_anywhere_and_http_to_this_host() {
        for (text, canonical) in [
            ("https://machineid.io", "https://machineid.io"),
            ("https://machineid.io/", "https://machineid.io"),
            ("HTTPS://MachineID.io:443/", "https://machineid.io"),
            (" https://proxy.example/machineid//\n", "https://proxy.example/machineid"),
            ("http://127.0.0.1:8424", "http://127.0.0.1:8424"),
            ("http://127.8.9.10/x", "http://127.8.9.10/x"),
            ("http://[::1]:8424/", "http://[::1]:8424"),
            ("http://localhost:8424", "http://localhost:8424"),
            ("unix:/run/machineid-authority/api.sock", "unix:/run/machineid-authority/api.sock"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else_and_says_why() {
        for (text, error) in [
            ("", BaseUrlError::Malformed),
            ("machineid.io", BaseUrlError::Malformed),
            ("https:machineid.io", BaseUrlError::Malformed),
            ("https://", BaseUrlError::Malformed),
            ("https:///path", BaseUrlError::Malformed),
            ("https://a b", BaseUrlError::Malformed),
            ("https://machineid.io\\@evil.example", BaseUrlError::Malformed),
            ("https://machineid.io:99999", BaseUrlError::Malformed),
            ("ftp://machineid.io", BaseUrlError::Scheme),
            ("unix:///run/x", BaseUrlError::SocketSlashes),
            ("unix://run/x", BaseUrlError::SocketSlashes),
            ("/run/machineid-authority/api.sock", BaseUrlError::PlainPath),
            ("./api.sock", BaseUrlError::PlainPath),
            ("http://machineid.io", BaseUrlError::Unencrypted),
            ("http://10.0.0.1", BaseUrlError::Unencrypted),
            ("http://localhost.evil.example", BaseUrlError::Unencrypted),
            ("http://127.0.0.1.evil.example", BaseUrlError::Unencrypted),
            ("http://0.0.0.0", BaseUrlError::Unencrypted),
            ("https://user:pass@machineid.io", BaseUrlError::UserInfo),
            ("https://@machineid.io", BaseUrlError::UserInfo),
            ("http://localhost@evil.example", BaseUrlError::UserInfo),
            ("https://machineid.io/?key=org_x", BaseUrlError::Trailing),
            ("https://machineid.io?", BaseUrlError::Trailing),
            ("https://machineid.io/#x", BaseUrlError::Trailing),
            ("https://machineid.io/api/v1/", BaseUrlError::ApiPath),
            ("unix:", BaseUrlError::Socket),
            ("unix:api.sock", BaseUrlError::Socket),
            ("unix:/run/", BaseUrlError::Socket),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
            assert!(!error.to_string().contains("pass@"));
        }
    }

    #[test]
    fn http_elsewhere_needs_to_be_allowed() {
        assert_eq!(BaseUrl::parse("http://10.0.0.1", true).unwrap().as_str(), "http://10.0.0.1");
    }

    #[test]
    fn a_path_prefix_is_kept_before_every_endpoint() {
        let base = BaseUrl::parse("https://proxy.example/machine%20id/", false).unwrap();
        assert_eq!(base.endpoint("/api/v1/usage").as_str(), "https://proxy.example/machine%20id/api/v1/usage");
        let base = BaseUrl::parse("https://machineid.io", false).unwrap();
        assert_eq!(base.endpoint("/api/v1/usage").as_str(), "https://machineid.io/api/v1/usage");
        let base = BaseUrl::parse("unix:/run/a?b#c/api.sock", false).unwrap();
        assert_eq!(base.endpoint("/api/v1/usage").as_str(), "http://localhost/api/v1/usage");
        assert_eq!(base.socket(), Some(Path::new("/run/a?b#c/api.sock")));
    }
}
