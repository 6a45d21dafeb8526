//! Looks at an agent from time to time: what it has captured, and what is committed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tidegate_agent::live::{self, Answer, Mode, Request, Status};
use tidegate_model::Lsn;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::failure::Failure;

/// Between two looks: each costs some 100 us of the machine's time, and adds at most twice as much to
/// a lag as this.
const INTERVAL: Duration = Duration::from_millis(2);

/// One look.
#[derive(Debug, Clone, Copy)]
struct Look {
    asked: Instant,
    heard: Instant,
    captured: Lsn,
    committed: Lsn,
    overflowed: bool,
}

/// Looks that go on.
pub(super) struct Looks {
    end: oneshot::Sender<Option<Duration>>,
    looking: JoinHandle<Result<Vec<Look>, Failure>>,
}

impl Looks {
    pub(super) fn begin(agent: PathBuf) -> Self {
        let (end, ended) = oneshot::channel();
        Self { end, looking: tokio::spawn(look(agent, ended)) }
    }

    /// Ends them when everything that is captured now is committed, if that is waited for.
    pub(super) async fn end(self, limit: Option<Duration>) -> Result<Looked, Failure> {
        // Without anybody who hears it, it has failed, and says so.
        let _ = self.end.send(limit);
        let looks = self.looking.await.map_err(|error| Failure::failed(error.to_string()))?;
        Ok(Looked(looks?))
    }
}

async fn look(
    agent: PathBuf,
    mut ended: oneshot::Receiver<Option<Duration>>,
) -> Result<Vec<Look>, Failure> {
    let (mut looks, mut last) = (Vec::new(), None);
    let socket = live::socket_of(&agent);
    loop {
        let asked = Instant::now();
        let status = status(&socket).await?;
        let (captured, committed) = (status.captured, status.committed);
        let overflowed = status.disks.iter().any(|disk| disk.mode == Mode::Bitmap);
        looks.push(Look { asked, heard: Instant::now(), captured, committed, overflowed });
        if last.is_none() {
            last = ended.try_recv().ok().map(|limit| (captured, limit.map(|limit| asked + limit)));
        }
        match last {
            Some((_, None)) => return Ok(looks),
            Some((lsn, Some(until))) if committed >= lsn || asked > until => return Ok(looks),
            _ => tokio::time::sleep(INTERVAL).await,
        }
    }
}

/// How an agent is.
pub(super) async fn status(socket: &std::path::Path) -> Result<Box<Status>, Failure> {
    match live::ask(socket, &Request::Status, Duration::ZERO).await? {
        Answer::Status(status) => Ok(status),
        other => Err(Failure::failed(format!("the agent answered {other:?}"))),
    }
}

/// All looks, in order.
pub(super) struct Looked(Vec<Look>);

impl Looked {
    /// When it was heard that what had been answered by then is committed.
    pub(super) fn committed_at(&self, answered: Instant) -> Option<Instant> {
        let Self(looks) = self;
        // What was asked after the answer tells of an LSN that covers it.
        let next = looks.partition_point(|look| look.asked < answered);
        let lsn = looks.get(next)?.captured;
        let there = looks.partition_point(|look| look.committed < lsn);
        looks.get(there).map(|look| look.heard)
    }

    /// Whether the journal was full at the end.
    pub(super) fn overflowed(&self) -> bool {
        self.0.last().is_some_and(|look| look.overflowed)
    }
}
