//! A journal's files as a crash, or somebody who means harm, left them.

use tidegate_hrl::format::UniqueId;
use tidegate_hrl::journal::{Birth, JournalSettings, Reader, open};
use tidegate_hrl::order::{HEADER_BYTES, Mark, OrderHeader};
use tidegate_model::{Checksum, Incarnation, Lsn, Micros};

use crate::files::Directory;
use crate::mend;

pub(crate) const INCARNATION: Incarnation = Incarnation::from_bytes([0xa1; 16]);
const SEGMENT: u64 = 1;
/// The first byte: the order file's own header is among the bytes, else a good one is put before them.
const OWN_HEADER: u8 = 1;
/// The records' checks stay as they are.
const AS_THEY_ARE: u8 = 2;

/// An order file and the .hrl file beside it: opened, recovered, and read from the beginning; then
/// opened again, which must find it well. Flags (1 byte), how long the order file is (2), the order file,
/// the .hrl file. The records that are read.
pub fn journal(bytes: &[u8]) -> usize {
    let Some((head, rest)) = bytes.split_first_chunk::<3>() else { return 0 };
    let order_bytes = usize::from(u16::from_le_bytes([head[1], head[2]])).min(rest.len());
    let (order, log) = rest.split_at(order_bytes);
    let directory = Directory::default();
    directory.put("00000001.order", order_file(head[0], order, log));
    directory.put("00000001-disk-00.hrl", log.to_vec());
    let Some(first) = read(&directory) else { return 0 };
    let again = read(&directory);
    assert_eq!(again, Some(first), "what was recovered is there when it is opened again");
    first
}

/// Opens the journal, reads what isn't committed, and lets it go as a kill would.
fn read(directory: &Directory) -> Option<usize> {
    let settings = JournalSettings::of(JournalSettings::BYTES_MIN).ok()?;
    let birth = Birth { incarnation: INCARNATION, boot: [7; 16] };
    let (state, _writer, opening) = open(directory.clone(), settings, &birth).ok()?;
    let mut reader = Reader::new(directory.clone(), opening.committed.next());
    let mut records = 0;
    while let Ok(Some(record)) = reader.next(|lsn| state.place_of(lsn)) {
        assert!(record.lsn <= opening.recovered_to, "nothing is read that wasn't recovered");
        records += 1;
    }
    Some(records)
}

fn order_file(flags: u8, order: &[u8], log: &[u8]) -> Vec<u8> {
    let mut bytes = if flags & OWN_HEADER == 0 { good_header() } else { Vec::new() };
    bytes.extend_from_slice(order);
    if bytes.len() < HEADER_BYTES || flags & AS_THEY_ARE != 0 {
        return bytes;
    }
    let (header, records) = bytes.split_at_mut(HEADER_BYTES);
    let check = Checksum::of(&header[..HEADER_BYTES - 8]).0;
    header[HEADER_BYTES - 8..].copy_from_slice(&check.to_le_bytes());
    let mark = OrderHeader::decode(header).map(|header| header.mark());
    mend::records(records, mark.unwrap_or(Mark::of(INCARNATION, SEGMENT)), log);
    bytes
}

fn good_header() -> Vec<u8> {
    let header = OrderHeader {
        incarnation: INCARNATION,
        segment: SEGMENT,
        first: Lsn(1),
        committed: Lsn::NONE,
        time: Micros(0),
        boot: [7; 16],
        last_logs: [UniqueId::NONE; 64],
    };
    header.encode()
}
