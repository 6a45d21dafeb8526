//! zstd as a worker uses it: one context, any level, no allocation once it has grown.
//!
//! Its memory is a term of the plan ([`COMPRESSOR_BYTES`]): what zstd would take beyond that for long
//! frames at high levels is cut off here.

use tidegate_model::limits::FRAME_BYTES_DEFAULT;
use zstd::zstd_safe::{CCtx, CParameter, get_error_name};

/// What a compressor takes at most, at any level up to `LEVEL_MAX` and any length of frame.
pub(crate) const COMPRESSOR_BYTES: usize = 6 << 20;
/// Log2 of the entries of its tables for long frames. zstd's own choice for 4 MiB rises to 23 at level
/// 12, which is 41 MiB a core; this is what it takes itself at levels 7 and 8.
const LONG_TABLE_LOG: u32 = 20;
/// The levels from which zstd would take more.
const CUT_FROM_LEVEL: i32 = 9;

/// The compressor can't be made: the system has no memory for it.
pub type CompressorError = std::io::Error;

/// Compresses frames.
pub(crate) struct Compressor {
    context: CCtx<'static>,
    level: i32,
    /// Whether its tables are cut to [`LONG_TABLE_LOG`].
    is_cut: bool,
}

impl Compressor {
    /// A compressor at this level.
    ///
    /// # Errors
    /// When zstd refuses the level or has no memory.
    pub(crate) fn new(level: i32) -> Result<Self, CompressorError> {
        // Without the layer above, whose errors are allocated: data that doesn't shrink is one.
        let context = CCtx::try_create().ok_or(std::io::ErrorKind::OutOfMemory)?;
        let mut compressor = Self { context, level, is_cut: false };
        compressor.set(CParameter::CompressionLevel(level))?;
        Ok(compressor)
    }

    /// Compresses at this level from now on; at the last one if zstd refuses it.
    pub(crate) fn set_level(&mut self, level: i32) {
        if level != self.level && self.set(CParameter::CompressionLevel(level)).is_ok() {
            self.level = level;
        }
    }

    /// Compresses `input` into `output` and gives how long it became; `None` when it doesn't fit.
    pub(crate) fn compress(&mut self, output: &mut [u8], input: &[u8]) -> Option<usize> {
        let is_long = input.len() > FRAME_BYTES_DEFAULT as usize;
        self.cut_tables(is_long && self.level >= CUT_FROM_LEVEL)?;
        self.context.compress2(output, input).ok()
    }

    /// Cuts the tables, or lets zstd choose them again: for less it chooses smaller ones.
    fn cut_tables(&mut self, cut: bool) -> Option<()> {
        if std::mem::replace(&mut self.is_cut, cut) != cut {
            // 0 is zstd's word for its own choice.
            let log = if cut { LONG_TABLE_LOG } else { 0 };
            self.set(CParameter::HashLog(log)).ok()?;
            self.set(CParameter::ChainLog(log)).ok()?;
        }
        Some(())
    }

    fn set(&mut self, parameter: CParameter) -> Result<(), CompressorError> {
        let set = self.context.set_parameter(parameter);
        set.map(drop).map_err(|code| std::io::Error::other(get_error_name(code)))
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::limits::{FRAME_BYTES_MAX, LEVEL_MAX, LEVEL_MIN};

    use super::*;

    /// Bytes that shrink, by repetition and by their distribution.
    fn shrinking(bytes: usize) -> Vec<u8> {
        let word = |n: usize| (n as u64 / 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..bytes).map(|n| word(n).to_be_bytes()[0] >> 3).collect()
    }

    #[test]
    fn no_level_and_no_frame_takes_more_memory_than_is_planned() {
        let input = shrinking(FRAME_BYTES_MAX as usize);
        let mut output = vec![0; input.len()];
        let mut plain = vec![0; input.len()];
        for level in LEVEL_MIN..=LEVEL_MAX {
            let mut compressor = Compressor::new(level).unwrap();
            for bytes in [FRAME_BYTES_DEFAULT as usize, input.len(), 100, input.len() / 4] {
                let length = compressor.compress(&mut output, &input[..bytes]).unwrap();
                let got = zstd::bulk::decompress_to_buffer(&output[..length], &mut plain).unwrap();
                assert!(plain[..got] == input[..bytes], "level {level}");
            }
            let taken = compressor.context.sizeof();
            assert!(taken <= COMPRESSOR_BYTES, "level {level} takes {taken}");
        }
    }
}
