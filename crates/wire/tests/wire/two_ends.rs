//! Both ends against each other, by a seed: random pieces, connections that break at any moment,
//! servers that forget what they hadn't stored. Whatever happens, the vault ends with every record
//! once, in order, with its bytes.

use std::collections::VecDeque;

use proptest::prelude::*;
use tidegate_model::{
    Checksum, Disk, DiskNumber, Epoch, Extent, Incarnation, Lsn, Micros, RunId, VaultId,
};
use tidegate_wire::agent::{self, Event};
use tidegate_wire::{
    Begins, Decoder, Hello, Item, Message, Record, RecordKind, Side, Totals, Welcome, server,
};

const VAULT: VaultId = VaultId::from_bytes([1; 16]);
const RECORD: u32 = 4096;
const DISK: u64 = 1 << 20;

/// Numbers from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }
}

/// A record with the data that it has if it is a write.
type Full = (Record, Vec<u8>);

/// What the agent has to send: a disk, then a bit of everything.
fn journal(count: usize, chance: &mut Chance) -> Vec<Full> {
    let number = DiskNumber::default();
    let first = RecordKind::Disk(Disk { number, bytes: DISK, name: "sda".into() });
    let mut journal = vec![(Record { lsn: Lsn(1), time: Micros(0), kind: first }, Vec::new())];
    for lsn in 2..=count as u64 {
        let length = 1 + chance.below(RECORD as usize);
        let offset = chance.below(usize::try_from(DISK).unwrap() - length) as u64;
        let extent = Extent { disk: number, offset, length: length as u64 };
        let (kind, data) = match chance.below(4) {
            0 => (RecordKind::Time, Vec::new()),
            1 => (RecordKind::Zero(extent), Vec::new()),
            _ => {
                let data: Vec<u8> = (0..length).map(|at| (at as u64 ^ lsn) as u8).collect();
                (RecordKind::Write(extent, Checksum::of(&data)), data)
            }
        };
        journal.push((Record { lsn: Lsn(lsn), time: Micros(lsn / 3), kind }, data));
    }
    journal
}

/// What outlives every connection.
struct World {
    journal: Vec<Full>,
    /// The agent's memory.
    epoch: Epoch,
    known_committed: Lsn,
    ever_sent: Lsn,
    /// The vault's: records in order.
    vault: Vec<Full>,
    chance: Chance,
}

/// One connection: both ends, and the bytes between them.
struct Connection {
    agent: agent::Session,
    server: server::Session,
    agent_decoder: Decoder,
    server_decoder: Decoder,
    open: bool,
    to_server: VecDeque<u8>,
    to_agent: VecDeque<u8>,
    writing: Option<Full>,
    /// Received and not yet stored: lost when the connection breaks.
    received: VecDeque<Full>,
}

impl Connection {
    fn new(world: &World) -> Self {
        let hello = Hello {
            version: 1,
            vault: VAULT,
            incarnation: Incarnation::from_bytes([2; 16]),
            epoch: world.epoch,
            committed: world.known_committed,
            features: 0,
            begins: Begins::Copy,
            parent: None,
            machine: "m".parse().unwrap(),
        };
        let agent = agent::Session::new(hello, world.ever_sent);
        let mut out = Vec::new();
        agent.hello(&mut out);
        Self {
            agent,
            server: server::Session::new(VAULT),
            agent_decoder: Decoder::new(Side::Agent),
            server_decoder: Decoder::new(Side::Server),
            open: false,
            to_server: out.into(),
            to_agent: VecDeque::new(),
            writing: None,
            received: VecDeque::new(),
        }
    }

    fn step(&mut self, world: &mut World) {
        match world.chance.below(4) {
            0 => self.agent_sends(world),
            1 => self.server_reads(world),
            2 => self.server_commits(world),
            _ => self.agent_reads(world),
        }
    }

    /// Sends the next record if credit allows.
    fn agent_sends(&mut self, world: &mut World) {
        let lsn = self.agent.sent().next();
        let Some((record, data)) = world.journal.get(usize::try_from(lsn.0).unwrap() - 1) else {
            return;
        };
        let mut out = Vec::new();
        match record.kind {
            _ if !self.open => return,
            RecordKind::Write(extent, checksum) => {
                if !self.agent.may_send(extent.length) {
                    return;
                }
                let header = self.agent.write(lsn, record.time, extent, checksum);
                out.extend_from_slice(&header.encode());
                out.extend_from_slice(data);
            }
            _ => self.agent.record(record, &mut out),
        }
        self.to_server.extend(out);
        world.ever_sent = world.ever_sent.max(lsn);
    }

