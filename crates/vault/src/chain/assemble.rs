//! Puts the pieces of records together, as one log gives them.
//!
//! Invariant: a record's pieces follow each other in their log, with no other record of that
//! machine's epoch between them, and piece 0 begins a new attempt. So what a session left
//! unfinished never mixes with what its successor sends again, even when the successor cut the
//! same write otherwise. Memory: the pieces of one record, at most 65,535.

use tidegate_model::{Lsn, Piece};

/// The record of one machine's epoch in one log that is being put together.
#[derive(Debug, Clone)]
pub struct Assembler<T> {
    lsn: Lsn,
    count: u16,
    items: Vec<T>,
}

impl<T> Default for Assembler<T> {
    fn default() -> Self {
        Self { lsn: Lsn::NONE, count: 0, items: Vec::new() }
    }
}

impl<T> Assembler<T> {
    /// Takes the next piece of the log; gives all pieces of its record when it was the last one.
    /// A piece that doesn't follow the one before it is dropped, and so is what it interrupts.
    pub fn push(&mut self, lsn: Lsn, piece: Piece, item: T) -> Option<std::vec::Drain<'_, T>> {
        if piece.number == 0 {
            self.items.clear();
            (self.lsn, self.count) = (lsn, piece.count);
        }
        let follows = (lsn, piece.count) == (self.lsn, self.count)
            && usize::from(piece.number) == self.items.len();
        if !follows {
            *self = Self::default();
            return None;
        }
        self.items.push(item);
        if !piece.is_last() {
            return None;
        }
        (self.lsn, self.count) = (Lsn::NONE, 0);
        Some(self.items.drain(..))
    }

    /// The record whose first pieces are there, and whose last one isn't.
    pub fn open(&self) -> Option<Lsn> {
        (self.lsn != Lsn::NONE).then_some(self.lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(pieces: &[(u64, u16, u16)]) -> Vec<(u64, Vec<u16>)> {
        let mut assembler = Assembler::default();
        let mut complete = Vec::new();
        for (lsn, number, count) in pieces {
            let piece = Piece { number: *number, count: *count };
            if let Some(items) = assembler.push(Lsn(*lsn), piece, *number) {
                complete.push((*lsn, items.collect()));
            }
        }
        complete
    }

    #[test]
    fn a_record_is_complete_with_its_last_piece() {
        assert_eq!(feed(&[(1, 0, 1), (2, 0, 2)]), [(1, vec![0])]);
        assert_eq!(feed(&[(1, 0, 3), (1, 1, 3), (1, 2, 3)]), [(1, vec![0, 1, 2])]);
    }

    #[test]
    fn a_record_sent_again_doesnt_mix_with_what_was_left_of_it() {
        assert_eq!(feed(&[(1, 0, 2), (1, 0, 3), (1, 1, 3), (1, 2, 3)]), [(1, vec![0, 1, 2])]);
        assert_eq!(feed(&[(1, 0, 3), (1, 1, 3), (1, 0, 2), (1, 1, 2)]), [(1, vec![0, 1])]);
    }

    #[test]
    fn pieces_without_their_beginning_count_for_nothing() {
        assert_eq!(feed(&[(1, 1, 2)]), []);
        assert_eq!(feed(&[(1, 0, 3), (1, 2, 3)]), []);
        assert_eq!(feed(&[(1, 0, 2), (2, 1, 2)]), []);
        assert_eq!(feed(&[(1, 0, 2), (1, 1, 3)]), []);
        assert_eq!(feed(&[(1, 0, 2), (1, 1, 2), (1, 1, 2)]), [(1, vec![0, 1])]);
    }

    #[test]
    fn a_record_is_open_from_its_first_piece_to_its_last() {
        let mut assembler = Assembler::default();
        let mut after = |lsn, number, count| {
            assembler.push(Lsn(lsn), Piece { number, count }, ());
            assembler.open()
        };
        assert_eq!(after(1, 1, 2), None);
        assert_eq!((after(1, 0, 2), after(1, 1, 2)), (Some(Lsn(1)), None));
        assert_eq!((after(2, 0, 3), after(3, 0, 1)), (Some(Lsn(2)), None));
        assert_eq!((after(4, 0, 3), after(4, 2, 3)), (Some(Lsn(4)), None));
    }
}
