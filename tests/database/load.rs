//! pgbench at work on a database, with a row of its own for each transaction; and what was known
//! meanwhile of how far disk and clients were.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crate::support::live::Machine;
use crate::support::postgres::Postgres;
use crate::support::process::Running;
use crate::support::refusals::wait_until;
use crate::support::site::Site;

/// Connections that work side by side.
pub const CLIENTS: usize = 4;
/// Longer than any load takes until something is killed.
const SECONDS: &str = "600";
const LIMIT: Duration = Duration::from_secs(120);
/// pgbench counts time from its start by another clock than ours: they run apart by less than this.
const CLOCKS_APART: Duration = Duration::from_millis(20);
/// Between two looks at the agent: some transactions.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What pgbench does by default, and a row that says which transaction it was.
const TRANSACTION: &str = "\
\\set n :n + 1
\\set aid random(1, 100000)
\\set tid random(1, 10)
\\set delta random(-5000, 5000)
begin;
update pgbench_accounts set abalance = abalance + :delta where aid = :aid;
update pgbench_tellers set tbalance = tbalance + :delta where tid = :tid;
update pgbench_branches set bbalance = bbalance + :delta where bid = 1;
insert into pgbench_history (tid, bid, aid, delta, mtime) values (:tid, 1, :aid, :delta, now());
insert into done (run, client, n) values (:run, :client_id, :n);
end;
";

/// Makes what the loads work on.
#[track_caller]
pub fn prepare(database: &Postgres) {
    crate::support::tool(database.client("pgbench").args(["--initialize", "--quiet", "postgres"]));
    database.ask("create table done (run int, client int, n int, primary key (run, client, n))");
}

/// A load that runs, and a look at the agent from time to time.
pub struct Load {
    run: usize,
    pgbench: Running,
    script: PathBuf,
    log: PathBuf,
}

/// What a database has of one load: how many transactions of each client, numbered from 1.
pub type Counts = BTreeMap<usize, usize>;

impl Load {
    #[track_caller]
    pub fn start(site: &Site, database: &Postgres, run: usize, seed: u64) -> Self {
        let (script, log) = (site.path("script"), site.path(&format!("load-{run}")));
        fs::write(&script, TRANSACTION).expect("a script can be written");
        let mut pgbench = database.client("pgbench");
        pgbench.args(["--no-vacuum", "--client", &CLIENTS.to_string(), "--time", SECONDS]);
        pgbench.args(["--define=n=0", &format!("--define=run={run}"), "--log"]);
        pgbench.arg(format!("--log-prefix={}", log.display()));
        pgbench.args([&format!("--random-seed={seed}"), "--file"]).arg(&script).arg("postgres");
        Self { run, pgbench: Running::start(pgbench), script, log }
    }

    /// Waits until so many transactions of it are done.
    #[track_caller]
    pub fn wait_for(&self, database: &Postgres, count: u64) {
        let query = format!("select count(*) >= {count} from done where run = {}", self.run);
        wait_until("transactions", || {
            assert!(!self.pgbench.ended(), "{}", self.pgbench.printed());
            database.ask(&query) == "t"
        });
    }

    /// After the database's end: when which of its transactions were confirmed.
    #[track_caller]
    pub fn ended(self) -> Done {
        let log = PathBuf::from(format!("{}.{}", self.log.display(), self.pgbench.pid()));
        // Its last transactions failed, with the database.
        let ended = self.pgbench.wait(LIMIT);
        let text = fs::read_to_string(&log).unwrap_or_else(|error| panic!("{error}: {ended}"));
        let mut confirmed = vec![Vec::new(); CLIENTS];
        for line in text.lines() {
            // client, transaction, latency, script, seconds, microseconds
            let fields: Vec<u64> = numbers(line, ' ');
            let client = usize::try_from(fields[0]).expect("there are few");
            confirmed[client]
                .push(Duration::from_secs(fields[4]) + Duration::from_micros(fields[5]));
        }
        fs::remove_file(self.script).expect("it is there");
        Done { run: self.run, confirmed }
    }
}

/// A load that ended: when each client's transactions were confirmed, since 1970.
#[derive(Debug)]
pub struct Done {
    pub run: usize,
    confirmed: Vec<Vec<Duration>>,
}

impl Done {
    /// How many were confirmed.
    pub fn count(&self) -> usize {
        self.confirmed.iter().map(Vec::len).sum()
    }

    /// Fails unless `found` has every transaction that was confirmed before `from`, none that began after
    /// `to`, and no other without those before it.
    #[track_caller]
    pub fn assert_between(&self, found: &Counts, from: Duration, to: Duration) {
        for (client, confirmed) in self.confirmed.iter().enumerate() {
            let before = |moment: Duration| confirmed.iter().filter(|time| **time < moment).count();
            let least = before(from.saturating_sub(CLOCKS_APART));
            // One may have been on its way.
            let most = before(to.saturating_add(CLOCKS_APART)) + 1;
            let there = found.get(&client).copied().unwrap_or(0);
            assert!(
                (least..=most).contains(&there),
                "of load {} client {client}: {there} transactions, not {least} to {most}",
                self.run
            );
        }
    }
}

/// What a database has of a load.
#[track_caller]
pub fn found(database: &Postgres, run: usize) -> Counts {
    let rows = format!(
        "select client, count(*), min(n), max(n) from done where run = {run} group by client"
    );
    let answer = database.ask(&rows);
    let row = |line: &str| {
        let fields: Vec<usize> = numbers(line, '|');
        let [client, count, first, last] = fields[..] else { panic!("not a row: {line}") };
        assert_eq!((first, last), (1, count), "client {client} of load {run} lacks some");
        (client, count)
    };
    answer.lines().map(row).collect()
}

#[track_caller]
fn numbers<N: std::str::FromStr>(line: &str, between: char) -> Vec<N> {
    let number = |field: &str| field.parse().unwrap_or_else(|_| panic!("not numbers: {line}"));
    line.split(between).map(number).collect()
}

/// A look at the agent: when it was asked, what it had captured, and when that was heard.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub asked: Duration,
    pub lsn: u64,
    pub heard: Duration,
}

/// Looks at an agent until it is told that it's `over`, or the agent is gone.
pub fn look(machine: &Machine, over: &AtomicBool) -> Vec<Look> {
    let mut looks = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let asked = now();
        let Some(status) = machine.try_status() else { break };
        let lsn = status["captured"].as_u64().expect("it is a number");
        assert_eq!(status["disks"][0]["mode"], "data", "{status}");
        looks.push(Look { asked, lsn, heard: now() });
        std::thread::sleep(LOOK_INTERVAL);
    }
    looks
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is after 1970")
}
