//! The store of the simulation, and a plain reader of what lies in it.
//!
//! The reader knows the pack format and the rules of a log, and nothing of the pipeline: a pack
//! counts when all before it in its log are there; a record counts when all its pieces are; a
//! reference is looked up where it points. It checks all that it meets and panics on any breach.

use std::collections::{BTreeMap, HashMap};

use tidegate_model::{
    BlockName, Bookmark, Checksum, Disk, Epoch, Extent, LogId, Lsn, Micros, Name, PackNumber,
    Piece, VaultId,
};
use tidegate_vault::pack::{
    Content, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, PackHeader, PackIndex, Target,
    TargetLog, open_frame, open_index,
};
use tidegate_vault::seal::{BlockNamer, KeyRing};

/// Objects, created once and never changed.
#[derive(Default)]
pub struct Store {
    objects: BTreeMap<LogId, BTreeMap<PackNumber, Vec<u8>>>,
}

impl Store {
    pub fn create(&mut self, log: LogId, number: PackNumber, object: Vec<u8>) {
        let before = self.objects.entry(log).or_default().insert(number, object);
        assert!(before.is_none(), "pack {number} of {log} is put twice");
    }

    /// How many packs at the beginning of the log are there.
    pub fn counted(&self, log: LogId) -> u64 {
        let packs = self.objects.get(&log).into_iter().flatten();
        (0..).zip(packs).take_while(|(place, (number, _))| number.0 == *place).count() as u64
    }

    /// The packs that count of every log.
    fn counting(&self) -> impl Iterator<Item = (LogId, PackNumber, &[u8])> {
        self.objects.iter().flat_map(|(log, packs)| {
            let counted = self.counted(*log);
            let count = packs.range(..PackNumber(counted));
            count.map(|(number, object)| (*log, *number, object.as_slice()))
        })
    }
}

/// A pack as it was read.
pub struct ReadPack {
    pub header: PackHeader,
    pub index: PackIndex,
    /// The content of each frame.
    frames: Vec<Vec<u8>>,
}

/// What a record says, with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The pieces in order; `None` for zeros.
    Bytes(Vec<(Extent, Option<Vec<u8>>)>),
    Disk(Disk),
    Bookmark(Bookmark),
    Time,
}

/// One time that a record was found complete.
#[derive(Debug, Clone)]
pub struct Found {
    pub time: Micros,
    pub said: Said,
}

/// All that the packs that count say.
#[derive(Default)]
pub struct Told {
    /// By machine, epoch and LSN: a record may be there several times, after reconnects.
    pub records: BTreeMap<(Name, Epoch), BTreeMap<Lsn, Vec<Found>>>,
    /// Records that begin and don't end.
    pub unfinished: Vec<(Name, Epoch, Lsn)>,
    /// Blocks with a name, and where they are kept.
    pub named: Vec<(LogId, PackNumber, u64, u32, BlockName)>,
    pub packs: HashMap<(LogId, PackNumber), ReadPack>,
}

impl Told {
    /// The last LSN of the epoch before which nothing is missing.
    pub fn chain_end(&self, machine: &Name, epoch: Epoch) -> Lsn {
        let records = self.records.get(&(machine.clone(), epoch));
        let has = |lsn| records.is_some_and(|records| records.contains_key(&Lsn(lsn)));
        Lsn((1..).find(|lsn| !has(*lsn)).unwrap() - 1)
    }
}

/// Reads the packs that count.
pub fn read(store: &Store, ring: &KeyRing) -> Told {
    let mut told = Told::default();
    let mut ended = HashMap::new();
    for (log, number, object) in store.counting() {
        assert!(!ended.contains_key(&log), "pack {number} of {log} follows the last");
        let pack = open(object, log, number, ring);
        if pack.index.last {
            ended.insert(log, number);
        }
        told.packs.insert((log, number), pack);
    }
    let namer = ring.block_namer();
    for (log, number, _) in store.counting() {
        read_records(&mut told, log, number, &namer);
    }
    told
}

/// Opens a whole object.
pub fn open(object: &[u8], log: LogId, number: PackNumber, ring: &KeyRing) -> ReadPack {
    let header = PackHeader::decode(object).unwrap();
    let vault: VaultId = ring.vault();
    assert_eq!((header.vault, header.log, header.number), (vault, log, number));
    assert_eq!(header.object_bytes, object.len() as u64);
    let ciphers = ring.log_ciphers(header.key_version, log).unwrap();
    let begin = usize::try_from(header.frames_begin()).unwrap();
    let index = open_index(&header, &mut object[HEADER_BYTES..begin].to_vec(), &ciphers).unwrap();
    let mut frames = Vec::new();
    for entry in &index.frames {
        let begin = usize::try_from(entry.offset).unwrap();
        let end = begin + usize::try_from(entry.object_bytes()).unwrap();
        let (head, sealed) = object[begin..end].split_at(FRAME_HEADER_BYTES);
        let frame = FrameHeader::decode(head).unwrap();
        assert_eq!((frame.log, frame.number), (log, entry.number));
        assert_eq!((frame.plain_bytes, frame.codec), (entry.plain_bytes, entry.codec));
        assert!(sealed.ends_with(&entry.tag));
        let mut plain = Vec::new();
        open_frame(&frame, &ciphers, &mut sealed.to_vec(), &mut plain).unwrap();
        frames.push(plain);
    }
    check_frames_are_full(&index);
    ReadPack { header, index, frames }
}

