//! Servers, folders, readers and collectors on one store, in any order, with crashes between any two
//! things that they do; and a checker that knows what must be there.
//!
//! The collector is the real one ([`super::super::collection`]); all else is a model. What a seed finds
//! it finds again. Each rule is broken once, and the checker finds that.

mod collector;
mod machine;
mod run;
mod server;
mod world;

use world::Broken;

/// Seeds that are tried; more when SIMULATION_SEEDS asks for more.
fn seeds() -> u64 {
    let asked = std::env::var("SIMULATION_SEEDS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(0).max(40)
}

#[test]
fn nothing_that_is_needed_is_ever_removed_and_in_the_end_nothing_else_is_left() {
    let (mut removed, mut spared, mut fenced) = (0, 0, 0);
    for seed in 0..seeds() {
        let told = run::simulate(seed, Broken::Nothing);
        let told = told.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        (removed, spared, fenced) =
            (removed + told.removed, spared + told.spared, fenced + told.fenced);
    }
    println!("{removed} removed, {spared} spared, {fenced} closed");
    assert!(removed > 100 && spared > 5 && fenced > 5, "too tame");
}

/// Breaks a rule; some seed must show it.
fn assert_found(broken: Broken) {
    let mut seeds = 0..1000;
    assert!(seeds.any(|seed| run::simulate(seed, broken).is_err()), "{broken:?} isn't found");
}

#[test]
fn a_collector_that_waits_for_no_log_is_found() {
    assert_found(Broken::WaitsForNobody);
}

#[test]
fn a_collector_that_forgets_runs_without_packs_is_found() {
    assert_found(Broken::ForgetsEmptyLogs);
}

#[test]
fn a_collector_that_spares_nothing_is_found() {
    assert_found(Broken::SparesNothing);
}

#[test]
fn a_collector_that_ignores_references_is_found() {
    assert_found(Broken::IgnoresReferences);
}

#[test]
fn a_collector_that_ignores_pins_is_found() {
    assert_found(Broken::IgnoresPins);
}

#[test]
fn a_collector_that_removes_last_words_is_found() {
    assert_found(Broken::RemovesLastWords);
}

#[test]
fn a_server_that_states_a_list_before_its_units_are_packed_is_found() {
    assert_found(Broken::StatesAtOnce);
}

#[test]
fn a_server_that_goes_on_referring_to_what_is_condemned_is_found() {
    assert_found(Broken::DropsNothing);
}

#[test]
fn a_server_that_fills_its_table_before_it_reads_lists_is_found() {
    assert_found(Broken::FillsFirst);
}

#[test]
fn a_reader_that_doesnt_look_again_after_it_has_pinned_is_found() {
    assert_found(Broken::PinsAndGoesOn);
}
