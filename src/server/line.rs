//! The line before a shard's units: sessions whose unit has no place yet, in the order of asking.
//!
//! Nobody overtakes, and one place wakes one session. Invariant: while there is a place and a line,
//! its first has been woken; who gets a place or leaves wakes the next.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Waker};

/// Who waits, by ticket: the lowest has waited longest.
#[derive(Default)]
pub(crate) struct Line {
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next_ticket: Cell<u64>,
}

/// A session's turn in the line; dropping it leaves the line.
pub(crate) struct Turn {
    line: Rc<Line>,
    ticket: Option<u64>,
}

impl Line {
    /// A turn, which isn't in the line yet.
    pub(crate) fn turn(self: &Rc<Self>) -> Turn {
        Turn { line: self.clone(), ticket: None }
    }

    /// There is a place: the first may try.
    pub(crate) fn wake_first(&self) {
        let waiting = self.waiting.borrow();
        if let Some((_, waker)) = waiting.first_key_value() {
            waker.wake_by_ref();
        }
    }
}

impl Turn {
    /// Whether nobody else comes first.
    pub(crate) fn is_first(&self) -> bool {
        let waiting = self.line.waiting.borrow();
        waiting.keys().next().is_none_or(|first| Some(*first) == self.ticket)
    }

    /// Joins the line, or stays in it; `context` is woken when it is first and there may be a place.
    pub(crate) fn wait(&mut self, context: &Context<'_>) {
        let ticket = self.ticket.unwrap_or_else(|| {
            self.line.next_ticket.set(self.line.next_ticket.get() + 1);
            self.line.next_ticket.get()
        });
        self.ticket = Some(ticket);
        self.line.waiting.borrow_mut().insert(ticket, context.waker().clone());
    }

    /// Leaves the line, with a place or without.
    pub(crate) fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.line.waiting.borrow_mut().remove(&ticket);
            self.line.wake_first();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn wait(turn: &mut Turn) -> Arc<Counter> {
        let counter = Arc::new(Counter::default());
        turn.wait(&Context::from_waker(&Waker::from(counter.clone())));
        counter
    }

    fn woken(counter: &Counter) -> usize {
        counter.0.load(Ordering::SeqCst)
    }

    #[test]
    fn the_first_is_woken_alone_and_its_leaving_wakes_the_next() {
        let line = Rc::new(Line::default());
        let (mut a, mut b) = (line.turn(), line.turn());
        assert!(a.is_first() && b.is_first(), "there is no line");
        let (for_a, for_b) = (wait(&mut a), wait(&mut b));
        assert!(a.is_first() && !b.is_first() && !line.turn().is_first());
        line.wake_first();
        assert_eq!((woken(&for_a), woken(&for_b)), (1, 0));
        a.leave();
        assert_eq!(woken(&for_b), 1);
        assert!(b.is_first());
    }

    #[test]
    fn who_is_dropped_while_it_waits_passes_its_turn_on() {
        let line = Rc::new(Line::default());
        let (mut a, mut b) = (line.turn(), line.turn());
        wait(&mut a);
        let for_b = wait(&mut b);
        drop(a);
        assert_eq!(woken(&for_b), 1);
        drop(b);
        assert!(line.turn().is_first());
    }

    #[test]
    fn waiting_again_keeps_the_turn_and_one_waker() {
        let line = Rc::new(Line::default());
        let (mut a, mut b) = (line.turn(), line.turn());
        let first = wait(&mut a);
        wait(&mut b);
        let second = wait(&mut a);
        line.wake_first();
        assert_eq!((woken(&first), woken(&second)), (0, 1));
        assert_eq!(line.waiting.borrow().len(), 2);
    }
}
