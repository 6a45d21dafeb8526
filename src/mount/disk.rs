//! One disk of a mounted point, as the NBD shell sees it.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_model::{Disk, Remedy};
use tidegate_nbd::limits::SPANS_SENT_MAX;
use tidegate_nbd::serve::{self, Failure, Zeroing};
use tidegate_nbd::{Errno, Span, StatusFlags};
use tidegate_vault::restore::{PointView, RestoreError};
use tokio::runtime::Handle;

use super::Overlay;
use crate::signals::Stop;

/// How long a read that is under way when the mount is stopped may still wait for the store.
const LAST_READS: Duration = Duration::from_secs(5);
/// Errors that are remembered, so that each is logged once: a guest reads again and again.
const TOLD_MAX: usize = 1000;

const HOLE: StatusFlags = StatusFlags::HOLE.with(StatusFlags::ZERO);
const DATA: StatusFlags = StatusFlags::NONE;

/// What all disks of a mount stand on.
pub(crate) struct Foundation {
    view: PointView,
    overlay: Option<Overlay>,
    runtime: Handle,
    stop: Stop,
    told: Mutex<HashSet<String>>,
}

/// A disk of a mounted point.
pub(crate) struct MountedDisk {
    on: Arc<Foundation>,
    disk: Disk,
    /// Which of the mount's disks it is.
    place: usize,
}

impl Foundation {
    /// A point, and what is written over it. Reads wait for the store on threads of the callers', and
    /// for tasks of `runtime`; when it is asked to `stop` they do no more.
    pub(crate) fn new(
        view: PointView,
        overlay: Option<Overlay>,
        runtime: Handle,
        stop: Stop,
    ) -> Arc<Self> {
        Arc::new(Self { view, overlay, runtime, stop, told: Mutex::default() })
    }

    /// Its disks, in their order.
    pub(crate) fn disks(self: &Arc<Self>) -> Vec<MountedDisk> {
        let disk = |(place, disk): (usize, &Disk)| MountedDisk {
            on: self.clone(),
            disk: disk.clone(),
            place,
        };
        self.view.disks().enumerate().map(disk).collect()
    }

    /// Makes durable what was written.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.overlay.as_ref().map_or(Ok(()), Overlay::flush)
    }

    /// Says once what can't be read.
    fn tell(&self, error: &RestoreError) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        let text = error.to_string();
        if told.contains(&text) {
            return;
        }
        if error.remedy() == Remedy::Repair {
            tracing::error!("a read of the mounted point fails: {text}");
        } else {
            tracing::warn!("a read of the mounted point fails: {text}");
        }
        told.insert(text);
    }
}

impl MountedDisk {
    /// What the point says of it.
    pub(crate) const fn disk(&self) -> &Disk {
        &self.disk
    }

    fn overlay(&self) -> Result<&Overlay, Failure> {
        let refuse = || Failure::new(Errno::NotPermitted, "it was mounted without an overlay");
        self.on.overlay.as_ref().ok_or_else(refuse)
    }

    /// The first part of a range of which the same holds: where it ends, and whether the overlay has
    /// it.
    fn run(&self, range: Range<u64>) -> (u64, Option<&Overlay>) {
        let Some(overlay) = &self.on.overlay else { return (range.end, None) };
        let (end, has) = overlay.run(self.place, range);
        (end, has.then_some(overlay))
    }

    /// Reads what the point has.
    fn read_point(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let Foundation { view, runtime, stop, .. } = &*self.on;
        let given_up = async {
            stop.asked().await;
            tokio::time::sleep(LAST_READS).await;
        };
        let read = runtime.block_on(async {
            tokio::select! {
                biased;
                read = view.read(self.disk.number, offset, into) => Some(read),
                () = given_up => None,
            }
        });
        match read {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                self.on.tell(&error);
                Err(io::Error::other(error.to_string()))
            }
            None => {
                Err(io::Error::other("the mount is being stopped, and the store doesn't answer"))
            }
        }
    }

    fn change(
        &self,
        durable: bool,
        change: impl FnOnce(&Overlay, super::overlay::Below<'_>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let overlay = self.overlay()?;
        change(overlay, &|offset, into| self.read_point(offset, into))?;
        if durable {
            overlay.flush()?;
        }
        Ok(())
    }
}

impl serve::Disk for MountedDisk {
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Failure> {
        let (mut at, end) = (offset, offset + into.len() as u64);
        let mut rest = into;
        while at < end {
            let (next, overlay) = self.run(at..end);
            let count = usize::try_from(next - at).expect("a part is no longer than its whole");
            let (part, after) = rest.split_at_mut(count);
            match overlay {
                Some(overlay) => overlay.read(self.place, at, part)?,
                None => self.read_point(at, part)?,
            }
            (at, rest) = (next, after);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Failure> {
        self.change(durable, |overlay, below| overlay.write(self.place, offset, data, below))
    }

    fn zero(&self, offset: u64, bytes: u64, how: Zeroing) -> Result<(), Failure> {
        let range = offset..offset + bytes;
        self.change(how.durable, |overlay, below| {
            overlay.zero(self.place, range, how.allocate, below)
        })
    }

    fn trim(&self, offset: u64, bytes: u64, durable: bool) -> Result<(), Failure> {
        self.zero(offset, bytes, Zeroing { durable, ..Zeroing::default() })
    }

    fn flush(&self) -> Result<(), Failure> {
        Ok(self.on.flush()?)
    }

    fn status(&self, offset: u64, bytes: u64) -> Result<Vec<Span>, Failure> {
        let (mut at, end) = (offset, offset + bytes);
        let mut spans = Vec::new();
        while at < end && spans.len() < SPANS_SENT_MAX {
            let (run, overlay) = self.run(at..end);
            let Some(overlay) = overlay else {
                let stretches = self.on.view.stretches(self.disk.number, at, run - at);
                for stretch in stretches.take(SPANS_SENT_MAX - spans.len()) {
                    let flags = if stretch.is_zero { HOLE } else { DATA };
                    at = stretch.offset + stretch.length;
                    add(&mut spans, stretch.length, flags);
                }
                continue;
            };
            while at < run && spans.len() < SPANS_SENT_MAX {
                let (next, is_hole) = overlay.stretch(self.place, at..run)?;
                add(&mut spans, next - at, if is_hole { HOLE } else { DATA });
                at = next;
            }
        }
        Ok(spans)
    }
}

/// Adds a span, to the last one where that is of its kind.
fn add(spans: &mut Vec<Span>, length: u64, flags: StatusFlags) {
    match spans.last_mut() {
        Some(last) if last.flags == flags => last.length += length,
        _ => spans.push(Span { length, flags }),
    }
}
