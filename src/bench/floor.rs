//! The floor beside a round: the bare kernels on the load's own bytes, on as many threads as the
//! server has cores, and what of them each byte of the round had to pass.

use tidegate_floor::{Costs, Input, KERNELS, Tls, pass};

use crate::failure::Failure;

/// Bytes of one pass: some dozen frames, some dozen milliseconds.
pub(super) const SAMPLE_BYTES: usize = 8 << 20;
/// Passes of each thread at a time.
const PASSES: usize = 3;

/// What the floor is measured with.
pub(super) struct Floor {
    pub sample: Vec<u8>,
    pub tls: Tls,
    pub record_bytes: usize,
    pub block_bytes: usize,
    pub level: i32,
    pub threads: usize,
}

impl Floor {
    /// Some passes on each thread at once; blocks.
    pub(super) fn measure(&self) -> Result<Vec<Costs>, Failure> {
        let input = Input {
            bytes: &self.sample,
            record_bytes: self.record_bytes,
            block_bytes: self.block_bytes,
            frame_bytes: tidegate_model::limits::FRAME_BYTES_DEFAULT as usize,
            level: self.level,
        };
        let passes = || (0..PASSES).map(|_| pass(&input, &self.tls)).collect::<Result<Vec<_>, _>>();
        let all = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|_| scope.spawn(passes)).collect();
            let joined = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a pass panicked")))
            });
            joined.collect::<Result<Vec<_>, _>>()
        });
        let all =
            all.map_err(|error| Failure::failed(format!("can't measure the floor: {error}")))?;
        Ok(all.into_iter().flatten().collect())
    }
}

/// The median of each kernel.
pub(super) fn medians(passes: &[Costs]) -> Costs {
    std::array::from_fn(|kernel| median(passes.iter().map(|costs| costs[kernel])))
}

/// The middle figure; 0 of none.
pub(super) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// The place of a kernel among [`KERNELS`].
pub(super) fn kernel(name: &str) -> Option<usize> {
    KERNELS.iter().position(|kernel| *kernel == name)
}
