//! Clients of Azure's blob store (or Azurite), from the usual AZURE_* variables.
//!
//! Owns which variables count beyond those that the store client reads itself, how long requests
//! may take, and who retries: puts never (the client would call its own stored object "already
//! exists"; the uploader retries them, knowing what it sent), reads within a minute.
//!
//! The variables come in as a parameter, so that a test needn't change the process's own.

use std::sync::Arc;
use std::time::Duration;

use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};

use super::StoreError;

/// Longest time for one request: 16 MiB at 140 kB/s. AZURE_TIMEOUT overrides it.
const REQUEST_TIMEOUT: &str = "120 seconds";
/// How long a read is tried again before it fails.
const READ_RETRIES_FOR: Duration = Duration::from_secs(60);
/// The published account and key of Azurite, which every installation of it has.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The two clients of a container.
pub(super) struct Clients {
    pub puts: Arc<dyn ObjectStore>,
    pub reads: Arc<dyn ObjectStore>,
}

type Setting = (AzureConfigKey, String);

/// Clients of `container`, set up by `variables` (names and values of the environment).
pub(super) fn clients(
    container: &str,
    place: &str,
    variables: &[(String, String)],
) -> Result<Clients, StoreError> {
    let settings =
        settings(variables).map_err(|cause| StoreError::Settings { place: place.into(), cause })?;
    let build = |retry: RetryConfig| -> Result<Arc<dyn ObjectStore>, StoreError> {
        client(container, &settings, retry)
            .map(|client| Arc::new(client) as Arc<dyn ObjectStore>)
            .map_err(|error| StoreError::Settings {
                place: place.into(),
                cause: format!("{error}; set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or the other AZURE_* variables of your way to sign in"),
            })
    };
    let never = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let patient = RetryConfig {
        max_retries: 8,
        retry_timeout: READ_RETRIES_FOR,
        backoff: BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() },
    };
    Ok(Clients { puts: build(never)?, reads: build(patient)? })
}

fn client(
    container: &str,
    settings: &[Setting],
    retry: RetryConfig,
) -> object_store::Result<MicrosoftAzure> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (key, value) in settings {
        builder = builder.with_config(*key, value);
    }
    builder.with_container_name(container).with_retry(retry).build()
}

/// What the variables say, later settings overriding earlier ones.
fn settings(variables: &[(String, String)]) -> Result<Vec<Setting>, String> {
    let mut settings =
        vec![(AzureConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT.into())];
    for (name, value) in variables {
        if let Some(key) = key_of(name) {
            settings.push((key, value.clone()));
        }
    }
    let connection = variables.iter().find(|(name, _)| name == "AZURE_STORAGE_CONNECTION_STRING");
    if let Some((_, text)) = connection {
        settings.extend(connection_string(text)?);
    }
    azurite_elsewhere(&mut settings);
    refuse_plain_http(&settings)?;
    Ok(settings)
}

/// The setting that a variable names: the store client's names, and those of Azure's own tools.
fn key_of(name: &str) -> Option<AzureConfigKey> {
    Some(match name {
        "AZURE_STORAGE_ACCOUNT" => AzureConfigKey::AccountName,
        "AZURE_STORAGE_KEY" => AzureConfigKey::AccessKey,
        "AZURE_STORAGE_ALLOW_HTTP" => AzureConfigKey::Client(ClientConfigKey::AllowHttp),
        "IDENTITY_ENDPOINT" => AzureConfigKey::MsiEndpoint,
        // The container is the vault's place's, whatever a variable says.
        "AZURE_CONTAINER_NAME" => return None,
        other if other.starts_with("AZURE_") => other.to_ascii_lowercase().parse().ok()?,
        _ => return None,
    })
}

/// A connection string: `Name=value;Name=value`.
fn connection_string(text: &str) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    let (mut account, mut endpoint, mut suffix, mut scheme) = (None, None, None, "https");
    for part in text.split(';').filter(|part| !part.trim().is_empty()) {
        let (name, value) = part.trim().split_once('=').ok_or_else(|| {
            "AZURE_STORAGE_CONNECTION_STRING is not one: Name=value parts with ';' between them are needed".to_owned()
        })?;
        match name {
            "UseDevelopmentStorage" => settings.push((AzureConfigKey::UseEmulator, value.into())),
            "AccountName" => account = Some(value),
            "AccountKey" => settings.push((AzureConfigKey::AccessKey, value.into())),
            "SharedAccessSignature" => settings.push((AzureConfigKey::SasKey, value.into())),
            "BlobEndpoint" => endpoint = Some(value.to_owned()),
            "EndpointSuffix" => suffix = Some(value),
            "DefaultEndpointsProtocol" => scheme = value,
            _ => {} // those of queues, tables and files
        }
    }
    if let Some(account) = account {
        settings.push((AzureConfigKey::AccountName, account.into()));
        if let Some(suffix) = suffix {
            endpoint.get_or_insert_with(|| format!("{scheme}://{account}.blob.{suffix}"));
        }
    }
    if let Some(endpoint) = endpoint {
        // Who writes http into a connection string means it.
        let plain = endpoint.starts_with("http://").to_string();
        settings.push((AzureConfigKey::Client(ClientConfigKey::AllowHttp), plain));
        settings.push((AzureConfigKey::Endpoint, endpoint.trim_end_matches('/').into()));
    }
    Ok(settings)
}

