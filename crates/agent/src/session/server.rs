//! A process server and its vault for tests: the real state machine of the protocol over a pipe,
//! a vault that remembers every record by its LSN, and mischief by a seed.

#![allow(clippy::cast_possible_truncation)] // tests run on 64 bits, with small numbers

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tidegate_model::{Epoch, Lsn, Remedy, RunId, Token, VaultId};
use tidegate_wire::server::Session;
use tidegate_wire::{
    BlockHash, Decoder, Hashes, Have, Hello, Item, Message, Record, RecordKind, Refusal,
    RefusalCode, Side, Totals, Welcome,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use crate::connect::{ConnectError, Connecting, Connector};

pub(crate) const VAULT: VaultId = VaultId::from_bytes([7; 16]);
const CREDIT: u64 = 192 << 10;
const RECORD: u32 = 64 << 10;

/// What a server does besides its duty.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mischief {
    /// Cuts every connection after a number of bytes below this.
    pub(crate) cut_below: Option<u64>,
    /// No connection can be made from this one on.
    pub(crate) gone_from: Option<u64>,
    /// Accepts the first connections so often and says nothing.
    pub(crate) mute: bool,
    /// Refuses the first connections so often, with this remedy.
    pub(crate) refuse: Option<(u64, Remedy)>,
    /// With this code, not that of an occupied place.
    pub(crate) refusal: Option<RefusalCode>,
    /// Takes records and commits none.
    pub(crate) never_commits: bool,
    /// Answers no question.
    pub(crate) answers_nothing: bool,
    /// Says after a reconnect that nothing is committed.
    pub(crate) forgets: bool,
}

/// What the vault holds.
#[derive(Debug, Default)]
pub(crate) struct Vault {
    pub(crate) records: BTreeMap<u64, (Record, Vec<u8>)>,
    pub(crate) committed: u64,
    /// That of the last session.
    pub(crate) token: Option<Token>,
    pub(crate) hellos: Vec<Hello>,
    /// Those that were refused as well.
    pub(crate) heard: Vec<Hello>,
    pub(crate) byes: u64,
}

impl Vault {
    /// The disks as the committed records make them.
    pub(crate) fn disks(&self) -> Vec<Vec<u8>> {
        let mut disks = Vec::new();
        for (record, payload) in self.records.range(..=self.committed).map(|(_, kept)| kept) {
            match &record.kind {
                RecordKind::Disk(disk) => disks.push(vec![0xff; disk.bytes as usize]),
                RecordKind::Write(extent, _) | RecordKind::Zero(extent) => {
                    let start = extent.offset as usize;
                    let place = start..start + extent.length as usize;
                    let target = &mut disks[extent.disk.index()][place];
                    if payload.is_empty() {
                        target.fill(0);
                    } else {
                        target.copy_from_slice(payload);
                    }
                }
                RecordKind::Bookmark(_) | RecordKind::Time => {}
            }
        }
        disks
    }

    /// The same LSN always has the same bytes.
    fn receive(&mut self, record: Record, payload: Vec<u8>) {
        let lsn = record.lsn.0;
        let new = (record, payload);
        let kept = self.records.entry(lsn).or_insert_with(|| new.clone());
        assert!(*kept == new, "LSN {lsn} came again with other bytes");
    }

    fn commit(&mut self, lsn: u64) -> Totals {
        let mut totals = Totals::default();
        let lsn = lsn.max(self.committed);
        for (record, _) in self.records.range(self.committed + 1..lsn + 1).map(|(_, kept)| kept) {
            match &record.kind {
                RecordKind::Write(extent, _) => totals.kept_bytes += extent.length,
                RecordKind::Zero(extent) => totals.zero_bytes += extent.length,
                _ => {}
            }
        }
        self.committed = lsn;
        totals
    }
}

/// Connects to servers that share one vault.
pub(crate) struct TestServers {
    pub(crate) vault: Arc<Mutex<Vault>>,
    mischief: Mischief,
    seed: u64,
    connections: AtomicU64,
    /// When a connection was refused for the first time.
    pub(crate) gone_since: OnceLock<Instant>,
    /// Called at every write that is received.
    pub(crate) on_write: Arc<dyn Fn() + Send + Sync>,
}

impl TestServers {
    pub(crate) fn new(mischief: Mischief, seed: u64) -> Self {
        Self::of(Arc::default(), mischief, seed)
    }

    /// One of several that share a vault.
    pub(crate) fn of(vault: Arc<Mutex<Vault>>, mischief: Mischief, seed: u64) -> Self {
        Self {
            vault,
            mischief,
            seed,
            connections: AtomicU64::new(0),
            gone_since: OnceLock::new(),
            on_write: Arc::new(|| {}),
        }
    }
}

impl Connector for TestServers {
    fn connect(&self) -> Connecting<'_> {
        self.connect_once()
    }
}

impl TestServers {
    fn connect_once(&self) -> Connecting<'_> {
        let number = self.connections.fetch_add(1, Relaxed);
        if self.mischief.gone_from.is_some_and(|from| number >= from) {
            self.gone_since.get_or_init(Instant::now);
            let server = "test:9443".to_owned();
            return Box::pin(async { Err(ConnectError::Refused { server }) });
        }
        let (ours, theirs) = tokio::io::duplex(100_000);
        let mut random = Random(self.seed.wrapping_mul(1_000_003).wrapping_add(number));
        let limit = self.mischief.cut_below.map_or(u64::MAX, |below| random.below(below));
        let server = TestServer {
            vault: self.vault.clone(),
            mischief: self.mischief,
            number,
            random,
            limit,
            on_write: self.on_write.clone(),
            stream: theirs,
            session: Session::new(VAULT),
            welcomed: false,
            out: Vec::new(),
            writing: None,
            totals: Totals::default(),
        };
        tokio::spawn(server.serve());
        Box::pin(async { Ok(Box::new(ours) as crate::connect::Connection) })
    }
}

