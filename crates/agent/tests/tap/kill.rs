//! A tap in a process that is killed: this test starts itself again as that process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tidegate_hrl::journal::Change;
use tidegate_model::BookmarkKind;

use crate::chance::Chance;
use crate::client::Client;
use crate::world::{DISK_BYTES, Place, Replay};

const FOLDER: &str = "TIDEGATE_TEST_TAP";
/// As `crates/agent/src/tap/hook.rs` reads it.
const KILL_UNRECORDED: &str = "TIDEGATE_TEST_KILL_UNRECORDED";

fn place_in(folder: &std::path::Path) -> Place {
    Place { disks: 2, ..Place::new(folder) }
}

/// The process: serves until it is killed.
#[test]
#[ignore = "started by the tests below"]
fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let place = place_in(std::path::Path::new(&folder));
    let machine = place.resume();
    let _server = machine.serve();
    eprintln!("serving");
    loop {
        thread::park();
    }
}

fn start(place: &Place, kill_unrecorded: Option<u64>) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "kill::the_process_that_is_killed", "--ignored", "--nocapture"]);
    child.env(FOLDER, &place.folder).stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some(count) = kill_unrecorded {
        child.env(KILL_UNRECORDED, count.to_string());
    }
    let mut child = child.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let serves = lines.any(|line| line.is_ok_and(|line| line == "serving"));
    assert!(serves, "the process ended before it served");
    child
}

/// Has clients at work until the process is gone; it is killed after so many of their answers.
fn play_until_killed(place: &Place, child: &mut Child, seed: u64, kill_after: u64) {
    let answers = AtomicU64::new(0);
    thread::scope(|scope| {
        for number in 0..4_u64 {
            let (place, answers) = (&place, &answers);
            scope.spawn(move || {
                let export = (number % 2).to_string();
                let Ok(mut client) = Client::connect(&place.socket(), &export) else { return };
                let mut chance = Chance(seed * 1000 + number);
                while client.play(&mut chance, 5, DISK_BYTES, 5).is_ok() {
                    answers.fetch_add(5, Ordering::SeqCst);
                }
            });
        }
        while answers.load(Ordering::SeqCst) < kill_after && child.try_wait().unwrap().is_none() {
            thread::yield_now();
        }
        // Gone already where it killed itself.
        let _ = child.kill();
        child.wait().unwrap();
    });
}

/// After each kill the journal replayed is the disk again; how many rounds had something in flight.
fn rounds(kills: impl Iterator<Item = (Option<u64>, u64)>) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let place = place_in(folder.path());
    place.make_images();
    place.create().close();
    let (mut replay, mut rereads) = (Replay::default(), 0);
    for ((kill_unrecorded, kill_after), seed) in kills.zip(0..) {
        let mut child = start(&place, kill_unrecorded);
        play_until_killed(&place, &mut child, seed, kill_after);
        let machine = place.resume();
        rereads += usize::from(!machine.rereads.is_empty());
        for reread in &machine.rereads {
            assert!(reread.last > reread.after && reread.bytes > 0, "{reread:?}");
        }
        if let Some(first) = machine.rereads.first() {
            machine.settle();
            let begun = machine.journal.read_from(first.after.next()).next().unwrap().unwrap();
            let Change::Bookmark(mark) = &begun.change else { panic!("{begun:?}") };
            assert_eq!((mark.kind, mark.clean), (BookmarkKind::GapKilled, false));
        }
        replay.go_on(&machine.journal, machine.settle());
        replay.assert_equals(&place);
        // Not closed: the next one finds what a kill leaves.
    }
    rereads
}

#[test]
fn killed_at_any_moment_nothing_that_was_applied_is_missing() {
    let rereads = rounds((0..10).map(|round| (None, 20 + 150 * round)));
    assert!(rereads > 0, "no kill found anything in flight");
}

#[test]
fn killed_between_applying_a_change_and_recording_it_nothing_is_missing() {
    let rereads = rounds([1, 2, 50, 333, 1000].into_iter().map(|count| (Some(count), u64::MAX)));
    assert_eq!(rereads, 5, "each time the change itself was in flight");
}
