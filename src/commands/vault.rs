//! `tidegate vault init`, `tidegate vault key ...`.

use serde::Serialize;
use tidegate_vault::keys::{Credential, KeyDocument, NewSlot, PassphraseCost, Scope};
use tidegate_vault::points::readable_time;
use tidegate_vault::store::{Access, Store};
use tidegate_vault::{InitOptions, Vault};

use crate::cli::{
    KeyAddArgs, KeyChangeArgs, KeyCommand, KeyListArgs, ScopeArg, VaultCommand, VaultInitArgs,
};
use crate::credentials;
use crate::failure::Failure;
use crate::output::{Output, table};

pub(super) async fn run(command: VaultCommand, output: Output) -> Result<(), Failure> {
    match command {
        VaultCommand::Init(args) => init(args, output).await,
        VaultCommand::Key(KeyCommand::Add(args)) => add(args, output).await,
        VaultCommand::Key(KeyCommand::Change(args)) => change(args, output).await,
        VaultCommand::Key(KeyCommand::List(args)) => list(args, output).await,
    }
}

/// What making a vault gives: the recovery key among it, this once.
#[derive(Serialize)]
pub(super) struct Made {
    vault: String,
    id: String,
    block_bytes: u32,
    recovery_key: String,
}

impl Made {
    /// For people.
    pub(super) fn text(&self) -> String {
        format!(
            "made vault {} at {}\n\
             recovery key, shown only now; keep it on paper, apart from the vault:\n  {}",
            self.id, self.vault, self.recovery_key
        )
    }
}

/// Makes a vault; what comes with it must be shown, for nobody can find the recovery key again.
pub(super) async fn make(
    store: Store,
    block_bytes: u64,
    credential: &Credential,
) -> Result<(Vault, Made), Failure> {
    let mut options = InitOptions::new(super::now());
    options.block_bytes = u32::try_from(block_bytes)
        .map_err(|_| Failure::usage("--block-bytes is larger than any block can be"))?;
    let (vault, recovery) = Vault::init(store, &options, credential).await?;
    let made = Made {
        vault: vault.store().place().to_owned(),
        id: vault.id().to_string(),
        block_bytes: vault.description().block_bytes,
        recovery_key: recovery.text().to_string(),
    };
    Ok((vault, made))
}

async fn init(args: VaultInitArgs, output: Output) -> Result<(), Failure> {
    let store = Store::open(&args.vault, Access::Create)?;
    let credential = credentials::new_vault(&args.credential)?;
    let (_, made) = make(store, args.block_bytes, &credential).await?;
    output.result(&made, Made::text);
    Ok(())
}

#[derive(Serialize)]
struct Changed {
    slot: u32,
}

async fn add(args: KeyAddArgs, output: Output) -> Result<(), Failure> {
    let mut vault = super::open_at(&args.vault, &args.credential, Access::Write).await?;
    let scope = match args.scope {
        ScopeArg::All => Scope::All,
        ScopeArg::Data => Scope::Data,
    };
    let new = NewSlot {
        credential: credentials::new_secret(&args.new)?,
        scope,
        label: String::new(),
        cost: PassphraseCost::default(),
        created: super::now(),
    };
    let slot = vault.add_slot(&new).await?;
    output.result(&Changed { slot }, |_| format!("slot {slot} opens the vault now"));
    Ok(())
}

async fn change(args: KeyChangeArgs, output: Output) -> Result<(), Failure> {
    let mut vault = super::open_at(&args.vault, &args.credential, Access::Write).await?;
    let slot = match &args.slot {
        Some(text) => text
            .parse()
            .map_err(|_| Failure::usage(format!("'{text}' is not a slot: see vault key list")))?,
        None => vault.opened_slot(),
    };
    let credential = credentials::new_secret(&args.new)?;
    vault.change_slot(slot, &credential, PassphraseCost::default(), super::now()).await?;
    output
        .result(&Changed { slot }, |_| format!("slot {slot} opens by the new secret from now on"));
    Ok(())
}

#[derive(Serialize)]
struct SlotLine {
    slot: u32,
    kind: String,
    scope: String,
    created: String,
}

async fn list(args: KeyListArgs, output: Output) -> Result<(), Failure> {
    let store = Store::open(&args.vault, Access::Read)?;
    // What opens a vault can be seen without opening it.
    let document = KeyDocument::newest(&store)
        .await
        .map_err(|error| Failure::from(error).during(store.place()))?;
    let lines: Vec<SlotLine> = document
        .slots
        .iter()
        .map(|slot| SlotLine {
            slot: slot.id,
            kind: slot.kind.to_string(),
            scope: slot.scope.to_string(),
            created: readable_time(slot.created),
        })
        .collect();
    output.result(&lines, |lines| {
        let row = |line: &SlotLine| {
            vec![line.slot.to_string(), line.kind.clone(), line.scope.clone(), line.created.clone()]
        };
        let rows: Vec<_> = lines.iter().map(row).collect();
        table(&["slot", "kind", "opens", "since"], &rows)
    });
    Ok(())
}
