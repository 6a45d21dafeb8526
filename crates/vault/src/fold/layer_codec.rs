//! A layer as bytes: sections of fixed-size entries. docs/formats/fold.md, "Layer".

use tidegate_model::limits::DISK_BYTES_MAX;
use tidegate_model::{
    BlockName, Checksum, DiskNumber, Epoch, Extent, FrameNumber, LogId, LogName, Lsn, Micros,
    PackNumber, Reader, RunId, Short, Writer,
};

use super::layer::{self, LAYER_EXTENTS_MAX, Layer, LayerExtent, LayerSource};
use crate::log::PackPlace;
use crate::pack::{decode_name, encode_name};

const VERSION: u16 = 1;
const PREAMBLE_BYTES: usize = 64;
const LOG_BYTES: usize = 88;
const PACK_BYTES: usize = 16;
const EXTENT_BYTES: usize = 80;
/// Longest layer: every extent in a pack and a log of its own.
pub(super) const LAYER_BYTES_MAX: usize =
    PREAMBLE_BYTES + LAYER_EXTENTS_MAX * (LOG_BYTES + PACK_BYTES + EXTENT_BYTES);

const KEPT: u8 = 1;
const ZERO: u8 = 2;
/// Flag of a kept extent: it was found by name.
const NAMED: u8 = 1;

const SHORT: &str = "it ends too soon";

/// The bytes of a layer.
pub(super) fn encode(layer: &Layer) -> Vec<u8> {
    let mut logs: Vec<&LogName> = layer.packs.iter().map(|place| &place.log).collect();
    logs.sort_unstable();
    logs.dedup();
    let length = PREAMBLE_BYTES
        + logs.len() * LOG_BYTES
        + layer.packs.len() * PACK_BYTES
        + layer.extents.len() * EXTENT_BYTES;
    let count = |count: usize| u32::try_from(count).expect("a layer's counts have limits");
    let mut bytes = Vec::with_capacity(length);
    Writer::new(&mut bytes)
        .u16(VERSION)
        .zeros(2)
        .u32(layer.epoch.0)
        .u64(layer.first.0)
        .u64(layer.last.0)
        .u32(count(logs.len()))
        .u32(count(layer.packs.len()))
        .u32(count(layer.extents.len()))
        .zeros(28);
    for log in &logs {
        let mut writer = Writer::new(&mut bytes);
        writer.bytes(log.id.run.as_bytes()).u16(log.id.shard).zeros(6);
        encode_name(&log.node, &mut bytes);
    }
    for pack in &layer.packs {
        let log = logs.binary_search(&&pack.log).expect("all of them are listed");
        Writer::new(&mut bytes).u32(count(log)).zeros(4).u64(pack.number.0);
    }
    layer.extents.iter().for_each(|entry| encode_extent(entry, &mut bytes));
    bytes
}

fn encode_extent(entry: &LayerExtent, bytes: &mut Vec<u8>) {
    let (kind, kept) = match entry.source {
        LayerSource::Zero => (ZERO, (0, FrameNumber(0), 0, Checksum(0), None)),
        LayerSource::Kept { pack, frame, ordinal, checksum, name } => {
            (KEPT, (pack, frame, ordinal, checksum, name))
        }
    };
    let (pack, frame, ordinal, checksum, name): (_, _, _, _, Option<BlockName>) = kept;
    Writer::new(bytes)
        .u8(kind)
        .u8(if name.is_some() { NAMED } else { 0 })
        .u8(entry.extent.disk.get())
        .zeros(1)
        .u32(pack)
        .u64(entry.lsn.0)
        .u64(entry.time.0)
        .u64(entry.extent.offset)
        .u64(entry.extent.length)
        .u64(frame.0)
        .u64(checksum.0)
        .bytes(&name.map_or([0; 16], |name| *name.as_bytes()))
        .u32(ordinal)
        .zeros(4);
}

