//! The tail and the copy over a ring that is written, and scribbled over, between any two steps.

use std::fs::File;
use std::os::unix::fs::FileExt;

use circbuf_abi::registers as reg;
use circbuf_driver::device::Device;
use circbuf_driver::record::{PAYLOAD_OFFSET, RECORD_HEADER_BYTES, frame_body_bytes, record_bytes};
use circbuf_driver::ring::FrameHeader;
use circbuf_driver::slab::{Slab, SlabPool};
use circbuf_driver::tail::{StartAt, Step, Tail};
use circbuf_driver::validate::{Candidate, check_in_place, copy_and_check};

use super::input::Input;
use super::law::{Still, padded};
use super::ring::Pen;
use crate::{GAPS, SteppedCamera, content};

const STEPS_MAX: usize = 200;
const PAYLOAD_BYTES_MAX: u32 = 900;
/// More than after which a tail without counters searches the whole ring.
const PATIENCE: u32 = 520;
/// Polls after which a ring at rest has been read.
const POLLS_TO_REST: usize = 4000;
const COUNTERS: [usize; 6] =
    [reg::EPOCH, reg::UPDATE, reg::COMPLETE, reg::FRAMES, reg::RESERVED, reg::WRITTEN];

/// A camera that tells the truth until somebody else writes into its memory, and who reads it.
struct Bench {
    camera: SteppedCamera,
    ring: File,
    page: File,
    device: Device,
    tail: Tail,
    slab: Slab,
    /// Found, and not yet copied.
    candidate: Option<Candidate>,
    /// Number of the frame that has to come next.
    next: u64,
    found: u64,
    lost: u64,
    /// Whether the bytes are the camera's own.
    honest: bool,
    /// The counters were not believed.
    refused: bool,
}

/// Byte 0: counters or none, where to begin, stamps or none, gap. Byte 1: frames written before.
pub(super) fn check(bytes: &[u8]) {
    let mut input = Input::of(bytes);
    let Some(mut bench) = Bench::of(&mut input) else { return };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        bench.step(&mut input);
    }
    bench.come_to_rest();
}

