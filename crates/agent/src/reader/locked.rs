//! Whether the buffers may be registered with io_uring: registered memory is locked memory, of
//! which a user has only so much, for all processes together.
//!
//! The pool is registered only when twice its size is allowed. Taking the last of it for a gain of
//! a few percent would leave none to what can't do without: the rings of this process (a process
//! server may run in it) and of others.

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Why `bytes` of buffers are better not registered; `None` when they may be.
pub(super) fn reason_against(bytes: u64) -> Option<String> {
    let privileged =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    decide(bytes, getrlimit(Resource::Memlock).current, privileged)
}

/// The limit in bytes, for the messages of those who ran into it.
pub(super) fn limit_text() -> String {
    getrlimit(Resource::Memlock)
        .current
        .map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes"))
}

fn decide(bytes: u64, limit: Option<u64>, privileged: bool) -> Option<String> {
    let limit = limit.filter(|limit| !privileged && *limit / 2 < bytes)?;
    Some(format!(
        "RLIMIT_MEMLOCK is {limit} bytes, and registering {bytes} bytes of buffers needs twice \
         that many; raise it (ulimit -l, or LimitMEMLOCK= in a systemd unit) to read a little faster"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_registered_only_where_that_leaves_as_much_to_others() {
        assert_eq!(decide(100, None, false), None);
        assert_eq!(decide(100, Some(200), false), None);
        assert_eq!(decide(100, Some(0), true), None);
        let reason = decide(100, Some(199), false).unwrap();
        assert!(reason.contains("RLIMIT_MEMLOCK is 199 bytes"));
    }
}
