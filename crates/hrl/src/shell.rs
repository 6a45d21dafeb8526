//! The journal as the agent has it: a handle that everyone may call, and a thread that writes.
//!
//! While one batch is being made durable the next gathers, so that what waits together is written
//! together. Who appends never waits for the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_model::{BookmarkKind, Lsn, Micros};

use crate::journal::{
    AppendError, Birth, Change, JournalError, JournalSettings, Opening, Reader, Record, State,
    Usage, Writer, open,
};
use crate::storage::Storage;

/// Called with each LSN up to which everything is durable, on the writing thread: it must not wait.
pub type OnDurable = Box<dyn FnMut(Lsn) + Send>;

/// A journal that is open. Dropped without [`Journal::close`] it counts as not closed, as after
/// `kill -9`.
#[derive(Debug)]
pub struct Journal<S: Storage> {
    shared: Arc<Shared>,
    storage: S,
    thread: Option<JoinHandle<Result<(), JournalError>>>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// There is something to write or to remove, or the end.
    work: Condvar,
    /// Something became durable, or nothing will any more.
    progress: Condvar,
    /// What waited to be written was taken, so that there is room for more, or the end.
    room: Condvar,
    /// The last durable LSN, for those who only want to look.
    durable: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    state: State,
    stop: Stop,
}

/// How often it is looked whether a file system that was full has room again.
const ROOM_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// After what is appended, and with a proper end.
    Close,
    /// At once.
    Abandon,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The state is whole between its calls, whoever panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(condvar: &Condvar, guard: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Storage + Send + 'static> Journal<S>
where
    S::File: Send,
{
    /// Opens the journal in `storage`, or makes one, and starts the thread that writes it. What wasn't
    /// closed is recovered first; [`Opening`] says what was found.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(
        storage: S,
        settings: JournalSettings,
        birth: &Birth,
        on_durable: OnDurable,
    ) -> Result<(Self, Opening), JournalError> {
        let (mut state, writer, opening) = open(storage.clone(), settings, birth)?;
        state.set_room(writer.has_room(state.room_bytes()));
        let durable = AtomicU64::new(state.usage().durable.0);
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner { state, stop: Stop::No }),
            work: Condvar::new(),
            progress: Condvar::new(),
            room: Condvar::new(),
            durable,
        });
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn({
            let shared = shared.clone();
            move || run(&shared, writer, on_durable)
        });
        let thread = thread.map_err(|error| JournalError::Io {
            name: "writer".to_owned(),
            what: "started",
            error,
        })?;
        Ok((Self { shared, storage, thread: Some(thread) }, opening))
    }

    /// Writes what was appended, ends the newest segment properly, and stops.
    ///
    /// # Errors
    /// [`JournalError`] of this or of an earlier write.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.stop(Stop::Close)
    }
}

impl<S: Storage> Journal<S> {
    /// Takes a change, and gives it the next LSN. It is durable a little later.
    ///
    /// # Errors
    /// [`AppendError`] says why it wasn't taken.
    pub fn append(&self, change: &Change<&[u8]>, time: Micros) -> Result<Lsn, AppendError> {
        let appended = self.shared.lock().state.append(change, time);
        self.shared.work.notify_one();
        appended
    }

    /// The same, but where the journal's disk is behind it waits until there is room.
    ///
    /// # Errors
    /// [`AppendError`] but for [`AppendError::Behind`].
    pub fn append_waiting(&self, change: &Change<&[u8]>, time: Micros) -> Result<Lsn, AppendError> {
        let mut inner = self.shared.lock();
        let appended = loop {
            match inner.state.append(change, time) {
                Err(AppendError::Behind { .. }) => {
                    // What stands in its way may be a gap's beginning, of which nobody told.
                    self.shared.work.notify_one();
                    inner = Shared::wait(&self.shared.room, inner);
                }
                appended => break appended,
            }
        };
        drop(inner);
        self.shared.work.notify_one();
        appended
    }

    /// From the next record on no LSN is a moment of the disks, until a bookmark; see
    /// [`State::begin_gap`].
    pub fn begin_gap(&self, kind: BookmarkKind, time: Micros) {
        self.shared.lock().state.begin_gap(kind, time);
    }

