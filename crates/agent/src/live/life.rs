//! The service: opens what an agent has, serves its disks, and keeps drain, copy and keeper at work until
//! it is asked to stop, or the vault asks for a new incarnation.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tidegate_model::Token;
use tidegate_nbd::serve::{self, Address, Offer, ServeSettings};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::agent::Agent;
use super::control::Listening;
use super::drain::{Drain, Drained};
use super::error::LiveError;
use super::feed::{CAPTURED_BYTES_MAX, JournalFeed};
use super::halt::Halt;
use super::keeper::Keeper;
use super::opened::{self, Opened, Wish};
use super::settings::{LiveDisk, LiveSettings, socket_of};
use super::{Progressing, Stands, initial, passes};
use crate::session::{SessionError, State, Stream, stopped};
use crate::window::WindowError;

/// How long clients' requests that are under way may take when the agent stops.
const SERVE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the agent sends what it has captured when it is asked to stop; the journal keeps the rest.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long whoever asked for a resync may take to hear that it begins.
const ANSWER_PATIENCE: Duration = Duration::from_millis(200);
/// How long others may still hold what is about to be closed, besides the hooks' own time: they are
/// answering, at most.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What an agent serves, told when it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Serving {
    /// The machine's name.
    pub machine: String,
    /// Its disks.
    pub disks: Vec<ServedDisk>,
}

/// A disk that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServedDisk {
    /// Its number.
    pub number: u8,
    /// Its size.
    pub bytes: u64,
    /// Where it is, as NBD clients take it.
    pub uri: String,
}

/// Runs a live agent until `stop`. `ready` is called whenever its disks are served: at the start, and
/// again after each new incarnation, which takes them away for a moment.
///
/// # Errors
/// [`LiveError`]; then the disks aren't served any more.
pub async fn run(
    settings: LiveSettings,
    mut stop: watch::Receiver<bool>,
    ready: impl Fn(&Serving) + Send + Sync,
) -> Result<(), LiveError> {
    let mut wish = Wish::GoOn;
    let mut first = true;
    loop {
        let told = settings.clone();
        let opened = blocking(move || opened::open(&told, wish)).await?;
        // Now that the folder is this agent's: another may have frozen something for itself.
        if std::mem::take(&mut first) {
            settings.hooks.recover(&settings.frozen());
        }
        let life = Life::begin(&settings, opened).await?;
        ready(&life.serving());
        match life.run(&mut stop).await? {
            Ended::Stopped => return Ok(()),
            Ended::Resync => {
                tracing::info!("a resync was asked for: the disks are compared with the vault");
                wish = Wish::Resync;
            }
            Ended::Broken { cause, stands: Stands::Nothing } => {
                tracing::error!(%cause, "the vault can't go on from here: the disks are copied anew");
                wish = Wish::Anew(Stands::Nothing);
            }
            Ended::Broken { cause, stands } => {
                tracing::error!(
                    %cause, "the vault can't go on from here: the disks are compared with it"
                );
                wish = Wish::Anew(stands);
            }
        }
    }
}

/// How a life ended that ended well.
enum Ended {
    /// The agent was asked to stop.
    Stopped,
    /// It was asked to compare its disks with the vault.
    Resync,
    /// A new incarnation must follow, which stands on this.
    Broken { cause: String, stands: Stands },
}

/// Work that blocks, away from what mustn't.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LiveError> + Send + 'static,
) -> Result<T, LiveError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(LiveError::Ended))
}

/// Work on a thread of its own.
struct Worker {
    thread: std::thread::JoinHandle<()>,
    /// What came of it, heard once.
    result: oneshot::Receiver<Result<(), LiveError>>,
}

impl Worker {
    fn start(
        name: &str,
        work: impl FnOnce() -> Result<(), LiveError> + Send + 'static,
    ) -> Result<Self, LiveError> {
        let (sender, result) = oneshot::channel();
        let run = move || drop(sender.send(work()));
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        Ok(Self { thread: thread.map_err(LiveError::Thread)?, result })
    }
}

/// One incarnation, or one part of it, at work.
struct Life {
    agent: Arc<Agent>,
    halt: Arc<Halt>,
    servers: Vec<serve::Server>,
    control: Listening,
    progress: watch::Sender<Progressing>,
    hard: watch::Sender<bool>,
    drain: JoinHandle<Result<Drained, LiveError>>,
    keeper: Worker,
    copier: Worker,
}

