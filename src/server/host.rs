//! One shard on its executor: the pinned core's share of streams, units, packs and commits.
//!
//! Two task queues: streams (sessions, news, commits), and units, with few shares, so that a core
//! full of compression still answers; `turns` tells when they take turns. Whatever this shard decides
//! is decided by [`tidegate_pipeline::Shard`]; here it is carried out.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glommio::timer::Timer;
use glommio::{Shares, TaskQueueHandle};
use tidegate_model::{Lsn, Micros, Name, PackNumber};
use tidegate_pipeline::{
    Admission, Committed, Fault, FullPack, Homecoming, Shard, ShardSetup, StreamTotals, Unit,
    Worker,
};
use tidegate_vault::grant::KnownEnd;
use tidegate_wire::{Refusal, RefusalCode, SlowReason};
use tracing::info;

use super::credit::{self, Pool};
use super::front;
use super::line::{Line, Turn};
use super::quiet::Looks;
use super::session;
use super::shared::{News, Shared};
use super::turns::{self, Taken};
use super::uploads;

/// Streams get ten times the time of units when both want all of it.
const STREAM_SHARES: usize = 1000;
const UNIT_SHARES: usize = 100;
/// A worker lets the reactor look after so many bytes: a whole unit, or several small ones.
const WORK_TURN_BYTES: usize = 192 << 10;
/// What a unit counts at least: one of records without bytes is work too.
const UNIT_WORTH_BYTES: usize = 16 << 10;
/// How often the shard's load is measured.
const LOAD_INTERVAL: Duration = Duration::from_millis(200);

/// What reaches a session from its shard.
#[derive(Default)]
pub(crate) struct Post {
    /// Payload bytes that were packed: credit that returns.
    pub packed_bytes: Cell<usize>,
    /// What was committed since the session last looked.
    pub committed: Cell<Option<Lsn>>,
    pub totals: RefCell<StreamTotals>,
    /// Why its stream must end.
    pub fault: Cell<Option<Fault>>,
    /// The session must end, for this reason.
    pub end: RefCell<Option<Refusal>>,
    pub waker: RefCell<Option<Waker>>,
}

