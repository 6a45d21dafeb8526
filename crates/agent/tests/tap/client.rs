//! An NBD client that keeps several commands under way.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tidegate_nbd::{CommandFlags, CommandKind, Cookie, Errno, OptionHeader, ReplyHeader, Request};

use crate::chance::{Chance, Op};

pub struct Client {
    socket: UnixStream,
    under_way: usize,
}

impl Client {
    /// Chooses an export, without structured replies.
    pub fn connect(path: &Path, export: &str) -> io::Result<Self> {
        let mut socket = UnixStream::connect(path)?;
        let mut bytes = 3_u32.to_be_bytes().to_vec();
        let length = u32::try_from(export.len()).unwrap();
        OptionHeader { code: 1, length }.encode(&mut bytes);
        bytes.extend_from_slice(export.as_bytes());
        socket.write_all(&bytes)?;
        socket.read_exact(&mut [0; 18 + 10])?;
        Ok(Self { socket, under_way: 0 })
    }

    pub fn send(&mut self, op: &Op) -> io::Result<()> {
        let flags = match op.kind {
            CommandKind::Flush => CommandFlags::NONE,
            _ if op.durable => CommandFlags::FUA,
            _ => CommandFlags::NONE,
        };
        let length = u32::try_from(op.bytes).unwrap();
        let (code, cookie, offset) = (op.kind as u16, Cookie(0), op.offset);
        let mut bytes = Vec::new();
        Request { flags, code, cookie, offset, length }.encode(&mut bytes);
        bytes.extend_from_slice(&op.data);
        self.socket.write_all(&bytes)?;
        self.under_way += 1;
        Ok(())
    }

    pub fn reply(&mut self) -> io::Result<Option<Errno>> {
        let mut bytes = [0; 16];
        self.socket.read_exact(&mut bytes)?;
        self.under_way -= 1;
        match ReplyHeader::decode(&mut &bytes[..]) {
            Ok(Some(ReplyHeader::Simple { error, .. })) => Ok(error),
            other => panic!("{other:?} is no simple reply"),
        }
    }

    /// Waits until nothing is under way.
    pub fn settle(&mut self) -> io::Result<()> {
        while self.under_way > 0 {
            assert_eq!(self.reply()?, None);
        }
        Ok(())
    }

    /// Writes, and waits for the reply.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (kind, data, bytes) = (CommandKind::Write, data.to_vec(), data.len() as u64);
        self.send(&Op { kind, offset, data, bytes, durable: false })?;
        self.settle()
    }

    /// Does `count` random things to the disk, up to `depth` at once. An error is the server's end.
    pub fn play(
        &mut self,
        chance: &mut Chance,
        count: u64,
        bytes: u64,
        depth: usize,
    ) -> io::Result<()> {
        for _ in 0..count {
            while self.under_way >= depth {
                assert_eq!(self.reply()?, None);
            }
            self.send(&Op::any(chance, bytes))?;
        }
        self.settle()
    }
}
