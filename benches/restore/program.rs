//! The program: a vault of the image, and its recovery.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program and a vault that holds the image.
pub struct Program {
    key: PathBuf,
    vault: String,
}

impl Program {
    /// Makes the vault below `work`.
    pub fn with_vault_of(image: &Path, work: &Path) -> Self {
        let key = work.join("key");
        let mut secret = [0; 64];
        getrandom::fill(&mut secret).expect("the system gives random numbers");
        std::fs::write(&key, secret).expect("a key file can be written");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&key, private).expect("it can be made private");
        let program = Self { key, vault: format!("file://{}", work.join("vault").display()) };
        program.run(|command| command.args(["vault", "init", &program.vault]));
        program.run(|command| {
            command.arg("replicate").arg(image);
            command.args(["--machine", "image", "--vault", &program.vault])
        });
        program
    }

    /// Recovers the image's disk to `out`.
    pub fn recover(&self, out: &Path) {
        self.run(|command| {
            command.args(["recover", "image", "--disk", "0", "--vault", &self.vault]);
            command.arg("--to").arg(out)
        });
    }

    fn run(&self, with: impl FnOnce(&mut Command) -> &mut Command) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("--json");
        with(&mut command).arg("--key-file").arg(&self.key);
        let ended = command.stdin(Stdio::null()).output().expect("the program starts");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{command:?} failed: {said}");
    }
}
