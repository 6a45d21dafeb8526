//! Two results side by side: each figure of the second over that of the first.

use serde::Serialize;
use serde_json::Value;

use crate::output::table;

/// Figures that are compared: what they are called, where they stand, and whether more is better.
const FIGURES: &[(&str, &str, bool)] = &[
    ("MB/s", "/mb_per_s", true),
    ("writes/s", "/writes_per_s", true),
    ("writes a CPU second", "/writes_per_cpu_second", true),
    ("efficiency", "/efficiency", true),
    ("server, CPU ns a byte", "/server_ns_per_byte", false),
    ("floor, CPU ns a byte", "/floor_ns_per_byte", false),
    ("load, CPU ns a byte", "/load_ns_per_byte", false),
    ("acknowledged, 50 %, us", "/acknowledged/p50_us", false),
    ("acknowledged, 99 %, us", "/acknowledged/p99_us", false),
    ("acknowledged, 99.9 %, us", "/acknowledged/p999_us", false),
    ("acknowledged, 99.99 %, us", "/acknowledged/p9999_us", false),
    ("put, 99 %, us", "/put/p99_us", false),
    ("stored bytes", "/totals/stored_bytes", false),
    ("peak memory, bytes", "/memory/peak_bytes", false),
];

/// What must be the same, or the two say little about each other.
const SAME: &[&str] = &[
    "host",
    "cores",
    "streams",
    "disks",
    "write_bytes",
    "random",
    "data",
    "rate",
    "transport",
    "store",
    "level",
];

/// Two results, compared.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    /// What the runs were told differently.
    pub differences: Vec<String>,
    pub figures: Vec<Figure>,
}

/// A figure of both.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub figure: String,
    pub a: f64,
    pub b: f64,
    /// b / a.
    pub ratio: f64,
    /// Whether b is better, where the two differ.
    pub better: Option<bool>,
}

/// Compares two results; a figure that one of them lacks is left out.
pub(crate) fn compare(a: &Value, b: &Value) -> Compared {
    let differs = |name: &&&str| a["about"][**name] != b["about"][**name];
    let differences = SAME
        .iter()
        .filter(differs)
        .map(|name| format!("{name}: {} and {}", a["about"][*name], b["about"][*name]));
    let mut figures: Vec<Figure> = FIGURES
        .iter()
        .filter_map(|(name, place, more)| {
            let of = |result: &Value| result.pointer(place)?.as_f64();
            Some(figure((*name).to_owned(), of(a)?, of(b)?, *more))
        })
        .collect();
    for line in a["lines"].as_array().into_iter().flatten() {
        let same = |other: &&Value| other["name"] == line["name"];
        let other = b["lines"].as_array().into_iter().flatten().find(same);
        let cost = |line: &Value| line["ns_per_byte"].as_f64();
        if let (Some(name), Some(a), Some(b)) =
            (line["name"].as_str(), cost(line), other.and_then(cost))
        {
            figures.push(figure(format!("{name}, CPU ns a byte"), a, b, false));
        }
    }
    Compared { differences: differences.collect(), figures }
}

fn figure(figure: String, a: f64, b: f64, more_is_better: bool) -> Figure {
    let ratio = if a == 0.0 { 1.0 } else { b / a };
    let better = (a != b).then_some((b > a) == more_is_better);
    Figure { figure, a, b, ratio, better }
}

/// For people.
pub(crate) fn text(compared: &Compared) -> String {
    let rows: Vec<Vec<String>> = compared
        .figures
        .iter()
        .map(|figure| {
            let better = match figure.better {
                Some(true) => "better",
                Some(false) => "worse",
                None => "",
            };
            let (a, b) = (short(figure.a), short(figure.b));
            vec![figure.figure.clone(), a, b, format!("{:.3}", figure.ratio), better.to_owned()]
        })
        .collect();
    let mut text = String::new();
    for difference in &compared.differences {
        text += &format!("not the same: {difference}\n");
    }
    text + &table(&["figure", "A", "B", "B / A", ""], &rows)
}

fn short(figure: f64) -> String {
    if figure.abs() >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.3}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ratios_say_what_is_better_and_what_was_not_the_same() {
        let result = |rate: f64, p99: u64, streams: u64| {
            json!({
                "about": { "streams": streams },
                "mb_per_s": rate,
                "acknowledged": { "p99_us": p99 },
                "lines": [{ "name": "hash", "ns_per_byte": 0.5 }],
            })
        };
        let compared = compare(&result(100.0, 10, 1), &result(150.0, 20, 2));
        assert_eq!(compared.differences, ["streams: 1 and 2"]);
        let seen: Vec<_> = compared
            .figures
            .iter()
            .map(|figure| (figure.figure.as_str(), figure.ratio, figure.better))
            .collect();
        let expected = [
            ("MB/s", 1.5, Some(true)),
            ("acknowledged, 99 %, us", 2.0, Some(false)),
            ("hash, CPU ns a byte", 1.0, None),
        ];
        assert_eq!(seen, expected);
    }
}
