//! Recovery points mounted over NBD: the same bytes as `recover` writes, for the clients that there
//! are; writes that survive in an overlay; damage that fails the reads that need it.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::compare::{allocated_bytes, assert_same};
use support::images;
use support::mounted::{Mounted, qemu_io, run, tried};
use support::nbd_client::NbdClient;
use support::random::{self, Rng};
use support::site::{Site, shown};

const MIB: u64 = 1 << 20;
/// `NBD_EIO`.
const IO_ERROR: u32 = 5;

/// A machine with three disks that was copied twice: of odd sizes, with holes and zeros, and changed
/// in between; the first point, and the disks then and now.
struct Machine {
    site: Site,
    first_point: String,
    first: Vec<PathBuf>,
    now: Vec<PathBuf>,
}

impl Machine {
    #[track_caller]
    fn new(seed: u64) -> Self {
        let site = Site::with_vault();
        let sizes = [40 * MIB + 12_345, 3 * MIB + 511, 300 * MIB];
        let disk = |name: &str, number: usize| site.path(&format!("{name}-{number}"));
        let first: Vec<_> = (0..3).map(|number| disk("first", number)).collect();
        images::random(&first[0], sizes[0], seed);
        images::patch(&first[0], 7 * MIB, &vec![0; 5 << 20]);
        images::random(&first[1], sizes[1], seed ^ 1);
        let places = [(0, 4096), (100 * MIB - 1000, 70_000), (300 * MIB - 4096, 4096)];
        images::sparse(&first[2], sizes[2], &places, seed ^ 2);
        let copy = |disks: &[PathBuf]| {
            let disks: Vec<&Path> = disks.iter().map(PathBuf::as_path).collect();
            site.replicate("db", &disks).run().success();
        };
        copy(&first);
        let first_point = site.last_point("db");
        let now: Vec<_> = (0..3).map(|number| disk("now", number)).collect();
        let mut rng = Rng::new(seed);
        for (first, now) in first.iter().zip(&now) {
            images::copy(first, now);
            let bytes = fs::metadata(now).expect("it is there").len();
            for _ in 0..40 {
                let mut data =
                    vec![0; usize::try_from(1 + rng.below(200_000)).expect("it is short")];
                if rng.below(3) > 0 {
                    rng.fill(&mut data);
                }
                images::patch(now, rng.below(bytes - data.len() as u64), &data);
            }
        }
        copy(&now);
        Self { site, first_point, first, now }
    }
}

/// Every disk of a mount is what `recover` brings back of the same point, and what was copied.
#[track_caller]
fn same_as_recovered(site: &Site, mounted: &Mounted, at: &str, disks: &[PathBuf]) {
    let folder = site.path("recovered");
    site.call(&["recover", "db", "--at", at, "--to", shown(&folder)]);
    for (number, disk) in disks.iter().enumerate() {
        let recovered = folder.join(format!("disk-{number}.img"));
        assert_same(disk, &recovered);
        let copy = site.path("copy");
        mounted.copied(&number.to_string(), &copy);
        assert_same(&recovered, &copy);
        let holds = allocated_bytes(&recovered);
        assert!(allocated_bytes(&copy) <= holds + MIB, "disk {number}: nbdcopy left no holes");
        fs::remove_file(&copy).expect("it can be removed");
        let uri = mounted.uri(&number.to_string());
        run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &uri, shown(&copy)]);
        assert_same_but_for_the_last_sector(&recovered, &copy);
        assert!(allocated_bytes(&copy) <= holds + MIB, "disk {number}: qemu-img left no holes");
        fs::remove_file(&copy).expect("it can be removed");
    }
    fs::remove_dir_all(&folder).expect("it can be removed");
}

/// What of the sparse disk isn't data is told to be a hole: clients needn't look for zeros.
#[track_caller]
fn holes_are_told(site: &Site) {
    let mounted = site.mounted("db", &["--overlay", shown(&site.path("holes"))]);
    let data = |when: &str| {
        let map = run("nbdinfo", &["--map", "--json", &mounted.uri("2")]);
        let map: Vec<Value> = serde_json::from_str(&map).expect("it is JSON");
        let length = |span: &Value| span["length"].as_u64().expect("each has a length");
        assert_eq!(map.iter().map(length).sum::<u64>(), 300 * MIB, "{when}: {map:?}");
        map.iter().filter(|span| span["type"] == 0).map(length).sum::<u64>()
    };
    let before = data("before");
    assert!((MIB..20 * MIB).contains(&before), "{before} bytes of data");
    qemu_io(&mounted.uri("2"), &["write 209715200 1048576", "write -zu 211812352 1048576"]);
    let after = data("after");
    assert!((before + MIB / 2..=before + MIB).contains(&after), "{after} after {before}");
    qemu_io(&mounted.uri("2"), &["discard 0 209715200", "discard 210763776 103809024"]);
    assert_eq!(data("at last"), MIB);
    mounted.stop();
}

