//! A pointer that moves at the ends of frames and wraps, as a camera's node has: made a cursor, and a bound
//! for the writer.
//!
//! Where such a pointer stands says nothing about how often it has been round since it was looked at
//! before. Only time does: the bus moves no more than so many bytes a second. With the pointer at P, the
//! writer is in front of P + `in_work`. As long as
//!
//! > time from before one look to behind the next x bus rate < ring - `in_work`
//!
//! the pointer moved by less than a ring between them, and by how much is known. At equality a lap looks
//! like standing still (the model in `tests/tests/model` finds that). A look that came later proves
//! nothing: it begins a new *epoch*, and whatever was known of the one before is gone. So does a pointer
//! that moved more than the bus can have moved: somebody reset the camera. A look therefore has to come
//! in time even when nothing happens; every look that does counts as the one before for the next.
//!
//! `in_work` is two of the largest slots: that of the frame that is being written, and that of one whose
//! interrupt has not been served yet, because it came a moment ago or is served together with the
//! next one's (a channel has one pending bit). That the handler is not later than that is assumed; where
//! it is, the law's fourth point promises less than it says.
//!
//! Here, and nowhere else in the driver's stages, time comes in: with every look at the pointer, told by
//! whoever looked.

use std::fmt;
use std::io;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use circbuf_abi::ring::{CHUNK_BYTES, NC353_RING_BYTES};
use serde::Serialize;

use crate::registers::Reach;

/// Where the pointer stood at some moment between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Bytes from the beginning of the ring, a multiple of 32 up to the ring's size, which means 0.
    pub pointer: u64,
    /// Nanoseconds by a clock that never runs backwards, read before the pointer.
    pub before_ns: u64,
    /// By the same clock, read behind it.
    pub after_ns: u64,
}

/// Why a pointer cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum PointerError {
    /// It cannot be read.
    #[error("its write pointer cannot be read: {0}; is the camera still there?")]
    Read(#[from] io::Error),
    /// It stands where no frame can end.
    #[error(
        "its write pointer is {pointer:#x}, no multiple of 32 in a ring of {ring_bytes:#x} bytes"
    )]
    Value {
        /// As it was read.
        pointer: u64,
        /// Of the ring.
        ring_bytes: u64,
    },
}

/// The pointer as a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Number of times that it was lost sight of.
    pub(crate) epoch: u64,
    pub(crate) cursor: u64,
    pub(crate) before_ns: u64,
    pub(crate) after_ns: u64,
}

/// A pointer that wraps, and what is known of it.
#[derive(Debug)]
pub struct FramePointer {
    ring_bytes: u64,
    in_work_bytes: u64,
    bus_bytes_per_s: u64,
    watch: Mutex<Watch>,
}

/// Reads the pointer.
type Look = Box<dyn FnMut() -> io::Result<Sighting> + Send>;

struct Watch {
    look: Look,
    seen: Seen,
    lost: LostSight,
}

/// How often a pointer was lost sight of, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LostSight {
    /// It was looked at too late to know how often it had been round.
    pub late_looks: u64,
    /// It moved further than the bus can have moved it, or what was in front of it is gone: the camera
    /// was reset.
    pub resets: u64,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Watch { seen, lost, .. } = self;
        f.debug_struct("Watch").field("seen", seen).field("lost", lost).finish_non_exhaustive()
    }
}

/// The most that a camera's bus moves, in bytes a second, by the size of its ring: of a 353 with a bus
/// master, which no firmware has (without, it is 80 MB/s); of others 8 bytes at 150 MHz, the width and the
/// clock of a 393's port.
#[must_use]
pub const fn bus_bytes_per_s(ring_bytes: u64) -> u64 {
    match ring_bytes {
        NC353_RING_BYTES => 400_000_000,
        _ => 1_200_000_000,
    }
}

impl FramePointer {
    /// Follows what `look` reads: the pointer of a ring of so many bytes, at least four times
    /// `max_slot_bytes`.
    ///
    /// # Errors
    /// If it cannot be read, or is no pointer into this ring.
    pub fn new(
        ring_bytes: u64,
        max_slot_bytes: u64,
        look: impl FnMut() -> io::Result<Sighting> + Send + 'static,
    ) -> Result<FramePointer, PointerError> {
        let mut look: Look = Box::new(look);
        let first = sight(&mut look, ring_bytes)?;
        let Sighting { pointer, before_ns, after_ns } = first;
        // A lap from 0, so that what lies in front of the pointer has cursors, too.
        let seen = Seen { epoch: 0, cursor: ring_bytes + pointer, before_ns, after_ns };
        Ok(FramePointer {
            ring_bytes,
            in_work_bytes: 2 * max_slot_bytes,
            bus_bytes_per_s: bus_bytes_per_s(ring_bytes),
            watch: Mutex::new(Watch { look, seen, lost: LostSight::default() }),
        })
    }

