//! The drain of a real journal against servers in this process, with connections cut at any byte and
//! agents that end at any moment.

#![allow(clippy::cast_possible_truncation)] // tests run on 64 bits, with small numbers

mod copied;
mod silent;

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidegate_hrl::journal::{Birth, Change, Ending, JournalSettings, Opening};
use tidegate_hrl::uring::UringStorage;
use tidegate_model::{
    Bookmark, BookmarkKind, Disk, Extent, Incarnation, Lsn, Micros, Point, Remedy, Token,
};
use tidegate_wire::{Begins, Hashes, RecordKind, RefusalCode};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::drain::{Drain, Drained};
use super::feed::JournalFeed;
use super::{Journal, LiveError, Notebook, Notes, Progressing, Server, SharedLink};
use crate::RetryPolicy;
use crate::session::server::{Mischief, Random, TestServers, VAULT, answer};
use crate::session::{Feed, Questions, Stands, State, Stream};

const DISK_BYTES: u64 = 1 << 20;
const BIRTH: Birth = Birth { incarnation: Incarnation::from_bytes([3; 16]), boot: [1; 16] };

/// Everything that was appended: what stands at index n has LSN n + 1.
type Appended = Vec<(Change<Vec<u8>>, Micros)>;

/// A machine's folder, the servers that it can reach, and what it did.
struct Scene {
    folder: TempDir,
    servers: Vec<Arc<TestServers>>,
    appended: Appended,
    random: Random,
    window_bytes: u64,
    stands: Stands,
}

/// One life of its agent.
struct Life {
    journal: Arc<Journal>,
    progress: watch::Sender<Progressing>,
    stop: watch::Sender<bool>,
    link: SharedLink,
    questions: Arc<Questions>,
    drain: JoinHandle<Result<Drained, LiveError>>,
}

impl Scene {
    fn new(mischiefs: &[Mischief], seed: u64) -> Self {
        let vault = Arc::default();
        let server =
            |mischief: &Mischief| Arc::new(TestServers::of(Arc::clone(&vault), *mischief, seed));
        let servers = mischiefs.iter().map(server).collect();
        Self {
            folder: tempfile::tempdir().unwrap(),
            servers,
            appended: Vec::new(),
            random: Random(seed),
            window_bytes: 1 << 20,
            stands: Stands::Nothing,
        }
    }

    /// From now on it can reach these, of the same vault.
    fn reach(&mut self, mischiefs: &[Mischief]) {
        let vault = self.servers[0].vault.clone();
        let server = |mischief: &Mischief| Arc::new(TestServers::of(vault.clone(), *mischief, 1));
        self.servers = mischiefs.iter().map(server).collect();
    }

