//! The cameras that can be played, and the nouns that a source and the FPGA share.
use std::num::NonZeroU64;

use circbuf_abi::ring::{
    MICROSECONDS, NC353_RING_BYTES, NC393_RING_BYTES, RING_BYTES_ALIGN, SLOTS_MIN,
};

/// Which camera is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Elphel 353: a ring of 19,791,872 bytes, the gap zeroed late.
    Nc353,
    /// Elphel 393, one channel: a ring of 64 MiB, the gap zeroed with the frame.
    Nc393,
    /// As the 393, with a ring of another size.
    Custom {
        /// Size of the ring in bytes, a multiple of 4096.
        ring_bytes: u64,
    },
}

impl Model {
    /// Size of the ring in bytes.
    #[must_use]
    pub fn ring_bytes(self) -> u64 {
        match self {
            Self::Nc353 => NC353_RING_BYTES,
            Self::Nc393 => NC393_RING_BYTES,
            Self::Custom { ring_bytes } => ring_bytes,
        }
    }

    /// What this camera does with the gap.
    #[must_use]
    pub fn gap(self) -> Gap {
        match self {
            Self::Nc353 => Gap::Late,
            Self::Nc393 | Self::Custom { .. } => Gap::Zero,
        }
    }

    /// Rate of the bus into memory in bytes per second: 80 MB/s (353: a word of 4 bytes in 5
    /// cycles of 100 MHz; the same is taken for the others).
    #[must_use]
    pub fn bus_bytes_per_s(self) -> NonZeroU64 {
        const { NonZeroU64::new(4 * 100_000_000 / 5).expect("not zero") }
    }
}

/// What the FPGA does with the 32 bytes behind a frame, where the next frame's header will stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// Zeroed as the end of the frame, before its interrupt (393).
    Zero,
    /// Zeroed immediately before the next frame's first chunk: until then it shows old bytes (353,
    /// where the last chunk stays in the processor's DMA buffer).
    Late,
    /// Never written: a signature of the lap before survives there.
    Skip,
}

/// The largest ring, in bytes: 16 times a 393's. All of it is mapped at the start, and what reads images
/// of rings takes no larger one.
pub const RING_BYTES_MAX: u64 = 1 << 30;

/// A ring that cannot hold the frames that are to be written into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingSizeError {
    /// It could not be mapped or would split a page.
    #[error(
        "a ring of {ring_bytes} bytes is no multiple of {RING_BYTES_ALIGN}; take {ring_bytes_min}"
    )]
    Unaligned {
        /// Size asked for, in bytes.
        ring_bytes: u64,
        /// The smallest size, not below the one asked for, that would do.
        ring_bytes_min: u64,
    },
    /// Fewer than four of the largest slots.
    #[error(
        "a ring of {ring_bytes} bytes holds fewer than {SLOTS_MIN} of the largest slots \
         ({max_slot_bytes} bytes each); the smallest ring that would do has {ring_bytes_min} bytes"
    )]
    TooSmall {
        /// Size asked for, in bytes.
        ring_bytes: u64,
        /// The largest slot in bytes.
        max_slot_bytes: u64,
        /// The smallest size that would do, in bytes.
        ring_bytes_min: u64,
    },
    /// More than any camera has.
    #[error("a ring of {ring_bytes} bytes is too large; take {RING_BYTES_MAX} or less")]
    TooLarge {
        /// Size asked for, in bytes.
        ring_bytes: u64,
    },
}

/// Checks that a ring can be mapped and holds at least four slots of `max_slot_bytes`.
///
/// # Errors
/// The size that was asked for and the smallest one that would do.
pub fn check_ring_bytes(ring_bytes: u64, max_slot_bytes: u64) -> Result<(), RingSizeError> {
    let smallest = max_slot_bytes
        .saturating_mul(SLOTS_MIN)
        .checked_next_multiple_of(RING_BYTES_ALIGN)
        .unwrap_or(u64::MAX);
    if ring_bytes < smallest {
        return Err(RingSizeError::TooSmall {
            ring_bytes,
            max_slot_bytes,
            ring_bytes_min: smallest,
        });
    }
    if ring_bytes > RING_BYTES_MAX {
        return Err(RingSizeError::TooLarge { ring_bytes });
    }
    if !ring_bytes.is_multiple_of(RING_BYTES_ALIGN) {
        let ring_bytes_min = ring_bytes.next_multiple_of(RING_BYTES_ALIGN);
        return Err(RingSizeError::Unaligned { ring_bytes, ring_bytes_min });
    }
    Ok(())
}