    /// Believes in a bus of so many bytes a second, at least 1: the slower, the later a look may come.
    pub fn set_bus_rate(&mut self, bytes_per_s: u64) {
        self.bus_bytes_per_s = bytes_per_s.max(1);
    }

    /// The most that the bus can have moved in so many nanoseconds, in bytes.
    pub(crate) fn movable_bytes(&self, ns: u64) -> u64 {
        let bytes = u128::from(ns) * u128::from(self.bus_bytes_per_s) / 1_000_000_000 + 1;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// How long after a look the next one has to be done, in nanoseconds.
    #[must_use]
    pub fn window_ns(&self) -> u64 {
        let bytes = u128::from(self.ring_bytes - self.in_work_bytes);
        let ns = bytes * 1_000_000_000 / u128::from(self.bus_bytes_per_s);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// Looks where the pointer is. What the caller loads from the ring afterwards is not older.
    ///
    /// # Errors
    /// If it cannot be read, or is no pointer into the ring.
    pub(crate) fn look(&self) -> Result<Seen, PointerError> {
        let mut watch = self.watch();
        let sighting = sight(&mut watch.look, self.ring_bytes)?;
        let before = watch.seen;
        watch.seen = self.extend(before, sighting);
        if watch.seen.epoch != before.epoch {
            let is_late = !self.is_in_time(before, sighting);
            watch.lost.late_looks += u64::from(is_late);
            watch.lost.resets += u64::from(!is_late);
        }
        fence(Ordering::Acquire);
        Ok(watch.seen)
    }

    /// Begins a new epoch: somebody found that the camera was reset.
    pub(crate) fn lose_sight(&self) {
        let mut watch = self.watch();
        let Seen { epoch, cursor, .. } = watch.seen;
        watch.seen = Seen { epoch: epoch + 1, cursor: cursor + self.ring_bytes, ..watch.seen };
        watch.lost.resets += 1;
    }

    /// How often it was lost sight of so far.
    #[must_use]
    pub fn lost_sight(&self) -> LostSight {
        self.watch().lost
    }

    /// Where it was seen last.
    pub(crate) fn seen(&self) -> Seen {
        self.watch().seen
    }

    /// How far the writer may have come. Whatever this thread loaded from the ring before the call was
    /// loaded before the writer reached anything at or above `reserved`. In no epoch at all if the pointer
    /// cannot be read.
    #[must_use]
    pub fn reach(&self) -> Reach {
        // Keeps the caller's loads above the look, as behind a page's.
        fence(Ordering::Acquire);
        match self.look() {
            Ok(seen) => self.reach_at(seen),
            Err(_) => Reach { epoch: u64::MAX, reserved: u64::MAX },
        }
    }

    /// How far the writer may have come when the pointer was there.
    pub(crate) fn reach_at(&self, seen: Seen) -> Reach {
        Reach { epoch: seen.epoch, reserved: seen.cursor + self.in_work_bytes }
    }

    /// The law of this file.
    fn extend(&self, last: Seen, now: Sighting) -> Seen {
        let Sighting { pointer, before_ns, after_ns } = now;
        let offset = last.cursor % self.ring_bytes;
        let moved = (pointer + self.ring_bytes - offset) % self.ring_bytes;
        let movable = self.movable_bytes(after_ns.saturating_sub(last.before_ns));
        match self.is_in_time(last, now) && moved <= movable + self.in_work_bytes {
            true => Seen { cursor: last.cursor + moved, before_ns, after_ns, ..last },
            false => {
                let cursor = last.cursor + self.ring_bytes + moved;
                Seen { epoch: last.epoch + 1, cursor, before_ns, after_ns }
            }
        }
    }

    fn is_in_time(&self, last: Seen, now: Sighting) -> bool {
        let movable = self.movable_bytes(now.after_ns.saturating_sub(last.before_ns));
        movable < self.ring_bytes - self.in_work_bytes
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        // Whatever panicked in a look had changed nothing.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look, with the ring's size for 0.
fn sight(look: &mut Look, ring_bytes: u64) -> Result<Sighting, PointerError> {
    let sighting = look()?;
    let pointer = sighting.pointer;
    if pointer > ring_bytes || !pointer.is_multiple_of(CHUNK_BYTES as u64) {
        return Err(PointerError::Value { pointer, ring_bytes });
    }
    Ok(Sighting { pointer: pointer % ring_bytes, ..sighting })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const RING: u64 = 4096;
    const SLOT: u64 = 512;

    /// A pointer that stands where, and when, a test says; a byte a nanosecond.
    fn pointer() -> (FramePointer, Arc<Mutex<Sighting>>) {
        let script = Arc::new(Mutex::new(Sighting { pointer: 0, before_ns: 0, after_ns: 0 }));
        let told = Arc::clone(&script);
        let mut pointer = FramePointer::new(RING, SLOT, move || Ok(*told.lock().unwrap())).unwrap();
        pointer.set_bus_rate(1_000_000_000);
        (pointer, script)
    }

    fn at(pointer: u64, ns: u64) -> Sighting {
        Sighting { pointer, before_ns: ns, after_ns: ns }
    }

    /// Epochs and cursors, less a lap, of these sightings.
    fn extended<const N: usize>(sightings: [Sighting; N]) -> [(u64, u64); N] {
        let (pointer, script) = pointer();
        sightings.map(|sighting| {
            *script.lock().unwrap() = sighting;
            let seen = pointer.look().unwrap();
            (seen.epoch, seen.cursor - RING)
        })
    }

    #[test]
    fn a_pointer_that_wraps_becomes_a_cursor() {
        let seen = extended([at(0, 0), at(2048, 2048), at(4064, 4064), at(64, 4160), at(0, 7200)]);
        assert_eq!(seen, [(0, 0), (0, 2048), (0, 4064), (0, 4160), (0, 8192)]);
    }

    #[test]
    fn the_size_of_the_ring_is_the_353s_name_for_its_beginning() {
        let seen = extended([at(2048, 2048), at(4096, 4200), at(0, 4300), at(32, 4400)]);
        assert_eq!(seen, [(0, 2048), (0, 4096), (0, 4096), (0, 4128)]);
    }

    #[test]
    fn a_look_is_believed_strictly_within_the_window() {
        // With one byte more than can have been moved for what is rounded.
        let window = RING - 2 * SLOT;
        assert_eq!(extended([at(0, window - 2)]), [(0, 0)]);
        assert_eq!(extended([at(0, window - 1)]), [(1, RING)]);
        assert_eq!(extended([at(0, u64::MAX)]), [(1, RING)]);
        // The time counts from before one look to behind the next.
        let slow = Sighting { pointer: 0, before_ns: 100, after_ns: window - 1 };
        let then = Sighting { pointer: 0, before_ns: 200, after_ns: window + 98 };
        assert_eq!(extended([slow, then]), [(1, RING), (1, RING)]);
        assert_eq!(extended([at(0, 100), then]), [(0, 0), (0, 0)]);
    }

    #[test]
    fn more_than_the_bus_can_move_was_a_reset() {
        assert_eq!(extended([at(1024 + 96, 100)]), [(0, 1024 + 96)]);
        assert_eq!(extended([at(1024 + 128, 100)]), [(1, RING + 1024 + 128)]);
        assert_eq!(extended([at(1024, 100), at(0, 200)]), [(0, 1024), (1, 2 * RING)]);
    }

    #[test]
    fn it_is_told_why_it_was_lost_sight_of() {
        let (pointer, script) = pointer();
        let lost = |sighting| {
            *script.lock().unwrap() = sighting;
            pointer.look().unwrap();
            let LostSight { late_looks, resets } = pointer.lost_sight();
            (late_looks, resets)
        };
        assert_eq!(lost(at(32, 100)), (0, 0));
        assert_eq!(lost(at(32, 100 + RING)), (1, 0));
        assert_eq!(lost(at(0, 110 + RING)), (1, 1));
        pointer.lose_sight();
        assert_eq!(pointer.lost_sight(), LostSight { late_looks: 1, resets: 2 });
    }

    #[test]
    fn the_writer_may_be_two_slots_ahead() {
        let (pointer, script) = pointer();
        *script.lock().unwrap() = at(320, 400);
        let reserved = RING + 320 + 2 * SLOT;
        assert_eq!(pointer.reach(), Reach { epoch: 0, reserved });
    }

    #[test]
    fn a_pointer_that_cannot_be_one_is_told() {
        let (pointer, script) = pointer();
        for wrong in [RING + 32, 33, u64::MAX] {
            *script.lock().unwrap() = at(wrong, 100);
            assert_eq!(pointer.reach().epoch, u64::MAX);
            let told = pointer.look().unwrap_err().to_string();
            assert!(told.contains(&format!("{wrong:#x}")), "{told}");
        }
        assert!(FramePointer::new(RING, SLOT, || Err(io::ErrorKind::NotFound.into())).is_err());
    }
}
