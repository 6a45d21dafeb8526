//! Sizes as people write and read them.

use std::fmt;

/// Bytes for a person's eyes: three figures and a decimal unit (1 MB = 10^6 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanBytes(pub u64);

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        #[allow(clippy::cast_precision_loss)] // three figures are shown
        let mut value = self.0 as f64 / 1000.0;
        let mut unit = 0;
        while value >= 999.5 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        let decimals = if value < 9.995 {
            2
        } else if value < 99.95 {
            1
        } else {
            0
        };
        write!(f, "{value:.decimals$} {}", UNITS[unit])
    }
}

/// Bytes as an option takes them, exactly: in the largest binary unit that divides them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExactBytes(pub u64);

impl fmt::Display for ExactBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let divides = |shift: u32| self.0 > 0 && self.0.trailing_zeros() >= shift;
        match UNITS.iter().find(|(shift, _)| divides(*shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => self.0.fmt(f),
        }
    }
}

/// So many of a thing, in words: `1 pack`, `2 packs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted<N>(pub N, pub &'static str);

impl<N: fmt::Display + PartialEq + From<u8>> fmt::Display for Counted<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, thing) = self;
        write!(f, "{count} {thing}{}", if *count == N::from(1) { "" } else { "s" })
    }
}

/// Reads `4096`, `64KiB`, `1.5GiB`, `200MB`, `1g` (powers of 1,024 for `k`, `m`, `g`, `t` and the
/// `iB` forms, of 1,000 for `kB`, `MB`, `GB`, `TB`).
///
/// # Errors
/// A sentence for the person who typed it.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let refuse = || format!("'{text}' is not a size: write it as 4096, 64KiB, 1.5GiB or 200MB");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000_u64.pow(2),
        "GB" => 1000_u64.pow(3),
        "TB" => 1000_u64.pow(4),
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        "t" | "T" | "TiB" => 1 << 40,
        _ => return Err(refuse()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(refuse);
    }
    let value: f64 = number.parse().map_err(|_| refuse())?;
    #[allow(clippy::cast_precision_loss)] // a fraction of a unit need not be exact
    let bytes = value * factor as f64;
    if !(0.0..9.0e18).contains(&bytes) {
        return Err(refuse());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within range, just above
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_they_are_written() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64KiB"), Ok(65536));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes(" 200 MB "), Ok(200_000_000));
        for bad in ["", "x", "-1", "1.2.3", "1ZB", "99999999999999999999", "18446744073709551615k"]
        {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exact_sizes_can_be_typed_as_they_are_told() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1 << 10, "1KiB"),
            (1536, "1536"),
            (3 << 20, "3MiB"),
            ((1 << 30) + (1 << 10), "1048577KiB"),
            (5 << 40, "5TiB"),
        ] {
            assert_eq!(ExactBytes(bytes).to_string(), text);
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
    }

    #[test]
    fn one_thing_is_told_from_several() {
        assert_eq!(Counted(1_usize, "pack").to_string(), "1 pack");
        assert_eq!(Counted(0_u64, "pack").to_string(), "0 packs");
        assert_eq!(Counted(2_u64, "pack").to_string(), "2 packs");
    }

    #[test]
    fn three_figures_and_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (999_600, "1.00 MB"),
            (12_345_678, "12.3 MB"),
        ] {
            assert_eq!(HumanBytes(bytes).to_string(), text);
        }
    }
}
