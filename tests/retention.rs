//! What is kept of a machine's past, by real processes on a real vault whose packs are made older than
//! they are.

mod support;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::images;
use support::live::{self, Machine};
use support::site::{Site, shown};
use support::terminal::{Lines, at_terminal, terminal};

const MIB: u64 = 1 << 20;

/// Makes every pack, and what is recorded of machines, so many hours old.
fn age_packs(site: &Site, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    for object in ["log", "machines"].map(|folder| files(&site.vault_path().join(folder))).concat()
    {
        let file = File::options().write(true).open(object).expect("it is an object");
        file.set_modified(then).expect("its time can be set");
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("it is a folder");
    let paths = entries.map(|entry| entry.expect("it is listed").path());
    let files = |path: std::path::PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    paths.flat_map(files).collect()
}

fn points(site: &Site) -> Vec<String> {
    let listed = site.call(&["points", "db"]).json();
    let points = listed["points"].as_array().expect("a list").iter();
    points.map(|point| point["point"].as_str().expect("a text").to_owned()).collect()
}

/// A log in which nothing was ever stored doesn't say that it has ended: it would be waited for.
const ONE_LOG: [&str; 2] = ["--cores", "1"];

#[test]
fn what_the_policy_doesnt_keep_goes_and_the_rest_comes_back() {
    let site = Site::with_vault();
    let db = site.disk("db", 4 * MIB + 512);
    let mut before = Vec::new();
    for round in 0..3_u64 {
        // Nothing of a round before is needed for it.
        images::random(&db, 4 * MIB + 512, 77 + round);
        // Several packs a log, whose last one stays.
        site.replicate("db", &[&db]).args(["--pack-size", "1MiB"]).args(ONE_LOG).run().success();
        before = points(&site);
    }
    assert_eq!(before.len(), 3, "{before:?}");
    site.call(&["maintain", "--keep-garbage"]);
    assert_eq!(points(&site), before, "the default keeps what is young");
    age_packs(&site, 200 * 24);
    site.call(&["policy", "set", "--window", "1h", "--all", "2h", "--hourly", "1", "--daily", "0"]);
    site.call(&["policy", "set", "--weekly", "0"]);
    // How old they are was noted when they were folded.
    let kept = site.call(&["maintain", "--anew", "--keep-all", "--keep-garbage"]).json();
    assert_eq!(kept["machines"][0]["points_let_go"], 0, "{kept}");
    assert_eq!(points(&site), before);
    let maintained = site.call(&["maintain"]).json();
    assert_eq!(maintained["machines"][0]["epochs_let_go"], 2, "{maintained}");
    assert_eq!(points(&site), before[2..]);
    site.assert_recovers("db", 0, &db);
    let (to, gone) = (site.path("to"), &before[0]);
    let output = site.command(&["recover", "db", "--at", gone, "--to", shown(&to)]).run().failure();
    output.says(&["nothing of epoch 1 is kept any more"]);
    site.verify();
    // It goes on: another copy is the newest then, and again nothing else is kept.
    site.replicate("db", &[&db]).args(ONE_LOG).run().success();
    assert_eq!(points(&site).len(), 2);
    let packs = || files(&site.vault_path().join("log")).len();
    let before = packs();
    let maintained = site.call(&["maintain"]).json();
    // Two manifests no longer need what was let go.
    assert!(packs() < before, "{maintained}");
    site.assert_recovers("db", 0, &db);
    site.verify();
}

#[test]
fn a_policy_is_shown_as_it_was_set_for_the_vault_or_a_machine() {
    let site = Site::with_vault();
    let shown = |args: &[&str]| site.call(&[&["policy", "show"], args].concat()).json();
    let hourly = |shown: &Value| (shown["from"].clone(), shown["hourly"].clone());
    assert_eq!(hourly(&shown(&[])), ("default".into(), 168.into()));
    site.call(&["policy", "set", "--hourly", "7", "--window", "36h"]);
    site.call(&["policy", "set", "--machine", "db", "--hourly", "9"]);
    assert_eq!(hourly(&shown(&[])), ("vault".into(), 7.into()));
    let machine = shown(&["--machine", "db"]);
    assert_eq!(hourly(&machine), ("machine".into(), 9.into()));
    assert_eq!(machine["window_seconds"], 36 * 3600, "the rest is as the vault's was");
    site.call(&["policy", "set", "--machine", "db", "--as-vault"]);
    assert_eq!(hourly(&shown(&["--machine", "db"])), ("vault".into(), 7.into()));
    let refused = site.command(&["policy", "set", "--all", "4000d"]).run().failure();
    refused.says(&["all points of 4000 days can't be kept"]);
    site.command(&["policy", "set"]).run().failure().says(&["set what?"]);
    let text = support::process::Tidegate::new(["policy", "show", "--vault", site.vault()])
        .args(["--key-file".as_ref(), site.key().as_os_str()])
        .run()
        .success();
    text.says(&["every moment for", "36h", "7 hours"]);
}

#[test]
fn a_removed_machine_is_gone_and_others_keep_what_they_share_with_it() {
    let site = Site::with_vault();
    let (db, web) = (site.disk("db", 3 * MIB), site.disk("web", MIB));
    site.replicate("db", &[&db]).run().success();
    site.replicate("web", &[&web, &db]).run().success();
    site.call(&["maintain"]);
    let remove =
        |more: &[&str]| site.command(&[&["machines", "remove", "db"], more].concat()).run();
    remove(&["--yes"]).failure().says(&["its agent seems to run"]);
    age_packs(&site, 1);
    remove(&[]).failure().says(&["say --yes"]);
    site.command(&["machines", "remove", "nobody", "--yes"]).run().failure().says(&["nobody"]);
    remove(&["--yes"]).success();
    site.command(&["points", "db"]).run().failure().says(&["it was removed"]);
    let left = site.call(&["machines"]).json();
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
    site.assert_recovers("web", 0, &web);
    site.assert_recovers("web", 1, &db);
    site.verify();
    let layers = || files(&site.vault_path().join("machines/db/layers")).len();
    assert!(layers() > 0);
    site.call(&["maintain"]);
    assert_eq!(layers(), 0);
    site.assert_recovers("web", 1, &db);
    site.verify();
    remove(&["--yes"]).failure().says(&["no machine db"]);
    // It may come again, and has then no past.
    site.replicate("db", &[&db]).run().success();
    assert_eq!(points(&site).len(), 1);
    site.assert_recovers("db", 0, &db);
}

/// A question at a terminal; its program is killed when nobody waits for it any more.
struct Question {
    program: Child,
    screen: Lines<File>,
    keyboard: File,
}

impl Question {
    /// `machines remove db`, up to where it asks for the name.
    #[track_caller]
    fn of_removal(site: &Site) -> Self {
        let (keyboard, theirs) = terminal();
        let (key, vault) = (site.key(), site.vault());
        let args = ["machines", "remove", "db", "--vault", vault, "--key-file", shown(&key)];
        let program = at_terminal(&theirs, &args).spawn().expect("setsid of util-linux is there");
        let screen = Lines(keyboard.try_clone().expect("it can be shared"));
        let mut question = Self { program, screen, keyboard };
        question.screen.wait_for("Type its name again to remove it: ");
        question
    }

    /// Answers, and waits until something is said; gives the status.
    #[track_caller]
    fn answered(mut self, answer: &str, said: &str) -> Option<i32> {
        self.keyboard.write_all(answer.as_bytes()).expect("it can be typed");
        self.screen.wait_for(said);
        self.program.wait().expect("it can be waited for").code()
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[test]
fn whoever_types_another_name_removes_nothing_nor_does_who_types_it_when_the_agent_has_come() {
    let site = Site::with_vault();
    let db = site.disk("db", MIB);
    site.replicate("db", &[&db]).run().success();
    age_packs(&site, 1);
    let wrong =
        Question::of_removal(&site).answered("web\n", "'web' isn't db: nothing was removed");
    assert_eq!((wrong, points(&site).len()), (Some(2), 1));
    let question = Question::of_removal(&site);
    site.replicate("db", &[&db]).run().success();
    assert_eq!(question.answered("db\n", "its agent seems to run"), Some(2));
    assert_eq!(points(&site).len(), 2);
    age_packs(&site, 1);
    assert_eq!(Question::of_removal(&site).answered("db\n", "db is removed"), Some(0));
    site.command(&["points", "db"]).run().failure().says(&["it was removed"]);
}

#[test]
fn the_agent_of_a_removed_machine_is_told_and_begins_anew_and_its_past_is_deleted() {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let options = ["--memory", "256MiB", "--lists-interval", "1"];
    let server = site.server_at("127.0.0.1:0").args(options).serve();
    let machine = Machine::new(&site, "db", &[site.disk("db", 3 * MIB)], &[&server.at()], "");
    let agent = machine.start();
    machine.wait_for_copy();
    machine.bookmark("before");
    machine.wait_until_committed();
    let remove = || site.command(&["machines", "remove", "db", "--yes"]).run();
    remove().failure().says(&["its agent seems to run"]);
    live::stop(agent);
    site.call(&["maintain"]);
    age_packs(&site, 1);
    remove().success();
    assert_eq!(site.call(&["machines"]).json(), Value::Array(Vec::new()));
    site.verify();
    // What it had wasn't sent: it would be under what was removed.
    let agent = machine.start();
    agent.wait_for_line("why it begins anew", Duration::from_secs(60), |line| {
        line.contains("isn't kept any more")
    });
    machine.wait_until_served();
    machine.wait_until("another epoch", |status| status["epoch"].as_u64() > Some(1));
    machine.wait_for_copy();
    machine.bookmark("after");
    machine.wait_until_committed();
    let points = points(&site);
    assert!(points.iter().all(|point| !point.starts_with("1:")), "{points:?}");
    machine.assert_recovers_at(points.last().expect("a point"), &machine.disks);
    site.command(&["recover", "db", "--at", "1:1", "--to", shown(&site.path("to"))])
        .run()
        .failure();
    // Its layers go at once, its packs when every log has read the list.
    support::refusals::wait_until("that its past is deleted", || {
        let garbage = site.call(&["maintain"]).json()["garbage"].clone();
        garbage["packs_removed"].as_u64() > Some(0)
    });
    live::stop(agent);
    server.stop().success();
    machine.assert_recovers_at(points.last().expect("a point"), &machine.disks);
    site.verify();
}
