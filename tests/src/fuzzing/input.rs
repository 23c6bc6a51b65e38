//! Bytes read as a program: what is missing at the end reads as zeros.

/// What is left of the bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// At most so many bytes, fewer at the end.
    pub(super) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn u8(&mut self) -> u8 {
        self.padded::<1>()[0]
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.padded())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.padded())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.padded())
    }

    /// Whether something happens that happens once in so many times.
    pub(super) fn once_in(&mut self, times: u8) -> bool {
        self.u8().is_multiple_of(times)
    }

    /// A number that may be small, near the end of a range, or anything.
    pub(super) fn number(&mut self) -> u64 {
        match self.u8() {
            0..0x80 => u64::from(self.u16()),
            0x80..0xC0 => u64::from(self.u32()),
            0xC0..0xE0 => u64::MAX - u64::from(self.u16()),
            _ => self.u64(),
        }
    }

    fn padded<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.take(N);
        let mut bytes = [0; N];
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }
}
