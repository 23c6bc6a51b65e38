//! Segments of whole, damaged and half-written records, with indexes that may lie: read, verified
//! and mended.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use circbuf_driver::archive::{
    ArchiveReader, Found, INDEX_ENTRY_BYTES, IndexEntry, RecoverReport, SEGMENT_HEADER_BYTES,
    VerifyReport, recover, verify,
};
use circbuf_driver::record::{
    LOSS_BODY_BYTES, PAYLOAD_OFFSET, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader, RecordKind,
};
use circbuf_driver::ring::{FrameHeader, Geometry, Timestamp, padded};

use super::input::Input;
use super::scratch;

const SESSION: u64 = 0x5E55_1017;
const STEPS_MAX: usize = 24;
const SEGMENT_BYTES_MAX: usize = 1 << 18;

/// Files by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Byte 0: how many segments, and whether what follows are their bytes or a program.
pub(super) fn check(bytes: &[u8]) {
    let mut input = Input::of(bytes);
    let mode = input.u8();
    let mut files = Files::new();
    if mode & 0x80 != 0 {
        let segment = input.take(RECORD_ALIGN * 16).to_vec();
        files.insert("seg-000000.cbs".into(), segment);
        files.insert("seg-000000.idx".into(), input.rest().to_vec());
    } else {
        (0..1 + mode % 3).for_each(|number| {
            let mut segment = Segment::begin(u32::from(number), &mut input);
            (0..STEPS_MAX).for_each(|_| segment.step(&mut input));
            segment.finish(&mut files);
        });
    }
    scratch::with_dir(|dir| check_archive(dir, &files));
}

/// A segment that is being made, and its index.
struct Segment {
    number: u32,
    bytes: Vec<u8>,
    index: Vec<u8>,
    has_index: bool,
    sequence: u64,
    ended: bool,
}

impl Segment {
    fn begin(number: u32, input: &mut Input<'_>) -> Segment {
        let kind = input.u8();
        // Now and then the last number that a name can tell.
        let number = if kind == 0xFE { u32::MAX } else { number };
        let told = if kind & 0x0C == 0x0C { number.wrapping_add(1) } else { number };
        let mut bytes = header_block(told, SESSION + u64::from(kind & 0x30 == 0x30));
        if kind & 3 == 3 {
            bytes[usize::from(input.u16()) % RECORD_ALIGN] ^= input.u8();
        }
        let has_index = kind & 0x40 == 0;
        let sequence = u64::from(number) * 100;
        Segment { number, bytes, index: Vec::new(), has_index, sequence, ended: false }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        if self.ended || input.is_empty() || self.bytes.len() > SEGMENT_BYTES_MAX {
            return;
        }
        match input.u8() % 12 {
            0..3 => self.frame(input),
            3 => self.loss(input),
            4 => self.bytes.extend(vec![0; RECORD_ALIGN * usize::from(input.u8() % 5)]),
            5 => {
                let count = usize::from(input.u8());
                self.bytes.extend(input.take(count));
                self.bytes.resize(self.bytes.len().next_multiple_of(RECORD_ALIGN), 0xEE);
            }
            6 => self.flip(input),
            7 => self.cut(usize::from(input.u16())),
            8 => self.index.extend(entry(input).encode()),
            9 => self.index.truncate(usize::from(input.u16())),
            10 => {
                let count = usize::from(input.u8());
                self.index.extend(input.take(count));
            }
            _ => self.ended = true,
        }
    }

    /// A whole frame record and, if its number is even, its entry.
    fn frame(&mut self, input: &mut Input<'_>) {
        let (length, fill) = (1 + u32::from(input.u16() % 9000), input.u8());
        self.sequence += 1 + u64::from(fill & 1);
        let mut header = header(self.sequence, RecordKind::Frame, length);
        if fill == 0xFB {
            header.session ^= 1;
        }
        let mut record = vec![0; header.record_bytes()];
        let geometry = Geometry { width: 8, height: 8, quality2: 80, color_mode: 14 };
        record[RECORD_HEADER_BYTES..PAYLOAD_OFFSET]
            .copy_from_slice(&FrameHeader::synthesise(geometry, length).0);
        record[PAYLOAD_OFFSET..][..length as usize].fill(fill);
        let end = PAYLOAD_OFFSET + padded(length) as usize;
        record[end - 4..end].copy_from_slice(&(length | 0xFF00_0000).to_le_bytes());
        self.seal(&header, &mut record, fill & 4 == 0);
    }

