//! The decoders behind the seals, open to any bytes, for the fuzzer (`fuzz/`). What is sealed is ours, but
//! a defect, or somebody with the key, could have made it: it may cost nothing but an error.

use tidegate_model::Name;

use crate::chain::Traces;
use crate::fold::fuzzing as fold;
use crate::pack::{self, PackHeader};

/// The content of a manifest, with the number that it states: the history is taken from it as a reader
/// does, and gives how many epochs it has.
#[must_use]
pub fn manifest(bytes: &[u8]) -> usize {
    let Ok(machine) = "m".parse::<Name>() else { return 0 };
    let Some(manifest) = fold::manifest(bytes) else { return 0 };
    let mut traces = Traces::default();
    manifest.seed(&machine, &mut traces);
    let usage = manifest.usage.plus(&manifest.usage);
    let kept = manifest.epochs.iter().flat_map(|epoch| epoch.kept_in()).count();
    std::hint::black_box((usage, kept));
    traces.0.len()
}

/// The body of a layer, compressed or not: how many extents it has.
#[must_use]
pub fn layer(bytes: &[u8]) -> usize {
    fold::layer(bytes).map_or(0, |layer| layer.extents.len())
}

/// A pack's header, and its index as it is when opened: how many records that has.
#[must_use]
pub fn pack(bytes: &[u8]) -> usize {
    let Ok(header) = PackHeader::decode(bytes) else { return 0 };
    let plain = bytes.get(pack::HEADER_BYTES..).unwrap_or_default();
    let Ok(index) = pack::decode_index(plain, &header) else { return 0 };
    let frames = 0..u32::try_from(index.frames.len()).unwrap_or(u32::MAX);
    let kept: usize = frames.map(|frame| index.kept_of(frame).count()).sum();
    assert!(kept <= index.records.len(), "a record is kept once");
    index.records.len()
}
