//! What the tests of the whole stand on is itself tested: a comparison that misses a byte, or a
//! guard that leaves a device behind, would make every test above it worthless.

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::azurite::Azurite;
use support::compare::{Difference, allocated_bytes, assert_same, difference, stored_bytes};
use support::devices::{FileSystem, Loop, Mount, usable};
use support::process::{Running, Tidegate};
use support::random::Rng;
use support::{faults, images, postgres, scratch, tool};

const SHORT: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// What a piece of a test says when it fails, which it must.
#[track_caller]
fn failure_of<T>(what: impl FnOnce() -> T) -> String {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
    let payload = result.err().expect("it should have failed");
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn comparing_finds_one_changed_byte_in_a_sparse_disk_of_64_gib() {
    let files = scratch();
    let (left, right) = (files.path().join("left"), files.path().join("right"));
    images::sparse_64_gib(&left, 1);
    images::copy(&left, &right);
    assert!(allocated_bytes(&right) < 16 << 20, "a copy keeps holes");
    assert_eq!(difference(&left, &right), None);

    // In data, in what is a hole on one side only, and in the last byte.
    for offset in [100, 17 << 30, (64 << 30) - 1] {
        let mut byte = [0];
        rustix::io::pread(File::open(&right).expect("it opens"), &mut byte, offset)
            .expect("it reads");
        images::patch(&right, offset, &[byte[0] ^ 1]);
        let found = difference(&left, &right);
        let expected = Difference::Byte { offset, left: byte[0], right: byte[0] ^ 1 };
        assert_eq!(found, Some(expected));
        images::patch(&right, offset, &byte);
    }
    assert_same(&left, &right);
}

#[test]
fn comparing_takes_written_zeros_for_a_hole_and_tells_lengths_apart() {
    let files = scratch();
    let (left, right) = (files.path().join("left"), files.path().join("right"));
    images::empty(&left, 3_000_001);
    fs::write(&right, vec![0; 3_000_001]).expect("it can be written");
    assert_eq!(difference(&left, &right), None);

    images::empty(&left, 3_000_002);
    let lengths = Difference::Length { left: 3_000_002, right: 3_000_001 };
    assert_eq!(difference(&left, &right), Some(lengths));
}

#[test]
fn random_bytes_follow_from_their_seed_and_do_not_repeat() {
    let files = scratch();
    let [a, b, c] = ["a", "b", "c"].map(|name| files.path().join(name));
    images::random(&a, 2_000_003, 7);
    images::random(&b, 2_000_003, 7);
    images::random(&c, 2_000_003, 8);
    assert_same(&a, &b);
    assert!(difference(&a, &c).is_some());
    assert_eq!(stored_bytes(files.path()), 3 * 2_000_003);
    let mut rng = Rng::new(1);
    assert!((0..1000).all(|_| rng.below(10) < 10));
}

#[test]
fn a_file_system_of_this_hosts_files_is_whole_and_kept() {
    let image = images::host_ext4(64 << 20);
    tool(Command::new("e2fsck").args(["-f", "-n"]).arg(&image));
    assert!(allocated_bytes(&image) > 32 << 20, "there is hardly anything on it");
    let made = image.metadata().and_then(|metadata| metadata.modified()).expect("it has a time");
    let again = images::host_ext4(64 << 20);
    assert_eq!(again.metadata().and_then(|metadata| metadata.modified()).expect("as above"), made);
}

#[test]
fn a_database_on_xfs_answers_the_same_from_a_copy_and_not_from_a_damaged_one() {
    if !usable("a database on xfs") {
        return;
    }
    let image = images::postgres_xfs();
    let files = scratch();
    let copies = ["one", "two"].map(|name| files.path().join(name));
    let answers = copies.each_ref().map(|copy| {
        images::copy(&image, copy);
        assert_same(&image, copy);
        postgres::accounts(copy)
    });
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].starts_with("1000000|"), "{}", answers[0]);
}

#[test]
fn a_loop_device_shows_its_file_and_goes_with_its_guard() {
    if !usable("loop devices") {
        return;
    }
    let files = scratch();
    let file = files.path().join("disk");
    images::random(&file, 1 << 20, 3);
    let device = Loop::attach(&file);
    assert_same(&file, device.device());
    let shown = tool(Command::new("losetup").arg("-j").arg(&file));
    assert!(shown.contains(&*device.device().to_string_lossy()), "{shown}");
    drop(device);
    assert_eq!(tool(Command::new("losetup").arg("-j").arg(&file)), "");
}

#[test]
fn a_panicking_test_leaves_neither_mount_nor_device_behind() {
    if !usable("mounts") {
        return;
    }
    let left = std::thread::spawn(|| {
        let disk = FileSystem::ext4(16 << 20);
        std::panic::panic_any((disk.path().to_owned(), disk.backing()));
    });
    let what = left.join().expect_err("it panicked");
    let (path, backing) =
        *what.downcast::<(std::path::PathBuf, std::path::PathBuf)>().expect("it said where");
    let mounts = fs::read_to_string("/proc/mounts").expect("mounts can be read");
    assert!(!mounts.contains(&*path.to_string_lossy()), "{mounts}");
    let devices = tool(Command::new("losetup").args(["--list", "--output", "BACK-FILE"]));
    assert!(!devices.contains(&*backing.to_string_lossy()), "{devices}");
    assert!(!backing.exists());
}

