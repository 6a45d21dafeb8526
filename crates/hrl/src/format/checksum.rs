//! The checksum of [MS-HRL]: the bitwise NOT of the 32-bit sum of all bytes, the checksum's own four
//! left out.

/// A sum of bytes, not yet inverted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u32);

impl Sum {
    /// The sum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::default().and(bytes)
    }

    /// This and `bytes`.
    #[must_use]
    pub fn and(self, bytes: &[u8]) -> Self {
        let sum = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        Self(self.0.wrapping_add(sum))
    }

    /// The checksum.
    #[must_use]
    pub const fn checksum(self) -> u32 {
        !self.0
    }

    /// The checksum of a structure whose own checksum field stands at `field`.
    #[must_use]
    pub fn around(bytes: &[u8], field: usize) -> u32 {
        let (before, rest) = bytes.split_at(field.min(bytes.len()));
        Self::of(before).and(rest.get(4..).unwrap_or_default()).checksum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_itself_does_not_count_and_parts_add_up() {
        assert_eq!(Sum::of(&[]).checksum(), u32::MAX);
        assert_eq!(Sum::of(&[1, 2]).and(&[3]).checksum(), !6);
        assert_eq!(Sum::around(&[1, 9, 9, 9, 9, 2], 1), !3);
        assert_eq!(Sum::around(&[1, 9], 1), !1);
    }
}
