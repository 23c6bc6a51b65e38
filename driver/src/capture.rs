//! The capturing stage: one bounded step takes one frame from the ring to the queues.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};

use crate::checksum::Checksum;
use crate::clock::Moment;
use crate::copy::{Ahead, Manner, Stores};
use crate::device::{Device, DeviceError};
use crate::dispatch::Outlet;
use crate::follow::Following;
use crate::frame::Frame;
use crate::loss::{Loss, LossReason};
use crate::record::{RecordHeader, RecordKind, frame_body_bytes, record_bytes};
use crate::slab::{Slab, SlabPool};
use crate::stats::{Account, Books, SharedBooks};
use crate::tail::{Step, Tail};
use crate::validate::{Candidate, Refused, check_in_place, copy_in_manner};

/// Who the frames belong to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin {
    /// Number of the camera, from 0.
    pub camera: u32,
    /// Number drawn for the session.
    pub session: u64,
}

/// The capturing stage and all that it owns.
#[derive(Debug)]
pub struct Capture {
    pub(crate) device: Arc<Device>,
    tail: Tail,
    pool: SlabPool,
    origin: Origin,
    pub(crate) proc: Outlet,
    pub(crate) arch: Option<Outlet>,
    pub(crate) books: Arc<SharedBooks>,
    lost_before: u64,
    /// Before the step that is being done.
    headroom_bytes: Option<u64>,
    credit: Option<Arc<AtomicU64>>,
    hurries: bool,
    /// The frame that the device is writing.
    following: Option<Following>,
    /// What has to be written more before it is copied.
    follow_bytes: u64,
    /// Of the last frame, for which a slab would be large enough for the next one.
    record_bytes: usize,
}

/// Of 1, 2 and 4 KiB the one with which a frame lay in its slab soonest (`benches/latency.rs`).
const FOLLOW_BYTES: u64 = 1 << 10;

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Captured {
    /// There was nothing to do.
    Nothing,
    /// A frame was found whole.
    Frame,
    /// A frame was refused, or frames are missing.
    Loss,
}

impl Capture {
    /// Joins a tail to its outlets. With a `credit` the stage waits for room in the queues, and tells
    /// the camera by it how far the ring has been read: the camera must wait as well, as none does.
    #[must_use]
    pub fn new(
        device: Arc<Device>,
        tail: Tail,
        pool: SlabPool,
        origin: Origin,
        (proc, arch): (Outlet, Option<Outlet>),
    ) -> Capture {
        let books = Arc::<SharedBooks>::default();
        books.enter().note_exact(tail.is_exact());
        Capture {
            device,
            tail,
            pool,
            origin,
            proc,
            arch,
            books,
            lost_before: 0,
            headroom_bytes: None,
            credit: None,
            hurries: false,
            following: None,
            follow_bytes: FOLLOW_BYTES,
            record_bytes: 0,
        }
    }

    /// How many bytes the device must have written more before they are copied, while their frame is not
    /// complete: the fewer, the less is left to copy at its end, and the more often memory is shared with
    /// the writer. 1 KiB by default; a multiple of 64.
    pub fn set_follow_bytes(&mut self, bytes: u64) {
        self.follow_bytes = bytes.next_multiple_of(64).max(64);
    }

    /// Whether a slab holds a part of the frame that the device is writing.
    #[must_use]
    pub fn is_following(&self) -> bool {
        self.following.is_some()
    }

    /// Makes the camera wait: see [`Capture::new`].
    pub fn set_credit(&mut self, credit: Arc<AtomicU64>) {
        credit.store(self.tail.cursor(), Ordering::Release);
        self.credit = Some(credit);
    }

    /// Frames that the device has completed and this stage is answerable for: see
    /// [`Tail::expected`].
    #[must_use]
    pub fn expected(&self) -> Option<u64> {
        self.tail.expected(&self.device)
    }

