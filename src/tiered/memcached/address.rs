//! Addresses of servers, and the names by which keys are spread over them.

use std::fmt;
use std::path::PathBuf;

const PORT: u16 = 11_211;

/// Why servers are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(String);

impl AddressError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AddressError {}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Host(String, u16),
    Path(PathBuf),
}

impl Address {
    /// Reads `host`, `host:port`, `[::1]:port`, `/path` or `unix:/path`.
    pub(super) fn of(text: &str) -> Result<Self, AddressError> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Path(path.into()));
        }
        let malformed = || {
            AddressError::new(format!(
                "a server must be 'host:port', '[address]:port' or a path, not {text:?}"
            ))
        };
        let (host, rest) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(malformed)?;
                if !host
                    .bytes()
                    .all(|byte| byte.is_ascii_hexdigit() || b":.%".contains(&byte))
                {
                    return Err(malformed());
                }
                (host, rest)
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let is_host = |char: char| !char.is_whitespace() && !"[]/".contains(char);
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(malformed());
        }
        let port = match rest.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().unwrap_or(0),
            None if rest.is_empty() => PORT,
            _ => 0,
        };
        if port == 0 {
            return Err(malformed());
        }
        Ok(Self::Host(host.to_owned(), port))
    }

    /// Returns the name that keys are hashed with: that of the Python package, and of pymemcache.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Host(host, port) => format!("{host}:{port}"),
            Self::Path(path) => path.to_string_lossy().into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_python() {
        let name = |text: &str| Address::of(text).map(|address| address.name());
        assert_eq!(name("10.0.0.1:11212").as_deref(), Ok("10.0.0.1:11212"));
        assert_eq!(name("cache.example").as_deref(), Ok("cache.example:11211"));
        assert_eq!(name("[::1]:11213").as_deref(), Ok("::1:11213"));
        assert_eq!(name("[fe80::1%2]").as_deref(), Ok("fe80::1%2:11211"));
        assert_eq!(name("unix:/run/memcached.sock").as_deref(), Ok("/run/memcached.sock"));
        assert_eq!(name("/run/memcached.sock").as_deref(), Ok("/run/memcached.sock"));
    }

    #[test]
    fn malformed_addresses_are_refused() {
        let all = [
            "", ":1", "a:", "a:0", "a:65536", "a:-1", "a:+1", "::1", "[::1", "[x]:1", "a b:1", "a/b", "unix:x:1",
            "[]:1", "[::1]1",
        ];
        for text in all {
            assert!(Address::of(text).is_err(), "{text:?}");
        }
    }
}
