//! The options of `tidegate machines`.

use clap::{Args, Subcommand};
use tidegate_model::Name;
use tidegate_vault::Location;

use super::{CredentialArgs, VaultArgs};

#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub(crate) struct MachinesArgs {
    #[command(subcommand)]
    pub command: Option<MachinesCommand>,
    /// The vault: file:///DIR or az://CONTAINER[/PREFIX].
    #[arg(long, value_name = "VAULT", env = "TIDEGATE_VAULT", required = true)]
    pub vault: Option<Location>,
    #[command(flatten)]
    pub credential: CredentialArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MachinesCommand {
    /// Remove a machine with all its history. Nothing of it can be brought back any more.
    ///
    /// Stop its agent first: a machine that was sent in the last five minutes is refused. What it
    /// alone needs becomes garbage; what others share with it stays until nobody needs it. Should it
    /// be sent again later, it begins anew.
    Remove(MachinesRemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MachinesRemoveArgs {
    /// The machine.
    pub machine: Name,
    #[command(flatten)]
    pub vault: VaultArgs,
    /// Don't ask for its name again.
    #[arg(long)]
    pub yes: bool,
}