    /// The reading end of the ring.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The books, locked: whoever takes frames from the outlets' queues enters in them what became of
    /// them (see [`Account`]), as [`crate::pipeline`] does on its threads.
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.open()
    }

    /// One step at the moment `now`; `later` is asked for the time once the frame is in the queues, and
    /// again once a processor that works on this thread is done with it.
    ///
    /// # Errors
    /// If the device's counters contradict themselves, or are gone.
    pub fn step(
        &mut self,
        now: Moment,
        later: impl Fn() -> Moment,
    ) -> Result<Captured, DeviceError> {
        if self.waits() && !self.has_room() {
            // What was copied ahead may hold the slab that is wanted.
            self.following = None;
            self.tail.glance(&self.device);
            self.device.release(self.tail.cursor(), true);
            return Ok(Captured::Nothing);
        }
        self.headroom_bytes = self.tail.headroom_bytes(&self.device);
        // A page that was truncated reads as zeros, which contradict all that it told before.
        let step = self.tail.poll(&self.device);
        let captured = match step.or_else(|error| self.device.check().and(Err(error)))? {
            Step::Idle => {
                self.follow();
                Captured::Nothing
            }
            Step::Lost(loss) => self.lose(loss),
            Step::Frame(candidate) => self.take(&candidate, now, later),
        };
        if let Some(credit) = &self.credit {
            credit.store(self.tail.cursor(), Ordering::Release);
            self.device.release(self.tail.cursor(), captured == Captured::Nothing);
        }
        Ok(captured)
    }

    /// Whether the device has come to the end of a frame that is complete in a moment, of which nobody
    /// will tell.
    pub(crate) fn is_settling(&self) -> bool {
        self.tail.is_settling()
    }

    /// Whether nothing waits in the ring, also if the stage waits for room in the queues.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.tail.has_read_all(&self.device)
    }

    /// Whether the stage waits for room in the queues rather than lose frames: where the camera waits
    /// as well, and where it has ended or is taken for dead, so that nothing is overwritten any more. Where
    /// that is not so after all, the law refuses what was, and it is counted.
    fn waits(&self) -> bool {
        let is_over = self.tail.is_frozen() || self.device.has_ended();
        self.credit.is_some() || (is_over && !self.hurries)
    }

    /// Goes on without the device, which has failed: what it had completed is still in the ring.
    pub(crate) fn outlive_device(&mut self) {
        self.tail.freeze(&self.device);
    }

    /// Enters as lost what the device had completed when it was last seen, and cannot be found.
    pub(crate) fn give_up(&mut self) {
        if let Step::Lost(loss) = self.tail.give_up() {
            self.lose(loss);
        }
    }

    /// Waits no longer for consumers because the camera has ended: one of them hangs, and the others
    /// want the rest.
    pub fn hurry(&mut self) {
        self.hurries = true;
    }

    fn has_room(&self) -> bool {
        self.proc.has_room()
            && self.arch.as_ref().is_none_or(Outlet::has_room)
            && self.pool.has_room_or_never(self.device.record_bytes_max())
    }

    fn take(&mut self, candidate: &Candidate, now: Moment, later: impl Fn() -> Moment) -> Captured {
        let (length, time) = (candidate.trailer.length, candidate.trailer.time);
        let record_bytes = record_bytes(frame_body_bytes(length));
        let Some((mut slab, ahead)) = self.slab(candidate, record_bytes) else {
            return self.pass_without_slab(candidate);
        };
        self.record_bytes = record_bytes;
        let body_crc = match self.copy(candidate, &mut slab, ahead) {
            Ok(body_crc) => body_crc,
            Err(refused) => {
                return self.lose(refused_one(candidate, refused, self.tail.is_exact()));
            }
        };
        let header = RecordHeader {
            kind: RecordKind::Frame,
            synthesised: !candidate.stamped,
            camera: self.origin.camera,
            length,
            sequence: candidate.sequence,
            epoch: candidate.epoch,
            cursor: candidate.start,
            realtime_ns: now.realtime_ns,
            monotonic_ns: now.monotonic_ns,
            lost_before: std::mem::take(&mut self.lost_before),
            session: self.origin.session,
        };
        self.pass(Frame::seal(slab, header, time, body_crc), now, later);
        Captured::Frame
    }

    /// Copies what the device has written of the frame that is not complete yet.
    fn follow(&mut self) {
        let (Some(place), Some(registers)) = (self.tail.upcoming(), self.device.registers()) else {
            return;
        };
        let Some(written) = registers.written(place.1) else { return };
        if written < place.0 + self.follow_bytes || self.record_bytes == 0 {
            return;
        }
        if self.following.as_ref().is_none_or(|following| !following.is_at(place)) {
            self.following = None;
            let slab = self.pool.take(self.record_bytes);
            self.following = slab.map(|slab| Following::new(place, slab));
        }
        if let Some(following) = &mut self.following {
            following.advance(&self.device, written, self.follow_bytes as usize);
        }
    }

    /// Copies and checks, and sums what the archive will take.
    fn copy(
        &self,
        candidate: &Candidate,
        slab: &mut Slab,
        ahead: Ahead,
    ) -> Result<Option<u32>, Refused> {
        let time = candidate.trailer.time;
        let by_proc = self.proc.would_take(time);
        let by_arch = self.arch.as_ref().is_some_and(|arch| arch.would_take(time));
        let mut checksum = by_arch.then(Checksum::new);
        let stores = if by_arch && !by_proc { Stores::Streaming } else { Stores::Cached };
        let manner = Manner { stores, checksum: checksum.as_mut(), ahead };
        copy_in_manner(&self.device, candidate, slab, manner)?;
        Ok(checksum.map(Checksum::finish))
    }

    /// The slab in which the candidate was followed, if it fits, or another one; if need be at the price
    /// of the frames that wait longest in the fuller queue: a consumer that hangs must not keep all slabs
    /// from the other one.
    fn slab(&mut self, candidate: &Candidate, record_bytes: usize) -> Option<(Slab, Ahead)> {
        let place = (candidate.start, candidate.epoch);
        let followed = self.following.take().filter(|following| following.is_at(place));
        let followed = followed.map(Following::into_parts);
        if let Some(parts) = followed.filter(|(slab, _)| slab.len() >= record_bytes) {
            return Some(parts);
        }
        loop {
            let slab = self.pool.take(record_bytes);
            if slab.is_some() || !self.give_way() {
                return slab.map(|slab| (slab, Ahead::default()));
            }
        }
    }

    fn give_way(&mut self) -> bool {
        let (outlet, is_arch) = match &mut self.arch {
            Some(arch) if arch.waiting() > self.proc.waiting() => (arch, true),
            _ => (&mut self.proc, false),
        };
        let gave_way = outlet.give_way();
        if gave_way {
            let mut books = self.books.enter();
            let account = if is_arch { &mut books.arch } else { &mut books.proc };
            account.give_up_slabs(1);
        }
        gave_way
    }

    /// Enters a frame as in flight and offers it. The archive gets it before a processor that works on
    /// this thread, one that waits for it on another thread before the archive.
    fn pass(&mut self, frame: Frame, now: Moment, later: impl Fn() -> Moment) {
        let time = frame.time();
        let proc_takes = self.proc.takes(time);
        let arch_takes = self.arch.as_mut().is_some_and(|arch| arch.takes(time));
        let mut books = self.books.enter();
        books.ring_passed();
        books.note_headroom(self.headroom_bytes);
        books.note_exact(self.tail.is_exact());
        books.proc.expect(proc_takes);
        if self.arch.is_some() {
            books.arch.expect(arch_takes);
        }
        drop(books);
        let for_arch = arch_takes.then(|| frame.clone());
        let mut for_proc = proc_takes.then_some(frame);
        if !self.proc.is_inline() {
            self.offer_to_proc(for_proc.take(), now);
        }
        if let (Some(arch), Some(frame)) = (&mut self.arch, for_arch) {
            let dropped = arch.offer(frame, now).dropped;
            if dropped > 0 {
                self.books.enter().arch.drop_queued(dropped);
            }
        }
        let since = |earlier: Moment| later().monotonic_ns.saturating_sub(earlier.monotonic_ns);
        self.books.tail_latency.record(since(now));
        if for_proc.is_some() {
            self.offer_to_proc(for_proc, now);
            self.books.proc.latency.record(since(now));
        }
    }

    fn offer_to_proc(&mut self, frame: Option<Frame>, now: Moment) {
        let Some(frame) = frame else { return };
        let offered = self.proc.offer(frame, now);
        if offered.done {
            self.books.proc.deliver(1);
        }
        if offered.dropped > 0 {
            self.books.enter().proc.drop_queued(offered.dropped);
        }
    }

    fn pass_without_slab(&mut self, candidate: &Candidate) -> Captured {
        if let Err(refused) = check_in_place(&self.device, candidate) {
            return self.lose(refused_one(candidate, refused, self.tail.is_exact()));
        }
        let loss = one(candidate, LossReason::NoSlab, true);
        self.lost_before += 1;
        let mut books = self.books.enter();
        books.ring_passed();
        books.note_headroom(self.headroom_bytes);
        books.note_exact(self.tail.is_exact());
        miss(&mut self.proc, &mut books.proc, loss);
        if let Some(arch) = &mut self.arch {
            miss(arch, &mut books.arch, loss);
        }
        Captured::Loss
    }

    fn lose(&mut self, loss: Loss) -> Captured {
        self.lost_before += loss.count;
        let mut books = self.books.enter();
        books.ring_lost(loss.reason, loss.count);
        books.note_headroom(self.headroom_bytes);
        books.note_exact(self.tail.is_exact());
        drop(books);
        self.proc.lose(loss);
        if let Some(arch) = &mut self.arch {
            arch.lose(loss);
        }
        Captured::Loss
    }
}

/// A loss of the candidate alone.
fn one(candidate: &Candidate, reason: LossReason, exact: bool) -> Loss {
    let time = Some(candidate.trailer.time);
    let sequence = candidate.sequence;
    Loss { reason, refusal: None, sequence, count: 1, exact, first: time, last: time }
}

/// The loss of a candidate that the law refused.
fn refused_one(candidate: &Candidate, refused: Refused, exact: bool) -> Loss {
    Loss { refusal: Some(refused.refusal), ..one(candidate, refused.reason, exact) }
}

/// Enters a frame that could not be copied.
fn miss(outlet: &mut Outlet, account: &mut Account, loss: Loss) {
    let takes = loss.first.is_some_and(|time| outlet.takes(time));
    account.expect(takes);
    if takes {
        account.give_up_slabs(1);
        outlet.lose(loss);
    }
}
