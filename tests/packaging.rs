//! What is shipped beside the program says the truth: the seccomp profile lets the program run and
//! little else, the compose file parses and refers to what is there, and the report on the host
//! finds what differs.

mod support;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use support::process::Tidegate;
use support::{compare, faults, images, repository, scratch};
use yaml_rust2::{Yaml, YamlLoader};

fn text_of(path: &str) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn profile() -> Value {
    serde_json::from_str(&text_of("docker/seccomp.json")).expect("the profile is JSON")
}

/// The names that the profile allows.
fn allowed() -> Vec<String> {
    let profile = profile();
    let groups = profile["syscalls"].as_array().expect("it has groups of calls");
    let names = groups.iter().flat_map(|group| group["names"].as_array().expect("with names"));
    names.map(|name| name.as_str().expect("which are texts").to_owned()).collect()
}

/// The numbers of calls by their names, as the kernel's header has them.
fn numbers() -> HashMap<String, i64> {
    let header = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";
    let text = fs::read_to_string(header).expect("linux-libc-dev is there: run `make tools`");
    let lines = text.lines().filter_map(|line| line.strip_prefix("#define __NR_"));
    let pairs = lines.filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?))).collect()
}

#[test]
fn the_profile_refuses_by_default_and_allows_io_uring_and_no_call_twice() {
    let profile = profile();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let names = allowed();
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(names.iter().any(|allowed| allowed == name), "{name} isn't allowed");
    }
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a call is there twice");
    for dangerous in ["ptrace", "bpf", "mount", "init_module", "keyctl", "perf_event_open"] {
        assert!(!names.iter().any(|allowed| allowed == dangerous), "{dangerous} is allowed");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_program_runs_under_the_profile() {
    let numbers = numbers();
    let calls: Vec<i64> = allowed().iter().map(|name| numbers[name]).collect();
    let confined = |command: &mut Command| faults::allow_only(command, &calls);
    let files = scratch();
    let at = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    let vault = format!("file://{}", at("vault"));
    let (disk, key) = (at("disk"), at("key"));
    images::random(Path::new(&disk), 5_000_000, 11);
    fs::write(&key, [7; 64]).expect("it can be written");
    let common = ["--vault", &vault, "--key-file", &key];

    let run = |args: &[&str]| {
        Tidegate::new(["--json"]).args(args).args(common).with(confined).run().success()
    };
    run(&["replicate", &disk, "--machine", "m"]);
    run(&["verify", "--contents"]);
    run(&["recover", "m", "--to", &at("back")]);
    let back = fs::read_dir(at("back")).expect("it is there").flatten().next();
    compare::assert_same(Path::new(&disk), &back.expect("one disk came back").path());

    let server = Tidegate::server(common).with(confined).serve();
    run(&["enroll", "n", "--out", &at("identity")]);
    let copy = ["--json", "agent", "copy", "--server", &server.at(), "--identity", &at("identity")];
    Tidegate::new(copy).args([&disk]).with(confined).run().success();
    server.stop().success();
}

#[test]
#[cfg(target_arch = "x86_64")]
fn without_io_uring_in_the_list_the_program_says_so() {
    let numbers = numbers();
    let others = allowed().into_iter().filter(|name| !name.starts_with("io_uring"));
    let calls: Vec<i64> = others.map(|name| numbers[&name]).collect();
    let files = scratch();
    let at = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    let vault = format!("file://{}", at("vault"));
    images::random(Path::new(&at("disk")), 100_000, 11);
    fs::write(at("key"), [7; 64]).expect("it can be written");
    Tidegate::new(["replicate", &at("disk"), "--vault", &vault, "--key-file", &at("key")])
        .with(|command| faults::allow_only(command, &calls))
        .run()
        .failure()
        .says(&["io_uring", "seccomp"]);
}

fn compose() -> Yaml {
    let mut documents =
        YamlLoader::load_from_str(&text_of("docker/compose.yaml")).expect("the file is YAML");
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

#[test]
fn the_compose_file_refers_to_files_and_services_that_are_there() {
    let compose = compose();
    let services = compose["services"].as_hash().expect("it has services");
    assert!(services.len() >= 4, "a store, its container, a vault, a server");
    for (name, service) in services {
        let name = name.as_str().expect("a service has a name");
        if let Some(wanted) = service["depends_on"].as_hash() {
            for other in wanted.keys() {
                assert!(services.contains_key(other), "{name} waits for {other:?}");
            }
        }
        if let Some(dockerfile) = service["build"]["dockerfile"].as_str() {
            assert!(repository().join(dockerfile).exists(), "{name}: no {dockerfile}");
        }
    }
    let confined = compose["x-tidegate"]["security_opt"].as_vec().expect("it is confined");
    let profile = confined.iter().filter_map(Yaml::as_str).find_map(|o| o.strip_prefix("seccomp:"));
    let profile = repository().join("docker").join(profile.expect("by a profile"));
    assert!(profile.exists(), "no {}", profile.display());
    assert_eq!(compose["services"]["server"]["ports"][0].as_str(), Some("9443:9443"));
}

#[test]
fn what_the_images_copy_is_there() {
    for file in ["docker/Dockerfile", "docker/azurite.Dockerfile"] {
        let text = text_of(file);
        let copied = text.lines().filter_map(|line| line.strip_prefix("COPY "));
        for line in copied.filter(|line| !line.starts_with("--from")) {
            let words: Vec<_> = line.split_whitespace().collect();
            for source in &words[..words.len() - 1] {
                assert!(repository().join(source).exists(), "{file} copies {source}");
            }
        }
        assert!(repository().join(format!("{file}.dockerignore")).exists());
    }
}

/// What the report prints of a host, of which `files` are what it would read of /proc and /sys.
fn report(host: &Path, files: &[(&str, &str)]) -> Output {
    for (path, text) in files {
        let path = host.join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
    }
    let check = repository().join("tuning/check");
    Command::new(check).arg(host).output().expect("the report can be run")
}

const GOOD_LIMITS: &str = "Max locked memory 1073741824 1073741824 bytes\n\
                           Max open files 65536 65536 files\n";

#[test]
fn the_report_on_the_host_finds_what_differs_and_what_breaks() {
    let host = scratch();
    let limits = ("proc/self/limits", GOOD_LIMITS);
    let flags = ("proc/cpuinfo", "flags\t\t: fpu aes avx2\n");
    let good = report(host.path(), &[limits, flags, ("proc/sys/net/core/somaxconn", "8192\n")]);
    let said = String::from_utf8_lossy(&good.stdout);
    assert_eq!(good.status.code(), Some(0), "{said}");
    assert!(said.contains("ok      net.core.somaxconn = 8192"), "more is as good: {said}");

    let small = report(host.path(), &[("proc/sys/net/core/somaxconn", "128\n")]);
    let said = String::from_utf8_lossy(&small.stdout);
    assert_eq!(small.status.code(), Some(1), "{said}");
    assert!(said.contains("differs net.core.somaxconn = 128, should be 4096"), "{said}");
    assert!(said.contains("handshakes"), "the reason is told: {said}");

    let switch = ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1\n");
    let said = report(host.path(), &[switch]).stdout;
    assert!(String::from_utf8_lossy(&said).contains("differs net.ipv4.tcp_slow_start_after_idle"));

    let forbidden = report(host.path(), &[("proc/sys/kernel/io_uring_disabled", "2\n")]);
    let said = String::from_utf8_lossy(&forbidden.stdout);
    assert_eq!(forbidden.status.code(), Some(2), "{said}");
    assert!(said.contains("BROKEN  io_uring is forbidden"), "{said}");
}

#[test]
fn the_limits_of_shells_and_of_the_service_are_the_same() {
    let shells = text_of("tuning/etc/security/limits.d/60-tidegate.conf");
    let service = text_of("tuning/etc/systemd/system/tidegate-server.service.d/60-limits.conf");
    for (shell, unit) in
        [("memlock  1048576", "LimitMEMLOCK=1G"), ("nofile   65536", "LimitNOFILE=65536")]
    {
        assert!(shells.contains(shell), "{shells}");
        assert!(service.contains(unit), "{service}");
    }
}

#[test]
fn scripts_of_the_shell_parse() {
    for (shell, script) in [
        ("sh", "tuning/check"),
        ("bash", ".ci/run"),
        ("bash", "tests/support/tools"),
        ("bash", "benches/peers/corpus"),
    ] {
        let status = Command::new(shell).arg("-n").arg(repository().join(script)).status();
        assert!(status.expect("a shell is there").success(), "{script}");
    }
    let limit = Duration::from_secs(60);
    let mut help = Command::new("python3");
    help.arg(repository().join("benches/peers/run")).arg("--help");
    support::process::Running::start(help).wait(limit).success();
}