    fn open(&mut self) -> (Life, Opening) {
        let storage = UringStorage::open(&self.folder.path().join("journal")).unwrap();
        let settings = JournalSettings::of(64 << 20).unwrap();
        let (progress, durable) = watch::channel(Progressing::default());
        let told = progress.clone();
        let tell = move |lsn| told.send_modify(|progress| progress.durable = lsn);
        let (journal, opening) = Journal::open(storage, settings, &BIRTH, Box::new(tell)).unwrap();
        let journal = Arc::new(journal);
        let path = self.folder.path().join("notes.json");
        if opening.ending == Ending::New {
            let disk = disk();
            let lsn = journal.append(&Change::Disk(disk.clone()), Micros(1)).unwrap();
            // Before there are notes: a journal that was begun has its disks.
            journal.wait_durable(lsn).unwrap();
            self.appended.push((Change::Disk(disk.clone()), Micros(1)));
            Notebook::create(&path, Notes::new(opening.incarnation, self.stands, vec![disk]))
                .unwrap();
        }
        // What wasn't durable is gone, and was never sent.
        self.appended.truncate(journal.usage().last.0 as usize);
        let notebook = Arc::new(Notebook::open(&path).unwrap().unwrap());
        let token = Token::from_bytes([self.random.below(256) as u8; 16]);
        notebook.begin_run(opening.recovered_to, token).unwrap();
        let notes = notebook.read();
        let stream = Stream {
            machine: "db-1".parse().unwrap(),
            vault: VAULT,
            incarnation: opening.incarnation,
            epoch: notes.epoch,
            stands: notes.stands,
            committed: opening.committed,
            ever_sent: notes.sent.unwrap(),
            tokens: notes.tokens,
            record_bytes_max: Some(super::CAPTURED_BYTES_MAX),
            window_bytes: self.window_bytes,
        };
        let link = SharedLink::default();
        let feed = JournalFeed::new(journal.clone(), notebook.clone(), durable, link.clone());
        let server = |(number, server): (usize, &Arc<TestServers>)| Server {
            name: format!("server {number}"),
            connector: Box::new(server.clone()),
        };
        let (mut state, questions) =
            (State::new(stream, feed, Arc::default()), Arc::<Questions>::default());
        state.questions = Some(questions.clone());
        let drain = Drain {
            state,
            servers: Arc::new(self.servers.iter().enumerate().map(server).collect()),
            link: link.clone(),
            notebook,
            retry: RetryPolicy { delay_min: Duration::from_millis(1), ..RetryPolicy::default() },
        };
        let (stop, mut stopped) = watch::channel(false);
        let drain = tokio::spawn(async move { drain.run(&mut stopped).await });
        (Life { journal, progress, stop, link, questions, drain }, opening)
    }

    /// Appends random changes, as many as asked for.
    fn append(&mut self, journal: &Journal, count: u64) {
        for _ in 0..count {
            let offset = self.random.below(DISK_BYTES - 70_000);
            let longest = if self.random.below(4) == 0 { 65_536 } else { 600 };
            let length = 1 + self.random.below(longest);
            let change = match self.random.below(8) {
                0 => Change::Zero(Extent { disk: disk().number, offset, length }),
                1 => Change::Time,
                2 => Change::Bookmark(Bookmark {
                    kind: BookmarkKind::CrashConsistent,
                    clean: true,
                    name: format!("mark {length}"),
                }),
                _ => {
                    let data = (0..length).map(|_| self.random.below(256) as u8).collect();
                    Change::Write { disk: disk().number, offset, data }
                }
            };
            let time = Micros(1000 + self.appended.len() as u64);
            let lsn = journal.append(&borrowed(&change), time).unwrap();
            self.appended.push((change, time));
            assert_eq!(lsn.0, self.appended.len() as u64);
        }
    }

    /// Every record that was appended is in the vault, as it was appended, and nothing else is.
    fn check(&self) {
        let vault = self.servers[0].vault.lock().unwrap();
        assert_eq!(vault.committed, self.appended.len() as u64);
        assert_eq!(vault.records.len(), self.appended.len());
        for ((change, time), (record, payload)) in self.appended.iter().zip(vault.records.values())
        {
            let same = match (change, &record.kind) {
                (Change::Disk(one), RecordKind::Disk(other)) => one == other,
                (Change::Zero(one), RecordKind::Zero(other)) => one == other,
                (Change::Bookmark(one), RecordKind::Bookmark(other)) => one == other,
                (Change::Time, RecordKind::Time) => true,
                (Change::Write { disk, offset, data }, RecordKind::Write(extent, _)) => {
                    (*disk, *offset) == (extent.disk, extent.offset) && data == payload
                }
                _ => false,
            };
            assert!(same && record.time == *time, "LSN {}: {change:?}", record.lsn);
        }
    }
}

impl Life {
    /// As `kill -9` leaves it: nothing is closed.
    async fn kill(self) {
        self.stop.send_replace(true);
        let ended = self.drain.await.unwrap().unwrap();
        assert!(matches!(ended, Drained::Stopped), "{ended:?}");
        drop(Arc::into_inner(self.journal).unwrap());
    }

    /// Waits until all that was appended so far is committed.
    async fn commits(&self) {
        let last = self.journal.usage().last;
        let committed = async {
            while self.journal.usage().committed < last {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), committed).await.unwrap();
    }

