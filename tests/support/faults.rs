//! Faults that a process can be started with: another user with little lockable memory, a limit of
//! files' lengths, and a kernel that refuses io_uring or anything else. Each changes a command before it is started.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter, sock_fprog};
use rustix::process::{Resource, Rlimit, setrlimit};

/// The user and group that own nothing.
const NOBODY: u32 = 65534;

/// A copy of the program that every user may run, for the built one may lie where only its builder
/// can go. `directory` comes from `public_scratch`.
#[track_caller]
pub fn program_for_all(directory: &Path) -> PathBuf {
    let copy = directory.join("tidegate");
    fs::copy(env!("CARGO_BIN_EXE_tidegate"), &copy).expect("the program can be copied");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    copy
}

/// Lets everyone write in a directory of a test.
#[track_caller]
pub fn open_to_all(directory: &Path) {
    let all = fs::Permissions::from_mode(0o777);
    fs::set_permissions(directory, all).expect("a mode can be set");
}

/// Starts it as nobody, who can lock only so much memory. (Root isn't held to that limit.) Needs
/// root.
pub fn as_nobody(command: &mut Command, memlock_bytes: u64) {
    command.uid(NOBODY).gid(NOBODY);
    lockable_memory(command, memlock_bytes);
}

/// Lowers only the limit, for the user of the test.
pub fn lockable_memory(command: &mut Command, bytes: u64) {
    limit(command, Resource::Memlock, bytes);
}

/// Lets no file that it writes get longer.
pub fn longest_file(command: &mut Command, bytes: u64) {
    limit(command, Resource::Fsize, bytes);
}

fn limit(command: &mut Command, resource: Resource, bytes: u64) {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe, on a
    // value that the closure owns.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(resource, limit)?));
    }
}

/// Makes the kernel refuse io_uring to it, as container runtimes do.
pub fn forbid_io_uring(command: &mut Command) {
    let refused = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    filter(command, refused_calls(&refused));
}

/// Makes the kernel refuse it everything but `calls`, as a seccomp profile does.
pub fn allow_only(command: &mut Command, calls: &[i64]) {
    filter(command, allowed_calls(calls));
}

/// Refuses with EPERM, as container runtimes do.
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | (libc::EPERM as u32);
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn refused_calls(calls: &[i64]) -> Vec<sock_filter> {
    program(calls, REFUSE, ALLOW)
}

fn allowed_calls(calls: &[i64]) -> Vec<sock_filter> {
    program(calls, ALLOW, REFUSE)
}

/// Loads the number of the call, answers `listed` for those in `calls` and `others` for the rest.
fn program(calls: &[i64], listed: u32, others: u32) -> Vec<sock_filter> {
    // The number is the first field of seccomp_data.
    let mut program = vec![step(BPF_LD | BPF_W | BPF_ABS, 0, 0)];
    for &call in calls {
        let call = u32::try_from(call).expect("system calls have small numbers");
        program.push(step(BPF_JMP | BPF_JEQ | BPF_K, 1, call));
        program.push(step(BPF_RET | BPF_K, 0, listed));
    }
    program.push(step(BPF_RET | BPF_K, 0, others));
    program
}

/// One instruction; `skip` is where a comparison goes on if it isn't equal.
fn step(code: u32, skip: u8, k: u32) -> sock_filter {
    let code = u16::try_from(code).expect("operation codes have 16 bits");
    sock_filter { code, jt: 0, jf: skip, k }
}

fn filter(command: &mut Command, mut program: Vec<sock_filter>) {
    let len = u16::try_from(program.len()).expect("a filter has at most 4,096 steps");
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe; the filter
    // lives in the closure for as long as it may be called, and `len` is its length.
    unsafe {
        command.pre_exec(move || {
            let filter = sock_fprog { len, filter: program.as_mut_ptr() };
            // Without this the kernel wants CAP_SYS_ADMIN for a filter.
            answer(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            let mode = libc::SECCOMP_MODE_FILTER;
            answer(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter))
        });
    }
}

fn answer(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
