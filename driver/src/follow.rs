//! Copying a frame while the FPGA still writes it, so that at its end little is left to copy.
//!
//! `written` says how far the FPGA is, as `complete` says it of whole frames: what lies below is visible.
//! Whether the frame was whole, and stayed so while it was copied, is decided at its end by the same
//! law as ever ([`crate::validate`]). What the archive takes is known by the trailer's time, so that such a
//! frame is summed at its end, from the cache.

use circbuf_abi::ring::GAP_BYTES;

use crate::copy::{Ahead, Stores};
use crate::device::Device;
use crate::record::PAYLOAD_OFFSET;
use crate::slab::Slab;

/// A frame that is being written.
#[derive(Debug)]
pub(crate) struct Following {
    /// Cursor of its start, and the epoch.
    place: (u64, u64),
    slab: Slab,
    ahead: Ahead,
}

impl Following {
    /// A frame that starts at `place`, to be copied into `slab`.
    pub(crate) fn new(place: (u64, u64), slab: Slab) -> Following {
        Following { place, slab, ahead: Ahead::default() }
    }

    /// Whether it is the frame that starts there.
    pub(crate) fn is_at(&self, place: (u64, u64)) -> bool {
        self.place == place
    }

    /// Copies what is written, if that is `least_bytes` more than before. The last chunk and the gap are
    /// left for the end: they say whether it is one.
    pub(crate) fn advance(&mut self, device: &Device, written: u64, least_bytes: usize) {
        let start = self.place.0;
        let ready = written.saturating_sub(start + 2 * GAP_BYTES as u64);
        // A page that lies must not make it more than a frame.
        let room = device.max_slot_bytes().min((self.slab.len() - PAYLOAD_OFFSET) as u64);
        let until = (ready.min(room) & !63) as usize;
        let Ahead { bytes, scan } = &mut self.ahead;
        if until >= *bytes + least_bytes {
            let target = &mut self.slab[PAYLOAD_OFFSET..][*bytes..until];
            device.ring().copy(start + *bytes as u64, target, Stores::Cached, scan);
            *bytes = until;
            // If this is the end, its trailer is on the way from the writer's cache before it is asked for
            // (`benches/latency.rs`, medians of 5 runs: 4.2 notifications for 4.6 where one takes 280 ns,
            // the same where it takes 100).
            let end = start + ready / 32 * 32 + GAP_BYTES as u64;
            std::hint::black_box(device.ring().length_word(end));
        }
    }

    /// The slab and what is in it.
    pub(crate) fn into_parts(self) -> (Slab, Ahead) {
        (self.slab, self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hand_camera::HandCamera;
    use crate::slab::SlabPool;

    #[test]
    fn a_page_that_lies_about_what_is_written_makes_it_copy_no_more_than_a_frame() {
        let mut camera = HandCamera::new(8192, true);
        camera.emit(700);
        let device = camera.device();
        let room = device.max_slot_bytes() as usize;
        for written in (0..2048).chain([u64::MAX / 2, u64::MAX - 31, u64::MAX]) {
            let slab = SlabPool::new(1 << 20).take(PAYLOAD_OFFSET + room).unwrap();
            let mut following = Following::new((0, 0), slab);
            following.advance(&device, written, 64);
            let (_, ahead) = following.into_parts();
            assert!(ahead.bytes <= room && ahead.bytes as u64 <= written, "{written:#x}");
        }
    }
}
