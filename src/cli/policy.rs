//! The options of `tidegate policy`.

use clap::{Args, Subcommand};
use tidegate_model::Name;

use super::VaultArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show the policy of the vault, or the one by which a machine is kept.
    Show(PolicyShowArgs),
    /// Set the policy of the vault, or of a machine. What isn't given stays as it is. What was let go
    /// doesn't come back.
    Set(PolicySetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PolicyShowArgs {
    #[command(flatten)]
    pub vault: VaultArgs,
    /// Of this machine.
    #[arg(long, value_name = "NAME")]
    pub machine: Option<Name>,
}

#[derive(Debug, Args)]
pub(crate) struct PolicySetArgs {
    #[command(flatten)]
    pub vault: VaultArgs,
    /// Of this machine.
    #[arg(long, value_name = "NAME")]
    pub machine: Option<Name>,
    /// The machine follows the vault's policy again.
    #[arg(long, requires = "machine",
          conflicts_with_all = ["window", "all", "hourly", "daily", "weekly"])]
    pub as_vault: bool,
    /// How long every moment can be brought back, as 36h.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub window: Option<u64>,
    /// How long every point is kept, as 3d.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub all: Option<u64>,
    /// Of how many hours the newest point is kept.
    #[arg(long, value_name = "COUNT")]
    pub hourly: Option<u32>,
    /// Of how many days.
    #[arg(long, value_name = "COUNT")]
    pub daily: Option<u32>,
    /// Of how many weeks.
    #[arg(long, value_name = "COUNT")]
    pub weekly: Option<u32>,
}

/// Seconds of a time as people write it.
fn parse_age(text: &str) -> Result<u64, String> {
    let refuse = || format!("'{text}' is no time: give a number and a unit, as 90m, 36h, 3d or 2w");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "w" => 7 * 24 * 60 * 60,
        _ => return Err(refuse()),
    };
    let count: u64 = digits.parse().map_err(|_| refuse())?;
    count.checked_mul(unit).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(parse_age("90m"), Ok(90 * 60));
        assert_eq!(parse_age("0s"), Ok(0));
        assert_eq!(parse_age("2w"), Ok(14 * 24 * 60 * 60));
        for bad in ["", "h", "3", "-3d", "1.5h", "3 d", "3dd", "99999999999999999999w", "3\u{e4}"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }
}
