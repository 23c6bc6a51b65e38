//! The registers of BAR 0: which access is which register, and what it holds.

use circbuf_abi::pci::bar0::{
    CHANNEL, CONTROL, CONTROL_CREDIT, CONTROL_ENABLE, CONTROL_RESET, CONTROL_RUN, CREDIT, END,
    ERROR_ACCESS, ERROR_CONFIG, ERRORS, FAULT_IOVA, FEATURE_CREDIT, FEATURES, FRAME_PERIOD_NS,
    FRAMES, GEOMETRY, MAGIC, MAGIC_VALUE, MAX_SLOT_BYTES, QUALITY, RING_BYTES, RING_IOVA, STATUS,
    STATUS_ENABLED, STATUS_ENDED, STATUS_RUNNING, VERSION, VERSION_VALUE,
};

use crate::model::Geometry;

/// What the registers tell of the camera and does not change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// The size of ring that the camera was made for.
    pub(super) ring_bytes: u64,
    pub(super) max_slot_bytes: u64,
    pub(super) geometry: Geometry,
    pub(super) frame_period_ns: u64,
}

/// What the registers tell of this moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Now {
    pub(super) has_ring: bool,
    pub(super) is_running: bool,
    pub(super) has_ended: bool,
    pub(super) errors: u32,
    pub(super) fault_iova: u64,
    pub(super) frames: u64,
}

/// What a write to the registers asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Nothing that has not been done.
    Nothing,
    /// Stop if it runs, and take the ring.
    Enable,
    /// Take the ring if there is none, and run.
    Start,
    /// Stop if it runs, and give the ring back.
    Stop,
    /// A reset.
    Reset,
    /// Take note of how far the ring is free.
    Credit,
    /// Clear these error bits.
    ClearErrors(u32),
    /// Set these error bits.
    RaiseErrors(u32),
}

/// The registers that hold what is written to them.
#[derive(Debug)]
pub(super) struct Registers {
    facts: Facts,
    pub(super) ring_iova: u64,
    pub(super) ring_bytes: u64,
    pub(super) credit: u64,
    /// Whether the device waits for [`Self::credit`].
    pub(super) waits: bool,
    /// The register whose low half was read last, and its high half at that time.
    latched: (u64, u32),
}

impl Registers {
    /// As after a reset.
    pub(super) fn new(facts: Facts) -> Self {
        Self {
            facts,
            ring_iova: 0,
            ring_bytes: facts.ring_bytes,
            credit: 0,
            waits: false,
            latched: (END, 0),
        }
    }

    pub(super) fn max_slot_bytes(&self) -> u64 {
        self.facts.max_slot_bytes
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(self.facts);
    }

    /// Reads 4 bytes, or 8 of them as two times 4. False if the access is none that is allowed.
    pub(super) fn read(&mut self, offset: u64, bytes: &mut [u8], now: &Now) -> bool {
        bytes.fill(0xFF);
        let is_allowed = is_allowed(offset, bytes.len());
        if is_allowed {
            for (offset, word) in (offset..).step_by(4).zip(bytes.as_chunks_mut().0) {
                *word = self.read_word(offset, now).to_le_bytes();
            }
        }
        is_allowed
    }

    fn read_word(&mut self, offset: u64, now: &Now) -> u32 {
        match place(offset) {
            Place::Nothing => 0,
            Place::Only(register) => self.value(register, now) as u32,
            Place::Low(register) => {
                let value = self.value(register, now);
                self.latched = (register, (value >> 32) as u32);
                value as u32
            }
            Place::High(register) if self.latched.0 == register => self.latched.1,
            Place::High(register) => (self.value(register, now) >> 32) as u32,
        }
    }