impl Life {
    async fn begin(settings: &LiveSettings, opened: Opened) -> Result<Self, LiveError> {
        let Opened { journal, opening, notebook, taps, passing, goes_on, progress } = opened;
        let agent = Agent::new(settings.clone(), journal.clone(), notebook.clone(), taps, passing);
        let agent = Arc::new(agent);
        notebook.begin_run(opening.recovered_to, Token::from_bytes((settings.random)()))?;
        let notes = notebook.read();
        let stream = Stream {
            machine: settings.machine.clone(),
            vault: settings.vault,
            incarnation: opening.incarnation,
            epoch: notes.epoch,
            stands: notes.stands,
            committed: opening.committed,
            ever_sent: notes.sent.unwrap_or(opening.recovered_to),
            tokens: notes.tokens,
            record_bytes_max: Some(CAPTURED_BYTES_MAX),
            window_bytes: settings.window_bytes,
        };
        let (told, link) = (progress.subscribe(), agent.link.clone());
        let feed = JournalFeed::new(journal, notebook.clone(), told, link);
        let mut state = State::new(stream, feed, agent.progress.clone());
        state.questions = Some(agent.questions.clone());
        let drain = Drain {
            state,
            servers: settings.servers.clone(),
            link: agent.link.clone(),
            notebook,
            retry: settings.retry.clone(),
        };
        let control = Listening::at(&socket_of(&settings.folder))?;
        let serving = agent.clone();
        let begin = move || {
            let mut keeper = Keeper::new(serving.clone(), goes_on);
            // Before anybody writes: the gap that the life before may have left ends here.
            keeper.mark(Instant::now())?;
            Ok((keeper, serve_disks(&serving)?))
        };
        let (keeper, servers) = blocking(begin).await?;
        let (hard, mut stopped) = watch::channel(false);
        let drain = tokio::spawn(async move { drain.run(&mut stopped).await });
        let halt = Arc::<Halt>::default();
        let keeper = {
            let halt = halt.clone();
            Worker::start("keeper", move || keeper.keep(&halt))?
        };
        let copier = {
            let (agent, halt) = (agent.clone(), halt.clone());
            Worker::start("initial-copy", move || {
                initial::copy(&agent, &halt)?;
                passes::keep(&agent, &halt)
            })?
        };
        Ok(Self { agent, halt, servers, control, progress, hard, drain, keeper, copier })
    }

    fn serving(&self) -> Serving {
        let status = self.agent.status();
        let disks = status.disks.into_iter();
        let disks = disks.filter_map(|disk| {
            Some(ServedDisk { number: disk.number, bytes: disk.bytes, uri: disk.listen? })
        });
        Serving { machine: status.machine, disks: disks.collect() }
    }

    /// Works until `stop`, or until a new incarnation must follow.
    async fn run(mut self, stop: &mut watch::Receiver<bool>) -> Result<Ended, LiveError> {
        let ended = self.work(stop).await;
        let goes_on = matches!(ended, Ok(Ended::Stopped | Ended::Resync));
        let closed = self.close(goes_on).await;
        if goes_on {
            closed?;
        }
        ended
    }

