//! Our client against servers of other people, and our own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tidegate_nbd::client::{Client, ClientError, Wanted};
use tidegate_nbd::serve::Address;
use tidegate_nbd::{Span, TransmissionFlags};

use crate::served::{ALL, Served};
use crate::{BLOCK, disk, tool};

const LIMIT: Duration = Duration::from_secs(20);
const ALLOCATION: &str = "base:allocation";
const BITMAP: &str = "qemu:dirty-bitmap:b0";

fn wanted(contexts: &[&str]) -> Wanted {
    let contexts = contexts.iter().map(|&context| context.to_owned()).collect();
    Wanted { export: "disk".to_owned(), contexts }
}

fn connect(address: &Address, contexts: &[&str]) -> Client {
    Client::connect(address, &wanted(contexts), LIMIT).unwrap()
}

fn read(client: &mut Client, bytes: usize) -> Vec<u8> {
    let mut data = vec![0xee; bytes];
    client.read(0, &mut data).unwrap();
    data
}

/// All that a context says of an export, with neighbours of a kind as one.
fn status(client: &mut Client, context: usize) -> Vec<(u64, u32)> {
    let (mut all, mut at, end) = (Vec::<(u64, u32)>::new(), 0, client.agreed().bytes);
    while at < end {
        let spans = client.status(&(at..end), context).unwrap();
        assert!(!spans.is_empty(), "it goes on");
        for Span { length, flags } in spans {
            at += length;
            match all.last_mut() {
                Some((before, same)) if *same == flags.0 => *before += length,
                _ => all.push((length, flags.0)),
            }
        }
    }
    all
}

#[test]
fn our_own_server_is_read_over_tcp_and_over_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    for address in [Address::Unix(path), "tcp:127.0.0.1:0".parse().unwrap()] {
        let served = Served::at(&address, disk(), ALL);
        let mut client = connect(served.address(), &[ALLOCATION]);
        assert_eq!(client.agreed().bytes, disk().len() as u64);
        assert!(read(&mut client, disk().len()) == disk());
        let told = status(&mut client, 0);
        assert_eq!(told.iter().map(|(length, _)| length).sum::<u64>(), disk().len() as u64);
        assert_eq!(told[1], (3 * BLOCK as u64, 0b11), "a hole that reads as zeros");
        served.fail_at(17 * BLOCK as u64);
        let error = client.read(16 * BLOCK as u64, &mut vec![0; 2 * BLOCK]).unwrap_err();
        assert!(matches!(error, ClientError::Failed { .. }), "{error}");
        let mut last = vec![0; 512];
        client.read(40 * BLOCK as u64, &mut last).unwrap();
        assert_eq!(last, disk()[40 * BLOCK..], "the connection goes on");
        let error = Client::connect(served.address(), &wanted(&[BITMAP]), LIMIT).unwrap_err();
        assert!(error.to_string().contains(BITMAP), "{error}");
    }
}

/// A process that is ended when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, arguments: &[&str], socket: &Path) -> Running {
    let mut child = Command::new(program).args(arguments).spawn().unwrap_or_else(|error| {
        panic!("{program} isn't on this machine: `make tools` installs it ({error})")
    });
    let until = Instant::now() + LIMIT;
    while !socket.exists() {
        let ended = child.try_wait().unwrap();
        assert!(
            ended.is_none() && Instant::now() < until,
            "{program} {arguments:?} doesn't listen"
        );
        std::thread::yield_now();
    }
    Running(child)
}

/// A qcow2 with data, and a bitmap in which two places are dirty.
fn qcow2(folder: &Path) -> PathBuf {
    let (raw, image) = (folder.join("raw"), folder.join("image.qcow2"));
    std::fs::write(&raw, disk()).unwrap();
    let (from, to) = (raw.to_str().unwrap(), image.to_str().unwrap());
    tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", from, to]);
    tool("qemu-img", &["bitmap", "--add", to, "b0"]);
    let writes = ["-c", "write -P 1 131072 4k", "-c", "write -P 2 1048576 70000"];
    tool("qemu-io", &[&["-f", "qcow2"], &writes[..], &[to]].concat());
    image
}

fn written() -> Vec<u8> {
    let mut written = disk();
    written[131_072..131_072 + 4096].fill(1);
    written[1_048_576..1_048_576 + 70_000].fill(2);
    written
}

#[test]
fn a_bitmap_that_qemu_nbd_serves_is_read_with_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let (image, socket) = (qcow2(folder.path()), folder.path().join("socket"));
    let (path, image) = (socket.to_str().unwrap(), image.to_str().unwrap());
    let arguments =
        ["-r", "-t", "-e", "4", "-k", path, "-f", "qcow2", "-B", "b0", "-x", "disk", image];
    let _server = start("qemu-nbd", &arguments, &socket);
    let mut client = connect(&Address::Unix(socket.clone()), &[BITMAP, ALLOCATION]);
    assert!(client.agreed().flags.has(TransmissionFlags::READ_ONLY));
    let bytes = usize::try_from(client.agreed().bytes).unwrap();
    assert!(read(&mut client, bytes)[..written().len()] == written());
    let dirty = status(&mut client, 0);
    let block = BLOCK as u64;
    assert_eq!(dirty[..4], [(2 * block, 0), (block, 1), (13 * block, 0), (2 * block, 1)]);
    assert!(status(&mut client, 1).iter().any(|(_, flags)| *flags == 0b11));
}

#[test]
fn a_bitmap_that_qemu_storage_daemon_serves_is_read_over_tcp_and_over_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let (image, socket) = (qcow2(folder.path()), folder.path().join("socket"));
    let node = format!(
        "driver=qcow2,node-name=disk0,file.driver=file,file.filename={}",
        image.to_str().unwrap()
    );
    let listen = format!("addr.type=unix,addr.path={}", socket.to_str().unwrap());
    let export = "type=nbd,id=e0,node-name=disk0,name=disk,writable=on,bitmaps.0=b0";
    let arguments = ["--blockdev", &node, "--nbd-server", &listen, "--export", export];
    let _server = start("qemu-storage-daemon", &arguments, &socket);
    // The socket is there a little before the export is.
    let address = Address::Unix(socket);
    let until = Instant::now() + LIMIT;
    let mut client = loop {
        match Client::connect(&address, &wanted(&[BITMAP]), LIMIT) {
            Ok(client) => break client,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    };
    assert_eq!(status(&mut client, 0).len(), 5);
    let bytes = usize::try_from(client.agreed().bytes).unwrap();
    assert!(read(&mut client, bytes)[..written().len()] == written());
}

#[test]
fn a_server_that_says_nothing_is_waited_for_only_so_long() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let limit = Duration::from_millis(50);
    let error = Client::connect(&Address::Unix(path), &wanted(&[]), limit).unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    let nobody = Address::Unix(folder.path().join("nobody"));
    let error = Client::connect(&nobody, &wanted(&[]), limit).unwrap_err();
    assert!(matches!(error, ClientError::Unreached { .. }), "{error}");
}
