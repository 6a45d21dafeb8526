//! Packs cut short, changed by one bit, swapped or missing: `verify` and `recover` say which, what
//! is wrong, whom it touches and what to do; a recovery never gives wrong bytes; and what doesn't
//! stand on that pack comes back.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::images;
use support::process::{Output, Tidegate};
use support::refusals::shown;
use support::site::Site;

const MIB: u64 = 1 << 20;
const DISK: u64 = 24 * MIB; // more than one pack holds
/// What a person is told to do, and the exit status for damage in what is stored.
const DO: &str = "from a copy of the vault";
const DAMAGED: Option<i32> = Some(3);

/// A machine that was copied twice, into a log each. The second copy keeps only what had changed
/// and refers to the first for the rest.
struct Twice {
    site: Site,
    first: PathBuf,
    second: PathBuf,
    points: [String; 2],
    /// The packs of both logs, by their numbers.
    packs: [Vec<PathBuf>; 2],
}

impl Twice {
    #[track_caller]
    fn new() -> Self {
        let site = Site::with_vault();
        let first = site.disk("first", DISK);
        let second = site.path("second.img");
        images::copy(&first, &second);
        images::patch(
            &second,
            5 * MIB,
            &fs::read(site.disk("change", 2 * MIB)).expect("it is there"),
        );
        let copy = |disk: &Path| {
            let before = site.packs();
            // On one core, so that all its packs are in one log.
            site.replicate("db", &[disk]).args(["--cores", "1"]).run().success();
            let new = site.packs().into_iter().filter(|pack| !before.contains(pack));
            (site.last_point("db"), new.collect::<Vec<_>>())
        };
        let ((a, of_a), (b, of_b)) = (copy(&first), copy(&second));
        assert!(of_a.len() >= 3, "two packs of data and the end of the log: {of_a:?}");
        Self { site, first, second, points: [a, b], packs: [of_a, of_b] }
    }

    /// A pack's name in the vault.
    fn name(&self, pack: &Path) -> String {
        shown(pack.strip_prefix(self.site.vault_path()).expect("it is in the vault")).to_owned()
    }

    /// What a command that succeeds prints without --json.
    #[track_caller]
    fn for_people(&self, args: &[&str]) -> Output {
        let key = ["--key-file".into(), self.site.key()];
        Tidegate::new(args).args(["--vault", self.site.vault()]).args(key).run().success()
    }

    /// `verify` finds the damage, and says what it is and whom it touches.
    #[track_caller]
    fn verify_tells(&self, options: &[&str], words: &[&str]) -> Output {
        let output = self.site.command(&["verify"]).args(options).run().failure().says(words);
        let output = output.says(&["machine db", DO]);
        assert_eq!(output.status.code(), DAMAGED, "{output}");
        output
    }

    /// The point can't be had, and why is told.
    #[track_caller]
    fn recover_tells(&self, point: usize, words: &[&str]) {
        let output = self.site.fails_to_recover("db", &self.points[point]);
        let output = output.says(words).says(&["db", "tidegate verify --contents", DO]);
        assert_eq!(output.status.code(), DAMAGED, "{output}");
    }

    #[track_caller]
    fn assert_first_recovers(&self) {
        self.site.assert_recovers_at("db", &self.points[0], &self.first);
    }

    /// Everything is as it was before.
    #[track_caller]
    fn assert_whole(&self) {
        self.assert_first_recovers();
        self.site.assert_recovers_at("db", &self.points[1], &self.second);
        self.site.verify();
    }
}

/// Does something to a pack while `look` looks, and undoes it.
#[track_caller]
fn with_damage(pack: &Path, damage: impl FnOnce(&Path), look: impl FnOnce()) {
    let whole = fs::read(pack).expect("a pack can be read");
    damage(pack);
    look();
    fs::write(pack, whole).expect("a pack can be written");
}

/// Changes one bit.
fn flip(pack: &Path, offset: u64) {
    let mut bytes = fs::read(pack).expect("a pack can be read");
    bytes[usize::try_from(offset).expect("a pack fits memory")] ^= 1;
    fs::write(pack, bytes).expect("a pack can be written");
}

fn cut(pack: &Path, bytes: u64) {
    let pack = fs::OpenOptions::new().write(true).open(pack);
    pack.and_then(|pack| pack.set_len(bytes)).expect("a pack can be cut");
}

fn length(pack: &Path) -> u64 {
    pack.metadata().expect("a pack is there").len()
}

