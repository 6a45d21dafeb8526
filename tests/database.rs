//! A real database on a real file system on the tap, replicated while it works: at any moment it comes
//! back with every transaction that was confirmed before.

mod support;

#[path = "database/load.rs"]
mod load;
#[path = "database/moment.rs"]
mod moment;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use load::Load;
use moment::{Moment, Watched};
use rustix::process::Signal;
use support::live::{self, Machine};
use support::postgres::{self, Postgres};
use support::process::{Running, Server};
use support::random::{self, Rng};
use support::site::Site;
use support::tapped::{self, Tapped};
use support::{images, tool};

const DISK_BYTES: u64 = 192 << 20;
/// How many moments are brought back, unless TIDEGATE_MOMENTS says otherwise.
const MOMENTS: u64 = 4;
/// Little log, so that checkpoints and its recycling come often.
const LITTLE_LOG: &str = "max_wal_size = 8MB\nmin_wal_size = 4MB\nshared_buffers = 16MB\n";

/// A machine with a database on its disk.
struct World<'a> {
    machine: Machine<'a>,
    rng: Rng,
    watched: Vec<Watched>,
}

/// A database at work: dropped in this order.
struct AtWork {
    database: Postgres,
    tapped: Tapped,
    agent: Running,
}

impl World<'_> {
    /// A number of transactions until something happens.
    fn some(&mut self) -> u64 {
        100 + self.rng.below(300)
    }

    /// Starts what is on the disk, and looks whether everything is there that was confirmed.
    #[track_caller]
    fn start(&self, agent: Running) -> AtWork {
        let tapped = Tapped::new(&self.machine.uri(0));
        let database = Postgres::start(&tapped.path().join("data"));
        self.assert_all(&database);
        AtWork { database, tapped, agent }
    }

    #[track_caller]
    fn assert_all(&self, database: &Postgres) {
        for Watched { load, .. } in &self.watched {
            let there = load::found(database, load.run);
            load.assert_between(&there, std::time::Duration::MAX, std::time::Duration::MAX);
        }
    }

    /// Lets clients work on the database, and the agent be looked at, until `end` has ended that.
    #[track_caller]
    fn watch<T>(&mut self, at_work: AtWork, end: impl FnOnce(&Load, AtWork) -> T) -> T {
        let (run, seed) = (self.watched.len(), self.rng.next());
        let load = Load::start(self.machine.site, &at_work.database, run, seed);
        let over = AtomicBool::new(false);
        let (ended, looks) = std::thread::scope(|scope| {
            let looking = scope.spawn(|| load::look(&self.machine, &over));
            let ended =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| end(&load, at_work)));
            over.store(true, Ordering::Relaxed);
            (ended, looking.join().expect("the agent can be looked at"))
        });
        let ended = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let load = load.ended();
        eprintln!("load {run}: {} transactions, {} looks", load.count(), looks.len());
        self.watched.push(Watched { load, looks });
        ended
    }
}

/// Makes the file system and its database through the tap, before anything is watched.
#[track_caller]
fn set_up(machine: &Machine) {
    let agent = machine.start();
    let tapped = Tapped::new(&machine.uri(0));
    postgres::give(&tapped.path());
    let data = tapped.path().join("data");
    postgres::init(&data, &["--data-checksums", "--wal-segsize=1"]);
    let settings = data.join("postgresql.auto.conf");
    std::fs::write(settings, LITTLE_LOG).expect("its settings can be written");
    let database = Postgres::start(&data);
    load::prepare(&database);
    machine.wait_for_copy();
    database.stop();
    drop(tapped);
    live::stop(agent);
}

fn serve(site: &Site, listen: &str) -> Server {
    site.server_at(listen).args(["--memory", "256MiB"]).serve()
}

#[test]
fn a_database_comes_back_at_any_moment_whatever_is_killed() {
    if !tapped::usable("a database on the tap") {
        return;
    }
    let (site, mut rng) = (Site::with_vault(), Rng::new(random::seed()));
    site.enroll("ps-1", "server");
    let server = serve(&site, "127.0.0.1:0");
    let (address, disk) = (server.at(), site.path("disk.img"));
    images::empty(&disk, DISK_BYTES);
    tool(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk));
    let machine = Machine::new(&site, "db-1", &[disk], &[&address], "");
    set_up(&machine);
    let unrecorded = 2000 + rng.below(2000);
    let mut world = World { machine, rng, watched: Vec::new() };

    // The server, and then the database.
    let at_work = world.start(world.machine.start());
    let [away, back, end] = [world.some(), world.some(), world.some()];
    let (agent, tapped, server) = world.watch(at_work, |load, at_work| {
        let AtWork { database, tapped, agent } = at_work;
        load.wait_for(&database, away);
        drop(server);
        load.wait_for(&database, away + back);
        let server = serve(&site, &address);
        load.wait_for(&database, away + back + end);
        database.kill();
        (agent, tapped, server)
    });
    // The agent at any moment.
    let database = Postgres::start(&tapped.path().join("data"));
    world.assert_all(&database);
    let end = world.some();
    world.watch(AtWork { database, tapped, agent }, |load, at_work| {
        load.wait_for(&at_work.database, end);
        at_work.agent.signal(Signal::KILL);
        fall(at_work);
    });
    // The agent between applying a write and recording it.
    let agent = world.machine.agent();
    let agent = agent.env("TIDEGATE_TEST_KILL_UNRECORDED", unrecorded.to_string());
    let at_work = world.start(live::serving(agent));
    world.watch(at_work, |_, at_work| {
        support::refusals::wait_until("the agent's end", || at_work.agent.ended());
        fall(at_work);
    });
    // And at last nobody but the database.
    let at_work = world.start(world.machine.start());
    let end = world.some();
    let agent = world.watch(at_work, |load, at_work| {
        load.wait_for(&at_work.database, end);
        at_work.database.kill();
        at_work.agent
    });
    world.machine.wait_until_committed();
    assert_eq!(world.machine.status()["epoch"], 1, "the history went on");
    live::stop(agent);
    server.stop().success();

    let World { machine, mut rng, watched } = world;
    let moments = std::env::var("TIDEGATE_MOMENTS").ok().and_then(|text| text.parse().ok());
    for _ in 0..moments.unwrap_or(MOMENTS) {
        Moment::any(&watched, &mut rng).assert_comes_back(&machine, &watched);
    }
}

/// What is left when the disk has gone: nothing of it can be written any more.
#[track_caller]
fn fall(at_work: AtWork) {
    let AtWork { database, tapped, agent } = at_work;
    database.kill();
    drop(tapped);
    let ended = agent.kill();
    assert_eq!(ended.status.signal(), Some(9), "{ended}");
}
