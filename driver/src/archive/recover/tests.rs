use super::super::index::INDEX_ENTRY_BYTES;
use super::super::options::{ArchiveOptions, Durability, EngineChoice, Session};
use super::super::scripted::{SESSION, frame};
use super::super::verify::{VerifyReport, verify};
use super::super::writer::Archive;
use super::*;
use crate::clock::Moment;
use crate::loss::{Loss, LossReason};
use crate::record::{RECORD_HEADER_BYTES, RecordHeader};
use crate::slab::SlabPool;

const NOW: Moment = Moment { monotonic_ns: 1, realtime_ns: 2 };

/// Bytes of segment and index of an archive with frames 0 and 1, a loss of 2, and frames 3 and 4:
/// records at 4096, 8192, 16384, 20480 and 24576, the end at 32768.
fn sealed() -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    write_into(dir.path());
    let read = |name| fs::read(dir.path().join(name)).unwrap();
    (read("seg-000000.cbs"), read("seg-000000.idx"))
}

fn write_into(dir: &Path) {
    let session = Session { session: SESSION, camera: 1, ..Session::default() };
    let (durability, engine) = (Durability::Frame, EngineChoice::Pwrite);
    let options = ArchiveOptions { durability, engine, ..ArchiveOptions::default() };
    let mut archive = Archive::create(dir, session, options, NOW).unwrap();
    let pool = SlabPool::new(1 << 20);
    archive.append(frame(&pool, 0, 100), NOW);
    archive.append(frame(&pool, 1, 6000), NOW);
    let (reason, exact) = (LossReason::NoSlab, true);
    let loss =
        Loss { reason, refusal: None, sequence: 2, count: 1, exact, first: None, last: None };
    archive.append_loss(&loss, NOW);
    archive.append(frame(&pool, 3, 200), NOW);
    archive.append(frame(&pool, 4, 5000), NOW);
    let counters = archive.finish(NOW);
    assert_eq!(counters.durable, 4);
}

/// On tmpfs where there is one: a sync costs nothing there, and there are thousands of them.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A directory with these bytes as segment and index.
struct Broken {
    dir: tempfile::TempDir,
}

impl Broken {
    fn new(segment: &[u8], index: Option<&[u8]>) -> Broken {
        let broken = Broken { dir: directory() };
        broken.put(segment, index);
        broken
    }

    fn put(&self, segment: &[u8], index: Option<&[u8]>) {
        fs::write(self.dir.path().join("seg-000000.cbs"), segment).unwrap();
        if let Some(index) = index {
            fs::write(self.dir.path().join("seg-000000.idx"), index).unwrap();
        }
    }

    fn get(&self) -> (Vec<u8>, Vec<u8>) {
        let read = |name| fs::read(self.dir.path().join(name)).unwrap();
        (read("seg-000000.cbs"), read("seg-000000.idx"))
    }

    fn recover(&self) -> RecoverReport {
        recover(self.dir.path(), false, |_, _| {}).unwrap()
    }

    fn verify(&self) -> VerifyReport {
        verify(self.dir.path(), |_, _| {}).unwrap()
    }
}

#[test]
fn an_archive_that_is_whole_is_left_as_it_is() {
    let (segment, index) = sealed();
    assert_eq!((segment.len(), index.len()), (32_768, 5 * INDEX_ENTRY_BYTES));
    let broken = Broken::new(&segment, Some(&index));
    let report = broken.recover();
    assert_eq!((report.frames, report.losses, report.indexes_rebuilt), (4, 1, 0));
    assert!(report.cuts.is_empty());
    assert_eq!(broken.get(), (segment, index));
    assert_eq!(fs::read_dir(broken.dir.path()).unwrap().count(), 2);
}

#[test]
fn a_segment_cut_at_every_byte_of_its_last_two_records_keeps_exactly_the_whole_ones() {
    let (segment, index) = sealed();
    let broken = Broken::new(&segment, None);
    for cut in 20_480..segment.len() {
        let whole = if cut < 24_576 { 3 } else { 4 };
        let end = if cut < 24_576 { 20_480 } else { 24_576 };
        let named = whole as usize * INDEX_ENTRY_BYTES;
        broken.put(&segment[..cut], Some(&index[..named]));
        let report = broken.recover();
        assert_eq!(report.frames + report.losses, whole, "cut at {cut}");
        assert_eq!(report.bytes_cut, (cut - end) as u64, "cut at {cut}");
        let kept = (segment[..end].to_vec(), index[..named].to_vec());
        assert!(broken.get() == kept, "cut at {cut}");
        if cut > end {
            assert_eq!(report.cuts[0].after, Some(if whole == 3 { 1 } else { 3 }));
        }
    }
    assert!(broken.verify().is_clean());
}

