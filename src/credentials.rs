//! Where a passphrase or key comes from: a file, the environment, or the terminal.

use std::io::IsTerminal;
use std::path::Path;

use tidegate_vault::keys::Credential;
use zeroize::Zeroizing;

use crate::cli::{CredentialArgs, NewSecretArgs};
use crate::failure::Failure;

/// The variable that holds a passphrase.
const PASSPHRASE_VARIABLE: &str = "TIDEGATE_PASSPHRASE";

/// What opens the vault, as the user said it.
pub(crate) fn existing(args: &CredentialArgs) -> Result<Credential, Failure> {
    if let Some(path) = &args.passphrase_file {
        return Ok(Credential::read_passphrase_file(path)?);
    }
    if let Some(path) = &args.key_file {
        return Ok(Credential::read_key_file(path)?);
    }
    match from_environment()? {
        Some(credential) => Ok(credential),
        None => ask("Passphrase: "),
    }
}

/// What shall open a new vault; a passphrase that is typed must be typed twice.
pub(crate) fn new_vault(args: &CredentialArgs) -> Result<Credential, Failure> {
    let given = args.passphrase_file.is_some() || args.key_file.is_some();
    if given || std::env::var_os(PASSPHRASE_VARIABLE).is_some() {
        return existing(args);
    }
    let first = read_terminal("New passphrase: ")?;
    let second = read_terminal("Once more: ")?;
    if *first != *second {
        return Err(Failure::usage("the two passphrases differ: nothing was made"));
    }
    Ok(Credential::passphrase(first)?)
}

/// What shall open a vault in addition, or instead.
pub(crate) fn new_secret(args: &NewSecretArgs) -> Result<Credential, Failure> {
    match (&args.new_passphrase_file, &args.new_key_file) {
        (Some(path), _) => Ok(Credential::read_passphrase_file(path)?),
        (None, Some(path)) => new_key_file(path),
        (None, None) => Err(Failure::usage("--new-passphrase-file or --new-key-file is needed")),
    }
}

fn new_key_file(path: &Path) -> Result<Credential, Failure> {
    if !path.exists() {
        return Ok(tidegate_vault::keys::make_key_file(path)?);
    }
    Ok(Credential::read_key_file(path)?)
}

fn from_environment() -> Result<Option<Credential>, Failure> {
    match std::env::var(PASSPHRASE_VARIABLE) {
        Ok(passphrase) => Ok(Some(Credential::passphrase(Zeroizing::new(passphrase))?)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::usage("TIDEGATE_PASSPHRASE isn't UTF-8: use --passphrase-file"))
        }
    }
}

fn ask(prompt: &str) -> Result<Credential, Failure> {
    Ok(Credential::passphrase(read_terminal(prompt)?)?)
}

fn read_terminal(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "the vault's passphrase is needed: give --passphrase-file or --key-file, or set \
             TIDEGATE_PASSPHRASE",
        ));
    }
    let typed = rpassword::prompt_password(prompt)
        .map_err(|error| Failure::usage(format!("can't read a passphrase: {error}")))?;
    Ok(Zeroizing::new(typed))
}
