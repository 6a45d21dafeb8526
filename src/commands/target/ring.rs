//! Writes through io_uring: one thread's way to a target, which opens the next frame while the
//! kernel writes the last ones.
//!
//! A buffer belongs to its slot from the moment it is given until the kernel has completed all of
//! its writes; only then is it given out again. Dropping the writer waits for them.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};
use tidegate_vault::restore::{Part, WriteError, Writer};

use super::Target;

/// Writes on their way at once: a frame may be scattered over a disk, and a disk works best with
/// many.
const DEPTH: usize = 64;

/// A thread's writes to a target. It must be used on the thread that made it.
pub(super) struct RingWriter<'t> {
    target: &'t Target,
    ring: IoUring,
    free: Vec<Vec<u8>>,
    filled: Vec<Option<Filled>>,
    writes: Vec<Option<Write>>,
    in_flight: usize,
    completed: Vec<(usize, i32)>,
    failed: Option<WriteError>,
}

/// A buffer that is being written from.
struct Filled {
    bytes: Vec<u8>,
    /// Writes that aren't complete.
    left: usize,
}

/// A write on its way.
struct Write {
    /// The slot of its buffer.
    buffer: usize,
    /// What is left of it.
    part: Part,
}

impl<'t> RingWriter<'t> {
    /// A writer with so many buffers.
    pub(super) fn new(target: &'t Target, buffers: usize) -> io::Result<Self> {
        Ok(Self {
            target,
            ring: set_up()?,
            free: vec![Vec::new(); buffers],
            filled: (0..buffers).map(|_| None).collect(),
            writes: (0..DEPTH).map(|_| None).collect(),
            in_flight: 0,
            completed: Vec::with_capacity(DEPTH),
            failed: None,
        })
    }

    /// Queues what is left of a part; there is room for it.
    fn push(&mut self, buffer: usize, part: Part) -> Result<(), WriteError> {
        let refuse = |cause| WriteError { range: part.to, cause };
        let file = self.target.place(part.to.disk).map_err(refuse)?.file.as_raw_fd();
        let index = self.writes.iter().position(Option::is_none);
        let bytes = self.filled[buffer].as_ref().and_then(|filled| part.of(&filled.bytes));
        let length = bytes.and_then(|bytes| u32::try_from(bytes.len()).ok());
        let (Some(index), Some(bytes), Some(length)) = (index, bytes, length) else {
            return Err(refuse(io::Error::other("a write lies outside of its buffer")));
        };
        let write = opcode::Write::new(types::Fd(file), bytes.as_ptr(), length);
        let entry = write.offset(part.to.offset).build().user_data(index as u64);
        // SAFETY: the range lies within the buffer, whose memory belongs to its slot and is neither
        // moved, changed nor freed until this write's completion has arrived (or is leaked, see
        // drop). The target, and so the file, lives as long as this writer.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "the queue has an entry for every write");
        self.writes[index] = Some(Write { buffer, part });
        self.in_flight += 1;
        Ok(())
    }

    /// Hands what is queued to the kernel, waits until `want` writes are complete, and takes what
    /// is complete.
    fn enter(&mut self, want: usize) -> Result<(), WriteError> {
        match self.ring.submit_and_wait(want) {
            Ok(_) => {}
            // Interrupted, or the kernel is short of something that completions will free; what
            // was not taken stays queued.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
                ) => {}
            Err(cause) => {
                // With none on its way, nothing is lost.
                let lost = self.writes.iter().flatten().next();
                return lost.map_or(Ok(()), |lost| Err(WriteError { range: lost.part.to, cause }));
            }
        }
        self.collect();
        Ok(())
    }

    fn collect(&mut self) {
        let taken = self.ring.completion().map(|entry| (entry.user_data(), entry.result()));
        let of_writes = taken.filter_map(|(at, result)| Some((usize::try_from(at).ok()?, result)));
        self.completed.extend(of_writes);
        for (index, result) in std::mem::take(&mut self.completed).drain(..) {
            // Every completion is of a write that we queued.
            let Some(write) = self.writes.get_mut(index).and_then(Option::take) else { continue };
            self.in_flight -= 1;
            if let Err(error) = self.complete(&write, result) {
                self.failed.get_or_insert(error);
                self.release(write.buffer);
            }
        }
    }

    /// Takes a completed write, or queues what is left of it.
    fn complete(&mut self, write: &Write, result: i32) -> Result<(), WriteError> {
        let Write { buffer, mut part } = *write;
        let refuse = |cause| Err(WriteError { range: part.to, cause });
        match result {
            0 => return refuse(io::ErrorKind::WriteZero.into()),
            // An interrupted one is done again.
            _ if result == -libc::EINTR || result == -libc::EAGAIN => {}
            ..0 => return refuse(io::Error::from_raw_os_error(-result)),
            1.. => {
                let bytes = result.unsigned_abs();
                part.begin += bytes as usize;
                part.to.offset += u64::from(bytes);
                part.to.length = part.to.length.saturating_sub(u64::from(bytes));
            }
        }
        if part.to.length > 0 {
            return self.push(buffer, part);
        }
        self.release(buffer);
        Ok(())
    }

    /// One write of a buffer less.
    fn release(&mut self, buffer: usize) {
        let Some(filled) = &mut self.filled[buffer] else { return };
        filled.left -= 1;
        if filled.left == 0
            && let Some(filled) = self.filled[buffer].take()
        {
            self.free.push(filled.bytes);
        }
    }

    fn check(&mut self) -> Result<(), WriteError> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

