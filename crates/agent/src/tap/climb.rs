//! Back from the bitmap: dirty blocks are captured, in order, until there are none.
//!
//! As long as it goes on new changes are recorded again, also those of blocks that are dirty still, so
//! nothing becomes dirty meanwhile and it ends, whatever the clients write.

use std::ops::Range;
use std::sync::atomic::Ordering;

use tidegate_hrl::journal::AppendError;
use tidegate_hrl::storage::Storage;
use tracing::info;

use super::marks::BLOCK_BYTES;
use super::state::{Climb, Gap, Mode, TapState};
use super::{CAPTURE_BYTES_MAX, CaptureError, Tap};

impl<S: Storage> Tap<S> {
    /// How the tap is.
    #[must_use]
    pub fn state(&self) -> TapState {
        let since = self.history().gap;
        let mode = if since.is_some() { Mode::Bitmap } else { Mode::Data };
        TapState { mode, dirty_bytes: self.dirty_bytes(), since }
    }

    /// In bitmap mode, captures dirty blocks, some `bytes_max` of them, and returns to data mode with
    /// the last one. Blocks. Called again and again, while the journal has room.
    ///
    /// # Errors
    /// [`CaptureError`] when a block can't be read.
    pub fn climb(&self, bytes_max: u64) -> Result<Climb, CaptureError> {
        if !self.begin_climb() {
            return Ok(Climb::Data);
        }
        let mut left = bytes_max;
        loop {
            if !self.history().climbing {
                // A client's change found no room.
                return Ok(Climb::Full { dirty_bytes: self.dirty_bytes() });
            }
            let Some(range) = self.marks.next_dirty(0, left.min(CAPTURE_BYTES_MAX)) else {
                // The record that names the gap is durable before the marks forget it.
                if self.journal.wait_durable(self.journal.usage().last).is_err() {
                    self.end_climb();
                    return Ok(Climb::Full { dirty_bytes: self.dirty_bytes() });
                }
                if let Some(gap) = self.end_gap() {
                    return Ok(Climb::Done(gap));
                }
                continue;
            };
            if left == 0 {
                return Ok(Climb::Further { dirty_bytes: self.dirty_bytes() });
            }
            match self.climb_over(&range) {
                Ok(()) => left = left.saturating_sub(range.end - range.start),
                Err(error) => {
                    self.end_climb();
                    return match error {
                        CaptureError::Journal(_) => {
                            Ok(Climb::Full { dirty_bytes: self.dirty_bytes() })
                        }
                        error => Err(error),
                    };
                }
            }
        }
    }

    /// Captures dirty blocks, which are clean then.
    fn climb_over(&self, range: &Range<u64>) -> Result<(), CaptureError> {
        let _held = self.ranges.lock(range.clone());
        // Until the record is durable, the mark says what the bit did.
        let slot = self.mark(range).ok_or(CaptureError::Journal(AppendError::Ended))?;
        match self.append_as_found(range) {
            Ok(captured) => {
                self.marks.clean(range);
                self.slots.recorded(captured.last, slot);
                Ok(())
            }
            Err(error) => {
                self.slots.free(&self.marks, slot);
                Err(error)
            }
        }
    }

    /// Whether there is something to climb back from.
    fn begin_climb(&self) -> bool {
        let mut history = self.history();
        history.climbing = history.gap.is_some();
        self.recording.store(true, Ordering::Release);
        history.climbing
    }

    fn end_climb(&self) {
        let mut history = self.history();
        history.climbing = false;
        self.recording.store(history.gap.is_none(), Ordering::Release);
    }

    /// Ends the gap, unless blocks became dirty meanwhile.
    fn end_gap(&self) -> Option<Gap> {
        let mut history = self.history();
        if self.marks.dirty_blocks() > 0 || !history.climbing {
            return None;
        }
        let start = history.gap.take()?;
        history.climbing = false;
        self.marks.set_gap(None);
        let (end, time) = (self.journal.usage().last, (self.clock)());
        info!("disk {}: every change is recorded again, from LSN {end} on", self.disk);
        Some(Gap { disk: self.disk, start, end, time })
    }

    fn dirty_bytes(&self) -> u64 {
        self.backing.bytes().min(self.marks.dirty_blocks() * BLOCK_BYTES)
    }
}
