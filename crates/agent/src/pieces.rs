//! Cutting a range into what the journal's records hold.

use tidegate_model::is_zero;
use tidegate_model::limits::RECORD_BYTES_DEFAULT;

/// Most bytes of data in a record: what servers take in one, and a block. Pieces end at its multiples,
/// so that whole blocks stay whole and can be deduplicated.
const PIECE_BYTES: u64 = RECORD_BYTES_DEFAULT as u64;

/// A part of a range, as one record holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Data { offset: u64, data: &'a [u8] },
    Zero { offset: u64, bytes: u64 },
}

/// The pieces of `data` at `offset`, in order. Neighbours that are zero are one.
pub(crate) fn pieces(offset: u64, data: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let mut parts = parts(offset, data).peekable();
    std::iter::from_fn(move || {
        let (offset, data) = parts.next()?;
        if !is_zero(data) {
            return Some(Piece::Data { offset, data });
        }
        let mut bytes = data.len() as u64;
        while let Some((_, next)) = parts.next_if(|(_, next)| is_zero(next)) {
            bytes += next.len() as u64;
        }
        Some(Piece::Zero { offset, bytes })
    })
}

/// Cut at the multiples of a piece.
fn parts(mut offset: u64, mut data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        let room = PIECE_BYTES - offset % PIECE_BYTES;
        let count = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
        let (part, rest) = data.split_at(count);
        let at = offset;
        offset += count as u64;
        data = rest;
        (!part.is_empty()).then_some((at, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = RECORD_BYTES_DEFAULT as usize;

    #[test]
    fn pieces_end_at_blocks_and_neighbouring_zeros_are_one() {
        let mut data = vec![0; 5 * PIECE];
        data[..PIECE].fill(1);
        data[4 * PIECE] = 1;
        let offset = 100 * PIECE_BYTES - 10;
        let found: Vec<Piece> = pieces(offset, &data).collect();
        let at = |piece: u64| (99 + piece) * PIECE_BYTES;
        let (first, rest) = data.split_at(10);
        assert_eq!(
            found,
            [
                Piece::Data { offset, data: first },
                Piece::Data { offset: at(1), data: &rest[..PIECE] },
                Piece::Zero { offset: at(2), bytes: 2 * PIECE_BYTES },
                Piece::Data { offset: at(4), data: &rest[3 * PIECE..4 * PIECE] },
                Piece::Zero { offset: at(5), bytes: PIECE_BYTES - 10 },
            ]
        );
        assert_eq!(pieces(7, &[0; 3]).collect::<Vec<_>>(), [Piece::Zero { offset: 7, bytes: 3 }]);
        assert_eq!(pieces(7, &[]).count(), 0);
    }
}
