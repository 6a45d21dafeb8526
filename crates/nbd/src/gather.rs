//! The part of a message that has arrived.

/// Bytes of a header, or of an option's data, until it is whole. It takes no more memory than came
/// in, whatever length was stated.
#[derive(Debug, Default)]
pub(crate) struct Gathered(Vec<u8>);

impl Gathered {
    /// None yet, with room for so many.
    pub(crate) fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Takes from `input` until `count` bytes are there; whether they are.
    pub(crate) fn fill(&mut self, input: &mut &[u8], count: usize) -> bool {
        let missing = count - self.0.len();
        let (part, rest) = input.split_at(missing.min(input.len()));
        self.0.extend_from_slice(part);
        *input = rest;
        self.0.len() == count
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Takes up to `left` bytes off the front of `input`, and counts them.
pub(crate) fn take<'a>(input: &mut &'a [u8], left: &mut u32) -> &'a [u8] {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    let (part, rest) = input.split_at(count);
    *input = rest;
    *left -= crate::network::length(count);
    part
}
