//! Where each object lies within a vault. docs/formats/vault.md, "Layout".
//!
//! Owns every path, for writers and readers. Doesn't own what the objects hold. A path is relative
//! to the vault; numbers in it are decimal, padded to 20 digits, so that a listing is in order.
//! What a parser here accepts is exactly what its builder makes: any other name is no object of
//! ours.

use tidegate_model::{Epoch, LayerId, LogId, LogName, Name, PackNumber, PinId, RunId};

/// What a vault is; made first, never changed.
pub const DESCRIPTION: &str = "vault.json";
/// The folder of the numbered versions of the wrapped keys.
pub const KEYS: &str = "keys";
/// The folder of the runs.
pub const RUNS: &str = "runs";
/// The folder of the logs: a folder a node, in it a folder a log, in it the packs.
pub const LOGS: &str = "log";
/// The folder of the steps of collections.
pub const GC: &str = "gc";
/// The folder of the machines.
pub const MACHINES: &str = "machines";
/// The folder of the vault's policies, and within a machine's folder of its own.
const POLICIES: &str = "policy";
/// The folder of what is created to learn the store's time, and goes again.
pub const CLOCK: &str = "clock";

/// Digits of a number: those of the largest.
const DIGITS: usize = 20;
/// The shard that no run has: by it the log of a dense pack is known. A run has shards below the number
/// of its shards, which is no higher than this.
const DENSE_SHARD: u16 = u16::MAX;

/// Version `number` of the keys.
#[must_use]
pub fn keys(number: u64) -> String {
    format!("{KEYS}/{number:0DIGITS$}")
}

/// The number of a version of the keys.
#[must_use]
pub fn parse_keys(path: &str) -> Option<u64> {
    number(path.strip_prefix(KEYS)?.strip_prefix('/')?)
}

/// The claim of a run.
#[must_use]
pub fn run(run: RunId) -> String {
    format!("{RUNS}/{run}")
}

/// The run of a claim.
#[must_use]
pub fn parse_run(path: &str) -> Option<RunId> {
    run_id(path.strip_prefix(RUNS)?.strip_prefix('/')?)
}

/// The folder of a node's logs.
#[must_use]
pub fn node(node: &Name) -> String {
    format!("{LOGS}/{node}")
}

/// The folder of a log, or of a machine's dense packs.
#[must_use]
pub fn log(log: &LogName) -> String {
    if is_dense(log) {
        return dense(&log.node);
    }
    format!("{LOGS}/{}/{}-{}", log.node, log.id.run, log.id.shard)
}

/// The log of a folder.
#[must_use]
pub fn parse_log(folder: &str) -> Option<LogName> {
    let (node, id) = folder.strip_prefix(LOGS)?.strip_prefix('/')?.split_once('/')?;
    let (run, shard) = id.split_once('-')?;
    let id = LogId { run: run_id(run)?, shard: shard.parse().ok()? };
    let name = LogName { node: node.parse().ok()?, id };
    (log(&name) == folder).then_some(name)
}

/// A pack, of a log or dense.
#[must_use]
pub fn pack(log_name: &LogName, number: PackNumber) -> String {
    let run = if is_dense(log_name) { format!("-{}", log_name.id.run) } else { String::new() };
    format!("{}/{:0DIGITS$}{run}", log(log_name), number.0)
}

/// The log that a dense pack of a machine has for itself.
#[must_use]
pub fn dense_log(machine: &Name, run: RunId) -> LogName {
    LogName { node: machine.clone(), id: LogId { run, shard: DENSE_SHARD } }
}

/// Whether it is a dense pack's.
#[must_use]
pub const fn is_dense(log: &LogName) -> bool {
    log.id.shard == DENSE_SHARD
}

/// The folder of a machine's dense packs.
#[must_use]
pub fn dense(machine: &Name) -> String {
    format!("{MACHINES}/{machine}/dense")
}

/// The log and number of a dense pack of a machine.
#[must_use]
pub fn parse_dense(machine: &Name, path: &str) -> Option<(LogName, PackNumber)> {
    let name = path.strip_prefix(&dense(machine))?.strip_prefix('/')?;
    let (count, run) = name.split_once('-')?;
    Some((dense_log(machine, run_id(run)?), PackNumber(number(count)?)))
}

/// The log and number of a pack.
#[must_use]
pub fn parse_pack(path: &str) -> Option<(LogName, PackNumber)> {
    let (folder, name) = path.rsplit_once('/')?;
    Some((parse_log(folder)?, PackNumber(number(name)?)))
}