/// The layer of these bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Layer, &'static str> {
    let mut reader = Reader::new(bytes);
    let short = |_: Short| SHORT;
    if reader.u16().map_err(short)? != VERSION {
        return Err("its version isn't known");
    }
    reserved(&mut reader, 2)?;
    let epoch = Epoch(reader.u32().map_err(short)?);
    let (first, last) = (Lsn(reader.u64().map_err(short)?), Lsn(reader.u64().map_err(short)?));
    let mut count = || reader.u32().map(|count| count as usize).map_err(short);
    let (logs, packs, extents) = (count()?, count()?, count()?);
    reserved(&mut reader, 28)?;
    if [logs, packs, extents].iter().any(|count| *count > LAYER_EXTENTS_MAX) {
        return Err("it states more entries than a layer may have");
    }
    // Nothing is reserved for more than is there.
    if reader.left() != logs * LOG_BYTES + packs * PACK_BYTES + extents * EXTENT_BYTES {
        return Err("it hasn't the length that its counts state");
    }
    let logs: Vec<LogName> = entries(logs, || decode_log(&mut reader))?;
    let packs = entries(packs, || decode_pack(&mut reader, &logs))?;
    let extents = entries(extents, || decode_extent(&mut reader))?;
    let layer = Layer { epoch, first, last, packs, extents };
    layer::check(&layer)?;
    Ok(layer)
}

fn entries<T>(
    count: usize,
    mut decode: impl FnMut() -> Result<T, &'static str>,
) -> Result<Vec<T>, &'static str> {
    (0..count).map(|_| decode()).collect()
}

fn decode_log(reader: &mut Reader<'_>) -> Result<LogName, &'static str> {
    let run = RunId::from_bytes(reader.array().map_err(|_| SHORT)?);
    let shard = reader.u16().map_err(|_| SHORT)?;
    reserved(reader, 6)?;
    let node = decode_name(reader).map_err(|_| "a log's name is no name")?;
    Ok(LogName { node, id: LogId { run, shard } })
}

fn decode_pack(reader: &mut Reader<'_>, logs: &[LogName]) -> Result<PackPlace, &'static str> {
    let log = reader.u32().map_err(|_| SHORT)? as usize;
    reserved(reader, 4)?;
    let number = PackNumber(reader.u64().map_err(|_| SHORT)?);
    let log = logs.get(log).ok_or("a pack names a log that isn't listed")?.clone();
    Ok(PackPlace { log, number })
}

fn decode_extent(reader: &mut Reader<'_>) -> Result<LayerExtent, &'static str> {
    let short = |_: Short| SHORT;
    let (kind, flags) = (reader.u8().map_err(short)?, reader.u8().map_err(short)?);
    let disk = DiskNumber::try_from(reader.u8().map_err(short)?);
    let disk = disk.map_err(|_| "an extent's disk number is too large")?;
    reserved(reader, 1)?;
    let pack = reader.u32().map_err(short)?;
    let lsn = Lsn(reader.u64().map_err(short)?);
    let time = Micros(reader.u64().map_err(short)?);
    let offset = reader.u64().map_err(short)?;
    let length = reader.u64().map_err(short)?;
    let extent = Extent { disk, offset, length };
    if length == 0 || !extent.lies_within(DISK_BYTES_MAX) {
        return Err("an extent lies at an impossible place");
    }
    let frame = FrameNumber(reader.u64().map_err(short)?);
    let checksum = Checksum(reader.u64().map_err(short)?);
    let name = BlockName::from_bytes(reader.array().map_err(short)?);
    let ordinal = reader.u32().map_err(short)?;
    reserved(reader, 4)?;
    let name = (flags & NAMED != 0).then_some(name);
    let source = match kind {
        KEPT => LayerSource::Kept { pack, frame, ordinal, checksum, name },
        ZERO => LayerSource::Zero,
        _ => return Err("an extent's kind isn't known"),
    };
    Ok(LayerExtent { extent, lsn, time, source })
}

fn reserved(reader: &mut Reader<'_>, count: usize) -> Result<(), &'static str> {
    let bytes = reader.bytes(count).map_err(|_| SHORT)?;
    if bytes.iter().all(|byte| *byte == 0) { Ok(()) } else { Err("reserved bytes are set") }
}
