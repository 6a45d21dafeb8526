//! What lies in object storage, and how it is read back.
//!
//! A vault is everything under one prefix of an object store: packs of sealed frames, one log a
//! shard; small sealed records of runs, machines, epochs and sessions; what is folded of machines;
//! wrapped keys. It alone suffices to recover. docs/formats describes every byte.
//!
//! Owns formats, keys, certificates, reading, verifying. Doesn't own connections, disks, or the
//! stages that turn a machine's stream into packs (the pipeline uses [`pack`] for that).

pub mod authority;
pub mod chain;
pub mod description;
pub mod error;
pub mod fold;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod gc;
pub mod grant;
pub mod identity;
pub mod keys;
pub mod layout;
pub mod location;
pub mod log;
mod made_folders;
pub mod meta;
pub mod pack;
mod pem;
pub mod points;
mod private_file;
pub mod restore;
pub mod resync;
pub mod retention;
mod rfc3339;
pub mod seal;
pub mod store;
#[cfg(test)]
mod testing;
pub mod usage;
pub mod vault;
pub mod verify;

pub use error::VaultError;
pub use location::Location;
pub use made_folders::MadeFolders;
pub use vault::{Begun, InitOptions, Vault};
