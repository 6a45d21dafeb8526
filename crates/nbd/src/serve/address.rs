//! Where disks are served.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

/// An address to listen on, written `unix:PATH` or `tcp:ADDRESS:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system, for processes of the same user.
    Unix(PathBuf),
    /// A TCP address. There is no TLS: whoever reaches it may do all that the export allows.
    Tcp(SocketAddr),
}

/// A text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no address for NBD: write unix:PATH, or tcp:127.0.0.1:10809")]
pub struct AddressInvalid(pub String);

impl FromStr for Address {
    type Err = AddressInvalid;

    fn from_str(text: &str) -> Result<Self, AddressInvalid> {
        let invalid = || AddressInvalid(text.to_owned());
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() && !path.contains('\0') => {
                Ok(Self::Unix(PathBuf::from(path)))
            }
            Some(("tcp", address)) => address.parse().map(Self::Tcp).map_err(|_| invalid()),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl Address {
    /// The URI by which clients know an export there.
    #[must_use]
    pub fn uri(&self, export: &str) -> String {
        let name = escaped(export.as_bytes());
        match self {
            Self::Unix(path) => {
                let path = escaped(path.as_os_str().as_bytes());
                format!("nbd+unix:///{name}?socket={path}")
            }
            Self::Tcp(address) => format!("nbd://{address}/{name}"),
        }
    }
}

/// Bytes as they may stand in a URI.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(*byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written_and_nothing_else_is_one() {
        for text in ["unix:/run/disk.sock", "tcp:127.0.0.1:10809", "tcp:[::1]:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "/run/disk", "tcp:", "tcp:host:1", "tcp:1.2.3.4", "udp:1.2.3.4:5"]
        {
            assert_eq!(text.parse::<Address>(), Err(AddressInvalid(text.to_owned())));
        }
    }

    #[test]
    fn a_uri_hides_what_would_end_it() {
        let address = Address::Unix(PathBuf::from("/run/a b?/é"));
        assert_eq!(address.uri("0 #"), "nbd+unix:///0%20%23?socket=/run/a%20b%3F/%C3%A9");
        let address: Address = "tcp:[::1]:10809".parse().unwrap();
        assert_eq!(address.uri("disk"), "nbd://[::1]:10809/disk");
    }
}
