//! What a person or a service unlocks a vault with, and the files it is read from.
//!
//! Owns the limits of passphrases and key files, and making a key file. Doesn't own asking at a
//! terminal (the program does).

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use super::recovery::{RECOVERY_PREFIX, RecoveryKey};
use super::{KeyError, hex, random_secret};
use crate::private_file;

/// Longest passphrase: nobody types more, and a whole file given by mistake is refused.
const PASSPHRASE_BYTES_MAX: usize = 1024;
/// Shortest key file: 256 bits, if its bytes are random.
const KEY_FILE_BYTES_MIN: usize = 32;
/// Longest key file: any key of any tool, but no disk image given by mistake.
const KEY_FILE_BYTES_MAX: usize = 64 << 10;

/// What unlocks a vault. A recovery key comes as either: its text says what it is.
#[derive(Clone)]
pub enum Credential {
    /// Chosen by a person.
    Passphrase(Zeroizing<String>),
    /// The content of a key file.
    KeyFile(Zeroizing<Vec<u8>>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "Passphrase(secret)",
            Self::KeyFile(_) => "KeyFile(secret)",
        })
    }
}

impl Credential {
    /// A passphrase as it was typed.
    ///
    /// # Errors
    /// [`KeyError::Credential`] when it is empty or too long.
    pub fn passphrase(text: Zeroizing<String>) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Credential("the passphrase is empty".into()));
        }
        if text.len() > PASSPHRASE_BYTES_MAX {
            let text = format!("the passphrase is longer than {PASSPHRASE_BYTES_MAX} bytes");
            return Err(KeyError::Credential(text));
        }
        Ok(Self::Passphrase(text))
    }

    /// The content of a key file.
    ///
    /// # Errors
    /// [`KeyError::Credential`] when it is too short or too long to be one.
    pub fn key_file(content: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        if (KEY_FILE_BYTES_MIN..=KEY_FILE_BYTES_MAX).contains(&content.len()) {
            return Ok(Self::KeyFile(content));
        }
        Err(KeyError::Credential(format!(
            "a key file has {KEY_FILE_BYTES_MIN} to {KEY_FILE_BYTES_MAX} bytes, this one {}",
            content.len()
        )))
    }

    /// Reads a passphrase file: its first line, without the line's end.
    ///
    /// # Errors
    /// [`KeyError::Credential`] when it can't be read, is empty or no text.
    pub fn read_passphrase_file(path: &Path) -> Result<Self, KeyError> {
        let content = read(path, "passphrase file", PASSPHRASE_BYTES_MAX * 4)?;
        let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|_| {
            KeyError::Credential(format!("the passphrase file {} is no text", path.display()))
        })?;
        if text.is_empty() {
            let text = format!("the first line of the passphrase file {} is empty", path.display());
            return Err(KeyError::Credential(text));
        }
        Self::passphrase(Zeroizing::new(text.to_owned()))
    }

    /// Reads a key file, or a file that holds the recovery key.
    ///
    /// # Errors
    /// [`KeyError::Credential`] when it can't be read, or has a length that no key has.
    pub fn read_key_file(path: &Path) -> Result<Self, KeyError> {
        Self::key_file(read(path, "key file", KEY_FILE_BYTES_MAX)?).map_err(|error| match error {
            KeyError::Credential(text) => {
                KeyError::Credential(format!("{} can't be used: {text}", path.display()))
            }
            other => other,
        })
    }

    /// The recovery key, if it is one.
    pub(super) fn as_recovery(&self) -> Option<Result<RecoveryKey, KeyError>> {
        let text = match self {
            Self::Passphrase(text) => text.as_str(),
            // A key file may be anything; only the beginning must be text for this.
            Self::KeyFile(content) => {
                let prefix = content.get(..RECOVERY_PREFIX.len())?;
                RecoveryKey::is_meant(std::str::from_utf8(prefix).ok()?).then_some(())?;
                std::str::from_utf8(content).unwrap_or(RECOVERY_PREFIX)
            }
        };
        RecoveryKey::is_meant(text).then(|| RecoveryKey::parse(text))
    }
}

/// Makes a key file: 32 random bytes as hexadecimal digits in a line, for its owner's eyes only.
///
/// # Errors
/// [`KeyError::Credential`] when there is such a file already, or it can't be written.
pub fn make_key_file(path: &Path) -> Result<Credential, KeyError> {
    let secret = random_secret()?;
    let mut content = Zeroizing::new(Vec::with_capacity(65));
    content.extend_from_slice(Zeroizing::new(hex::encode(secret.as_slice())).as_bytes());
    content.push(b'\n');
    private_file::create(path, &content, false).map_err(|error| {
        let path = path.display();
        KeyError::Credential(format!(
            "the key file {path} can't be made: {error}; name another place"
        ))
    })?;
    Credential::key_file(content)
}

fn read(path: &Path, what: &str, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    private_file::read(path, bytes_max).map_err(|error| {
        let path = path.display();
        KeyError::Credential(format!(
            "the {what} {path} can't be read: {error}; check its path and mode"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn passphrase_of(content: &[u8]) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        match Credential::read_passphrase_file(file.path()) {
            Ok(Credential::Passphrase(text)) => Ok(text.to_string()),
            Ok(Credential::KeyFile(_)) => panic!("a passphrase was read"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_passphrase_file_is_its_first_line() {
        for content in ["open sesame", "open sesame\n", "open sesame\r\n", "open sesame\nmore\n"] {
            assert_eq!(passphrase_of(content.as_bytes()).unwrap(), "open sesame");
        }
        assert_eq!(passphrase_of(b" spaces count \n").unwrap(), " spaces count ");
        for content in [&b""[..], b"\n", b"\nsecond", b"\xff\xfe", &[b'a'; 5000], &[b'a'; 1025]] {
            assert!(passphrase_of(content).is_err());
        }
        let absent = Credential::read_passphrase_file(Path::new("/nowhere/p")).unwrap_err();
        assert!(absent.to_string().contains("/nowhere/p"), "{absent}");
    }

    #[test]
    fn a_key_file_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let Credential::KeyFile(made) = make_key_file(&path).unwrap() else { panic!("a key file") };
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let Credential::KeyFile(read) = Credential::read_key_file(&path).unwrap() else {
            panic!("a key file")
        };
        assert_eq!(made, read);
        assert_eq!(made.len(), 65);
        let again = make_key_file(&path).unwrap_err();
        assert!(again.to_string().contains("exists"), "{again}");
        std::fs::write(&path, [0; 31]).unwrap();
        assert!(Credential::read_key_file(&path).is_err());
        std::fs::write(&path, vec![0; KEY_FILE_BYTES_MAX + 1]).unwrap();
        assert!(Credential::read_key_file(&path).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = Credential::passphrase(Zeroizing::new("hunter2".into())).unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
