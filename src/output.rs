//! What a command shows: a result for people or as JSON, and progress while it works.

use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde::Serialize;

use crate::cli::OutputArgs;
use crate::failure::Failure;

/// How often a progress bar is drawn anew.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);

/// Where results and progress go.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    progress: bool,
}

impl Output {
    pub(crate) fn new(args: &OutputArgs) -> Self {
        let watched = io::stderr().is_terminal();
        Self { json: args.json, progress: watched && !args.no_progress }
    }

    /// Prints a result: as one line of JSON, or as `text` says it to people.
    ///
    /// # Errors
    /// When it can't be written: what nobody gets to know wasn't done. Whoever closed our output
    /// early doesn't want the rest: that is none.
    pub(crate) fn result<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match print_line(&self.line(value, text)?) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritten(&error)),
            _ => Ok(()),
        }
    }

    /// The same for a result that is too long to be held: `write` writes it, as lines or as one of
    /// JSON.
    ///
    /// # Errors
    /// The error of `write`; of the output itself as for [`Output::result`].
    pub(crate) fn stream(
        self,
        write: impl FnOnce(&mut dyn io::Write) -> Result<(), StreamError>,
    ) -> Result<(), Failure> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        let written = write(&mut out).and_then(|()| Ok(out.flush()?));
        match written {
            Err(StreamError::Output(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(unwritten(&error))
            }
            Err(StreamError::Input(failure)) => Err(failure),
            _ => Ok(()),
        }
    }

    /// The same for what is said only once: where it can't be written, it goes to where errors go.
    pub(crate) fn only_once<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let line = self.line(value, text)?;
        print_line(&line).map_err(|error| {
            eprintln!("{line}");
            unwritten(&error)
        })
    }

    /// A line for people only. It is no result: whether anybody reads it doesn't matter.
    pub(crate) fn say(self, line: &str) {
        if !self.json {
            let _ = print_line(line);
        }
    }

    fn line<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<String, Failure> {
        if !self.json {
            return Ok(text(value));
        }
        serde_json::to_string(value)
            .map_err(|error| Failure::failed(format!("the result can't be told as JSON: {error}")))
    }

    /// Whether results are for programs.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// A bar that counts bytes, with rate and time left; drawn only when a person watches.
    pub(crate) fn bytes_bar(self, total: u64, what: &'static str) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(total).with_message(what).with_finish(ProgressFinish::AndClear);
        let template = "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} \
                        {decimal_bytes_per_sec} {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(DRAW_INTERVAL);
        bar
    }

    /// Says what is waited for, and how long already, where nobody knows how much there is; gone
    /// when it is dropped, and drawn only when a person watches.
    pub(crate) fn waiting(self, what: &'static str) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        let spinner = ProgressBar::new_spinner().with_message(what);
        let spinner = spinner.with_finish(ProgressFinish::AndClear);
        if let Ok(style) = ProgressStyle::with_template("{msg} {spinner} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(DRAW_INTERVAL);
        spinner
    }
}

/// Why a result that is written piece by piece ends early.
pub(crate) enum StreamError {
    /// It can't be written.
    Output(io::Error),
    /// There is no more to write.
    Input(Failure),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn print_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush())
}

fn unwritten(error: &io::Error) -> Failure {
    Failure::failed(format!("the result can't be written to the standard output: {error}"))
}

/// A table for people: columns as wide as their widest cell, numbers to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let numeric: Vec<bool> = (0..head.len())
        .map(|column| {
            let mut cells = rows.iter().filter_map(|row| row.get(column)).peekable();
            cells.peek().is_some()
                && cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-'))
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).zip(&numeric).map(|((cell, width), numeric)| {
            if *numeric { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["web-1".to_owned(), "12 MB".to_owned()],
            vec!["a".to_owned(), "7 MB".to_owned()],
        ];
        let expected = "machine   size\nweb-1    12 MB\na         7 MB";
        assert_eq!(table(&["machine", "size"], &rows), expected);
    }
}
