//! Real disks go into a vault and come back byte for byte, in one process and over the network; into
//! a vault in a directory, and into one in an Azure-compatible store with an empty container.

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::azurite::Azurite;
use support::compare::{allocated_bytes, assert_same, stored_bytes};
use support::devices::{self, Loop};
use support::site::{Site, shown};
use support::{images, random};

/// The size of the operating system image.
const OS_BYTES: u64 = 2 << 30;
const MIB: u64 = 1 << 20;

/// Each of these with a vault in a directory, and with one in Azurite.
macro_rules! everywhere {
    ($($round_trip:ident,)*) => {
        mod in_a_directory {
            $(#[test]
            fn $round_trip() {
                super::$round_trip(&super::Site::with_vault());
            })*
        }

        mod in_azurite {
            $(#[test]
            fn $round_trip() {
                let store = super::Azurite::start("trips");
                let site = super::Site::in_azurite(&store, "site");
                site.init();
                super::$round_trip(&site);
            })*
        }
    };
}

everywhere! {
    an_operating_systems_image_comes_back_and_its_copies_cost_next_to_nothing,
    a_database_on_xfs_comes_back_from_a_server_over_tls,
    disks_of_every_odd_size_come_back,
    the_holes_of_a_huge_sparse_disk_cost_neither_space_nor_time,
    a_disk_of_nothing_but_written_zeros_costs_next_to_nothing,
    two_disks_of_one_machine_and_two_machines_at_once_come_back,
    two_copies_sent_at_the_same_time_cost_hardly_more_than_one,
    a_block_device_is_read_and_written_back,
}

/// Copies disks into the vault, in one process; gives the result.
fn replicate(site: &Site, machine: &str, disks: &[&Path]) -> Value {
    site.replicate(machine, disks).run().success().json()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no number '{name}' in {value}"))
}

fn an_operating_systems_image_comes_back_and_its_copies_cost_next_to_nothing(site: &Site) {
    let image = images::host_ext4(OS_BYTES);
    let first = replicate(site, "first", &[&image]);
    site.assert_recovers("first", 0, &image);
    let stored = number(&first, "bytes_stored");
    assert!(stored > 0 && stored < OS_BYTES);

    let copy = replicate(site, "copy", &[&image]);
    assert!(number(&copy, "bytes_stored") * 100 < stored, "{copy}");
    if site.vault().starts_with("file:") {
        let on_disk = stored_bytes(&site.path("vault").join("log"));
        assert!(on_disk * 100 < stored * 102, "{on_disk} bytes lie there, {stored} were told");
    }
    site.assert_recovers("copy", 0, &image);
    site.verify();
}

fn a_database_on_xfs_comes_back_from_a_server_over_tls(site: &Site) {
    if !devices::usable("a_database_on_xfs_comes_back_from_a_server_over_tls") {
        return;
    }
    let image = images::postgres_xfs();
    let server = site.serve();
    site.enroll("db-1", "machine");
    site.agent(&server.at(), "db-1", &[&image]).run().success();
    server.stop().success();
    site.assert_recovers("db-1", 0, &image);
    site.verify();
}

fn disks_of_every_odd_size_come_back(site: &Site) {
    let seed = random::seed();
    for (name, bytes) in
        [("tiny", 4096), ("byte", 1), ("odd", 3 * MIB + 12_345), ("random", 64 * MIB)]
    {
        let disk = site.path(name);
        images::random(&disk, bytes, seed);
        let copied = replicate(site, name, &[&disk]);
        assert_eq!(number(&copied, "bytes_total"), bytes);
        site.assert_recovers(name, 0, &disk);
    }
    site.verify();
}

fn the_holes_of_a_huge_sparse_disk_cost_neither_space_nor_time(site: &Site) {
    let disk = site.path("sparse");
    images::sparse_64_gib(&disk, random::seed());
    let copied = replicate(site, "sparse", &[&disk]);
    let held = allocated_bytes(&disk);
    assert!(number(&copied, "bytes_read") <= held + 16 * MIB, "holes aren't read: {copied}");
    assert!(number(&copied, "bytes_stored") <= held + MIB);
    let to = site.path("back");
    site.call(&["recover", "sparse", "--disk", "0", "--to", shown(&to)]);
    assert_same(&disk, &to);
    assert!(allocated_bytes(&to) <= held + 16 * MIB, "what is zero is a hole again");
}