    fn value(&self, register: u64, now: &Now) -> u64 {
        let Geometry { width, height, quality2, color_mode } = self.facts.geometry;
        let flag = |is_set: bool, flag: u32| if is_set { u64::from(flag) } else { 0 };
        match register {
            MAGIC => MAGIC_VALUE.into(),
            VERSION => VERSION_VALUE.into(),
            FEATURES => FEATURE_CREDIT.into(),
            CONTROL => {
                flag(now.is_running, CONTROL_RUN)
                    | flag(self.waits, CONTROL_CREDIT)
                    | flag(now.has_ring, CONTROL_ENABLE)
            }
            STATUS => {
                flag(now.is_running, STATUS_RUNNING)
                    | flag(now.has_ended, STATUS_ENDED)
                    | flag(now.has_ring, STATUS_ENABLED)
            }
            ERRORS => now.errors.into(),
            FAULT_IOVA => now.fault_iova,
            RING_IOVA => self.ring_iova,
            RING_BYTES => self.ring_bytes,
            CREDIT => self.credit,
            MAX_SLOT_BYTES => self.facts.max_slot_bytes,
            GEOMETRY => u64::from(width) | u64::from(height) << 16,
            QUALITY => u64::from(quality2) | u64::from(color_mode) << 16,
            FRAME_PERIOD_NS => self.facts.frame_period_ns,
            FRAMES => now.frames,
            // The number of the one channel, and what is not there.
            _ => 0,
        }
    }

    /// Writes 4 bytes, or 8 of them as two times 4, and tells what is to be done about each.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], has_ring: bool) -> [Request; 2] {
        let mut requests = [Request::Nothing; 2];
        if !is_allowed(offset, bytes.len()) {
            requests[0] = Request::RaiseErrors(ERROR_ACCESS);
            return requests;
        }
        let words = (offset..).step_by(4).zip(bytes.as_chunks().0);
        for (request, (offset, word)) in requests.iter_mut().zip(words) {
            *request = self.write_word(offset, u32::from_le_bytes(*word), has_ring);
        }
        requests
    }

    fn write_word(&mut self, offset: u64, word: u32, has_ring: bool) -> Request {
        let place = place(offset);
        match place {
            Place::Nothing => Request::Nothing,
            Place::Only(CONTROL) => self.control(word),
            Place::Only(ERRORS) => Request::ClearErrors(word),
            Place::Low(CREDIT) | Place::High(CREDIT) => {
                put(&mut self.credit, place, word);
                Request::Credit
            }
            Place::Low(RING_IOVA | RING_BYTES) | Place::High(RING_IOVA | RING_BYTES)
                if has_ring =>
            {
                Request::RaiseErrors(ERROR_CONFIG)
            }
            Place::Low(RING_IOVA) | Place::High(RING_IOVA) => {
                put(&mut self.ring_iova, place, word);
                Request::Nothing
            }
            Place::Low(RING_BYTES) | Place::High(RING_BYTES) => {
                put(&mut self.ring_bytes, place, word);
                Request::Nothing
            }
            Place::Only(_) | Place::Low(_) | Place::High(_) => Request::RaiseErrors(ERROR_ACCESS),
        }
    }

    fn control(&mut self, word: u32) -> Request {
        if word & CONTROL_RESET != 0 {
            return Request::Reset;
        }
        self.waits = word & CONTROL_CREDIT != 0;
        match (word & CONTROL_RUN, word & CONTROL_ENABLE) {
            (0, 0) => Request::Stop,
            (0, _) => Request::Enable,
            _ => Request::Start,
        }
    }
}

/// What stands at a multiple of 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nothing,
    /// A register of 32 bits.
    Only(u64),
    /// Half of one of 64 bits.
    Low(u64),
    High(u64),
}

fn place(offset: u64) -> Place {
    match offset {
        MAGIC | VERSION | FEATURES | CHANNEL | CONTROL | STATUS | ERRORS | GEOMETRY | QUALITY => {
            Place::Only(offset)
        }
        FAULT_IOVA..GEOMETRY | FRAME_PERIOD_NS..END => match offset % 8 {
            0 => Place::Low(offset),
            _ => Place::High(offset - 4),
        },
        _ => Place::Nothing,
    }
}

fn is_allowed(offset: u64, bytes: usize) -> bool {
    matches!(bytes, 4 | 8) && offset.is_multiple_of(bytes as u64)
}

fn put(register: &mut u64, place: Place, word: u32) {
    *register = match place {
        Place::High(_) => *register & u64::from(u32::MAX) | u64::from(word) << 32,
        _ => *register & !u64::from(u32::MAX) | u64::from(word),
    };
}
