//! Which fault strikes which frame.
use std::borrow::Cow;

use circbuf_abi::ring::{CHUNK_BYTES, TRAILER_BYTES};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng as _;

use super::doctor;
use super::doctored::{Doctored, Service};
use super::noise::{self, aligned_slot, below, draw_payload, noise_of_slot, wrapping_slot};
use super::other_picture::OtherPicture;
use super::tally::Tally;
use super::trigger::{Due, Trigger};
use super::{FaultKind, Faults, FaultsError};
use crate::fpga::{Fpga, FrameError, trailer_of};
use crate::interrupt::header;
use crate::model::{FrameTime, Gap, Picture};

/// 2^64 by the golden ratio: frames that follow each other get seeds far apart.
const NUMBER_STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;

/// A clock is set by at most so much, in seconds.
const SHIFT_S_MAX: u64 = 3600;

/// The bus pauses for 10 ms, and up to so much more, in nanoseconds.
const STALL_NS_MIN: u64 = 10_000_000;
const STALL_NS_MORE: u64 = 90_000_000;

/// Makes of each picture and its time the frame that is written, with a fault if one is due.
///
/// # Example
/// An FPGA that is stepped, and the ledger of what it wrote:
/// ```
/// use circbuf_emulator::fault::{Faults, Injector};
/// use circbuf_emulator::fpga::{Fpga, Progress, Setup};
/// use circbuf_emulator::model::{FrameTime, Gap, Geometry, Picture};
/// use circbuf_emulator::ring_file::RingFile;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let faults = Faults::from_toml("[[fault]]\nkind = \"no-trailer\"\nat = [1]")?;
/// let setup = Setup {
///     gap: Gap::Zero,
///     stamped: true,
///     payload_bytes_max: faults.payload_bytes_max(900, 4096),
///     geometry: Geometry::default(),
///     frame_period_ns: 0,
/// };
/// let mut fpga = Fpga::new(RingFile::memfd(4096)?, setup)?;
/// let mut injector = Injector::new(&faults, &fpga)?;
/// let payload = &[1; 100];
/// let picture =
///     Picture { payload, crc32c: None, quality2: 0, color_mode: 0, width: 0, height: 0 };
/// let mut ledger = Vec::new();
/// for second in 0..3 {
///     let time = FrameTime { sec: second, usec: 0 };
///     let frame = injector.frame(&fpga, &picture, time)?;
///     fpga.begin_doctored(&frame);
///     ledger.push(frame.ledger_entry(&fpga));
///     while fpga.step(frame.payload(), 32) == Progress::Writing {}
/// }
/// assert_eq!(ledger.iter().map(|entry| entry.damaged).collect::<Vec<_>>(), [false, true, false]);
/// assert_eq!(injector.tally().damaged(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Injector {
    seed: u64,
    triggers: Vec<Trigger>,
    due: Due,
    lasting: Option<Lasting>,
    other: Option<OtherPicture>,
    delivers_other: bool,
    /// By so many seconds the camera's clock is ahead.
    shift_s: i64,
    /// When the first frame was exposed, by a clock that nobody sets.
    first_time: Option<FrameTime>,
    last_time: Option<FrameTime>,
    epoch: u64,
    before: Before,
    tally: Tally,
}

/// A fault that touches more than one frame.
#[derive(Debug, Clone, Copy)]
struct Lasting {
    kind: FaultKind,
    /// Frames that start below are touched.
    until: u64,
    /// Their slots, where they are equal.
    slot_bytes: u64,
}

/// What the frame before left, in this epoch.
#[derive(Debug, Clone, Copy)]
struct Before {
    /// What the FPGA's latches for length and time hold.
    latched: [u8; TRAILER_BYTES],
    trailer: Option<[u8; TRAILER_BYTES]>,
    /// Pointer or handler are not up to date before the next frame is whole.
    unsettled: bool,
}

impl Before {
    /// Behind a reset.
    fn nothing() -> Self {
        let latched = trailer_of(FrameTime::default(), 0);
        Self { latched, trailer: None, unsettled: false }
    }
}

impl Injector {
    /// Faults for the frames of `fpga`, whose register page has to promise what
    /// [`Faults::payload_bytes_max`] says.
    ///
    /// # Errors
    /// A fault is about headers, and there is no interrupt handler.
    pub fn new(faults: &Faults, fpga: &Fpga) -> Result<Self, FaultsError> {
        faults.check(fpga.is_stamped())?;
        Ok(Self {
            seed: faults.seed,
            triggers: faults.faults.iter().map(Trigger::new).collect(),
            due: Due::default(),
            lasting: None,
            other: faults.contains(FaultKind::Geometry).then(OtherPicture::compress),
            delivers_other: false,
            shift_s: 0,
            first_time: None,
            last_time: None,
            epoch: fpga.epoch(),
            before: Before::nothing(),
            tally: Tally::default(),
        })
    }

