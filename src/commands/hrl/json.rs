//! A change log as one JSON document, written entry by entry, so that a log of any length takes no
//! more memory than a short one.

use std::io::{self, Write};

use serde::Serialize;
use tidegate_hrl::format::{FileHeader, HeaderDoubt};
use tidegate_hrl::scan::{DataState, FoundEntry, Problem};
use tidegate_vault::points::readable_time;

use super::{Show, Totals, creator_text, version_text};

/// Most problems that are named; the rest are counted. A log has that many only if hardly anything of
/// it is whole.
const PROBLEMS_MAX: usize = 1000;

#[derive(Serialize)]
struct Header {
    version: &'static str,
    closed: bool,
    eol_location: u64,
    creator_application: String,
    creator_version: u32,
    created: String,
    last_modified: String,
    unique_id: String,
    previous_unique_id: String,
    data_write_guid: String,
    metadata_bytes: u32,
    entries_total: u64,
    original_bytes: u64,
    current_bytes: u64,
    error_code: i32,
    file_type: u32,
    flags: u16,
    doubts: Vec<String>,
}

#[derive(Serialize)]
struct Entry {
    byte_offset: u64,
    data_bytes: u32,
    time: String,
    data_checksum: u32,
    data_location: u64,
    block_location: u64,
    data: &'static str,
}

pub(super) struct Json<'a> {
    out: &'a mut dyn Write,
    name: &'a str,
    entries: u64,
    problems: Vec<String>,
}

impl<'a> Json<'a> {
    pub(super) fn new(out: &'a mut dyn Write, name: &'a str) -> Self {
        Self { out, name, entries: 0, problems: Vec::new() }
    }

    fn value(&mut self, value: &impl Serialize) -> io::Result<()> {
        Ok(serde_json::to_writer(&mut *self.out, value)?)
    }
}

impl Show for Json<'_> {
    fn header(&mut self, header: &FileHeader, doubts: &[HeaderDoubt]) -> io::Result<()> {
        write!(self.out, "{{\"file\":")?;
        self.value(&self.name.to_owned())?;
        write!(self.out, ",\"header\":")?;
        self.value(&Header {
            version: version_text(header.version),
            closed: header.eol_location != 0,
            eol_location: header.eol_location,
            creator_application: creator_text(header),
            creator_version: header.creator_version,
            created: readable_time(header.created.micros()),
            last_modified: readable_time(header.last_modified.micros()),
            unique_id: header.unique_id.to_string(),
            previous_unique_id: header.previous_unique_id.to_string(),
            data_write_guid: header.data_write_guid.to_string(),
            metadata_bytes: header.metadata_bytes,
            entries_total: header.entries_total,
            original_bytes: header.original_bytes,
            current_bytes: header.current_bytes,
            error_code: header.error_code,
            file_type: header.file_type,
            flags: header.flags,
            doubts: doubts.iter().map(ToString::to_string).collect(),
        })?;
        write!(self.out, ",\"entries\":[")
    }

    fn entry(&mut self, found: &FoundEntry) -> io::Result<()> {
        if self.entries > 0 {
            write!(self.out, ",")?;
        }
        self.entries += 1;
        self.value(&Entry {
            byte_offset: found.entry.byte_offset,
            data_bytes: found.entry.data_bytes,
            time: readable_time(found.entry.time.micros()),
            data_checksum: found.entry.data_checksum,
            data_location: found.data_location,
            block_location: found.block_location,
            data: match found.data {
                DataState::Whole => "whole",
                DataState::Unchecked => "unchecked",
                DataState::Differs(_) => "differs",
            },
        })
    }

    fn problem(&mut self, problem: &Problem) -> io::Result<()> {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem.to_string());
        }
        Ok(())
    }

    fn end(&mut self, totals: &Totals) -> io::Result<()> {
        let problems = std::mem::take(&mut self.problems);
        write!(self.out, "],\"problems\":")?;
        self.value(&problems)?;
        let Totals { entries, data_bytes, problems, damaged } = totals;
        writeln!(
            self.out,
            ",\"problems_found\":{problems},\"entries_found\":{entries},\"data_bytes\":{data_bytes},\
             \"damaged\":{damaged}}}"
        )
    }
}