/// The folder of a machine's epochs.
#[must_use]
pub fn epochs(machine: &Name) -> String {
    format!("{MACHINES}/{machine}/epochs")
}

/// An epoch of a machine.
#[must_use]
pub fn epoch(machine: &Name, epoch: Epoch) -> String {
    format!("{}/{:0DIGITS$}", epochs(machine), epoch.0)
}

/// The epoch that a path within a machine's epochs names.
#[must_use]
pub fn parse_epoch(machine: &Name, path: &str) -> Option<Epoch> {
    let name = path.strip_prefix(&epochs(machine))?.strip_prefix('/')?;
    Some(Epoch(number(name)?.try_into().ok()?))
}

/// The folder of a machine's sessions, of all its epochs.
#[must_use]
pub fn sessions(machine: &Name) -> String {
    format!("{MACHINES}/{machine}/sessions")
}

/// Lies before every session of the epoch in a listing, and after those of earlier ones.
#[must_use]
pub fn before_sessions_of(machine: &Name, epoch: Epoch) -> String {
    format!("{}/{:0DIGITS$}", sessions(machine), epoch.0)
}

/// Session `number` of an epoch of a machine.
#[must_use]
pub fn session(machine: &Name, epoch: Epoch, number: u64) -> String {
    format!("{}-{number:0DIGITS$}", before_sessions_of(machine, epoch))
}

/// The epoch and number of a session.
#[must_use]
pub fn parse_session(machine: &Name, path: &str) -> Option<(Epoch, u64)> {
    let name = path.strip_prefix(&sessions(machine))?.strip_prefix('/')?;
    let (epoch, session) = name.split_once('-')?;
    Some((Epoch(number(epoch)?.try_into().ok()?), number(session)?))
}

/// The folder of a machine's manifests.
#[must_use]
pub fn manifests(machine: &Name) -> String {
    format!("{MACHINES}/{machine}/manifest")
}

/// Manifest `number` of a machine.
#[must_use]
pub fn manifest(machine: &Name, number: u64) -> String {
    format!("{}/{number:0DIGITS$}", manifests(machine))
}

/// The number of a manifest.
#[must_use]
pub fn parse_manifest(machine: &Name, path: &str) -> Option<u64> {
    number(path.strip_prefix(&manifests(machine))?.strip_prefix('/')?)
}

/// The folder of a machine's pins.
#[must_use]
pub fn pins(machine: &Name) -> String {
    format!("{MACHINES}/{machine}/pins")
}

/// A pin of a machine.
#[must_use]
pub fn pin(machine: &Name, pin: PinId) -> String {
    format!("{}/{pin}", pins(machine))
}

/// The pin that a path within a machine's pins names.
#[must_use]
pub fn parse_pin(machine: &Name, path: &str) -> Option<PinId> {
    let name = path.strip_prefix(&pins(machine))?.strip_prefix('/')?;
    name.parse::<PinId>().ok().filter(|id| id.to_string() == name)
}

/// Step `number` of collections.
#[must_use]
pub fn step(number: u64) -> String {
    format!("{GC}/{number:0DIGITS$}")
}

/// The number of a step.
#[must_use]
pub fn parse_step(path: &str) -> Option<u64> {
    number(path.strip_prefix(GC)?.strip_prefix('/')?)
}

/// The folder of a machine's layers.
#[must_use]
pub fn layers(machine: &Name) -> String {
    format!("{MACHINES}/{machine}/layers")
}

/// A layer of a machine.
#[must_use]
pub fn layer(machine: &Name, layer: LayerId) -> String {
    format!("{}/{layer}", layers(machine))
}

/// The layer that a path within a machine's layers names.
#[must_use]
pub fn parse_layer(machine: &Name, path: &str) -> Option<LayerId> {
    let name = path.strip_prefix(&layers(machine))?.strip_prefix('/')?;
    name.parse::<LayerId>().ok().filter(|id| id.to_string() == name)
}

/// The folder of a machine's policies, or of the vault's.
#[must_use]
pub fn policies(machine: Option<&Name>) -> String {
    machine.map_or_else(|| POLICIES.into(), |machine| format!("{MACHINES}/{machine}/{POLICIES}"))
}

/// Policy `number` of a machine, or of the vault.
#[must_use]
pub fn policy(machine: Option<&Name>, number: u64) -> String {
    format!("{}/{number:0DIGITS$}", policies(machine))
}

/// The number of a policy.
#[must_use]
pub fn parse_policy(machine: Option<&Name>, path: &str) -> Option<u64> {
    number(path.strip_prefix(&policies(machine))?.strip_prefix('/')?)
}

