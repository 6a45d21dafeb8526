//! The agent's end of a session: one connection. A reconnect makes a new one.
//!
//! It checks what the server says and keeps account of credit and LSNs. The caller moves bytes,
//! keeps what isn't committed, and sends it again after a reconnect: the same LSNs with the same
//! bytes.

use std::collections::VecDeque;

use tidegate_model::limits::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, RECORD_BYTES_MAX};
use tidegate_model::{Checksum, Disk, Epoch, Extent, Lsn, Micros};

use crate::limits::{CREDIT_BYTES_MAX, FEATURE_HASHES, QUESTIONS_MAX};
use crate::{
    Ack, Hashes, Have, Header, Hello, Message, Record, RecordKind, Refusal, Slow, Totals, Welcome,
};

/// What the server said that it must not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server broke the protocol: {0}")]
pub struct ServerBroke(&'static str);

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The session is open: send what follows `committed`.
    Welcome(Welcome),
    /// More is committed, or more is known of it. `totals` are those of this session.
    Ack {
        /// Everything up to here is stored: it may be forgotten.
        committed: Lsn,
        /// What became of this session's committed bytes.
        totals: Totals,
    },
    /// The answer to the oldest question that had none.
    Have(Have),
    /// More may be sent.
    Credit,
    /// Why it takes so long.
    Slow(Slow),
    /// No; the session has ended.
    Refused(Refusal),
}

/// The agent's end.
pub struct Session {
    hello: Hello,
    open: bool,
    /// The last LSN that any connection of this epoch has sent.
    ever_sent: Lsn,
    sent: Lsn,
    committed: Lsn,
    credit_bytes: u64,
    record_bytes_max: u32,
    /// The length of a block, where questions are answered.
    asks_in: Option<u64>,
    /// Questions that wait for their answers, the oldest first.
    questions: VecDeque<Extent>,
}

impl Session {
    /// A session that begins with this hello. `ever_sent` is the last LSN that any earlier
    /// connection of the claimed epoch has sent; none for a new epoch.
    #[must_use]
    pub const fn new(hello: Hello, ever_sent: Lsn) -> Self {
        let committed = hello.committed;
        Self {
            hello,
            open: false,
            ever_sent,
            sent: Lsn::NONE,
            committed,
            credit_bytes: 0,
            record_bytes_max: 0,
            asks_in: None,
            questions: VecDeque::new(),
        }
    }

    /// Writes the hello.
    pub fn hello(&self, out: &mut Vec<u8>) {
        Message::Hello(self.hello.clone()).encode(out);
    }

    /// The server said this.
    ///
    /// # Errors
    /// [`ServerBroke`] when it must not; the connection must end then.
    pub fn hear(&mut self, message: Message) -> Result<Event, ServerBroke> {
        match message {
            Message::Refuse(refusal) => Ok(Event::Refused(refusal)),
            Message::Slow(slow) => Ok(Event::Slow(slow)),
            Message::Welcome(welcome) if !self.open => self.welcome(welcome),
            Message::Ack(ack) if self.open => self.ack(&ack),
            Message::Have(have) if self.open => self.have(have),
            Message::Credit(bytes) if self.open => {
                self.credit_bytes = self.credit_bytes.saturating_add(bytes);
                if self.credit_bytes > CREDIT_BYTES_MAX {
                    return Err(ServerBroke("it granted more credit than there can be"));
                }
                Ok(Event::Credit)
            }
            _ => Err(ServerBroke("it said something out of turn")),
        }
    }

    fn welcome(&mut self, welcome: Welcome) -> Result<Event, ServerBroke> {
        let claimed = self.hello.epoch;
        if claimed != Epoch::NONE && welcome.epoch != claimed {
            return Err(ServerBroke("it granted another epoch than the one that was claimed"));
        }
        if welcome.epoch == Epoch::NONE {
            return Err(ServerBroke("it granted no epoch"));
        }
        if welcome.committed < self.committed {
            return Err(ServerBroke("it forgot what it had acknowledged as committed"));
        }
        if welcome.committed > self.ever_sent {
            return Err(ServerBroke("it has committed what was never sent"));
        }
        let block = BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX;
        if !block.contains(&welcome.block_bytes) || !welcome.block_bytes.is_power_of_two() {
            return Err(ServerBroke("its block size is impossible"));
        }
        let record = welcome.block_bytes..=RECORD_BYTES_MAX;
        if !record.contains(&welcome.record_bytes_max) || welcome.credit_bytes > CREDIT_BYTES_MAX {
            return Err(ServerBroke("its limits are impossible"));
        }
        if welcome.features & !self.hello.features != 0 {
            return Err(ServerBroke("it wants features that weren't offered"));
        }
        self.open = true;
        self.record_bytes_max = welcome.record_bytes_max;
        self.sent = welcome.committed;
        self.committed = welcome.committed;
        self.credit_bytes = welcome.credit_bytes;
        let answers = welcome.features & FEATURE_HASHES != 0;
        self.asks_in = answers.then_some(u64::from(welcome.block_bytes));
        Ok(Event::Welcome(welcome))
    }

