//! Questions by hashes on their way: whoever compares disks asks, on a thread of its own; sessions carry
//! that to servers, one connection after the other, and bring the answers back.
//!
//! A question stays here until it has its answer: what a connection left open is asked again on the
//! next. Where the next server answers nothing, or compares blocks of another size, everything that is open
//! is needed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_wire::{Hashes, Have};
use tokio::sync::Notify;

/// Questions of one incarnation.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    state: Mutex<State>,
    /// There is an answer, or it is known whether there are any.
    answered: Condvar,
    /// There is something to send.
    asked: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// How the last server answers; none before there was one.
    answers: Option<Answers>,
    /// Those without an answer, the oldest first.
    open: VecDeque<Hashes>,
    /// So many of them went over this connection.
    sent: usize,
    /// Answers that nobody has taken.
    done: VecDeque<Have>,
    /// How many servers gave.
    given: u64,
}

/// Whether a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// It does, for blocks of so many bytes.
    Blocks(u64),
    /// It doesn't.
    None,
}

impl Questions {
    /// How the last server answers, if that is known within `limit`.
    pub(crate) fn answers(&self, limit: Duration) -> Option<Answers> {
        let waited =
            self.answered.wait_timeout_while(self.lock(), limit, |state| state.answers.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.answers
    }

    /// Asks.
    pub(crate) fn ask(&self, question: Hashes) {
        let mut state = self.lock();
        match state.answers {
            // The server is another than the one for which it was made up: it isn't asked.
            Some(answers) if answers != Answers::Blocks(block_bytes(&question)) => {
                state.done.push_back(Have { extent: question.extent, blocks: 0 });
                self.answered.notify_all();
            }
            _ => {
                state.open.push_back(question);
                self.asked.notify_one();
            }
        }
    }

    /// The next answer, in the order of asking, if there is one within `limit`.
    pub(crate) fn answer(&self, limit: Duration) -> Option<Have> {
        let waited =
            self.answered.wait_timeout_while(self.lock(), limit, |state| state.done.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.done.pop_front()
    }

    /// A session is open, with a server that answers so.
    pub(super) fn welcomed(&self, answers: Answers) {
        let mut state = self.lock();
        state.sent = 0;
        state.answers = Some(answers);
        let State { open, done, .. } = &mut *state;
        if !open.iter().all(|question| answers == Answers::Blocks(block_bytes(question))) {
            let needed = |question: Hashes| Have { extent: question.extent, blocks: 0 };
            done.extend(open.drain(..).map(needed));
        }
        self.answered.notify_all();
        self.asked.notify_one();
    }

    /// The next to be sent on this connection; waits for it. Dropping the future loses nothing.
    pub(super) async fn next(&self) -> Hashes {
        loop {
            if let Some(question) = self.take() {
                return question;
            }
            self.asked.notified().await;
        }
    }

    fn take(&self) -> Option<Hashes> {
        let mut state = self.lock();
        let question = state.open.get(state.sent).cloned()?;
        state.sent += 1;
        Some(question)
    }

    /// How many questions servers have answered.
    pub(super) fn given(&self) -> u64 {
        self.lock().given
    }

    /// A server answered the oldest.
    pub(super) fn answered(&self, have: Have) {
        let mut state = self.lock();
        if state.open.pop_front().is_some() {
            state.sent = state.sent.saturating_sub(1);
            state.done.push_back(have);
            state.given += 1;
        }
        self.answered.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // It is whole between statements, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The size of the blocks that a question is about.
fn block_bytes(question: &Hashes) -> u64 {
    question.extent.length / (question.hashes.len() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use tidegate_model::Extent;

    use super::*;

    const BLOCK: u64 = 65_536;
    const SOON: Duration = Duration::ZERO;

    fn question(block: u64) -> Hashes {
        let extent = Extent { disk: Default::default(), offset: block * BLOCK, length: BLOCK };
        Hashes { extent, hashes: vec![[1; 32]] }
    }

    fn have(block: u64, blocks: u128) -> Have {
        Have { extent: question(block).extent, blocks }
    }

    #[test]
    fn what_a_connection_left_open_is_asked_again_on_the_next() {
        let questions = Questions::default();
        assert_eq!(questions.answers(SOON), None);
        (0..3).for_each(|block| questions.ask(question(block)));
        questions.welcomed(Answers::Blocks(BLOCK));
        assert_eq!(questions.answers(SOON), Some(Answers::Blocks(BLOCK)));
        assert_eq!(
            (0..2).map(|_| questions.take()).collect::<Vec<_>>(),
            [0, 1].map(|at| Some(question(at)))
        );
        questions.answered(have(0, 1));
        assert_eq!(questions.answer(SOON), Some(have(0, 1)));
        assert_eq!(questions.answer(SOON), None);
        questions.welcomed(Answers::Blocks(BLOCK));
        let asked: Vec<_> = std::iter::from_fn(|| questions.take()).collect();
        assert_eq!(asked, [question(1), question(2)]);
    }

    #[test]
    fn where_nobody_answers_everything_is_needed() {
        let questions = Questions::default();
        (0..2).for_each(|block| questions.ask(question(block)));
        questions.welcomed(Answers::None);
        assert_eq!(questions.take(), None);
        assert_eq!([0, 1].map(|_| questions.answer(SOON)), [0, 1].map(|at| Some(have(at, 0))));
    }

    #[test]
    fn what_was_answered_before_nobody_answers_any_more_comes_first() {
        let questions = Questions::default();
        (0..3).for_each(|block| questions.ask(question(block)));
        questions.welcomed(Answers::Blocks(BLOCK));
        assert_eq!(questions.take(), Some(question(0)));
        questions.answered(have(0, 1));
        questions.welcomed(Answers::None);
        let answers = [0, 1, 2].map(|_| questions.answer(SOON));
        assert_eq!(answers, [have(0, 1), have(1, 0), have(2, 0)].map(Some));
    }

    #[test]
    fn where_other_blocks_are_compared_what_is_open_is_needed() {
        let questions = Questions::default();
        questions.welcomed(Answers::Blocks(BLOCK));
        questions.ask(question(4));
        questions.welcomed(Answers::Blocks(2 * BLOCK));
        assert_eq!(questions.take(), None);
        assert_eq!(questions.answer(SOON), Some(have(4, 0)));
    }
}