/// The folder of the removals of a machine.
#[must_use]
pub fn removals(machine: &Name) -> String {
    format!("{MACHINES}/{machine}/removed")
}

/// The removal of a machine's epochs up to this one.
#[must_use]
pub fn removal(machine: &Name, upto: Epoch) -> String {
    format!("{}/{:0DIGITS$}", removals(machine), upto.0)
}

/// The last epoch of a removal.
#[must_use]
pub fn parse_removal(machine: &Name, path: &str) -> Option<Epoch> {
    let name = path.strip_prefix(&removals(machine))?.strip_prefix('/')?;
    Some(Epoch(number(name)?.try_into().ok()?))
}

fn number(text: &str) -> Option<u64> {
    let digits = text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

fn run_id(text: &str) -> Option<RunId> {
    // Upper-case digits would give one run two names.
    text.parse::<RunId>().ok().filter(|id| id.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_name() -> LogName {
        let id = LogId { run: RunId::from_bytes([0xab; 16]), shard: 7 };
        LogName { node: "ps-1".parse().unwrap(), id }
    }

    #[test]
    fn every_path_gives_back_what_it_was_made_of() {
        let machine: Name = "db.1".parse().unwrap();
        assert_eq!(parse_keys(&keys(7)), Some(7));
        assert_eq!(parse_run(&run(log_name().id.run)), Some(log_name().id.run));
        assert_eq!(parse_log(&log(&log_name())), Some(log_name()));
        let number = PackNumber(u64::MAX);
        assert_eq!(parse_pack(&pack(&log_name(), number)), Some((log_name(), number)));
        assert_eq!(parse_epoch(&machine, &epoch(&machine, Epoch(3))), Some(Epoch(3)));
        let path = session(&machine, Epoch(3), 2);
        assert_eq!(path, "machines/db.1/sessions/00000000000000000003-00000000000000000002");
        assert_eq!(parse_session(&machine, &path), Some((Epoch(3), 2)));
        assert_eq!(parse_manifest(&machine, &manifest(&machine, 9)), Some(9));
        assert_eq!(parse_removal(&machine, &removal(&machine, Epoch(9))), Some(Epoch(9)));
        for of in [None, Some(&machine)] {
            assert_eq!(parse_policy(of, &policy(of, 9)), Some(9));
        }
        let id = LayerId::from_bytes([0xcd; 16]);
        assert_eq!(parse_layer(&machine, &layer(&machine, id)), Some(id));
        assert_eq!(parse_layer(&machine, &layer(&machine, id).to_uppercase()), None);
        let dense = dense_log(&machine, log_name().id.run);
        let path = pack(&dense, number);
        assert_eq!(parse_dense(&machine, &path), Some((dense, number)));
        assert_eq!((parse_pack(&path), parse_log(&path)), (None, None));
        let id = PinId::from_bytes([0xef; 16]);
        assert_eq!(parse_pin(&machine, &pin(&machine, id)), Some(id));
        assert_eq!(parse_step(&step(3)), Some(3));
    }

    #[test]
    fn other_names_are_no_objects_of_ours() {
        let machine: Name = "m".parse().unwrap();
        for path in ["keys", "keys/1", "keys/0000000000000000000x", "keys/99999999999999999999"] {
            assert_eq!(parse_keys(path), None, "{path}");
        }
        for path in [
            "log/n/00000000000000000000",
            "log/n/abababababababababababababababab-07/00000000000000000000",
            "log/n/ABababababababababababababababab-7/00000000000000000000",
            "log/n/abababababababababababababababab-70000/00000000000000000000",
            "log/n/abababababababababababababababab-65535/00000000000000000000",
            "log//abababababababababababababababab-7/00000000000000000000",
        ] {
            assert_eq!(parse_pack(path), None, "{path}");
        }
        assert_eq!(parse_epoch(&machine, "machines/m/epochs/00000000004294967296"), None);
        assert_eq!(parse_session(&machine, "machines/m/sessions/00000000000000000001"), None);
    }

    #[test]
    fn the_sessions_of_an_epoch_are_one_stretch_of_the_listing() {
        let machine: Name = "m".parse().unwrap();
        let start = before_sessions_of(&machine, Epoch(2));
        assert!(session(&machine, Epoch(1), u64::MAX) < start);
        assert!(start < session(&machine, Epoch(2), 0));
        assert!(session(&machine, Epoch(2), u64::MAX) < session(&machine, Epoch(3), 0));
    }
}