/// Every byte of a frame belongs to one record.
fn check_frames_are_full(index: &PackIndex) {
    for (place, entry) in (0..).zip(&index.frames) {
        let kept = index.kept_of(place).filter_map(|record| record.content.extent());
        assert_eq!(kept.map(|extent| extent.length).sum::<u64>(), u64::from(entry.plain_bytes));
    }
}

fn read_records(told: &mut Told, log: LogId, number: PackNumber, namer: &BlockNamer) {
    let pack = &told.packs[&(log, number)];
    let mut found = Vec::new();
    let mut unfinished = Vec::new();
    let mut named = Vec::new();
    // A record's pieces lie in one pack: by machine, those of the record that is being read.
    let mut open: HashMap<u16, (Lsn, Piece, Vec<Content>)> = HashMap::new();
    for record in &pack.index.records {
        let piece = record.piece;
        if let Content::Kept { name: Some(name), frame, .. } = &record.content {
            let ordinal = pack.index.kept_of(*frame).position(|kept| kept == record).unwrap();
            let frame = pack.index.frames[*frame as usize].number.0;
            named.push((log, number, frame, u32::try_from(ordinal).unwrap(), *name));
        }
        if piece.number == 0 {
            let begun = (record.lsn, Piece { number: 0, count: piece.count }, Vec::new());
            if let Some((lsn, ..)) = open.insert(record.machine, begun) {
                unfinished.push((record.machine, lsn));
            }
        }
        let (lsn, next, contents) = open.get_mut(&record.machine).expect("piece 0 comes first");
        assert_eq!((record.lsn, piece), (*lsn, *next), "a record's pieces follow each other");
        next.number += 1;
        contents.push(record.content.clone());
        if piece.is_last() {
            let (lsn, _, contents) = open.remove(&record.machine).unwrap();
            let said = assemble(told, log, number, &contents, namer);
            found.push((record.machine, lsn, Found { time: record.time, said }));
        }
    }
    unfinished.extend(open.into_iter().map(|(machine, (lsn, ..))| (machine, lsn)));
    let machine = |place: u16| {
        let machine = &pack.index.machines[usize::from(place)];
        (machine.name.clone(), machine.epoch)
    };
    let found: Vec<_> = found.into_iter().map(|(m, lsn, f)| (machine(m), lsn, f)).collect();
    for (place, lsn) in unfinished {
        let (name, epoch) = machine(place);
        told.unfinished.push((name, epoch, lsn));
    }
    told.named.extend(named);
    for (machine, lsn, record) in found {
        told.records.entry(machine).or_default().entry(lsn).or_default().push(record);
    }
}

fn assemble(
    told: &Told,
    log: LogId,
    number: PackNumber,
    contents: &[Content],
    namer: &BlockNamer,
) -> Said {
    match &contents[0] {
        Content::Disk(disk) => return Said::Disk(disk.clone()),
        Content::Bookmark(bookmark) => return Said::Bookmark(bookmark.clone()),
        Content::Time => return Said::Time,
        Content::Kept { .. } | Content::Zero(_) | Content::Reference { .. } => {}
    }
    let piece = |content: &Content| {
        let extent = content.extent().expect("only bytes have pieces");
        let bytes = bytes_of(told, log, number, content);
        if let Some(bytes) = &bytes {
            let (checksum, name) = match content {
                Content::Kept { checksum, name, .. } => (*checksum, *name),
                Content::Reference { checksum, name, .. } => (*checksum, Some(*name)),
                _ => unreachable!("others have no bytes"),
            };
            assert_eq!(checksum, Checksum::of(bytes));
            assert!(name.is_none_or(|name| name == namer.name_block(bytes)));
        }
        (extent, bytes)
    };
    Said::Bytes(contents.iter().map(piece).collect())
}

/// The bytes of a piece; `None` for zeros.
fn bytes_of(told: &Told, log: LogId, number: PackNumber, content: &Content) -> Option<Vec<u8>> {
    let pack = &told.packs[&(log, number)];
    match content {
        Content::Kept { extent, frame, offset, .. } => {
            let begin = *offset as usize;
            let end = begin + usize::try_from(extent.length).unwrap();
            Some(pack.frames[*frame as usize][begin..end].to_vec())
        }
        Content::Reference { target, .. } => {
            let (log, number) = place_of(&pack.index, log, target);
            let there = told.packs.get(&(log, number));
            let there = there.expect("a reference of a pack that counts points at one that counts");
            let frame = there.index.frame_place(target.frame).expect("it points at a frame");
            let kept = there.index.kept_at(frame, target.ordinal).expect("of so many records");
            bytes_of(told, log, number, &kept.content)
        }
        _ => None,
    }
}

/// The pack at which a reference points.
pub fn place_of(index: &PackIndex, own: LogId, target: &Target) -> (LogId, PackNumber) {
    match target.log {
        TargetLog::Own => (own, target.pack),
        TargetLog::Other(log) => (index.logs[usize::from(log)].id, target.pack),
    }
}
