//! The example session of docs/formats/wire.md: what both ends say in it, by the program itself.
//!
//! The document's bytes are compared with these, all of them and in order.

use tidegate_model::{
    Bookmark, BookmarkKind, Checksum, Disk, DiskNumber, Epoch, Extent, Incarnation, Lsn, Micros,
    RunId, Token, VaultId,
};
use tidegate_wire::{
    Begins, Decoder, Hello, Item, Message, Record, RecordKind, Side, Totals, Welcome, agent, server,
};

const DOCUMENT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/formats/wire.md"));
/// 2026-01-01 00:00:00 UTC.
const START: u64 = 1_767_225_600_000_000;
const DISK_BYTES: u64 = 1 << 20;
const DATA: &[u8; 16] = b"sixteen bytes...";

fn vault() -> VaultId {
    "00112233445566778899aabbccddeeff".parse().unwrap()
}

/// Of the agent's run.
const TOKEN: Token = Token::from_bytes([0xc3; 16]);

fn hello(epoch: u32, committed: u64) -> Hello {
    Hello {
        version: 1,
        vault: vault(),
        incarnation: Incarnation::from_bytes([0xa1; 16]),
        epoch: Epoch(epoch),
        committed: Lsn(committed),
        features: 0,
        begins: Begins::Copy,
        parent: None,
        token: TOKEN,
        machine: "db-1".parse().unwrap(),
    }
}

fn welcome(committed: u64) -> Welcome {
    Welcome {
        epoch: Epoch(1),
        committed: Lsn(committed),
        credit_bytes: 65_536,
        record_bytes_max: 65_536,
        block_bytes: 65_536,
        features: 0,
        run: RunId::from_bytes([0xb2; 16]),
        shard: 0,
        before: if committed == 0 { Token::NONE } else { TOKEN },
    }
}

fn disk() -> Disk {
    Disk { number: DiskNumber::default(), bytes: DISK_BYTES, name: "/dev/sda".into() }
}

fn extent(offset: u64, length: u64) -> Extent {
    Extent { disk: DiskNumber::default(), offset, length }
}

fn record(lsn: u64, kind: RecordKind) -> Record {
    Record { lsn: Lsn(lsn), time: Micros(START + lsn), kind }
}

/// Both ends of a connection, each frame of which is noted down.
struct Ends {
    agent: agent::Session,
    server: server::Session,
    frames: Vec<Vec<u8>>,
}

impl Ends {
    fn open(hello: Hello, ever_sent: u64, welcome: &Welcome) -> Self {
        let agent = agent::Session::new(hello, Lsn(ever_sent));
        let mut ends = Self { agent, server: server::Session::new(vault()), frames: Vec::new() };
        let mut bytes = Vec::new();
        ends.agent.hello(&mut bytes);
        let [Item::Message(hello)] = &items(Side::Server, &bytes)[..] else { panic!("a hello") };
        ends.server.hello(hello.clone()).unwrap();
        ends.frames.push(bytes);
        ends.says(|server, out| server.grant(welcome, out));
        ends
    }

    /// The server says one frame.
    fn says(&mut self, say: impl FnOnce(&mut server::Session, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        say(&mut self.server, &mut bytes);
        let [Item::Message(message)] = &items(Side::Agent, &bytes)[..] else { panic!("one frame") };
        self.agent.hear(message.clone()).unwrap();
        self.frames.push(bytes);
    }

    /// The agent sends one frame.
    fn sends(&mut self, send: impl FnOnce(&mut agent::Session, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        send(&mut self.agent, &mut bytes);
        match &items(Side::Server, &bytes)[0] {
            Item::Message(Message::Bye) => self.server.bye().unwrap(),
            Item::Message(Message::Record(record)) | Item::Write(record) => {
                self.server.record(record).unwrap();
            }
            item => panic!("{item:?}"),
        }
        self.frames.push(bytes);
    }
}

fn items(side: Side, bytes: &[u8]) -> Vec<Item<'_>> {
    let (mut decoder, mut input) = (Decoder::new(side), bytes);
    std::iter::from_fn(|| decoder.next(&mut input).unwrap()).collect()
}

fn example() -> Vec<Vec<u8>> {
    let mut first = Ends::open(hello(0, 0), 0, &welcome(0));
    first.sends(|agent, out| agent.record(&record(1, RecordKind::Disk(disk())), out));
    first.sends(|agent, out| {
        let time = Micros(START + 2);
        let header = agent.write(Lsn(2), time, extent(4096, 16), Checksum::of(DATA));
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(DATA);
    });
    let rest = extent(65_536, DISK_BYTES - 65_536);
    first.sends(|agent, out| agent.record(&record(3, RecordKind::Zero(rest)), out));
    first.says(|server, out| server.credit(16, out));
    let totals = Totals { kept_bytes: 16, stored_bytes: 32, ..Totals::default() };
    first.says(|server, out| server.ack(Lsn(2), totals, out));

    let mut second = Ends::open(hello(1, 2), 3, &welcome(3));
    second.sends(|agent, out| agent.restate(&disk(), out));
    let end = Bookmark { kind: BookmarkKind::CopyEnd, clean: true, name: String::new() };
    second.sends(|agent, out| agent.record(&record(4, RecordKind::Bookmark(end)), out));
    second.says(|server, out| server.ack(Lsn(4), Totals::default(), out));
    second.sends(|agent, out| agent.bye(out));
    [first.frames, second.frames].concat()
}

/// A frame as the document shows it: the header's fields, then its payload.
fn shown(frame: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let fields = [0, 4, 8, 16, 24, 32, 40, 48, 56].windows(2).map(|at| hex(&frame[at[0]..at[1]]));
    let fields: Vec<String> = fields.collect();
    let mut lines = vec![fields[..4].join(" "), fields[4..].join(" ")];
    lines.extend(frame[56..].chunks(32).map(hex));
    lines.iter().map(|line| format!("    {line}\n")).collect()
}

#[test]
fn the_documents_example_is_what_both_ends_say() {
    let (_, section) = DOCUMENT.split_once("\n## Example session\n").expect("the section is there");
    let is_hex = |line: &&str| line.starts_with("    ") && !line.trim().is_empty();
    let written: Vec<&str> = section.lines().filter(is_hex).collect();
    let said: String = example().iter().map(|frame| shown(frame)).collect();
    assert_eq!(written, said.lines().collect::<Vec<_>>(), "the frames are\n{said}");
}