    fn have(&mut self, have: Have) -> Result<Event, ServerBroke> {
        let asked = self.questions.pop_front();
        if asked != Some(have.extent) {
            return Err(ServerBroke("it answered what wasn't asked"));
        }
        let blocks = self.asks_in.map_or(0, |block| have.extent.length / block);
        let beyond = u32::try_from(blocks).ok().and_then(|blocks| have.blocks.checked_shr(blocks));
        if beyond.unwrap_or(0) != 0 {
            return Err(ServerBroke("it has blocks that weren't asked for"));
        }
        Ok(Event::Have(have))
    }

    fn ack(&mut self, ack: &Ack) -> Result<Event, ServerBroke> {
        // Not even what an earlier connection sent: the caller would forget it, and what follows
        // couldn't be sent here without it.
        if ack.received > self.sent {
            return Err(ServerBroke("it received an LSN that wasn't sent to it"));
        }
        if ack.committed < self.committed || ack.committed > ack.received {
            return Err(ServerBroke("it acknowledged an LSN that it can't"));
        }
        self.committed = ack.committed;
        Ok(Event::Ack { committed: ack.committed, totals: ack.totals })
    }

    /// Whether the credit is there for a write with so many payload bytes. One longer than welcome
    /// allows may never be sent, whatever this says.
    #[must_use]
    pub const fn may_send(&self, payload_bytes: u64) -> bool {
        self.open && payload_bytes <= self.credit_bytes
    }

    /// The last LSN that this connection has sent, or that was committed when it opened.
    #[must_use]
    pub const fn sent(&self) -> Lsn {
        self.sent
    }

    /// The last LSN that is committed.
    #[must_use]
    pub const fn committed(&self) -> Lsn {
        self.committed
    }

    /// Writes a record other than a write.
    ///
    /// # Panics
    /// If its LSN isn't the next, or there is no session yet.
    pub fn record(&mut self, record: &Record, out: &mut Vec<u8>) {
        self.number(record.lsn);
        Message::Record(record.clone()).encode(out);
    }

    /// The header of a write; its payload must follow it at once. Spends the credit for it.
    ///
    /// # Panics
    /// If [`Self::may_send`] says no, its LSN isn't the next, or it is longer than welcome allows.
    pub fn write(&mut self, lsn: Lsn, time: Micros, extent: Extent, checksum: Checksum) -> Header {
        assert!(self.may_send(extent.length), "a write needs credit");
        let most = u64::from(self.record_bytes_max);
        assert!((1..=most).contains(&extent.length), "a write has the length that welcome allows");
        self.number(lsn);
        self.credit_bytes -= extent.length;
        Record::write_header(lsn, time, extent, checksum)
    }

    /// States a disk again after a reconnect, since the record that declared it may be committed
    /// and isn't sent again. Takes no number.
    pub fn restate(&self, disk: &Disk, out: &mut Vec<u8>) {
        let kind = RecordKind::Disk(disk.clone());
        Message::Record(Record { lsn: Lsn::NONE, time: Micros(0), kind }).encode(out);
    }

    /// Whether a question may be asked now: the server answers any, and not too many have none yet.
    #[must_use]
    pub fn may_ask(&self) -> bool {
        self.asks_in.is_some() && self.questions.len() < QUESTIONS_MAX
    }

    /// Whether a question waits for its answer.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Asks which blocks the vault holds. Takes no number.
    ///
    /// # Panics
    /// If [`Self::may_ask`] says no, or the extent isn't as many whole blocks as there are hashes.
    pub fn ask(&mut self, question: &Hashes, out: &mut Vec<u8>) {
        assert!(self.may_ask(), "a question is asked where it is answered");
        let (block, count) = (self.asks_in.unwrap_or(1), question.hashes.len() as u64);
        assert!(question.extent.offset.is_multiple_of(block), "a question begins with a block");
        assert!(question.extent.length == block * count, "a block has a hash");
        self.questions.push_back(question.extent);
        Message::Hashes(question.clone()).encode(out);
    }

    /// Writes the goodbye.
    pub fn bye(&self, out: &mut Vec<u8>) {
        Message::Bye.encode(out);
    }

    fn number(&mut self, lsn: Lsn) {
        assert!(self.open, "records follow the welcome");
        assert_eq!(lsn, self.sent.next(), "records are sent in order, from what is committed on");
        self.sent = lsn;
        self.ever_sent = self.ever_sent.max(lsn);
    }
}
