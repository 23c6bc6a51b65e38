//! Whether the bytes of a record are those of a lawful slot, whatever their checksums say.

use circbuf_abi::header::HEADER_BYTES;
use circbuf_abi::ring::{CHUNK_BYTES, TRAILER_BYTES};

use crate::record::{PAYLOAD_OFFSET, RECORD_HEADER_BYTES, RecordHeader, RecordKind};
use crate::ring::{FrameHeader, Trailer, padded};

/// Why a record's body cannot be a slot of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SlotError {
    #[error("the frame header is not stamped")]
    NotStamped,
    #[error("the frame header tells {header} bytes, the record {record}")]
    HeaderLength { header: u32, record: u32 },
    #[error("FF FF stands at byte {at} of the payload")]
    NotStuffed { at: usize },
    #[error("byte {at} of the record should be zero")]
    NotZero { at: usize },
    #[error("the trailer is no trailer")]
    Trailer,
    #[error("the trailer tells {trailer} bytes, the record {record}")]
    TrailerLength { trailer: u32, record: u32 },
}

/// Where the body ends in its record.
pub(super) fn body_end(header: &RecordHeader) -> usize {
    RECORD_HEADER_BYTES + header.body_bytes()
}

/// Checks the body.
pub(super) fn check_body(header: &RecordHeader, record: &[u8]) -> Result<(), SlotError> {
    match header.kind {
        RecordKind::Frame => check_frame(header.length, record),
        RecordKind::Loss => Ok(()),
    }
}

/// Checks the zeros behind the body.
pub(super) fn check_padding(header: &RecordHeader, record: &[u8]) -> Result<(), SlotError> {
    check_zero(record, body_end(header), header.record_bytes())
}

fn check_frame(length: u32, record: &[u8]) -> Result<(), SlotError> {
    let slot: &[u8; HEADER_BYTES] =
        record[RECORD_HEADER_BYTES..].first_chunk().expect("a record is longer");
    let stamp = FrameHeader(*slot);
    if !stamp.is_stamped() {
        return Err(SlotError::NotStamped);
    }
    if stamp.length() != length {
        return Err(SlotError::HeaderLength { header: stamp.length(), record: length });
    }
    let payload_end = PAYLOAD_OFFSET + length as usize;
    check_stuffing(&record[PAYLOAD_OFFSET..payload_end])?;
    let slot_end = PAYLOAD_OFFSET + padded(length) as usize;
    check_zero(record, payload_end, slot_end - TRAILER_BYTES)?;
    let chunk: &[u8; CHUNK_BYTES] = record[..slot_end].last_chunk().expect("a record is longer");
    let trailer = Trailer::parse(chunk);
    if !trailer.is_plausible() {
        return Err(SlotError::Trailer);
    }
    if trailer.length != length {
        return Err(SlotError::TrailerLength { trailer: trailer.length, record: length });
    }
    Ok(())
}

/// As the law of validity has it: other bytes behind an FF are wrong too, but no driver refuses them.
fn check_stuffing(payload: &[u8]) -> Result<(), SlotError> {
    let pair = payload.windows(2).position(|bytes| bytes == [0xFF, 0xFF]);
    pair.map_or(Ok(()), |at| Err(SlotError::NotStuffed { at }))
}

fn check_zero(record: &[u8], from: usize, to: usize) -> Result<(), SlotError> {
    let other = record[from..to].iter().position(|byte| *byte != 0);
    other.map_or(Ok(()), |found| Err(SlotError::NotZero { at: from + found }))
}

#[cfg(test)]
mod tests {
    use super::super::scripted::frame;
    use super::*;
    use crate::slab::SlabPool;

    #[test]
    fn every_way_of_being_no_slot_is_named() {
        let frame = frame(&SlabPool::new(1 << 20), 7, 100);
        let header = *frame.record_header();
        let with = |changes: &[(usize, u8)]| {
            let mut record = frame.record().to_vec();
            changes.iter().for_each(|(at, value)| record[*at] = *value);
            check_body(&header, &record).and_then(|()| check_padding(&header, &record))
        };
        // Payload 128-227, zeros up to 243, trailer 244-255, zeros from 256.
        assert_eq!(with(&[]), Ok(()));
        assert_eq!(with(&[(96 + 26, 0)]), Err(SlotError::NotStamped));
        let (header_length, record) = (101, 100);
        assert_eq!(
            with(&[(96 + 28, 101)]),
            Err(SlotError::HeaderLength { header: header_length, record })
        );
        assert_eq!(with(&[(130, 0xFF), (131, 0)]), Ok(()));
        assert_eq!(with(&[(130, 0xFF), (131, 1)]), Ok(()));
        assert_eq!(with(&[(130, 0xFF), (131, 0xFF)]), Err(SlotError::NotStuffed { at: 2 }));
        assert_eq!(with(&[(227, 0xFF)]), Ok(()));
        assert_eq!(with(&[(228, 1)]), Err(SlotError::NotZero { at: 228 }));
        assert_eq!(with(&[(243, 1)]), Err(SlotError::NotZero { at: 243 }));
        assert_eq!(with(&[(255, 0xFE)]), Err(SlotError::Trailer));
        assert_eq!(with(&[(250, 0x0F), (249, 0xFF)]), Err(SlotError::Trailer));
        assert_eq!(with(&[(252, 99)]), Err(SlotError::TrailerLength { trailer: 99, record }));
        assert_eq!(with(&[(256, 1)]), Err(SlotError::NotZero { at: 256 }));
        assert_eq!(with(&[(4095, 1)]), Err(SlotError::NotZero { at: 4095 }));
    }
}
