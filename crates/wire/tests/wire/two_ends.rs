//! Both ends against each other, by a seed: random pieces, connections that break at any moment,
//! servers that forget what they hadn't stored, or store it after the next connection has begun.
//! Whatever happens, the vault ends with every record once, in order, with its bytes, and no more
//! is ever on its way than there is credit for.

use std::collections::VecDeque;

use proptest::prelude::*;
use tidegate_model::{Checksum, Epoch, Incarnation, Lsn, RunId, Token, VaultId};
use tidegate_wire::agent::{self, Event};
use tidegate_wire::{
    Begins, Decoder, Hello, Item, Message, RecordKind, Side, Totals, Welcome, server,
};

use crate::world::{Full, RECORD, World, payload_bytes};

const VAULT: VaultId = VaultId::from_bytes([1; 16]);
const CREDIT: u64 = 6 * RECORD as u64;

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
    /// Received and not yet stored: lost or stored later when the connection breaks.
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
            token: Token::NONE,
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
        match world.chance.below(9) {
            0 | 1 => self.agent_sends(world),
            2 | 3 => self.server_reads(world),
            4 | 5 => self.server_commits(world),
            6 | 7 => self.agent_reads(world),
            _ => {
                let count = world.chance.below(world.adrift.len() + 1);
                let late: Vec<Full> = world.adrift.drain(..count).collect();
                late.into_iter().for_each(|full| world.store(full));
            }
        }
        let coming = self.received.iter().chain(&self.writing).map(|(record, _)| &record.kind);
        let on_its_way: u64 = coming.map(payload_bytes).sum();
        assert!(on_its_way + self.server.credit_bytes() <= CREDIT);
        assert!(!self.agent.may_send(CREDIT + 1));
    }

    /// Sends the next record if credit allows.
    fn agent_sends(&mut self, world: &mut World) {
        let lsn = self.agent.sent().next();
        let Some((record, data)) = world.journal.get(usize::try_from(lsn.0).unwrap() - 1) else {
            return;
        };
        let mut out = Vec::new();
        match record.kind {
            // What is committed was forgotten: it can't be sent.
            _ if !self.open || lsn <= world.known_committed => return,
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
            credit_bytes: CREDIT,
            record_bytes_max: RECORD,
            block_bytes: RECORD,
            features: 0,
            run: RunId::from_bytes([3; 16]),
            shard: 0,
            before: Token::NONE,
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
            world.store((record, data));
        }
        if count > 0 {
            // Perhaps more than came on this connection, and perhaps never said: it may break.
            let committed = Lsn(world.vault.len() as u64);
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
        let mut world = World::new(count, seed);
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
            world.broken(ends.received);
        }
        prop_assert_eq!(world.known_committed, Lsn(count as u64), "it came to its end");
        prop_assert_eq!(world.vault, world.journal);
    }
}
