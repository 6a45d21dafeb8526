//! A vault of one test, in a directory or in an object store, its key, and what one does with it:
//! the commands that tests of whole copies need, each checked to have succeeded.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::azurite::Azurite;
use super::compare::assert_same;
use super::images;
use super::process::{Output, Server, Tidegate};
use super::scratch;
use super::store_proxy::StoreProxy;

/// What the key file holds: a key file's content is taken as it is, and this one is for tests.
const KEY: &[u8] = b"a key of the tests, which opens nothing that anybody needs";

/// A vault with its key and a directory for the test's files. The vault isn't made yet.
pub struct Site {
    files: TempDir,
    vault: String,
    variables: Vec<(&'static str, String)>,
}

impl Site {
    /// A vault in the test's own directory.
    pub fn in_scratch() -> Self {
        let site = Self::at(String::new(), Vec::new());
        let vault = format!("file://{}", site.path("vault").display());
        site.elsewhere(&vault)
    }

    /// With a new vault in the test's own directory.
    #[track_caller]
    pub fn with_vault() -> Self {
        let site = Self::in_scratch();
        site.init();
        site
    }

    /// A vault in a directory below `parent`.
    pub fn below(parent: &Path) -> Self {
        Self::at(format!("file://{}", parent.join("vault").display()), Vec::new())
    }

    /// A vault in a container of `store`, below a prefix.
    pub fn in_azurite(store: &Azurite, prefix: &str) -> Self {
        Self::at(store.vault(prefix), store.env())
    }

    /// The same on a way that may misbehave.
    pub fn behind(proxy: &StoreProxy, prefix: &str) -> Self {
        Self::at(proxy.vault(prefix), proxy.env())
    }

    /// The same with another place for the vault.
    pub fn elsewhere(mut self, vault: &str) -> Self {
        vault.clone_into(&mut self.vault);
        self
    }

    fn at(vault: String, variables: Vec<(&'static str, String)>) -> Self {
        let site = Self { files: scratch(), vault, variables };
        std::fs::write(site.key(), KEY).expect("a key file can be written");
        let private = Permissions::from_mode(0o600);
        std::fs::set_permissions(site.key(), private).expect("its mode can be set");
        site
    }

    /// A file of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// The key file.
    pub fn key(&self) -> PathBuf {
        self.path("key")
    }

    /// The vault, as the program takes it.
    pub fn vault(&self) -> &str {
        &self.vault
    }

    /// The directory of the vault.
    pub fn vault_path(&self) -> PathBuf {
        let path = self.vault().strip_prefix("file://").expect("the vault is in a directory");
        PathBuf::from(path)
    }

    /// A new disk of random bytes that follow from its name; its file is `NAME.img`.
    #[track_caller]
    pub fn disk(&self, name: &str, bytes: u64) -> PathBuf {
        let disk = self.path(&format!("{name}.img"));
        let seed = name.bytes().fold(1, |seed: u64, byte| seed * 31 + u64::from(byte));
        images::random(&disk, bytes, seed);
        disk
    }

    /// A command on the vault, ready to run: `--json args --vault VAULT --key-file KEY`.
    pub fn command(&self, args: &[&str]) -> Tidegate {
        self.with_key(Tidegate::new(["--json"]).args(args).args(["--vault", &self.vault]))
    }

    /// Runs a command on the vault, which must succeed.
    #[track_caller]
    pub fn call(&self, args: &[&str]) -> Output {
        self.command(args).run().success()
    }

    fn with_key(&self, call: Tidegate) -> Tidegate {
        call.args(["--key-file".as_ref(), self.key().as_os_str()]).envs(self.variables.clone())
    }

    /// Makes the vault.
    #[track_caller]
    pub fn init(&self) {
        self.with_key(Tidegate::new(["vault", "init", &self.vault])).run().success();
    }

    /// Issues an identity, and gives its file.
    #[track_caller]
    pub fn enroll(&self, name: &str, role: &str) -> PathBuf {
        let out = self.path(&format!("{name}.json"));
        self.call(&["enroll", name, "--role", role, "--out", shown(&out)]);
        out
    }

    /// A server that listens, on a port of its own. Its identity is issued now.
    #[track_caller]
    pub fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    /// The same with options.
    #[track_caller]
    pub fn serve_with(&self, options: &[&str]) -> Server {
        self.enroll("ps-1", "server");
        self.server_at("127.0.0.1:0").args(options).serve()
    }

    /// A server at `listen` with the identity `ps-1`, which must have been issued.
    pub fn server_at(&self, listen: &str) -> Tidegate {
        let identity = self.path("ps-1.json");
        let call = Tidegate::server_at(listen, ["--vault", &self.vault, "--identity"]);
        self.with_key(call.args([identity]))
    }

    /// `agent copy` of disks to a server, with an identity that was issued.
    pub fn agent(&self, server: &str, machine: &str, disks: &[&Path]) -> Tidegate {
        let identity = self.path(&format!("{machine}.json"));
        Tidegate::new(["--json", "agent", "copy", "--server", server, "--identity"])
            .args([identity])
            .args(disks)
    }

    /// `replicate` of disks, ready to run.
    pub fn replicate(&self, machine: &str, disks: &[&Path]) -> Tidegate {
        self.command(&["replicate", "--machine", machine]).args(disks)
    }

    /// Brings a disk of a machine back, and compares it.
    #[track_caller]
    pub fn assert_recovers(&self, machine: &str, number: usize, disk: &Path) {
        let to = self.path(&format!("{machine}-{number}.recovered"));
        let number = number.to_string();
        let recovered =
            self.call(&["recover", machine, "--disk", &number, "--to", shown(&to)]).json();
        assert_eq!(recovered["clean"], Value::Bool(true), "{recovered}");
        assert_same(disk, &to);
        std::fs::remove_file(to).expect("what was recovered can be removed");
    }

    /// Reads every byte of the vault; nothing may be wrong. Gives the report.
    #[track_caller]
    pub fn verify(&self) -> Value {
        let report = self.call(&["verify", "--contents"]).json();
        assert_eq!(report["clean"], Value::Bool(true), "{report}");
        report
    }
}

/// A path as the program prints it.
pub fn shown(path: &Path) -> &str {
    path.to_str().expect("a path of a test is UTF-8")
}
