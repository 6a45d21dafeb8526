//! `tidegate bench` measures what it says it does, on a load as small as it goes. No timing is
//! asserted: figures must be there, and add up.

mod support;

use serde_json::Value;
use support::process::Tidegate;
use support::scratch;
use support::site::Site;

/// A run of a moment.
fn bench(args: &[&str]) -> Tidegate {
    let small = ["--seconds", "0.05", "--rounds", "2", "--corpus", "2MiB"];
    Tidegate::new(["--json", "bench"]).args(small).args(args)
}

fn figure(result: &Value, place: &str) -> f64 {
    let found = result.pointer(place).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no figure {place} in {result}"))
}

/// Every byte that was sent became something, and all that must be measured was.
#[track_caller]
fn assert_whole(result: &Value) {
    let rounds = result["rounds"].as_array().expect("there are rounds");
    assert_eq!(rounds.len(), 2);
    let sum = |field: &str| rounds.iter().map(|round| figure(round, field)).sum::<f64>();
    let totals = ["zero_bytes", "deduplicated_bytes", "kept_bytes"];
    let became: f64 = totals.map(|name| figure(result, &format!("/totals/{name}"))).iter().sum();
    assert!((sum("/bytes") - became).abs() < 0.5, "{result}");
    assert!((sum("/writes") - figure(result, "/acknowledged/count")).abs() < 0.5, "{result}");
    for place in ["/mb_per_s", "/acknowledged/p50_us", "/acknowledged/p9999_us"] {
        assert!(figure(result, place) > 0.0, "{place} in {result}");
    }
}

#[test]
fn a_load_over_tls_shows_stages_floor_and_efficiency() {
    let result = bench(&["--streams", "3", "--disks", "2"]).run().success().json();
    assert_whole(&result);
    for place in ["/efficiency", "/floor_ns_per_byte", "/put/count", "/memory/peak_bytes"] {
        assert!(figure(&result, place) > 0.0, "{place} in {result}");
    }
    let lines = result["lines"].as_array().expect("there are costs");
    for name in ["checksum", "hash", "compress", "seal", "receive, sessions, packs"] {
        let line = lines.iter().find(|line| line["name"] == name).expect(name);
        assert!(figure(line, "/floor_ns_per_byte") > 0.0, "{line}");
    }
}

#[test]
fn writes_to_a_live_agent_are_timed_until_they_are_committed() {
    let folder = scratch();
    let small = ["--rate", "200", "--seconds", "0.3", "--rounds", "1", "--clients", "2"];
    let sizes = ["--disk-size", "1MiB", "--journal-size", "8MiB", "--cut"];
    let place = ["--folder", folder.path().to_str().expect("it is UTF-8")];
    let call = Tidegate::new(["--json", "bench", "live"]).args(small).args(sizes).args(place);
    let result = call.run().success().json();
    let count = |place: &str| result.pointer(place).and_then(Value::as_u64);
    let written = count("/rounds/0/written/count");
    assert!(written > Some(10) && count("/rounds/0/committed/count") == written, "{result}");
    assert!(count("/rounds/1/written/count") > Some(10), "{result}");
    assert!(result["rounds"][1]["committed"].is_null(), "nobody committed it: {result}");
    // What comes later is never sooner, and a put takes 20 ms.
    assert!(figure(&result, "/rounds/0/committed/p50_us") > 20_000.0, "{result}");
    assert!(figure(&result, "/cut_over_linked") > 0.0, "{result}");
    assert_eq!(folder.path().read_dir().expect("it is there").count(), 0, "all is removed");
}

#[test]
fn zeros_duplicates_and_small_writes_become_what_they_are() {
    let mixed = ["--pipe", "--zeros", "30", "--duplicates", "40", "--streams", "1"];
    let result = bench(&mixed).run().success().json();
    assert_whole(&result);
    assert!(figure(&result, "/totals/zero_bytes") > 0.0);
    assert!(figure(&result, "/totals/deduplicated_bytes") > 0.0);

    let result = bench(&["--write-bytes", "4KiB", "--random", "--pipe"]).run().success().json();
    assert_whole(&result);
}

#[test]
fn a_schedule_is_kept_with_a_slow_store_and_every_write_of_it_is_counted() {
    let site = Site::in_scratch();
    let page = site.path("report.html");
    let html = ["--html", page.to_str().expect("a path of this test")];
    let slow = ["--rate", "4MB", "--streams", "2", "--store-latency-ms", "20"];
    let result = bench(&slow).args(html).run().success().json();
    assert_whole(&result);
    // 4 MB/s for 0.05 s are 3.05 writes of 64 KiB, by two streams that take turns.
    for round in result["rounds"].as_array().expect("there are rounds") {
        assert_eq!(round["writes"], 4, "{round}");
    }
    assert!(figure(&result, "/put/p50_us") >= 20_000.0, "{result}");
    let page = std::fs::read_to_string(page).expect("the report was written");
    assert!(page.contains("<svg") && page.ends_with("</html>\n"), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"), "it loads nothing");
}

#[test]
fn the_level_is_1_unless_another_is_named_and_auto_leaves_it_to_the_governor() {
    for (named, level) in
        [(None, Some(1)), (Some("--level=-5"), Some(-5)), (Some("--level=auto"), None)]
    {
        let result = bench(&["--pipe"]).args(named).run().success().json();
        assert_whole(&result);
        assert_eq!(result["about"]["level"].as_i64(), level, "{named:?}");
    }
}

#[test]
fn two_results_are_compared_and_what_is_no_result_is_refused() {
    let site = Site::in_scratch();
    let path = site.path("a.json");
    let first = bench(&["--pipe"]).run().success();
    std::fs::write(&path, first.json().to_string()).expect("it can be written");
    let same = Tidegate::new(["--json", "bench", "compare"]).args([&path, &path]);
    let compared = same.run().success().json();
    assert_eq!(compared["differences"].as_array().map(Vec::len), Some(0));
    assert!((figure(&compared, "/figures/0/ratio") - 1.0).abs() < 1e-9, "{compared}");
    std::fs::write(&path, "{}").expect("it can be written");
    let refused = Tidegate::new(["bench", "compare"]).args([&path, &path]).run();
    refused.refused(&["a.json", "--json bench"]);
}