fn a_disk_of_nothing_but_written_zeros_costs_next_to_nothing(site: &Site) {
    let disk = site.path("zeros");
    std::fs::write(&disk, vec![0; 256 << 20]).expect("a disk can be written");
    let copied = replicate(site, "zeros", &[&disk]);
    assert_eq!(number(&copied, "bytes_zero"), 256 * MIB);
    assert!(number(&copied, "bytes_stored") < 64 << 10, "{copied}");
    site.assert_recovers("zeros", 0, &disk);
}

fn two_disks_of_one_machine_and_two_machines_at_once_come_back(site: &Site) {
    let seed = random::seed();
    let disks: Vec<PathBuf> = (0..3_u64)
        .map(|n| {
            let disk = site.path(&format!("disk-{n}"));
            images::random(&disk, (20 + n) * MIB + n * 777, seed ^ n);
            disk
        })
        .collect();
    let server = site.serve();
    site.enroll("one", "machine");
    site.enroll("two", "machine");
    let one = site.agent(&server.at(), "one", &[&disks[0], &disks[1]]).start();
    let two = site.agent(&server.at(), "two", &[&disks[2]]).start();
    let limit = std::time::Duration::from_secs(120);
    one.wait(limit).success();
    two.wait(limit).success();
    server.stop().success();
    site.assert_recovers("one", 0, &disks[0]);
    site.assert_recovers("one", 1, &disks[1]);
    site.assert_recovers("two", 0, &disks[2]);

    let all = site.path("all");
    site.call(&["recover", "one", "--to", shown(&all)]);
    assert_same(&disks[0], &all.join("disk-0.img"));
    assert_same(&disks[1], &all.join("disk-1.img"));
    site.verify();
}

fn two_copies_sent_at_the_same_time_cost_hardly_more_than_one(site: &Site) {
    let image = images::host_ext4(512 * MIB);
    let alone = Site::with_vault();
    let one = number(&replicate(&alone, "one", &[&image]), "bytes_stored");

    // The level of `replicate`: a server that chooses would store more, or less, for that.
    let server = site.serve_with(&["--level", "1"]);
    site.enroll("left", "machine");
    site.enroll("right", "machine");
    let left = site.agent(&server.at(), "left", &[&image]).start();
    let right = site.agent(&server.at(), "right", &[&image]).start();
    let limit = std::time::Duration::from_secs(300);
    let both = left.wait(limit).success().number("bytes_stored")
        + right.wait(limit).success().number("bytes_stored");
    server.stop().success();
    assert!(both * 100 < one * 110, "two at once cost {both} bytes, one costs {one}");
    site.assert_recovers("left", 0, &image);
    site.assert_recovers("right", 0, &image);
    site.verify();
}

fn a_block_device_is_read_and_written_back(site: &Site) {
    if !devices::usable("a_block_device_is_read_and_written_back") {
        return;
    }
    let (disk, target) = (site.path("disk"), site.path("target"));
    images::random(&disk, 24 * MIB, random::seed());
    images::random(&target, 32 * MIB, random::seed() ^ 1);
    images::patch(&disk, 3 * MIB, &vec![0; 5 << 20]);
    let device = Loop::attach_read_only(&disk);
    replicate(site, "device", &[device.device()]);
    drop(device);
    site.assert_recovers("device", 0, &disk);

    // Onto a device that holds something else: what is zero must become zero.
    let device = Loop::attach(&target);
    let to = shown(device.device()).to_owned();
    site.call(&["recover", "device", "--disk", "0", "--to", &to, "--force"]);
    drop(device);
    support::compare::assert_same_up_to(&disk, &target, 24 * MIB);
}
