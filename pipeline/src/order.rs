//! That the records of each stream come to its log one after another: none is missing, none comes
//! twice, no piece of one either.
//!
//! A second guard, beside the session's own numbering: a unit that were lost anywhere between the
//! session and the pack would otherwise be acknowledged with those behind it. It can only be a mistake
//! of this program's; yet it ends the stream rather than the process, for the others' are whole, and
//! what the agent sends again from its last committed record on is, too.
//!
//! Memory: one entry for each stream of which something may still come.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_model::{Lsn, Piece};

use crate::unit::{Fault, Stream, Unit};

/// What must come next of each stream.
#[derive(Default)]
pub(crate) struct Order(BTreeMap<u64, (Arc<Stream>, Next)>);

/// The record that must come next, and the piece of it.
type Next = (Lsn, u16);

impl Order {
    /// A unit is about to be packed. Gives what is wrong if its records aren't the next of its stream.
    pub(crate) fn check(&mut self, unit: &Unit) -> Result<(), Fault> {
        let next = self.next_of(&unit.stream);
        for outcome in &unit.outcomes {
            let (expected, found) = (*next, (outcome.lsn, outcome.piece.number));
            if found != expected {
                return Err(Fault::Gap { expected: expected.0, found: found.0 });
            }
            *next = if Piece::is_last(outcome.piece) {
                (outcome.lsn.next(), 0)
            } else {
                (outcome.lsn, outcome.piece.number.saturating_add(1))
            };
        }
        Ok(())
    }

    /// Nothing of this stream is checked any more.
    pub(crate) fn forget(&mut self, stream: &Stream) {
        self.0.remove(&stream.id);
    }

    fn next_of(&mut self, stream: &Arc<Stream>) -> &mut Next {
        if !self.0.contains_key(&stream.id) {
            // Who is alone in holding a stream waits for no more of its units.
            self.0.retain(|_, (stream, _)| Arc::strong_count(stream) > 1);
        }
        let begin = || (stream.clone(), (stream.committed.next(), 0));
        &mut self.0.entry(stream.id).or_insert_with(begin).1
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::{Epoch, Micros};

    use super::*;
    use crate::unit::{Blanks, Entry, EntryKind, UnitBuilder};

    fn unit(id: u64) -> Unit {
        let machine = "m".parse().unwrap();
        let stream = Stream { machine, epoch: Epoch(1), id, committed: Lsn::NONE };
        let mut builder = UnitBuilder::new(Arc::new(stream), 4096, Blanks::new(1));
        let entry = Entry { lsn: Lsn(1), time: Micros(1), kind: EntryKind::Time };
        builder.add(entry, || Micros(1));
        builder.close(false).unwrap()
    }

    #[test]
    fn streams_of_which_nothing_comes_any_more_take_no_memory() {
        let mut order = Order::default();
        let lasting = unit(99);
        assert_eq!(order.check(&lasting), Ok(()));
        for id in 0..9 {
            assert_eq!(order.check(&unit(id)), Ok(()));
            assert_eq!(order.0.len(), 2, "that which lasts, and the newest");
        }
        order.forget(&lasting.stream);
        assert_eq!(Arc::strong_count(&lasting.stream), 1);
    }
}
