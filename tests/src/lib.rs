//! Helpers shared by the tests of the whole system, which stand in `tests/tests/`.
#![deny(missing_docs)]

pub mod fuzzing;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use circbuf_driver::device::Device;
use circbuf_driver::ring::Timestamp;
use circbuf_emulator::fault::{Doctored, Faults, Injector, Tally};
use circbuf_emulator::fpga::{Fpga, Progress, Setup, slot_bytes};
use circbuf_emulator::ledger::LedgerEntry;
use circbuf_emulator::model::{FrameTime, Gap, Geometry, Picture};
use circbuf_emulator::ring_file::RingFile;

/// What the FPGA may do with the gap.
pub const GAPS: [Gap; 3] = [Gap::Zero, Gap::Late, Gap::Skip];

/// Time of the first frame of a [`SteppedCamera`]; each that follows is 10 ms later.
pub const START: FrameTime = FrameTime { sec: 0x46FF_4A82, usec: 0x0003_03BD };

/// Numbers that follow from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    #[must_use]
    pub fn of(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x2545_F491_4F6C_DD1D))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is above 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.any() % limit
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Whether something happens that happens once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// A stuffed payload that no other frame has.
#[must_use]
pub fn payload(number: u64, length: usize) -> Vec<u8> {
    let mut random = Random::of(number + 1);
    let mut payload = Vec::with_capacity(length);
    while payload.len() < length {
        match random.any() as u8 {
            0xE0.. if payload.len() + 2 <= length => payload.extend([0xFF, 0x00]),
            byte => payload.push(byte & 0x7F),
        }
    }
    payload
}

/// What was really written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    /// As a camera enters it in its ledger.
    pub entry: LedgerEntry,
    /// The payload as it was sent to the ring.
    pub payload: Vec<u8>,
}

impl Truth {
    /// Whether nothing is wrong with the frame that a driver could find.
    #[must_use]
    pub fn is_lawful(&self) -> bool {
        !self.entry.damaged || self.entry.undetectable
    }
}

/// An FPGA that is stopped between any two chunks, and the truth about its frames.
#[derive(Debug)]
pub struct SteppedCamera {
    fpga: Fpga,
    /// By number.
    truth: BTreeMap<u64, Truth>,
    current: Option<Truth>,
    /// Frames in work at resets: all of one but its gap may have been written.
    abandoned: Vec<Truth>,
    begun: u64,
    injector: Option<Injector>,
    stall_ns: u64,
    /// Where the frame in work will end.
    end: u64,
    /// Where the last whole frames of this epoch ended.
    ends: [u64; 2],
    /// The camera's register page.
    page: Device,
}

impl SteppedCamera {
    /// A camera with a ring of its own, in memory.
    ///
    /// # Panics
    /// If the system has no memory for it, or the ring does not hold four of its frames.
    #[must_use]
    pub fn new(ring_bytes: u64, payload_bytes_max: u32, gap: Gap, stamped: bool) -> SteppedCamera {
        let geometry = Geometry { width: 64, height: 48, quality2: 0x5050, color_mode: 0 };
        let setup = Setup { gap, stamped, payload_bytes_max, geometry, frame_period_ns: 0 };
        let file = RingFile::memfd(ring_bytes).expect("there is memory");
        let fpga = Fpga::new(file, setup).expect("the ring holds four frames");
        let memory = fpga.file();
        let page = Device::from_fds(memory.ring_fd(), Some(memory.registers_fd()));
        SteppedCamera {
            fpga,
            truth: BTreeMap::new(),
            current: None,
            abandoned: Vec::new(),
            begun: 0,
            injector: None,
            stall_ns: 0,
            end: 0,
            ends: [0; 2],
            page: page.expect("the ring can be mapped"),
        }
    }

    /// The same camera with faults. Its largest payload is what [`Faults::payload_bytes_max`] says.
    ///
    /// # Panics
    /// If a fault is about headers, and nobody stamps any.
    #[must_use]
    pub fn with_faults(mut self, faults: &Faults) -> SteppedCamera {
        self.injector = Some(Injector::new(faults, &self.fpga).expect("faults of this camera"));
        self
    }

    /// The FPGA.
    #[must_use]
    pub fn fpga(&self) -> &Fpga {
        &self.fpga
    }

    /// The FPGA, to be run by somebody else.
    #[must_use]
    pub fn into_fpga(self) -> Fpga {
        self.fpga
    }

    /// A driver's view of the ring, with or without its register page.
    ///
    /// # Panics
    /// If it cannot be mapped.
    #[must_use]
    pub fn device(&self, with_counters: bool) -> Device {
        let file = self.fpga.file();
        let registers = with_counters.then(|| file.registers_fd());
        Device::from_fds(file.ring_fd(), registers).expect("the ring can be mapped")
    }

    /// The frame of this number, if it is whole.
    #[must_use]
    pub fn truth(&self, number: u64) -> Option<&Truth> {
        self.truth.get(&number)
    }

    /// The frame of this exposure time. It may be in work still: where nothing is stamped or counted,
    /// a frame is there as soon as its trailer is.
    #[must_use]
    pub fn truth_at(&self, time: Timestamp) -> Option<&Truth> {
        let all = self.truth.values().chain(&self.abandoned).chain(&self.current);
        let mut frames = all.rev();
        frames.find(|truth| (truth.entry.sec, truth.entry.usec) == (time.sec, time.usec))
    }

