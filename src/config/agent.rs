//! The configuration of `agent run`: TOML.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tidegate_model::DiskNumber;
use tidegate_model::limits::DISKS_MAX;

use super::Size;
use crate::failure::Failure;

/// A journal of this size bears an outage of minutes.
const JOURNAL_SIZE_DEFAULT: u64 = 1 << 30;
/// What a server with some packs on their way hasn't committed yet, of one machine's writes.
const WINDOW_DEFAULT: u64 = 64 << 20;
/// Least memory for what isn't committed: some records.
const WINDOW_MIN: u64 = 1 << 20;
/// Seconds between crash-consistent bookmarks, and how many there can be: each costs a pack.
const EVERY_DEFAULT: u64 = 300;
const EVERY_BOUNDS: RangeInclusive<u64> = 1..=86_400;
/// Seconds that a hook may take: while it freezes, applications stand still.
const TIMEOUT_DEFAULT: u64 = 10;
const TIMEOUT_BOUNDS: RangeInclusive<u64> = 1..=600;
/// Seconds between passes, up to a month.
const PASS_EVERY_BOUNDS: RangeInclusive<u64> = 1..=2_592_000;
/// Seconds that a program around a pass may take: nothing stands still for it.
const PASS_TIMEOUT_DEFAULT: u64 = 60;
const PASS_TIMEOUT_BOUNDS: RangeInclusive<u64> = 1..=3600;
/// Most servers: each is tried in turn.
const SERVERS_MAX: usize = 16;

/// What an agent's configuration says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct AgentConfig {
    /// The machine's identity file.
    pub identity: PathBuf,
    /// The process servers, in the order in which they are tried.
    pub servers: Vec<String>,
    /// Where the agent keeps what it must not lose.
    pub folder: PathBuf,
    /// Most bytes of the journal.
    #[serde(default = "journal_size")]
    pub journal_size: Size,
    /// Most bytes in memory of what is sent and not committed.
    #[serde(default = "window")]
    pub window: Size,
    /// The disks.
    #[serde(rename = "disk", default)]
    pub disks: Vec<DiskConfig>,
    /// When there are bookmarks, where passes don't have theirs.
    pub bookmarks: Option<BookmarkConfig>,
    /// When passes are made, where there are any.
    pub passes: Option<PassConfig>,
    /// What freezes applications.
    #[serde(default)]
    pub hooks: HookConfig,
}

/// A disk.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DiskConfig {
    /// Its number.
    pub number: DiskNumber,
    /// The image file or block device.
    pub path: PathBuf,
    /// How it is captured.
    pub source: Source,
    /// Where it is served, if it is: `unix:PATH` or `tcp:ADDR:PORT`.
    pub listen: Option<String>,
    /// What is read in its place by passes: a snapshot of it.
    pub snapshot: Option<PathBuf>,
    /// Where an export with a bitmap is served, as `listen` has it.
    pub nbd: Option<String>,
    /// The export's name there.
    pub export: Option<String>,
    /// The bitmap's name.
    pub bitmap: Option<String>,
    /// The socket of the monitor of a QEMU that makes export and bitmaps.
    pub qmp: Option<PathBuf>,
    /// Its name for the disk's node.
    pub node: Option<String>,
    /// The folder in which is kept what is overwritten while a pass reads.
    pub scratch: Option<PathBuf>,
}

/// How a disk is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// It is served over NBD, and what is written there is recorded.
    Nbd,
    /// It is compared with the last pass.
    Scan,
    /// A hypervisor's bitmap says what changed.
    Bitmap,
}

/// When there are bookmarks, in seconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct BookmarkConfig {
    /// Crash-consistent ones.
    pub every: u64,
    /// Application-consistent ones.
    pub application_every: Option<u64>,
}

impl Default for BookmarkConfig {
    fn default() -> Self {
        Self { every: EVERY_DEFAULT, application_every: None }
    }
}

/// When passes are made over the disks that aren't served.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct PassConfig {
    /// Seconds between them; by hand only where nothing is said.
    pub every: Option<u64>,
    /// A program and its arguments, run before: it makes the snapshots.
    pub before: Vec<String>,
    /// The same, run after: it takes them away.
    pub after: Vec<String>,
    /// How many seconds each may take.
    pub timeout: u64,
    /// Whether applications are frozen by the hooks.
    pub application: bool,
}

impl Default for PassConfig {
    fn default() -> Self {
        let (every, before, after, application) = Default::default();
        Self { every, before, after, timeout: PASS_TIMEOUT_DEFAULT, application }
    }
}

