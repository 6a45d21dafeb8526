//! Servers that can't start: nothing of them runs on. And what a server knows of a machine that comes
//! again, or falls quiet.

use std::fs::File;
use std::os::fd::OwnedFd;

use tidegate_model::limits::PACK_CLOSE_BYTES_DEFAULT;
use tidegate_model::{
    Bookmark, BookmarkKind, Epoch, Incarnation, Lsn, Micros, Name, PackNumber, Token,
};
use tidegate_vault::keys::{Credential, PassphraseCost};
use tidegate_vault::layout;
use tidegate_vault::meta::{SessionRecord, list_sessions};
use tidegate_vault::store::{Access, Store};
use tidegate_vault::vault::InitOptions;
use tidegate_wire::limits::PROTOCOL_VERSION;
use tidegate_wire::{Begins, Decoder, Hello, Item, Record, RecordKind, Side, agent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::*;

/// What a server of two shards would share, in a vault of its own.
async fn shared(vault: &str) -> Arc<Shared> {
    shared_at(&format!("memory://{vault}")).await
}

async fn shared_at(vault: &str) -> Arc<Shared> {
    shared_with(vault, Duration::from_secs(60)).await
}

async fn shared_with(vault: &str, silence_max: Duration) -> Arc<Shared> {
    let store = Store::open(&vault.parse().unwrap(), Access::Create).unwrap();
    let cost = PassphraseCost::for_tests();
    let options = InitOptions { cost, ..InitOptions::new(host::wall_clock()) };
    let credential = Credential::passphrase(Zeroizing::new("secret".into())).unwrap();
    let (vault, _) = Vault::init(store, &options, &credential).await.unwrap();
    let settings = ServerSettings {
        node: "ps-1".parse().unwrap(),
        listen: None,
        identity: None,
        memory_bytes: 256 << 20,
        level: Some(1),
        frame_bytes: None,
        cores: 2,
        store_patience: Duration::from_secs(1),
        pack_age: Duration::from_millis(1),
        pack_bytes: PACK_CLOSE_BYTES_DEFAULT as usize,
        lists_interval: Duration::from_secs(60),
        silence_max,
        maintenance: None,
    };
    Arc::new(share(Arc::new(vault), settings, false, &Stop::new()).unwrap())
}

#[tokio::test]
async fn a_server_that_cant_listen_leaves_no_shard_running() {
    let shared = shared("cant-listen").await;
    // What isn't a socket has no address.
    let socket = TcpListener::from(OwnedFd::from(File::open("/dev/null").unwrap()));
    let started = Server::begin(shared.clone(), Some(socket)).await;
    assert!(matches!(started, Err(ServerError::Listen(_))));
    assert_eq!(Arc::strong_count(&shared), 1, "an executor still has it");
}

#[tokio::test]
async fn a_vault_with_more_logs_than_can_be_known_has_a_server_all_the_same() {
    let shared = shared("many-logs").await;
    for run in 0..4100_u128 {
        let id = LogId { run: RunId::from_bytes(run.to_le_bytes()), shard: 0 };
        let path = layout::pack(&LogName { node: shared.node.clone(), id }, PackNumber(0));
        // Nothing that could be read: that there is a log at all is what takes its slot.
        shared.vault.store().put_new(&path, vec![vec![0; 9].into()]).await.unwrap();
    }
    let server = Server::begin(shared, None).await.map_err(|error| error.to_string());
    server.unwrap().end().await.unwrap();
}

#[tokio::test]
async fn shards_end_though_another_never_started() {
    let shared = shared("one-shard").await;
    let logs = Logs::default();
    let name = |shard| {
        let id = LogId { run: RunId::from_bytes([9; 16]), shard };
        LogName { node: shared.node.clone(), id }
    };
    let taken = (0..).take_while(|shard| logs.add(&name(*shard)).is_some()).count();
    // All the slots but one.
    let logs = Logs::default();
    (1..taken).for_each(|shard| assert!(logs.add(&name(u16::try_from(shard).unwrap())).is_some()));
    let known = Arc::new(KnownBlocks::new(shared.plan.table_bytes));
    let mut server = Server {
        shared: shared.clone(),
        executors: Vec::new(),
        listener: None,
        lists: None,
        maintenance: None,
    };
    assert!(matches!(server.run(&known, &logs, None).await, Err(ServerError::Logs)));
    assert_eq!(server.executors.len(), 1);
    server.end().await.unwrap();
    assert_eq!(Arc::strong_count(&shared), 1, "an executor still has it");
}

/// A machine on a pipe, that says its frames by hand.
struct Machine {
    pipe: DuplexStream,
    session: agent::Session,
    decoder: Decoder,
}

impl Machine {
    /// One that goes on with what it was told is committed of its epoch; from the beginning if
    /// nothing was.
    async fn enter(server: &Server, name: &str, committed: Lsn) -> Self {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            vault: server.shared.vault.id(),
            incarnation: Incarnation::from_bytes([7; 16]),
            epoch: if committed == Lsn::NONE { Epoch::NONE } else { Epoch(1) },
            committed,
            features: 0,
            begins: Begins::Copy,
            parent: None,
            token: Token::NONE,
            machine: name.parse().unwrap(),
        };
        let (pipe, theirs) = tokio::io::duplex(64 << 10);
        server.connect_pipe(theirs);
        let session = agent::Session::new(hello, committed);
        let mut machine = Self { pipe, session, decoder: Decoder::new(Side::Agent) };
        let mut bytes = Vec::new();
        machine.session.hello(&mut bytes);
        machine.pipe.write_all(&bytes).await.unwrap();
        while !matches!(machine.hear().await, agent::Event::Welcome(_)) {}
        machine
    }

    /// The next that the server says.
    async fn hear(&mut self) -> agent::Event {
        loop {
            let mut byte = [0];
            self.pipe.read_exact(&mut byte).await.unwrap();
            if let Some(item) = self.decoder.next(&mut byte.as_slice()).unwrap() {
                let Item::Message(message) = item else { panic!("not {item:?} from a server") };
                let event = self.session.hear(message).unwrap();
                assert!(!matches!(event, agent::Event::Refused(_)), "{event:?}");
                return event;
            }
        }
    }

    /// Sends a bookmark, which has a pack of its own.
    async fn send_mark(&mut self) -> Lsn {
        let (lsn, time) = (self.session.sent().next(), Micros(1));
        let name = String::new();
        let bookmark = Bookmark { kind: BookmarkKind::CrashConsistent, clean: true, name };
        let mut bytes = Vec::new();
        let record = Record { lsn, time, kind: RecordKind::Bookmark(bookmark) };
        self.session.record(&record, &mut bytes);
        self.pipe.write_all(&bytes).await.unwrap();
        lsn
    }

    /// Sends a bookmark, and waits until it is stored.
    async fn mark(&mut self) -> Lsn {
        let lsn = self.send_mark().await;
        while self.session.committed() < lsn {
            self.hear().await;
        }
        lsn
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_comes_again_to_the_same_server_is_welcomed_without_a_look_at_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let shared = shared_at(&format!("file://{}", folder.path().join("vault").display())).await;
    let server = Server::begin(shared.clone(), None).await.map_err(|e| e.to_string()).unwrap();
    let mut machine = Machine::enter(&server, "db", Lsn::NONE).await;
    let committed = machine.mark().await;
    drop(machine);
    // Whoever reads any of its packs can't go on.
    let mut broken = 0;
    for shard in 0..2 {
        let id = LogId { run: shared.run, shard };
        let path = layout::pack(&LogName { node: shared.node.clone(), id }, PackNumber(0));
        let path = folder.path().join("vault").join(path);
        if path.exists() {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, [0; 999]).unwrap();
            broken += 1;
        }
    }
    assert_eq!(broken, 1);
    let again = Machine::enter(&server, "db", committed).await;
    assert_eq!(again.session.committed(), committed);
    drop(again);
    server.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_falls_quiet_gets_one_record_of_its_end_and_one_that_doesnt_gets_none() {
    let shared = shared("quiet").await;
    let server = Server::begin(shared.clone(), None).await.map_err(|e| e.to_string()).unwrap();
    let mut silent = Machine::enter(&server, "silent", Lsn::NONE).await;
    let committed = silent.mark().await;
    let idle = Machine::enter(&server, "idle", Lsn::NONE).await;
    let mut busy = Machine::enter(&server, "busy", Lsn::NONE).await;
    for _ in 0..quiet::QUIET_PACKS + 2 * quiet::LOOK_PACKS {
        busy.mark().await;
    }
    let sessions = async |machine: &str| {
        let machine: Name = machine.parse().unwrap();
        let (store, ring) = (shared.vault.store(), shared.vault.ring());
        list_sessions(store, ring, &machine).await.unwrap().whole
    };
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    while sessions("silent").await.is_empty() {
        assert!(std::time::Instant::now() < limit, "its end isn't recorded");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let recorded = sessions("silent").await;
    let [SessionRecord { number: 1, committed: stated, pack, .. }] = &recorded[..] else {
        panic!("{recorded:?}")
    };
    assert_eq!(*stated, committed);
    assert!(pack.0 >= quiet::QUIET_PACKS, "{pack}");
    assert_eq!((sessions("busy").await, sessions("idle").await), (vec![], vec![]));
    drop((silent, idle, busy));
    server.end().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_was_silent_for_too_long_must_come_anew_and_has_what_it_said_still() {
    let shared = shared_with("memory://silent", Duration::ZERO).await;
    let server = Server::begin(shared.clone(), None).await.map_err(|error| error.to_string());
    let server = server.unwrap();
    for _ in 0..2 {
        let mut machine = Machine::enter(&server, "db-1", Lsn::NONE).await;
        machine.send_mark().await;
        let mut said = Vec::new();
        machine.pipe.read_to_end(&mut said).await.unwrap();
    }
    server.end().await.unwrap();
    let (store, ring) = (shared.vault.store(), shared.vault.ring());
    let machine: Name = "db-1".parse().unwrap();
    let sessions = list_sessions(store, ring, &machine).await.unwrap().whole;
    assert_eq!(sessions.len(), 1, "it came anew");
    assert!(sessions.iter().all(|session| session.committed == Lsn::NONE), "nothing was taken");
}