    /// All frames with their numbers, the newest first, and those that were abandoned.
    pub fn truths(&self) -> impl Iterator<Item = (u64, &Truth)> {
        let whole = self.truth.iter().rev().map(|(number, truth)| (*number, truth));
        whole.chain(self.abandoned.iter().map(|truth| (truth.entry.number, truth)))
    }

    /// Frames begun so far, whole or not.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Begins a frame of so many bytes.
    ///
    /// # Panics
    /// If one is begun already, or it does not fit.
    pub fn begin(&mut self, length: usize) {
        self.begin_with(payload(self.begun, length), false);
    }

    /// Begins a frame with a payload that may be none.
    ///
    /// # Panics
    /// If a frame is begun already, or this one does not fit.
    pub fn begin_with(&mut self, payload: Vec<u8>, damaged: bool) {
        let time = START.plus_nanos(self.begun * 10_000_000);
        let epoch = self.fpga.epoch();
        self.begun += 1;
        let truth = match &mut self.injector {
            None => begin_sound(&mut self.fpga, payload, time, damaged),
            Some(injector) => {
                let frame = injector.frame(&self.fpga, &picture(&payload), time);
                let frame = frame.expect("the frame fits");
                self.stall_ns = frame.stall_ns();
                begin_doctored(&mut self.fpga, &frame)
            }
        };
        if self.fpga.epoch() != epoch {
            self.ends = [0; 2];
        }
        self.end = self.fpga.cursor() + slot_bytes(truth.payload.len() as u32);
        self.current = Some(truth);
    }

    /// How long the bus pauses in the frame that was begun, in nanoseconds; told once.
    pub fn take_stall_ns(&mut self) -> u64 {
        std::mem::take(&mut self.stall_ns)
    }

    /// Whether the camera writes without a pause, by a fault.
    #[must_use]
    pub fn is_sprinting(&self) -> bool {
        self.injector.as_ref().is_some_and(|injector| injector.is_sprinting(&self.fpga))
    }

    /// What was injected, where there are faults.
    #[must_use]
    pub fn faults(&self) -> Option<&Tally> {
        self.injector.as_ref().map(Injector::tally)
    }

    /// Writes a chunk, or stamps and publishes the frame if all are written. With no frame in work it
    /// begins one of `length` bytes.
    pub fn step(&mut self, length: usize) -> Progress {
        if self.current.is_none() {
            self.begin(length);
        }
        self.advance()
    }

    /// Writes a chunk of the frame that was begun, or stamps and publishes it if all are written.
    ///
    /// # Panics
    /// If none was begun.
    pub fn advance(&mut self) -> Progress {
        let number = self.fpga.frames();
        let current = self.current.take().expect("a frame was begun");
        let progress = self.fpga.step(&current.payload, 32);
        match progress {
            Progress::Writing => self.current = Some(current),
            Progress::Whole => {
                self.truth.insert(number, current);
                self.ends = [self.ends[1], self.fpga.cursor()];
            }
            Progress::Lost => unreachable!("the ring is no host's"),
        }
        progress
    }

    /// Where the kernel's pointer stands: behind the last frame whose interrupt was served, or if the
    /// camera was `ahead` of its handler, behind one that is not stamped yet. It is at most one frame late.
    ///
    /// # Panics
    /// If the register page cannot be read.
    #[must_use]
    pub fn pointer(&self, ahead: bool) -> u64 {
        let page = self.page.registers().expect("a camera has a register page");
        let served = page.progress().expect("nobody changes it meanwhile").complete;
        let is_at_end = self.current.is_some() && self.fpga.cursor() == self.end;
        let pointer = if ahead && is_at_end { self.end } else { served.max(self.ends[0]) };
        pointer % self.fpga.file().ring_bytes()
    }

    /// So many steps.
    pub fn steps(&mut self, count: u8, length: usize) {
        for _ in 0..count {
            self.step(length);
        }
    }

    /// Writes what is left of the frame that was begun, or a whole one of `length` bytes.
    pub fn emit(&mut self, length: usize) {
        while self.step(length) == Progress::Writing {}
    }

    /// Resets the FPGA: a frame in work is abandoned.
    pub fn reset(&mut self) {
        self.abandoned.extend(self.current.take());
        self.ends = [0; 2];
        self.fpga.reset();
    }

    /// Says that the camera has ended.
    pub fn end(&mut self) {
        self.fpga.end();
    }

    /// Whether a frame is in work.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.current.is_some()
    }
}

fn begin_sound(fpga: &mut Fpga, payload: Vec<u8>, time: FrameTime, damaged: bool) -> Truth {
    fpga.begin(&picture(&payload), time).expect("the frame fits");
    let entry = Doctored::sound(&picture(&payload), time).ledger_entry(fpga);
    Truth { entry: LedgerEntry { damaged, ..entry }, payload }
}

fn begin_doctored(fpga: &mut Fpga, frame: &Doctored<'_>) -> Truth {
    fpga.begin_doctored(frame);
    Truth { entry: frame.ledger_entry(fpga), payload: frame.payload().to_vec() }
}

/// A picture with the geometry of the seed's listing.
#[must_use]
pub fn picture(payload: &[u8]) -> Picture<'_> {
    Picture { payload, crc32c: None, quality2: 0x5050, color_mode: 0, width: 2048, height: 1536 }
}

/// The whole content of a file.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn content(file: &File) -> Vec<u8> {
    let length = file.metadata().expect("it is open").len();
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).expect("it is so long");
    bytes
}