#[test]
fn a_pack_cut_short_is_named_wherever_it_was_cut() {
    let twice = Twice::new();
    let pack = &twice.packs[1][0];
    let name = twice.name(pack);
    for bytes in [0, 100, 160, 300, length(pack) / 2, length(pack) - 1] {
        with_damage(
            pack,
            |pack| cut(pack, bytes),
            || {
                let output = twice.verify_tells(&[], &[&name, "cut"]);
                assert_eq!(output.json()["clean"], false, "{output}");
                twice.recover_tells(1, &[&name, "cut"]);
                twice.assert_first_recovers();
            },
        );
    }
    // Cut in the log that both points stand on.
    let pack = &twice.packs[0][0];
    let name = twice.name(pack);
    with_damage(
        pack,
        |pack| cut(pack, length(pack) / 2),
        || {
            twice.verify_tells(&[], &[&name, "cut", &twice.points[0], &twice.points[1]]);
            twice.recover_tells(0, &[&name, "cut"]);
            twice.recover_tells(1, &[&name, "cut", "of disk 0 of db"]);
        },
    );
    twice.assert_whole();
}

#[test]
fn one_changed_bit_in_any_field_of_a_header_is_found_and_named() {
    let twice = Twice::new();
    let pack = &twice.packs[1][0];
    let name = twice.name(pack);
    // Where the fields of docs/formats/pack.md, "Header", lie.
    for offset in [0, 8, 10, 12, 16, 32, 48, 50, 56, 64, 72, 76, 80, 88, 104, 136, 159] {
        eprintln!("a bit of byte {offset}");
        with_damage(
            pack,
            |pack| flip(pack, offset),
            || {
                twice.verify_tells(&[], &[&name]);
                twice.recover_tells(1, &[&name]);
                twice.assert_first_recovers();
            },
        );
    }
    twice.assert_whole();
}

#[test]
fn one_changed_bit_of_an_index_is_found_by_every_verify() {
    let twice = Twice::new();
    for (log, points) in [(1, &[1][..]), (0, &[0, 1])] {
        let pack = &twice.packs[log][0];
        let name = twice.name(pack);
        with_damage(
            pack,
            |pack| flip(pack, 200),
            || {
                twice.verify_tells(&[], &[&name, "is damaged", "digest"]);
                for point in points {
                    twice.recover_tells(*point, &[&name, "is damaged", "digest"]);
                }
                if log == 1 {
                    twice.assert_first_recovers();
                }
            },
        );
    }
    twice.assert_whole();
}

#[test]
fn one_changed_bit_of_a_frame_is_found_by_verify_contents_and_by_recover() {
    let twice = Twice::new();
    let pack = &twice.packs[1][0];
    let name = twice.name(pack);
    with_damage(
        pack,
        |pack| flip(pack, length(pack) - 100),
        || {
            // Without --contents no frame is read, and that is said.
            let quick = twice.for_people(&["verify"]);
            quick.says(&["--contents reads every frame"]);
            let words = [name.as_str(), "frame", "it was changed"];
            let output = twice.verify_tells(&["--contents"], &words);
            output.says(&[&twice.points[1]]);
            twice.recover_tells(1, &[&name, "frame", "it was changed", "of disk 0 of db"]);
            twice.assert_first_recovers();
        },
    );
    twice.assert_whole();
}

#[test]
fn packs_that_were_swapped_are_known_by_their_place() {
    let twice = Twice::new();
    let [pack, next] = [&twice.packs[0][0], &twice.packs[0][1]];
    let (name, next_name) = (twice.name(pack), twice.name(next));
    let elsewhere = "is another pack than the one that belongs here";
    with_damage(
        next,
        |next| fs::copy(pack, next).map(drop).unwrap(),
        || {
            twice.verify_tells(&[], &[&next_name, elsewhere, "of another number"]);
            twice.recover_tells(0, &[&next_name, elsewhere]);
            twice.recover_tells(1, &[&next_name, elsewhere]);
        },
    );
    let other = &twice.packs[1][0];
    let other_name = twice.name(other);
    with_damage(
        other,
        |other| fs::copy(pack, other).map(drop).unwrap(),
        || {
            twice.verify_tells(&[], &[&other_name, elsewhere, "of another log"]);
            twice.recover_tells(1, &[&other_name, elsewhere]);
            twice.assert_first_recovers();
        },
    );
    let stranger = Site::with_vault();
    stranger.replicate("db", &[&twice.first]).run().success();
    let foreign = &stranger.packs()[0];
    with_damage(
        pack,
        |pack| fs::copy(foreign, pack).map(drop).unwrap(),
        || {
            twice.verify_tells(&[], &[&name, elsewhere, "of another vault"]);
            twice.recover_tells(1, &[&name, elsewhere, "of another vault"]);
        },
    );
    twice.assert_whole();
}

