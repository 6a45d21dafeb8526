//! `tidegate policy`: how long machines' pasts are kept.

use serde::Serialize;
use tidegate_model::Name;
use tidegate_vault::Vault;
use tidegate_vault::retention::{Policy, policy_of, read_policy, set_policy};
use tidegate_vault::store::Access;

use crate::cli::{PolicyCommand, PolicySetArgs, PolicyShowArgs};
use crate::failure::Failure;
use crate::output::Output;

#[derive(Serialize)]
struct Shown {
    /// Null for the vault's.
    machine: Option<String>,
    /// Whose it is: `machine`, `vault`, or `default` where none was ever set.
    from: &'static str,
    /// Its number; 0 for the default.
    number: u64,
    #[serde(flatten)]
    policy: Policy,
}

pub(super) async fn run(command: PolicyCommand, output: Output) -> Result<(), Failure> {
    match command {
        PolicyCommand::Show(args) => show(args, output).await,
        PolicyCommand::Set(args) => set(args, output).await,
    }
}

async fn show(args: PolicyShowArgs, output: Output) -> Result<(), Failure> {
    let vault = super::open(&args.vault).await?;
    tell(&vault, args.machine.as_ref(), output).await
}

async fn set(args: PolicySetArgs, output: Output) -> Result<(), Failure> {
    let vault = super::open_at(&args.vault.vault, &args.vault.credential, Access::Write).await?;
    let (store, ring, machine) = (vault.store(), vault.ring(), args.machine.as_ref());
    let given = args.window.is_some() || args.all.is_some();
    let counted = args.hourly.is_some() || args.daily.is_some() || args.weekly.is_some();
    if !(given || counted || args.as_vault) {
        return Err(Failure::usage(
            "set what? Give --window, --all, --hourly, --daily or --weekly, or --as-vault with --machine",
        ));
    }
    let policy = if args.as_vault {
        None
    } else {
        let before = match machine {
            Some(machine) => policy_of(store, ring, machine).await?,
            None => {
                read_policy(store, ring, None).await?.and_then(|r| r.policy).unwrap_or_default()
            }
        };
        let policy = Policy {
            window_seconds: args.window.unwrap_or(before.window_seconds),
            all_seconds: args.all.unwrap_or(before.all_seconds),
            hourly: args.hourly.unwrap_or(before.hourly),
            daily: args.daily.unwrap_or(before.daily),
            weekly: args.weekly.unwrap_or(before.weekly),
        };
        policy.check().map_err(|error| Failure::usage(error.to_string()))?;
        Some(policy)
    };
    set_policy(store, ring, machine, policy, super::now()).await?;
    tell(&vault, machine, output).await
}

async fn tell(vault: &Vault, machine: Option<&Name>, output: Output) -> Result<(), Failure> {
    let (store, ring) = (vault.store(), vault.ring());
    let own = match machine {
        Some(machine) => read_policy(store, ring, Some(machine)).await?,
        None => None,
    };
    let own = own.and_then(|record| Some(("machine", record.number, record.policy?)));
    let vaults = read_policy(store, ring, None).await?;
    let vaults = vaults.and_then(|record| Some(("vault", record.number, record.policy?)));
    let (from, number, policy) = own.or(vaults).unwrap_or(("default", 0, Policy::default()));
    let machine = machine.map(ToString::to_string);
    output.result(&Shown { machine, from, number, policy }, text)
}

fn text(shown: &Shown) -> String {
    let Policy { window_seconds, all_seconds, hourly, daily, weekly } = shown.policy;
    let of = shown.machine.as_deref().unwrap_or("the vault");
    let from = match shown.from {
        "default" => "nothing was set: the default".to_owned(),
        from => format!("policy {} of the {from}", shown.number),
    };
    format!(
        "{of}: {from}\n\
         every moment for           {}\n\
         every point for            {}\n\
         then the newest point of   {hourly} hours, {daily} days, {weekly} weeks\n\
         and the newest point always",
        age(window_seconds),
        age(all_seconds.max(window_seconds))
    )
}

/// A time in the largest unit that it has a whole number of.
fn age(seconds: u64) -> String {
    let units = [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60)];
    let unit = units.iter().find(|(_, unit)| seconds > 0 && seconds.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{seconds}s"), |(name, unit)| format!("{}{name}", seconds / unit))
}
