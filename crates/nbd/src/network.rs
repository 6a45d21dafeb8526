//! Fields in network byte order: NBD is the only protocol of ours that isn't little-endian.

use tidegate_model::{Reader, Short};

/// Takes big-endian fields off the front of some bytes.
pub(crate) trait ReadNetwork {
    fn be_u16(&mut self) -> Result<u16, Short>;
    fn be_u32(&mut self) -> Result<u32, Short>;
    fn be_u64(&mut self) -> Result<u64, Short>;
}

impl ReadNetwork for Reader<'_> {
    fn be_u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_be_bytes)
    }

    fn be_u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_be_bytes)
    }

    fn be_u64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Appends big-endian fields.
pub(crate) trait WriteNetwork {
    fn be_u16(&mut self, value: u16) -> &mut Self;
    fn be_u32(&mut self, value: u32) -> &mut Self;
    fn be_u64(&mut self, value: u64) -> &mut Self;
    fn raw(&mut self, bytes: &[u8]) -> &mut Self;
}

impl WriteNetwork for Vec<u8> {
    fn be_u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    fn be_u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    fn be_u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.extend_from_slice(bytes);
        self
    }
}

/// The length of something that was held to a limit of 32 bits before.
pub(crate) fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("what is sent is held to limits far below 4 GiB")
}

/// Cuts a text to `most` bytes, between characters.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("", 2), "");
    }
}
