//! Reads the register page, whose layout and ordering are written down in
//! [`circbuf_abi::registers`].

use std::sync::atomic::{Ordering, fence};

use circbuf_abi::registers as reg;
use circbuf_abi::ring::{CHUNK_BYTES, RING_BYTES_ALIGN, SLOT_BYTES_MIN, SLOTS_MIN};

use crate::mapping::Mapping;
use crate::ring::Geometry;

/// How far the device is with whole frames. All of it was true at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Number of resets.
    pub epoch: u64,
    /// Cursor behind the gap of the last whole frame.
    pub complete: u64,
    /// Number of whole frames.
    pub frames: u64,
}

/// How far the writer may have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Number of resets.
    pub epoch: u64,
    /// Nothing at or above this cursor had been touched.
    pub reserved: u64,
}

/// Why a register page is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegistersError {
    /// The file is too small.
    #[error("{bytes} bytes are none; it has {} (was the file cut short?)", reg::PAGE_BYTES)]
    Cut {
        /// Its size.
        bytes: u64,
    },
    /// The magic number is missing.
    #[error("it is no register page: magic {found:#018x}")]
    Magic {
        /// What stands there.
        found: u64,
    },
    /// A version this driver does not know.
    #[error("it is a register page of version {found}; this driver reads version 1")]
    Version {
        /// What stands there.
        found: u32,
    },
    /// The ring has another size.
    #[error("it speaks of a ring of {told} bytes, but the ring has {actual}")]
    RingBytes {
        /// In the page.
        told: u64,
        /// Of the ring.
        actual: u64,
    },
    /// The largest slot is impossible.
    #[error(
        "its largest slot of {max_slot_bytes} bytes is no multiple of 32 from 64 to a quarter of \
         the ring of {ring_bytes}"
    )]
    MaxSlot {
        /// In the page.
        max_slot_bytes: u64,
        /// Of the ring.
        ring_bytes: u64,
    },
    /// The device is for ever about to change its counters.
    #[error(
        "its counters never come to rest: the device died while it changed them; start it again"
    )]
    Unsettled,
    /// The counters contradict each other or the time before.
    #[error(
        "its counters contradict themselves: complete {complete:#x} (before: {before:#x}), \
         written {written:#x}, reserved {reserved:#x}, frames {frames}"
    )]
    Counters {
        /// As read.
        complete: u64,
        /// Complete, when it was read before.
        before: u64,
        /// As read.
        written: u64,
        /// As read.
        reserved: u64,
        /// As read.
        frames: u64,
    },
}

/// The register page of a device.
#[derive(Debug)]
pub struct Registers {
    page: Mapping,
    /// As it was when it was checked: the page may be changed by whoever can write it.
    max_slot_bytes: u64,
}

impl Registers {
    /// Takes a mapped page if what it says of the ring can be true.
    ///
    /// # Errors
    /// If it is no register page, or not that of a ring of `ring_bytes`.
    pub fn new(page: Mapping, ring_bytes: u64) -> Result<Registers, RegistersError> {
        let mut registers = Registers { page, max_slot_bytes: 0 };
        let found = registers.u64(reg::MAGIC);
        if found != reg::MAGIC_VALUE {
            return Err(RegistersError::Magic { found });
        }
        let found = registers.u32(reg::VERSION);
        if found != reg::VERSION_VALUE {
            return Err(RegistersError::Version { found });
        }
        let told = registers.u64(reg::RING_BYTES);
        if told != ring_bytes {
            return Err(RegistersError::RingBytes { told, actual: ring_bytes });
        }
        let max_slot_bytes = registers.u64(reg::MAX_SLOT_BYTES);
        let lawful = (SLOT_BYTES_MIN..=ring_bytes / SLOTS_MIN).contains(&max_slot_bytes);
        if !lawful || !max_slot_bytes.is_multiple_of(CHUNK_BYTES as u64) {
            return Err(RegistersError::MaxSlot { max_slot_bytes, ring_bytes });
        }
        debug_assert!(ring_bytes.is_multiple_of(RING_BYTES_ALIGN));
        registers.max_slot_bytes = max_slot_bytes;
        Ok(registers)
    }

