//! A terminal, and what a person sees on it.

use std::fs::File;
use std::io::Read;
use std::process::Command;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Output that is read until something stands in it. Its writer's death ends it.
pub struct Lines<R>(pub R);

impl<R: Read> Lines<R> {
    #[track_caller]
    pub fn wait_for(&mut self, wanted: &str) {
        let (mut seen, mut byte) = (Vec::new(), [0]);
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            match self.0.read(&mut byte) {
                Ok(1) => seen.push(byte[0]),
                _ => panic!("'{wanted}' was never said: {}", String::from_utf8_lossy(&seen)),
            }
        }
    }
}

/// A terminal: the side that a person sees, and the one that the program gets.
pub fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal can be had");
    grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it can be used");
    let name = ptsname(&ours, Vec::new()).expect("it has a name");
    let name = name.to_str().expect("which is a path").to_owned();
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOCTTY);
    let theirs = options.read(true).write(true).open(name).expect("it can be opened");
    (File::from(ours), theirs)
}

/// A command whose terminal `theirs` is, ready to run: setsid of util-linux must be there.
pub fn at_terminal(theirs: &File, args: &[&str]) -> Command {
    let end = || theirs.try_clone().expect("it can be shared");
    // Takes its standard input as its terminal, and becomes the command.
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(env!("CARGO_BIN_EXE_tidegate")).args(args);
    command.env_remove("TIDEGATE_PASSPHRASE").stdin(end()).stdout(end()).stderr(end());
    command
}
