//! What results and recovered disks must not destroy, and where they can't go: special files, links,
//! files of others, an output that takes nothing.

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;

use support::compare::assert_same;
use support::devices::{self, FileSystem};
use support::faults;
use support::process::Tidegate;
use support::site::{Site, shown};

const MIB: u64 = 1 << 20;

/// A site with a machine `db`, and its disk.
fn scene() -> (Site, std::path::PathBuf) {
    let site = Site::with_vault();
    let disk = site.disk("db", MIB);
    site.replicate("db", &[&disk]).run().success();
    (site, disk)
}

fn recover(site: &Site, to: &Path, options: &[&str]) -> Tidegate {
    site.command(&["recover", "db", "--disk", "0", "--to", shown(to)]).args(options)
}

#[test]
fn what_is_neither_a_file_nor_a_block_device_stays_what_it_is() {
    let (site, _) = scene();
    let pipe = site.path("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for options in [&["--force"][..], &[]] {
        let output = recover(&site, &pipe, options).run().failure();
        output.says(&[shown(&pipe), "neither a file nor a block device"]);
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    }
    let nowhere = site.path("nowhere");
    symlink(site.path("not there"), &nowhere).unwrap();
    recover(&site, &nowhere, &["--force"]).run().failure().says(&["leads nowhere"]);
    assert!(fs::symlink_metadata(&nowhere).unwrap().is_symlink());
}

#[test]
fn a_target_that_gets_full_is_named_and_nothing_is_left_there() {
    if !devices::usable("a_target_that_gets_full") {
        return;
    }
    let site = Site::with_vault();
    let disk = site.disk("db", 24 * MIB);
    site.replicate("db", &[&disk]).run().success();
    let small = FileSystem::ext4(16 * MIB);
    let before = fs::read_dir(small.path()).unwrap().count();
    let (one, all) = (small.path().join("back.img"), small.path().join("new/restore"));
    let to_directory = site.command(&["recover", "db", "--to", shown(&all)]);
    let calls = [(recover(&site, &one, &[]), one), (to_directory, all.join("disk-0.img"))];
    for (call, path) in calls {
        let output = call.run().failure();
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), ""), "{output}");
        output.says(&[shown(&path), "disk 0 of db", "No space left", "make room there"]);
        assert_eq!(fs::read_dir(small.path()).unwrap().count(), before);
    }
}

#[test]
fn a_disk_that_is_longer_than_files_may_be_is_refused_in_words_and_nothing_is_left() {
    let (site, _) = scene();
    let (one, all) = (site.path("back.img"), site.path("restore"));
    let to_directory = site.command(&["recover", "db", "--to", shown(&all)]);
    for (call, made) in [(recover(&site, &one, &[]), &one), (to_directory, &all)] {
        let before = fs::read_dir(site.path(".")).unwrap().count();
        let output = call.with(|command| faults::longest_file(command, MIB / 2)).run().failure();
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), ""), "{output}");
        output.says(&[shown(made), "File too large", "ulimit -f"]);
        assert_eq!(fs::read_dir(site.path(".")).unwrap().count(), before);
    }
}

#[test]
fn a_directory_that_was_made_for_a_recovery_goes_with_it_and_others_stay() {
    let (site, _) = scene();
    for pack in site.packs() {
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
    let (made, there) = (site.path("new"), site.path("there"));
    fs::create_dir(&there).unwrap();
    for to in [&made.join("restore"), &there] {
        let output = site.command(&["recover", "db", "--to", shown(to)]).run().failure();
        assert_eq!((output.status.code(), &*output.stdout), (Some(3), ""), "{output}");
    }
    assert!(!made.exists());
    assert_eq!(fs::read_dir(&there).unwrap().count(), 0);
}

#[test]
fn files_beside_the_target_and_links_to_it_stay_what_they_are() {
    let (site, disk) = scene();
    let (to, beside) = (site.path("back.img"), site.path("back.img.partial"));
    let other = site.path("other.txt");
    fs::write(&other, "somebody else's").unwrap();
    symlink(&other, &beside).unwrap();
    recover(&site, &to, &[]).run().success();
    assert_same(&disk, &to);
    assert_eq!(fs::read_to_string(&other).unwrap(), "somebody else's");
    assert!(fs::symlink_metadata(&beside).unwrap().is_symlink());

    // A link to a file: the file is replaced, and the link still leads to it.
    let link = site.path("link.img");
    symlink(&other, &link).unwrap();
    recover(&site, &link, &[]).run().failure().says(&["--force"]);
    recover(&site, &link, &["--force"]).run().success();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_same(&disk, &other);
}

#[test]
fn a_result_that_nobody_gets_is_a_failure_and_a_recovery_key_is_told_all_the_same() {
    let site = Site::in_scratch();
    let to_full = |arguments: &str| {
        let script = format!("exec \"$0\" {arguments} > /dev/full");
        Tidegate::of(Path::new("sh"), ["-c", &script, env!("CARGO_BIN_EXE_tidegate")]).run()
    };
    let (vault, key) = (site.path("elsewhere"), site.path("new.key"));
    for json in ["", "--json"] {
        let (vault, key) = (vault.with_extension(json), key.with_extension(json));
        let open = format!("--key-file '{}'", key.display());
        let made = to_full(&format!("{json} vault init 'file://{}' {open}", vault.display()));
        let made = made.failure().says(&["can't be written to the standard output"]);
        made.says(&["TIDEGATE-RECOVERY-"]);
        assert!(key.exists(), "a key file that isn't there is made");
        let list = format!("{json} machines --vault 'file://{}' {open}", vault.display());
        to_full(&list).failure().says(&["can't be written to the standard output"]);
    }
}
