//! Register pages and rings of random content: nothing panics, nothing goes on for ever, and the
//! books close.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use circbuf_abi::registers as reg;
use circbuf_driver::capture::{Capture, Captured, Origin};
use circbuf_driver::clock::Moment;
use circbuf_driver::device::Device;
use circbuf_driver::dispatch::Outlet;
use circbuf_driver::slab::SlabPool;
use circbuf_driver::tail::{StartAt, Tail};
use circbuf_tests::{Random, payload};

const RING: u64 = 8192;
const COUNTERS: [usize; 6] =
    [reg::EPOCH, reg::UPDATE, reg::COMPLETE, reg::FRAMES, reg::RESERVED, reg::WRITTEN];

/// A ring and a register page that anything may stand in.
struct Liar {
    random: Random,
    ring: File,
    page: File,
    complete: u64,
    frames: u64,
}

impl Liar {
    fn of(seed: u64) -> Liar {
        let mut random = Random::of(seed);
        let (ring, page) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        ring.set_len(RING).unwrap();
        page.set_len(reg::PAGE_BYTES as u64).unwrap();
        let statics = [
            (reg::MAGIC, reg::MAGIC_VALUE),
            (reg::RING_BYTES, RING),
            (reg::MAX_SLOT_BYTES, 64 + 32 * random.below(RING / 4 / 32 - 1)),
            (reg::VERSION, 1),
            (reg::FLAGS, random.below(2)),
        ];
        let mut liar = Liar { random, ring, page, complete: 0, frames: 0 };
        statics.into_iter().for_each(|(field, value)| liar.put(field, value));
        // Now and then a page that is refused at once.
        if liar.random.once_in(8) {
            let (field, _) = liar.random.one_of(&statics);
            let value = liar.number();
            liar.put(field, value);
        }
        liar
    }

    fn put(&mut self, field: usize, value: u64) {
        self.page.write_all_at(&value.to_le_bytes(), field as u64).unwrap();
    }

    fn number(&mut self) -> u64 {
        let near = [0, 32, RING, RING * 3, 1 << 32, u64::MAX / 2, u64::MAX - 31, u64::MAX];
        match self.random.below(3) {
            0 => self.random.any(),
            1 => self.random.one_of(&near),
            _ => self.random.one_of(&near).wrapping_add(self.random.below(128)).wrapping_sub(64),
        }
    }

    /// Counters that go on as they should, or one that does not.
    fn count(&mut self) {
        if self.random.once_in(12) {
            let (field, value) = (self.random.one_of(&COUNTERS), self.number());
            self.put(field, value);
            return;
        }
        let frames = self.random.below(12);
        self.frames += frames;
        self.complete += frames * 32 * (2 + self.random.below(20));
        let reserved = self.complete + 32 * self.random.below(40);
        let (complete, frames) = (self.complete, self.frames);
        let counters =
            [(reg::RESERVED, reserved), (reg::COMPLETE, complete), (reg::FRAMES, frames)];
        counters.into_iter().for_each(|(field, value)| self.put(field, value));
        if self.random.once_in(20) {
            let epoch = self.random.below(50);
            self.put(reg::EPOCH, epoch);
        }
    }

    /// Chunks that look like the pieces of frames, in any order.
    fn scribble(&mut self) {
        let first = self.random.below(RING / 32);
        for place in first..(first + self.random.below(64)).min(RING / 32) {
            let chunk = self.chunk();
            self.ring.write_all_at(&chunk, place * 32).unwrap();
        }
    }

    fn chunk(&mut self) -> [u8; 32] {
        let length = 1 + self.random.below(700) as u32;
        let marked = (length | 0xFF00_0000).to_le_bytes();
        let mut chunk = [0; 32];
        match self.random.below(6) {
            0 => {}
            1 => chunk.fill(0xFF),
            2 => chunk.copy_from_slice(&payload(u64::from(length), 32)),
            3 => {
                chunk[20] = self.random.any() as u8;
                chunk[28..].copy_from_slice(&marked);
            }
            4 => {
                chunk[26..28].fill(0xFF);
                chunk[28..].copy_from_slice(&length.to_le_bytes());
            }
            _ => chunk.fill_with(|| self.random.any() as u8),
        }
        chunk
    }