    fn server_reads(&mut self, world: &mut World) {
        let count = 1 + world.chance.below(2 * RECORD as usize);
        let bytes: Vec<u8> = self.to_server.drain(..count.min(self.to_server.len())).collect();
        let (mut input, mut out) = (bytes.as_slice(), Vec::new());
        while let Some(item) = self.server_decoder.next(&mut input).unwrap() {
            match item {
                Item::Message(message @ Message::Hello(_)) => self.grant(message, world, &mut out),
                Item::Message(Message::Record(record)) => {
                    if self.server.record(&record).unwrap() {
                        self.received.push_back((record, Vec::new()));
                    }
                }
                Item::Write(record) => {
                    assert!(self.server.record(&record).unwrap());
                    self.writing = Some((record, Vec::new()));
                }
                Item::Payload(part) => self.writing.as_mut().unwrap().1.extend_from_slice(part),
                Item::WriteEnd => self.received.extend(self.writing.take()),
                Item::Message(message) => panic!("{message:?}"),
            }
        }
        self.to_agent.extend(out);
    }

    fn grant(&mut self, message: Message, world: &World, out: &mut Vec<u8>) {
        let hello = self.server.hello(message).unwrap();
        let committed = Lsn(world.vault.len() as u64);
        assert!(hello.committed <= committed, "the agent knows of no more than there is");
        let welcome = Welcome {
            epoch: Epoch(1),
            committed,
            credit_bytes: u64::from(RECORD),
            record_bytes_max: RECORD,
            block_bytes: RECORD,
            features: 0,
            run: RunId::from_bytes([3; 16]),
            shard: 0,
        };
        self.server.grant(&welcome, out);
    }

    /// Stores some of what was received, acknowledges it and gives its credit back.
    fn server_commits(&mut self, world: &mut World) {
        let count = world.chance.below(self.received.len() + 1);
        let mut out = Vec::new();
        for (record, data) in self.received.drain(..count) {
            if let RecordKind::Write(_, checksum) = record.kind {
                assert_eq!(Checksum::of(&data), checksum);
                self.server.credit(data.len() as u64, &mut out);
            }
            world.vault.push((record, data));
        }
        if count > 0 {
            let committed = Lsn(world.vault.len() as u64);
            // An acknowledgement may be late: the connection may break before it is said.
            self.server.ack(committed, Totals::default(), &mut out);
        }
        self.to_agent.extend(out);
    }

    fn agent_reads(&mut self, world: &mut World) {
        let count = 1 + world.chance.below(200);
        let bytes: Vec<u8> = self.to_agent.drain(..count.min(self.to_agent.len())).collect();
        let mut input = bytes.as_slice();
        while let Some(item) = self.agent_decoder.next(&mut input).unwrap() {
            let Item::Message(message) = item else { panic!("{item:?}") };
            match self.agent.hear(message).unwrap() {
                Event::Welcome(welcome) => {
                    self.open = true;
                    world.epoch = welcome.epoch;
                    world.known_committed = welcome.committed;
                    let (record, _) = &world.journal[0];
                    if let RecordKind::Disk(disk) = &record.kind
                        && record.lsn <= welcome.committed
                    {
                        let mut out = Vec::new();
                        self.agent.restate(disk, &mut out);
                        self.to_server.extend(out);
                    }
                }
                Event::Ack { committed, .. } => world.known_committed = committed,
                Event::Credit => {}
                event => panic!("{event:?}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn every_record_arrives_once_and_in_order_through_any_breaks(
        seed in any::<u64>(), count in 1_usize..60, breaks in 0_usize..12,
    ) {
        let mut chance = Chance(seed);
        let journal = journal(count, &mut chance);
        let mut world = World {
            journal,
            epoch: Epoch::NONE,
            known_committed: Lsn::NONE,
            ever_sent: Lsn::NONE,
            vault: Vec::new(),
            chance,
        };
        let mut last_known = Lsn::NONE;
        for connection in 0..=breaks {
            let mut ends = Connection::new(&world);
            // The last connection is given the time that it needs; the others break somewhere.
            let steps = if connection == breaks { 200_000 } else { world.chance.below(400) };
            for _ in 0..steps {
                ends.step(&mut world);
                prop_assert!(world.known_committed >= last_known);
                prop_assert!(world.known_committed.0 <= world.vault.len() as u64);
                last_known = world.known_committed;
                if world.known_committed.0 == count as u64 {
                    break;
                }
            }
        }
        prop_assert_eq!(world.known_committed, Lsn(count as u64), "it came to its end");
        prop_assert_eq!(world.vault, world.journal);
    }
}
