//! What a session sends, as it sees it: records in the order of their LSNs.

use tidegate_model::{Disk, Lsn};
use tidegate_wire::Welcome;

use super::error::SessionError;
use super::record::Kept;

/// Where the records of one incarnation come from.
pub(crate) trait Feed: Send {
    /// Why there can be no more of them.
    type Error: From<SessionError> + Send;

    /// A server accepted the agent: what follows the welcome's committed LSN is asked for. Called at
    /// each welcome, before anything is asked for.
    fn welcomed(&mut self, welcome: &Welcome) -> Result<(), Self::Error>;

    /// The next record, whose LSN is the one after that of the record before it; waits for it.
    /// `None` when there won't be one any more. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Option<Kept>, Self::Error>> + Send;

    /// Whether all records were given out.
    fn has_ended(&self) -> bool;

    /// Everything up to `lsn` is in the vault. What is up to there isn't given out any more.
    fn committed(&mut self, lsn: Lsn) -> Result<(), Self::Error>;

    /// The disks that are declared at or before `lsn`, as they were there.
    fn declared(&self, lsn: Lsn) -> Vec<Disk>;
}