    /// A ring of whole frames of 64 bytes each, which lead back lap after lap.
    fn chain_up(&mut self) {
        let mut frame = [0; 64];
        frame[28..32].copy_from_slice(&0xFF00_0010u32.to_le_bytes());
        for place in 0..RING / 64 {
            // Two equal trailers behind each other would be stale.
            frame[24..28].copy_from_slice(&(place as u32).to_le_bytes());
            self.ring.write_all_at(&frame, place * 64).unwrap();
        }
    }

    fn capture(&mut self, with_page: bool) -> Option<Capture> {
        let page: Option<OwnedFd> = with_page.then(|| self.page.try_clone().unwrap().into());
        let device = Arc::new(Device::from_fds(&self.ring, page).ok()?);
        let start = self.random.one_of(&[StartAt::Newest, StartAt::Oldest]);
        let tail = Tail::attach(&device, start).ok()?;
        let outlet = || Outlet::new("every:latest-only".parse().unwrap(), 2).0;
        let pool = SlabPool::new(128 << 10);
        let outlets = (outlet(), Some(outlet()));
        Some(Capture::new(device, tail, pool, Origin::default(), outlets))
    }
}

/// Steps over a lying device; how many frames it was given, and whether it was refused.
fn endure(liar: &mut Liar, with_page: bool) -> (u64, bool) {
    let Some(mut capture) = liar.capture(with_page) else { return (0, true) };
    let mut refused = false;
    let mut step = |capture: &mut Capture| {
        let captured = capture.step(Moment::default(), Moment::default);
        refused |= captured.is_err();
        captured.unwrap_or(Captured::Nothing)
    };
    for _ in 0..60 {
        match liar.random.below(4) {
            0 => liar.scribble(),
            1 => liar.count(),
            _ => drop(step(&mut capture)),
        }
        check(&capture);
    }
    // When the lies have come to rest, everything is read or refused, to the very count.
    let at_rest =
        (0..1000).any(|_| step(&mut capture) == Captured::Nothing && capture.is_drained());
    assert!(at_rest || refused, "it comes to an end: {:?}", capture.tail());
    let books = capture.books();
    if let (Some(expected), false) = (capture.expected(), refused) {
        assert_eq!(expected, books.detected + books.overrun);
    }
    (books.passed, refused)
}

fn check(capture: &Capture) {
    let books = capture.books();
    assert_eq!(books.detected, books.passed + books.torn + books.corrupt);
    assert!(books.proc.closes() && books.arch.closes());
}

#[test]
fn a_register_page_may_say_anything() {
    let (mut frames, mut refused) = (0, 0);
    for seed in 0..3000 {
        println!("seed {seed}");
        let mut liar = Liar::of(seed);
        (0..8).for_each(|_| liar.scribble());
        if seed % 5 == 0 {
            liar.chain_up();
        }
        liar.count();
        let (passed, was_refused) = endure(&mut liar, true);
        frames += passed;
        refused += u64::from(was_refused);
    }
    // Some lies are told apart, and some of what is there is a frame.
    assert!(frames > 300 && (300..2900).contains(&refused), "{frames} frames, {refused} refused");
}

#[test]
fn a_ring_without_registers_may_hold_anything() {
    let mut frames = 0;
    for seed in 0..1000 {
        println!("seed {seed}");
        let mut liar = Liar::of(seed);
        (0..8).for_each(|_| liar.scribble());
        if seed % 5 == 0 {
            liar.chain_up();
        }
        frames += endure(&mut liar, false).0;
    }
    assert!(frames > 300, "{frames} frames");
}