/// qemu-img knows whole sectors only: what it makes may be longer, by zeros.
#[track_caller]
fn assert_same_but_for_the_last_sector(left: &Path, right: &Path) {
    let bytes = fs::metadata(left).expect("it is there").len();
    let longer = fs::metadata(right).expect("it is there").len() - bytes;
    assert!(longer < 512, "{longer} bytes too many");
    let file = fs::OpenOptions::new().write(true).open(right).expect("it can be opened");
    file.set_len(bytes).expect("it can be cut");
    assert_same(left, right);
}

#[test]
fn a_mounted_point_is_what_recover_writes_for_every_client_and_disk() {
    let Machine { site, first_point, first, now } = Machine::new(random::seed());
    for (options, at, disks) in
        [(vec![], "latest", &now), (vec!["--at", &first_point], first_point.as_str(), &first)]
    {
        let mounted = site.mounted("db", &options);
        same_as_recovered(&site, &mounted, at, disks);
        mounted.stop();
        assert!(!site.socket().exists(), "the socket stayed");
    }
    holes_are_told(&site);
    // With the least memory.
    let refused = site.mount("db", &["--memory", "1MiB"]).run().refused(&["is too little: give"]);
    let least = refused.stderr.split("give ").nth(1).and_then(|rest| rest.split(' ').next());
    let mounted = site.mounted("db", &["--memory", least.expect("it is told")]);
    same_as_recovered(&site, &mounted, "latest", &now);
    mounted.stop();
}

#[test]
fn every_disk_is_an_export_by_number_and_name_and_the_first_is_the_default() {
    let Machine { site, now, .. } = Machine::new(1);
    let mounted = site.mounted("db", &[]);
    let list = run("nbdinfo", &["--list", "--json", &mounted.uri("")]);
    let names = ["", "0", "1", "2"].map(str::to_owned).into_iter();
    for name in names.chain(now.iter().map(|disk| shown(disk).to_owned())) {
        let told = format!("\"export-name\": \"{name}\"");
        assert!(list.contains(&told), "{told} isn't in {list}");
    }
    assert!(list.contains("\"is_read_only\": true") && list.contains("base:allocation"), "{list}");
    for (number, disk) in now.iter().enumerate() {
        let bytes = fs::metadata(disk).expect("it is there").len();
        for name in [number.to_string(), shown(disk).to_owned()] {
            let client = NbdClient::connect(&mounted.socket, &name);
            assert_eq!(client.bytes, bytes);
            assert_ne!(client.flags & NbdClient::READ_ONLY, 0);
        }
        let exports = &mounted.told["exports"][number];
        assert_eq!(exports["bytes"], bytes);
        assert_eq!(exports["name"], shown(disk));
        let size = run("nbdinfo", &["--size", mounted.told_uri(number)]);
        assert_eq!(size.trim(), bytes.to_string());
    }
    let first = NbdClient::connect(&mounted.socket, "").bytes;
    assert_eq!(first, fs::metadata(&now[0]).expect("it is there").len());
    mounted.stop();
    let mounted = site.mounted_on_a_port("db");
    let copy = site.path("copy");
    run("nbdcopy", &[mounted.told_uri(1), shown(&copy)]);
    assert_same(&now[1], &copy);
    mounted.stop();
    let mounted = site.mounted("db", &["--disk", "2"]);
    assert_eq!(NbdClient::connect(&mounted.socket, "").bytes, 300 * MIB);
    let (success, shown) = tried("nbdinfo", &[&mounted.uri("1")]);
    assert!(!success, "{shown}");
    mounted.stop();
}

