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

    fn next_of(&mut self, stream: &Arc<Stream>) -> &mut Next {
        if !self.0.contains_key(&stream.id) {
            // Who is alone in holding a stream waits for no more of its units.
            self.0.retain(|_, (stream, _)| Arc::strong_count(stream) > 1);
        }
        let begin = || (stream.clone(), (stream.committed.next(), 0));
        &mut self.0.entry(stream.id).or_insert_with(begin).1
    }
}