#[test]
fn what_the_index_names_is_never_cut_and_stays_told_however_short_the_segment_is() {
    let (segment, index) = sealed();
    let broken = Broken::new(&segment, None);
    for cut in (4096..segment.len()).step_by(1021) {
        broken.put(&segment[..cut], Some(&index));
        let whole = [8192, 16_384, 20_480, 24_576].iter().filter(|&&end| end <= cut).count();
        for _ in 0..2 {
            let report = broken.recover();
            let torn = u64::from(cut % 4096 != 0 || ![1, 2, 4, 5, 6].contains(&(cut / 4096)));
            assert_eq!((report.bytes_cut, report.indexes_rebuilt), (0, 0), "cut at {cut}");
            let problems = 5 - whole as u64 + torn;
            assert_eq!(report.damaged.problems_total, problems, "cut at {cut}: {report:?}");
            assert!(broken.get() == (segment[..cut].to_vec(), index.clone()), "cut at {cut}");
            assert_eq!(broken.verify().problems, report.damaged, "cut at {cut}");
        }
    }
}

#[test]
fn a_torn_record_behind_a_damaged_one_that_was_named_is_cut_alone() {
    let (segment, index) = sealed();
    // Frame 3 was named and its body is damaged, or its header; frame 4 is torn.
    for flipped in [20_480 + 200, 20_480 + 3] {
        for torn in [24_576 + 5000, 24_576 + 40, 24_576 + 3] {
            let mut damaged = segment.clone();
            damaged[flipped] ^= 1;
            damaged[torn] ^= 1;
            let broken = Broken::new(&damaged, Some(&index[..4 * 64]));
            let report = broken.recover();
            let left = (damaged[..24_576].to_vec(), index[..4 * 64].to_vec());
            assert!(broken.get() == left, "{flipped} {torn}");
            assert_eq!(report.damaged.problems_total, 2, "{report:?}");
            assert_eq!(report.cuts[0].extent.offset, 24_576);
            assert_eq!(broken.verify().problems, report.damaged);
        }
    }
}

#[test]
fn a_tail_of_zeros_or_garbage_is_cut_and_a_second_recovery_finds_nothing_to_do() {
    let (segment, index) = sealed();
    for filler in [0, 0xA5] {
        let mut long = segment.clone();
        long.resize(segment.len() + 100_000, filler);
        let broken = Broken::new(&long, Some(&index[..100]));
        let before = broken.verify();
        assert!(before.is_clean(), "{before:?}");
        assert_eq!((before.tail_bytes, before.unindexed), (100_000, 4));
        let dry = recover(broken.dir.path(), true, |_, _| {}).unwrap();
        assert_eq!(broken.get(), (long, index[..100].to_vec()));
        let done = broken.recover();
        assert_eq!((done.bytes_cut, done.indexes_rebuilt, done.records_torn), (100_000, 1, 0));
        assert_eq!(done.cuts[0].extent.zeros, filler == 0);
        assert_eq!(RecoverReport { dry_run: false, ..dry }, done);
        assert_eq!(broken.get(), (segment.clone(), index.clone()));
        let again = broken.recover();
        assert_eq!((again.bytes_cut, again.indexes_rebuilt), (0, 0));
    }
}

#[test]
fn a_hole_that_was_never_written_is_no_damage_and_what_stands_behind_it_stays() {
    let (segment, index) = sealed();
    let mut holed = segment.clone();
    holed[8192..16_384].fill(0);
    let broken = Broken::new(&holed, Some(&index[..64]));
    let report = broken.recover();
    assert_eq!((report.frames, report.damaged.problems_total, report.bytes_cut), (3, 0, 0));
    assert_eq!(broken.get().0, holed);
    let after = broken.verify();
    assert!(after.is_clean(), "{after:?}");
    assert_eq!((after.hole_bytes, after.unindexed), (8192, 0));
    // The same hole where the index is witness that something stood there is damage.
    broken.put(&holed, Some(&index));
    let problems = broken.verify().problems;
    assert!(problems.problems[0].what.contains("sequence 1"), "{problems:?}");
}

