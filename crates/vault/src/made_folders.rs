//! Directories that are made for something, and go again when nothing came of it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The directories that had to be made for one to be there, that one last. Dropping it removes those
/// in which there is nothing.
#[derive(Debug, Default)]
pub struct MadeFolders(Vec<PathBuf>);

impl MadeFolders {
    /// Makes a directory, and those above it that aren't there; what is there stays as it is.
    ///
    /// # Errors
    /// What the system says; what was made is removed.
    pub fn make(path: &Path, mode: u32) -> io::Result<Self> {
        let mut made = Self::default();
        let missing = path.ancestors().take_while(|folder| !is_there(folder));
        for folder in missing.collect::<Vec<_>>().into_iter().rev() {
            match DirBuilder::new().mode(mode).create(folder) {
                Ok(()) => made.0.push(folder.to_path_buf()),
                // Another made it at the same time.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }

    /// Whether any was made.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for MadeFolders {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            // Where there is something, it stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Above a relative path is where we are.
fn is_there(folder: &Path) -> bool {
    folder.as_os_str().is_empty() || folder.is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_and_stayed_empty_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (there, kept) = (dir.path().join("there"), dir.path().join("there/kept"));
        fs::create_dir(&there).unwrap();
        drop(MadeFolders::make(&there.join("a/b/c"), 0o700).unwrap());
        assert_eq!(fs::read_dir(&there).unwrap().count(), 0);
        drop(MadeFolders::make(&there, 0o700).unwrap());
        assert!(there.is_dir(), "it wasn't made here");

        let made = MadeFolders::make(&kept.join("empty"), 0o700).unwrap();
        fs::write(kept.join("file"), b"").unwrap();
        drop(made);
        assert!(kept.join("file").exists() && !kept.join("empty").exists());
        assert!(MadeFolders::make(&kept.join("file/below"), 0o700).is_err());
    }
}