    async fn work(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Ended, LiveError> {
        let mut copying = true;
        let answering = self.control.serve(self.agent.clone());
        tokio::pin!(answering);
        loop {
            tokio::select! {
                () = stopped(stop) => return Ok(Ended::Stopped),
                () = self.agent.resync.notified() => {
                    let _ = timeout(ANSWER_PATIENCE, &mut answering).await;
                    return Ok(Ended::Resync);
                }
                () = &mut answering => return Err(LiveError::Ended),
                drained = &mut self.drain => return match drained.unwrap_or(Err(LiveError::Ended)) {
                    Ok(Drained::Broken(cause)) => Ok(self.broken(&cause.into())),
                    Err(error) if error.is_of_journal() => Ok(self.broken(&error)),
                    Ok(_) => Err(LiveError::Ended),
                    Err(error) => Err(error),
                },
                kept = &mut self.keeper.result => return match kept {
                    Ok(Err(error)) => Err(error),
                    _ => Err(LiveError::Ended),
                },
                copied = &mut self.copier.result, if copying => {
                    copying = false;
                    copied.unwrap_or(Err(LiveError::Ended))?;
                }
            }
        }
    }

    /// What follows when the vault can't go on from here.
    fn broken(&self, cause: &LiveError) -> Ended {
        let notes = self.agent.notebook.read();
        let stands = match cause {
            // The vault has more than this agent ever had, or another run went on from what it had: the
            // machine was restored, its agent with it, or cloned. What the other did since isn't its own.
            LiveError::Session(
                SessionError::Window(WindowError::NeverSent { .. }) | SessionError::Copied,
            ) => notes.followed_from(),
            // What is compared with may be what is broken.
            _ if notes.copy_end.is_none() => Stands::Nothing,
            _ => Stands::Newest,
        };
        Ended::Broken { cause: cause.to_string(), stands }
    }

    /// Ends everything; where the history goes on, with what is left sent and the journal closed.
    async fn close(self, goes_on: bool) -> Result<(), LiveError> {
        let Self { agent, halt, servers, control, progress, hard, drain, keeper, copier } = self;
        halt.ask();
        let (ending, told) = (agent.clone(), progress);
        let settled = blocking(move || {
            ending.close();
            // While the disks are served: hooks and a pass's programs may take long, and use what lies on them.
            for worker in [keeper, copier] {
                // A panic was told of where it was.
                let _ = worker.thread.join();
            }
            // Together: a client that waits for its answer holds nobody else up.
            std::thread::scope(|scope| {
                for server in servers {
                    scope.spawn(move || server.stop(SERVE_PATIENCE));
                }
            });
            for tap in &ending.taps {
                tap.close()?;
            }
            for passing in &ending.passing {
                passing.close()?;
            }
            let last = ending.journal.usage().last;
            ending.journal.wait_durable(last)?;
            told.send_modify(|progress| progress.end = Some(last));
            Ok(())
        });
        let settled = settled.await;
        let mut drain = drain;
        if !drain.is_finished() {
            // With a server it says goodbye; without one it waits only for what the vault lacks.
            let usage = agent.journal.usage();
            let owes = agent.link.look().connected || usage.committed < usage.last;
            if goes_on && owes && settled.is_ok() {
                let _ = timeout(DRAIN_PATIENCE, &mut drain).await;
            }
            hard.send_replace(true);
            if !drain.is_finished() {
                let _ = drain.await;
            }
        }
        drop(control);
        agent.note_committed()?;
        // A journal whose disks didn't end well may not look as if they had.
        settled?;
        close_journal(agent).await
    }
}

/// Closes the journal when nobody else holds it any more.
async fn close_journal(agent: Arc<Agent>) -> Result<(), LiveError> {
    let mut agent = agent;
    let until = tokio::time::Instant::now() + CLOSE_PATIENCE + agent.settings.hooks.longest();
    let agent = loop {
        match Arc::try_unwrap(agent) {
            Ok(agent) => break agent,
            Err(held) if tokio::time::Instant::now() < until => agent = held,
            Err(_) => return Err(LiveError::Ended),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let Agent { journal, taps, passing, .. } = agent;
    drop((taps, passing));
    let journal = Arc::into_inner(journal).ok_or(LiveError::Ended)?;
    blocking(move || Ok(journal.close()?)).await
}

/// Starts a server for each address.
fn serve_disks(agent: &Agent) -> Result<Vec<serve::Server>, LiveError> {
    let mut addresses: Vec<(&Address, Vec<Offer>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let listens = agent.settings.disks.iter().filter_map(LiveDisk::listen);
    for (tap, listen) in agent.taps.iter().zip(listens) {
        let export = tap.export(&LiveSettings::export(tap.disk()))?;
        let offer = Offer { export, disk: tap.clone() };
        let place = *places.entry(listen.to_string()).or_insert_with(|| {
            addresses.push((listen, Vec::new()));
            addresses.len() - 1
        });
        addresses[place].1.push(offer);
    }
    let start = |(address, offers)| serve::Server::start(address, offers, ServeSettings::default());
    let servers: Result<Vec<_>, _> = addresses.into_iter().map(start).collect();
    Ok(servers?)
}
