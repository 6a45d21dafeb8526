//! `tidegate machines remove`: a machine's history is none any more.

use std::io::IsTerminal;
use std::time::Duration;

use serde::Serialize;
use tidegate_model::{Epoch, Name};
use tidegate_vault::Vault;
use tidegate_vault::chain::last_sent;
use tidegate_vault::log::LogReader;
use tidegate_vault::meta::{self, is_removed, remove_machine, removed_upto};
use tidegate_vault::points::readable_time;
use tidegate_vault::store::Access;

use crate::cli::MachinesRemoveArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::terminal;

/// A machine that was sent so short ago has an agent that runs: an idle one sends the time every few
/// seconds.
const QUIET_SECONDS: u64 = 5 * 60;
/// What a session that was there all the time may say after so long isn't taken: its agent comes anew, and
/// hears that its machine was removed.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(QUIET_SECONDS - 60);

#[derive(Serialize)]
struct Removed {
    machine: String,
    /// The last epoch that was removed.
    upto: u32,
}

pub(super) async fn run(args: MachinesRemoveArgs, output: Output) -> Result<(), Failure> {
    let MachinesRemoveArgs { machine, vault, yes } = args;
    let vault = super::super::open_at(&vault.vault, &vault.credential, Access::Write).await?;
    let upto = newest_epoch(&vault, &machine).await?;
    check_quiet(&vault, &machine).await?;
    if !yes {
        confirm(&machine).await?;
        // Its agent may have come while the question stood.
        check_quiet(&vault, &machine).await?;
    }
    remove_machine(vault.store(), vault.ring(), &machine, upto, super::super::now()).await?;
    let removed = Removed { machine: machine.to_string(), upto: upto.0 };
    output.result(&removed, |removed| {
        format!("{} is removed, with its {} epochs", removed.machine, removed.upto)
    })
}

/// Refuses a machine whose agent seems to run.
async fn check_quiet(vault: &Vault, machine: &Name) -> Result<(), Failure> {
    let now = vault.store().agreed_clock(super::super::now).await?;
    let last = last_sent(&LogReader::of(vault), machine).await?;
    match last.filter(|last| last.0.saturating_add(QUIET_SECONDS * 1_000_000) > now.0) {
        Some(last) => Err(Failure::usage(format!(
            "{machine} was sent at {}: its agent seems to run. Stop it, and try again in five minutes",
            readable_time(last)
        ))),
        None => Ok(()),
    }
}

/// The newest epoch of a machine that is there.
async fn newest_epoch(vault: &Vault, machine: &Name) -> Result<Epoch, Failure> {
    let (store, ring) = (vault.store(), vault.ring());
    let epochs = meta::list_epochs(store, ring, machine).await?;
    let removed = removed_upto(store, ring, machine).await?;
    if epochs.whole.is_empty() && epochs.damaged.is_empty() || is_removed(&epochs, removed) {
        return Err(Failure::usage(format!("the vault has no machine {machine}")));
    }
    // One whose record is damaged has a number all the same.
    let numbers = meta::epoch_numbers(store, machine).await?;
    Ok(numbers.into_iter().max().unwrap_or_default())
}

async fn confirm(machine: &Name) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody can be asked here: say --yes to remove the machine"));
    }
    let prompt = format!(
        "All history of {machine} goes, and doesn't come back. Type its name again to remove it: "
    );
    let typed = terminal::ask(&prompt).await;
    let typed = typed.map_err(|error| Failure::usage(format!("nothing was answered: {error}")))?;
    if typed.trim() == machine.as_str() {
        return Ok(());
    }
    Err(Failure::usage(format!("'{}' isn't {machine}: nothing was removed", typed.trim())))
}
