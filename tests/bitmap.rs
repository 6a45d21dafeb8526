//! A qcow2 image that a hypervisor uses is replicated by increments: its bitmaps say what changed, and its
//! guest goes on writing meanwhile.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::Value;
use support::live::{self, Machine};
use support::process::Server;
use support::refusals::wait_until;
use support::site::{Site, shown};
use support::{tool, try_tool};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 64 << 10;

fn serve(site: &Site, listen: &str) -> Server {
    site.server_at(listen).args(["--memory", "256MiB"]).serve()
}

/// An image with a disk of random bytes in it.
fn image(site: &Site, bytes: u64) -> PathBuf {
    let (raw, image) = (site.disk("one", bytes), site.path("one.qcow2"));
    let call = ["convert", "-f", "raw", "-O", "qcow2"];
    tool(Command::new("qemu-img").args(call).arg(raw).arg(&image));
    image
}

/// A machine whose only disk is this image.
fn machine<'a>(site: &'a Site, image: &Path, server: &str, table: &str, more: &str) -> Machine<'a> {
    let machine = Machine::scanned(site, "db-1", &[], &[server], more);
    let path = shown(image);
    machine.configure_also(&format!(
        "[[disk]]\nnumber = 0\npath = '{path}'\nsource = 'bitmap'\n{table}"
    ));
    machine
}

/// A qemu-storage-daemon that has the image and serves it to a guest; killed when it is dropped.
struct Daemon {
    child: Child,
    uri: String,
}

impl Daemon {
    fn start(site: &Site, image: &Path) -> Self {
        let (qmp, nbd) = (site.path("qmp"), site.path("nbd"));
        let mut call = Command::new("qemu-storage-daemon");
        let chardev = format!("socket,id=m,path={},server=on,wait=off", shown(&qmp));
        call.args(["--chardev", &chardev, "--monitor", "chardev=m"]);
        let file = format!("driver=file,node-name=f,filename={}", shown(image));
        call.args(["--blockdev", &file, "--blockdev", "driver=qcow2,node-name=disk0,file=f"]);
        call.args(["--nbd-server", &format!("addr.type=unix,addr.path={}", shown(&nbd))]);
        call.args(["--export", "type=nbd,id=g,node-name=disk0,name=guest,writable=on"]);
        let child = call.spawn().expect("qemu-storage-daemon can be started: run `make tools`");
        let uri = format!("nbd+unix:///guest?socket={}", shown(&nbd));
        let daemon = Self { child, uri };
        wait_until("its export", || try_tool(&mut daemon.io(&["read 0 512"])).is_ok());
        daemon
    }

    fn io(&self, commands: &[&str]) -> Command {
        let mut call = Command::new("qemu-io");
        call.args(["-f", "raw"]);
        commands.iter().for_each(|command| _ = call.args(["-c", command]));
        call.arg(&self.uri);
        call
    }

    /// What a guest does.
    fn guest(&self, commands: &[&str]) {
        let said = tool(&mut self.io(commands));
        assert!(!said.contains("failed"), "{said}");
    }