    fn loss(&mut self, input: &mut Input<'_>) {
        let header = header(self.sequence + 1, RecordKind::Loss, LOSS_BODY_BYTES as u32);
        let mut record = vec![0; header.record_bytes()];
        let body = &mut record[RECORD_HEADER_BYTES..][..LOSS_BODY_BYTES];
        body[0] = 1 + input.u8() % 8;
        body[4] = input.u8() % 3;
        body[8..16].copy_from_slice(&input.number().to_le_bytes());
        body[20] = input.u8();
        self.seal(&header, &mut record, true);
    }

    fn seal(&mut self, header: &RecordHeader, record: &mut [u8], indexed: bool) {
        header.seal(record);
        if indexed {
            let body_crc = u32::from_le_bytes(*record[88..].first_chunk().expect("it is longer"));
            let offset = self.bytes.len() as u64;
            self.index.extend(entry_of(header, offset, body_crc).encode());
        }
        self.bytes.extend(&*record);
    }

    fn flip(&mut self, input: &mut Input<'_>) {
        let at = input.u32() as usize % self.bytes.len();
        self.bytes[at] ^= input.u8();
    }

    /// Ends the segment so many bytes before its end.
    fn cut(&mut self, bytes: usize) {
        self.bytes.truncate(self.bytes.len().saturating_sub(bytes));
        self.ended = true;
    }

    fn finish(self, files: &mut Files) {
        let name = |ending: &str| format!("seg-{:06}.{ending}", self.number);
        if self.has_index {
            files.insert(name("idx"), self.index);
        }
        files.insert(name("cbs"), self.bytes);
    }
}