/// What freezes applications.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct HookConfig {
    /// A program and its arguments, run before.
    pub freeze: Vec<String>,
    /// The same, run after.
    pub thaw: Vec<String>,
    /// Where file systems are mounted that are frozen by fsfreeze.
    pub file_systems: Vec<PathBuf>,
    /// How many seconds each step may take.
    pub timeout: u64,
}

impl Default for HookConfig {
    fn default() -> Self {
        let (freeze, thaw, file_systems) = Default::default();
        Self { freeze, thaw, file_systems, timeout: TIMEOUT_DEFAULT }
    }
}

const fn journal_size() -> Size {
    Size(JOURNAL_SIZE_DEFAULT)
}

const fn window() -> Size {
    Size(WINDOW_DEFAULT)
}

/// Reads an agent's configuration.
pub(crate) fn read(path: &Path) -> Result<AgentConfig, Failure> {
    let config: AgentConfig = super::read_toml(path)?;
    config.check().map_err(|why| {
        Failure::usage(format!("the configuration {} can't be used: {why}", path.display()))
    })?;
    Ok(config)
}

impl AgentConfig {
    fn check(&self) -> Result<(), String> {
        if !(1..=SERVERS_MAX).contains(&self.servers.len()) {
            return Err(format!("'servers' names {}: 1 to {SERVERS_MAX}", self.servers.len()));
        }
        if !(1..=DISKS_MAX).contains(&self.disks.len()) {
            return Err(format!(
                "there are {} [[disk]] tables: a machine has 1 to {DISKS_MAX} disks",
                self.disks.len()
            ));
        }
        let (mut numbers, mut paths) = (HashSet::new(), HashSet::new());
        for disk in &self.disks {
            if !numbers.insert(disk.number) {
                return Err(format!("two disks have the number {}", disk.number));
            }
            if !paths.insert(&disk.path) {
                return Err(format!("two disks have the path {}", disk.path.display()));
            }
        }
        if self.window.0 < WINDOW_MIN {
            return Err(format!("'window' must be {WINDOW_MIN} bytes or more"));
        }
        self.disks.iter().try_for_each(DiskConfig::check)?;
        let BookmarkConfig { every, application_every } = self.bookmarks.unwrap_or_default();
        within("bookmarks.every", every, EVERY_BOUNDS)?;
        within("bookmarks.application-every", application_every.unwrap_or(every), EVERY_BOUNDS)?;
        within("hooks.timeout", self.hooks.timeout, TIMEOUT_BOUNDS)?;
        if application_every.is_some() && self.hooks.are_none() {
            return Err("'application-every' needs [hooks] that freeze something".to_owned());
        }
        self.check_passes()
    }

    fn check_passes(&self) -> Result<(), String> {
        let has_passes = self.disks.iter().any(|disk| disk.source != Source::Nbd);
        if has_passes && self.bookmarks.is_some() {
            return Err(
                "[bookmarks] doesn't go with disks whose source isn't 'nbd': each pass over \
                        them ends with a bookmark, and nothing else can be a moment; see [passes]"
                    .to_owned(),
            );
        }
        let Some(passes) = &self.passes else { return Ok(()) };
        if !has_passes {
            return Err("[passes] are for disks whose source isn't 'nbd'".to_owned());
        }
        within("passes.every", passes.every.unwrap_or(1), PASS_EVERY_BOUNDS)?;
        within("passes.timeout", passes.timeout, PASS_TIMEOUT_BOUNDS)?;
        if passes.application && self.hooks.are_none() {
            return Err("'passes.application' needs [hooks] that freeze something".to_owned());
        }
        Ok(())
    }
}

impl HookConfig {
    fn are_none(&self) -> bool {
        self.freeze.is_empty() && self.thaw.is_empty() && self.file_systems.is_empty()
    }
}

impl DiskConfig {
    /// Each source needs its own, and takes nothing of the others'.
    fn check(&self) -> Result<(), String> {
        let named = [
            ("listen", self.listen.is_some()),
            ("snapshot", self.snapshot.is_some()),
            ("nbd", self.nbd.is_some()),
            ("export", self.export.is_some()),
            ("bitmap", self.bitmap.is_some()),
            ("qmp", self.qmp.is_some()),
            ("node", self.node.is_some()),
            ("scratch", self.scratch.is_some()),
        ];
        let (needed, more): (&[&str], &[&str]) = match self.source {
            Source::Nbd => (&["listen"], &[]),
            Source::Scan => (&[], &["snapshot"]),
            Source::Bitmap if self.qmp.is_some() => (&["qmp", "nbd", "node"], &["scratch"]),
            Source::Bitmap => (&["nbd", "export", "bitmap"], &[]),
        };
        for (name, is_there) in named {
            let (number, is_needed) = (self.number, needed.contains(&name));
            if is_needed && !is_there {
                return Err(format!("disk {number} needs '{name}', as its source is"));
            }
            if is_there && !is_needed && !more.contains(&name) {
                return Err(format!("disk {number} has '{name}', which its source doesn't take"));
            }
        }
        Ok(())
    }
}

