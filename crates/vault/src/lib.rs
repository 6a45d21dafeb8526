//! What lies in object storage, and how it is read back.
//!
//! A vault is everything under one prefix of an object store: packs of sealed frames, one log a
//! shard; small sealed records of runs, machines, epochs and sessions; wrapped keys. It alone
//! suffices to recover. docs/formats describes every byte.
//!
//! Owns formats, keys, certificates, reading, verifying. Doesn't own connections, disks, or the
//! stages that turn a machine's stream into packs (the pipeline uses [`pack`] for that).

pub mod pack;
pub mod seal;
