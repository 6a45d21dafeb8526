//! A client of a tapped disk: one write after another, by a schedule.

use std::io::{self, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use tidegate_nbd::{CommandFlags, CommandKind, Cookie, OptionHeader, Request};

use super::WRITE_BYTES;

/// `NBD_FLAG_FIXED_NEWSTYLE` and `NBD_FLAG_NO_ZEROES`.
const CLIENT_FLAGS: u32 = 3;
/// `NBD_OPT_EXPORT_NAME`: the shortest way to an export.
const EXPORT_NAME: u32 = 1;
/// The export of an agent's first disk.
const EXPORT: &[u8] = b"disk-0";
/// Bytes of the greeting, and of the answer to the name.
const ANSWER_BYTES: usize = 18 + 10;
/// A disk that doesn't answer for so long is broken.
const LIMIT: Duration = Duration::from_secs(60);
/// What of each write doesn't compress.
const RANDOM_BYTES: usize = WRITE_BYTES as usize / 2;

/// A write: when it was to be sent, and when it was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    pub due: Instant,
    pub answered: Instant,
}

/// A connection to the disk.
pub(super) struct Client {
    stream: UnixStream,
    blocks: u64,
    chance: u64,
}

impl Client {
    pub(super) fn open(disk: &Path, disk_bytes: u64, number: usize) -> io::Result<Self> {
        let mut stream = UnixStream::connect(disk)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let mut hello = CLIENT_FLAGS.to_be_bytes().to_vec();
        let length = u32::try_from(EXPORT.len()).unwrap_or(u32::MAX);
        OptionHeader { code: EXPORT_NAME, length }.encode(&mut hello);
        hello.extend_from_slice(EXPORT);
        stream.write_all(&hello)?;
        stream.read_exact(&mut [0; ANSWER_BYTES])?;
        Ok(Self { stream, blocks: disk_bytes / u64::from(WRITE_BYTES), chance: number as u64 })
    }

    /// Writes from `due` on each `interval`, at places in no order, as long as it is before `until`.
    pub(super) fn play(
        mut self,
        mut due: Instant,
        interval: Duration,
        until: Instant,
    ) -> io::Result<Vec<Write>> {
        let mut writes = Vec::new();
        let mut data = vec![1; WRITE_BYTES as usize];
        while due < until {
            let now = Instant::now();
            if now < due {
                std::thread::sleep(due - now);
            }
            for piece in data[..RANDOM_BYTES].chunks_mut(8) {
                piece.copy_from_slice(&self.next().to_le_bytes());
            }
            let block = self.next() % self.blocks;
            self.write(block * u64::from(WRITE_BYTES), &data)?;
            writes.push(Write { due, answered: Instant::now() });
            due += interval;
        }
        Ok(writes)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (flags, code, cookie) = (CommandFlags::NONE, CommandKind::Write as u16, Cookie(0));
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(32 + data.len());
        Request { flags, code, cookie, offset, length }.encode(&mut bytes);
        bytes.extend_from_slice(data);
        self.stream.write_all(&bytes)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        if reply[4..8] != [0; 4] {
            return Err(io::Error::other("the disk answered an error"));
        }
        Ok(())
    }

    /// SplitMix64, by Steele, Lea and Flood.
    const fn next(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
