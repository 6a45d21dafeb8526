//! Garbage: finds the packs that nothing needs any more, and deletes them. docs/formats/gc.md.
//!
//! In two phases and without a clock. What nothing needs is *condemned* in a numbered step; servers read
//! that, refer to it no more, and state so in their packs. When every log that may grow has stated it,
//! all is looked at again, what is needed after all is *spared*, and the next step says what is removed.
//! Only then is anything deleted, and by anybody: deleting twice is deleting once.
//!
//! Owns deciding that (`collection`, which asks and is told, and so runs in a simulation), the steps,
//! and carrying it out. Doesn't own what a manifest needs (`fold` says that).
//!
//! Invariants: nothing that a newest manifest, a pack that isn't folded, or a pin needs is deleted; a name
//! that was deleted is never used again, so whoever comes too late finds nothing, not something else.

mod collection;
mod error;
mod limits;
mod look;
mod needs;
mod objects;
mod packs;
mod pin;
mod run;
mod sieve;
mod step;
mod superseded;

#[cfg(test)]
mod tests;

pub use collection::Outcome;
pub use error::GcError;
pub use objects::read_collected;
pub use packs::{PackSet, Ranges};
pub use pin::{PIN_LIMIT, PIN_RENEWAL, Pin};
pub use run::{CollectReport, Collecting, collect};
pub use step::{Collected, LIST_PACKS_MAX, Step};
