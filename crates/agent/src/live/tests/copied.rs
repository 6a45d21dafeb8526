//! Folders that were restored to what they were, or copied: what they capture since is another history than
//! what the vault has, and is never taken for its continuation.

use super::*;

impl Scene {
    /// The agent's folder, as it is now.
    fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        let mut cp = std::process::Command::new("cp");
        let status = cp.arg("-a").arg(self.folder.path().join(".")).arg(copy.path()).status();
        assert!(status.unwrap().success());
        copy
    }

    /// One life without a server, in which something is captured.
    async fn lives_alone(&mut self, count: u64) {
        self.reach(&[Mischief { gone_from: Some(0), ..Mischief::default() }]);
        let (agent, _) = self.open();
        self.append(&agent.journal, count);
        agent.journal.wait_durable(agent.journal.usage().last).unwrap();
        agent.kill().await;
        self.reach(&[Mischief::default()]);
    }

    /// One life in which all that is captured is committed.
    async fn lives(&mut self, count: u64) {
        let (agent, _) = self.open();
        self.append(&agent.journal, count);
        agent.commits().await;
        agent.kill().await;
    }

    /// One life that finds that its history can't go on.
    async fn is_broken(&mut self) {
        let before = self.servers[0].vault.lock().unwrap().records.clone();
        let (agent, _) = self.open();
        let ended = tokio::time::timeout(Duration::from_secs(60), agent.drain).await;
        let ended = ended.expect("it would go on").unwrap().unwrap();
        assert!(matches!(ended, Drained::Broken(_)), "{ended:?}");
        let after = self.servers[0].vault.lock().unwrap().records.clone();
        assert!(before == after, "it sent something");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restored_folder_captured_without_a_server_is_another_history() {
    let mut scene = Scene::new(&[Mischief::default()], 1);
    scene.lives(10).await;
    let yesterday = scene.copy();
    scene.lives(10).await;
    scene.folder = yesterday;
    // It gets further than the vault is.
    for _ in 0..2 {
        scene.lives_alone(20).await;
    }
    scene.is_broken().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_copies_that_were_never_welcomed_one_has_the_epoch() {
    let mut scene = Scene::new(&[Mischief::default()], 2);
    scene.lives_alone(10).await;
    let copy = scene.copy();
    scene.lives(10).await;
    scene.folder = copy;
    scene.is_broken().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_copies_one_goes_on_though_nothing_tells_them_apart_but_who_came_first() {
    let mut scene = Scene::new(&[Mischief::default()], 3);
    scene.lives(10).await;
    let copy = scene.copy();
    // What the first sends is on its way still.
    scene.reach(&[Mischief { never_commits: true, ..Mischief::default() }]);
    let (agent, _) = scene.open();
    scene.append(&agent.journal, 10);
    let vault = scene.servers[0].vault.clone();
    let sent = async {
        while vault.lock().unwrap().records.len() < scene.appended.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), sent).await.unwrap();
    agent.kill().await;
    scene.reach(&[Mischief::default()]);
    let first = std::mem::replace(&mut scene.folder, copy);
    scene.is_broken().await;
    // The other one has lost its place by that, too.
    scene.folder = first;
    scene.is_broken().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_which_its_agent_never_heard_is_its_own() {
    let mut scene = Scene::new(&[Mischief::default()], 4);
    scene.lives(10).await;
    scene.lives_alone(10).await;
    // It was granted, and the agent killed before the welcome came.
    let notes = Notebook::open(&scene.folder.path().join("notes.json")).unwrap().unwrap().read();
    scene.servers[0].vault.lock().unwrap().token = notes.tokens.last().copied();
    scene.lives_alone(10).await;
    scene.lives(10).await;
    scene.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lives_without_a_server_and_what_was_sent_before_a_kill_go_on() {
    let cut = Mischief { cut_below: Some(200_000), ..Mischief::default() };
    for seed in 0..6 {
        let mut scene = Scene::new(&[cut], seed);
        for _ in 0..3 {
            scene.reach(&[cut]);
            let (agent, _) = scene.open();
            scene.append(&agent.journal, 40);
            tokio::task::yield_now().await;
            agent.kill().await;
            scene.lives_alone(20).await;
        }
        let (agent, _) = scene.open();
        let (ended, _) = agent.end().await;
        assert!(matches!(ended, Drained::Whole), "seed {seed}: {ended:?}");
        scene.check();
    }
}
