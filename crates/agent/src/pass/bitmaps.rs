//! The bitmaps of one disk in QEMU, and the note which of them the next pass begins with.
//!
//! Each has a number: it records from the pass with that number on. A note with a number says that all up
//! to the beginning of that pass is in the journal; what changed since is in the bitmap with it, and in the
//! one that records now. So there are two of them at the most, however many passes came to nothing.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::PassError;
use super::qmp::{Qmp, QmpError};

/// Longest note: a bitmap's name.
const NOTE_BYTES_MAX: usize = 256;

/// Since when a pass knows what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    /// Since the pass that was noted.
    Noted,
    /// It doesn't: everything may have changed.
    Never,
}

/// What a pass does with the bitmaps of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bitmaps {
    pub since: Since,
    /// The one that begins to record.
    pub new: String,
    /// The one that ends to record.
    pub recording: Option<String>,
    /// The one that names what changed: since the pass that was noted, but for what `recording` does.
    pub read: Option<String>,
    /// Ours that are there, to be removed once they aren't needed.
    pub old: Vec<String>,
    /// Whether the new one outlives QEMU: the image can hold it.
    pub persistent: bool,
}

impl Bitmaps {
    /// Looks at those of a node: the disk's, which begin with `name`, and among them those of this journal,
    /// which begin with `prefix`.
    pub(super) fn find(
        qmp: &mut Qmp,
        node: &str,
        name: &str,
        prefix: &str,
        note: &Path,
    ) -> Result<Self, PassError> {
        let nodes = qmp.execute("query-named-block-nodes", &json!({ "flat": true }))?;
        let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(found) = nodes.iter().find(|found| found["node-name"] == node) else {
            return Err(no_node(qmp, node).into());
        };
        let noted = noted(note).map_err(|error| unusable(note, error))?;
        if found["ro"] == true {
            let what = format!(
                "nobody can write to the block node '{node}': where a snapshot was put over it, name \
                 the node that the guest writes to now, and start the agent again"
            );
            return Err(qmp.state(what).into());
        }
        let persistent = found["drv"] == "qcow2";
        let all = found["dirty-bitmaps"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut of = Self::of(all, prefix, noted.as_deref(), persistent);
        let others = all.iter().filter_map(|bitmap| bitmap["name"].as_str());
        let others = others.filter(|other| is_of_another(other, name, prefix));
        of.old.extend(others.map(str::to_owned));
        Ok(of)
    }

    /// What follows from those that are there.
    fn of(all: &[Value], prefix: &str, noted: Option<&str>, persistent: bool) -> Self {
        let number = |name: &str| name.strip_prefix(prefix)?.parse::<u64>().ok();
        let named = |bitmap: &Value| Some((number(bitmap["name"].as_str()?)?, bitmap.clone()));
        let mut ours: Vec<(u64, Value)> = all.iter().filter_map(named).collect();
        ours.sort_by_key(|(number, _)| *number);
        let name = |number: u64| format!("{prefix}{number}");
        let noted = noted.and_then(number);
        let newest = ours.last().map(|(number, _)| *number).max(noted).unwrap_or(0);
        let is_good = |bitmap: &Value| bitmap["inconsistent"] != true && bitmap["busy"] != true;
        let is_recording = |bitmap: &Value| bitmap["recording"] == true && is_good(bitmap);
        // What later ones recorded was put into the noted one, but for the last, which records still.
        let follow: Vec<_> = ours.iter().filter(|(number, _)| Some(*number) >= noted).collect();
        let is_whole = match *follow.as_slice() {
            [(first, only)] => Some(*first) == noted && is_recording(only),
            [(first, ended), (_, last)] => {
                Some(*first) == noted && is_good(ended) && is_recording(last)
            }
            _ => false,
        };
        let old: Vec<String> = ours.iter().map(|(number, _)| name(*number)).collect();
        Self {
            since: if is_whole { Since::Noted } else { Since::Never },
            new: name(newest + 1),
            recording: old.last().filter(|_| is_whole).cloned(),
            read: noted.filter(|_| is_whole).map(name),
            old,
            persistent,
        }
    }

    /// What is done with them at the moment from which on a pass reads; `drain` is what it reads.
    pub(super) fn actions(&self, node: &str, drain: &str, granularity: u64) -> Vec<Value> {
        let action = |kind: &str, data: Value| json!({ "type": kind, "data": data });
        let one = |name: &String| json!({ "node": node, "name": name });
        let merge = |from: &String, into: &str| {
            let data = json!({ "node": node, "target": into, "bitmaps": [from] });
            action("block-dirty-bitmap-merge", data)
        };
        let mut actions = Vec::new();
        if let (Some(recording), Some(read)) = (&self.recording, &self.read) {
            actions.push(action("block-dirty-bitmap-disable", one(recording)));
            if recording != read {
                actions.push(merge(recording, read));
                actions.push(action("block-dirty-bitmap-remove", one(recording)));
            }
        }
        let data = json!({ "node": node, "name": self.new, "persistent": self.persistent,
                           "granularity": granularity });
        actions.push(action("block-dirty-bitmap-add", data));
        let data =
            json!({ "node": node, "name": drain, "disabled": true, "granularity": granularity });
        actions.push(action("block-dirty-bitmap-add", data));
        actions.extend(self.read.as_ref().map(|read| merge(read, drain)));
        actions
    }

    /// All that they named is durable: notes that, and removes them.
    pub(super) fn captured(&self, qmp: &mut Qmp, node: &str, note: &Path) -> Result<(), PassError> {
        write(note, &self.new).map_err(|error| unusable(note, error))?;
        self.remove_old(qmp, node)
    }

    /// Removes those before the new one.
    pub(super) fn remove_old(&self, qmp: &mut Qmp, node: &str) -> Result<(), PassError> {
        for bitmap in &self.old {
            let bitmap = json!({ "node": node, "name": bitmap });
            qmp.try_execute("block-dirty-bitmap-remove", &bitmap)?;
        }
        Ok(())
    }
}

/// Whether a bitmap is of a journal that the disk had before.
fn is_of_another(bitmap: &str, name: &str, prefix: &str) -> bool {
    let rest = bitmap.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
    rest.is_some_and(|rest| rest.contains('-')) && !bitmap.starts_with(prefix)
}

fn no_node(qmp: &Qmp, node: &str) -> QmpError {
    qmp.state(format!("there is no block node '{node}': see query-named-block-nodes"))
}

fn noted(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(bytes) if bytes.len() > NOTE_BYTES_MAX => Ok(None),
        read => Ok(String::from_utf8(read?).ok()),
    }
}