#[test]
fn a_torn_record_in_front_of_a_whole_one_is_erased_if_no_index_names_it() {
    let (segment, index) = sealed();
    // Of frame 1 the header or the body is torn; only frame 0 was named before.
    for torn in [8192 + 5, 8192 + 2000] {
        let mut damaged = segment.clone();
        damaged[torn] ^= 1;
        for named in [Some(&index[..64]), Some(&index[..0]), None] {
            let broken = Broken::new(&damaged, named);
            let report = broken.recover();
            assert_eq!((report.bytes_erased, report.bytes_cut), (8192, 0), "{torn}: {report:?}");
            let erased = &report.erased[0];
            assert_eq!((erased.extent.offset, erased.after), (8192, Some(0)));
            assert_eq!(erased.extent.sequence, (torn != 8192 + 5).then_some(1));
            let mut holed = segment.clone();
            holed[8192..16_384].fill(0);
            assert!(broken.get().0 == holed, "{torn}");
            assert_eq!((broken.verify().is_clean(), broken.verify().hole_bytes), (true, 8192));
            assert_eq!(broken.recover().bytes_erased, 0);
        }
        let named = Broken::new(&damaged, Some(&index));
        assert_eq!((named.recover().bytes_erased, named.get().0 == damaged), (0, true));
    }
}

#[test]
fn a_record_that_is_whole_but_for_its_padding_is_mended_if_no_index_names_it() {
    let (segment, index) = sealed();
    // In the middle, and at the end.
    for (torn, named, offset) in [(16_383, 64, 8192 + 6144), (32_767, 4 * 64, 24_576 + 5152)] {
        let mut damaged = segment.clone();
        damaged[torn] ^= 1;
        for named in [Some(&index[..named]), None] {
            let broken = Broken::new(&damaged, named);
            assert!(!broken.verify().is_clean(), "{torn}");
            let report = broken.recover();
            assert_eq!((report.frames, report.bytes_cut, report.records_torn), (4, 0, 0));
            assert_eq!(report.erased[0].extent.offset, offset as u64);
            assert!(broken.get() == (segment.clone(), index.clone()), "{torn}");
            assert!(broken.verify().is_clean());
        }
        let named = Broken::new(&damaged, Some(&index));
        assert_eq!((named.recover().bytes_erased, named.get().0 == damaged), (0, true));
    }
}

/// A record at this place with other bytes in its body, and the right checksum.
fn resealed(segment: &[u8], place: usize, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut segment = segment.to_vec();
    let record = &mut segment[place..];
    let header = RecordHeader::parse(record.first_chunk().unwrap()).unwrap();
    change(record);
    header.seal(&mut record[..header.record_bytes()]);
    segment
}

/// Found by fuzzing: what the checksums vouch for was stored as it was delivered, lawful or not.
#[test]
fn a_frame_that_fits_its_checksums_is_never_cut_or_erased_whatever_its_bytes_are() {
    let (segment, index) = sealed();
    for place in [8192, 24_576] {
        let odd = resealed(&segment, place, |record| {
            record[128..132].copy_from_slice(&[0xFF, 0xFF, 0xFF, 0xD9]);
        });
        let broken = Broken::new(&odd, Some(&index[..0]));
        for _ in 0..2 {
            let report = broken.recover();
            assert_eq!((report.frames, report.bytes_cut, report.bytes_erased), (4, 0, 0));
            assert_eq!(report.damaged.problems_total, 1, "{report:?}");
            assert!(report.damaged.problems[0].what.contains("FF FF stands"), "{report:?}");
            assert!(broken.get().0 == odd);
            let verified = broken.verify();
            assert_eq!((verified.frames, verified.problems), (4, report.damaged));
        }
    }
}

#[test]
fn a_torn_record_that_tells_a_great_length_hides_no_whole_one() {
    let (mut segment, index) = sealed();
    // Where frame 0 stood, a header tells a frame up to the end of the segment.
    let head: &[u8; RECORD_HEADER_BYTES] = segment[4096..].first_chunk().unwrap();
    let header = RecordHeader { length: 28_000, ..RecordHeader::parse(head).unwrap() };
    let mut long = vec![0; header.record_bytes()];
    header.seal(&mut long);
    segment[4096..4096 + RECORD_HEADER_BYTES].copy_from_slice(&long[..RECORD_HEADER_BYTES]);
    let broken = Broken::new(&segment, None);
    let report = broken.recover();
    assert_eq!((report.frames, report.losses, report.bytes_cut), (3, 1, 0));
    assert_eq!((report.bytes_erased, report.records_torn), (4096, 1));
    assert!(broken.get().0[8192..] == segment[8192..]);
    assert!(broken.get().1 == index[64..]);
}

