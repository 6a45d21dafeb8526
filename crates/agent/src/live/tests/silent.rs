//! A server that is connected and doesn't say what it owes.

use tidegate_model::Epoch;

use super::*;
use crate::connect::Connector;
use crate::session::{self, End};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_without_an_answer_is_waited_for_as_long_as_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let (_journal, feed, _progress) = feed(&folder);
    let stream = Stream {
        machine: "db-1".parse().unwrap(),
        vault: VAULT,
        incarnation: BIRTH.incarnation,
        epoch: Epoch::NONE,
        stands: Stands::Newest,
        committed: Lsn::NONE,
        ever_sent: Lsn::NONE,
        tokens: Vec::new(),
        record_bytes_max: None,
        window_bytes: 1 << 20,
    };
    let mut state = State::new(stream, feed, Arc::default());
    let questions = Arc::<Questions>::default();
    state.questions = Some(questions.clone());
    let extent = Extent { disk: disk().number, offset: 0, length: 1 << 16 };
    questions.ask(Hashes { extent, hashes: vec![[1; 32]] });
    let mischief = Mischief { answers_nothing: true, ..Mischief::default() };
    let connection = TestServers::new(mischief, 1).connect().await.unwrap();
    let (_stop, mut stopped) = watch::channel(false);
    let patience = Duration::from_millis(200);
    let session = session::run(&mut state, connection, patience, &mut stopped);
    let ended = tokio::time::timeout(Duration::from_secs(60), session).await;
    let Ok(Ok(End::Late(why))) = ended else { panic!("it waits: {ended:?}") };
    assert!(why.contains("what the vault has"), "{why}");
}