#[test]
fn a_missing_pack_is_named_with_the_points_that_it_touches() {
    let twice = Twice::new();
    let remove = |pack: &Path| fs::remove_file(pack).unwrap();
    let pack = &twice.packs[1][0];
    let name = twice.name(pack);
    with_damage(pack, remove, || {
        twice.verify_tells(&[], &[&name, "is missing"]);
        twice.recover_tells(1, &[&name, "is missing"]);
        // The latest that there is isn't the latest that there was.
        let to = twice.site.path("older");
        let older = twice.site.recover("db", "latest", &to).run().success();
        older.says(&["warning", "a later copy isn't offered", "epoch 2"]);
        support::compare::assert_same(&twice.first, &to);
        let listed = twice.for_people(&["points", "db"]);
        listed.says(&["damaged", &name, "is missing", "tidegate verify"]);
        twice.assert_first_recovers();
    });
    for pack in &twice.packs[0][..2] {
        let name = twice.name(pack);
        with_damage(pack, remove, || {
            twice.verify_tells(&[], &[&name, "is missing", &twice.points[1]]);
            twice.recover_tells(0, &[&name, "is missing"]);
            twice.recover_tells(1, &[&name, "is missing", "of disk 0 of db"]);
        });
    }
    twice.assert_whole();
}

#[test]
fn points_that_refer_to_a_pack_of_another_machine_are_not_offered_without_it() {
    let twice = Twice::new();
    let site = &twice.site;
    site.replicate("other", &[&twice.first]).args(["--cores", "1"]).run().success();
    let point = site.last_point("other");
    let counted = || {
        let machines = site.call(&["machines"]).json();
        let machines = machines.as_array().expect("it is a list");
        let other = machines.iter().find(|machine| machine["machine"] == "other");
        other.expect("other is there")["points"].as_u64()
    };
    assert_eq!(counted(), Some(1));
    let pack = &twice.packs[0][0];
    let name = twice.name(pack);
    let remove = |pack: &Path| fs::remove_file(pack).unwrap();
    type Damage<'a> = (&'a dyn Fn(&Path), &'a str);
    let damages: [Damage<'_>; 4] = [
        (&|pack| flip(pack, 80), &name),
        (&|pack| flip(pack, 200), "digest"),
        (&|pack| cut(pack, length(pack) - 1), "cut"),
        (&remove, "is missing"),
    ];
    for (damage, word) in damages {
        with_damage(pack, damage, || {
            let listed = site.call(&["points", "other"]);
            assert_eq!(listed.json()["points"].as_array().map(Vec::len), Some(0), "{listed}");
            let damaged = listed.json()["damage"].as_array().cloned().expect("it is a list");
            assert_eq!(damaged.len(), 1, "{listed}");
            let listed = twice.for_people(&["points", "other"]);
            listed.says(&["not offered", "damaged", &name, word, "tidegate verify"]);
            assert_eq!(counted(), Some(0));
            site.fails_to_recover("other", &point).says(&[&name]);
        });
    }
    site.assert_recovers_at("other", &point, &twice.first);
    assert_eq!(site.call(&["points", "other"]).json()["points"][0]["point"], point);
    twice.assert_whole();
}

#[test]
fn a_damaged_record_of_an_epoch_or_session_is_named_and_costs_only_what_stands_on_it() {
    let twice = Twice::new();
    let epoch = |n| twice.site.vault_path().join(format!("machines/db/epochs/{n:020}"));
    for (damaged, left) in [(1, 1), (2, 0)] {
        let path = epoch(damaged);
        let name = twice.name(&path);
        with_damage(
            &path,
            |path| flip(path, 70),
            || {
                twice.verify_tells(&[], &[&name, "is damaged", &twice.points[1 - left]]);
                twice.recover_tells(1 - left, &[&name, "the record of epoch"]);
                let disk = [&twice.first, &twice.second][left];
                twice.site.assert_recovers_at("db", &twice.points[left], disk);
                let listed = twice.for_people(&["points", "db"]);
                listed.says(&["damaged", &name, "not offered", "its record is damaged"]);
            },
        );
    }
    twice.assert_whole();
}

#[test]
fn a_log_that_lost_its_end_is_told_though_nothing_else_speaks_of_it() {
    let twice = Twice::new();
    let log = &twice.packs[1];
    let kept: Vec<_> = log.iter().map(|pack| fs::read(pack).unwrap()).collect();
    let name = twice.name(&log[0]);
    let folder = name.rsplit_once('/').expect("a pack lies in a folder").0;
    let open = || {
        let output = twice.site.command(&["verify"]).run().success().json();
        assert_eq!(output["clean"], true, "{output}");
        output["open_logs"].as_array().expect("it is a list").clone()
    };
    assert_eq!(open().len(), 0);
    // From its end on, until nothing is left.
    for left in (0..log.len()).rev() {
        fs::remove_file(&log[left]).unwrap();
        let open = open();
        assert_eq!(open.len(), 1, "{open:?}");
        assert_eq!(open[0]["log"], folder, "{open:?}");
        assert_eq!(open[0]["after_pack"].as_u64(), left.checked_sub(1).map(|pack| pack as u64));
        let known = match left {
            0 => "it has no packs".to_owned(),
            _ => format!("what came after pack {} isn't known", left - 1),
        };
        twice.for_people(&["verify"]).says(&["1 log has no closing pack", folder, &known]);
    }
    for (pack, bytes) in log.iter().zip(kept) {
        fs::write(pack, bytes).unwrap();
    }
    twice.assert_whole();
}