/// An entry for a frame at this place.
fn lying(offset: u64, length: u32) -> [u8; INDEX_ENTRY_BYTES] {
    let (_, index) = sealed();
    let entry = IndexEntry::parse(index.first_chunk().unwrap()).unwrap();
    IndexEntry { sequence: 77, offset, length, ..entry }.encode()
}

/// Found by fuzzing.
#[test]
fn an_entry_that_names_a_part_of_a_whole_record_or_too_much_of_it_protects_nothing() {
    let (segment, index) = sealed();
    let mut torn = segment.clone();
    torn[24_576 + 2000] ^= 1;
    for lie in [lying(4096, 60_000), lying(12_288, 60_000), lying(8200, 100), lying(0, 60_000)] {
        let broken = Broken::new(&torn, Some(&[&lie[..], &index[..256]].concat()));
        assert!(!broken.verify().is_clean());
        let report = broken.recover();
        assert_eq!((report.bytes_cut, report.indexes_rebuilt), (8192, 1));
        let left = (segment[..24_576].to_vec(), index[..256].to_vec());
        assert!(broken.get() == left);
        let again = broken.recover();
        assert_eq!((again.bytes_cut, again.indexes_rebuilt), (0, 0));
        assert!(broken.verify().is_clean());
    }
}

/// Found by fuzzing.
#[test]
fn an_entry_that_names_a_place_far_away_hides_no_other() {
    let (mut segment, index) = sealed();
    segment[8192 + 200] ^= 1;
    for far in [u64::MAX, u64::MAX - 4095, 1 << 40] {
        let lie = lying(far, 100);
        let broken = Broken::new(&segment, Some(&[&lie[..], &index].concat()));
        let kept = (segment.clone(), [&index, &lie[..]].concat());
        for _ in 0..2 {
            let report = broken.recover();
            // The damage, that it was named, and the far one.
            assert_eq!((report.damaged.problems_total, report.bytes_erased), (3, 0), "{far:x}");
            assert!(broken.get() == kept, "{far:x}");
            assert_eq!(broken.verify().problems, report.damaged);
        }
    }
}

/// Found by fuzzing.
#[test]
fn a_damaged_record_that_is_named_too_short_stays_to_its_end() {
    let (mut segment, index) = sealed();
    segment[8192 + 200] ^= 1;
    let broken = Broken::new(&segment, Some(&[&index[..64], &lying(8192, 100)].concat()));
    for _ in 0..2 {
        let report = broken.recover();
        assert_eq!((report.bytes_erased, report.damaged.problems_total), (0, 2), "{report:?}");
        assert!(broken.get().0 == segment);
    }
}

#[test]
fn without_an_index_only_the_last_segment_can_have_been_interrupted() {
    let (mut damaged, _) = sealed();
    damaged[8192 + 2000] ^= 1;
    damaged[24_576 + 2000] ^= 1;
    let broken = Broken::new(&damaged, None);
    fs::write(broken.dir.path().join("seg-000001.cbs"), &damaged).unwrap();
    let report = broken.recover();
    assert_eq!(report.damaged.problems_total, 2, "{report:?}");
    let left = fs::read(broken.dir.path().join("seg-000000.cbs")).unwrap();
    assert!(left == damaged, "what was sealed stays as it is");
    assert_eq!((report.bytes_erased, report.bytes_cut), (8192, 8192));
    let gone = report.erased.iter().chain(&report.cuts);
    assert!(gone.map(|cut| cut.extent.segment).eq([1, 1]));
    // Found by fuzzing: with an index that does not name it, it would be gone the next time.
    let again = broken.recover();
    assert_eq!((again.bytes_erased, again.bytes_cut, again.indexes_rebuilt), (0, 0, 0));
    assert_eq!((report.damaged, report.indexes_rebuilt), (again.damaged, 1));
    assert!(!broken.dir.path().join("seg-000000.idx").exists());
}

#[test]
fn an_index_without_a_segment_is_removed_if_it_names_nothing() {
    let (segment, index) = sealed();
    let broken = Broken::new(&segment, Some(&index));
    let orphan = |number: u32| broken.dir.path().join(format!("seg-{number:06}.idx"));
    fs::write(orphan(1), "").unwrap();
    fs::write(orphan(2), &index).unwrap();
    let dry = recover(broken.dir.path(), true, |_, _| {}).unwrap();
    assert!(orphan(1).exists());
    let report = broken.recover();
    assert_eq!(RecoverReport { dry_run: false, ..dry }, report);
    assert_eq!((report.indexes_removed, report.damaged.problems_total), (1, 1));
    assert_eq!((orphan(1).exists(), orphan(2).exists()), (false, true));
    assert_eq!(broken.verify().problems, report.damaged);
}