impl Bench {
    fn of(input: &mut Input<'_>) -> Option<Bench> {
        let (mode, frames) = (input.u8(), input.u8() % 28);
        let gap = GAPS[usize::from(mode >> 4) % GAPS.len()];
        let ring_bytes = 4096 * (1 + u64::from(mode >> 3 & 1));
        let mut camera = SteppedCamera::new(ring_bytes, PAYLOAD_BYTES_MAX, gap, mode & 4 == 0);
        (0..frames).for_each(|frame| camera.emit(40 + 31 * usize::from(frame)));
        let file = camera.fpga().file();
        let own = |fd: std::os::fd::BorrowedFd<'_>| {
            File::from(fd.try_clone_to_owned().expect("a descriptor is left"))
        };
        let (ring, page) = (own(file.ring_fd()), own(file.registers_fd()));
        let device = camera.device(mode & 1 != 0);
        let start = if mode & 2 == 0 { StartAt::Oldest } else { StartAt::Newest };
        let tail = Tail::attach(&device, start).ok()?;
        // A tail with counters begins at the number that they tell.
        let oldest = tail.expected(&device).unwrap_or(0);
        let next = if mode & 1 != 0 { u64::from(frames) - oldest } else { 0 };
        let bytes = record_bytes(frame_body_bytes(PAYLOAD_BYTES_MAX));
        let slab = SlabPool::new(1 << 20).take(bytes)?;
        let (candidate, found, lost, honest, refused) = (None, 0, 0, true, false);
        #[rustfmt::skip]
        return Some(Bench { camera, ring, page, device, tail, slab, candidate, next, found, lost,
            honest, refused });
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 16 {
            0..4 => self.poll(1),
            4 | 5 => self.copy(),
            6 => self.camera.emit(1 + usize::from(input.u16() % 900)),
            7 | 8 => self.camera.steps(input.u8(), 300),
            9 => (0..input.u8() % 32).for_each(|_| self.camera.emit(64)),
            10 => self.camera.reset(),
            11 => self.poll(PATIENCE),
            12 => self.scribble(input),
            13 => self.turn_back(input),
            14 => self.lie(input),
            _ => self.camera.end(),
        }
    }

    /// Writes pieces of frames, or anything, over the camera's bytes.
    fn scribble(&mut self, input: &mut Input<'_>) {
        self.honest = false;
        let mut pen = Pen::new(content(&self.ring));
        (0..1 + input.u8() % 8).for_each(|_| pen.step(input));
        self.ring.write_all_at(&pen.ring, 0).expect("the ring stands");
    }

    /// Adds to a byte, as one that changes for a moment.
    fn turn_back(&mut self, input: &mut Input<'_>) {
        self.honest = false;
        let at = u64::from(input.u16()) % self.device.ring().bytes();
        let mut byte = [0];
        self.ring.read_exact_at(&mut byte, at).expect("the ring stands");
        byte[0] = byte[0].wrapping_add(input.u8());
        self.ring.write_all_at(&byte, at).expect("the ring stands");
    }

    /// Stores any number in a counter, or one near what stands there.
    fn lie(&mut self, input: &mut Input<'_>) {
        self.honest = false;
        let field = COUNTERS[usize::from(input.u8()) % COUNTERS.len()] as u64;
        let mut bytes = [0; 8];
        self.page.read_exact_at(&mut bytes, field).expect("the page stands");
        let value = match input.u8() {
            kind @ 0..0x80 => {
                u64::from_le_bytes(bytes).wrapping_add_signed(i64::from(kind) * 32 - 2048)
            }
            0x80..0xC0 => u64::from_le_bytes(bytes).wrapping_add(input.number()),
            _ => input.number(),
        };
        self.page.write_all_at(&value.to_le_bytes(), field).expect("the page stands");
    }

    /// Polls until something is found, at most so many times.
    fn poll(&mut self, times: u32) {
        for _ in 0..times {
            let Ok(step) = self.tail.poll(&self.device) else {
                assert!(!self.honest, "true counters are believed");
                self.refused = true;
                return;
            };
            if self.told(step) {
                return;
            }
        }
    }

    /// Enters what the tail told; whether it was anything.
    fn told(&mut self, step: Step) -> bool {
        match step {
            Step::Idle => return false,
            Step::Frame(candidate) => {
                self.check_candidate(&candidate);
                self.found += 1;
                self.next += 1;
                self.candidate = Some(candidate);
            }
            Step::Lost(loss) => {
                assert!(loss.count > 0 && loss.exact == self.tail.is_exact(), "{loss:?}");
                assert_eq!(loss.sequence, self.next, "no frame is passed over: {loss:?}");
                self.lost += loss.count;
                self.next += loss.count;
            }
        }
        true
    }

    fn check_candidate(&self, candidate: &Candidate) {
        assert_eq!(candidate.sequence, self.next, "no frame is passed over");
        assert!(candidate.start.is_multiple_of(32) && candidate.trailer.is_plausible());
        let slot_bytes = padded(candidate.trailer.length) + 32;
        assert!(slot_bytes <= self.device.max_slot_bytes(), "{candidate:?}");
        assert!(self.tail.cursor() >= candidate.start + slot_bytes, "{candidate:?}");
    }

    /// Copies what was found last. It is a frame if the law says so, and only then.
    fn copy(&mut self) {
        let Some(candidate) = self.candidate.take() else { return };
        let in_place = check_in_place(&self.device, &candidate).is_ok();
        let copied = copy_and_check(&self.device, &candidate, &mut self.slab);
        let (ring, page) = (content(&self.ring), content(&self.page));
        let still = Still(&ring);
        let (bytes, reach) = (is_frame(still, &candidate), self.is_in_reach(&page, &candidate));
        assert_eq!(copied.is_ok(), bytes && reach, "{candidate:?}, {copied:?}");
        assert!(in_place || copied.is_err(), "what is refused in place is refused as a copy");
        if copied.is_ok() {
            self.check_copy(still, &candidate);
        }
    }

    /// Point 4, on a page at rest.
    fn is_in_reach(&self, page: &[u8], candidate: &Candidate) -> bool {
        let counter = |at| u64::from_le_bytes(*page[at..].first_chunk().expect("a page is longer"));
        let limit = u128::from(candidate.start) + u128::from(self.device.ring().bytes()) - 32;
        self.device.registers().is_none()
            || (counter(reg::EPOCH) == candidate.epoch
                && u128::from(counter(reg::RESERVED)) <= limit)
    }

    fn check_copy(&self, still: Still<'_>, candidate: &Candidate) {
        let (start, length) = (candidate.start, candidate.trailer.length);
        let body = &self.slab[PAYLOAD_OFFSET..][..padded(length) as usize];
        let in_ring = (start..start + padded(length)).map(|at| still.byte(at));
        assert!(body.iter().copied().eq(in_ring), "the copy is what stands there");
        let slot = self.slab[RECORD_HEADER_BYTES..].first_chunk().expect("a slab is longer");
        let header = FrameHeader(*slot);
        assert!(header.is_stamped() && header.length() == length, "stamped or made: {header:?}");
        if self.honest && self.device.registers().is_some() {
            let truth = self.camera.truth(candidate.sequence).expect("a frame that was written");
            assert_eq!(body[..length as usize], truth.payload, "frame {}", candidate.sequence);
            assert_eq!((candidate.epoch, start), (truth.entry.epoch, truth.entry.start));
        }
    }

    /// When nobody writes any more, everything is read or refused, to the very count.
    fn come_to_rest(&mut self) {
        self.camera.end();
        for _ in 0..POLLS_TO_REST {
            let before = (self.found, self.lost);
            self.poll(1);
            self.copy();
            let idle = before == (self.found, self.lost);
            if self.refused || (idle && self.tail.has_read_all(&self.device)) {
                break;
            }
        }
        if self.refused || !self.tail.is_exact() {
            return;
        }
        assert!(self.tail.has_read_all(&self.device), "it comes to an end: {:?}", self.tail);
        if let Some(expected) = self.tail.expected(&self.device) {
            assert!(!self.honest || expected == self.found + self.lost, "{expected} frames");
        }
    }
}

