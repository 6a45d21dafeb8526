//! Servers that can't start: nothing of them runs on.

use std::fs::File;
use std::os::fd::OwnedFd;

use tidegate_model::PackNumber;
use tidegate_model::limits::PACK_CLOSE_BYTES_DEFAULT;
use tidegate_vault::keys::{Credential, PassphraseCost};
use tidegate_vault::layout;
use tidegate_vault::store::{Access, Store};
use tidegate_vault::vault::InitOptions;
use zeroize::Zeroizing;

use super::*;

/// What a server of two shards would share, in a vault of its own.
async fn shared(vault: &str) -> Arc<Shared> {
    let store = Store::open(&format!("memory://{vault}").parse().unwrap(), Access::Create).unwrap();
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
    };
    Arc::new(share(Arc::new(vault), settings, &Stop::new()).unwrap())
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
    let mut server = Server { shared: shared.clone(), executors: Vec::new(), listener: None };
    assert!(matches!(server.run(&known, &logs, None).await, Err(ServerError::Logs)));
    assert_eq!(server.executors.len(), 1);
    server.end().await.unwrap();
    assert_eq!(Arc::strong_count(&shared), 1, "an executor still has it");
}