#[test]
fn a_flipped_bit_anywhere_is_a_problem_and_recovery_keeps_what_is_in_the_middle() {
    let (segment, index) = sealed();
    // Segment header, then of the record at 8192 (6000 bytes of payload): record header, frame
    // header, payload, zeros, trailer, padding; then a loss' header, body and padding.
    let places = [
        100,
        4095,
        8192,
        8200,
        8284,
        8192 + 96,
        8192 + 123,
        8192 + 128,
        8192 + 6127,
        8192 + 6130,
        8192 + 6138,
        16_383,
        16_384 + 5,
        16_384 + 96,
        16_384 + 4095,
    ];
    for place in places {
        let mut flipped = segment.clone();
        flipped[place] ^= 0x10;
        let broken = Broken::new(&flipped, Some(&index));
        assert!(!broken.verify().is_clean(), "byte {place}");
        let report = broken.recover();
        assert_eq!(report.bytes_cut, 0, "byte {place}");
        let after = broken.get();
        assert!(after.0 == flipped, "byte {place}");
        assert!(!broken.verify().is_clean(), "byte {place} after recovery");
        assert!(after.1 == index, "byte {place}: the index stays the witness");
    }
}

#[test]
fn a_flipped_bit_in_an_index_is_a_problem_that_recovery_mends() {
    let (segment, index) = sealed();
    for place in 0..index.len() {
        let mut flipped = index.clone();
        flipped[place] ^= 1;
        let broken = Broken::new(&segment, Some(&flipped));
        assert!(!broken.verify().is_clean(), "byte {place}");
        assert_eq!(broken.recover().indexes_rebuilt, 1);
        assert_eq!(broken.get(), (segment.clone(), index.clone()));
        assert!(broken.verify().is_clean());
    }
}

#[test]
fn a_damaged_last_record_stays_and_is_named_if_the_index_named_it() {
    let (mut segment, index) = sealed();
    segment[24_576 + 200] ^= 1;
    let broken = Broken::new(&segment, Some(&index));
    let before = broken.verify();
    assert_eq!((before.tail_bytes, before.problems.problems_total), (0, 2));
    assert!(before.problems.problems[1].what.contains("names sequence 4"), "{before:?}");
    for _ in 0..2 {
        let report = broken.recover();
        assert_eq!((report.bytes_cut, report.indexes_rebuilt), (0, 0));
        assert_eq!(report.damaged, before.problems);
        assert_eq!(broken.get(), (segment.clone(), index.clone()));
        assert_eq!(broken.verify(), before);
    }
    // Without an index nobody knows that it was whole once.
    let unnamed = Broken::new(&segment, None);
    let report = unnamed.recover();
    assert_eq!((report.records_torn, report.cuts[0].extent.sequence), (1, Some(4)));
    assert_eq!(report.cuts[0].after, Some(3));
    assert!(unnamed.verify().is_clean());
}

#[test]
fn what_cannot_be_recovered_is_refused_by_name() {
    let empty = tempfile::tempdir().unwrap();
    let refused = |dir: &Path| recover(dir, false, |_, _| {}).unwrap_err().to_string();
    assert!(refused(empty.path()).contains("is no archive"));
    assert!(refused(&empty.path().join("missing")).contains("cannot list"));
    let (mut segment, _) = sealed();
    segment[8] = 2;
    let crc = crc_fast::crc32_iscsi(&segment[..4092]);
    segment[4092..4096].copy_from_slice(&crc.to_le_bytes());
    let broken = Broken::new(&segment, None);
    assert!(refused(broken.dir.path()).contains("format version 2"));

    let session = Session { session: SESSION, camera: 1, ..Session::default() };
    let path = empty.path().join("live");
    let archive = Archive::create(&path, session, ArchiveOptions::default(), NOW).unwrap();
    assert!(refused(&path).contains("stop it first"));
    drop(archive);
    assert_eq!(recover(&path, false, |_, _| {}).unwrap().segments, 1);
}

#[test]
fn a_segment_cut_within_its_header_is_told_and_left() {
    let (segment, index) = sealed();
    for cut in [0, 1, 100, 4095] {
        let broken = Broken::new(&segment[..cut], Some(&index));
        let report = broken.recover();
        assert_eq!((report.frames, report.damaged.problems_total, report.bytes_cut), (0, 6, 0));
        assert_eq!(broken.get(), (segment[..cut].to_vec(), index.clone()));
    }
}
