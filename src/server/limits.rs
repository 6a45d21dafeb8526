//! What the system must allow before a server can start: io_uring, and memory to lock.

use io_uring::IoUring;
use rustix::process::{Resource, getrlimit};

use super::settings::ServerError;

/// What glommio needs of lockable memory, for each executor.
const LOCKED_BYTES_PER_EXECUTOR: u64 = 512 << 10;

/// Checks them.
pub(super) fn check(executors: u16) -> Result<(), ServerError> {
    check_lockable(executors)?;
    // The smallest ring there is: it is dropped at once.
    IoUring::new(1).map(drop).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOMEM) => ServerError::Lockable {
            needed: LOCKED_BYTES_PER_EXECUTOR * u64::from(executors),
            allowed: getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX),
        },
        _ => ServerError::IoUring(error),
    })
}

fn check_lockable(executors: u16) -> Result<(), ServerError> {
    let needed = LOCKED_BYTES_PER_EXECUTOR * u64::from(executors);
    match getrlimit(Resource::Memlock).current {
        Some(allowed) if allowed < needed => Err(ServerError::Lockable { needed, allowed }),
        _ => Ok(()),
    }
}
