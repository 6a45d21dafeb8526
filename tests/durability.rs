//! What is acknowledged as committed is on the disk under the vault: a copy of that disk, taken at
//! the instant of an acknowledgement and mounted as after a power cut, holds all of it.
//!
//! The vault lies on an ext4 whose backing file lies on an xfs. There a copy is a reference to the
//! same blocks, made while no write to the file can pass: the state of one instant. What the vault's
//! ext4 holds only in its cache isn't in the backing file, as it wouldn't be on a disk.

mod support;

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use support::agent_log::{committed, events, telling, wait_until};
use support::devices::{FileSystem, Loop, Mount, usable};
use support::random::{self, Rng};
use support::site::Site;
use support::{images, scratch, shim, tool};
use tempfile::TempDir;
use tidegate_model::{Epoch, Lsn, Name};
use tidegate_vault::keys::Credential;
use tidegate_vault::log::LogReader;
use tidegate_vault::store::{Access, Store};
use tidegate_vault::{Vault, grant, meta};

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 192 * MIB;
/// The agent's record: each is one LSN.
const BLOCK: u64 = 64 << 10;
/// Copies of the vault's disk in one copy of a machine's.
const INSTANTS: u64 = 8;
/// The last instant comes before this part of the machine's disk is committed, in percent.
const LAST_PERCENT: u64 = 85;
const LIMIT: Duration = Duration::from_secs(240);

/// A disk whose state at any instant can be had. Fields are dropped in their order.
struct Disk {
    /// The ext4 on it, mounted.
    mount: Mount,
    _device: Loop,
    /// Where its backing file lies, and the copies.
    shelf: Mount,
    _shelf_device: Loop,
    _files: TempDir,
}

impl Disk {
    #[track_caller]
    fn new(bytes: u64) -> Self {
        let files = scratch();
        let at = |name: &str| files.path().join(name);
        let shelf = at("shelf");
        let mounted = at("mounted");
        for path in [&shelf, &mounted] {
            std::fs::create_dir(path).expect("a directory can be made");
        }
        images::empty(&at("xfs"), 4 * bytes);
        tool(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(at("xfs")));
        let shelf_device = Loop::attach(&at("xfs"));
        let shelf = Mount::new(shelf_device.device(), &shelf, "rw");
        let backing = shelf.path().join("backing");
        images::empty(&backing, bytes);
        tool(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&backing));
        let device = Loop::attach(&backing);
        // Nothing is written out because time has passed: only because it was asked for.
        let mount = Mount::new(device.device(), &mounted, "rw,commit=3600");
        Self { mount, _device: device, shelf, _shelf_device: shelf_device, _files: files }
    }

    /// What has reached the disk by now.
    #[track_caller]
    fn at_this_instant(&self, name: &str) -> PathBuf {
        let path = self.shelf.path().join(name);
        let from = File::open(self.shelf.path().join("backing")).expect("it is there");
        let copy = File::create(&path).expect("a file can be made");
        rustix::fs::ioctl_ficlone(&copy, &from).expect("an xfs copies by reference");
        path
    }
}

#[test]
fn a_copy_of_the_vaults_disk_at_an_acknowledgement_holds_all_that_was_acknowledged() {
    if !usable("the vault's disk at an instant") {
        return;
    }
    let mut rng = Rng::new(random::seed());
    let disk = Disk::new(512 * MIB);
    let site = Site::below(disk.mount.path());
    site.init();
    site.enroll("saved", "machine");
    let source = site.path("source");
    images::random(&source, DISK_BYTES, rng.next());
    let server = site.serve_with(&["--memory", "256MiB"]);
    let agent = telling(site.agent(&server.at(), "saved", &[&source])).start();

    let step = DISK_BYTES / BLOCK * LAST_PERCENT / 100 / INSTANTS;
    let copies: Vec<(u64, PathBuf)> = (0..INSTANTS)
        .map(|number| {
            let lsn = (number * step + rng.below(step)).max(1);
            let there = wait_until(&agent, "progress", |events| committed(events) >= lsn);
            assert!(there, "the copy ended before LSN {lsn}:\n{}", agent.printed());
            // First what was acknowledged, then the disk: what comes in between is no mistake.
            let acknowledged = committed(&events(&agent));
            (acknowledged, disk.at_this_instant(&format!("copy-{number}")))
        })
        .collect();
    agent.wait(LIMIT).success();
    server.stop().success();
    site.assert_recovers("saved", 0, &source);

    for (acknowledged, copy) in copies {
        let after_a_power_cut = FileSystem::of_copy(&copy);
        let saved = Site::below(after_a_power_cut.path());
        let end = chain_end(&saved, "saved");
        eprintln!("{acknowledged} acknowledged, {end} in {}", copy.display());
        assert!(end.0 >= acknowledged, "LSN {acknowledged} was acknowledged, the disk has {end}");
        saved.verify();
    }
}

/// In front of the C library's fsync: that of a folder fails once a pack has its name there.
const NO_FOLDER_SYNC: &str = r#"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int has_a_pack(const char *path) {
    DIR *folder = opendir(path);
    struct dirent *entry;
    int found = 0;
    while (folder && !found && (entry = readdir(folder)))
        found = entry->d_type == DT_REG && !strchr(entry->d_name, '#');
    if (folder)
        closedir(folder);
    return found;
}

int fsync(int fd) {
    char link[64], path[PATH_MAX + 1];
    struct stat of;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX);
    if (length > 0 && fstat(fd, &of) == 0 && S_ISDIR(of.st_mode)) {
        path[length] = 0;
        if (strstr(path, "/vault/log") && has_a_pack(path)) {
            errno = EIO;
            return -1;
        }
    }
    return (int) syscall(SYS_fsync, fd);
}
"#;

#[test]
fn a_pack_whose_folder_cant_be_synced_isnt_acknowledged() {
    let site = Site::with_vault();
    let disk = site.disk("db", MIB);
    let shim = shim::build(&site.path("shim"), NO_FOLDER_SYNC);
    // The pack is there under its name: that alone doesn't make it last.
    let copied = site.replicate("db", &[&disk]).env("LD_PRELOAD", &shim).run().failure();
    copied.says(&["can't be stored", "Nothing that was acknowledged is lost"]);
    assert!(!site.packs().is_empty(), "it failed before its first pack had a name");
    site.replicate("db", &[&disk]).run().success();
    site.assert_recovers("db", 0, &disk);
}

/// The end of a machine's first epoch, as a server finds it that takes the machine over.
fn chain_end(site: &Site, machine: &str) -> Lsn {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be had").block_on(async {
        let location = site.vault().parse().expect("it is a vault's place");
        let store = Store::open(&location, Access::Read).expect("the copy is a directory");
        let key = Credential::read_key_file(&site.key()).expect("the key file can be read");
        let vault = Vault::open(store, &key).await.expect("the vault opens");
        let reader = LogReader::of(&vault);
        let machine: Name = machine.parse().expect("it is a name");
        let epoch = meta::read_epoch(vault.store(), vault.ring(), &machine, Epoch(1)).await;
        let epoch = epoch.expect("epochs can be read").expect("the epoch was granted before");
        grant::chain_end(&reader, &machine, &epoch).await.expect("the chain can be followed")
    })
}
