//! What is asked of passes, and told of them: who asks never waits for one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tidegate_model::Micros;

use super::error::MarkError;
use super::status::{LastPass, RunningPass};

/// What is asked and told. Passes are numbered from 1 on in each life of an agent.
#[derive(Debug)]
pub(super) struct Board {
    told: Mutex<Told>,
    /// The life: when it began.
    pub life: u64,
}

#[derive(Debug, Default)]
struct Told {
    /// Passes that were begun.
    begun: u64,
    /// The name of the next one, where it is asked for.
    asked: Option<String>,
    running: Option<RunningPass>,
    last: Option<LastPass>,
}

impl Board {
    /// Of a life that begins now.
    pub fn begun() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let life = u64::try_from(now.as_micros()).unwrap_or_default();
        Self { told: Mutex::default(), life }
    }

    /// Asks for a pass that begins after this, and gives its number.
    pub fn ask(&self, name: String) -> Result<u64, MarkError> {
        let mut told = self.lock();
        match &mut told.asked {
            Some(asked) if !name.is_empty() && !asked.is_empty() => return Err(MarkError::Asked),
            Some(asked) if name.is_empty() => drop(name),
            asked => *asked = Some(name),
        }
        Ok(told.begun + 1)
    }

    /// Begins a pass that is due or was asked for, and gives its number and name.
    pub fn begin(&self, is_due: bool, now: Micros) -> Option<(u64, String)> {
        let mut told = self.lock();
        if !is_due && told.asked.is_none() {
            return None;
        }
        told.begun += 1;
        let number = told.begun;
        told.running = Some(RunningPass { number, since: now });
        Some((number, told.asked.take().unwrap_or_default()))
    }

    /// The pass has ended; `None` says nothing of it.
    pub fn end(&self, last: Option<LastPass>) {
        let mut told = self.lock();
        told.running = None;
        told.last = last.or(told.last.take());
    }

    /// The pass that is being made, and the last one.
    pub fn look(&self) -> (Option<RunningPass>, Option<LastPass>) {
        let told = self.lock();
        (told.running.clone(), told.last.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // It is whole between statements, whoever panicked.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_that_is_asked_for_begins_after_that() {
        let board = Board::begun();
        assert_eq!(board.begin(false, Micros(1)), None);
        assert_eq!(board.begin(true, Micros(1)), Some((1, String::new())));
        // The first is under way, and may have passed by what the asker means.
        assert_eq!(board.ask(String::new()).unwrap(), 2);
        assert_eq!(board.ask("upgrade".to_owned()).unwrap(), 2);
        assert_eq!(board.ask(String::new()).unwrap(), 2);
        assert!(matches!(board.ask("other".to_owned()), Err(MarkError::Asked)));
        board.end(None);
        assert_eq!(board.begin(true, Micros(2)), Some((2, "upgrade".to_owned())));
        assert_eq!(board.begin(false, Micros(3)), None);
    }
}