impl Connector for Arc<TestServers> {
    fn connect(&self) -> Connecting<'_> {
        self.connect_once()
    }
}

/// What is answered: blocks whose hash begins with an odd byte are there.
pub(crate) fn answer(question: &Hashes) -> Have {
    let there = |(index, hash): (usize, &BlockHash)| u128::from(hash[0] & 1) << index;
    let blocks = question.hashes.iter().enumerate().map(there).sum();
    Have { extent: question.extent, blocks }
}

pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Numerical Recipes' generator: enough for mischief.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

struct TestServer {
    vault: Arc<Mutex<Vault>>,
    mischief: Mischief,
    number: u64,
    random: Random,
    /// Bytes to hear before the connection is cut.
    limit: u64,
    on_write: Arc<dyn Fn() + Send + Sync>,
    stream: DuplexStream,
    session: Session,
    welcomed: bool,
    out: Vec<u8>,
    writing: Option<(Record, Vec<u8>)>,
    totals: Totals,
}

impl TestServer {
    async fn serve(mut self) {
        if self.mischief.mute {
            return std::future::pending().await;
        }
        let mut decoder = Decoder::new(Side::Server);
        let mut input = vec![0; 50_000];
        loop {
            let most = self.limit.min(1 + self.random.below(input.len() as u64)) as usize;
            if most == 0 {
                // Committed, and the agent never hears of it.
                self.commit();
                return;
            }
            let read = self.stream.read(&mut input[..most]);
            match tokio::time::timeout(Duration::from_millis(2), read).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(count)) => {
                    self.limit -= count as u64;
                    let mut bytes = &input[..count];
                    while let Some(item) = decoder.next(&mut bytes).unwrap() {
                        if !self.hear(item) {
                            let _ = self.stream.write_all(&self.out).await;
                            return;
                        }
                    }
                    if self.random.below(4) == 0 {
                        self.commit_and_ack();
                    }
                }
                Err(_) => self.commit_and_ack(),
            }
            if self.stream.write_all(&std::mem::take(&mut self.out)).await.is_err() {
                return;
            }
        }
    }

    /// False when the session has ended.
    fn hear(&mut self, item: Item<'_>) -> bool {
        match item {
            Item::Message(Message::Record(record)) => self.receive(record, Vec::new()),
            Item::Message(Message::Hashes(question)) => {
                self.session.question(&question).unwrap();
                if !self.mischief.answers_nothing {
                    self.session.answer(answer(&question), &mut self.out);
                }
            }
            Item::Message(Message::Bye) => {
                self.session.bye().unwrap();
                self.vault.lock().unwrap().byes += 1;
                return false;
            }
            Item::Message(message) => return self.welcome(message),
            Item::Write(record) => self.writing = Some((record, Vec::new())),
            Item::Payload(part) => self.writing.as_mut().unwrap().1.extend_from_slice(part),
            Item::WriteEnd => {
                let (record, payload) = self.writing.take().unwrap();
                let RecordKind::Write(_, checksum) = record.kind else { unreachable!() };
                assert_eq!(tidegate_model::Checksum::of(&payload), checksum);
                (self.on_write)();
                let bytes = payload.len() as u64;
                self.receive(record, payload);
                self.session.credit(bytes, &mut self.out);
            }
        }
        true
    }

    fn welcome(&mut self, message: Message) -> bool {
        let hello = self.session.hello(message).unwrap();
        self.vault.lock().unwrap().heard.push(hello.clone());
        if let Some((count, remedy)) = self.mischief.refuse
            && self.number < count
        {
            let code = self.mischief.refusal.unwrap_or(RefusalCode::Occupied);
            let refusal = Refusal::new(code, remedy, "no room", "go away");
            self.session.refuse(&refusal, &mut self.out);
            return false;
        }
        let mut vault = self.vault.lock().unwrap();
        assert!(hello.epoch.0 <= 1 && hello.committed.0 <= vault.committed);
        let features = hello.features;
        let before = vault.token.replace(hello.token).unwrap_or(Token::NONE);
        vault.hellos.push(hello);
        let forgets = self.mischief.forgets && self.number > 0;
        let welcome = Welcome {
            epoch: Epoch(1),
            committed: Lsn(if forgets { 0 } else { vault.committed }),
            credit_bytes: CREDIT,
            record_bytes_max: RECORD,
            block_bytes: RECORD,
            features,
            run: RunId::from_bytes([1; 16]),
            shard: 0,
            before,
        };
        self.session.grant(&welcome, &mut self.out);
        self.welcomed = true;
        true
    }

    fn receive(&mut self, record: Record, payload: Vec<u8>) {
        if self.session.record(&record).unwrap() {
            self.vault.lock().unwrap().receive(record, payload);
        }
    }

    fn commit(&mut self) {
        if !self.mischief.never_commits {
            let totals = self.vault.lock().unwrap().commit(self.session.received().0);
            self.totals.zero_bytes += totals.zero_bytes;
            self.totals.kept_bytes += totals.kept_bytes;
        }
    }

    fn commit_and_ack(&mut self) {
        if !self.welcomed {
            return;
        }
        self.commit();
        let committed = Lsn(self.vault.lock().unwrap().committed);
        if committed > self.session.committed() {
            self.session.ack(committed, self.totals, &mut self.out);
        }
    }
}