/// Reads at random places on several connections at once, each compared.
#[track_caller]
fn reads_agree(mounted: &Mounted, disks: &[PathBuf], seed: u64, reads: u64) {
    let disks: Vec<Vec<u8>> =
        disks.iter().map(|disk| fs::read(disk).expect("it can be read")).collect();
    std::thread::scope(|scope| {
        for connection in 0..6 {
            let disks = &disks;
            scope.spawn(move || {
                let mut rng = Rng::new(seed ^ connection);
                let number = usize::try_from(connection % 3).expect("a small number");
                let mut client = NbdClient::connect(&mounted.socket, &number.to_string());
                let disk = &disks[number];
                for _ in 0..reads {
                    let offset = rng.below(disk.len() as u64);
                    let most = (1 + rng.below(300_000)).min(disk.len() as u64 - offset);
                    let count = usize::try_from(most).expect("it is short");
                    let begin = usize::try_from(offset).expect("a disk of a test fits memory");
                    let found = client.read(offset, count).expect("nothing is damaged");
                    assert!(
                        found == disk[begin..begin + count],
                        "{count} bytes at {offset} differ"
                    );
                }
            });
        }
    });
}

#[test]
fn scattered_reads_of_many_connections_agree_while_the_machine_goes_on_replicating() {
    let seed = random::seed();
    let Machine { site, now, first, .. } = Machine::new(seed);
    let mounted = site.mounted("db", &[]);
    std::thread::scope(|scope| {
        let again = scope.spawn(|| {
            let disks: Vec<&Path> = first.iter().map(PathBuf::as_path).collect();
            site.replicate("db", &disks).run().success();
        });
        reads_agree(&mounted, &now, seed, 300);
        again.join().expect("the copy succeeds");
    });
    reads_agree(&mounted, &now, seed ^ 77, 100);
    mounted.stop();
}

#[test]
fn what_is_written_goes_to_the_overlay_and_what_was_flushed_survives_a_kill() {
    let Machine { site, now, .. } = Machine::new(random::seed());
    let overlay = site.path("overlay");
    let options = ["--overlay", shown(&overlay)];
    let mounted = site.mounted("db", &options);
    qemu_io(
        &mounted.uri("0"),
        &[
            "write -P 0xab 1000 70000",
            "write -z 8388608 1048576",
            "discard 20971520 65536",
            "write -f -P 0xcd 41943040 12288",
            "read -P 0xab 1000 70000",
        ],
    );
    qemu_io(&mounted.uri("2"), &["write -P 0x11 104857600 65536", "flush"]);
    mounted.kill();
    // What a dead server leaves at its socket is no hindrance.
    let mounted = site.mounted("db", &options);
    assert!(mounted.told["overlay_bytes"].as_u64() > Some(0), "{}", mounted.told);
    let mut expected: Vec<Vec<u8>> =
        now.iter().map(|disk| fs::read(disk).expect("it can be read")).collect();
    expected[0][1000..71_000].fill(0xab);
    expected[0][8 << 20..9 << 20].fill(0);
    expected[0][20 << 20..(20 << 20) + 65_536].fill(0);
    expected[0][40 << 20..(40 << 20) + 12_288].fill(0xcd);
    expected[2][100 << 20..(100 << 20) + 65_536].fill(0x11);
    holds(&site, &mounted, &expected);
    // Not flushed by the client, but by a stop that was asked for.
    NbdClient::connect(&mounted.socket, "1").write(100, &[0x77; 5000]);
    expected[1][100..5100].fill(0x77);
    mounted.stop();
    let mounted = site.mounted("db", &options);
    holds(&site, &mounted, &expected);
    mounted.stop();
    // The point itself is as it was.
    let mounted = site.mounted("db", &[]);
    same_as_recovered(&site, &mounted, "latest", &now);
    let (success, shown) = tried("qemu-io", &["-c", "write 0 512", "-f", "raw", &mounted.uri("0")]);
    assert!(!success || shown.to_lowercase().contains("read-only"), "{shown}");
    mounted.stop();
}

/// Every disk of a mount holds these bytes.
#[track_caller]
fn holds(site: &Site, mounted: &Mounted, expected: &[Vec<u8>]) {
    let copy = site.path("copy");
    for (number, bytes) in expected.iter().enumerate() {
        mounted.copied(&number.to_string(), &copy);
        let found = fs::read(&copy).expect("it can be read");
        let differs = found.iter().zip(bytes).position(|(found, byte)| found != byte);
        assert_eq!((found.len(), differs), (bytes.len(), None), "disk {number}");
        fs::remove_file(&copy).expect("it can be removed");
    }
}