#[test]
fn a_small_file_system_gets_full_and_a_copy_of_it_has_what_was_synced() {
    if !usable("a full file system") {
        return;
    }
    let disk = FileSystem::ext4(16 << 20);
    fs::write(disk.path().join("kept"), "kept").expect("there is room");
    File::open(disk.path().join("kept"))
        .and_then(|file| file.sync_all())
        .expect("it can be synced");
    File::open(disk.path()).and_then(|file| file.sync_all()).expect("it can be synced");
    let copied = FileSystem::of_copy(&disk.backing());
    assert_eq!(fs::read_to_string(copied.path().join("kept")).expect("it is there"), "kept");

    let ballast = disk.fill(64 << 10);
    let error = fs::write(disk.path().join("more"), vec![1; 1 << 20]).expect_err("it is full");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    fs::remove_file(ballast).expect("it can be removed");
    fs::write(disk.path().join("more"), vec![1; 1 << 20]).expect("there is room again");
}

#[test]
fn a_read_only_loop_device_refuses_writes() {
    if !usable("read-only devices") {
        return;
    }
    let files = scratch();
    let file = files.path().join("disk");
    images::empty(&file, 1 << 20);
    let device = Loop::attach_read_only(&file);
    let opened = fs::OpenOptions::new().write(true).open(device.device());
    let written = opened.and_then(|file| {
        rustix::io::pwrite(&file, &[1; 512], 0)?;
        file.sync_all()
    });
    assert!(written.is_err());
    let at = files.path().join("mount");
    fs::create_dir(&at).expect("it can be made");
    let wrong = failure_of(|| Mount::new(device.device(), &at, "ro"));
    assert!(wrong.contains("mount"), "zeros are no file system: {wrong}");
}

#[test]
fn a_process_that_hangs_is_stopped_at_its_limit_and_its_output_is_shown() {
    let before = Instant::now();
    let running = Running::start(shell("echo so far; exec sleep 600"));
    let pid = running.pid();
    let shown = failure_of(move || running.wait(Duration::from_millis(300)));
    assert!(shown.contains("so far"), "{shown}");
    assert!(before.elapsed() < Duration::from_secs(60));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it still runs");
}

#[test]
fn a_line_is_waited_for_and_an_early_end_is_told() {
    let running = Running::start(shell("echo one; sleep 0.2; echo two >&2; exec sleep 600"));
    assert_eq!(running.wait_for_line("two", SHORT, |line| line.starts_with("two")), "two");
    assert!(!running.ended());
    let ended = running.kill();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(9));

    let running = Running::start(shell("echo one; exit 3"));
    let missed = failure_of(|| running.wait_for_line("two", SHORT, |line| line == "two"));
    assert!(missed.contains("before it ended"), "{missed}");
    assert_eq!(running.wait(SHORT).failure().status.code(), Some(3));
}

#[test]
fn a_frozen_process_goes_on_where_it_stood() {
    let running = Running::start(shell(
        "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done",
    ));
    running.wait_for_line("up", SHORT, |line| line == "up");
    running.freeze();
    running.signal(Signal::TERM);
    let state =
        || fs::read_to_string(format!("/proc/{}/stat", running.pid())).expect("it is there");
    let stopped = Instant::now() + SHORT;
    while !state().contains(") T ") && Instant::now() < stopped {
        std::thread::yield_now();
    }
    assert!(state().contains(") T "), "{}", state());
    running.thaw();
    assert!(running.wait(SHORT).success().stdout.contains("asked"));
}

#[test]
fn the_program_is_run_without_the_variables_of_this_process() {
    let output = Tidegate::new(["--version"]).limit(SHORT).run().success();
    assert!(output.stdout.starts_with("tidegate "), "{output}");
    Tidegate::new(["no-such-command"]).run().failure().says(&["no-such-command"]);
}

#[test]
fn the_store_of_the_tests_answers_and_has_an_empty_container() {
    let store = Azurite::start("first");
    store.make_container("second");
    let again = failure_of(|| store.make_container("second"));
    assert!(again.contains("409"), "a container that is there can't be made again: {again}");
    assert_eq!(store.vault("p"), "az://first/p");
    let pid = store.pid();
    drop(store);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the store still runs");
}

#[test]
fn nobody_is_held_to_the_lockable_memory_that_it_is_given() {
    if !rustix::process::getuid().is_root() {
        let test = "nobody_is_held_to_the_lockable_memory_that_it_is_given";
        return support::not_run(test, "another user's limits need root", false);
    }
    let mut command = shell("id -u; ulimit -l");
    faults::as_nobody(&mut command, 64 << 10);
    assert_eq!(tool(&mut command), "65534\n64\n");

    let public = support::public_scratch();
    let program = faults::program_for_all(public.path());
    let run = Tidegate::of(&program, ["--version"]);
    run.with(|command| faults::as_nobody(command, 64 << 10)).run().success();
}

#[test]
fn a_filter_refuses_io_uring_and_nothing_else() {
    // The filter outlives exec, so a program that only makes the call shows it.
    let script = "import ctypes,sys; libc=ctypes.CDLL(None,use_errno=True); \
                  r=libc.syscall(425,8,ctypes.create_string_buffer(120)); \
                  print(r >= 0, ctypes.get_errno()); sys.exit(0)";
    let ask = || {
        let mut command = Command::new("python3");
        command.args(["-c", script]);
        command
    };
    assert!(tool(&mut ask()).starts_with("True"), "this kernel has no io_uring");
    let mut command = ask();
    faults::forbid_io_uring(&mut command);
    assert_eq!(tool(&mut command), format!("False {}\n", libc::EPERM));
}
