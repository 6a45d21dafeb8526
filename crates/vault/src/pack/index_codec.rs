//! The index as bytes: sections of fixed-size entries, compressed, sealed.
//! docs/formats/pack.md, "Index".

use tidegate_model::limits::{
    BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, FRAME_BYTES_MAX, PACK_FRAMES_MAX, PACK_LOGS_MAX,
    PACK_MACHINES_MAX, PACK_RECORDS_MAX, PACK_TEXT_BYTES_MAX,
};
use tidegate_model::{
    Epoch, FrameNumber, LogId, LogName, Lsn, Micros, Name, PackNumber, Reader, RunId, Writer,
};

use super::PackKind;
use super::error::{PackError, reserved};
use super::frame::{Codec, Expander, FRAME_HEADER_BYTES};
use super::header::PackHeader;
use super::index::{Content, FrameEntry, MachineEntry, PackIndex, Record, TargetLog};
use super::record_codec::{self, RECORD_BYTES};
use crate::seal::{LogCiphers, TAG_BYTES};

pub(super) const VERSION: u16 = 1;
pub(super) const PREAMBLE_BYTES: usize = 64;
pub(super) const MACHINE_BYTES: usize = 96;
pub(super) const LOG_BYTES: usize = 88;
pub(super) const FRAME_BYTES: usize = 32;
const NAME_FIELD_BYTES: usize = 64;
/// In front of the compressed index: how it is compressed, three zeros, its length.
const ENVELOPE_BYTES: usize = 8;

/// Longest index: every section at its limit.
const INDEX_BYTES_MAX: usize = PREAMBLE_BYTES
    + PACK_MACHINES_MAX as usize * MACHINE_BYTES
    + PACK_LOGS_MAX as usize * LOG_BYTES
    + PACK_FRAMES_MAX as usize * FRAME_BYTES
    + PACK_RECORDS_MAX as usize * RECORD_BYTES
    + PACK_TEXT_BYTES_MAX as usize;
/// Longest index once sealed: it is kept raw when it doesn't shrink.
pub const SEALED_INDEX_BYTES_MAX: usize = ENVELOPE_BYTES + INDEX_BYTES_MAX + TAG_BYTES;

/// Highest pack that a reference may name: no log gets there, and the numbers after it are numbers.
const TARGET_PACK_MAX: PackNumber = PackNumber(u64::MAX / 2);

/// zstd level of the index: it is a thousandth of the pack and read by everyone.
const INDEX_LEVEL: i32 = 3;

/// What the index says besides its sections.
pub(super) struct Preamble {
    pub last: bool,
    pub block_bytes: u32,
    pub condemned_list: u64,
    pub committed_packs: u64,
    pub closed: Micros,
    pub machines: u32,
    pub logs: u32,
    pub frames: u32,
    pub records: u32,
    pub text_bytes: u32,
}

