//! What every way of capturing a disk says of itself: above all which order its records keep, and so
//! what a recovery point may be made of.

use tidegate_model::DiskNumber;

/// What the LSNs of a disk's records say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each write has its record, in the order in which the disk took them: every LSN is a moment.
    EachWrite,
    /// What changed since the last pass comes by its place on the disk: only the end of a pass can be a
    /// moment, and only if the disk stood still for it.
    EachPass,
}

/// A disk that is captured.
pub trait Capture: Send + Sync {
    /// Its number.
    fn disk(&self) -> DiskNumber;
    /// The name under which the vault knows it.
    fn name(&self) -> &str;
    /// Its size.
    fn bytes(&self) -> u64;
    /// What order its records keep.
    fn order(&self) -> Order;
}