    /// Everything that was appended is all there will be.
    async fn end(self) -> (Drained, Journal) {
        let last = self.journal.usage().last;
        self.journal.wait_durable(last).unwrap();
        self.progress.send_modify(|progress| progress.end = Some(last));
        let ended = tokio::time::timeout(Duration::from_secs(60), self.drain).await;
        (ended.unwrap().unwrap().unwrap(), Arc::into_inner(self.journal).unwrap())
    }
}

fn disk() -> Disk {
    Disk { number: 0.try_into().unwrap(), bytes: DISK_BYTES, name: "disk".to_owned() }
}

fn borrowed(change: &Change<Vec<u8>>) -> Change<&[u8]> {
    match change {
        Change::Disk(disk) => Change::Disk(disk.clone()),
        Change::Write { disk, offset, data } => {
            Change::Write { disk: *disk, offset: *offset, data }
        }
        Change::Zero(extent) => Change::Zero(*extent),
        Change::Bookmark(bookmark) => Change::Bookmark(bookmark.clone()),
        Change::Time => Change::Time,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_journal_arrives_once_in_order_whatever_ends_when() {
    let mischief = Mischief { cut_below: Some(300_000), ..Mischief::default() };
    for seed in 0..12 {
        let mut scene = Scene::new(&[mischief], seed);
        for life in 0..4 {
            let (agent, opening) = scene.open();
            let expected =
                if life == 0 { Ending::New } else { Ending::Unclean { same_boot: true } };
            assert_eq!(opening.ending, expected);
            for _ in 0..6 {
                let count = scene.random.below(40);
                scene.append(&agent.journal, count);
                if scene.random.below(2) == 0 {
                    agent.journal.wait_durable(agent.journal.usage().last).unwrap();
                }
                tokio::task::yield_now().await;
            }
            if life < 3 {
                // Whoever sent something had noted in which epoch.
                let path = scene.folder.path().join("notes.json");
                let notes = Notebook::open(&path).unwrap().unwrap().read();
                let sent = !scene.servers[0].vault.lock().unwrap().records.is_empty();
                assert!(!sent || notes.epoch.0 == 1);
                agent.kill().await;
            } else {
                let (ended, journal) = agent.end().await;
                assert!(matches!(ended, Drained::Whole), "seed {seed}: {ended:?}");
                assert_eq!(journal.usage().committed, journal.usage().last);
                journal.close().unwrap();
            }
        }
        scene.check();
        assert_eq!(scene.servers[0].vault.lock().unwrap().byes, 1, "the last life said goodbye");
        let hellos = &scene.servers[0].vault.lock().unwrap().hellos;
        assert!(hellos.iter().skip(1).all(|hello| hello.incarnation == hellos[0].incarnation));
    }
}

/// A feed by itself, of a new journal.
fn feed(folder: &TempDir) -> (Arc<Journal>, JournalFeed, watch::Sender<Progressing>) {
    let storage = UringStorage::open(&folder.path().join("journal")).unwrap();
    let settings = JournalSettings::of(64 << 20).unwrap();
    let (journal, opening) = Journal::open(storage, settings, &BIRTH, Box::new(|_| {})).unwrap();
    let journal = Arc::new(journal);
    let notes = Notes::new(opening.incarnation, Stands::Nothing, Vec::new());
    let notebook = Arc::new(Notebook::create(&folder.path().join("notes"), notes).unwrap());
    let (progress, durable) = watch::channel(Progressing::default());
    let feed = JournalFeed::new(journal.clone(), notebook, durable, SharedLink::default());
    (journal, feed, progress)
}

/// Appends times until `last`, and waits until they are durable.
fn pass_time(journal: &Journal, last: u64) {
    for number in journal.usage().last.0 + 1..=last {
        journal.append(&Change::Time, Micros(number)).unwrap();
    }
    journal.wait_durable(Lsn(last)).unwrap();
}

#[tokio::test]
async fn what_the_vault_turns_out_to_have_isnt_given_out_though_it_was_read_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, mut feed, _progress) = feed(&folder);
    pass_time(&journal, 20);
    assert_eq!(feed.next().await.unwrap().unwrap().time, Micros(1));
    feed.committed(Lsn(10)).unwrap();
    assert_eq!(feed.next().await.unwrap().unwrap().time, Micros(11));
    assert_eq!(journal.usage().committed, Lsn(10));
}