/// With the emulator asked for, the store client ignores an endpoint; we don't: Azurite elsewhere
/// than on its usual port is the emulator's account at that endpoint.
fn azurite_elsewhere(settings: &mut Vec<Setting>) {
    let emulator = last(settings, AzureConfigKey::UseEmulator).is_some_and(is_true);
    let Some(endpoint) = last(settings, AzureConfigKey::Endpoint).map(str::to_owned) else {
        return;
    };
    if !emulator {
        return;
    }
    let account = last(settings, AzureConfigKey::AccountName).unwrap_or(AZURITE_ACCOUNT).to_owned();
    let signed = [AzureConfigKey::AccessKey, AzureConfigKey::SasKey, AzureConfigKey::Token]
        .into_iter()
        .any(|key| last(settings, key).is_some());
    // Azurite's blobs lie below the account's name; whoever left it out meant so.
    let endpoint = endpoint.trim_end_matches('/');
    let below = endpoint.rsplit('/').next() == Some(account.as_str());
    let endpoint = if below { endpoint.to_owned() } else { format!("{endpoint}/{account}") };
    settings.push((AzureConfigKey::UseEmulator, "false".into()));
    settings.push((AzureConfigKey::Endpoint, endpoint));
    settings.push((AzureConfigKey::Client(ClientConfigKey::AllowHttp), "true".into()));
    if !signed {
        settings.push((AzureConfigKey::AccessKey, AZURITE_KEY.into()));
    }
    settings.push((AzureConfigKey::AccountName, account));
}

fn refuse_plain_http(settings: &[Setting]) -> Result<(), String> {
    let endpoint = last(settings, AzureConfigKey::Endpoint).unwrap_or_default();
    let allow = AzureConfigKey::Client(ClientConfigKey::AllowHttp);
    if endpoint.starts_with("http://") && !last(settings, allow).is_some_and(is_true) {
        return Err(format!(
            "the endpoint {endpoint} is plain HTTP; set AZURE_ALLOW_HTTP=true if that is meant"
        ));
    }
    Ok(())
}

fn last(settings: &[Setting], key: AzureConfigKey) -> Option<&str> {
    settings.iter().rev().find(|(k, _)| *k == key).map(|(_, value)| value.as_str())
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "on" | "yes" | "y")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Vec<Setting>, String> {
        let owned: Vec<_> = variables.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        settings(&owned)
    }

    #[test]
    fn azurite_on_another_port_is_reached_with_its_published_account() {
        for endpoint in ["http://127.0.0.1:9999", "http://127.0.0.1:9999/devstoreaccount1/"] {
            let settings =
                of(&[("AZURE_STORAGE_USE_EMULATOR", "true"), ("AZURE_ENDPOINT", endpoint)])
                    .unwrap();
            let get = |key| last(&settings, key).unwrap().to_owned();
            assert_eq!(get(AzureConfigKey::Endpoint), "http://127.0.0.1:9999/devstoreaccount1");
            assert_eq!(get(AzureConfigKey::UseEmulator), "false");
            assert_eq!(get(AzureConfigKey::AccountName), "devstoreaccount1");
            assert!(client("c-1", &settings, RetryConfig::default()).is_ok());
        }
    }

    #[test]
    fn the_names_of_azures_own_tools_count() {
        let settings =
            of(&[("AZURE_STORAGE_ACCOUNT", "a"), ("AZURE_STORAGE_KEY", "aw==")]).unwrap();
        assert_eq!(last(&settings, AzureConfigKey::AccountName), Some("a"));
        assert!(client("c-1", &settings, RetryConfig::default()).is_ok());
        let text = "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=aw==;EndpointSuffix=core.example";
        let settings = of(&[("AZURE_STORAGE_CONNECTION_STRING", text)]).unwrap();
        assert_eq!(
            last(&settings, AzureConfigKey::Endpoint),
            Some("https://acc.blob.core.example")
        );
        assert_eq!(last(&settings, AzureConfigKey::AccessKey), Some("aw=="));
    }

    #[test]
    fn plain_http_must_be_allowed() {
        let endpoint = ("AZURE_STORAGE_ENDPOINT", "http://10.0.0.1:1/a");
        let error = of(&[endpoint]).unwrap_err();
        assert!(error.contains("AZURE_ALLOW_HTTP"), "{error}");
        assert!(of(&[endpoint, ("AZURE_STORAGE_ALLOW_HTTP", "true")]).is_ok());
    }

    #[test]
    fn an_account_that_is_missing_is_an_error_that_names_the_variables() {
        let Err(error) = clients("c-1", "az://c-1", &[]) else { panic!("no account was given") };
        assert!(error.to_string().contains("AZURE_STORAGE_ACCOUNT_NAME"), "{error}");
    }
}
