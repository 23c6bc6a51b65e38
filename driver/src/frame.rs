//! A frame that was found whole, copied out of the ring and sealed in its slab.

use std::sync::Arc;

use circbuf_abi::header::HEADER_BYTES;

use crate::record::{
    PAYLOAD_OFFSET, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader, frame_body_bytes,
};
use crate::ring::{FrameHeader, Geometry, Timestamp};
use crate::slab::{Region, Seal, SealedSlab, Slab};

/// A whole frame. Clones share the slab, which is free again when the last of them is dropped.
#[derive(Debug, Clone)]
pub struct Frame {
    slab: SealedSlab,
}

impl Frame {
    /// Seals a slab in which header slot, payload, zeros and trailer are in place. With the body's
    /// checksum it becomes a record: the record header and the zeros behind the body are written.
    pub(crate) fn seal(
        mut slab: Slab,
        header: RecordHeader,
        time: Timestamp,
        body_crc: Option<u32>,
    ) -> Frame {
        if let Some(body_crc) = body_crc {
            let body_end = RECORD_HEADER_BYTES + frame_body_bytes(header.length);
            slab[body_end..header.record_bytes()].fill(0);
            header.seal_with(&mut slab, body_crc);
        }
        Frame { slab: slab.seal(Seal { header, time, is_record: body_crc.is_some() }) }
    }

    /// The whole archive record: aligned to 4096 bytes in memory and in size.
    ///
    /// # Panics
    /// If the frame is no record, because no archive was to take it when it was captured.
    #[must_use]
    pub fn record(&self) -> &[u8] {
        assert!(self.slab.seal().is_record, "captured for an archive");
        let bytes = &self.slab[..self.record_header().record_bytes()];
        debug_assert_eq!(bytes.as_ptr().align_offset(RECORD_ALIGN), 0);
        bytes
    }

    /// The mapping in which the record lies.
    pub(crate) fn region(&self) -> &Arc<Region> {
        self.slab.region()
    }

    /// The record's header.
    #[must_use]
    pub fn record_header(&self) -> &RecordHeader {
        &self.slab.seal().header
    }

    /// The entropy-coded scan with every FF followed by 00.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.slab[PAYLOAD_OFFSET..][..self.record_header().length as usize]
    }

    /// The frame header from the ring, or the one made in its place where the ring has none.
    #[must_use]
    pub fn header(&self) -> FrameHeader {
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&self.slab[RECORD_HEADER_BYTES..PAYLOAD_OFFSET]);
        FrameHeader(bytes)
    }

    /// Size, quality and colour mode as the frame header tells them.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.header().geometry()
    }

    /// Start of the exposure by the camera's clock.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.slab.seal().time
    }

    /// The frame's number: the camera's own where a frame counter tells it, otherwise counted by
    /// the driver, with the frames that it knows or estimates to have missed.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.record_header().sequence
    }
}
