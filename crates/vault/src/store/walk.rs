//! A directory's files in the order of their paths, as every other store lists its objects.
//!
//! The store client lists directories in the order in which the file system keeps them; readers
//! of logs need numbers in order. Holds at most [`NAMES_MAX`] names a level: a folder that has more
//! is read again for the next of them.
//!
//! Blocks: run it where that is allowed.

use std::collections::BinaryHeap;
use std::fs::Metadata;
use std::io;
use std::path::PathBuf;
use std::vec;

/// Deepest folder that is entered: our files lie 4 deep, and loops of symbolic links must end soon,
/// also where several of them make every level branch.
const DEPTH_MAX: usize = 6;
/// Most names of a folder that are held at once: some 2 MiB.
const NAMES_MAX: usize = 1 << 14;

/// A file, its path relative to the directory, with slashes.
pub(super) struct WalkedFile {
    pub path: String,
    pub metadata: Metadata,
}

/// The walk; an iterator over files.
pub(super) struct Walk {
    root: PathBuf,
    after: Option<String>,
    names_max: usize,
    levels: Vec<Level>,
    /// What to do with folders that can't be read.
    unreadable: Unreadable,
    failed: Option<io::Error>,
}

/// What becomes of folders that can't be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The walk fails: what is in them may be ours.
    Fail,
    /// They are passed over.
    Skip,
}

/// A folder, as far as it has been read.
struct Level {
    folder: String,
    /// Relative paths; a folder's ends in a slash, which is also what puts it in its place.
    paths: vec::IntoIter<String>,
    /// The last of them, when the folder has more behind it.
    last: Option<String>,
}

impl Walk {
    /// The files below `folder` (empty for all) of the directory `root` whose paths lie after
    /// `after`.
    pub fn new(root: PathBuf, folder: &str, after: Option<String>, unreadable: Unreadable) -> Self {
        Self::holding(NAMES_MAX, root, folder, after, unreadable)
    }

    fn holding(
        names_max: usize,
        root: PathBuf,
        folder: &str,
        after: Option<String>,
        unreadable: Unreadable,
    ) -> Self {
        let start = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let levels = Vec::new();
        let mut walk = Self { root, after, names_max, levels, unreadable, failed: None };
        walk.failed = walk.enter(start, None).err();
        walk
    }

    /// Reads the names of a folder, those behind `behind` if it is given: as many as may be held.
    fn enter(&mut self, folder: String, behind: Option<&str>) -> io::Result<()> {
        let entries = match std::fs::read_dir(self.root.join(&folder)) {
            Ok(entries) => entries,
            // Absent is empty, as in any object store.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if self.unreadable == Unreadable::Skip => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut first = BinaryHeap::new();
        let mut has_more = false;
        for entry in entries {
            let entry = entry?;
            // A name that isn't UTF-8 is none of ours.
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let mut path = format!("{folder}{name}");
            let kind = entry.file_type()?;
            let is_folder = kind.is_dir() || kind.is_symlink() && self.root.join(&path).is_dir();
            if is_folder {
                path.push('/');
            }
            if self.lies_before(&path) || behind.is_some_and(|behind| path.as_str() <= behind) {
                continue;
            }
            first.push(path);
            if first.len() > self.names_max {
                first.pop();
                has_more = true;
            }
        }
        let last = first.peek().filter(|_| has_more).cloned();
        self.levels.push(Level { folder, paths: first.into_sorted_vec().into_iter(), last });
        Ok(())
    }

    /// Whether nothing at or below this path lies after the start.
    fn lies_before(&self, path: &str) -> bool {
        let Some(after) = &self.after else { return false };
        path <= after.as_str() && !(path.ends_with('/') && after.starts_with(path))
    }

    fn step(&mut self) -> io::Result<Option<WalkedFile>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(path) = level.paths.next() else {
                if let Some(Level { folder, last: Some(last), .. }) = self.levels.pop() {
                    self.enter(folder, Some(&last))?;
                }
                continue;
            };
            if path.ends_with('/') {
                if self.levels.len() < DEPTH_MAX {
                    self.enter(path, None)?;
                }
                continue;
            }
            match std::fs::metadata(self.root.join(&path)) {
                Ok(metadata) if metadata.is_file() => {
                    return Ok(Some(WalkedFile { path, metadata }));
                }
                Ok(_) => {}
                // Gone since its folder was read, or a symbolic link to nowhere.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) if self.unreadable == Unreadable::Skip => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl Iterator for Walk {
    type Item = io::Result<WalkedFile>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if matches!(step, Some(Err(_))) {
            self.levels.clear();
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(root: &std::path::Path, folder: &str, after: Option<&str>) -> Vec<String> {
        let walk = Walk::new(root.into(), folder, after.map(Into::into), Unreadable::Fail);
        walk.map(|file| file.unwrap().path).collect()
    }

    #[test]
    fn files_come_in_the_order_of_their_whole_paths() {
        let dir = tempfile::tempdir().unwrap();
        let mut paths = vec!["a-b/1", "a/2", "a/10", "a.x", "b/c/d", "b/c.d", "z"];
        for path in &paths {
            let file = dir.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, b"").unwrap();
        }
        paths.sort_unstable();
        assert_eq!(walked(dir.path(), "", None), paths);
        for after in ["a", "a-b/1", "a/10", "a/2", "b/", "b/c", "b/c.d", "zz"] {
            let rest: Vec<&str> = paths.iter().copied().filter(|path| *path > after).collect();
            assert_eq!(walked(dir.path(), "", Some(after)), rest, "{after}");
            // Also where fewer names are held than there are.
            for names_max in 1..4 {
                let (root, after) = (dir.path().into(), Some(after.into()));
                let mut walk = Walk::holding(names_max, root, "", after, Unreadable::Fail);
                let mut found = Vec::new();
                while let Some(file) = walk.next() {
                    assert!(walk.levels.iter().all(|level| level.paths.len() < names_max));
                    found.push(file.unwrap().path);
                }
                assert_eq!(found, rest, "{names_max}");
            }
        }
        assert_eq!(walked(dir.path(), "a", None), ["a/10", "a/2"]);
        assert!(walked(dir.path(), "absent", None).is_empty());
    }

    #[test]
    fn a_loop_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
        std::fs::write(dir.path().join("file"), b"").unwrap();
        assert_eq!(walked(dir.path(), "", None).len(), DEPTH_MAX);
    }
}
