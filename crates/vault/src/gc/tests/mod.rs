//! Tests of garbage collection: the whole protocol in a simulation by seed, and carrying it out on vaults
//! in memory.

mod collecting;
mod lost;
mod simulation;
mod steps;
