//! Files that only their owner may read: key files and identities.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

/// Creates a file with mode 0600, durable when this returns. With `overwrite` an existing file is
/// replaced as a whole or not at all; without, it is refused.
pub(crate) fn create(path: &Path, content: &[u8], overwrite: bool) -> io::Result<()> {
    if !overwrite {
        return write_new(path, content).and_then(|()| sync_parent(path));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let _ = fs::remove_file(&new);
    write_new(&new, content)?;
    fs::rename(&new, path).inspect_err(|_| drop(fs::remove_file(&new)))?;
    sync_parent(path)
}

/// Reads a file of at most `bytes_max` bytes; warns when others than its owner may read it.
pub(crate) fn read(path: &Path, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others than its owner may read this secret: chmod 600 it");
    }
    // A pipe (from a secret manager) has no length; so read up to the limit, and one byte more to
    // see that it is kept. All at once: a growing buffer would leave pieces of the secret behind.
    let mut content = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    let limit = bytes_max as u64 + 1;
    file.take(limit).read_to_end(&mut content)?;
    if content.len() > bytes_max {
        let text = format!("it is longer than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(content)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    // It is ours, and of no use half written.
    written.inspect_err(|_| drop(fs::remove_file(path)))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_when_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create(&path, b"1", false).unwrap();
        assert_eq!(create(&path, b"2", false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(*read(&path, 1).unwrap(), b"1");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        create(&path, b"2", true).unwrap();
        assert_eq!(*read(&path, 1).unwrap(), b"2");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(read(&path, 0).is_err());
    }
}