#[test]
fn an_overlay_of_another_point_or_vault_or_in_use_is_refused_and_left_as_it_is() {
    let Machine { site, first_point, .. } = Machine::new(2);
    let overlay = site.path("overlay");
    let options = ["--overlay", shown(&overlay)];
    let mounted = site.mounted("db", &options);
    qemu_io(&mounted.uri("0"), &["write -P 0xab 0 4096", "flush"]);
    let point = site.last_point("db");
    let second = site.mount_at("tcp:127.0.0.1:0", "db", &options);
    second.run().refused(&["is in use", "end that first"]);
    mounted.stop();
    let before = fs::read(&overlay).expect("it can be read");
    let words = ["is the overlay of db", &format!("--at {point}"), "another file"];
    site.mount("db", &[&options[..], &["--at", &first_point]].concat()).run().refused(&words);
    site.mount("db", &[&options[..], &["--disk", "1"]].concat()).run().refused(&["same disks"]);
    let other = Site::with_vault();
    other.replicate("db", &[&other.disk("db", MIB)]).run().success();
    other.mount("db", &options).run().refused(&["is the overlay of db", "another file"]);
    assert!(fs::read(&overlay).expect("it can be read") == before, "it was changed");
    fs::write(&overlay, b"something of the user's").expect("it can be written");
    site.mount("db", &options).run().refused(&["it is no overlay", "left as it is"]);
    assert_eq!(fs::read(&overlay).expect("it can be read"), b"something of the user's");
}

#[test]
fn a_pack_that_is_damaged_or_missing_fails_the_reads_that_need_it_and_no_others() {
    let site = Site::with_vault();
    let disk = site.disk("db", 48 * MIB);
    site.replicate("db", &[&disk]).args(["--cores", "1"]).run().success();
    let packs = site.packs();
    assert!(packs.len() >= 4, "several packs of data: {packs:?}");
    let bytes = fs::read(&disk).expect("it can be read");
    for (pack, damage) in [
        (&packs[1], &(|pack: &Path| damaged_in_the_middle(pack)) as &dyn Fn(&Path)),
        (&packs[2], &|pack: &Path| fs::remove_file(pack).expect("a pack can be removed")),
    ] {
        let whole = fs::read(pack).expect("a pack can be read");
        let mounted = site.mounted("db", &[]);
        damage(pack);
        let mut client = NbdClient::connect(&mounted.socket, "0");
        let mut failed = 0;
        for (at, block) in bytes.chunks(64 << 10).enumerate() {
            match client.read((at * (64 << 10)) as u64, block.len()) {
                Ok(found) => assert!(found == block, "wrong bytes at block {at}"),
                Err(error) => {
                    assert_eq!(error, IO_ERROR);
                    failed += 1;
                }
            }
        }
        assert!((1..=17 * 16).contains(&failed), "{failed} blocks failed");
        let name = pack.strip_prefix(site.vault_path()).expect("it is in the vault");
        let printed = mounted.printed();
        let lines = printed.lines().filter(|line| line.contains("a read of the mounted point"));
        let lines: Vec<_> = lines.collect();
        assert!(
            !lines.is_empty() && lines.iter().all(|line| line.contains(shown(name))),
            "{printed}"
        );
        // Put back, it is read at once.
        fs::write(pack, whole).expect("a pack can be written");
        assert!(client.read(0, 1 << 20).expect("nothing is damaged") == bytes[..1 << 20]);
        let copy = site.path("copy");
        mounted.copied("0", &copy);
        assert_same(&disk, &copy);
        fs::remove_file(&copy).expect("it can be removed");
        mounted.stop();
    }
}

fn damaged_in_the_middle(pack: &Path) {
    let mut bytes = fs::read(pack).expect("a pack can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(pack, bytes).expect("a pack can be written");
}

#[test]
fn what_cannot_be_mounted_is_refused_with_what_to_do() {
    let site = Site::with_vault();
    site.replicate("db", &[&site.disk("db", MIB)]).run().success();
    site.mount("db", &["--at", "yesterday"]).run().refused(&["--at", "yesterday"]);
    site.mount("db", &["--disk", "3"]).run().refused(&["has no disk 3", "it has 0"]);
    site.mount("nobody", &[]).run().failure().says(&["nobody"]);
    let wrong = site.command(&["mount", "db", "--nbd", "/run/x"]).run();
    wrong.refused(&["is no address for NBD", "unix:PATH"]);
    let mounted = site.mounted("db", &[]);
    site.mount("db", &[]).run().refused(&["in use", "another address"]);
    mounted.stop();
}
