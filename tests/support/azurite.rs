//! The object store of the tests: Azurite, in memory, on a free port of the loopback, with an
//! account whose name and key are made up for each run. `tests/azurite` pins its version, and
//! `make tools` installs it.
//!
//! It is one thread of Node: a peer for correctness, not for speed, and it needs as much memory as
//! it holds.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use super::process::Running;
use super::random::{Rng, seed};
use super::{repository, tool};

/// It is up in a second; a machine that runs other tests at the same time may take longer.
const START_LIMIT: Duration = Duration::from_secs(60);

const ACCOUNT: &str = "tidegatetests";

/// A store that answers; stopped when dropped.
pub struct Azurite {
    running: Running,
    endpoint: String,
    key: String,
    container: String,
}

impl Azurite {
    /// Starts a store that holds one empty container.
    #[track_caller]
    pub fn start(container: &str) -> Self {
        let installed = repository().join(".tools/azurite/node_modules/azurite");
        let main = installed.join("dist/src/blob/main.js");
        assert!(main.exists(), "the store of the tests isn't installed: run `make tools`");
        let key = made_up_key();
        let mut command = Command::new("node");
        command
            .arg(main)
            .args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence"])
            .args(["--disableTelemetry", "--silent", "--skipApiVersionCheck"])
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{key}"));
        let running = Running::start(command);
        // It prints the port that it was given once it can be reached.
        let line = running.wait_for_line("its address", START_LIMIT, |line| {
            line.contains("successfully listens on http://")
        });
        let address =
            line.rsplit(' ').next().expect("a line has a last word").trim_end_matches('/');
        let endpoint = format!("{address}/{ACCOUNT}");
        let azurite = Self { running, endpoint, key, container: container.to_owned() };
        azurite.make_container(container);
        azurite
    }

    /// Makes another container.
    #[track_caller]
    pub fn make_container(&self, name: &str) {
        let script = repository().join("tests/azurite/container.js");
        tool(Command::new("node").arg(script).arg(name).envs(self.env()));
    }

    /// The variables by which a client finds it.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", self.key.clone()),
            ("AZURE_STORAGE_ENDPOINT", self.endpoint.clone()),
            ("AZURE_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// A vault in its first container, below a prefix of its own.
    pub fn vault(&self, prefix: &str) -> String {
        format!("az://{}/{prefix}", self.container)
    }

    /// Its first container.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Where it listens.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        let address = self.endpoint.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        address.and_then(|address| address.parse().ok()).expect("its endpoint has an address")
    }

    /// Makes it accept connections and answer nothing, until `thaw`.
    pub fn freeze(&self) {
        self.running.freeze();
    }

    pub fn thaw(&self) {
        self.running.thaw();
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }
}

/// 64 random bytes in Base64. The last digit stands for two bits of them and four zeros: one of
/// only four digits is right there, and `A` is one.
fn made_up_key() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut rng = Rng::new(seed());
    let digits = (0..85).map(|_| {
        let digit = usize::try_from(rng.below(64)).expect("a digit is below 64");
        char::from(DIGITS[digit])
    });
    digits.chain("A==".chars()).collect()
}
