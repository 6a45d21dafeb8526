//! The zero test: every byte that is read passes it, so it must cost next to nothing.

/// Bytes tested without a branch: enough to keep the vector units busy, few enough that data is
/// recognised at once.
const STRIDE_BYTES: usize = 256;

/// Whether all bytes are 0.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (strides, rest) = bytes.as_chunks::<STRIDE_BYTES>();
    strides.iter().all(|stride| stride.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_found() {
        let mut bytes = vec![0_u8; 3 * STRIDE_BYTES + 7];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for index in 0..bytes.len() {
            bytes[index] = 0x10;
            assert!(!is_zero(&bytes), "{index}");
            bytes[index] = 0;
        }
    }

    /// Not a test: `cargo test --release -p tidegate-agent rate -- --ignored --nocapture`.
    #[test]
    #[ignore = "measures"]
    fn rate_of_the_zero_test() {
        let bytes = vec![0_u8; 1 << 20];
        let begin = std::time::Instant::now();
        let rounds = 20_000;
        for _ in 0..rounds {
            assert!(is_zero(std::hint::black_box(&bytes)));
        }
        let seconds = begin.elapsed().as_secs_f64();
        println!("{:.1} GB/s", f64::from(rounds) * bytes.len() as f64 / seconds / 1e9);
    }
}