impl Preamble {
    pub(super) fn encode(&self, buffer: &mut Vec<u8>) {
        Writer::new(buffer)
            .u16(VERSION)
            .u16(u16::from(self.last))
            .u32(self.block_bytes)
            .u64(self.condemned_list)
            .u64(self.committed_packs)
            .u64(self.closed.0)
            .u32(self.machines)
            .u32(self.logs)
            .u32(self.frames)
            .u32(self.records)
            .u32(self.text_bytes)
            .zeros(12);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, PackError> {
        let version = reader.u16()?;
        if version != VERSION {
            return Err(PackError::Format(version));
        }
        let preamble = Self {
            last: reader.u16()? & 1 != 0,
            block_bytes: reader.u32()?,
            condemned_list: reader.u64()?,
            committed_packs: reader.u64()?,
            closed: Micros(reader.u64()?),
            machines: reader.u32()?,
            logs: reader.u32()?,
            frames: reader.u32()?,
            records: reader.u32()?,
            text_bytes: reader.u32()?,
        };
        reserved(reader, 12)?;
        preamble.check()?;
        Ok(preamble)
    }

    fn check(&self) -> Result<(), PackError> {
        let block = BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX;
        if !block.contains(&self.block_bytes) {
            return Err(PackError::Field("the index states an impossible block size"));
        }
        let counts = [
            (self.machines, PACK_MACHINES_MAX),
            (self.logs, PACK_LOGS_MAX),
            (self.frames, PACK_FRAMES_MAX),
            (self.records, PACK_RECORDS_MAX),
            (self.text_bytes, PACK_TEXT_BYTES_MAX),
        ];
        if counts.iter().any(|(count, most)| count > most) {
            return Err(PackError::Field("the index states more entries than a pack may have"));
        }
        Ok(())
    }
}

pub(crate) fn encode_name(name: &Name, buffer: &mut Vec<u8>) {
    let text = name.as_str().as_bytes();
    let length = u8::try_from(text.len()).expect("a name has at most 63 bytes");
    Writer::new(buffer).u8(length).bytes(text).zeros(NAME_FIELD_BYTES - 1 - text.len());
}

pub(crate) fn decode_name(reader: &mut Reader<'_>) -> Result<Name, PackError> {
    let refuse = || PackError::Field("a name in the index is no name");
    let field: [u8; NAME_FIELD_BYTES] = reader.array()?;
    let text = field.get(1..1 + usize::from(field[0])).ok_or_else(refuse)?;
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(refuse)
}

pub(super) fn encode_machine(entry: &MachineEntry, buffer: &mut Vec<u8>) {
    encode_name(&entry.name, buffer);
    Writer::new(buffer)
        .u32(entry.epoch.0)
        .zeros(4)
        .u64(entry.first_lsn.0)
        .u64(entry.complete_lsn.0)
        .u64(entry.last_time.0);
}

fn decode_machine(reader: &mut Reader<'_>) -> Result<MachineEntry, PackError> {
    let name = decode_name(reader)?;
    let epoch = Epoch(reader.u32()?);
    reserved(reader, 4)?;
    Ok(MachineEntry {
        name,
        epoch,
        first_lsn: Lsn(reader.u64()?),
        complete_lsn: Lsn(reader.u64()?),
        last_time: Micros(reader.u64()?),
    })
}

pub(super) fn encode_log(log: &LogName, buffer: &mut Vec<u8>) {
    Writer::new(buffer).bytes(log.id.run.as_bytes()).u16(log.id.shard).zeros(6);
    encode_name(&log.node, buffer);
}

fn decode_log(reader: &mut Reader<'_>) -> Result<LogName, PackError> {
    let run = RunId::from_bytes(reader.array()?);
    let shard = reader.u16()?;
    reserved(reader, 6)?;
    Ok(LogName { node: decode_name(reader)?, id: LogId { run, shard } })
}

/// Compresses and seals an index. `header` is complete but for its index length, object length and
/// digest, which are set here; `frame_bytes` is what follows the index in the object.
pub(super) fn seal_index(
    plain: &[u8],
    header: &mut PackHeader,
    frame_bytes: u64,
    ciphers: &LogCiphers,
) -> Vec<u8> {
    assert!(plain.len() <= INDEX_BYTES_MAX, "the writer holds every section to its limit");
    let packed = zstd::bulk::compress(plain, INDEX_LEVEL).ok().filter(|p| p.len() < plain.len());
    let (codec, content) = match &packed {
        Some(packed) => (Codec::Zstd, packed.as_slice()),
        None => (Codec::Raw, plain),
    };
    let plain_bytes = u32::try_from(plain.len()).expect("an index is shorter than 4 GiB");
    let mut sealed = Vec::with_capacity(ENVELOPE_BYTES + content.len() + TAG_BYTES);
    Writer::new(&mut sealed).u8(codec.code()).zeros(3).u32(plain_bytes).bytes(content);
    header.index_bytes =
        u32::try_from(sealed.len() + TAG_BYTES).expect("an index is shorter than 4 GiB");
    header.object_bytes = header.frames_begin() + frame_bytes;
    let tag = ciphers.seal_index(header.number, &header.authenticated(), &mut sealed);
    sealed.extend_from_slice(&tag);
    header.digest = header.digest_with(&sealed);
    sealed
}

/// Opens and checks the index of a pack. `header` is what the object states, `sealed` the bytes
/// after it. The caller compares the header's vault, log and number with the place it read from.
///
/// # Errors
/// [`PackError`] when the index isn't the one that was sealed for this header, or breaks a rule
/// of the format.
pub fn open_index(
    header: &PackHeader,
    sealed: &mut [u8],
    ciphers: &LogCiphers,
) -> Result<PackIndex, PackError> {
    let opened = unseal(header, sealed, ciphers)?;
    let mut plain = Vec::new();
    Expander::default().expand(opened.codec, opened.content, opened.plain_bytes, &mut plain)?;
    decode(&plain, header)
}

/// An index that was decrypted where it lay, and not expanded yet.
pub(super) struct Unsealed<'a> {
    pub codec: Codec,
    pub plain_bytes: u32,
    pub content: &'a [u8],
}

