//! A change log for people: the header, a line for each entry, and each problem where it was met.

use std::io::{self, Write};

use tidegate_hrl::format::{FileHeader, HeaderDoubt, UniqueId};
use tidegate_hrl::scan::{DataState, FoundEntry, Problem};
use tidegate_model::{Counted, HumanBytes};
use tidegate_vault::points::readable_time;

use super::{Show, Totals, creator_text, version_text};

pub(super) struct Text<'a> {
    out: &'a mut dyn Write,
    name: &'a str,
    columns: bool,
}

impl<'a> Text<'a> {
    pub(super) fn new(out: &'a mut dyn Write, name: &'a str) -> Self {
        Self { out, name, columns: false }
    }

    fn line(&mut self, what: &str, value: &str) -> io::Result<()> {
        writeln!(self.out, "{what:<16}{value}")
    }
}

impl Show for Text<'_> {
    fn header(&mut self, header: &FileHeader, doubts: &[HeaderDoubt]) -> io::Result<()> {
        let version = version_text(header.version);
        let end = match header.eol_location {
            0 => "not closed".to_owned(),
            end => format!("closed, ends at {end}"),
        };
        writeln!(self.out, "{}: change log, version {version}, {end}", self.name)?;
        let creator = format!("'{}', version {}", creator_text(header), header.creator_version);
        self.line("written by", &creator)?;
        self.line("created", &readable_time(header.created.micros()))?;
        self.line("last modified", &readable_time(header.last_modified.micros()))?;
        self.line("id", &header.unique_id.to_string())?;
        let before = match header.previous_unique_id {
            UniqueId::NONE => "none".to_owned(),
            id => id.to_string(),
        };
        self.line("the one before", &before)?;
        self.line("blocks", &format!("of {} bytes", header.metadata_bytes))?;
        self.line("entries", &format!("{} stated", header.entries_total))?;
        let (created, now) = (header.original_bytes, header.current_bytes);
        self.line("size", &format!("{now} bytes stated, {created} when it was created"))?;
        if header.data_write_guid != UniqueId::NONE {
            self.line("data write id", &header.data_write_guid.to_string())?;
        }
        doubts.iter().try_for_each(|doubt| writeln!(self.out, "! {doubt}"))
    }

    fn entry(&mut self, found: &FoundEntry) -> io::Result<()> {
        if !std::mem::replace(&mut self.columns, true) {
            writeln!(
                self.out,
                "\n{:>18}  {:>10}  {:20}  {:>14}  data",
                "offset on disk", "bytes", "time", "in the file at"
            )?;
        }
        let data = match found.data {
            DataState::Whole => "whole".to_owned(),
            DataState::Unchecked => "no checksum".to_owned(),
            DataState::Differs(computed) => {
                let stated = found.entry.data_checksum;
                format!("DIFFERS: checksum {stated} is stated, and its bytes give {computed}")
            }
        };
        writeln!(
            self.out,
            "{:>18}  {:>10}  {:20}  {:>14}  {data}",
            found.entry.byte_offset,
            found.entry.data_bytes,
            readable_time(found.entry.time.micros()),
            found.data_location,
        )
    }

    fn problem(&mut self, problem: &Problem) -> io::Result<()> {
        writeln!(self.out, "! {problem}")
    }

    fn end(&mut self, totals: &Totals) -> io::Result<()> {
        let entries = match totals.entries {
            1 => "1 entry".to_owned(),
            count => format!("{count} entries"),
        };
        let problems = match totals.problems {
            0 => "nothing is amiss".to_owned(),
            count => Counted(count, "problem").to_string(),
        };
        writeln!(self.out, "\n{entries}, {} of data; {problems}", HumanBytes(totals.data_bytes))
    }
}