fn header_block(number: u32, session: u64) -> Vec<u8> {
    let mut block = vec![0; SEGMENT_HEADER_BYTES];
    block[..8].copy_from_slice(b"CIRCSEGM");
    block[8] = 1;
    block[12..16].copy_from_slice(&number.to_le_bytes());
    block[40..48].copy_from_slice(&session.to_le_bytes());
    let crc = crc_fast::crc32_iscsi(&block[..SEGMENT_HEADER_BYTES - 4]);
    block[SEGMENT_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    block
}

fn header(sequence: u64, kind: RecordKind, length: u32) -> RecordHeader {
    #[rustfmt::skip]
    return RecordHeader { kind, synthesised: true, camera: 0, length, sequence, epoch: 0, cursor: 0,
        realtime_ns: 1, monotonic_ns: 2, lost_before: 0, session: SESSION };
}

fn entry_of(header: &RecordHeader, offset: u64, body_crc: u32) -> IndexEntry {
    #[rustfmt::skip]
    return IndexEntry { kind: header.kind, synthesised: true, sequence: header.sequence, offset,
        cursor: 0, realtime_ns: 1, monotonic_ns: 2, time: Timestamp::default(),
        length: header.length, body_crc };
}

/// An entry with a right checksum that may name anything.
fn entry(input: &mut Input<'_>) -> IndexEntry {
    let kind = if input.once_in(4) { RecordKind::Loss } else { RecordKind::Frame };
    let offset = match input.u8() {
        blocks @ 0..0x80 => u64::from(blocks) * RECORD_ALIGN as u64,
        _ => input.number(),
    };
    let header = header(input.number(), kind, input.u32() & 0x00FF_FFFF);
    entry_of(&header, offset, input.u32())
}

/// What has to hold of an archive, whatever its bytes.
fn check_archive(dir: &Path, files: &Files) {
    files.iter().for_each(|(name, bytes)| {
        fs::write(dir.join(name), bytes).expect("there is room");
    });
    let Ok(archive) = ArchiveReader::open(dir) else {
        assert!(recover(dir, false, |_, _| {}).is_err() && verify(dir, |_, _| {}).is_err());
        return;
    };
    let whole = whole_records(&archive);
    check_scan(&archive);
    let before = verify(dir, |_, _| {}).expect("it was opened");
    let planned = recover(dir, true, |_, _| {}).expect("it was opened");
    assert_eq!(&listed(dir), files, "what is only planned changes nothing");
    let done = recover(dir, false, |_, _| {}).expect("it was opened");
    assert_eq!(RecoverReport { dry_run: true, ..done.clone() }, planned, "as planned");
    check_mended(dir, files, &whole, &done);
    check_verified(dir, &before, &done);
}

/// Where records stand whole, and their bytes up to the end of the body, by a look of its own at each checksum.
fn whole_records(archive: &ArchiveReader) -> BTreeMap<(u32, u64), Vec<u8>> {
    let mut whole = BTreeMap::new();
    let mut record = Vec::new();
    for found in archive.scan() {
        let Ok(Found::Record(entry)) = found else { continue };
        let read = archive.read_record(&entry, &mut record).is_ok();
        let body = &record[RECORD_HEADER_BYTES..][..entry.header.body_bytes()];
        assert_eq!(read, crc_fast::crc32_iscsi(body) == entry.body_crc, "{entry:?}");
        if read {
            // Of the zeros behind the body no checksum tells.
            record.truncate(RECORD_HEADER_BYTES + entry.header.body_bytes());
            whole.insert((entry.segment, entry.offset), record.clone());
        }
    }
    whole
}

/// A walk leaves no byte behind the headers out, and tells none twice.
fn check_scan(archive: &ArchiveReader) {
    let mut at: BTreeMap<u32, u64> = BTreeMap::new();
    for found in archive.scan() {
        let (segment, from, to) = match found.expect("the files can be read") {
            Found::Record(entry) => (entry.segment, entry.offset, entry.end()),
            Found::Damaged(extent) | Found::Tail(extent) => {
                (extent.segment, extent.offset, extent.end())
            }
        };
        let position = at.entry(segment).or_insert(SEGMENT_HEADER_BYTES as u64);
        assert_eq!(*position, from, "segment {segment}");
        assert!(to > from, "segment {segment} at {from}");
        *position = to;
    }
    for segment in archive.segments() {
        let end = at.get(&segment.number).copied().unwrap_or(segment.bytes);
        assert_eq!(end, segment.bytes, "segment {}", segment.number);
    }
}

fn listed(dir: &Path) -> Files {
    let entries = fs::read_dir(dir).expect("it is ours").map(|entry| entry.expect("it is ours"));
    let file = |entry: fs::DirEntry| {
        let bytes = fs::read(entry.path()).expect("it is ours");
        (entry.file_name().into_string().expect("a plain name"), bytes)
    };
    entries.map(file).collect()
}

/// Segments were cut or erased in part, indexes made again, and nothing more is to do.
fn check_mended(
    dir: &Path,
    before: &Files,
    whole: &BTreeMap<(u32, u64), Vec<u8>>,
    done: &RecoverReport,
) {
    let mended = listed(dir);
    for (name, bytes) in before.iter().filter(|(name, _)| name.ends_with(".cbs")) {
        let left = &mended[name];
        let mut kept = left.iter().zip(bytes).map(|(left, before)| [*before, 0].contains(left));
        assert!(
            left.len() <= bytes.len() && kept.all(|kept| kept),
            "{name} is cut and erased alone"
        );
    }
    let archive = ArchiveReader::open(dir).expect("it was opened before");
    let left = whole_records(&archive);
    let gone: Vec<_> = whole.keys().filter(|place| !left.contains_key(place)).collect();
    assert!(gone.is_empty(), "whole records are gone: {gone:?}");
    let same = |(place, record): (&(u32, u64), &Vec<u8>)| left[place] == *record;
    assert!(whole.iter().all(same), "every whole record stays as it is");
    check_again(dir, &mended, done);
    for segment in archive.segments() {
        let index = mended.get(&format!("seg-{:06}.idx", segment.number));
        let has_damage = done.damaged.problems.iter().any(|of| of.segment == segment.number);
        assert!(index.is_some() || has_damage, "segment {}", segment.number);
        index.iter().for_each(|index| check_index(index, segment.number, whole));
    }
}

/// Doing it twice changes nothing.
fn check_again(dir: &Path, mended: &Files, done: &RecoverReport) {
    let again = recover(dir, false, |_, _| {}).expect("it was opened before");
    let changed = (again.bytes_cut, again.bytes_erased, again.indexes_rebuilt);
    assert_eq!(changed, (0, 0, 0), "doing it twice changes nothing: {done:#?} {again:#?}");
    assert!(&listed(dir) == mended, "doing it twice changes nothing");
}

/// The index is made of whole entries and names every whole record.
fn check_index(index: &[u8], segment: u32, whole: &BTreeMap<(u32, u64), Vec<u8>>) {
    let (entries, rest) = index.as_chunks::<INDEX_ENTRY_BYTES>();
    assert!(rest.is_empty(), "segment {segment}");
    let named: Vec<u64> = entries
        .iter()
        .map(|entry| IndexEntry::parse(entry).expect("a rebuilt entry is whole").offset)
        .collect();
    let mut records = whole.keys().filter(|(number, _)| *number == segment);
    assert!(records.all(|(_, offset)| named.contains(offset)), "segment {segment}: {named:?}");
}

/// What is still wrong after mending is damage that mending keeps, or that no mending is for.
fn check_verified(dir: &Path, before: &VerifyReport, done: &RecoverReport) {
    let after = verify(dir, |_, _| {}).expect("it was opened before");
    assert_eq!((after.frames, after.losses), (before.frames, before.losses));
    assert_eq!((after.frames, after.losses), (done.frames, done.losses));
    assert_eq!(after.torn, None);
    // No index is made of a segment where damage stays that it could not name.
    let is_mended = after.unindexed == 0 && after.tail_bytes == 0;
    assert!(is_mended || done.damaged.problems_total > 0, "{after:?}");
    let kept = |problem| before.problems.problems.contains(problem);
    if before.problems.problems_total <= before.problems.problems.len() as u64 {
        assert!(after.problems.problems.iter().all(kept), "{before:#?}\n{after:#?}");
    }
    let wrong = ["checksum", "not whole", "contradicts", "no record", "ends"];
    let of_bytes = |what: &str| wrong.iter().any(|wrong| what.contains(wrong));
    if done.damaged.problems_total == 0 {
        let left = after.problems.problems.iter().find(|problem| of_bytes(&problem.what));
        assert_eq!(left, None, "{done:#?}");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let frames = [0, 200, 1, 8, 1, 0, 30, 0, 2, 0xFF, 0xFF, 16];
    let loss = [3, 1, 1, 4, 3, 0, 0];
    let with =
        |mode: u8, kind: u8, parts: &[&[u8]]| [&[mode, kind], parts.concat().as_slice()].concat();
    let mut raw = vec![0x80];
    raw.extend(header_block(0, SESSION));
    vec![
        with(0, 0, &[&frames, &loss, &frames]),
        with(0, 0x40, &[&frames, &loss]),
        with(0, 0, &[&frames, &[4, 2], &frames, &[4, 3]]),
        with(0, 0, &[&frames, &[6, 0x90, 0x10, 0, 0, 1], &frames]),
        with(0, 0, &[&frames, &[7, 200, 3]]),
        with(0, 0, &[&frames, &[9, 100, 0, 8, 1, 3, 7, 0, 100, 0, 0, 0, 1, 2, 3, 4], &loss]),
        with(0, 3, &[&[100, 1], &frames]),
        with(1, 0, &[&frames, &loss, &[11, 0], &frames, &[5, 3, 1, 2, 3], &loss]),
        with(2, 0, &[&frames, &[11, 0x0C], &loss, &[11, 0x30], &frames]),
        raw,
    ]
}
