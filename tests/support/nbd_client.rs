//! An NBD client by hand, in the oldest form of the protocol that every server must know: one
//! connection that reads and writes, never flushes, and learns of each read whether it failed.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection that doesn't answer for so long is a failure of the test.
const LIMIT: Duration = Duration::from_secs(60);
/// `NBD_OPT_EXPORT_NAME`.
const EXPORT_NAME: u32 = 1;
/// `NBD_FLAG_FIXED_NEWSTYLE` and `NBD_FLAG_NO_ZEROES`.
const CLIENT_FLAGS: u32 = 3;
const REQUEST_MAGIC: u32 = 0x2560_9513;
/// `NBD_CMD_READ` and `NBD_CMD_WRITE`.
const READ: u16 = 0;
const WRITE: u16 = 1;

/// A connection to one export.
pub struct NbdClient {
    stream: UnixStream,
    /// The export's size.
    pub bytes: u64,
    /// What the server says of it.
    pub flags: u16,
}

impl NbdClient {
    /// `NBD_FLAG_READ_ONLY`.
    pub const READ_ONLY: u16 = 2;

    #[track_caller]
    pub fn connect(socket: &Path, export: &str) -> Self {
        Self::try_connect(socket, export).expect("the server takes a client")
    }

    fn try_connect(socket: &Path, export: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        assert_eq!(greeting[..16], *b"NBDMAGICIHAVEOPT");
        let mut hello = CLIENT_FLAGS.to_be_bytes().to_vec();
        hello.extend(b"IHAVEOPT");
        hello.extend(EXPORT_NAME.to_be_bytes());
        hello.extend(u32::try_from(export.len()).expect("a short name").to_be_bytes());
        hello.extend(export.as_bytes());
        stream.write_all(&hello)?;
        let mut answer = [0; 10];
        stream.read_exact(&mut answer)?;
        let (bytes, flags) = answer.split_at(8);
        let bytes = u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        let flags = u16::from_be_bytes(flags.try_into().expect("two bytes"));
        Ok(Self { stream, bytes, flags })
    }

    /// Reads; the error is the server's number for it.
    #[track_caller]
    pub fn read(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, u32> {
        self.try_read(offset, length).expect("the connection goes on")
    }

    /// Writes, which must succeed; nothing is asked to be durable.
    #[track_caller]
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let answer = self.ask(WRITE, offset, data.len(), data).expect("the connection goes on");
        assert_eq!(answer, 0, "a write of {} bytes at {offset} failed", data.len());
    }

    fn try_read(&mut self, offset: u64, length: usize) -> io::Result<Result<Vec<u8>, u32>> {
        let error = self.ask(READ, offset, length, &[])?;
        if error != 0 {
            return Ok(Err(error));
        }
        let mut data = vec![0; length];
        self.stream.read_exact(&mut data)?;
        Ok(Ok(data))
    }

    /// Sends a request and gives the error in its reply, 0 for none.
    fn ask(&mut self, command: u16, offset: u64, length: usize, data: &[u8]) -> io::Result<u32> {
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend([0; 2]);
        request.extend(command.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(u32::try_from(length).expect("a short range").to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        assert_eq!(reply[8..], offset.to_be_bytes(), "the answer is another request's");
        Ok(u32::from_be_bytes(reply[4..8].try_into().expect("four bytes")))
    }
}