impl Writer for RingWriter<'_> {
    fn buffer(&mut self) -> Result<Vec<u8>, WriteError> {
        loop {
            self.check()?;
            match self.free.pop() {
                Some(buffer) => return Ok(buffer),
                // One was given out and didn't come back: there is nothing to wait for.
                None if self.in_flight == 0 => return Ok(Vec::new()),
                None => self.enter(1)?,
            }
        }
    }

    fn write(&mut self, buffer: Vec<u8>, parts: &[Part]) -> Result<(), WriteError> {
        self.check()?;
        let Some(first) = parts.first() else {
            self.free.push(buffer);
            return Ok(());
        };
        let Some(slot) = self.filled.iter().position(Option::is_none) else {
            let cause = io::Error::other("more buffers came than there are");
            return Err(WriteError { range: first.to, cause });
        };
        self.filled[slot] = Some(Filled { bytes: buffer, left: parts.len() });
        for part in parts {
            while self.in_flight == self.writes.len() {
                self.enter(1)?;
            }
            self.push(slot, *part)?;
        }
        self.enter(0)?;
        self.check()
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        while self.in_flight > 0 {
            self.enter(1)?;
        }
        self.check()
    }
}

impl Drop for RingWriter<'_> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if self.enter(1).is_err() {
                // The kernel may still read: better to lose these buffers than to reuse them.
                std::mem::forget(std::mem::take(&mut self.filled));
                return;
            }
        }
    }
}

fn set_up() -> io::Result<IoUring> {
    let depth = u32::try_from(DEPTH).unwrap_or(u32::MAX);
    match IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(depth) {
        // Kernels before 6.1 don't know these.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(depth),
        ring => ring,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use tidegate_model::{DiskNumber, Extent};
    use tidegate_vault::MadeFolders;

    use super::super::Place;
    use super::*;

    fn number() -> DiskNumber {
        DiskNumber::try_from(0).unwrap()
    }

    fn target(path: &Path) -> Target {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let place = Place { path: path.to_path_buf(), file, starts_zero: true, partial: None };
        Target { disks: BTreeMap::from([(number(), place)]), _made: MadeFolders::default() }
    }

    fn part(begin: usize, offset: u64, length: u64) -> Part {
        Part { begin, to: Extent { disk: number(), offset, length } }
    }

    #[test]
    fn buffers_are_written_where_their_parts_belong_and_come_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let target = target(file.path());
        let mut writer = RingWriter::new(&target, 2).unwrap();
        let mut whole = vec![0; 9 * 300 * 64];
        for round in 0_u8..9 {
            let mut buffer = writer.buffer().unwrap();
            buffer.clear();
            // More parts than there is room for at once, from back to front.
            let bytes = |at: usize| [round + 1, u8::try_from(at % 251).unwrap()].repeat(32);
            buffer.extend((0..300).flat_map(bytes));
            let place = |at: usize| (usize::from(round) * 300 + 299 - at) * 64;
            let parts: Vec<_> = (0..300).map(|at| part(at * 64, place(at) as u64, 64)).collect();
            (0..300).for_each(|at| whole[place(at)..place(at) + 64].copy_from_slice(&bytes(at)));
            writer.write(buffer, &parts).unwrap();
        }
        writer.flush().unwrap();
        assert_eq!((writer.in_flight, writer.free.len()), (0, 2));
        let mut found = vec![0; whole.len()];
        target.disks[&number()].file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == whole);
    }

    #[test]
    fn a_write_that_fails_is_told_with_its_range() {
        let full = target(Path::new("/dev/full"));
        let mut writer = RingWriter::new(&full, 2).unwrap();
        let write = writer.write(vec![1; 4096], &[part(0, 512, 4096)]);
        let error = write.and_then(|()| writer.flush()).unwrap_err();
        assert_eq!(error.cause.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(error.range, part(0, 512, 4096).to);
        // A writer that failed can be dropped, and what lies outside of its buffer is no write.
        assert!(writer.write(vec![1; 10], &[part(8, 0, 4)]).is_err());
    }

    #[test]
    fn a_writer_that_is_dropped_has_written_what_it_was_given() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let target = target(file.path());
        let mut writer = RingWriter::new(&target, 1).unwrap();
        writer.write(vec![7; 1 << 20], &[part(0, 0, 1 << 20)]).unwrap();
        drop(writer);
        assert!(std::fs::read(file.path()).unwrap() == vec![7; 1 << 20]);
    }
}
