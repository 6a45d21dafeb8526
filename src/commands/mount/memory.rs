//! What a mount may take of memory, and for what.

use serde::Serialize;
use tidegate_model::ExactBytes;
use tidegate_nbd::serve::ServeSettings;
use tidegate_vault::log::CACHE_BYTES_DEFAULT;
use tidegate_vault::restore::{VIEW_MEMORY_MIN, ViewMeans};

use crate::failure::Failure;

/// Memory unless told otherwise: at two cores 20 runs of frames and 20 reads at once, with which a
/// store that answers after 20 ms gives 1,000 scattered reads a second; 150 MiB of frames are kept.
pub(crate) const MEMORY_DEFAULT: u64 = 512 << 20;

/// Most data of one request: twice what known clients send that ask (qemu-img).
pub(super) const PAYLOAD_BYTES_MAX: u32 = 4 << 20;
/// Clients at once: nbdcopy opens four connections, and others may look meanwhile.
const CLIENTS_MIN: usize = 8;
/// The same for each disk, where there are many: one that uses it, one that looks.
const CLIENTS_OF_DISK: usize = 2;
/// Requests of one client that are carried out at once: four connections have more than read at once.
const REQUESTS: usize = 8;
/// The part of the memory that is for indexes.
const INDEXES_PART: u64 = 8;

/// The memory of a mount. The map of its point comes besides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub index_bytes: usize,
    pub clients: ServeSettings,
    pub view: ViewMeans,
}

/// A part of it.
#[derive(Debug, Serialize)]
pub(super) struct Term {
    name: &'static str,
    bytes: u64,
}

impl Memory {
    /// How so much is shared out where so many disks are mounted. The part for indexes doesn't depend
    /// on their number.
    pub(super) fn of(asked: Option<u64>, disks: usize) -> Result<Self, Failure> {
        let memory = asked.unwrap_or(MEMORY_DEFAULT);
        let clients = ServeSettings {
            connections_max: CLIENTS_MIN.max(disks * CLIENTS_OF_DISK),
            requests_max: REQUESTS,
            bytes_max: PAYLOAD_BYTES_MAX,
            ..ServeSettings::default()
        };
        let index = (memory / INDEXES_PART).min(CACHE_BYTES_DEFAULT as u64);
        let view = memory.saturating_sub(index + clients.memory_bytes());
        if view < VIEW_MEMORY_MIN {
            let rest = clients.memory_bytes() + VIEW_MEMORY_MIN;
            let index = rest.div_ceil(INDEXES_PART - 1).min(CACHE_BYTES_DEFAULT as u64);
            let least = (rest + index).next_multiple_of(1 << 20);
            let (given, least) = (ExactBytes(memory), ExactBytes(least));
            return Err(Failure::usage(format!(
                "--memory {given} is too little: give {least} or more"
            )));
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let index_bytes = usize::try_from(index).unwrap_or(CACHE_BYTES_DEFAULT);
        Ok(Self { index_bytes, clients, view: ViewMeans::of(view, cores) })
    }

    /// The most that all of it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.terms().iter().map(|term| term.bytes).sum()
    }

    /// Its parts.
    pub(super) fn terms(&self) -> Vec<Term> {
        let view = &self.view;
        let terms = [
            ("clients", self.clients.memory_bytes()),
            ("indexes", self.index_bytes as u64),
            ("fetched", view.fetched_bytes()),
            ("opened", view.opened_bytes()),
            ("kept", view.kept_bytes as u64),
        ];
        terms.map(|(name, bytes)| Term { name, bytes }).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mount_has_more_than_it_was_given_and_too_little_is_refused_with_what_is_enough() {
        for disks in [1, 4, 20, 64] {
            let refused = Memory::of(Some(1 << 20), disks).unwrap_err().to_string();
            let least = refused.split_once("give ").and_then(|(_, rest)| rest.split_once(' '));
            let least = tidegate_model::parse_bytes(least.expect("it is told").0).unwrap();
            assert!(Memory::of(Some(least - (2 << 20)), disks).is_err(), "{refused}");
            for memory in [least, 2 * least, 16 * least] {
                let shared = Memory::of(Some(memory), disks).unwrap();
                assert!(shared.bytes() <= memory, "{memory}: {:?}", shared.terms());
                assert!(shared.clients.connections_max >= 2 * disks);
            }
        }
    }

    #[test]
    fn the_default_is_what_its_comment_says() {
        let Memory { view, .. } = Memory::of(None, 1).unwrap();
        assert!((18..22).contains(&view.runs) && (18..22).contains(&view.reads), "{view:?}");
        assert!((140..170).contains(&(view.kept_bytes >> 20)), "{view:?}");
    }
}
