//! The whole copy against a server in this process, with connections cut at any byte.

#![allow(clippy::cast_possible_truncation)] // tests run on 64 bits, with small numbers

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use tempfile::NamedTempFile;
use tidegate_model::{BookmarkKind, Incarnation, Micros, Remedy};
use tidegate_wire::RecordKind;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::session::SessionError;
use crate::session::server::{Mischief, Random, TestServers, VAULT};
use crate::source::Source;
use crate::window::WindowError;
use crate::{Awaited, CopyError, CopyReport, CopyRequest, Progress, RetryPolicy, copy};

/// An image of this many bytes: data, zeros and holes by a seed.
fn image(bytes: u64, seed: u64) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(bytes).unwrap();
    let mut random = Random(seed);
    let mut at = 0;
    while at < bytes {
        let length = (1 + random.below(300_000)).min(bytes - at);
        if random.below(2) == 0 {
            let data: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
            file.as_file().write_all_at(&data, at).unwrap();
        }
        at += length;
    }
    file
}

fn request(files: &[&NamedTempFile]) -> CopyRequest {
    let mut reader = crate::reader::ReaderSettings::default();
    (reader.read_bytes, reader.pool_bytes) = (128 << 10, 1 << 20);
    CopyRequest {
        disks: files.iter().map(|f| Arc::new(Source::open(f.path()).unwrap())).collect(),
        machine: "db-1".parse().unwrap(),
        vault: VAULT,
        incarnation: Incarnation::from_bytes([3; 16]),
        reader,
        retry: RetryPolicy {
            delay_min: Duration::from_millis(1),
            patience: Duration::from_secs(30),
            ..RetryPolicy::default()
        },
        // A clock that goes back now and then.
        clock: {
            let ticks = std::sync::atomic::AtomicU64::new(1000);
            Arc::new(move || {
                let tick = ticks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Micros(tick - tick % 7 * 3)
            })
        },
    }
}

async fn run(request: &CopyRequest, servers: &TestServers) -> Result<CopyReport, CopyError> {
    let (_sender, stop) = watch::channel(false);
    copy(request, servers, Arc::default(), stop).await
}

/// Everything that must hold when a copy has succeeded.
fn check(files: &[&NamedTempFile], servers: &TestServers, report: &CopyReport) {
    let vault = servers.vault.lock().unwrap();
    let disks = vault.disks();
    assert_eq!(disks.len(), files.len());
    for (disk, file) in disks.iter().zip(files) {
        assert!(*disk == std::fs::read(file.path()).unwrap());
    }
    assert_eq!(report.epoch.0, 1);
    assert_eq!((report.lsn.0, vault.committed), (vault.committed, vault.records.len() as u64));
    let (last, _) = vault.records.values().next_back().unwrap();
    let RecordKind::Bookmark(bookmark) = &last.kind else { panic!("no bookmark at the end") };
    assert_eq!((bookmark.kind, bookmark.clean), (BookmarkKind::CopyEnd, report.clean));
    let data: u64 = vault.records.values().map(|(_, payload)| payload.len() as u64).sum();
    assert_eq!(report.bytes_kept + report.bytes_uncounted, data);
    assert_eq!(report.bytes_zero + data, report.bytes_total);
    assert!(report.bytes_sent >= data);
    assert!(report.buffer_bytes_max <= 1 << 20);
}

#[tokio::test]
async fn disks_of_any_size_arrive_whole_and_clean() {
    let files = [image(1, 1), image(4096, 2), image(3_000_001, 3)];
    let files: Vec<_> = files.iter().collect();
    let servers = TestServers::new(Mischief::default(), 1);
    let progress = Arc::<Progress>::default();
    let (_sender, stop) = watch::channel(false);
    let report = copy(&request(&files), &servers, progress.clone(), stop).await.unwrap();
    check(&files, &servers, &report);
    assert!(report.clean);
    assert_eq!((report.reconnects, report.bytes_resent, report.bytes_uncounted), (0, 0, 0));
    assert_eq!(servers.vault.lock().unwrap().byes, 1);
    let seen = progress.snapshot();
    assert_eq!(seen.bytes_committed, report.bytes_total);
    assert_eq!((seen.bytes_passed, seen.lsn_committed), (report.bytes_total, report.lsn.0));
}

#[tokio::test]
async fn nothing_is_lost_however_often_and_wherever_the_connection_breaks() {
    let mut reconnects = 0;
    for seed in 0..40 {
        let files = [image(1_500_000 + seed * 1001, seed), image(700_000, seed + 1000)];
        let files: Vec<_> = files.iter().collect();
        let mischief = Mischief { cut_below: Some(400_000), ..Mischief::default() };
        let servers = TestServers::new(mischief, seed);
        let report = run(&request(&files), &servers).await.unwrap_or_else(|error| {
            panic!("seed {seed}: {error}");
        });
        check(&files, &servers, &report);
        reconnects += report.reconnects;
    }
    assert!(reconnects > 100, "{reconnects}");
}

