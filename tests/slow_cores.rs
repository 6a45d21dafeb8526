//! A core that is taken away at any instant, as on a crowded host, makes the program slow and never
//! stops it.

mod support;

use std::time::{Duration, Instant};

use support::shim;
use support::site::Site;

const MIB: u64 = 1 << 20;
/// A copy and its recovery take a second or two this way; one that waits for nothing takes for ever.
const LIMIT: Duration = Duration::from_secs(60);

/// In front of the C library's system calls by number, those of io_uring among them: after each that
/// enters a ring the thread gets no core for 5 ms.
const SLOW_RINGS: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <time.h>

long syscall(long number, ...) {
    static long (*next)(long, ...);
    if (!next)
        next = (long (*)(long, ...)) dlsym(RTLD_NEXT, "syscall");
    va_list list;
    va_start(list, number);
    long a[6];
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    long result = next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_io_uring_enter) {
        struct timespec pause = {0, 5000000};
        nanosleep(&pause, 0);
    }
    return result;
}
"#;

#[test]
fn a_copy_ends_though_its_cores_are_taken_away_whenever_it_enters_a_ring() {
    let site = Site::with_vault();
    let disk = site.disk("db", 3 * MIB);
    let shim = shim::build(&site.path("shim"), SLOW_RINGS);
    let began = Instant::now();
    site.replicate("db", &[&disk]).env("LD_PRELOAD", &shim).start().wait(LIMIT).success();
    eprintln!("{:?}", began.elapsed());
    site.assert_recovers("db", 0, &disk);
}