#[test]
fn what_becomes_durable_while_nobody_waits_for_a_reading_is_given_out_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    // One thread for what blocks: one thing after the other.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (journal, mut feed, progress) = feed(&folder);
        tokio::select! {
            biased;
            _ = feed.next() => panic!("there is nothing yet"),
            () = std::future::ready(()) => {}
        }
        // The reading that was begun has found nothing.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        pass_time(&journal, 1);
        progress.send_modify(|progress| progress.durable = Lsn(1));
        let next = tokio::time::timeout(Duration::from_secs(60), feed.next()).await;
        assert_eq!(next.unwrap().unwrap().unwrap().time, Micros(1));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_appended_while_a_session_is_idle_is_sent_at_once() {
    let mut scene = Scene::new(&[Mischief::default()], 1);
    let (agent, _) = scene.open();
    for _ in 0..20 {
        scene.append(&agent.journal, 1);
        agent.commits().await;
    }
    assert_eq!(scene.servers[0].vault.lock().unwrap().hellos.len(), 1);
    agent.end().await.1.close().unwrap();
    scene.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_window_is_held_of_what_isnt_committed() {
    let mut scene = Scene::new(&[Mischief { never_commits: true, ..Mischief::default() }], 1);
    scene.window_bytes = 100_000;
    let (agent, _) = scene.open();
    scene.append(&agent.journal, 400);
    let vault = scene.servers[0].vault.clone();
    // It stands still where the window is full: nothing else moves it.
    let mut seen = (0, 0);
    while seen.1 < 100 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let records = vault.lock().unwrap().records.len();
        seen = if records > 0 && records == seen.0 { (records, seen.1 + 1) } else { (records, 0) };
    }
    let payload: usize = vault.lock().unwrap().records.values().map(|(_, data)| data.len()).sum();
    assert!(payload <= 100_000 + 65_536, "{payload}");
    assert!(seen.0 < 401, "{seen:?}");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_followed_by_the_next_one() {
    let away = Mischief { gone_from: Some(0), ..Mischief::default() };
    let refuses = Mischief { refuse: Some((9, Remedy::Stop)), ..Mischief::default() };
    let mut scene = Scene::new(&[away, refuses, Mischief::default()], 1);
    let (agent, _) = scene.open();
    scene.append(&agent.journal, 30);
    let link = agent.link.clone();
    let (ended, journal) = agent.end().await;
    assert!(matches!(ended, Drained::Whole), "{ended:?}");
    assert!(scene.servers[0].gone_since.get().is_some());
    assert_eq!((link.look().connected, link.look().server.as_str()), (false, "server 2"));
    journal.close().unwrap();
    scene.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_lacks_what_it_had_committed_asks_for_a_new_incarnation() {
    let mischief = Mischief { cut_below: Some(300_000), forgets: true, ..Mischief::default() };
    let mut scene = Scene::new(&[mischief], 2);
    let (agent, _) = scene.open();
    scene.append(&agent.journal, 400);
    let ended = tokio::time::timeout(Duration::from_secs(60), agent.drain).await;
    let ended = ended.unwrap().unwrap().unwrap();
    assert!(matches!(ended, Drained::Broken(_)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_no_server_takes_ends_the_drain_and_not_the_process() {
    let mut scene = Scene::new(&[Mischief::default()], 1);
    let (agent, _) = scene.open();
    let data = vec![1; 65_537];
    let change = Change::Write { disk: disk().number, offset: 0, data: &data[..] };
    let lsn = agent.journal.append(&change, Micros(5)).unwrap();
    let error = agent.drain.await.unwrap().unwrap_err();
    assert!(matches!(error, LiveError::TooLong { lsn: at, bytes: 65_537 } if at == lsn), "{error}");
    assert_eq!(lsn, Lsn(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_counts_when_every_server_tells_of_it() {
    let damaged = Mischief { refuse: Some((u64::MAX, Remedy::Repair)), ..Mischief::default() };
    let mut scene = Scene::new(&[Mischief::default()], 1);
    for servers in [&[Mischief::default()][..], &[damaged, Mischief::default()]] {
        scene.reach(servers);
        let (agent, _) = scene.open();
        scene.append(&agent.journal, 5);
        let (ended, _) = agent.end().await;
        assert!(matches!(ended, Drained::Whole), "{ended:?}");
    }
    scene.reach(&[damaged, damaged]);
    let (agent, _) = scene.open();
    let ended = tokio::time::timeout(Duration::from_secs(60), agent.drain).await;
    let ended = ended.unwrap().unwrap().unwrap();
    assert!(matches!(ended, Drained::Broken(_)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incarnation_that_was_never_welcomed_isnt_given_up() {
    let refuses = Mischief { refuse: Some((3, Remedy::Repair)), ..Mischief::default() };
    let mut scene = Scene::new(&[refuses, refuses], 1);
    let (agent, _) = scene.open();
    scene.append(&agent.journal, 5);
    let (ended, _) = agent.end().await;
    assert!(matches!(ended, Drained::Whole), "{ended:?}");
    scene.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_has_its_answer_in_order_whatever_connections_are_cut() {
    let mischief = Mischief { cut_below: Some(300_000), ..Mischief::default() };
    for seed in 0..6 {
        let mut scene = Scene::new(&[mischief], seed);
        let (agent, _) = scene.open();
        let mut asked = Vec::new();
        for number in 0..60 {
            scene.append(&agent.journal, 1);
            let count = 1 + scene.random.below(128);
            let hash = |_| [scene.random.below(256) as u8; 32];
            let hashes: Vec<_> = (0..count).map(hash).collect();
            let extent = Extent { disk: disk().number, offset: number << 24, length: count << 16 };
            asked.push(Hashes { extent, hashes });
            agent.questions.ask(asked[asked.len() - 1].clone());
        }
        let questions = agent.questions.clone();
        let waiting = tokio::task::spawn_blocking(move || {
            asked.iter().all(|asked| {
                let have = questions.answer(Duration::from_secs(60));
                have == Some(answer(asked))
            })
        });
        assert!(waiting.await.unwrap(), "seed {seed}");
        let (ended, _) = agent.end().await;
        assert!(matches!(ended, Drained::Whole), "{ended:?}");
        scene.check();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_vault_cant_go_on_from_a_state_it_is_asked_for_less() {
    let refusal = Some(RefusalCode::Epoch);
    let mischief = Mischief { refuse: Some((2, Remedy::Refuse)), refusal, ..Mischief::default() };
    let mut scene = Scene::new(&[mischief], 1);
    let parent = Point { epoch: tidegate_model::Epoch(7), lsn: Lsn(3) };
    scene.stands = Stands::Point(parent);
    let (agent, _) = scene.open();
    scene.append(&agent.journal, 5);
    let (ended, _) = agent.end().await;
    assert!(matches!(ended, Drained::Whole), "{ended:?}");
    let vault = scene.servers[0].vault.lock().unwrap();
    let began: Vec<_> = vault.heard.iter().map(|hello| (hello.begins, hello.parent)).collect();
    let expected =
        [(Begins::Continue, Some(parent)), (Begins::Continue, None), (Begins::Copy, None)];
    assert_eq!(began, expected);
    let notes = Notebook::open(&scene.folder.path().join("notes.json")).unwrap().unwrap();
    assert_eq!(notes.read().stands, Stands::Nothing, "after a kill, too");
}