/// Puts the note in the place of the one before, as a whole. A host that crashes begins with a new journal,
/// whose bitmaps have other names.
fn write(path: &Path, name: &str) -> io::Result<()> {
    let new = path.with_extension("bitmap.new");
    File::create(&new)?.write_all(name.as_bytes())?;
    std::fs::rename(&new, path)
}

fn unusable(path: &Path, error: io::Error) -> PassError {
    PassError::Hashes { path: path.to_owned(), doing: "noted", error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(there: &[(&str, bool)], noted: Option<&str>) -> Bitmaps {
        let bitmap = |(name, recording): &(&str, bool)| json!({ "name": name, "recording": recording, "busy": false, "persistent": true });
        let all: Vec<Value> = there.iter().map(bitmap).collect();
        Bitmaps::of(&all, "t-0-", noted, true)
    }

    #[test]
    fn a_pass_reads_what_was_recorded_since_the_one_that_was_noted() {
        let first = of(&[("mine", true)], None);
        assert_eq!((first.since, first.new.as_str()), (Since::Never, "t-0-1"));
        assert_eq!((first.read, first.recording, first.old.len()), (None, None, 0));
        let name = |name: &str| Some(name.to_owned());
        let second = of(&[("t-0-1", true)], Some("t-0-1"));
        assert_eq!((second.since, second.new.as_str()), (Since::Noted, "t-0-2"));
        assert_eq!((&second.read, &second.recording), (&name("t-0-1"), &name("t-0-1")));
        assert_eq!(second.actions("n", "d", 65_536).len(), 4);
        // After a pass that was killed before its records were durable.
        let third = of(&[("t-0-2", false), ("t-0-5", true)], Some("t-0-2"));
        assert_eq!((third.since, third.new.as_str()), (Since::Noted, "t-0-6"));
        assert_eq!((&third.read, &third.recording), (&name("t-0-2"), &name("t-0-5")));
        assert_eq!(third.actions("n", "d", 65_536).len(), 6);
        // After one that noted that they are, and removed nothing.
        let third = of(&[("t-0-1", false), ("t-0-2", true)], Some("t-0-2"));
        assert_eq!((third.read, third.old.len()), (name("t-0-2"), 2));
    }

    #[test]
    fn bitmaps_of_journals_before_are_known_and_others_left_alone() {
        let is_of_another = |bitmap| is_of_another(bitmap, "t-1", "t-1-aa-");
        assert!(is_of_another("t-1-bb-7"));
        for bitmap in ["t-1-aa-7", "t-1-drain", "t-10-bb-7", "t-2-bb-7", "mine", "t-1"] {
            assert!(!is_of_another(bitmap), "{bitmap}");
        }
    }

    #[test]
    fn where_a_bitmap_is_missing_everything_may_have_changed() {
        for (there, noted) in [
            (&[][..], Some("t-0-4")),
            (&[("t-0-4", true)], None),
            (&[("t-0-4", true)], Some("t-0-3")),
            (&[("t-0-4", true)], Some("t-1-4")),
            (&[("t-0-4", false)], Some("t-0-4")),
            (&[("t-0-4", false), ("t-0-5", false), ("t-0-6", true)], Some("t-0-4")),
            (&[("t-0-4", true), ("t-0-5", false)], Some("t-0-4")),
        ] {
            let found = of(there, noted);
            assert_eq!((found.since, &found.read), (Since::Never, &None), "{there:?} {noted:?}");
            assert!(!found.old.contains(&found.new));
            assert_eq!(found.actions("n", "d", 65_536).len(), 2);
        }
        assert_eq!(of(&[], Some("t-0-4")).new, "t-0-5");
        let crashed = json!({ "name": "t-0-4", "recording": true, "inconsistent": true });
        let found = Bitmaps::of(&[crashed], "t-0-", Some("t-0-4"), true);
        assert_eq!((found.since, &found.recording), (Since::Never, &None));
        assert_eq!(found.old, ["t-0-4"]);
    }
}
