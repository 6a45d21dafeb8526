//! The server's end of a session.
//!
//! ```text
//! Hello ──hello()──▶ Grant ──grant()──▶ Streaming ──bye()──▶ Ended
//!   └────────────────┴─────refuse()────────┴──────────────────┴──▶ Refused
//! ```
//!
//! It decides whether what the agent says is allowed, and writes what the server says. The caller
//! moves bytes, grants the epoch, and carries records on.

use tidegate_model::limits::DISKS_MAX;
use tidegate_model::{DiskNumber, Epoch, Extent, Lsn, Micros, Remedy, VaultId};

use crate::limits::{FEATURE_HASHES, PROTOCOL_VERSION, QUESTIONS_MAX};
use crate::{
    Ack, DecodeError, Hashes, Have, Hello, Message, Record, RecordKind, Refusal, RefusalCode, Slow,
    Totals, Welcome,
};

/// The server's end.
pub struct Session {
    vault: VaultId,
    state: State,
    record_bytes_max: u32,
    /// Whether a record came: no disk may be restated from then on.
    begun: bool,
    /// The last record that was accepted; a write's payload may still be coming in.
    received: Lsn,
    /// The last record that is here whole.
    whole: Lsn,
    committed: Lsn,
    last_time: Micros,
    credit_bytes: u64,
    disks: [Option<u64>; DISKS_MAX],
    totals: Totals,
    /// The length of a block, where questions are answered.
    asked_in: Option<u64>,
    /// Questions that wait for their answers.
    questions: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Hello,
    Grant,
    Streaming,
    Ended,
    /// A refusal was the last frame: nothing may be said behind it.
    Refused,
}

fn broken(cause: &str) -> Refusal {
    let advice = "use an agent and a server of the same release; if they are, this is a fault in \
                  one of them";
    Refusal::new(RefusalCode::Protocol, Remedy::Stop, cause, advice)
}

fn other_version(version: u16) -> Refusal {
    let cause = format!(
        "the agent speaks version {version} of the protocol, this server version {PROTOCOL_VERSION}"
    );
    let advice = "install the same release on both";
    Refusal::new(RefusalCode::Version, Remedy::Refuse, &cause, advice)
}

/// What is said of a stream that can't be decoded.
impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        if let DecodeError::Version(version) = error {
            return other_version(version);
        }
        broken(&format!("the agent's stream can't be understood: {error}"))
    }
}

impl Session {
    /// A session that waits for its hello.
    #[must_use]
    pub fn new(vault: VaultId) -> Self {
        Self {
            vault,
            state: State::Hello,
            record_bytes_max: 0,
            begun: false,
            received: Lsn::NONE,
            whole: Lsn::NONE,
            committed: Lsn::NONE,
            last_time: Micros(0),
            credit_bytes: 0,
            disks: [None; DISKS_MAX],
            totals: Totals::default(),
            asked_in: None,
            questions: 0,
        }
    }

    /// The agent's first message.
    ///
    /// # Errors
    /// A refusal when it is no hello, or one for another vault or version.
    pub fn hello(&mut self, message: Message) -> Result<Hello, Refusal> {
        let Message::Hello(hello) = message else {
            return Err(broken("the agent's first frame is no hello"));
        };
        if self.state != State::Hello {
            return Err(broken("the agent said hello twice"));
        }
        if hello.version != PROTOCOL_VERSION {
            return Err(other_version(hello.version));
        }
        if hello.vault != self.vault {
            let cause = format!("this server serves vault {}, not {}", self.vault, hello.vault);
            let advice = "connect to a server of the vault that issued the identity";
            return Err(Refusal::new(RefusalCode::Vault, Remedy::Refuse, &cause, advice));
        }
        if hello.epoch == Epoch::NONE && hello.committed != Lsn::NONE {
            return Err(broken("the agent claims a committed LSN and no epoch"));
        }
        self.state = State::Grant;
        Ok(hello)
    }

    /// The epoch is granted: writes the welcome.
    ///
    /// # Panics
    /// If nobody waits for a grant.
    pub fn grant(&mut self, welcome: &Welcome, out: &mut Vec<u8>) {
        assert_eq!(self.state, State::Grant, "a grant answers a hello");
        self.state = State::Streaming;
        self.received = welcome.committed;
        self.whole = welcome.committed;
        self.committed = welcome.committed;
        self.credit_bytes = welcome.credit_bytes;
        self.record_bytes_max = welcome.record_bytes_max;
        let answers = welcome.features & FEATURE_HASHES != 0;
        self.asked_in = answers.then_some(u64::from(welcome.block_bytes));
        Message::Welcome(*welcome).encode(out);
    }

