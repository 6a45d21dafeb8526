//! A recovery point mounted: its disks as NBD serves them, with an overlay for what is written.
//!
//! Owns the overlay's file, and how it lies over the point. Doesn't own the point's bytes (the vault's
//! `restore`) nor the clients (`tidegate_nbd::serve`).
//!
//! Invariant: nothing is written to the vault. A read gives the newest that was written to the
//! overlay, or what the point has, checked as a restore checks it; or it fails.

mod disk;
mod overlay;

pub(crate) use disk::{Foundation, MountedDisk};
pub(crate) use overlay::{Beneath, Overlay, OverlayError};