#[tokio::test]
async fn a_disk_that_changes_while_it_is_copied_makes_the_end_unclean() {
    let file = image(2_000_000, 5);
    let mut servers = TestServers::new(Mischief::default(), 1);
    let grown = file.reopen().unwrap();
    servers.on_write = Arc::new(move || grown.set_len(2_000_001).unwrap());
    let report = run(&request(&[&file]), &servers).await.unwrap();
    assert!(!report.clean);
    assert!(report.changes[0].to_string().ends_with("was written to while it was read"));
    file.as_file().set_len(2_000_000).unwrap();
    check(&[&file], &servers, &report);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_is_given_up_after_the_patience_for_a_start() {
    let file = image(4096, 1);
    let request = request(&[&file]);
    let servers = TestServers::new(Mischief { gone_from: Some(0), ..Mischief::default() }, 1);
    let begin = Instant::now();
    let error = run(&request, &servers).await.unwrap_err();
    let CopyError::GaveUp { waited, awaited, last, .. } = &error else { panic!("{error}") };
    assert_eq!((*waited, *awaited), (request.retry.patience_at_start, Awaited::Session));
    assert!(last.contains("connection refused"), "{last}");
    let elapsed = begin.elapsed();
    assert!(elapsed <= *waited && elapsed > *waited / 3, "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_went_away_is_given_up_after_the_whole_patience() {
    let file = image(3_000_000, 1);
    let mut request = request(&[&file]);
    request.retry.patience = Duration::from_secs(300);
    let mischief = Mischief { cut_below: Some(10_000), gone_from: Some(3), ..Mischief::default() };
    let servers = TestServers::new(mischief, 4);
    let error = run(&request, &servers).await.unwrap_err();
    let CopyError::GaveUp { waited, awaited, .. } = &error else { panic!("{error}") };
    assert_eq!((*waited, *awaited), (request.retry.patience, Awaited::Commit));
    // Since the servers went, not since the start: until then the clock runs as it likes, for the
    // reader's thread doesn't live by it.
    let elapsed = servers.gone_since.get().unwrap().elapsed();
    assert!(elapsed <= *waited && elapsed > *waited * 2 / 3, "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_or_commits_nothing_is_given_up_too() {
    let file = image(300_000, 1);
    for mischief in [
        Mischief { mute: true, ..Mischief::default() },
        Mischief { never_commits: true, ..Mischief::default() },
    ] {
        let request = request(&[&file]);
        let error = run(&request, &TestServers::new(mischief, 1)).await.unwrap_err();
        let CopyError::GaveUp { waited, committed, .. } = &error else { panic!("{error}") };
        assert_eq!((*waited, committed.0), (request.retry.patience, 0));
        assert_eq!(error.remedy(), Remedy::Retry);
    }
}

#[tokio::test]
async fn a_refusal_ends_the_copy_with_the_servers_words_unless_it_says_retry() {
    let file = image(300_000, 1);
    let refuse = |remedy| Mischief { refuse: Some((2, remedy)), ..Mischief::default() };
    let servers = TestServers::new(refuse(Remedy::Refuse), 1);
    let error = run(&request(&[&file]), &servers).await.unwrap_err();
    assert_eq!(error.to_string(), "the server refused (code 5): no room; go away");
    assert_eq!(error.remedy(), Remedy::Refuse);

    let servers = TestServers::new(refuse(Remedy::Retry), 1);
    let report = run(&request(&[&file]), &servers).await.unwrap();
    check(&[&file], &servers, &report);
    assert_eq!(report.reconnects, 2);
}

#[tokio::test]
async fn a_vault_that_forgot_what_it_had_committed_is_found_out() {
    let file = image(3_000_000, 1);
    let mischief = Mischief { cut_below: Some(1_000_000), forgets: true, ..Mischief::default() };
    let servers = TestServers::new(mischief, 2);
    let error = run(&request(&[&file]), &servers).await.unwrap_err();
    assert!(
        matches!(error, CopyError::Session(SessionError::Window(WindowError::Forgotten { .. }))),
        "{error}"
    );
    assert_eq!(error.remedy(), Remedy::Repair);
}

#[tokio::test]
async fn a_stop_ends_the_copy_whatever_it_waits_for() {
    let file = image(300_000, 1);
    for mischief in [
        Mischief { never_commits: true, ..Mischief::default() },
        Mischief { gone_from: Some(0), ..Mischief::default() },
        Mischief { mute: true, ..Mischief::default() },
    ] {
        let servers = TestServers::new(mischief, 1);
        let (sender, stop) = watch::channel(false);
        let request = request(&[&file]);
        let copying = copy(&request, &servers, Arc::default(), stop);
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            sender.send(true).unwrap();
        };
        let (copied, ()) = tokio::join!(copying, stopping);
        assert!(matches!(copied, Err(CopyError::Stopped { .. })), "{copied:?}");
    }
}

#[tokio::test]
async fn no_disks_and_one_disk_twice_are_refused_before_anything_is_sent() {
    let file = image(4096, 1);
    let servers = TestServers::new(Mischief::default(), 1);
    let none = run(&request(&[]), &servers).await.unwrap_err();
    assert!(matches!(none, CopyError::DiskCount { count: 0, .. }));
    let twice = run(&request(&[&file, &file]), &servers).await.unwrap_err();
    assert!(matches!(twice, CopyError::SameDisk { .. }));
    assert!(servers.vault.lock().unwrap().hellos.is_empty());
}