fn within(name: &str, value: u64, bounds: RangeInclusive<u64>) -> Result<(), String> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(format!("'{name}' is {value}: give {} to {} seconds", bounds.start(), bounds.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "identity = 'id.json'\nservers = ['ps-1']\nfolder = '/var/lib/tidegate'\n";
    const DISK: &str = "[[disk]]\nnumber = 0\npath = 'a.img'\nsource = 'nbd'\nlisten = 'unix:a'\n";

    fn parse(text: &str) -> Result<AgentConfig, String> {
        let config: AgentConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map(|()| config)
    }

    #[test]
    fn what_isnt_said_has_its_usual_value() {
        let config = parse(&format!("{LEAST}{DISK}")).unwrap();
        let bookmarks = config.bookmarks.unwrap_or_default();
        assert_eq!((config.journal_size.0, bookmarks.every), (1 << 30, 300));
        assert_eq!((config.hooks.timeout, config.disks[0].source), (10, Source::Nbd));
    }

    #[test]
    fn the_sample_of_the_readme_is_understood() {
        let readme = include_str!("../../README.md");
        let sample = readme.split("```toml").nth(1).and_then(|rest| rest.split("```").next());
        let config = parse(sample.unwrap()).unwrap();
        assert!(config.servers.len() > 1 && !config.hooks.freeze.is_empty());
    }

    #[test]
    fn what_cant_be_used_is_named() {
        let with = |more: &str| parse(&format!("{LEAST}{more}")).unwrap_err();
        assert!(with("").contains("0 [[disk]] tables"));
        assert!(with(&format!("{DISK}{DISK}")).contains("two disks have the number 0"));
        let second = DISK.replace("= 0", "= 1");
        assert!(with(&format!("{DISK}{second}")).contains("two disks have the path a.img"));
        assert!(with(&DISK.replace("= 0", "= 64")).contains("disk number 64 is too large"));
        assert!(with(&DISK.replace("'nbd'", "'magic'")).contains("unknown variant `magic`"));
        assert!(with(&format!("jurnal-size = 1\n{DISK}")).contains("unknown field `jurnal-size`"));
        assert!(
            with(&format!("{DISK}[bookmarks]\nevery = 0\n")).contains("'bookmarks.every' is 0")
        );
        let application = "[bookmarks]\napplication-every = 60\n";
        assert!(with(&format!("{DISK}{application}")).contains("needs [hooks]"));
        assert!(with(&format!("{DISK}[hooks]\ntimeout = 0\n")).contains("'hooks.timeout' is 0"));
        assert!(with(&format!("window = '1KiB'\n{DISK}")).contains("'window' must be"));
        assert!(with(&DISK.replace("listen = 'unix:a'", "")).contains("disk 0 needs 'listen'"));
        assert!(with(&format!("{DISK}snapshot = 'b'\n")).contains("disk 0 has 'snapshot'"));
        let scan = DISK.replace("'nbd'", "'scan'");
        assert!(with(&scan).contains("disk 0 has 'listen'"));
        let bitmap = DISK.replace("'nbd'", "'bitmap'").replace("listen =", "nbd =");
        assert!(with(&bitmap).contains("disk 0 needs 'export'"));
        let export = format!("{bitmap}export = 'e'\nbitmap = 'b'\n");
        assert!(parse(&format!("{LEAST}{export}")).is_ok());
        assert!(with(&format!("{export}node = 'n'\n")).contains("disk 0 has 'node'"));
        let monitor = format!("{bitmap}qmp = 'q'\n");
        assert!(with(&monitor).contains("disk 0 needs 'node'"));
        assert!(parse(&format!("{LEAST}{monitor}node = 'n'\nscratch = 's'\n")).is_ok());
        let scan = scan.replace("listen = 'unix:a'", "snapshot = 'b'");
        assert!(parse(&format!("{LEAST}{scan}[passes]\nevery = 60\n")).is_ok());
        assert!(
            with(&format!("{scan}[bookmarks]\nevery = 60\n")).contains("[bookmarks] doesn't go")
        );
        assert!(with(&format!("{DISK}[passes]\nevery = 60\n")).contains("[passes] are for disks"));
        assert!(with(&format!("{scan}[passes]\nevery = 0\n")).contains("'passes.every' is 0"));
        let application = "[passes]\napplication = true\n";
        assert!(
            with(&format!("{scan}{application}")).contains("'passes.application' needs [hooks]")
        );
        let none = parse(&LEAST.replace("'ps-1'", "")).unwrap_err();
        assert!(none.contains("'servers' names 0"));
    }
}
