//! Disks that aren't there, can't be read, or don't stay as they are: every copy of one ends with
//! an error that a person can act on, and what was copied before stays as it was.

mod support;

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use support::devices::{self, Loop};
use support::gate::Gate;
use support::images;
use support::process::{Output, Running, Server, Tidegate};
use support::refusals::{LIMIT, shown};
use support::site::Site;
use support::{faults, public_scratch};

const MIB: u64 = 1 << 20;
/// Bytes of a copy that are through before something is done to its disk.
const PASSED: u64 = 6 * MIB;
/// The agent's memory: it reads no further ahead of what is committed than this.
const WINDOW: &str = "4MiB";
/// A disk that isn't half read when the gate holds, whatever lies in sockets.
const DISK: u64 = 48 * MIB;

/// A copy that is held in the middle of its disk.
struct Held {
    gate: Gate,
    copy: Running,
    _server: Server,
}

impl Held {
    #[track_caller]
    fn copy(site: &Site, disk: &Path) -> Self {
        let server = site.serve();
        site.enroll("db", "machine");
        let gate = Gate::to(server.address, PASSED);
        let copy = site.agent(&gate.at(), "db", &[disk]).args(["--window", WINDOW]).start();
        gate.wait_until_it_holds(LIMIT);
        assert!(!copy.ended(), "{}", copy.printed());
        Self { gate, copy, _server: server }
    }

    /// Lets it go on to its end.
    #[track_caller]
    fn go_on(self) -> Output {
        self.gate.open();
        self.copy.wait(LIMIT)
    }
}

#[test]
fn what_is_no_disk_is_refused_by_name_before_a_vault_or_a_server_is_touched() {
    let site = Site::in_scratch();
    let at = |name: &str| site.path(name);
    fs::create_dir(at("directory")).unwrap();
    File::create(at("nothing in it")).unwrap();
    let cases: [(PathBuf, &[&str]); 4] = [
        (at("missing"), &["no such file or device", "check the path"]),
        (at("directory"), &["is a directory", "name a raw image file or a block device"]),
        (at("nothing in it"), &["is empty", "check that it is the right disk"]),
        ("/dev/null".into(), &["is a character device", "name a raw image file"]),
    ];
    for (disk, words) in cases {
        let replicated = site.replicate("db", &[&disk]).run();
        // No server, no identity: the disk is looked at first.
        let sent = site.agent("127.0.0.1:1", "db", &[&disk]).run();
        for output in [replicated, sent] {
            let output = output.failure().says(&[shown(&disk)]).says(words);
            assert_eq!(output.status.code(), Some(2), "{output}");
        }
    }
    assert!(!site.vault_path().exists(), "no vault was made");
}

#[test]
fn a_disk_that_this_user_may_not_read_is_refused_with_who_may() {
    let place = public_scratch();
    let disk = place.path().join("disk.img");
    images::random(&disk, MIB, 1);
    fs::set_permissions(&disk, Permissions::from_mode(0o000)).unwrap();
    faults::open_to_all(place.path());
    let vault = place.path().join("vault");
    let program = faults::program_for_all(place.path());
    let args = ["replicate", shown(&disk), "--vault", &format!("file://{}", vault.display())];
    let mut call = Tidegate::of(&program, args).env("TIDEGATE_PASSPHRASE", "a passphrase");
    // Root reads everything.
    if rustix::process::getuid().is_root() {
        call = call.with(|command| faults::as_nobody(command, 4 << 20));
    }
    let output = call.run().failure();
    output.says(&[shown(&disk), "not permitted", "run as root or as a user who may read it"]);
    assert!(!vault.exists(), "no vault was made");
}

#[test]
fn a_disk_that_shrinks_ends_the_copy_and_the_point_before_stays() {
    let site = Site::with_vault();
    let (before, disk) = (site.disk("before", DISK), site.disk("db", DISK));
    site.replicate("db", &[&before]).run().success();
    let point = site.last_point("db");

    let held = Held::copy(&site, &disk);
    OpenOptions::new().write(true).open(&disk).unwrap().set_len(PASSED).unwrap();
    let output = held.go_on().failure();
    let (from, to) = (DISK.to_string(), PASSED.to_string());
    output.says(&[shown(&disk), "shrank", &from, &to, "copy again"]);

    assert_eq!(site.last_point("db"), point, "the copy that ended isn't offered");
    let listed = site.call(&["points", "db"]);
    listed.says(&["the initial copy hasn't ended"]);
    site.assert_recovers_at("db", "latest", &before);
    site.verify();
}

#[test]
fn a_disk_that_is_written_to_gives_a_point_that_is_marked_and_taken_only_by_its_number() {
    let site = Site::with_vault();
    let disk = site.disk("db", DISK);
    let held = Held::copy(&site, &disk);
    images::patch(&disk, DISK - MIB, b"written while it was copied");
    let output = held.go_on().failure();
    let copied = output.json();
    let point = format!("{}:{}", copied["epoch"], copied["lsn"]);
    assert_eq!(copied["clean"], false, "{output}");
    output.says(&[shown(&disk), "was written to", "UNCLEAN", &point, "copy again"]);

    let key = site.key();
    let args = ["points", "db", "--vault", site.vault(), "--key-file", shown(&key)];
    Tidegate::new(args).run().success().says(&["UNCLEAN", &point]);
    let refused = site.fails_to_recover("db", "latest");
    refused.says(&["only unclean recovery points", "--at", &point]);
    let to = site.path("by its number");
    let taken = site.recover("db", &point, &to).run().success();
    assert_eq!(taken.json()["clean"], false, "{taken}");
    taken.says(&["UNCLEAN", "mixture of moments"]);
    // What wasn't written to is as it was, and so is all that was written before it was read.
    support::compare::assert_same_up_to(&disk, &to, DISK - MIB);

    // Once nothing writes, the same disk gives a point that is good.
    site.replicate("db", &[&disk]).run().success();
    site.assert_recovers_at("db", "latest", &disk);
    site.verify();
}

#[test]
fn an_unclean_copy_does_not_replace_the_clean_point_before_it() {
    let site = Site::with_vault();
    let (before, disk) = (site.disk("before", MIB), site.disk("db", DISK));
    site.replicate("db", &[&before]).run().success();
    let held = Held::copy(&site, &disk);
    // Longer is a change too; what was there at the beginning is copied.
    OpenOptions::new().write(true).open(&disk).unwrap().set_len(DISK + 1).unwrap();
    held.go_on().failure().says(&[shown(&disk), "was written to"]);
    site.assert_recovers_at("db", "latest", &before);
}

#[test]
fn a_disk_that_fails_is_named_with_the_place_and_the_point_before_stays() {
    if !devices::usable("a_disk_that_fails_is_named_with_the_place_and_the_point_before_stays") {
        return;
    }
    const GOOD: u64 = 20 * MIB;
    let site = Site::with_vault();
    let disk = site.disk("db", DISK);
    let whole = site.path("whole.img");
    images::copy(&disk, &whole);
    site.replicate("db", &[&disk]).run().success();
    let point = site.last_point("db");

    // A loop device over a file that became shorter answers with EIO behind its end.
    let device = Loop::attach_read_only(&disk);
    OpenOptions::new().write(true).open(&disk).unwrap().set_len(GOOD).unwrap();
    let output = site.replicate("db", &[device.device()]).run().failure();
    let place = format!("offset {GOOD}");
    output.says(&[shown(device.device()), &place, "Input/output error", "dmesg", "copy again"]);

    assert_eq!(site.last_point("db"), point, "the copy that ended isn't offered");
    site.assert_recovers_at("db", "latest", &whole);
    site.verify();
}
