//! Whether compressing a frame is worth a try, before it is tried.
//!
//! A sample's bytes are counted: if some are far more frequent than others, it shrinks. If none are
//! (random, encrypted, compressed before), only repetition could make it smaller, which is rare: that
//! is tried only of machines whose last such frames did shrink, and now and then of others. What is
//! remembered of machines is a small table by a hash of their names; two that share a place cost a
//! try or some bytes, nothing else.

use tidegate_model::Name;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a sample, and of each of its pieces, which are spread over the frame: a cache line.
const SAMPLE_BYTES: usize = 4096;
const PIECE_BYTES: usize = 64;
/// Sum of the squared counts of 256 values in a sample. Uniform bytes give 69,600 (4096²/256 + 4096)
/// and scatter by 360; bytes that coding by their frequency alone makes a 32nd smaller give about
/// 88,000 (chi² = 2 n KL with KL = a quarter bit). This lies between, so that nothing random is tried.
const FLAT_MAX: u32 = 78_000;
/// Places for machines.
const MACHINES: usize = 256;
/// After so many flat frames in a row that didn't shrink, flat ones are kept as they are...
const FAILURES: u8 = 4;
/// ...but for one in so many, to see whether that changed.
const RETRY: u8 = 32;

/// What a worker remembers.
pub(crate) struct Probe {
    /// By machine: flat frames in a row that didn't shrink; beyond [`FAILURES`] it counts those that
    /// weren't tried.
    flat: [u8; MACHINES],
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It shrinks.
    Shrinks,
    /// It may shrink: tell with [`Probe::tried`] what became of it.
    Unlikely,
    /// Not worth a try.
    Skip,
}

impl Default for Probe {
    fn default() -> Self {
        Self { flat: [0; MACHINES] }
    }
}

impl Probe {
    /// Whether to compress this frame of the machine.
    pub(crate) fn ask(&mut self, machine: &Name, bytes: &[u8]) -> Verdict {
        if !is_flat(bytes) {
            return Verdict::Shrinks;
        }
        let failures = &mut self.flat[place(machine)];
        if *failures < FAILURES {
            return Verdict::Unlikely;
        }
        *failures += 1;
        if *failures < FAILURES + RETRY {
            return Verdict::Skip;
        }
        *failures = FAILURES;
        Verdict::Unlikely
    }

    /// What became of a frame that was unlikely to shrink.
    pub(crate) fn tried(&mut self, machine: &Name, shrank: bool) {
        let failures = &mut self.flat[place(machine)];
        *failures = if shrank { 0 } else { failures.saturating_add(1).min(FAILURES) };
    }
}

fn place(machine: &Name) -> usize {
    usize::try_from(xxh3_64(machine.as_str().as_bytes()) % MACHINES as u64).unwrap_or(0)
}

/// Whether no byte is much more frequent than others, in a sample. Short frames are never flat: too
/// little is known of them, and they cost little.
fn is_flat(bytes: &[u8]) -> bool {
    if bytes.len() < SAMPLE_BYTES {
        return false;
    }
    let step = bytes.len() / (SAMPLE_BYTES / PIECE_BYTES);
    let mut counts = [0_u32; 256];
    for piece in bytes.chunks(step).take(SAMPLE_BYTES / PIECE_BYTES) {
        for byte in &piece[..PIECE_BYTES] {
            counts[usize::from(*byte)] += 1;
        }
    }
    counts.iter().map(|count| count * count).sum::<u32>() <= FLAT_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    fn machine(name: &str) -> Name {
        name.parse().unwrap()
    }

    #[test]
    fn random_bytes_are_flat_and_what_shrinks_isnt() {
        for bytes in [4096, 65536, 256 << 10, 1 << 20, 300_001] {
            assert!(is_flat(&noise(bytes)), "{bytes}");
            let letters: Vec<u8> = noise(bytes).iter().map(|byte| byte % 200).collect();
            assert!(!is_flat(&letters), "{bytes}");
            let mut half = noise(bytes);
            half[..bytes / 2].fill(b'a');
            assert!(!is_flat(&half), "{bytes}");
        }
        assert!(!is_flat(&noise(4095)));
    }

    #[test]
    fn a_machine_whose_frames_dont_shrink_is_tried_now_and_then_only() {
        let mut probe = Probe::default();
        let noise = noise(65536);
        let mut tries = 0;
        for _ in 0..1000 {
            if probe.ask(&machine("m"), &noise) == Verdict::Unlikely {
                tries += 1;
                probe.tried(&machine("m"), false);
            }
        }
        assert!((20..50).contains(&tries), "{tries}");
        assert_eq!(probe.ask(&machine("another"), &noise), Verdict::Unlikely);
        assert_eq!(probe.ask(&machine("m"), &[7; 65536]), Verdict::Shrinks);
    }

    #[test]
    fn a_machine_whose_flat_frames_shrink_again_is_tried_again() {
        let mut probe = Probe::default();
        let noise = noise(65536);
        (0..4).for_each(|_| probe.tried(&machine("m"), false));
        let asked = (0..40).position(|_| probe.ask(&machine("m"), &noise) == Verdict::Unlikely);
        assert!(asked.is_some());
        probe.tried(&machine("m"), true);
        for _ in 0..10 {
            assert_eq!(probe.ask(&machine("m"), &noise), Verdict::Unlikely);
            probe.tried(&machine("m"), true);
        }
    }
}
