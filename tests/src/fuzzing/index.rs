//! Entries of an index, headers of records and what stands in them.

use circbuf_driver::archive::{INDEX_ENTRY_BYTES, IndexEntry, SEGMENT_HEADER_BYTES, SegmentHeader};
use circbuf_driver::record::{RECORD_HEADER_BYTES, RecordHeader, RecordKind};
use circbuf_driver::ring::Timestamp;

use super::input::Input;

/// The bytes as they are, and again with the checksum that they ought to have.
pub(super) fn check(bytes: &[u8]) {
    let mut entry = [0; INDEX_ENTRY_BYTES];
    copy(bytes, &mut entry);
    check_entry(&entry);
    put_crc(&mut entry);
    check_entry(&entry);
    let mut head = [0; RECORD_HEADER_BYTES];
    copy(bytes, &mut head);
    check_record(&head);
    put_crc(&mut head);
    check_record(&head);
    let mut block = [0; SEGMENT_HEADER_BYTES];
    copy(bytes, &mut block);
    check_segment(&block);
    put_crc(&mut block);
    check_segment(&block);
    check_fields(Input::of(bytes));
}

fn copy(from: &[u8], to: &mut [u8]) {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
}

/// All three end in the checksum of what stands in front of it.
fn put_crc(bytes: &mut [u8]) {
    let (content, crc) = bytes.split_at_mut(bytes.len() - 4);
    crc.copy_from_slice(&crc_fast::crc32_iscsi(content).to_le_bytes());
}

fn has_crc(bytes: &[u8]) -> bool {
    let (content, crc) = bytes.split_at(bytes.len() - 4);
    crc == crc_fast::crc32_iscsi(content).to_le_bytes()
}

fn check_entry(bytes: &[u8; INDEX_ENTRY_BYTES]) {
    let Ok(entry) = IndexEntry::parse(bytes) else { return };
    assert!(has_crc(bytes), "{entry:?}");
    let encoded = entry.encode();
    assert_eq!(IndexEntry::parse(&encoded), Ok(entry));
    assert_eq!(encoded[..53], bytes[..53], "nothing that has a meaning is lost");
}

fn check_record(bytes: &[u8; RECORD_HEADER_BYTES]) {
    let Ok(header) = RecordHeader::parse(bytes) else { return };
    assert!(has_crc(bytes), "{header:?}");
    assert!(header.record_bytes().is_multiple_of(4096) && header.length > 0, "{header:?}");
    assert!(header.record_bytes() >= RECORD_HEADER_BYTES + header.body_bytes(), "{header:?}");
}

fn check_segment(bytes: &[u8; SEGMENT_HEADER_BYTES]) {
    if let Ok(header) = SegmentHeader::parse(bytes) {
        assert!(has_crc(bytes) && bytes.starts_with(b"CIRCSEGM"), "{header:?}");
    }
}

/// What is encoded is parsed again as it was.
fn check_fields(mut input: Input<'_>) {
    let kind = if input.once_in(2) { RecordKind::Frame } else { RecordKind::Loss };
    let synthesised = input.once_in(2);
    let [sequence, offset, cursor, realtime_ns, monotonic_ns] = [(); 5].map(|()| input.u64());
    let time = Timestamp { sec: input.u32(), usec: input.u32() };
    let (length, body_crc) = (input.u32(), input.u32());
    #[rustfmt::skip]
    let entry = IndexEntry { kind, synthesised, sequence, offset, cursor, realtime_ns, monotonic_ns,
        time, length, body_crc };
    assert_eq!(IndexEntry::parse(&entry.encode()), Ok(entry));
    let length = if kind == RecordKind::Frame { 1 + length % 5000 } else { 32 };
    #[rustfmt::skip]
    let header = RecordHeader { kind, synthesised, camera: body_crc, length, sequence, epoch: offset,
        cursor, realtime_ns, monotonic_ns, lost_before: offset, session: cursor };
    let mut record = vec![0; header.record_bytes()];
    header.seal(&mut record);
    let head = record.first_chunk().expect("a record is longer than its header");
    assert_eq!(RecordHeader::parse(head), Ok(header));
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut entry = [0; INDEX_ENTRY_BYTES];
    (entry[0], entry[48], entry[52]) = (7, 100, 1);
    let mut record = [0; RECORD_HEADER_BYTES];
    record[..8].copy_from_slice(b"CBRR\x01\0\x01\x01");
    (record[12], record[17]) = (100, 0x10);
    let mut loss = record;
    (loss[6], loss[12]) = (2, 32);
    let mut segment = [0; 64];
    segment[..9].copy_from_slice(b"CIRCSEGM\x01");
    vec![entry.to_vec(), record.to_vec(), loss.to_vec(), segment.to_vec()]
}