pub(super) fn unseal<'a>(
    header: &PackHeader,
    sealed: &'a mut [u8],
    ciphers: &LogCiphers,
) -> Result<Unsealed<'a>, PackError> {
    if header.kind != PackKind::Pack {
        return Err(PackError::Elsewhere("a tombstone"));
    }
    if sealed.len() != header.index_bytes as usize || sealed.len() < ENVELOPE_BYTES + TAG_BYTES {
        return Err(PackError::Field("the index's length is another than the header states"));
    }
    if header.digest_with(sealed) != header.digest {
        return Err(PackError::Digest);
    }
    let (content, tag_bytes) = sealed.split_at_mut(header.index_bytes as usize - TAG_BYTES);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(tag_bytes);
    ciphers.open_index(header.number, &header.authenticated(), content, tag)?;

    let mut reader = Reader::new(content);
    let codec =
        Codec::from_code(reader.u8()?).ok_or(PackError::Field("the index's compression"))?;
    reserved(&mut reader, 3)?;
    let plain_bytes = reader.u32()?;
    if plain_bytes as usize > INDEX_BYTES_MAX {
        return Err(PackError::Field("the index states an impossible size"));
    }
    let content = reader.bytes(reader.left())?;
    Ok(Unsealed { codec, plain_bytes, content })
}

/// Reads the sections; each count was held to its limit before anything is reserved for it.
pub(crate) fn decode(plain: &[u8], header: &PackHeader) -> Result<PackIndex, PackError> {
    let mut reader = Reader::new(plain);
    let preamble = Preamble::decode(&mut reader)?;
    let expected = PREAMBLE_BYTES
        + preamble.machines as usize * MACHINE_BYTES
        + preamble.logs as usize * LOG_BYTES
        + preamble.frames as usize * FRAME_BYTES
        + preamble.records as usize * RECORD_BYTES
        + preamble.text_bytes as usize;
    if plain.len() != expected {
        return Err(PackError::Field("the index's length doesn't fit its counts"));
    }
    let machines = decode_machines(&mut reader, preamble.machines)?;
    let logs = (0..preamble.logs).map(|_| decode_log(&mut reader)).collect::<Result<_, _>>()?;
    let frames = decode_frames(&mut reader, preamble.frames, header)?;
    let texts = &plain[expected - preamble.text_bytes as usize..];
    let records: Vec<Record> = (0..preamble.records)
        .map(|_| record_codec::decode(&mut reader, texts))
        .collect::<Result<_, _>>()?;
    let mut index = PackIndex {
        last: preamble.last,
        block_bytes: preamble.block_bytes,
        condemned_list: preamble.condemned_list,
        committed_packs: preamble.committed_packs,
        closed: preamble.closed,
        machines,
        logs,
        frames,
        records,
        kept: Vec::new(),
    };
    check_records(&index, header)?;
    place_kept(&mut index)?;
    Ok(index)
}

pub(super) fn decode_machines(
    reader: &mut Reader<'_>,
    count: u32,
) -> Result<Vec<MachineEntry>, PackError> {
    (0..count).map(|_| decode_machine(reader)).collect()
}

fn decode_frames(
    reader: &mut Reader<'_>,
    count: u32,
    header: &PackHeader,
) -> Result<Vec<FrameEntry>, PackError> {
    if count != header.frame_count {
        return Err(PackError::Field("header and index disagree about the number of frames"));
    }
    let mut offset = header.frames_begin();
    let mut frames = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (sealed_bytes, plain_bytes) = (reader.u32()?, reader.u32()?);
        let codec = Codec::from_code(reader.u8()?)
            .ok_or(PackError::Field("a frame's compression is unknown"))?;
        reserved(reader, 3)?;
        let number = FrameNumber(header.first_frame.0.saturating_add(u64::from(reader.u32()?)));
        let tag = reader.array()?;
        if frames.last().is_some_and(|before: &FrameEntry| before.number >= number) {
            return Err(PackError::Field("the frames' numbers don't rise"));
        }
        if plain_bytes == 0 || plain_bytes > FRAME_BYTES_MAX {
            return Err(PackError::Field("the index states a frame of impossible size"));
        }
        let entry =
            FrameEntry { number, sealed_bytes, plain_bytes, codec, tag, offset, kept: (0, 0) };
        offset += FRAME_HEADER_BYTES as u64 + u64::from(sealed_bytes);
        frames.push(entry);
    }
    if offset != header.object_bytes {
        return Err(PackError::Field("the frames' lengths don't add up to the object's"));
    }
    Ok(frames)
}

