//! Clients of other people against our server: qemu-img, qemu-io, nbdinfo and nbdcopy; and our client
//! against servers of other people.

#![allow(clippy::unwrap_used)] // also in functions that tests share

mod client;
mod served;

use std::process::Command;

use tidegate_nbd::TransmissionFlags;

use served::{ALL, Served};

/// Runs a tool to its end and gives what it prints; a failure is shown whole.
#[track_caller]
fn tool(name: &str, arguments: &[&str]) -> String {
    let (success, text) = run(name, arguments);
    assert!(success, "{name} {arguments:?} failed: {text}");
    text
}

/// Runs a tool to its end; whether it succeeded, and all that it prints.
#[track_caller]
fn run(name: &str, arguments: &[&str]) -> (bool, String) {
    // Whatever hangs, the test doesn't.
    let output = Command::new("timeout").arg("60").arg(name).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("timeout can't be run: {error}"));
    let missing = output.status.code() == Some(127);
    assert!(!missing, "{name} isn't on this machine: `make tools` installs it");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

const BLOCK: usize = 64 << 10;

/// A disk with data, holes between them, and an end off every block.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 40 * BLOCK + 512];
    for block in [0, 1, 5, 17, 39, 40] {
        let end = disk.len().min((block + 1) * BLOCK);
        for (at, byte) in disk[block * BLOCK..end].iter_mut().enumerate() {
            *byte = u8::try_from((at / 7 + block) % 255).unwrap() + 1;
        }
    }
    disk
}

#[test]
fn nbdinfo_is_told_what_is_served() {
    let served = Served::new(disk(), ALL);
    let shown = tool("nbdinfo", &["--json", &served.uri()]);
    for told in [
        "\"protocol\": \"newstyle-fixed\"",
        "\"structured\": true",
        "\"export-name\": \"disk\"",
        "\"description\": \"a disk of the tests\"",
        "\"base:allocation\"",
        "\"export-size\": 2621952",
        "\"is_read_only\": false",
        "\"is_rotational\": false",
        "\"can_multi_conn\": true",
        "\"can_fua\": true",
        "\"can_fast_zero\": true",
        "\"can_df\": true",
        "\"block_size_minimum\": 1",
        "\"block_size_preferred\": 4096",
        "\"block_size_maximum\": 33554432",
    ] {
        assert!(shown.contains(told), "{told} isn't in {shown}");
    }
    let read_only = Served::new(disk(), TransmissionFlags::READ_ONLY);
    let shown = tool("nbdinfo", &["--json", &read_only.uri()]);
    assert!(shown.contains("\"is_read_only\": true"), "{shown}");
    let shown = tool("nbdinfo", &["--list", "--json", &read_only.uri_of("")]);
    assert!(shown.contains("\"export-name\": \"disk\""), "{shown}");
    let (success, shown) = run("qemu-img", &["info", &served.uri_of("nothing")]);
    assert!(!success && shown.contains("no export has this name"), "{shown}");
}

#[test]
fn nbdinfo_and_qemu_img_see_the_holes() {
    let served = Served::new(disk(), ALL);
    let shown = tool("nbdinfo", &["--map", "--json", &served.uri()]);
    let told: Vec<&str> = shown.lines().filter(|line| line.contains("offset")).collect();
    let hole = told.iter().filter(|line| line.contains("\"hole,zero\""));
    assert_eq!((told.len(), hole.count()), (7, 3), "{shown}");
    let first = "\"offset\": 131072, \"length\": 196608";
    assert!(told[1].contains(first), "{shown}");
    let shown = tool("qemu-img", &["map", "--output=json", "-f", "raw", &served.uri()]);
    assert_eq!(shown.matches("\"zero\": true").count(), 3, "{shown}");
}

#[test]
fn qemu_img_reads_the_disk_as_it_is() {
    let (served, directory) = (Served::new(disk(), ALL), tempfile::tempdir().unwrap());
    let copy = directory.path().join("copy");
    let path = copy.to_str().unwrap();
    tool("qemu-img", &["convert", "-f", "raw", "-O", "raw", &served.uri(), path]);
    assert!(std::fs::read(&copy).unwrap() == disk());
}

#[test]
fn qemu_io_writes_zeroes_trims_and_flushes() {
    let served = Served::new(disk(), ALL);
    let commands = [
        "write -P 0xab 1000 70000",
        "write -f -P 0xcd 65536 4096",
        "write -z 327680 65536",
        "write -zu 1114112 4096",
        "discard 2555904 65536",
        "flush",
        "read -P 0xab 1000 64536",
        "read -P 0xcd 65536 4096",
        "read -P 0 327680 65536",
    ];
    let uri = served.uri();
    let mut arguments: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
    arguments.extend(["-f", "raw", &uri]);
    let shown = tool("qemu-io", &arguments);
    assert!(!shown.contains("failed"), "{shown}");
    let mut expected = disk();
    expected[1000..71_000].fill(0xab);
    expected[65_536..69_632].fill(0xcd);
    expected[5 * BLOCK..6 * BLOCK].fill(0);
    expected[17 * BLOCK..17 * BLOCK + 4096].fill(0);
    expected[39 * BLOCK..40 * BLOCK].fill(0);
    assert!(served.disk() == expected);
    assert!(served.flushes() > 0, "no flush came");
    assert!(served.durable_writes() > 0, "no write with FUA came");
}

#[test]
fn a_failed_command_does_not_end_the_connection() {
    let served = Served::new(disk(), ALL);
    served.fail_at(17 * BLOCK as u64);
    let uri = served.uri();
    let arguments = ["-f", "raw", "-c", "read 1114112 512", "-c", "write 1114112 512"];
    let (_, shown) = run("qemu-io", &[&arguments[..], &["-c", "read 0 512", &uri]].concat());
    assert!(shown.contains("read failed: Input/output error"), "{shown}");
    assert!(shown.contains("write failed: Input/output error"), "{shown}");
    assert!(shown.contains("read 512/512 bytes at offset 0"), "{shown}");
}

#[test]
fn nbdcopy_copies_there_and_back_over_several_connections() {
    let directory = tempfile::tempdir().unwrap();
    let (from, back) = (directory.path().join("from"), directory.path().join("back"));
    let in_folder = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(&from, disk()).unwrap();
    for address in ["tcp:127.0.0.1:0".to_owned(), format!("unix:{}", in_folder("socket"))] {
        let served = Served::at(&address.parse().unwrap(), vec![0xee; disk().len()], ALL);
        let uri = served.uri();
        tool("nbdcopy", &["--connections=4", "--flush", from.to_str().unwrap(), &uri]);
        assert!(served.disk() == disk());
        assert!(served.flushes() > 0, "no flush came");
        tool("nbdcopy", &["--connections=4", &uri, back.to_str().unwrap()]);
        assert!(std::fs::read(&back).unwrap() == disk());
        assert!(served.stop() == disk());
    }
}