impl Post {
    /// Ready once another connection has taken over from the session's.
    pub(super) fn poll_taken_over(&self, context: &Context<'_>) -> Poll<()> {
        let end = self.end.borrow();
        if end.as_ref().is_some_and(|refusal| refusal.code == RefusalCode::TakenOver) {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// A shard's host; lives on its executor only.
pub(crate) struct Host {
    pub shared: Arc<Shared>,
    pub number: u16,
    pub streams: TaskQueueHandle,
    shard: RefCell<Shard>,
    posts: RefCell<HashMap<u64, Rc<Post>>>,
    line: Rc<Line>,
    /// Wakes the task that waits for the open pack's age.
    keeper: RefCell<Option<Waker>>,
    stopping: Cell<bool>,
    looks: Looks,
    /// Where sessions read and decrypt: one buffer for all, since each handles what it read before it
    /// waits.
    scratch: RefCell<Vec<u8>>,
    pub taken: Taken,
    /// Kept from call to call, so that nothing is allocated for them.
    homes: RefCell<Vec<Homecoming>>,
    packs: RefCell<Vec<FullPack>>,
    committed: RefCell<Vec<Committed>>,
    latencies: RefCell<Vec<u64>>,
}

/// Runs a shard until the server stops and all that it took in is committed.
pub(crate) async fn run(shared: Arc<Shared>, number: u16, setup: ShardSetup, worker: Worker) {
    let executor = glommio::executor();
    let streams =
        executor.create_task_queue(Shares::Static(STREAM_SHARES), turns::LATENCY, "streams");
    let units = executor.create_task_queue(Shares::Static(UNIT_SHARES), turns::LATENCY, "units");
    let host = Rc::new(Host {
        shared,
        number,
        streams,
        shard: RefCell::new(Shard::new(setup)),
        posts: RefCell::default(),
        line: Rc::default(),
        keeper: RefCell::default(),
        stopping: Cell::new(false),
        looks: Looks::default(),
        scratch: RefCell::new(vec![0; session::READ_BYTES]),
        taken: Taken::default(),
        homes: RefCell::default(),
        packs: RefCell::default(),
        committed: RefCell::default(),
        latencies: RefCell::default(),
    });
    let spawned = [
        glommio::spawn_local_into(host.clone().work(worker), units),
        glommio::spawn_local_into(host.clone().receive(), streams),
        glommio::spawn_local_into(host.clone().measure_load(), streams),
        glommio::spawn_local_into(turns::nudge(), streams),
    ];
    let governing = (host.shared.is_governed)
        .then(|| glommio::spawn_local_into(host.clone().govern(), streams).expect("just made"));
    let tasks = spawned.map(|task| task.expect("the queues were just made"));
    glommio::spawn_local_into(host.clone().keep(), streams).expect("just made").await;
    host.finish().await;
    host.await_others().await;
    for task in tasks.into_iter().chain(governing) {
        task.cancel().await;
    }
}

impl Host {
    /// Works on units, its own and others', whenever the core has nothing more urgent.
    async fn work(self: Rc<Self>, mut worker: Worker) {
        let mut worked = 0;
        loop {
            let mut unit = poll_fn(|context| self.shared.units.poll_take(context)).await;
            worked += unit.payload_bytes().max(UNIT_WORTH_BYTES);
            worker.process(&mut unit);
            match unit.home() {
                Some(home) if home == self.number => self.come_home(unit),
                Some(home) => self.shared.tell(home, News::Unit(unit)),
                None => {}
            }
            if worked >= WORK_TURN_BYTES {
                worked = 0;
                turns::reactor().await;
            }
        }
    }

    /// Takes in new connections, for ever; `run` cancels it.
    async fn receive(self: Rc<Self>) {
        loop {
            let arrival =
                poll_fn(|context| self.shared.shard(self.number).arrivals.poll_take(context)).await;
            let serve = front::serve(self.clone(), arrival);
            if let Ok(task) = glommio::spawn_local_into(serve, self.streams) {
                task.detach();
            }
        }
    }

    /// Reads the news and watches the open pack's age, until the server stops.
    async fn keep(self: Rc<Self>) {
        let mut alarm: Option<(Micros, Timer)> = None;
        poll_fn(|context| {
            while let Poll::Ready(news) = self.shared.shard(self.number).news.poll_take(context) {
                self.hear(news);
            }
            if self.stopping.get() {
                return Poll::Ready(());
            }
            self.poll_pack_buffer(context);
            self.poll_age(context, &mut alarm);
            *self.keeper.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Goes on when a pack buffer is free that a unit has waited for.
    fn poll_pack_buffer(&self, context: &mut Context<'_>) {
        let free = self.shard.borrow_mut().poll_pack_buffer(context);
        if free.is_ready() {
            self.advance();
        }
    }

    fn poll_age(&self, context: &mut Context<'_>, alarm: &mut Option<(Micros, Timer)>) {
        loop {
            let deadline = self.shard.borrow().deadline();
            let Some(deadline) = deadline else {
                *alarm = None;
                return;
            };
            if alarm.as_ref().is_none_or(|(set, _)| *set != deadline) {
                let wait = deadline.0.saturating_sub(now().0).max(1);
                *alarm = Some((deadline, Timer::new(Duration::from_micros(wait))));
            }
            let Some((_, timer)) = alarm else { return };
            if std::pin::Pin::new(timer).poll(context).is_pending() {
                return;
            }
            *alarm = None;
            self.advance();
            if self.shard.borrow().deadline() == Some(deadline) && deadline <= now() {
                // It can't close now: too many packs are under way. Their end calls again.
                return;
            }
        }
    }

    fn hear(&self, news: News) {
        match news {
            News::Unit(unit) => self.come_home(unit),
            News::Stored(number) => self.stored(number),
            News::Failed(failure) => {
                // The first is what the command ends with, and tells; the others are like it.
                info!(%failure, "the run ends; nothing that was acknowledged is lost");
                self.shared.fail(failure);
            }
            News::List(list) => {
                self.shard.borrow_mut().read_list(list);
                self.advance();
            }
            News::Stop => self.stopping.set(true),
        }
    }

    /// Gives a unit its place and sends it to whichever core is idle; gives it back while too many
    /// are under way, and wakes `context` when it may be `turn`'s.
    pub(crate) fn dispatch(
        &self,
        unit: Unit,
        turn: &mut Turn,
        context: &Context<'_>,
    ) -> Option<Unit> {
        let unit = if turn.is_first() {
            match self.shard.borrow_mut().dispatch(unit) {
                Admission::Placed(unit) => {
                    let posted = self.shared.units.post(unit);
                    assert!(posted.is_ok(), "the queue holds all units that can be under way");
                    turn.leave();
                    return None;
                }
                Admission::Later(unit) => unit,
            }
        } else {
            unit
        };
        turn.wait(context);
        Some(unit)
    }

    /// The same, however long it takes.
    pub(crate) async fn dispatch_in_turn(&self, unit: Unit, turn: &mut Turn) {
        let mut unit = Some(unit);
        poll_fn(|context| {
            unit = unit.take().and_then(|unit| self.dispatch(unit, turn, context));
            if unit.is_none() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// A turn in the line before the units' places.
    pub(crate) fn turn(&self) -> Turn {
        self.line.turn()
    }

    /// Where a session that begins now begins in the log.
    pub(crate) fn open_pack(&self) -> PackNumber {
        self.shard.borrow().open_pack()
    }

    /// What the shard knows of a machine's chain without reading its log.
    pub(crate) fn known_end(&self, machine: &Name) -> Option<KnownEnd> {
        let (epoch, committed) = self.shared.directory.committed(machine)?;
        Some(KnownEnd { epoch, committed, stored: self.shard.borrow().committed_packs() })
    }

    /// Opens a session's post box.
    pub(crate) fn open_post(&self, session: u64) -> Rc<Post> {
        let post = Rc::new(Post::default());
        if self.stopping.get() {
            *post.end.borrow_mut() = Some(Refusal::shutting_down());
        }
        self.posts.borrow_mut().insert(session, post.clone());
        post
    }

    /// Closes a session's post box.
    pub(crate) fn close_post(&self, session: u64) {
        self.posts.borrow_mut().remove(&session);
    }

    /// Ends another session of this shard.
    pub(crate) fn end_session(&self, session: u64, refusal: Refusal) {
        if let Some(post) = self.posts.borrow().get(&session) {
            *post.end.borrow_mut() = Some(refusal);
            post.wake();
        }
    }

    /// The buffer into which sessions read.
    pub(crate) const fn scratch(&self) -> &RefCell<Vec<u8>> {
        &self.scratch
    }

    /// How much of the large buffers is free.
    pub(crate) fn large_pool(&self) -> Pool {
        session::pool_of(&self.shared.large)
    }

    /// Whether enough units wait for a core.
    pub(crate) fn is_crowded(&self) -> bool {
        credit::is_crowded(self.shared.units.len(), self.shared.shards.len())
    }

    /// What a session that waits is waiting for.
    pub(crate) fn bottleneck(&self) -> SlowReason {
        let shard = self.shard.borrow();
        let packs = shard.packs_in_flight() >= self.shared.plan.pack_buffers_per_shard;
        session::bottleneck(packs, !self.shared.units.is_empty())
    }

    /// Packs between close and commit.
    pub(super) fn packs_under_way(&self) -> usize {
        self.shard.borrow().packs_in_flight()
    }

    /// Whether the server stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    fn come_home(&self, unit: Unit) {
        self.shard.borrow_mut().come_home(unit);
        self.advance();
    }

    fn stored(&self, number: PackNumber) {
        let mut committed = self.committed.borrow_mut();
        let mut latencies = self.latencies.borrow_mut();
        self.shard.borrow_mut().stored(number, now(), &mut committed, &mut latencies);
        latencies.drain(..).for_each(|micros| self.shared.latencies.commit.record(micros));
        let all_before = self.shard.borrow().committed_packs();
        self.shared.directory.note_committed(self.number, &committed, all_before);
        self.looks.look(&self.shared, self.number, all_before);
        for news in committed.drain(..) {
            let posts = self.posts.borrow();
            let Some(post) = posts.get(&news.stream.id) else { continue };
            post.committed.set(news.lsn.or(post.committed.get()));
            post.totals.borrow_mut().add(&news.totals);
            post.wake();
        }
        drop((committed, latencies));
        self.advance();
    }

    /// Does what is due, and tells those whom it concerns.
    fn advance(&self) {
        let mut homes = self.homes.borrow_mut();
        let mut packs = self.packs.borrow_mut();
        let before = self.shard.borrow().deadline();
        self.shard.borrow_mut().advance(now(), &mut homes, &mut packs);
        for pack in packs.drain(..) {
            uploads::start(&self.shared, self.number, pack);
        }
        if !homes.is_empty() {
            self.line.wake_first();
        }
        for home in homes.drain(..) {
            let posts = self.posts.borrow();
            let Some(post) = posts.get(&home.stream.id) else { continue };
            post.packed_bytes.set(post.packed_bytes.get() + home.payload_bytes);
            post.fault.set(post.fault.get().or(home.fault));
            post.wake();
        }
        let shard = self.shard.borrow();
        if (shard.deadline() != before || shard.needs_pack_buffer())
            && let Some(waker) = self.keeper.borrow_mut().take()
        {
            waker.wake();
        }
    }

    async fn measure_load(self: Rc<Self>) {
        let runtime = || {
            let stats = glommio::executor().task_queue_stats(self.streams);
            stats.map_or(Duration::ZERO, |stats| stats.runtime())
        };
        let (mut last_run, mut last) = (runtime(), Instant::now());
        loop {
            Timer::new(LOAD_INTERVAL).await;
            let (run, now) = (runtime(), Instant::now());
            let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(0);
            let passed = micros(now - last).max(1);
            let permille = micros(run.saturating_sub(last_run)) * 1000 / passed;
            self.shared.shard(self.number).load_permille.store(permille, Ordering::Relaxed);
            (last_run, last) = (run, now);
        }
    }

    /// The server stops: sessions are told, what they sent is stored, the log is closed.
    async fn finish(&self) {
        let posts: Vec<u64> = self.posts.borrow().keys().copied().collect();
        posts.into_iter().for_each(|session| self.end_session(session, Refusal::shutting_down()));
        // The last pack says that all before it are stored: it may be stored only after them.
        self.settle(|shard| shard.units_in_flight() == 0 && shard.packs_in_flight() == 0).await;
        if self.shared.failure().is_some() {
            return;
        }
        let last = self.shard.borrow_mut().finish(now());
        last.into_iter().for_each(|pack| uploads::start(&self.shared, self.number, pack));
        self.settle(|shard| shard.packs_in_flight() == 0).await;
        info!(shard = self.number, packs = self.open_pack().0, "the log is closed");
    }

    /// Waits until every shard has finished. A worker that left before would take the wake-up for
    /// another shard's unit with it.
    async fn await_others(&self) {
        self.shared.finished.fetch_add(1, Ordering::SeqCst);
        while self.shared.finished.load(Ordering::SeqCst) < self.shared.shards.len() {
            Timer::new(SETTLE_TICK).await;
        }
    }

    /// Waits until the sessions have ended and `done` holds.
    async fn settle(&self, done: impl Fn(&Shard) -> bool) {
        let mut tick = Timer::new(SETTLE_TICK);
        poll_fn(|context| {
            while let Poll::Ready(news) = self.shared.shard(self.number).news.poll_take(context) {
                self.hear(news);
            }
            let settled = self.posts.borrow().is_empty() && done(&self.shard.borrow());
            if settled || self.shared.failure().is_some() {
                return Poll::Ready(());
            }
            self.poll_pack_buffer(context);
            if std::pin::Pin::new(&mut tick).poll(context).is_ready() {
                self.advance();
                tick = Timer::new(SETTLE_TICK);
                let _ = std::pin::Pin::new(&mut tick).poll(context);
            }
            Poll::Pending
        })
        .await;
    }
}

/// How often a shard that stops looks whether a pack's age is due.
const SETTLE_TICK: Duration = Duration::from_millis(20);

/// Now, by this host's clock as it was at the start and the time since: it never jumps, so ages are
/// right whatever becomes of the clock.
pub(crate) fn now() -> Micros {
    static START: OnceLock<(SystemTime, Instant)> = OnceLock::new();
    let (system, instant) = START.get_or_init(|| (SystemTime::now(), Instant::now()));
    let since = system.duration_since(UNIX_EPOCH).unwrap_or_default() + instant.elapsed();
    Micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Now, by this host's clock as it is: for what has to do with the calendar.
pub(crate) fn wall_clock() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