    /// The last durable LSN. Waits for nobody.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        Lsn(self.shared.durable.load(Ordering::Acquire))
    }

    /// Whether a write to it failed, or it is being closed: it takes nothing any more.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.shared.lock().state.has_failed()
    }

    /// Waits until everything up to `lsn` is durable.
    ///
    /// # Errors
    /// [`JournalError::Failed`] when it won't be any more.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), JournalError> {
        let mut inner = self.shared.lock();
        while inner.state.usage().durable < lsn {
            if inner.state.has_failed() {
                return Err(JournalError::Failed);
            }
            inner = Shared::wait(&self.shared.progress, inner);
        }
        Ok(())
    }

    /// Everything up to `lsn` is in the vault: the journal may forget it.
    ///
    /// # Errors
    /// [`JournalError::NeverSent`].
    pub fn committed(&self, lsn: Lsn) -> Result<(), JournalError> {
        self.shared.lock().state.committed(lsn)?;
        self.shared.work.notify_one();
        Ok(())
    }

    /// How full it is, and how far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.lock().state.usage()
    }

    /// A reader from `lsn` on, or from the first record that isn't committed.
    #[must_use]
    pub fn read_from(&self, lsn: Lsn) -> JournalReader<S> {
        let reader = Reader::new(self.storage.clone(), lsn);
        JournalReader { shared: self.shared.clone(), reader }
    }

    fn stop(&mut self, how: Stop) -> Result<(), JournalError> {
        self.shared.lock().stop = how;
        self.shared.work.notify_one();
        let joined = self.thread.take().map(JoinHandle::join);
        joined.unwrap_or(Ok(Ok(()))).unwrap_or(Err(JournalError::Failed))
    }
}

impl<S: Storage> Drop for Journal<S> {
    fn drop(&mut self) {
        // Who wanted to know closed it.
        let _ = self.stop(Stop::Abandon);
    }
}

/// Reads durable records back; see [`Journal::read_from`].
#[derive(Debug)]
pub struct JournalReader<S: Storage> {
    shared: Arc<Shared>,
    reader: Reader<S>,
}

impl<S: Storage> JournalReader<S> {
    /// The next durable record that isn't committed; `None` until there is one. Reads from the file
    /// system.
    ///
    /// # Errors
    /// [`JournalError`] when it can't be read, or isn't whole any more.
    #[allow(clippy::should_implement_trait)] // after `None` there may be more
    pub fn next(&mut self) -> Result<Option<Record>, JournalError> {
        self.reader.next(|lsn| self.shared.lock().state.place_of(lsn))
    }

    /// The LSN that it reads next.
    #[must_use]
    pub const fn next_lsn(&self) -> Lsn {
        self.reader.next_lsn()
    }
}

/// Writes until the end.
fn run<S: Storage>(
    shared: &Shared,
    mut writer: Writer<S>,
    mut on_durable: OnDurable,
) -> Result<(), JournalError> {
    let _end = End(shared);
    serve(shared, &mut writer, &mut on_durable)
}

/// The end of the writing thread, however it comes: nobody may wait for it any more.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().state.fail();
        self.0.progress.notify_all();
        self.0.room.notify_all();
    }
}

fn serve<S: Storage>(
    shared: &Shared,
    writer: &mut Writer<S>,
    on_durable: &mut OnDurable,
) -> Result<(), JournalError> {
    let mut inner = shared.lock();
    let room_bytes = inner.state.room_bytes();
    loop {
        if !inner.state.has_room() {
            drop(inner);
            let has_room = writer.has_room(room_bytes);
            inner = shared.lock();
            inner.state.set_room(has_room);
        }
        // Not before: it may have been told meanwhile, and isn't told again.
        if inner.stop == Stop::Abandon {
            return Ok(());
        }
        if let Some(batch) = inner.state.take_batch() {
            drop(inner);
            shared.room.notify_all();
            let written = batch.written();
            writer.carry_out(batch)?;
            let has_room = writer.has_room(room_bytes);
            inner = shared.lock();
            inner.state.written(written);
            inner.state.set_room(has_room);
            let durable = inner.state.usage().durable;
            shared.durable.store(durable.0, Ordering::Release);
            drop(inner);
            shared.progress.notify_all();
            on_durable(durable);
        } else if let Some(segment) = inner.state.removable().cloned() {
            drop(inner);
            writer.remove(&segment)?;
            shared.lock().state.forget(segment.number);
        } else if inner.stop == Stop::Close {
            return writer.close(&mut inner.state);
        } else if inner.state.has_room() {
            inner = Shared::wait(&shared.work, inner);
            continue;
        } else {
            // Nobody tells that somebody else has made room.
            let waited = shared.work.wait_timeout(inner, ROOM_INTERVAL);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        inner = shared.lock();
    }
}