    /// What the guest sees now.
    fn keep(&self, site: &Site, name: &str) -> PathBuf {
        let kept = site.path(name);
        let call = ["convert", "-f", "raw", "-O", "raw", &self.uri];
        tool(Command::new("qemu-img").args(call).arg(&kept));
        kept
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of a pass that was asked for.
#[track_caller]
fn pass(machine: &Machine, name: &str) -> Value {
    machine.pass_call(name).run().success().json()
}

/// Waits for the first pass of an agent.
#[track_caller]
fn wait_for_pass(machine: &Machine) -> Value {
    let mut last = Value::Null;
    machine.wait_until("the end of a pass", |status| {
        last = status["passes"]["last"].clone();
        !last.is_null()
    });
    last
}

#[track_caller]
fn point(machine: &Machine, pass: &Value) -> String {
    machine.wait_until("an epoch", |status| status["epoch"] != 0);
    format!("{}:{}", machine.status()["epoch"], pass["marked"]["lsn"])
}

#[test]
fn a_qcow2_that_a_running_qemu_has_is_replicated_by_increments() {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let server = serve(&site, "127.0.0.1:0");
    let address = server.at();
    let image = image(&site, 32 * MIB);
    let daemon = Daemon::start(&site, &image);
    let (qmp, nbd) = (site.path("qmp"), site.path("nbd"));
    let table = format!("qmp = '{}'\nnbd = 'unix:{}'\nnode = 'disk0'", shown(&qmp), shown(&nbd));
    let machine = machine(&site, &image, &address, &table, "journal-size = '8MiB'");
    let agent = machine.start();
    let first = wait_for_pass(&machine);
    assert_eq!((&first["clean"], &first["changed_bytes"]), (&true.into(), &(32 * MIB).into()));
    let begin = daemon.keep(&site, "kept-0");
    // A guest writes, and only that is read and travels.
    let mut points = vec![(point(&machine, &first), begin)];
    for round in 1..=3 {
        let (write, zero) =
            (format!("write -P {round} {round}M 100k"), format!("write -z {round}0M 64k"));
        daemon.guest(&[&write, &zero, "flush"]);
        let before = machine.status()["captured"].as_u64().expect("a number");
        let done = pass(&machine, &format!("round {round}"));
        assert_eq!(done["clean"], true, "{done}");
        assert_eq!(
            (&done["read_bytes"], &done["changed_bytes"]),
            (&(3 * BLOCK).into(), &(3 * BLOCK).into()),
            "{done}"
        );
        assert_eq!(done["data_bytes"], 2 * BLOCK, "{done}");
        let after = machine.status()["captured"].as_u64().expect("a number");
        assert_eq!(after - before, 5, "a gap, three records, and the bookmark that ends it");
        points.push((point(&machine, &done), daemon.keep(&site, &format!("kept-{round}"))));
    }
    machine.wait_until_committed();
    // Nobody takes what is captured: the drain stands still in its midst when the agent is killed.
    drop(server);
    machine.wait_until("that it notices", |status| status["connected"] == false);
    daemon.guest(&["write -P 77 8M 16M", "flush"]);
    let _asking = machine.pass_call("lost").start();
    let mut same = (0, 0);
    machine.wait_until("that the drain waits", |status| {
        let now = status["backlog_bytes"].as_u64().expect("it is a number");
        same = if now > 2 * MIB && now == same.0 { (now, same.1 + 1) } else { (now, 0) };
        same.1 > 5
    });
    assert!(!machine.status()["passes"]["running"].is_null());
    agent.kill();
    daemon.guest(&["write -P 78 9M 64k", "write -P 79 20M 64k", "flush"]);
    let server = serve(&site, &address);
    let agent = machine.start();
    let done = pass(&machine, "after the kill");
    assert_eq!((&done["clean"], &done["read_bytes"]), (&true.into(), &(16 * MIB).into()), "{done}");
    let changed = done["changed_bytes"].as_u64().expect("a number");
    assert!(changed < 16 * MIB, "what was captured before the kill is captured again: {done}");
    points.push((point(&machine, &done), daemon.keep(&site, "kept-4")));
    machine.wait_until_committed();
    live::stop(agent);
    for (point, kept) in &points {
        machine.assert_recovers_at(point, &[kept]);
    }
    server.stop().success();
    site.verify();
}

#[test]
fn a_qcow2_at_rest_is_replicated_by_the_bitmap_that_qemu_nbd_serves() {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let server = serve(&site, "127.0.0.1:0");
    let image = image(&site, 8 * MIB);
    let (nbd, pid) = (site.path("nbd"), site.path("pid"));
    tool(Command::new("qemu-img").args(["bitmap", "--add"]).arg(&image).arg("b0"));
    let table = format!("nbd = 'unix:{}'\nexport = 'disk'\nbitmap = 'b0'", shown(&nbd));
    let machine = machine(&site, &image, &server.at(), &table, "");
    let before = format!(
        "qemu-nbd --fork -r -k {} -x disk -f qcow2 -B b0 --pid-file {} {}",
        shown(&nbd),
        shown(&pid),
        shown(&image)
    );
    // Nobody has it open then: what was captured needn't be named again.
    let after = format!(
        "while kill $(cat {pid}) 2>/dev/null; do sleep 0.01; done; test $TIDEGATE_PASS = captured && qemu-img bitmap --clear {image} b0",
        pid = shown(&pid),
        image = shown(&image)
    );
    machine.configure_also(&format!(
        "[passes]\nbefore = ['sh', '-c', '{before}']\nafter = ['sh', '-c', '{after}']"
    ));
    let agent = machine.start();
    let first = wait_for_pass(&machine);
    assert_eq!(
        (&first["clean"], &first["read_bytes"]),
        (&true.into(), &(8 * MIB).into()),
        "{first}"
    );
    let mut points = Vec::new();
    for round in 1..=2_u64 {
        let write = format!("write -P {round} {round}M 64k");
        wait_until("that the image is free", || {
            let call = ["-f", "qcow2", "-c", &write, "-c", "write -P 9 7M 4k"];
            try_tool(Command::new("qemu-io").args(call).arg(&image)).is_ok()
        });
        let done = pass(&machine, "");
        // That of the first round isn't named any more in the second; what is written again is as it was.
        let changed = if round == 1 { 2 * BLOCK } else { BLOCK };
        assert_eq!(
            (&done["read_bytes"], &done["changed_bytes"]),
            (&(2 * BLOCK).into(), &changed.into()),
            "{done}"
        );
        assert_eq!(done["clean"], true, "{done}");
        let kept = site.path(&format!("kept-{round}"));
        wait_until("that the image is free", || {
            let call = ["convert", "-f", "qcow2", "-O", "raw"];
            try_tool(Command::new("qemu-img").args(call).arg(&image).arg(&kept)).is_ok()
        });
        points.push((point(&machine, &done), kept));
    }
    machine.wait_until_committed();
    live::stop(agent);
    for (point, kept) in &points {
        machine.assert_recovers_at(point, &[kept]);
    }
    server.stop().success();
}
