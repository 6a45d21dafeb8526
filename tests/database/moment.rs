//! A disk brought back to a moment: its file system has a journal to replay and nothing worse, its
//! database recovers by itself, and has what was confirmed before that moment.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::load::{Done, Look, found};
use crate::support::live::Machine;
use crate::support::postgres::{MountedImage, Postgres};
use crate::support::random::Rng;
use crate::support::refusals::shown;

/// Both sides of every transfer, and a row for each.
const SUMS: &str = "select (select sum(abalance) from pgbench_accounts) = sum(delta) \
     and (select sum(tbalance) from pgbench_tellers) = sum(delta) \
     and (select sum(bbalance) from pgbench_branches) = sum(delta) \
     and count(*) = (select count(*) from done) from pgbench_history";

/// A load, and how far the disk was meanwhile.
pub struct Watched {
    pub load: Done,
    pub looks: Vec<Look>,
}

/// A moment within a load: an LSN, and the looks around it.
#[derive(Debug)]
pub struct Moment {
    run: usize,
    pub lsn: u64,
    before: Look,
    after: Look,
}

impl Moment {
    /// Any of those that were watched; between two looks something was confirmed or not.
    pub fn any(watched: &[Watched], rng: &mut Rng) -> Self {
        let all: u64 = watched.iter().map(Watched::lsns).sum();
        let mut left = rng.below(all);
        let watched = watched.iter().find(|watched| {
            let here = left < watched.lsns();
            left -= if here { 0 } else { watched.lsns() };
            here
        });
        let Watched { load, looks } = watched.expect("they are as many as all of them");
        let lsn = looks[0].lsn + left;
        let before = looks.iter().rev().find(|look| look.lsn <= lsn).expect("the first is");
        let after = looks.iter().find(|look| look.lsn >= lsn).expect("the last is");
        Self { run: load.run, lsn, before: *before, after: *after }
    }

    /// Brings the disk back to the moment, and looks what it has.
    #[track_caller]
    pub fn assert_comes_back(&self, machine: &Machine, watched: &[Watched]) {
        eprintln!("{self:?}");
        let image = machine.site.path("moment.img");
        let point = format!("1:{}", self.lsn);
        machine.site.call(&[
            "recover",
            &machine.name,
            "--disk",
            "0",
            "--at",
            &point,
            "--to",
            shown(&image),
        ]);
        assert_only_a_journal(&image);
        let mounted = MountedImage::new(&image, "rw");
        let database = Postgres::start(&mounted.data());
        let logged = database.logged();
        assert!(logged.contains("automatic recovery in progress"), "{logged}");
        for Watched { load, .. } in watched {
            let there = found(&database, load.run);
            match load.run.cmp(&self.run) {
                std::cmp::Ordering::Less => {
                    load.assert_between(&there, Duration::MAX, Duration::MAX)
                }
                std::cmp::Ordering::Equal => {
                    load.assert_between(&there, self.before.asked, self.after.heard);
                }
                std::cmp::Ordering::Greater => assert!(there.is_empty(), "{there:?}"),
            }
        }
        assert_eq!(database.ask(SUMS), "t");
        database.stop();
        drop(mounted);
        std::fs::remove_file(image).expect("it is there");
    }
}

impl Watched {
    /// How many LSNs were looked at.
    fn lsns(&self) -> u64 {
        let first = self.looks.first().expect("the agent was looked at");
        self.looks[self.looks.len() - 1].lsn - first.lsn + 1
    }
}

/// Fails if e2fsck finds anything but a journal to replay.
#[track_caller]
fn assert_only_a_journal(image: &Path) {
    let e2fsck = |options: &[&str]| {
        let output = Command::new("e2fsck").args(options).arg(image).output();
        let output = output.expect("e2fsck can be started: run `make tools`");
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    // Nothing but the journal and what hangs on it: files that were removed while they were open.
    let (ended, said) = e2fsck(&["-p"]);
    assert!(matches!(ended, Some(0 | 1)) && said.contains("recovering journal"), "{said}");
    // Everything, and nothing may be wrong.
    let (ended, said) = e2fsck(&["-f", "-n"]);
    assert_eq!(ended, Some(0), "{said}");
}