    /// A record, or the beginning of a write. Gives whether it is new; false for a disk that is
    /// only restated after a reconnect (LSN 0), which takes no number and needn't be carried on.
    /// That is allowed before the first record only: later it would change a disk's size without a
    /// trace in the vault.
    ///
    /// # Errors
    /// A refusal when it isn't allowed; the session must end then.
    pub fn record(&mut self, record: &Record) -> Result<bool, Refusal> {
        if self.state != State::Streaming {
            return Err(broken("the agent sent a record before its welcome or after its goodbye"));
        }
        if record.lsn == Lsn::NONE
            && let RecordKind::Disk(disk) = &record.kind
        {
            if self.begun {
                return Err(broken("the agent restated a disk after its first record"));
            }
            self.disks[disk.number.index()] = Some(disk.bytes);
            return Ok(false);
        }
        // The second condition holds but for the very last LSN, which has no next one.
        if record.lsn != self.received.next() || record.lsn == self.received {
            let (lsn, expected) = (record.lsn, self.received.next());
            return Err(broken(&format!("the agent sent LSN {lsn} where {expected} was next")));
        }
        if record.time < self.last_time {
            return Err(broken("the agent's time went back within an epoch"));
        }
        match &record.kind {
            RecordKind::Disk(disk) => self.disks[disk.number.index()] = Some(disk.bytes),
            RecordKind::Write(extent, _) => {
                self.check_extent(extent)?;
                self.spend(extent.length)?;
            }
            RecordKind::Zero(extent) => self.check_extent(extent)?,
            RecordKind::Bookmark(_) | RecordKind::Time => {}
        }
        let is_whole = !matches!(record.kind, RecordKind::Write(..));
        self.whole = if is_whole { record.lsn } else { self.received };
        self.received = record.lsn;
        self.begun = true;
        self.last_time = record.time;
        Ok(true)
    }

    fn check_extent(&self, extent: &Extent) -> Result<(), Refusal> {
        let number: DiskNumber = extent.disk;
        let Some(bytes) = self.disks[number.index()] else {
            return Err(broken(&format!("the agent wrote to disk {number} before declaring it")));
        };
        if extent.lies_within(bytes) {
            Ok(())
        } else {
            Err(broken(&format!("the agent wrote beyond the end of disk {number}")))
        }
    }

    fn spend(&mut self, bytes: u64) -> Result<(), Refusal> {
        if bytes > u64::from(self.record_bytes_max) {
            return Err(broken("the agent sent a longer write than welcome allows"));
        }
        match self.credit_bytes.checked_sub(bytes) {
            Some(left) => {
                self.credit_bytes = left;
                Ok(())
            }
            None => Err(broken("the agent sent more than it had credit for")),
        }
    }

    /// The agent asks which blocks the vault holds. It need not have declared the disk, nor does a
    /// question count as one.
    ///
    /// # Errors
    /// A refusal when it may not ask, or not so; the session must end then.
    pub fn question(&mut self, question: &Hashes) -> Result<(), Refusal> {
        let Some(block) = self.asked_in.filter(|_| self.state == State::Streaming) else {
            return Err(broken("the agent asked for blocks where that wasn't agreed on"));
        };
        let (extent, count) = (question.extent, question.hashes.len() as u64);
        if extent.offset % block != 0 || Some(extent.length) != block.checked_mul(count) {
            return Err(broken("the agent asked for something else than whole blocks"));
        }
        if self.questions == QUESTIONS_MAX {
            return Err(broken("the agent asked for more before it had its answers"));
        }
        self.questions += 1;
        Ok(())
    }

    /// Answers the oldest question that has no answer yet.
    ///
    /// # Panics
    /// If there is none.
    pub fn answer(&mut self, have: Have, out: &mut Vec<u8>) {
        self.questions = self.questions.checked_sub(1).expect("an answer follows its question");
        self.say(&Message::Have(have), out);
    }

    /// The agent says that nothing follows.
    ///
    /// # Errors
    /// A refusal when it has no session yet.
    pub fn bye(&mut self) -> Result<(), Refusal> {
        if self.state != State::Streaming {
            return Err(broken("the agent said goodbye before its welcome, or twice"));
        }
        self.state = State::Ended;
        Ok(())
    }

    /// Gives the agent the right to send more.
    pub fn credit(&mut self, bytes: u64, out: &mut Vec<u8>) {
        self.credit_bytes = self.credit_bytes.saturating_add(bytes);
        self.say(&Message::Credit(bytes), out);
    }

    /// The last LSN that was accepted; the payload of a write may still be coming in.
    #[must_use]
    pub const fn received(&self) -> Lsn {
        self.received
    }

    /// The last LSN that is committed.
    #[must_use]
    pub const fn committed(&self) -> Lsn {
        self.committed
    }

    /// Credit that the agent has left, in bytes.
    #[must_use]
    pub const fn credit_bytes(&self) -> u64 {
        self.credit_bytes
    }

    /// Tells the agent that everything up to `lsn` is stored, as far as it came on this connection:
    /// the agent forgets what is acknowledged, and what didn't come yet must still come, for LSNs
    /// have no gaps. `totals` are those of the session's committed records, all together.
    pub fn ack(&mut self, lsn: Lsn, totals: Totals, out: &mut Vec<u8>) {
        self.committed = self.committed.max(lsn.min(self.received));
        self.totals = totals;
        // A write counts as whole here only with the next record, but may be stored before that.
        let (received, committed) = (self.whole.max(self.committed), self.committed);
        self.say(&Message::Ack(Ack { received, committed, totals }), out);
    }

    /// Tells the agent why it takes so long.
    pub fn slow(&self, slow: Slow, out: &mut Vec<u8>) {
        self.say(&Message::Slow(slow), out);
    }

    /// Refuses; the session has ended, and nothing is written any more, not even a second refusal.
    pub fn refuse(&mut self, refusal: &Refusal, out: &mut Vec<u8>) {
        self.say(&Message::Refuse(refusal.clone()), out);
        self.state = State::Refused;
    }

    fn say(&self, message: &Message, out: &mut Vec<u8>) {
        if self.state != State::Refused {
            message.encode(out);
        }
    }
}
