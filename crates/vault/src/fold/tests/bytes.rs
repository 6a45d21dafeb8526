//! The bytes of layers and manifests: golden files, properties, and what isn't believed.

use tidegate_model::{BlockName, Checksum, Epoch, FrameNumber, LayerId, LogId, Micros, PackNumber};
use tidegate_model::{Bookmark, LogName, RunId};

use super::*;
use crate::chain::Retained;
use crate::fold::layer_codec::{decode, encode};
use crate::fold::objects::decode_manifest;
use crate::log::PackPlace;

const LAYER: &[u8] = include_bytes!("../../golden/layer.bin");
const MANIFEST: &[u8] = include_bytes!("../../golden/manifest.json");
/// The same as it was written before there were dense packs.
const OLD_MANIFEST: &[u8] = include_bytes!("../../golden/manifest-0.json");
/// A layer and a manifest as objects, in the vault of all these tests.
const LAYER_OBJECT: &[u8] = include_bytes!("../../golden/layer.object");
const MANIFEST_OBJECT: &[u8] = include_bytes!("../../golden/manifest.object");

fn log(byte: u8) -> LogName {
    let id = LogId { run: RunId::from_bytes([byte; 16]), shard: u16::from(byte) };
    LogName { node: "ps-1".parse().unwrap(), id }
}

fn place(byte: u8, number: u64) -> PackPlace {
    PackPlace { log: log(byte), number: PackNumber(number) }
}

/// The layer that docs/formats/fold.md shows.
fn sample_layer() -> Layer {
    let entry = |lsn, disk, offset, length, source| LayerExtent {
        extent: extent(disk, offset, length),
        lsn: Lsn(lsn),
        time: Micros(1_767_225_600_000_000 + lsn),
        source,
    };
    let kept = |pack, frame, name| LayerSource::Kept {
        pack,
        frame: FrameNumber(frame),
        ordinal: 2,
        checksum: Checksum(0x0123_4567_89ab_cdef),
        name,
    };
    let name = BlockName::from_bytes([0xb1; 16]);
    Layer {
        epoch: Epoch(3),
        first: Lsn(7),
        last: Lsn(9),
        packs: vec![place(2, 5), place(1, 0)],
        extents: vec![
            entry(9, 0, 4096, 512, kept(0, 11, None)),
            entry(7, 0, 65_536, 65_536, kept(1, 4, Some(name))),
            entry(8, 1, 0, 1 << 40, LayerSource::Zero),
        ],
    }
}

fn sample_entry() -> LayerEntry {
    let layer = LayerId::from_bytes([0xab; 16]);
    LayerEntry { layer, first: Lsn(7), last: Lsn(9), extents: 3, bytes: 300, kept_bytes: 66_048 }
}

fn sample_manifest() -> Manifest {
    let kind = BookmarkKind::CopyEnd;
    let bookmark = Bookmark { kind, clean: true, name: "copied".to_owned() };
    let (kind, name) = (BookmarkKind::GapJournalFull, String::new());
    let gap = Bookmark { kind, clean: false, name };
    let stored = Micros(1_767_225_600_250_000);
    let epoch = FoldedEpoch {
        epoch: Epoch(3),
        runs: vec![(Lsn(1), Lsn(10)), (Lsn(12), Lsn(12))],
        last_time: Micros(1_767_225_600_000_012),
        ages: vec![Age { lsn: Lsn(8), stored }, Age { lsn: Lsn(10), stored }],
        retained: Retained { from: Lsn(9), points: vec![Lsn(7)] },
        bookmarks: vec![
            Marked { lsn: Lsn(10), time: Micros(1_767_225_600_000_010), bookmark, stored },
            Marked { lsn: Lsn(12), time: Micros(1_767_225_600_000_012), bookmark: gap, stored },
        ],
        disks: vec![Declared {
            lsn: Lsn(1),
            time: Micros(1_767_225_600_000_001),
            disk: disk(0, 131_072),
        }],
        begins: vec![Begin { log: log(2), pack: PackNumber(4), lsn: Lsn(1) }],
        packs: vec![
            FoldedPack {
                log: 0,
                pack: PackNumber(0),
                lsn: Lsn(7),
                last: Lsn(7),
                bytes: 0,
                head: 0,
            },
            FoldedPack {
                log: 1,
                pack: PackNumber(5),
                lsn: Lsn(9),
                last: Lsn(9),
                bytes: 1234,
                head: 500,
            },
        ],
        pack_logs: vec![log(1), log(2)],
        layers: vec![sample_entry()],
        base: Some(Base {
            lsn: Lsn(10),
            layers: vec![sample_entry()],
            packs: vec![FoldedPack {
                log: 0,
                pack: PackNumber(2),
                lsn: Lsn(10),
                last: Lsn(10),
                bytes: 4321,
                head: 600,
            }],
            pack_logs: vec![layout::dense_log(&db(), RunId::from_bytes([3; 16]))],
            unfinished: true,
        }),
    };
    let usage = FoldedUsage {
        kept_bytes: 512,
        zero_bytes: 1 << 40,
        reference_bytes: 65_536,
        stored_bytes: 700,
    };
    let folded = FoldedLog { log: log(2), from: PackNumber(4), upto: PackNumber(6) };
    Manifest { number: 2, logs: vec![folded], epochs: vec![epoch], gone: vec![Epoch(1)], usage }
}

