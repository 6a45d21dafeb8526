//! Latencies in HDR histograms: how long puts take, and how long it takes until data is committed.

use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;

/// Longest latency that is told apart: an hour, in microseconds. Beyond counts as an hour.
const LATENCY_MAX: u64 = 3_600_000_000;
/// Digits that are kept of a latency.
const DIGITS: u8 = 3;

/// The histograms of a server; microseconds.
#[derive(Default)]
pub(crate) struct Latencies {
    /// From closing a pack to its being stored, retries included.
    pub put: Recorder,
    /// From when a pack's first record had come whole to its commit.
    pub commit: Recorder,
}

/// One histogram, fed from any thread.
pub(crate) struct Recorder(Mutex<Histogram<u64>>);

impl Default for Recorder {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS);
        Self(Mutex::new(histogram.expect("the bounds are constants that hdrhistogram accepts")))
    }
}

/// What a histogram says; microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Summary {
    pub count: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub p9999_us: u64,
    pub max_us: u64,
}

impl Recorder {
    pub(crate) fn record(&self, micros: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros.max(1));
    }

    pub(crate) fn summary(&self) -> Summary {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Summary {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            p9999_us: histogram.value_at_quantile(0.9999),
            max_us: histogram.max(),
        }
    }
}
