//! Configuration files: TOML. The server's has the same names as its options, which win over it.

pub(crate) mod agent;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidegate_model::parse_bytes;

use crate::choice::{Frame, Level};
use crate::failure::Failure;

/// Longest configuration that is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What a configuration may say. Secrets have no place here; files that hold them do.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ServerConfig {
    /// The vault, as `file:///srv/vault`.
    pub vault: Option<String>,
    /// Where to listen, as `0.0.0.0:9443`.
    pub listen: Option<SocketAddr>,
    /// The identity file.
    pub identity: Option<PathBuf>,
    /// The passphrase file.
    pub passphrase_file: Option<PathBuf>,
    /// The key file.
    pub key_file: Option<PathBuf>,
    /// The memory bound, as `"2GiB"`.
    pub memory: Option<Size>,
    /// The zstd level, as `--level`.
    pub level: Option<Level>,
    /// The longest frames, as `--frame`.
    pub frame: Option<Frame>,
    /// How many cores.
    pub cores: Option<u16>,
    /// For how many seconds a store that takes nothing is borne with.
    pub store_patience: Option<u64>,
    /// How many milliseconds a pack may wait, as `--pack-age`.
    pub pack_age: Option<u64>,
    /// How large a pack gets, as `"16MiB"`.
    pub pack_size: Option<Size>,
    /// How often condemned lists are read, in seconds, as `--lists-interval`.
    pub lists_interval: Option<u64>,
    /// How often the vault is maintained, in seconds, as `--maintenance-interval`.
    pub maintenance_interval: Option<u64>,
    /// Whether it is at all.
    pub maintenance: Option<bool>,
}

/// A size in bytes, as a number or a text with a unit.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "SizeText")]
pub(crate) struct Size(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum SizeText {
    Number(u64),
    Text(String),
}

impl TryFrom<SizeText> for Size {
    type Error = String;

    fn try_from(text: SizeText) -> Result<Self, String> {
        match text {
            SizeText::Number(bytes) => Ok(Self(bytes)),
            SizeText::Text(text) => parse_bytes(&text).map(Self),
        }
    }
}

/// Reads a server's configuration.
pub(crate) fn read(path: &Path) -> Result<ServerConfig, Failure> {
    read_toml(path)
}

fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let name = path.display();
    let refuse = |why: String| Failure::usage(format!("the configuration {name} {why}"));
    let unread =
        |error: io::Error| refuse(format!("can't be read: {error}; check its path and mode"));
    let meta = std::fs::metadata(path).map_err(unread)?;
    if meta.len() > CONFIG_BYTES_MAX {
        return Err(refuse(format!("is longer than {CONFIG_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(unread)?;
    toml::from_str(&text).map_err(|error| refuse(format!("can't be understood: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::Choice;

    fn parse(text: &str) -> Result<ServerConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_configuration_says_what_the_options_say() {
        let config = parse(
            "vault = 'file:///srv/vault'\nlisten = '0.0.0.0:9443'\nmemory = '2GiB'\n\
             key-file = '/etc/tidegate/key'\nlevel = 3\n",
        )
        .unwrap();
        assert_eq!(config.memory.unwrap().0, 2 << 30);
        assert_eq!(config.level, Some(Level(Choice::Fixed(3))));
        assert!(parse("level = 13").is_err());
        assert_eq!(parse("level = 'auto'").unwrap().level, Some(Level(Choice::Auto)));
        assert!(parse("frame = '4MiB'").unwrap().frame.is_some());
        assert_eq!(config.key_file, Some(PathBuf::from("/etc/tidegate/key")));
    }

    #[test]
    fn the_sample_of_the_readme_is_understood_and_asks_no_host_for_more_than_it_has() {
        let readme = include_str!("../README.md");
        let sample = readme.split("```toml").nth(2).and_then(|rest| rest.split("```").next());
        let config = parse(sample.unwrap()).unwrap();
        assert!(config.vault.is_some() && config.cores.is_none());
    }

    #[test]
    fn a_name_that_isnt_known_is_refused() {
        assert!(parse("memroy = 1").is_err());
        assert!(parse("memory = 'much'").is_err());
    }
}