#[test]
fn the_golden_layer_reads_and_is_written_the_same() {
    assert_eq!(decode(LAYER), Ok(sample_layer()));
    assert_eq!(encode(&sample_layer()), LAYER);
}

#[test]
fn the_golden_manifest_reads_and_is_written_the_same() {
    assert_eq!(decode_manifest(MANIFEST, 2), Ok(sample_manifest()));
    assert_eq!(serde_json::to_vec(&sample_manifest()).unwrap(), MANIFEST);
}

#[test]
fn a_manifest_from_before_dense_packs_reads() {
    let mut manifest = sample_manifest();
    let epoch = &mut manifest.epochs[0];
    let base = epoch.base.as_mut().unwrap();
    (base.packs, base.pack_logs, base.unfinished) = (Vec::new(), Vec::new(), false);
    epoch.layers.iter_mut().chain(&mut base.layers).for_each(|layer| layer.kept_bytes = 0);
    assert_eq!(decode_manifest(OLD_MANIFEST, 2), Ok(manifest));
}

#[test]
fn the_golden_objects_open_where_they_belong_and_nowhere_else() {
    run(async {
        let vault = TestVault::new();
        let layer = layout::layer(&db(), sample_entry().layer);
        vault.put(&layer, LAYER_OBJECT.to_vec()).await;
        vault.put(&layout::manifest(&db(), 2), MANIFEST_OBJECT.to_vec()).await;
        let (store, ring) = (vault.store(), &vault.ring);
        let newest = newest_manifest(&store, ring, &db()).await.unwrap();
        assert_eq!((newest.number, newest.manifest), (2, Some(sample_manifest())));
        let read = read_layer(&store, ring, &db(), Epoch(3), sample_entry()).await;
        assert_eq!(read, Ok(sample_layer()));
        // Under another number, of another epoch, of another machine.
        vault.put(&layout::manifest(&db(), 3), MANIFEST_OBJECT.to_vec()).await;
        let newest = newest_manifest(&store, ring, &db()).await.unwrap();
        assert!(newest.number == 3 && newest.damage.is_some());
        assert_eq!(newest.manifest, Some(sample_manifest()), "the one before it serves");
        let other = read_layer(&store, ring, &db(), Epoch(4), sample_entry()).await.unwrap_err();
        assert!(other.is_damage() && other.to_string().contains("another layer"), "{other}");
        let web: Name = "web-1".parse().unwrap();
        vault.put(&layout::layer(&web, sample_entry().layer), LAYER_OBJECT.to_vec()).await;
        assert!(read_layer(&store, ring, &web, Epoch(3), sample_entry()).await.is_err());
    });
}

/// Writes the golden files anew: after a wanted change of the format only.
#[test]
#[ignore = "writes the golden files; run it by name"]
fn write_the_golden_files() {
    run(async {
        let vault = TestVault::new();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden");
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(format!("{folder}/{name}"), bytes).unwrap();
        };
        write("layer.bin", &encode(&sample_layer()));
        write("manifest.json", &serde_json::to_vec(&sample_manifest()).unwrap());
        let (store, ring) = (vault.store(), &vault.ring);
        let db = db();
        let layer = crate::fold::objects::create_layer(&store, ring, &db, sample_layer());
        let path = layout::layer(&db, layer.await.unwrap().layer);
        // Its name is random: sealed once more under the one that is documented.
        let body = crate::meta::container::open_within(ring, &path, &vault.get(&path).await, 9999);
        let path = layout::layer(&db, sample_entry().layer);
        let object = crate::meta::container::seal_within(ring, &path, &body.unwrap(), 9999);
        write("layer.object", &object.unwrap());
        let manifest = sample_manifest();
        crate::fold::objects::create_manifest(&store, ring, &db, &manifest).await.unwrap();
        write("manifest.object", &vault.get(&layout::manifest(&db, 2)).await);
    });
}

