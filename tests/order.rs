//! Order across the disks of a machine: a program writes ever larger numbers to two disks in turn, and
//! waits for each. At every LSN the first disk has the number of the second, or the next.

mod support;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use support::live::{self, Machine};
use support::nbd_client::NbdClient;
use support::process::Server;
use support::random::{self, Rng};
use support::site::{Site, shown};
use tidegate_model::{Lsn, Point};
use tidegate_vault::Vault;
use tidegate_vault::chain::MachineHistory;
use tidegate_vault::keys::Credential;
use tidegate_vault::log::{CACHE_BYTES_DEFAULT, LogReader};
use tidegate_vault::restore::{PointView, VIEW_MEMORY_MIN, ViewMeans};
use tidegate_vault::store::{Access, Store};

const DISK_BYTES: u64 = 1 << 20;
/// Where the numbers stand; behind that others write what isn't looked at.
const NUMBER_BYTES: u32 = 512;
/// How many numbers are written in one life of the agent.
const NUMBERS: u64 = 150;
/// LSNs brought back by the program itself; the others are read as a mount would.
const RECOVERED: u64 = 3;

/// The numbers on both disks.
type Numbers = [u64; 2];

#[track_caller]
fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

/// Writes the numbers from `first` on, in turn, and gives the one behind the last.
#[track_caller]
fn write_numbers(machine: &Machine, first: u64) -> u64 {
    let mut disks = [0, 1].map(|number| connect(machine, number));
    for number in first..first + NUMBERS {
        for disk in &mut disks {
            let mut sector = [0; NUMBER_BYTES as usize];
            sector[..8].copy_from_slice(&number.to_le_bytes());
            disk.write(0, &sector);
        }
    }
    first + NUMBERS
}

/// Writes at other places of the disks, side by side with the numbers.
fn write_elsewhere(machine: &Machine, seed: u64, over: &AtomicBool) {
    let mut disks = [0, 1].map(|number| connect(machine, number));
    let mut rng = Rng::new(seed);
    while !over.load(Ordering::Relaxed) {
        let length = 512 * (1 + rng.below(16));
        let room = (DISK_BYTES - u64::from(NUMBER_BYTES) - length) / 512;
        let mut data = vec![0; usize::try_from(length).expect("it is short")];
        rng.fill(&mut data);
        let disk = &mut disks[usize::from(rng.below(2) == 0)];
        disk.write(u64::from(NUMBER_BYTES) + 512 * rng.below(room), &data);
    }
}

#[track_caller]
fn connect(machine: &Machine, number: usize) -> NbdClient {
    NbdClient::connect(&machine.socket(number), &format!("disk-{number}"))
}

#[track_caller]
fn captured(machine: &Machine) -> u64 {
    machine.status()["captured"].as_u64().expect("it is a number")
}

/// Some numbers more: the one behind the last, and the LSNs from before the first to after the last.
#[track_caller]
fn live(machine: &Machine, first: u64, rng: &mut Rng) -> (u64, RangeInclusive<u64>) {
    let start = captured(machine);
    let over = AtomicBool::new(false);
    let next = std::thread::scope(|scope| {
        let (seed, over) = (rng.next(), &over);
        scope.spawn(move || write_elsewhere(machine, seed, over));
        let writing = scope.spawn(|| write_numbers(machine, first));
        let next = writing.join();
        over.store(true, Ordering::Relaxed);
        next.expect("numbers are written")
    });
    (next, start..=captured(machine))
}