/// Points 1 to 3, on bytes at rest.
fn is_frame(still: Still<'_>, candidate: &Candidate) -> bool {
    let (start, trailer) = (candidate.start, candidate.trailer);
    let stamped = !candidate.stamped || still.stamp(start) == Some(trailer.length);
    // Where no counter protects the slot, what stands in front of it is as it was found.
    let end = start + still.bytes() - 32;
    let in_front = [12, 8, 4].map(|bytes| still.u32(end - bytes));
    let guarded = candidate.before.is_none_or(|before| {
        let marked = u32::from(before.marker) << 24 | before.length;
        in_front == [before.time.sec, before.time.usec, marked]
    });
    still.frame(start, trailer.length) == Some(trailer.time) && stamped && guarded
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for mode in 0..48 {
        // Poll and copy while the camera writes on, is reset, and has ended.
        seeds.push(vec![
            mode, 5, 0, 4, 7, 9, 0, 4, 6, 90, 1, 11, 4, 9, 31, 0, 4, 10, 6, 9, 0, 11, 4,
        ]);
        // The writer comes by between finding and copying; then scribbles and lies.
        seeds.push(vec![mode, 31, 0, 9, 20, 4, 12, 3, 0, 80, 0, 1, 5, 2, 4, 0, 3, 4, 11, 4, 15]);
        seeds.push(vec![
            mode, 12, 6, 1, 1, 0, 13, 60, 1, 9, 4, 14, 2, 70, 0, 4, 14, 4, 0xC8, 1, 0, 0,
        ]);
    }
    seeds
}
