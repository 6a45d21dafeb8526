//! The zero test: every byte that is read or received passes it, so it must cost next to nothing.

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
        for length in [1, STRIDE_BYTES - 1, STRIDE_BYTES, 3 * STRIDE_BYTES + 7] {
            let mut bytes = vec![0_u8; length];
            assert!(is_zero(&bytes) && is_zero(&[]));
            for index in 0..length {
                bytes[index] = 0x10;
                assert!(!is_zero(&bytes), "{index} of {length}");
                bytes[index] = 0;
            }
        }
    }
}
