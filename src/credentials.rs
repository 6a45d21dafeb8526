//! Where a passphrase or key comes from: a file, the environment, or the terminal.

use std::io::IsTerminal;
use std::path::Path;

use tidegate_vault::keys::Credential;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::cli::{CredentialArgs, NewSecretArgs};
use crate::failure::Failure;
use crate::terminal;

/// The variable that holds a passphrase.
const PASSPHRASE_VARIABLE: &str = "TIDEGATE_PASSPHRASE";

/// What opens the vault, as the user said it.
pub(crate) async fn existing(args: &CredentialArgs) -> Result<Credential, Failure> {
    let args = args.clone();
    match apart(move || given(&args)).await? {
        Some(credential) => Ok(credential),
        None => Ok(Credential::passphrase(ask("Passphrase: ").await?)?),
    }
}

/// What the options name; what the environment holds isn't looked at, and nobody is asked.
pub(crate) async fn named(args: &CredentialArgs) -> Result<Option<Credential>, Failure> {
    let args = args.clone();
    apart(move || from_files(&args)).await
}

/// What shall open a new vault: a key file that isn't there is made, and a passphrase that is typed
/// must be typed twice.
pub(crate) async fn new_vault(args: &CredentialArgs) -> Result<Credential, Failure> {
    let args = args.clone();
    if let Some(path) = args.key_file.clone() {
        return apart(move || new_key_file(&path)).await;
    }
    if let Some(credential) = apart(move || given(&args)).await? {
        return Ok(credential);
    }
    let first = ask("New passphrase: ").await?;
    let second = ask("Once more: ").await?;
    if *first != *second {
        return Err(Failure::usage("the two passphrases differ: no vault was made"));
    }
    Ok(Credential::passphrase(first)?)
}

/// What shall open a vault in addition, or instead.
pub(crate) async fn new_secret(args: &NewSecretArgs) -> Result<Credential, Failure> {
    let args = args.clone();
    apart(move || match (&args.new_passphrase_file, &args.new_key_file) {
        (Some(path), _) => Ok(Credential::read_passphrase_file(path)?),
        (None, Some(path)) => new_key_file(path),
        (None, None) => Err(Failure::usage("--new-passphrase-file or --new-key-file is needed")),
    })
    .await
}

/// Runs what may wait for somebody (a pipe from a secret manager) on a thread of its own, which
/// nothing waits for when this is dropped.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("credentials".to_owned())
        .spawn(move || drop(sender.send(work())))
        .map_err(|error| Failure::failed(format!("can't start a thread: {error}")))?;
    receiver.await.map_err(|error| Failure::failed(format!("no credential was read: {error}")))?
}

/// What files or the environment give.
fn given(args: &CredentialArgs) -> Result<Option<Credential>, Failure> {
    match from_files(args)? {
        Some(credential) => Ok(Some(credential)),
        None => from_environment(),
    }
}

fn from_files(args: &CredentialArgs) -> Result<Option<Credential>, Failure> {
    Ok(match (&args.passphrase_file, &args.key_file) {
        (Some(path), _) => Some(Credential::read_passphrase_file(path)?),
        (None, Some(path)) => Some(Credential::read_key_file(path)?),
        (None, None) => None,
    })
}

fn new_key_file(path: &Path) -> Result<Credential, Failure> {
    if !path.exists() {
        return Ok(tidegate_vault::keys::make_key_file(path)?);
    }
    Ok(Credential::read_key_file(path)?)
}

fn from_environment() -> Result<Option<Credential>, Failure> {
    match std::env::var(PASSPHRASE_VARIABLE) {
        Ok(passphrase) => {
            let passphrase = Credential::passphrase(Zeroizing::new(passphrase));
            passphrase.map(Some).map_err(|error| Failure::from(error).during(PASSPHRASE_VARIABLE))
        }
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::usage("TIDEGATE_PASSPHRASE isn't UTF-8: use --passphrase-file"))
        }
    }
}

async fn ask(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "the vault's passphrase is needed: give --passphrase-file or --key-file, or set \
             TIDEGATE_PASSPHRASE",
        ));
    }
    terminal::ask_unseen(prompt)
        .await
        .map_err(|error| Failure::usage(format!("can't read a passphrase: {error}")))
}