    /// The next frame of `fpga`, which is to be begun before another one is asked for. `time` is that
    /// of a clock that nobody sets.
    ///
    /// # Errors
    /// The FPGA cannot write the picture.
    pub fn frame<'a>(
        &mut self,
        fpga: &Fpga,
        picture: &Picture<'a>,
        time: FrameTime,
    ) -> Result<Doctored<'a>, FrameError> {
        fpga.measure(picture.payload)?;
        let seed = self.seed ^ fpga.frames().wrapping_add(1).wrapping_mul(NUMBER_STRIDE);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        if self.epoch != fpga.epoch() {
            self.forget(fpga.epoch());
        }
        self.collect(fpga, time, &mut random);
        let fault = self.choose(fpga, picture);
        let Some(kind) = fault else {
            let frame = self.sound(picture, self.shifted(time));
            return Ok(self.written(frame, None));
        };
        let time = self.time(kind, time, &mut random);
        let mut frame = self.compressed(kind, fpga, picture, time, &mut random);
        self.treat(kind, fpga, &mut frame, &mut random);
        frame.faults.insert(kind);
        frame.undetectable = frame.damaged && self.is_lawful(fpga, &frame);
        self.tally.add_frame(frame.damaged, frame.undetectable);
        Ok(self.written(frame, fault))
    }

    /// Whether a sprint lasts, so that the next frame does not wait for its time.
    #[must_use]
    pub fn is_sprinting(&self, fpga: &Fpga) -> bool {
        self.lasting(fpga).is_some_and(|lasting| lasting.kind == FaultKind::Sprint)
    }

    /// What was injected so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// A reset ends what lasts and clears the latches.
    fn forget(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.lasting = None;
        self.before = Before::nothing();
    }

    /// Takes note of what falls due. A fault that falls due while one of its kind lasts is part of it.
    fn collect(&mut self, fpga: &Fpga, time: FrameTime, random: &mut Xoshiro256PlusPlus) {
        let first = *self.first_time.get_or_insert(time);
        let elapsed_s = time.as_nanos().saturating_sub(first.as_nanos()) as f64 / 1e9;
        let lasts = self.lasting(fpga).map(|lasting| lasting.kind);
        for trigger in &mut self.triggers {
            let due = trigger.due(fpga.frames(), elapsed_s, random);
            if lasts != Some(trigger.kind()) {
                self.due.add(trigger.kind(), due);
            }
        }
    }

    fn lasting(&self, fpga: &Fpga) -> Option<Lasting> {
        self.lasting.filter(|lasting| lasting.until > fpga.cursor() && self.epoch == fpga.epoch())
    }

    /// The fault of the next frame: the one that lasts, or the first that is due and can strike.
    fn choose(&mut self, fpga: &Fpga, picture: &Picture<'_>) -> Option<FaultKind> {
        if let Some(lasting) = self.lasting(fpga) {
            return Some(lasting.kind);
        }
        let payload_bytes =
            self.other().map_or(picture.payload.len(), |other| other.payload().len());
        let (before, last_time) = (self.before, self.last_time);
        let kind = self.due.take(|kind| match kind {
            FaultKind::Aborted | FaultKind::Unescaped => payload_bytes >= 2,
            FaultKind::TimeRepeat => last_time.is_some(),
            FaultKind::ExactWrap | FaultKind::PointerOff => wrapping_slot(kind, fpga).is_some(),
            FaultKind::Restart | FaultKind::IrqLost | FaultKind::IrqCoalesced => !before.unsettled,
            _ => true,
        })?;
        self.tally.add_fault(kind);
        self.begin(kind, fpga);
        Some(kind)
    }

    /// What changes for more than this frame.
    fn begin(&mut self, kind: FaultKind, fpga: &Fpga) {
        let (ring_bytes, max_slot_bytes) = (fpga.ring_bytes(), fpga.max_slot_bytes());
        let last = |laps_bytes, slot_bytes| {
            Some(Lasting { kind, until: fpga.cursor() + laps_bytes, slot_bytes })
        };
        match kind {
            FaultKind::Sprint => self.lasting = last(ring_bytes + max_slot_bytes, 0),
            FaultKind::AlignedLap => {
                self.lasting = last(2 * ring_bytes, aligned_slot(ring_bytes, max_slot_bytes));
            }
            FaultKind::Geometry => self.delivers_other = !self.delivers_other,
            FaultKind::Restart => self.forget(fpga.epoch() + 1),
            _ => {}
        }
    }

    /// The time of the next frame by the camera's clock, which may be set now.
    fn time(
        &mut self,
        kind: FaultKind,
        time: FrameTime,
        random: &mut Xoshiro256PlusPlus,
    ) -> FrameTime {
        let mut seconds = || 1 + below(random, SHIFT_S_MAX) as i64;
        match kind {
            FaultKind::TimeBack => self.shift_s -= seconds(),
            FaultKind::TimeForward => self.shift_s += seconds(),
            FaultKind::TimeRepeat => return self.last_time.unwrap_or(time),
            _ => {}
        }
        self.shifted(time)
    }

    fn shifted(&self, time: FrameTime) -> FrameTime {
        let sec = (i64::from(time.sec) + self.shift_s).clamp(0, u32::MAX.into()) as u32;
        FrameTime { sec, ..time }
    }

    fn other(&self) -> Option<&OtherPicture> {
        self.other.as_ref().filter(|_| self.delivers_other)
    }

    fn sound<'a>(&self, picture: &Picture<'a>, time: FrameTime) -> Doctored<'a> {
        let Some(other) = self.other() else { return Doctored::sound(picture, time) };
        Doctored::of(Cow::Owned(other.payload().to_vec()), other.geometry(), time)
    }

    /// What comes from the compressor: the picture, or noise of the size that the fault wants.
    fn compressed<'a>(
        &self,
        kind: FaultKind,
        fpga: &Fpga,
        picture: &Picture<'a>,
        time: FrameTime,
        random: &mut Xoshiro256PlusPlus,
    ) -> Doctored<'a> {
        let payload = match kind {
            FaultKind::Sizes => draw_payload(fpga, random),
            FaultKind::ExactWrap | FaultKind::PointerOff => {
                let slot_bytes = wrapping_slot(kind, fpga).expect("it was chosen because it can");
                noise_of_slot(random, slot_bytes)
            }
            FaultKind::AlignedLap => {
                let lasting = self.lasting.expect("it lasts");
                noise_of_slot(random, lasting.slot_bytes)
            }
            _ => return self.sound(picture, time),
        };
        Doctored::of(Cow::Owned(payload), noise::GEOMETRY, time)
    }

    /// What is done to the frame itself.
    fn treat(
        &self,
        kind: FaultKind,
        fpga: &Fpga,
        frame: &mut Doctored<'_>,
        random: &mut Xoshiro256PlusPlus,
    ) {
        match kind {
            FaultKind::Sprint => frame.sprints = true,
            FaultKind::Aborted => doctor::abort(frame, self.before.latched, random),
            FaultKind::NoTrailer => doctor::omit_trailer(frame),
            FaultKind::BadTrailer => doctor::spoil_trailer(frame, random),
            FaultKind::Unescaped => doctor::unescape(frame, random),
            FaultKind::BitFlip => {
                let bit = doctor::draw_bit(frame, fpga.is_stamped(), random);
                doctor::flip(frame, bit);
            }
            FaultKind::Stall => frame.stall_ns = STALL_NS_MIN + below(random, STALL_NS_MORE + 1),
            FaultKind::GapSkip => frame.manner.gap = Some(Gap::Skip),
            FaultKind::GapLate => frame.manner.gap = Some(Gap::Late),
            FaultKind::HeaderClobbered => doctor::clobber_header(frame, random),
            FaultKind::IrqLost => doctor::lose_header(frame, Service::Lost),
            FaultKind::IrqCoalesced => doctor::lose_header(frame, Service::Coalesced),
            FaultKind::PointerOff => frame.manner.pointer_low_bytes = CHUNK_BYTES as u64,
            FaultKind::Restart => frame.restarts = true,
            FaultKind::TimeBack
            | FaultKind::TimeForward
            | FaultKind::TimeRepeat
            | FaultKind::Sizes
            | FaultKind::ExactWrap
            | FaultKind::AlignedLap
            | FaultKind::Geometry => {}
        }
    }

    /// Whether a driver cannot find anything wrong with the frame.
    fn is_lawful(&self, fpga: &Fpga, frame: &Doctored<'_>) -> bool {
        let manner = frame.manner();
        let slot = match manner.service {
            Service::Stamps(stamp) => stamp.on(header(manner.geometry, 0, manner.stamped_length())),
            Service::Lost | Service::Coalesced => fpga.unstamped_slot(),
        };
        let mut written = frame.written();
        written.header = fpga.is_stamped().then_some(slot);
        written.before = self.before.trailer;
        written.is_lawful()
    }

    /// Takes note of what the next frame has before it.
    fn written<'a>(&mut self, frame: Doctored<'a>, fault: Option<FaultKind>) -> Doctored<'a> {
        self.last_time = Some(frame.time);
        if fault != Some(FaultKind::Aborted) {
            self.before.latched = trailer_of(frame.time, frame.payload.len() as u32);
        }
        self.before.trailer = Some(frame.manner.trailer);
        self.before.unsettled =
            matches!(fault, Some(FaultKind::IrqCoalesced | FaultKind::PointerOff));
        frame
    }
}

#[cfg(test)]
mod tests;
