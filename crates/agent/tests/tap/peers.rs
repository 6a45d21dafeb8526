//! Clients of other people at a tapped disk: what they do is in the journal.

use std::process::Command;

use crate::chance::Chance;
use crate::world::{DISK_BYTES, PATIENCE, Place, Replay};

/// Runs a tool to its end and gives what it prints; a failure is shown whole.
#[track_caller]
fn tool(name: &str, arguments: &[&str]) -> String {
    // Whatever hangs, the test doesn't.
    let output = Command::new("timeout").arg("60").arg(name).args(arguments).output().unwrap();
    let missing = output.status.code() == Some(127);
    assert!(!missing, "{name} isn't on this machine: `make tools` installs it");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{name} {arguments:?} failed: {text}");
    text
}

#[test]
fn what_nbdcopy_and_qemu_do_to_a_disk_is_in_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path());
    place.make_images();
    let machine = place.create();
    let server = machine.serve();
    let uri = server.address().uri("0");
    let image = folder.path().join("image");
    let mut bytes = vec![0; DISK_BYTES as usize];
    let mut chance = Chance(7);
    for block in bytes.chunks_mut(128 << 10).step_by(3) {
        block.iter_mut().for_each(|byte| *byte = chance.next() as u8);
    }
    std::fs::write(&image, &bytes).unwrap();
    let image = image.to_str().unwrap();
    tool("nbdcopy", &["--connections=4", "--flush", image, &uri]);
    tool("qemu-img", &["compare", "-f", "raw", "-F", "raw", image, &uri]);
    let commands = [
        "write -P 0xab 1000 70000",
        "write -f -P 0xcd 65536 4096",
        "write -z 327680 65536",
        "write -zu 1114112 4096",
        "discard 1572864 65536",
        "flush",
        "read -P 0xab 1000 64536",
        "read -P 0 1572864 65536",
    ];
    let mut arguments: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
    arguments.extend(["-f", "raw", "-d", "unmap", &uri]);
    let shown = tool("qemu-io", &arguments);
    assert!(!shown.contains("failed"), "{shown}");
    let shown = tool("nbdinfo", &["--json", &uri]);
    for told in ["\"can_multi_conn\": true", "\"can_fua\": true", "\"can_trim\": true"] {
        assert!(shown.contains(told), "{told} isn't in {shown}");
    }
    server.stop(PATIENCE);
    let mut replay = Replay::default();
    replay.go_on(&machine.journal, machine.settle());
    replay.assert_equals(&place);
    assert_eq!(replay.disk(0)[1000..65_536], [0xab; 64_536]);
    assert!(replay.disk(0)[1_572_864..1_638_400].iter().all(|byte| *byte == 0));
    machine.close();
}
