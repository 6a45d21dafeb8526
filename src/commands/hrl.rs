//! `tidegate hrl show`: a change log as it lies there, whole or not, entry by entry as it is read.

mod json;
mod text;

use std::fs::File;
use std::io;
use std::path::Path;

use tidegate_hrl::format::{FileHeader, HeaderDoubt, Version};
use tidegate_hrl::scan::{DataState, Found, FoundEntry, Problem, Scan, ScanError};
use tidegate_hrl::uring::DiskFile;
use tidegate_model::Remedy;

use crate::cli::HrlShowArgs;
use crate::failure::Failure;
use crate::output::{Output, StreamError};

/// What was found in a log, for its last line.
#[derive(Debug, Default, Clone, Copy)]
struct Totals {
    entries: u64,
    data_bytes: u64,
    problems: u64,
    /// Whether something isn't whole. A log that is only not closed may still be.
    damaged: bool,
}

/// How a log is shown, piece by piece.
trait Show {
    fn header(&mut self, header: &FileHeader, doubts: &[HeaderDoubt]) -> io::Result<()>;
    fn entry(&mut self, found: &FoundEntry) -> io::Result<()>;
    fn problem(&mut self, problem: &Problem) -> io::Result<()>;
    fn end(&mut self, totals: &Totals) -> io::Result<()>;
}

pub(super) async fn show(args: HrlShowArgs, output: Output) -> Result<(), Failure> {
    // Who asks to stop needn't wait for the end of a long log.
    let shown = tokio::task::spawn_blocking(move || show_file(&args.file, output)).await;
    shown.unwrap_or_else(|error| Err(Failure::failed(format!("showing it failed: {error}"))))
}

fn show_file(path: &Path, output: Output) -> Result<(), Failure> {
    let name = path.display().to_string();
    let scan = Scan::open(open(path, &name)?).map_err(|error| unreadable(&name, &error))?;
    let mut totals = Totals::default();
    output.stream(|out| {
        let mut json;
        let mut text;
        let show: &mut dyn Show = if output.is_json() {
            json = json::Json::new(out, &name);
            &mut json
        } else {
            text = text::Text::new(out, &name);
            &mut text
        };
        totals = show_scan(scan, show, &name)?;
        Ok(())
    })?;
    if totals.damaged {
        return Err(Failure::new(
            format!("{name} is damaged: what is whole was shown, and what isn't was named"),
            Remedy::Repair,
        ));
    }
    Ok(())
}

fn show_scan(
    mut scan: Scan<DiskFile>,
    show: &mut dyn Show,
    name: &str,
) -> Result<Totals, StreamError> {
    let mut totals = Totals::default();
    show.header(scan.header(), scan.doubts())?;
    loop {
        let found = scan.next();
        let found = found.map_err(|error| StreamError::Input(unread(name, &error)))?;
        match found {
            None => break,
            Some(Found::Entry(found)) => {
                totals.entries += 1;
                totals.data_bytes += u64::from(found.entry.data_bytes);
                totals.damaged |= matches!(found.data, DataState::Differs(_));
                show.entry(&found)?;
            }
            Some(Found::Problem(problem)) => {
                totals.problems += 1;
                // What a killed writer left behind its last block is what it hadn't ended.
                let open = matches!(problem, Problem::NotClosed)
                    || !scan.is_closed() && matches!(problem, Problem::Unread { .. });
                totals.damaged |= !open;
                show.problem(&problem)?;
            }
        }
    }
    show.end(&totals)?;
    Ok(totals)
}

fn open(path: &Path, name: &str) -> Result<DiskFile, Failure> {
    let refuse = |error: io::Error| {
        Failure::usage(format!("{name} can't be opened: {error}; check its path"))
    };
    let file = File::open(path).map_err(refuse)?;
    if !file.metadata().map_err(refuse)?.is_file() {
        return Err(Failure::usage(format!("{name} isn't a file; name an .hrl file")));
    }
    Ok(file.into())
}

fn unreadable(name: &str, error: &ScanError) -> Failure {
    match error {
        ScanError::Io(error) => unread(name, error),
        ScanError::Header(error) => Failure::usage(format!("{name} can't be shown: {error}")),
    }
}

fn unread(name: &str, error: &io::Error) -> Failure {
    Failure::failed(format!("{name} can't be read: {error}"))
}

const fn version_text(version: Version) -> &'static str {
    match version {
        Version::V1 => "1.0",
        Version::V2 => "2.0",
    }
}

/// A writer's name for itself, with what isn't to be printed made visible.
fn creator_text(header: &FileHeader) -> String {
    let end = header.creator_application.iter().rposition(|byte| !matches!(byte, 0 | b' '));
    let name = &header.creator_application[..end.map_or(0, |last| last + 1)];
    name.escape_ascii().to_string()
}
