//! The disk as NBD clients have it.
//!
//! A flush makes the disk durable, and says nothing of the journal: where the host crashes before the
//! journal is durable, the disk is captured anew; where only the process is killed, the marks say what
//! is missing.

use tidegate_hrl::storage::Storage;
use tidegate_nbd::serve::{Disk, Failure, Zeroing};
use tidegate_nbd::{BlockSizes, Export, ExportError, Span, TransmissionFlags};

use super::Tap;
use super::backing::Applied;
use super::record::Content;

/// What the tap does.
const FLAGS: TransmissionFlags = TransmissionFlags::FLUSH
    .with(TransmissionFlags::FUA)
    .with(TransmissionFlags::TRIM)
    .with(TransmissionFlags::WRITE_ZEROES)
    .with(TransmissionFlags::MULTI_CONN);

impl<S: Storage> Tap<S> {
    /// What to offer to clients.
    ///
    /// # Errors
    /// [`ExportError`] where the protocol can't carry it.
    pub fn export(&self, name: &str) -> Result<Export, ExportError> {
        Export::new(name, self.bytes(), FLAGS, BlockSizes::default())
    }
}

impl<S: Storage + Send + Sync> Disk for Tap<S>
where
    S::File: Send + Sync,
{
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Failure> {
        Ok(self.backing.read(offset, into)?)
    }

    fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Failure> {
        let range = offset..offset + data.len() as u64;
        self.change(&range, Content::Data(data), |backing| {
            backing.write(offset, data)?;
            if durable {
                backing.sync()?;
            }
            Ok(Applied::Changed)
        })
    }

    fn zero(&self, offset: u64, bytes: u64, how: Zeroing) -> Result<(), Failure> {
        let range = offset..offset + bytes;
        self.change(&range, Content::Zeros, |backing| {
            backing.zero(&range, how.allocate)?;
            if how.durable {
                backing.sync()?;
            }
            Ok(Applied::Changed)
        })
    }

    fn trim(&self, offset: u64, bytes: u64, durable: bool) -> Result<(), Failure> {
        let range = offset..offset + bytes;
        self.change(&range, Content::Zeros, |backing| {
            let applied = backing.trim(&range)?;
            if durable {
                backing.sync()?;
            }
            Ok(applied)
        })
    }

    fn flush(&self) -> Result<(), Failure> {
        Ok(self.backing.sync()?)
    }

    fn status(&self, offset: u64, bytes: u64) -> Result<Vec<Span>, Failure> {
        Ok(self.backing.spans(&(offset..offset + bytes)))
    }
}
