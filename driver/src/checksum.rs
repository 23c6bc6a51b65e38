//! CRC-32C (Castagnoli), of bytes that come in pieces.

use crc_fast::{CrcAlgorithm, Digest};

/// The sum of what was added so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    /// The shift register, all ones at first, inverted at the end.
    register: u32,
}

impl Checksum {
    /// Of no bytes.
    #[must_use]
    pub const fn new() -> Checksum {
        Checksum { register: u32::MAX }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut digest =
            Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(self.register));
        digest.update(bytes);
        self.register = digest.get_state() as u32;
    }

    /// The CRC-32C of all that was added.
    #[must_use]
    pub const fn finish(self) -> u32 {
        !self.register
    }

    /// The register, to be folded into what follows.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const fn register(self) -> u32 {
        self.register
    }

    /// The sum of bytes that are congruent to all that was added, from an empty register on.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn of_folded(bytes: &[u8]) -> Checksum {
        let mut folded = Checksum { register: 0 };
        folded.update(bytes);
        folded
    }
}

impl Default for Checksum {
    fn default() -> Checksum {
        Checksum::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_is_that_of_the_catalogue_however_the_bytes_are_cut() {
        for cut in 0..9 {
            let mut checksum = Checksum::new();
            checksum.update(&b"123456789"[..cut]);
            checksum.update(&b"123456789"[cut..]);
            assert_eq!(checksum.finish(), 0xE306_9283);
        }
    }
}
