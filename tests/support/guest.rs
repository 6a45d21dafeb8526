//! A small guest: a kernel and a shell from Debian's packages (`make tools` gets them), a disk whose
//! root file system they run from, and system emulation to run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::Running;
use super::{not_run, repository, tool};

/// How long a guest may take, with its processor emulated on a busy host.
const LIMIT: Duration = Duration::from_secs(280);
/// What the kernel lacks to see a virtio disk, in the order in which it takes them.
const MODULES: [&str; 6] = [
    "virtio/virtio_ring",
    "virtio/virtio",
    "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci",
    "block/virtio_blk",
];
/// The first thing that runs: it finds the disk, and goes on from there.
const FIRST: &str = "\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
for module in $(/bin/busybox cat /modules); do /bin/busybox insmod /$module.ko; done
/bin/busybox mount -t ext4 /dev/vda /root || echo 'GUEST: no root file system'
exec /bin/busybox switch_root /root /sbin/init
";
/// What runs on the disk: it says what it finds, and writes.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox echo \"GUEST: up from its disk, $(/bin/busybox sha256sum /data)\"
[ -e /written ] && /bin/busybox echo \"GUEST: found $(/bin/busybox cat /written)\"
/bin/busybox echo 'what a guest wrote' > /written || /bin/busybox echo 'GUEST: read-only'
/bin/busybox sync
/bin/busybox mount -o remount,ro /
/bin/busybox echo 'GUEST: done'
/bin/busybox poweroff -f
";

/// Where the kernel, its modules and the shell lie.
pub struct Guest {
    files: PathBuf,
}

impl Guest {
    /// The guest, if this machine can run it. If not, says why `test` doesn't run.
    #[track_caller]
    pub fn usable(test: &str) -> Option<Self> {
        let files = repository().join(".tools/guest");
        let emulator = Command::new("qemu-system-x86_64").arg("--version").output();
        let why = match (files.join("vmlinuz").exists(), emulator) {
            (true, Ok(version)) if version.status.success() => return Some(Self { files }),
            (false, _) => "there is no guest in .tools/guest: `make tools` gets it on x86-64",
            _ => "there is no qemu-system-x86_64: `make tools` installs it",
        };
        not_run(test, why, cfg!(target_arch = "x86_64"));
        None
    }

    /// Makes a disk from which the guest runs, with `data` on it.
    #[track_caller]
    pub fn disk(&self, image: &Path, staging: &Path, data: &[u8]) {
        for folder in ["bin", "sbin", "dev", "proc"] {
            fs::create_dir_all(staging.join(folder)).expect("a folder can be made");
        }
        fs::copy(self.files.join("busybox"), staging.join("bin/busybox")).expect("it is there");
        fs::write(staging.join("data"), data).expect("a file can be written");
        script(&staging.join("sbin/init"), INIT);
        super::images::empty(image, 64 << 20);
        let mut mkfs = Command::new("mkfs.ext4");
        tool(mkfs.args(["-q", "-F", "-E", "root_owner=0:0", "-d"]).arg(staging).arg(image));
    }

    /// Runs the guest from a disk until it powers off; gives what it said.
    #[track_caller]
    pub fn run(&self, disk: &str, folder: &Path) -> String {
        let initramfs = folder.join("initramfs");
        fs::write(&initramfs, self.initramfs()).expect("a file can be written");
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg", "-m", "256", "-display", "none", "-no-reboot"]);
        command.args(["-nodefaults", "-serial", "stdio", "-append"]);
        command.arg("console=ttyS0 panic=-1 random.trust_cpu=on").arg("-kernel");
        command.arg(self.files.join("vmlinuz")).arg("-initrd").arg(&initramfs).arg("-drive");
        command.arg(format!("if=virtio,format=raw,file={disk}"));
        Running::start(command).wait(LIMIT).success().stdout
    }

    /// The files that the kernel begins with.
    fn initramfs(&self) -> Vec<u8> {
        let read = |name: &str| fs::read(self.files.join(name)).expect("it is there");
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "root"] {
            archive.add(folder, 0o40_755, &[]);
        }
        archive.add("bin/busybox", 0o100_755, &read("busybox"));
        archive.add("init", 0o100_755, FIRST.as_bytes());
        let name = |module: &str| module.rsplit('/').next().unwrap_or_default().to_owned();
        let names: Vec<String> = MODULES.iter().map(|module| name(module)).collect();
        archive.add("modules", 0o100_644, names.join(" ").as_bytes());
        for (module, name) in MODULES.iter().zip(&names) {
            archive.add(&format!("{name}.ko"), 0o100_644, &read(&format!("drivers/{module}.ko")));
        }
        archive.add("TRAILER!!!", 0, &[]);
        archive.bytes
    }
}

fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).expect("a file can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
}

/// A cpio archive in the form that the kernel takes ("newc").
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.files += 1;
        let length = |bytes: usize| u32::try_from(bytes).expect("a small file");
        let fields = [
            self.files,
            mode,
            0,
            0,
            1,
            0,
            length(content.len()),
            0,
            0,
            0,
            0,
            length(name.len() + 1),
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