#[test]
fn a_layer_that_cant_be_is_refused() {
    let refused = |change: &dyn Fn(&mut Layer)| {
        let mut layer = sample_layer();
        change(&mut layer);
        decode(&encode(&layer)).unwrap_err()
    };
    assert!(refused(&|layer| layer.extents.clear()).contains("extents"));
    assert!(refused(&|layer| layer.extents.swap(0, 1)).contains("order"));
    assert!(refused(&|layer| layer.first = Lsn(8)).contains("LSN"));
    assert!(refused(&|layer| drop(layer.packs.pop())).contains("pack"));
    assert!(refused(&|layer| layer.extents[1].extent.length = 5 << 20).contains("longer"));
    assert!(refused(&|layer| layer.extents[2].extent.offset = u64::MAX).contains("impossible"));
    assert!(refused(&|layer| layer.extents[2].extent.length = 0).contains("impossible"));
    for at in 0..LAYER.len() {
        assert!(decode(&LAYER[..at]).is_err(), "cut at {at}");
    }
    assert!(decode(&[LAYER, b"x"].concat()).is_err());
    // Counts that no bytes stand behind reserve nothing.
    let mut bytes = LAYER.to_vec();
    bytes[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(decode(&bytes).unwrap_err().contains("more entries"));
}

#[test]
fn a_manifest_that_cant_be_is_refused() {
    let refused = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = sample_manifest();
        change(&mut manifest);
        decode_manifest(&serde_json::to_vec(&manifest).unwrap(), 2).unwrap_err()
    };
    assert!(refused(&|manifest| manifest.number = 1).contains("another"));
    assert!(refused(&|manifest| manifest.logs[0].from = PackNumber(7)).contains("backwards"));
    assert!(refused(&|m| m.epochs.push(m.epochs[0].clone())).contains("order"));
    assert!(refused(&|m| m.epochs[0].runs[1].0 = Lsn(11)).contains("LSNs"));
    assert!(refused(&|m| m.epochs[0].bookmarks[0].lsn = Lsn(11)).contains("bookmark"));
    assert!(refused(&|m| m.epochs[0].disks[0].disk.name = "x".repeat(1025)).contains("text"));
    assert!(refused(&|m| m.gone = vec![Epoch(3)]).contains("order"));
    assert!(refused(&|m| m.epochs[0].retained.points = vec![Lsn(9)]).contains("kept"));
    assert!(refused(&|m| m.epochs[0].retained.points = vec![Lsn(0)]).contains("kept"));
    assert!(refused(&|m| m.epochs[0].retained.from = Lsn(11)).contains("kept"));
    assert!(refused(&|m| m.epochs[0].ages.swap(0, 1)).contains("ages"));
    assert!(refused(&|m| m.epochs[0].packs[0].log = 2).contains("pack"));
    assert!(refused(&|m| m.epochs[0].layers[0].last = Lsn(13)).contains("layer"));
    assert!(refused(&|m| m.epochs[0].layers[0].extents = 0).contains("layer"));
    let base = |lsn| {
        let (layers, packs, pack_logs) = (Vec::new(), Vec::new(), Vec::new());
        Some(Base { lsn: Lsn(lsn), layers, packs, pack_logs, unfinished: false })
    };
    assert!(refused(&|m| m.epochs[0].base.as_mut().unwrap().pack_logs.clear()).contains("pack"));
    assert!(refused(&|m| m.epochs[0].base = base(8)).contains("across"));
    assert!(refused(&|m| m.epochs[0].base = base(12)).contains("base"));
    assert!(refused(&|m| m.epochs[0].base.as_mut().unwrap().lsn = Lsn(6)).contains("base"));
    assert!(refused(&|m| m.epochs[0].epoch = Epoch(0)).contains("number"));
}

proptest! {
    #[test]
    fn a_changed_layer_is_another_or_refused_and_never_a_panic(
        at in 0..LAYER.len(),
        byte in any::<u8>(),
        cut in 0..LAYER.len(),
    ) {
        let mut bytes = LAYER.to_vec();
        bytes[at] = byte;
        if let Ok(layer) = decode(&bytes) {
            let again = decode(&encode(&layer));
            prop_assert_eq!(again, Ok(layer));
        }
        let _ = decode(&bytes[..cut]);
    }

    #[test]
    fn garbage_is_no_manifest_and_never_a_panic(
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0..MANIFEST.len(),
        byte in any::<u8>(),
    ) {
        prop_assert!(decode_manifest(&garbage, 2).is_err());
        let mut bytes = MANIFEST.to_vec();
        bytes[at] = byte;
        if let Ok(manifest) = decode_manifest(&bytes, 2) {
            prop_assert_eq!(manifest.number, 2);
        }
    }
}
