//! Little-endian fields, one after another: how every binary format of Tidegate is laid out.
//!
//! [`Reader`] never panics and never reads past its end; [`Writer`] appends to a buffer that the
//! caller owns.

/// The bytes ended before the field did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{needed} bytes are needed at offset {offset}, {left} are left")]
pub struct Short {
    /// Where the field begins.
    pub offset: usize,
    /// Its size.
    pub needed: usize,
    /// What is left there.
    pub left: usize,
}

/// Takes fields off the front of some bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the first of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Short`] when fewer are left; nothing is taken then.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Short> {
        if count > self.left() {
            return Err(Short { offset: self.offset, needed: count, left: self.left() });
        }
        let taken = &self.bytes[self.offset..self.offset + count];
        self.offset += count;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`Short`] when fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Short`] when none is left.
    pub fn u8(&mut self) -> Result<u8, Short> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little-endian.
    ///
    /// # Errors
    /// [`Short`] when fewer are left.
    pub fn u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`Short`] when fewer are left.
    pub fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`Short`] when fewer are left.
    pub fn u64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Appends fields to a buffer.
#[derive(Debug)]
pub struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    /// A writer at the end of `buffer`.
    pub const fn new(buffer: &'a mut Vec<u8>) -> Self {
        Self(buffer)
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `count` bytes of 0: reserved fields and padding.
    pub fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back_in_order_and_no_further() {
        let mut buffer = Vec::new();
        Writer::new(&mut buffer).u8(1).u16(2).u32(3).u64(4).bytes(b"xy").zeros(2);
        let mut reader = Reader::new(&buffer);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.u64(), Ok(4));
        assert_eq!(reader.array::<4>(), Ok(*b"xy\0\0"));
        assert_eq!(reader.u8(), Err(Short { offset: 19, needed: 1, left: 0 }));
    }
}
