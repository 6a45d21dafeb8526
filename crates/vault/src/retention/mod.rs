//! How long a machine's past can be brought back: policies, and which points they keep.
//! docs/formats/policy.md.
//!
//! Owns the rules, and the numbered records that state them for the vault or for a machine: several
//! servers and people act by the same ones. Doesn't own letting go (`fold` thins), nor deleting.
//!
//! Invariants: a policy is created under a new number and never changed; the highest number counts.
//! What is kept never gets less by looking more often. The newest point always stays, and so does the
//! newest clean one.

mod policy;
mod record;

pub use policy::{AgedPoint, DAY_SECONDS, Policy, PolicyError};
pub use record::{PolicyRecord, policy_of, read_policy, set_policy};