/// What the disks have at each of these LSNs.
fn numbers_at(site: &Site, lsns: &BTreeSet<u64>) -> Vec<Numbers> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime can be had").block_on(async {
        let location = site.vault().parse().expect("it is a vault's place");
        let store = Store::open(&location, Access::Read).expect("it is a directory");
        let key = Credential::read_key_file(&site.key()).expect("the key file can be read");
        let vault = Vault::open(store, &key).await.expect("the vault opens");
        let (store, ring) = (vault.store().clone(), vault.ring().clone());
        let reader = LogReader::new(store, ring, CACHE_BYTES_DEFAULT);
        let machine = "db-1".parse().expect("it is a name");
        let history = MachineHistory::read(&reader, &machine).await.expect("it has a history");
        let epoch = *history.epochs.keys().next_back().expect("it has an epoch");
        let mut all = Vec::new();
        for lsn in lsns {
            let (point, means) =
                (Point { epoch, lsn: Lsn(*lsn) }, ViewMeans::of(VIEW_MEMORY_MIN, 1));
            let view = PointView::build(&reader, &history, point, &[], means).await;
            let view = view.expect("it can be brought back");
            let mut found = [0; 2];
            let disks: Vec<_> = view.disks().map(|disk| disk.number).collect();
            for (disk, found) in disks.into_iter().zip(&mut found) {
                let mut bytes = [0; 8];
                view.read(disk, 0, &mut bytes).await.expect("it can be read");
                *found = number(&bytes);
            }
            all.push(found);
        }
        all
    })
}

/// The same of one, by the program.
#[track_caller]
fn recovered_at(site: &Site, lsn: u64) -> Numbers {
    let folder = site.path("recovered");
    site.call(&["recover", "db-1", "--at", &format!("1:{lsn}"), "--to", shown(&folder)]);
    let found = [0, 1].map(|number_of| {
        let disk = folder.join(format!("disk-{number_of}.img"));
        number(&std::fs::read(disk).expect("it was recovered"))
    });
    std::fs::remove_dir_all(folder).expect("it can be removed");
    found
}

fn serve(site: &Site, listen: &str) -> Server {
    site.server_at(listen).args(["--memory", "256MiB"]).serve()
}

#[test]
fn two_disks_have_the_same_moment_at_every_lsn_through_kills() {
    let (site, mut rng) = (Site::with_vault(), Rng::new(random::seed()));
    site.enroll("ps-1", "server");
    let server = serve(&site, "127.0.0.1:0");
    let disks: [PathBuf; 2] = ["one", "two"].map(|name| site.path(name));
    disks.iter().for_each(|disk| support::images::empty(disk, DISK_BYTES));
    let address = server.at();
    let machine = Machine::new(&site, "db-1", &disks, &[&address], "");

    let agent = machine.start();
    machine.wait_for_copy();
    let (next, first) = live(&machine, 1, &mut rng);
    drop(server);
    let (next, second) = live(&machine, next, &mut rng);
    agent.signal(Signal::KILL);
    agent.kill();
    let server = serve(&site, &address);
    let agent = machine.start();
    let (_, third) = live(&machine, next, &mut rng);
    machine.wait_until_committed();
    live::stop(agent);
    server.stop().success();

    let lsns: BTreeSet<u64> =
        [&first, &second, &third].into_iter().flat_map(Clone::clone).collect();
    let all = numbers_at(&site, &lsns);
    eprintln!("{} LSNs", lsns.len());
    let mut turns = BTreeSet::new();
    for (lsn, [one, two]) in lsns.iter().zip(&all) {
        assert!(one == two || *one == two + 1, "at LSN {lsn} the disks have {one} and {two}");
        turns.extend([(*one, *two)]);
    }
    // Each number was a moment of its own on either disk, and the last ones came last.
    let lives = 3;
    assert!(turns.len() as u64 > 2 * lives * NUMBERS, "{} moments", turns.len());
    assert_eq!(all.last(), Some(&[lives * NUMBERS; 2]));
    for _ in 0..RECOVERED {
        let at = usize::try_from(rng.below(all.len() as u64)).expect("a small number");
        let lsn = *lsns.iter().nth(at).expect("it is one of them");
        assert_eq!(recovered_at(&site, lsn), all[at], "at LSN {lsn}");
    }
}
