//! Records that were sent or are about to be, and that the vault doesn't have for good yet.
//!
//! Pure. Gives each record its LSN, keeps it until it is committed, and gives it out again after a
//! reconnect: the same LSN with the same bytes, because it is the same value. LSNs are without
//! gaps, so the window is a queue and an LSN is a place in it.
//!
//! It bounds nothing itself: a record's payload holds a buffer of the reader's pool, which is the
//! bound, and records without payload lie between those with one (zeros are merged).

use std::collections::VecDeque;

use tidegate_model::{Lsn, Remedy};

/// What a server said about LSNs that can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It says that it has what was never sent.
    #[error(
        "the server says that LSN {said} is committed, but {last} is the last that this agent sent; \
         its folder was restored or copied, or another agent uses this machine's name: check for one"
    )]
    NeverSent {
        /// What it said.
        said: Lsn,
        /// The last LSN that any connection has sent.
        last: Lsn,
    },
    /// It forgot what it had committed.
    #[error(
        "the vault had committed LSN {committed} and now knows only {said}: something in it was \
         lost; run `tidegate verify`, then copy again"
    )]
    Forgotten {
        /// What it says now.
        said: Lsn,
        /// What it had said before.
        committed: Lsn,
    },
}

impl WindowError {
    /// What the caller must do.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::NeverSent { .. } => Remedy::Stop,
            Self::Forgotten { .. } => Remedy::Repair,
        }
    }
}

/// The window of one epoch.
#[derive(Debug)]
pub struct Window<R> {
    committed: Lsn,
    records: VecDeque<R>,
}

impl<R> Default for Window<R> {
    fn default() -> Self {
        Self { committed: Lsn::NONE, records: VecDeque::new() }
    }
}

impl<R> Window<R> {
    /// A window that goes on after what is known to be committed.
    #[must_use]
    pub const fn after(committed: Lsn) -> Self {
        Self { committed, records: VecDeque::new() }
    }

    /// The last LSN that is committed.
    #[must_use]
    pub const fn committed_lsn(&self) -> Lsn {
        self.committed
    }

    /// The last LSN given.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.committed.0 + self.records.len() as u64)
    }

    /// Whether everything is committed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Gives `record` the next LSN.
    pub fn push(&mut self, record: R) -> Lsn {
        self.records.push_back(record);
        self.last_lsn()
    }

    /// The record with this LSN, unless it is committed or was never given.
    #[must_use]
    pub fn get(&self, lsn: Lsn) -> Option<&R> {
        let index = lsn.0.checked_sub(self.committed.0.checked_add(1)?)?;
        self.records.get(usize::try_from(index).ok()?)
    }

    /// Takes out what is committed up to `lsn`. An older LSN than the last one changes nothing; one
    /// beyond what is here, which an earlier life of the agent sent, moves the window there.
    pub fn committed(&mut self, lsn: Lsn) -> impl Iterator<Item = R> {
        // At most the number of records, so it fits.
        let here = lsn.min(self.last_lsn()).0.saturating_sub(self.committed.0);
        let count = usize::try_from(here).unwrap_or(usize::MAX);
        self.committed = self.committed.max(lsn);
        self.records.drain(..count)
    }

    /// Whether a server that has everything up to `lsn` can be served: what it has was sent, up to
    /// `ever_sent`. What is here and wasn't sent can't be what it has under these numbers.
    ///
    /// # Errors
    /// [`WindowError`] when the server forgot something, or has what was never sent.
    pub fn check_resume(&self, lsn: Lsn, ever_sent: Lsn) -> Result<(), WindowError> {
        let last = ever_sent.max(self.committed);
        if lsn < self.committed {
            return Err(WindowError::Forgotten { said: lsn, committed: self.committed });
        }
        if lsn > last {
            return Err(WindowError::NeverSent { said: lsn, last });
        }
        Ok(())
    }

    /// The records from `lsn` on that are here, in order.
    pub fn resend_from(&self, lsn: Lsn) -> impl Iterator<Item = (Lsn, &R)> {
        let first = lsn.max(self.committed.next());
        (first.0..=self.last_lsn().0)
            .filter_map(|number| Some((Lsn(number), self.get(Lsn(number))?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Event {
        Push(u32),
        Committed(u64),
        Resend(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            any::<u32>().prop_map(Event::Push),
            (0_u64..40).prop_map(Event::Committed),
            (0_u64..40).prop_map(Event::Resend),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_a_map_of_everything_ever_sent_would(
            start in 0_u64..10,
            ever_sent in 0_u64..30,
            events in prop::collection::vec(event(), 0..60),
        ) {
            let mut window = Window::after(Lsn(start));
            let mut all = BTreeMap::new();
            let (mut committed, mut last) = (start, start);
            for event in events {
                match event {
                    Event::Push(record) => {
                        last += 1;
                        prop_assert_eq!(window.push(record), Lsn(last));
                        all.insert(last, record);
                    }
                    Event::Committed(lsn) => {
                        let can = window.check_resume(Lsn(lsn), Lsn(ever_sent));
                        if lsn > committed.max(ever_sent) {
                            let (said, last) = (Lsn(lsn), Lsn(committed.max(ever_sent)));
                            prop_assert_eq!(can, Err(WindowError::NeverSent { said, last }));
                            continue;
                        }
                        let taken: Vec<u32> = window.committed(Lsn(lsn)).collect();
                        let until = lsn.max(committed);
                        let expected: Vec<u32> =
                            all.range(committed + 1..until + 1).map(|(_, record)| *record).collect();
                        prop_assert_eq!(taken, expected);
                        (committed, last) = (until, last.max(until));
                    }
                    Event::Resend(lsn) => {
                        let can = window.check_resume(Lsn(lsn), Lsn(ever_sent)).is_ok();
                        prop_assert_eq!(can, (committed..=committed.max(ever_sent)).contains(&lsn));
                        let sent: Vec<(u64, u32)> =
                            window.resend_from(Lsn(lsn)).map(|(lsn, r)| (lsn.0, *r)).collect();
                        let expected: Vec<(u64, u32)> =
                            all.range(lsn.max(committed + 1)..).map(|(l, r)| (*l, *r)).collect();
                        prop_assert_eq!(sent, expected);
                    }
                }
                prop_assert_eq!(window.committed_lsn(), Lsn(committed));
                prop_assert_eq!(window.last_lsn(), Lsn(last));
                prop_assert_eq!(window.is_empty(), committed == last);
            }
        }
    }
}