/// What the FPGA compresses next.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// Stuffed scan, 1 to [`PAYLOAD_BYTES_MAX`](circbuf_abi::ring::PAYLOAD_BYTES_MAX) bytes.
    pub payload: &'a [u8],
    /// CRC-32C of the payload, if it is known without reading it.
    pub crc32c: Option<u32>,
    /// Quality of the luma table (low byte) and of the chroma table, as in the frame header.
    pub quality2: u16,
    /// One of the frame header's `COLOR_MODE_*` constants.
    pub color_mode: u8,
    /// Width in pixels; 0 if the payload is no picture.
    pub width: u16,
    /// Height in pixels; 0 if the payload is no picture.
    pub height: u16,
}

impl Picture<'_> {
    /// What the frame header tells about this picture.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        let Self { quality2, color_mode, width, height, .. } = *self;
        Geometry { width, height, quality2, color_mode }
    }
}

/// The kind of picture that a source makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Geometry {
    /// Width in pixels; 0 if the source makes no pictures.
    pub width: u16,
    /// Height in pixels; 0 if the source makes no pictures.
    pub height: u16,
    /// Quality of the luma table (low byte) and of the chroma table, as in the frame header.
    pub quality2: u16,
    /// One of the frame header's `COLOR_MODE_*` constants.
    pub color_mode: u8,
}

/// Start of an exposure, as the trailer tells it: since 1970, to the microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrameTime {
    /// Seconds since 1970.
    pub sec: u32,
    /// Microseconds, below 1,000,000.
    pub usec: u32,
}

impl FrameTime {
    /// The last time that a trailer can tell (in the year 2106).
    pub const MAX: Self = Self { sec: u32::MAX, usec: MICROSECONDS - 1 };

    /// From nanoseconds since 1970, rounded down; [`FrameTime::MAX`] where a trailer ends.
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Self {
        let micros = nanos / 1000;
        match u32::try_from(micros / u64::from(MICROSECONDS)) {
            Ok(sec) => Self { sec, usec: (micros % u64::from(MICROSECONDS)) as u32 },
            Err(_) => Self::MAX,
        }
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        (u64::from(self.sec) * u64::from(MICROSECONDS) + u64::from(self.usec)) * 1000
    }

    /// `nanos` nanoseconds later, rounded down to a microsecond.
    #[must_use]
    pub fn plus_nanos(self, nanos: u64) -> Self {
        Self::from_nanos(self.as_nanos().saturating_add(nanos))
    }

    /// This time, or one microsecond after `last` if that is later: timestamps strictly increase.
    #[must_use]
    pub fn strictly_after(self, last: Option<Self>) -> Self {
        last.map_or(self, |last| self.max(last.plus_nanos(1000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_too_small_names_the_size_that_would_do() {
        let slot = 100_064;
        let error = check_ring_bytes(65_536, slot).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a ring of 65536 bytes holds fewer than 4 of the largest slots (100064 bytes each); \
             the smallest ring that would do has 401408 bytes"
        );
        assert_eq!(check_ring_bytes(401_408, slot), Ok(()));
        assert!(check_ring_bytes(401_408 - 4096, slot).is_err());
        assert!(check_ring_bytes(401_408 + 32, slot).is_err());
        assert!(check_ring_bytes(u64::MAX, u64::MAX).is_err());
        assert_eq!(check_ring_bytes(RING_BYTES_MAX, slot), Ok(()));
        for ring_bytes in [RING_BYTES_MAX + 1, RING_BYTES_MAX + 4096, u64::MAX] {
            let error = check_ring_bytes(ring_bytes, slot).unwrap_err().to_string();
            assert!(error.ends_with("is too large; take 1073741824 or less"), "{error}");
        }
    }

    #[test]
    fn times_carry_into_seconds_and_never_stand_still() {
        let time = FrameTime { sec: 0x46FF_4A82, usec: 999_999 };
        assert_eq!(time.plus_nanos(1000), FrameTime { sec: 0x46FF_4A83, usec: 0 });
        assert_eq!(time.plus_nanos(999), time);
        assert_eq!(FrameTime::from_nanos(time.as_nanos()), time);
        assert_eq!(time.strictly_after(Some(time)), FrameTime { sec: 0x46FF_4A83, usec: 0 });
        assert_eq!(time.strictly_after(None), time);
        assert_eq!(FrameTime::MAX.plus_nanos(1), FrameTime::MAX);
        assert_eq!(FrameTime::from_nanos(u64::MAX), FrameTime::MAX);
    }
}
