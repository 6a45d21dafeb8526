//! The report as one HTML file with its plots in it; it loads nothing.

use std::fmt::Write as _;

use super::report::{Line, Report, text};

/// Pixels of a plot.
const WIDTH: f64 = 720.0;
/// Pixels of a bar with its gap.
const BAR: f64 = 26.0;
/// Pixels for names beside the bars.
const NAMES: f64 = 190.0;
/// Pixels of the height of a plot of curves.
const HEIGHT: f64 = 260.0;
/// Pixels for numbers beside a curve.
const MARGIN: f64 = 60.0;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:780px;margin:2em auto;\
padding:0 1em;color:#1b1f24;background:#fff}h1{font-size:1.5em}h2{font-size:1.1em;margin-top:2em}\
pre{background:#f4f6f8;padding:1em;overflow-x:auto;font-size:12.5px}svg{width:100%;height:auto}\
svg text{font:12px system-ui,sans-serif;fill:#1b1f24}";
const MEASURED: &str = "#3b6ea8";
const FLOOR: &str = "#e0a030";

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let mut page =
        String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    let _ = write!(page, "<title>tidegate bench</title><style>{STYLE}</style></head><body>");
    let _ = write!(page, "<h1>tidegate bench</h1><p>{}", escaped(&report.about.host));
    let _ = write!(page, ", tidegate {}</p>", escaped(report.program));
    if !report.lines.is_empty() {
        let efficiency = report.efficiency.unwrap_or_default();
        let _ = write!(page, "<h2>CPU time, ns a byte sent (efficiency {efficiency:.2})</h2>");
        page += &costs(&report.lines);
    }
    let points: Vec<(f64, f64)> = report
        .acknowledged
        .curve
        .iter()
        .filter(|(percent, _)| *percent < 100.0)
        .map(|(percent, micros)| (nines(*percent), micros_to_millis(*micros)))
        .collect();
    page += "<h2>Acknowledgement of a write, ms, by the share that had it in that time</h2>";
    page += &curve(&points, &|nines| format!("{:.4} %", 100.0 - 100.0 / 10_f64.powf(nines)), true);
    let rates = report.rounds.iter().zip(1_u32..);
    let rates: Vec<(f64, f64)> =
        rates.map(|(round, number)| (f64::from(number), round.mb_per_s)).collect();
    page += "<h2>MB/s by round</h2>";
    page += &curve(&rates, &|round| format!("{round:.0}"), false);
    let _ = write!(page, "<h2>All figures</h2><pre>{}</pre>", escaped(&text(report)));
    let json = serde_json::to_string_pretty(report).unwrap_or_default();
    let _ = write!(page, "<details><summary>JSON</summary><pre>{}</pre></details>", escaped(&json));
    page + "</body></html>\n"
}

/// Two bars a line: what was measured, and the floor.
fn costs(lines: &[Line]) -> String {
    let most = lines.iter().map(|line| line.ns_per_byte.max(line.floor_ns_per_byte));
    let most = most.fold(1e-9, f64::max);
    let height = BAR * count(lines.len()) + BAR;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">");
    for (row, line) in lines.iter().enumerate() {
        let top = BAR * count(row);
        let _ = write!(svg, "<text x=\"0\" y=\"{:.0}\">{}</text>", top + 15.0, escaped(line.name));
        let bars = [(line.ns_per_byte, MEASURED, 3.0), (line.floor_ns_per_byte, FLOOR, 12.0)];
        for (figure, colour, below) in bars {
            let width = figure.max(0.0) / most * (WIDTH - NAMES - 70.0);
            let _ = write!(
                svg,
                "<rect x=\"{NAMES}\" y=\"{:.0}\" width=\"{width:.1}\" height=\"8\" fill=\"{colour}\"/>",
                top + below
            );
        }
        let end =
            NAMES + line.ns_per_byte.max(line.floor_ns_per_byte) / most * (WIDTH - NAMES - 70.0);
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.0}\">{:.3}</text>",
            end + 6.0,
            top + 15.0,
            line.ns_per_byte
        );
    }
    let legend = height - 8.0;
    let _ = write!(
        svg,
        "<text x=\"{NAMES}\" y=\"{legend}\"><tspan fill=\"{MEASURED}\">\u{25a0}</tspan> measured \
         <tspan fill=\"{FLOOR}\">\u{25a0}</tspan> floor</text></svg>"
    );
    svg
}

/// A line through points, upwards from 0, or by powers of ten.
fn curve(points: &[(f64, f64)], name: &dyn Fn(f64) -> String, powers: bool) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return "<p>Nothing was measured.</p>".to_owned();
    };
    let scale = |figure: f64| if powers { figure.max(1e-3).log10() } else { figure };
    let figures = || points.iter().map(|(_, figure)| scale(*figure));
    let high = figures().fold(f64::MIN, f64::max);
    let low = if powers { figures().fold(f64::MAX, f64::min).floor() } else { 0.0 };
    let across =
        |at: f64| MARGIN + (at - first.0) / (last.0 - first.0).max(1e-9) * (WIDTH - 2.0 * MARGIN);
    let upwards = |figure: f64| {
        let part = (scale(figure) - low) / (high - low).max(1e-9);
        HEIGHT - 30.0 - part * (HEIGHT - 50.0)
    };
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    let _ =
        write!(svg, "<polyline fill=\"none\" stroke=\"{MEASURED}\" stroke-width=\"2\" points=\"");
    for (at, figure) in points {
        let _ = write!(svg, "{:.1},{:.1} ", across(*at), upwards(*figure));
    }
    svg += "\"/>";
    // Some of the points, with their figures.
    for (at, figure) in points.iter().step_by(points.len().div_ceil(6)).chain([last]) {
        let (x, y) = (across(*at), upwards(*figure));
        let _ = write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{MEASURED}\"/>");
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{figure:.1}</text>",
            y - 8.0
        );
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 8.0,
            escaped(&name(*at))
        );
    }
    svg + "</svg>"
}

/// How many nines a per cent has: 90 % is 1, 99 % is 2.
fn nines(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).max(1e-9).log10()
}

#[allow(clippy::cast_precision_loss)] // for a plot
fn micros_to_millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

#[allow(clippy::cast_precision_loss)] // some lines
fn count(lines: usize) -> f64 {
    lines as f64
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
