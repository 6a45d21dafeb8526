//! Mistakes that a tired operator makes at the command line: each is refused before anything is
//! done, says what is wrong, where, and what to do, and gives no result.

mod support;

use support::process::Tidegate;
use support::refusals::shown;
use support::site::Site;

const MIB: u64 = 1 << 20;

/// Runs a call that must be refused as asked, in these words, with nothing where results go.
#[track_caller]
fn refuses(call: Tidegate, words: &[&str]) {
    let output = call.run().refused(words);
    assert_eq!(output.stdout, "", "no result");
}

#[test]
fn what_is_too_small_or_too_large_is_answered_with_what_can_be_had() {
    let site = Site::with_vault();
    let disk = site.disk("db", MIB);
    site.enroll("db", "machine");
    let nowhere = "127.0.0.1:1";
    let window = site.agent(nowhere, "db", &[&disk]).args(["--window", "1.5MiB"]);
    refuses(window, &["--window 1536KiB is too little", "give 2MiB or more"]);
    let replicate = |options: &[&str]| site.replicate("db", &[&disk]).args(options);
    for size in ["512KiB", "17MiB"] {
        let words = [&format!("pack-size {size} can't be had") as &str, "give 1MiB to 16MiB"];
        refuses(replicate(&["--pack-size", size]), &words);
    }
    refuses(replicate(&["--memory", "1MiB"]), &["1 MiB of memory", "give at least", "--memory"]);
    let recover = site.recover("db", "latest", &site.path("to")).args(["--memory", "1MiB"]);
    refuses(recover, &["--memory 1MiB is too little", "give 32MiB or more"]);
    let key = site.key();
    let init = ["vault", "init", "file:///srv/none", "--block-bytes", "3KiB", "--key-file"];
    let words = ["--block-bytes 3KiB", "a power of two from 4KiB to 256KiB"];
    refuses(Tidegate::new(init).args([key]), &words);
}

#[test]
fn the_smallest_window_is_enough_for_a_copy() {
    let site = Site::with_vault();
    let disk = site.disk("db", 24 * MIB);
    site.enroll("db", "machine");
    let server = site.serve();
    site.agent(&server.at(), "db", &[&disk]).args(["--window", "2MiB"]).run().success();
    server.stop().success();
    site.assert_recovers("db", 0, &disk);
}