/// How far behind the pack's first possible frame the number of a frame lies, by its entry.
pub(super) fn frame_behind(entry: &[u8; FRAME_BYTES]) -> Result<u32, PackError> {
    let mut reader = Reader::new(entry);
    reader.bytes(12)?;
    Ok(reader.u32()?)
}

/// Every number in a record points at something that can exist.
fn check_records(index: &PackIndex, header: &PackHeader) -> Result<(), PackError> {
    let frames_end = index.frames.last().map_or(header.first_frame, |entry| entry.number.next());
    for record in &index.records {
        if usize::from(record.machine) >= index.machines.len() {
            return Err(PackError::Field("a record names a machine that isn't listed"));
        }
        let Content::Reference { target, .. } = &record.content else { continue };
        let possible = match target.log {
            TargetLog::Own => target.pack <= header.number && target.frame < frames_end,
            TargetLog::Other(log) => usize::from(log) < index.logs.len(),
        };
        if !possible || target.pack > TARGET_PACK_MAX {
            return Err(PackError::Field("a reference points at what can't exist"));
        }
    }
    Ok(())
}

/// Finds each frame's kept records, which lie in it one after another in the records' order.
fn place_kept(index: &mut PackIndex) -> Result<(), PackError> {
    let mut kept = Vec::with_capacity(index.records.len());
    let mut current: Option<u32> = None;
    let mut filled = 0_u64;
    for (at, record) in (0_u32..).zip(&index.records) {
        let Content::Kept { extent, frame, offset, .. } = &record.content else { continue };
        if current != Some(*frame) {
            let next = current.map_or(0, |frame| frame + 1);
            if *frame != next {
                return Err(PackError::Field("the frames' records are out of order"));
            }
            current = Some(*frame);
            filled = 0;
        }
        let entry = index
            .frames
            .get_mut(*frame as usize)
            .ok_or(PackError::Field("a record names a frame that isn't there"))?;
        if filled == 0 {
            entry.kept = (kept_count(&kept)?, kept_count(&kept)?);
        }
        if u64::from(*offset) != filled {
            return Err(PackError::Field("a record doesn't follow the one before it in its frame"));
        }
        filled += extent.length;
        if filled > u64::from(entry.plain_bytes) {
            return Err(PackError::Field("a record lies beyond its frame"));
        }
        kept.push(at);
        entry.kept.1 = kept_count(&kept)?;
    }
    index.kept = kept;
    Ok(())
}

fn kept_count(kept: &[u32]) -> Result<u32, PackError> {
    u32::try_from(kept.len()).map_err(|_| PackError::Field("too many records"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Preamble = Preamble {
        last: false,
        block_bytes: BLOCK_BYTES_MAX,
        condemned_list: 0,
        committed_packs: 0,
        closed: Micros(0),
        machines: PACK_MACHINES_MAX,
        logs: PACK_LOGS_MAX,
        frames: PACK_FRAMES_MAX,
        records: PACK_RECORDS_MAX,
        text_bytes: PACK_TEXT_BYTES_MAX,
    };

    fn is_taken(preamble: &Preamble) -> bool {
        let mut bytes = Vec::new();
        preamble.encode(&mut bytes);
        Preamble::decode(&mut Reader::new(&bytes)).is_ok()
    }

    #[test]
    fn more_entries_than_a_pack_may_have_are_refused() {
        assert!(is_taken(&MOST));
        let beyond = [
            Preamble { machines: PACK_MACHINES_MAX + 1, ..MOST },
            Preamble { logs: PACK_LOGS_MAX + 1, ..MOST },
            Preamble { frames: PACK_FRAMES_MAX + 1, ..MOST },
            Preamble { records: PACK_RECORDS_MAX + 1, ..MOST },
            Preamble { text_bytes: PACK_TEXT_BYTES_MAX + 1, ..MOST },
        ];
        assert!(!beyond.iter().any(is_taken));
    }
}