    /// The largest distance from one frame's start to the next, in bytes.
    #[must_use]
    pub fn max_slot_bytes(&self) -> u64 {
        self.max_slot_bytes
    }

    /// Size, quality and colour mode of the pictures; zeros if unknown.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        Geometry {
            width: self.u32(reg::WIDTH) as u16,
            height: self.u32(reg::HEIGHT) as u16,
            quality2: self.u32(reg::QUALITY2) as u16,
            color_mode: self.u32(reg::COLOR_MODE) as u8,
        }
    }

    /// Whether the page is that of the ring file with this `st_dev` and `st_ino`, or of no file at all.
    #[must_use]
    pub(crate) fn belongs_to(&self, device: u64, inode: u64) -> bool {
        let told = (self.u64(reg::RING_DEVICE), self.u64(reg::RING_INODE));
        told == (0, 0) || told == (device, inode)
    }

    /// Whether an interrupt handler stamps frame headers.
    #[must_use]
    pub fn is_stamped(&self) -> bool {
        self.u32(reg::FLAGS) & reg::FLAG_STAMPED != 0
    }

    /// Whether the device says that it will not write again. What it wrote before is visible then.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let ended = self.u32(reg::STATE) == reg::STATE_ENDED;
        fence(Ordering::Acquire);
        ended
    }

    /// Whether the page's file was truncated while in use.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.page.is_truncated()
    }

    /// How far the device is with whole frames; everything below `complete` is visible then.
    /// `None` while the device changes the numbers: ask again.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        let before = self.u64(reg::UPDATE);
        // SYNC POINT: update even. Keeps the loads below behind the first look at the counter.
        fence(Ordering::Acquire);
        let progress = Progress {
            epoch: self.u64(reg::EPOCH),
            complete: self.u64(reg::COMPLETE),
            frames: self.u64(reg::FRAMES),
        };
        // And those above before the second, and before whatever the caller loads from the ring.
        fence(Ordering::Acquire);
        (before == self.u64(reg::UPDATE) && before.is_multiple_of(2)).then_some(progress)
    }

    /// How far the writer may have come. Whatever this thread loaded from the ring before the
    /// call was loaded before the writer reached anything at or above `reserved`.
    #[must_use]
    pub fn reach(&self) -> Reach {
        // SYNC POINT: reserved before bytes. If a load before saw a byte of a later lap, the loads
        // below see the `reserved`, or the `epoch`, that was stored before that byte.
        fence(Ordering::Acquire);
        let reserved = self.u64(reg::RESERVED);
        // SYNC POINT: epoch before counters. A `reserved` of a new epoch comes with that epoch.
        fence(Ordering::Acquire);
        Reach { epoch: self.u64(reg::EPOCH), reserved }
    }

    /// How far the writer is inside the frame behind `complete`: everything below is visible. `epoch` is
    /// that of a [`Registers::progress`] before; `None` in another.
    #[must_use]
    pub fn written(&self, epoch: u64) -> Option<u64> {
        let written = self.u64(reg::WRITTEN);
        // SYNC POINT: bytes before written, epoch before counters. The caller's loads stay below; and a
        // `written` of a later epoch comes with that epoch, one of an earlier was gone before that
        // `progress`.
        fence(Ordering::Acquire);
        (self.u64(reg::EPOCH) == epoch).then_some(written)
    }

    /// The error that tells the counters as they are now.
    pub(crate) fn contradiction(&self, progress: Progress, before: u64) -> RegistersError {
        RegistersError::Counters {
            complete: progress.complete,
            before,
            written: self.u64(reg::WRITTEN),
            reserved: self.reach().reserved,
            frames: progress.frames,
        }
    }

    fn u32(&self, offset: usize) -> u32 {
        self.page.load_u32(offset)
    }

    fn u64(&self, offset: usize) -> u64 {
        self.page.load_u64(offset)
    }
}
