//! The options of `tidegate maintain`.

use clap::Args;
use tidegate_model::Name;

use super::VaultArgs;

/// Most hours that a collection is told to bear with a silent server.
const PATIENCE_HOURS_MAX: i64 = 24 * 365;

/// Longest pause between two rounds of a server: a week of packs is still folded within its limits.
pub(crate) const INTERVAL_SECONDS_MAX: u64 = 7 * 24 * 3600;

/// What a server does of it in the background.
#[derive(Debug, Default, Args)]
pub(crate) struct BackgroundArgs {
    /// Fold machines, let go of what isn't kept, and collect garbage every so many seconds, more or less
    /// by half [default: 3600].
    #[arg(long, value_name = "SECONDS", conflicts_with = "no_maintenance",
          value_parser = clap::value_parser!(u64).range(1..=INTERVAL_SECONDS_MAX))]
    pub maintenance_interval: Option<u64>,
    /// Leave the vault to `tidegate maintain`, or to other servers.
    #[arg(long)]
    pub no_maintenance: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MaintainArgs {
    /// Only these machines; no garbage is collected then.
    pub machine: Vec<Name>,
    #[command(flatten)]
    pub vault: VaultArgs,
    /// Fold all again from the logs, whatever was folded before: for layers that `verify` finds
    /// damaged. Refused where the logs no longer hold all that was folded.
    #[arg(long)]
    pub anew: bool,
    /// Let nothing go, whatever the policy says.
    #[arg(long)]
    pub keep_all: bool,
    /// Change nothing: say what a collection would condemn or delete.
    #[arg(long, conflicts_with = "machine")]
    pub dry_run: bool,
    /// Fold, and let go of what isn't kept, but delete nothing.
    #[arg(long, conflicts_with = "dry_run")]
    pub keep_garbage: bool,
    /// A server that hasn't stated for so many hours that it has read a condemned list is closed out:
    /// its next upload fails, and its agents go elsewhere.
    #[arg(long, value_name = "HOURS", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(0..=PATIENCE_HOURS_MAX))]
    pub patience: u32,
}
