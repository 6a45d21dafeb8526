//! `tidegate vault init`, `tidegate vault key ...`.

use serde::Serialize;
use tidegate_model::ExactBytes;
use tidegate_model::limits::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use tidegate_vault::keys::{Credential, NewSlot, PassphraseCost, Scope};
use tidegate_vault::points::readable_time;
use tidegate_vault::store::{Access, Store};
use tidegate_vault::{Begun, InitOptions, Location, Vault};

use crate::cli::{
    CredentialArgs, KeyAddArgs, KeyChangeArgs, KeyCommand, KeyListArgs, NewSecretArgs, ScopeArg,
    VaultCommand, VaultInitArgs,
};
use crate::credentials;
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::signals::Stop;

pub(super) async fn run(command: VaultCommand, output: Output, stop: Stop) -> Result<(), Failure> {
    match command {
        VaultCommand::Init(args) => init(args, output, &stop).await,
        VaultCommand::Key(KeyCommand::Add(args)) => add(args, output, &stop).await,
        VaultCommand::Key(KeyCommand::Change(args)) => change(args, output, &stop).await,
        VaultCommand::Key(KeyCommand::List(args)) => {
            super::unless_stopped(&stop, list(args, output)).await
        }
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

/// Begins a vault: whoever stops here can make it again.
pub(super) async fn begin(
    store: Store,
    block_bytes: u32,
    credential: &Credential,
) -> Result<Begun, Failure> {
    let mut options = InitOptions::new(super::now());
    options.block_bytes = block_bytes;
    Ok(Vault::begin(store, &options, credential).await?)
}

/// A block size that can be had.
fn block_bytes(asked: u64) -> Result<u32, Failure> {
    let bounds = BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX;
    let fits = u32::try_from(asked).ok().filter(|bytes| bounds.contains(bytes));
    fits.filter(|bytes| bytes.is_power_of_two()).ok_or_else(|| {
        Failure::usage(format!(
            "--block-bytes {} can't be had: give a power of two from {} to {}",
            ExactBytes(asked),
            ExactBytes(BLOCK_BYTES_MIN.into()),
            ExactBytes(BLOCK_BYTES_MAX.into())
        ))
    })
}

/// Ends what was begun, whoever asks to stop meanwhile. What comes with it must be shown, for
/// nobody can find the recovery key again.
pub(super) async fn finish(begun: Begun) -> Result<(Vault, Made), Failure> {
    let (vault, recovery) = begun.finish().await?;
    let made = Made {
        vault: vault.store().place().to_owned(),
        id: vault.id().to_string(),
        block_bytes: vault.description().block_bytes,
        recovery_key: recovery.text().to_string(),
    };
    Ok((vault, made))
}

async fn init(args: VaultInitArgs, output: Output, stop: &Stop) -> Result<(), Failure> {
    let begun = super::unless_stopped(stop, async {
        let block_bytes = block_bytes(args.block_bytes)?;
        let store = Store::open(&args.vault, Access::Create)?;
        // Before anybody is asked for a passphrase.
        Vault::check_free(&store).await?;
        let credential = credentials::new_vault(&args.credential).await?;
        begin(store, block_bytes, &credential).await
    });
    let (_, made) = finish(begun.await?).await?;
    output.only_once(&made, Made::text)
}

#[derive(Serialize)]
struct Changed {
    slot: u32,
}

/// Opens the vault and takes the new secret; then whatever is changed is changed to its end, so
/// that nobody has to guess which secret opens it.
async fn prepare(
    vault: &Location,
    credential: &CredentialArgs,
    new: &NewSecretArgs,
    stop: &Stop,
) -> Result<(Vault, Credential), Failure> {
    let prepared = async {
        let vault = super::open_at(vault, credential, Access::Write).await?;
        Ok((vault, credentials::new_secret(new).await?))
    };
    super::unless_stopped(stop, prepared).await
}

async fn add(args: KeyAddArgs, output: Output, stop: &Stop) -> Result<(), Failure> {
    let (mut vault, credential) = prepare(&args.vault, &args.credential, &args.new, stop).await?;
    let scope = match args.scope {
        ScopeArg::All => Scope::All,
        ScopeArg::Data => Scope::Data,
    };
    let new = NewSlot {
        credential,
        scope,
        label: String::new(),
        cost: PassphraseCost::default(),
        created: super::now(),
    };
    let slot = vault.add_slot(&new).await?;
    output.result(&Changed { slot }, |_| format!("slot {slot} opens the vault now"))
}

async fn change(args: KeyChangeArgs, output: Output, stop: &Stop) -> Result<(), Failure> {
    let (mut vault, credential) = prepare(&args.vault, &args.credential, &args.new, stop).await?;
    let slot = match &args.slot {
        Some(text) => text
            .parse()
            .map_err(|_| Failure::usage(format!("'{text}' is not a slot: see vault key list")))?,
        None => vault.opened_slot(),
    };
    vault.change_slot(slot, &credential, PassphraseCost::default(), super::now()).await?;
    output.result(&Changed { slot }, |_| format!("slot {slot} opens by the new secret from now on"))
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
    // What opens a vault can be seen without opening it: who has a wrong passphrase in the
    // environment must get to see it. A secret that is named is tried, for that is what is asked.
    let document = Vault::keys_at(&store).await?;
    if let Some(credential) = credentials::named(&args.credential).await? {
        Vault::open(store, &credential).await?;
    }
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
    })
}
