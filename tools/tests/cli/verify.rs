//! `circbuf verify`: each column is reached, by ledgers and archives of real runs that were doctored
//! by hand, and what cannot be compared is refused.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use circbuf_driver::archive::{ArchiveReader, Entry, Found};
use circbuf_driver::record::{LOSS_BODY_BYTES, PAYLOAD_OFFSET, RecordHeader, RecordKind};
use circbuf_emulator::fault::FaultKind;
use circbuf_emulator::ledger::LedgerEntry;
use serde_json::Value;
use tempfile::TempDir;

use crate::losses::assert_tiled;
use crate::util::{at, disk_dir, ends, json, number, read_ledger, ring_dir};

/// All columns, which together are the ledger and what it does not know.
const COLUMNS: [&str; 10] = [
    "delivered_good",
    "delivered_damaged",
    "refused_good",
    "refused_damaged",
    "overwritten",
    "missed",
    "undetectable",
    "not_archived",
    "before_attach",
    "after_end",
];

/// A run of noise, whose records are as large as loss records are.
pub(crate) const NOISE: &str =
    "run --source noise:3000 --ring-bytes 256KiB --virtual-time --arch-policy every --json";
pub(crate) const FRAMES: u64 = 40;

/// What a run left.
pub(crate) struct Run {
    pub(crate) dir: TempDir,
}

impl Run {
    pub(crate) fn lossless() -> Run {
        let run = Run { dir: disk_dir() };
        let line = format!("{NOISE} --lossless --frames {FRAMES} {}", run.options());
        run.keep_books(&ends(&line).with_code(0).stdout);
        run
    }

    pub(crate) fn options(&self) -> String {
        format!("--archive {} --ledger {}", self.archive().display(), self.ledger().display())
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.dir.path().join("a")
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    fn books(&self) -> PathBuf {
        self.dir.path().join("books")
    }

    pub(crate) fn keep_books(&self, text: &str) {
        fs::write(self.books(), text).expect("a directory of ours");
    }

    fn line(&self) -> String {
        let (ledger, archive) = (self.ledger(), self.archive());
        format!("verify --ledger {} --archive {}", ledger.display(), archive.display())
    }

    pub(crate) fn line_with_books(&self) -> String {
        format!("{} --books {}", self.line(), self.books().display())
    }

    /// The comparison, which ends with this code and whose columns add up.
    #[track_caller]
    pub(crate) fn compared(&self, code: i32) -> Value {
        let comparison = ends(&format!("{} --json", self.line())).with_code(code).json();
        let total: u64 = COLUMNS.iter().map(|column| number(&comparison, column)).sum();
        let known = number(&comparison, "frames") + number(&comparison, "unknown");
        assert_eq!(total, known, "{comparison:#}");
        comparison
    }

    /// Changes the record of a frame, whose checksums are made to fit.
    fn doctor(&self, sequence: u64, change: impl FnOnce(&mut RecordHeader, &mut [u8])) {
        let reader = ArchiveReader::open(&self.archive()).expect("an archive");
        let is_it = |entry: &Entry| {
            entry.header.sequence == sequence && entry.header.kind == RecordKind::Frame
        };
        let entry = entries(&self.archive()).into_iter().find(is_it).expect("it is archived");
        let mut record = Vec::new();
        reader.read_record(&entry, &mut record).expect("a whole record");
        let mut header = entry.header;
        change(&mut header, &mut record);
        header.seal(&mut record);
        self.put(&entry, &record);
    }

    fn put(&self, entry: &Entry, record: &[u8]) {
        let segment = self.archive().join(format!("seg-{:06}.cbs", entry.segment));
        let file = OpenOptions::new().write(true).open(segment).expect("the archive is ours");
        file.write_all_at(record, entry.offset).expect("there is room");
    }

    /// Puts the loss of one frame in the place of the frame: codes of reason and refusal.
    pub(crate) fn lose(&self, sequence: u64, reason: u8, refusal: u8) {
        self.doctor(sequence, |header, record| {
            (header.kind, header.length) = (RecordKind::Loss, LOSS_BODY_BYTES as u32);
            record[96..].fill(0);
            (record[96], record[100], record[101], record[104]) = (reason, 1, refusal, 1);
        });
    }

    /// Takes a frame out, as if its record had never been written.
    fn remove(&self, sequence: u64) {
        let is_it = |entry: &Entry| entry.header.sequence == sequence;
        let entry = entries(&self.archive()).into_iter().find(is_it).expect("it is archived");
        self.put(&entry, &[0; 4096]);
    }

    /// Changes an entry of the ledger.
    fn rewrite(&self, number: usize, change: impl FnOnce(&mut LedgerEntry)) {
        let mut entries = read_ledger(&self.ledger());
        change(&mut entries[number]);
        let lines = entries
            .iter()
            .map(|entry| serde_json::to_string(entry).expect("an entry is JSON") + "\n");
        fs::write(self.ledger(), lines.collect::<String>()).expect("a directory of ours");
    }
}

fn damage(entry: &mut LedgerEntry, kind: FaultKind, undetectable: bool) {
    entry.faults.insert(kind);
    (entry.damaged, entry.undetectable) = (true, undetectable);
}

/// All records, in their order.
pub(crate) fn entries(archive: &Path) -> Vec<Entry> {
    let reader = ArchiveReader::open(archive).expect("an archive");
    let found = reader.scan().filter_map(|found| match found.expect("it can be read") {
        Found::Record(entry) => Some(entry),
        Found::Damaged(_) | Found::Tail(_) => None,
    });
    found.collect()
}

#[test]
fn a_run_without_loss_is_good_frame_by_frame_and_its_books_are_equal() {
    let run = Run::lossless();
    let comparison = run.compared(0);
    assert_eq!(comparison["schema"], "circbuf.verify/1");
    assert_eq!(number(&comparison, "delivered_good"), FRAMES);
    assert_eq!(at(&comparison, "lost_is"), "exact");
    let told = ends(&run.line_with_books()).with_code(0).stdout;
    for words in ["40 frames in the ledger", "damaged 0, found 0, accepted 0", "equal to the frame"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn every_column_is_reached_and_the_damaged_ones_are_told() {
    let run = Run::lossless();
    (0..3).for_each(|sequence| run.remove(sequence));
    run.remove(FRAMES - 1);
    run.remove(20);
    let (no_frame, pair, overtaken) = (1, 3, 7);
    let (overrun, torn, corrupt, no_slab, queue_full) = (1, 2, 3, 4, 5);
    run.lose(5, overrun, 0);
    run.lose(6, torn, overtaken);
    run.lose(7, corrupt, pair);
    run.lose(8, corrupt, no_frame);
    run.lose(9, no_slab, 0);
    run.lose(10, queue_full, 0);
    run.rewrite(8, |entry| damage(entry, FaultKind::NoTrailer, false));
    run.rewrite(12, |entry| damage(entry, FaultKind::BitFlip, true));
    let comparison = run.compared(0);
    let expected = [28, 0, 1, 1, 1, 1, 1, 3, 3, 1];
    let columns = COLUMNS.map(|column| number(&comparison, column));
    assert_eq!(columns, expected, "{comparison:#}");
    let reasons = serde_json::json!({
        "overrun": 1, "torn": 1, "corrupt": 2, "no_slab": 1, "queue_full": 1
    });
    assert_eq!(comparison["by_reason"], reasons);
    let refusals = serde_json::json!({ "overtaken": 1, "pair": 1, "no_frame": 1 });
    assert_eq!(comparison["by_refusal"], refusals);
    let told = ends(&run.line()).with_code(0).stdout;
    assert!(told.contains("damaged 1, found 1, accepted 0\n"), "{told}");

    // Damaged and not refused, damaged and never looked at.
    run.rewrite(15, |entry| damage(entry, FaultKind::Unescaped, false));
    run.rewrite(5, |entry| damage(entry, FaultKind::Unescaped, false));
    let comparison = run.compared(4);
    let damage = ["damaged", "found", "accepted", "not_examined"];
    assert_eq!(damage.map(|key| number(&comparison, &format!("damage.{key}"))), [3, 1, 1, 1]);
    ends(&run.line()).refused(4, &["1 archived frames", "0 of them unknown"]);
}

#[test]
fn a_frame_is_good_only_if_all_that_the_ledger_says_is_true() {
    type Change = fn(&mut RecordHeader, &mut [u8]);
    let changes: [(&str, Change); 6] = [
        ("content", |_, record| record[PAYLOAD_OFFSET + 100] ^= 1),
        ("time", |header, record| {
            let end = 96 + header.body_bytes();
            record[end - 12] ^= 1;
        }),
        ("epoch", |header, _| header.epoch += 1),
        ("cursor", |header, _| header.cursor += 32),
        // Two of the same number, and none of its own.
        ("number", |header, _| header.sequence += 1),
        ("unknown number", |header, _| header.sequence += 1000),
    ];
    for (what, change) in changes {
        let run = Run::lossless();
        run.doctor(25, change);
        let comparison = run.compared(4);
        let unknown = u64::from(what == "unknown number");
        assert_eq!(number(&comparison, "unknown"), unknown + u64::from(what == "number"), "{what}");
        let damaged = if what == "number" { 2 } else { 1 };
        assert_eq!(number(&comparison, "delivered_damaged"), damaged, "{what}: {comparison:#}");
        ends(&format!("archive verify {}", run.archive().display()));
    }
    // What is undetectable has to be as it was written all the same.
    let run = Run::lossless();
    run.rewrite(25, |entry| damage(entry, FaultKind::BitFlip, true));
    assert_eq!(number(&run.compared(0), "undetectable"), 1);
    run.doctor(25, |_, record| record[PAYLOAD_OFFSET + 100] ^= 1);
    assert_eq!(number(&run.compared(4), "delivered_damaged"), 1);
}

#[test]
fn a_needless_refusal_is_blamed_on_the_nearest_fault() {
    let run = Run::lossless();
    let (corrupt, torn, no_frame, overtaken) = (3, 2, 1, 7);
    run.rewrite(10, |entry| damage(entry, FaultKind::Aborted, false));
    run.rewrite(20, |entry| entry.faults.insert(FaultKind::GapSkip));
    [10, 11, 12, 16, 19, 20, 39].into_iter().for_each(|n| run.lose(n, corrupt, no_frame));
    run.lose(13, torn, overtaken);
    let comparison = run.compared(0);
    let book = |kind: &str, key: &str| number(&comparison, &format!("by_fault.{kind}.{key}"));
    let aborted = ["injected", "refused_damaged", "refused_good", "needless"];
    assert_eq!(aborted.map(|key| book("aborted", key)), [1, 1, 0, 2]);
    assert_eq!(aborted.map(|key| book("gap-skip", key)), [1, 0, 1, 3]);
    assert_eq!(aborted.map(|key| book("none", key)), [FRAMES - 2, 0, 5, 0]);
    let told = ends(&run.line()).with_code(0).stdout;
    assert!(told.contains("needless") && told.contains("gap-skip"), "{told}");
    // Without any fault, nobody else is to blame.
    let run = Run::lossless();
    run.lose(3, corrupt, no_frame);
    assert_eq!(number(&run.compared(0), "by_fault.none.needless"), 1);
}

#[test]
fn damage_on_the_disk_is_no_frame_that_was_accepted() {
    let run = Run::lossless();
    let entry = entries(&run.archive())[20];
    let segment = OpenOptions::new().write(true).open(run.archive().join("seg-000000.cbs"));
    segment.unwrap().write_all_at(&[0xAA], entry.offset + 500).unwrap();
    let comparison = run.compared(4);
    assert_eq!(number(&comparison, "delivered_damaged"), 0);
    assert_eq!(number(&comparison, "archive.damaged"), 1);
    ends(&run.line()).refused(4, &["1 records", "damaged on the disk", "archive verify"]);
}

/// The driver joins late and ends early, on a ring with counters and on bare bytes.
#[test]
fn a_driver_that_was_there_for_a_part_is_answerable_for_that_part() {
    let rings = ring_dir();
    let ring = rings.path().join("ring");
    for (counters, lost_is) in [(true, "exact"), (false, "estimated")] {
        let run = Run { dir: disk_dir() };
        ends(&format!(
            "emulate --source noise:3000 --ring-bytes 256KiB --virtual-time --frames 300 --ring {} \
             --ledger {}",
            ring.display(),
            run.ledger().display()
        ))
        .with_code(0);
        let bytes = fs::read(&ring).unwrap();
        let copy = run.dir.path().join("copy");
        // A pair that no camera writes, in a frame that the ring still holds.
        let damaged = &read_ledger(&run.ledger())[260];
        fs::write(&copy, bytes).unwrap();
        let file = OpenOptions::new().write(true).open(&copy).unwrap();
        file.write_all_at(&[0xFF, 0xFF], damaged.offset + 1000).unwrap();
        if counters {
            fs::copy(ring.with_extension("regs"), copy.with_extension("regs")).unwrap();
        }
        let line = format!(
            "run --device {} --from oldest --frames 50 --json --arch-policy every --archive {}",
            copy.display(),
            run.archive().display()
        );
        run.keep_books(&ends(&line).with_code(0).stdout);
        let comparison = run.compared(0);
        assert_eq!(at(&comparison, "lost_is"), lost_is, "{comparison:#}");
        assert_eq!(number(&comparison, "delivered_good"), 50, "{comparison:#}");
        assert_eq!(number(&comparison, "refused_good"), 1, "the pair is not in the ledger");
        let (before, after) =
            (number(&comparison, "before_attach"), number(&comparison, "after_end"));
        assert!(before > 200 && after > 0 && before + after == 300 - 51, "{comparison:#}");
        ends(&run.line_with_books()).with_code(0);
        assert_eq!(assert_tiled(&run.archive(), true), 51);
        let told = ends(&run.line()).with_code(0).stdout;
        assert_eq!(told.contains("is estimated"), !counters, "{told}");
    }
}

#[test]
fn a_policy_is_no_loss_and_the_books_tell_what_it_left_at_the_end() {
    let run = Run { dir: disk_dir() };
    let line = NOISE.replace("every", "nth=7");
    let line = format!("{line} --lossless --frames {FRAMES} {}", run.options());
    run.keep_books(&ends(&line).with_code(0).stdout);
    let comparison = run.compared(0);
    assert_eq!(number(&comparison, "delivered_good"), 6);
    assert_eq!(number(&comparison, "not_archived"), 30);
    assert_eq!(number(&comparison, "after_end"), 4, "nobody tells: left, or after the end");
    let comparison = json(&format!("{} --json", run.line_with_books()));
    assert_eq!(number(&comparison, "not_archived"), 34);
    assert_eq!(comparison["books"], Value::Array(vec![]));
}

#[test]
fn books_that_are_not_equal_to_the_frame_are_told_with_their_numbers() {
    let run = Run::lossless();
    let mut books: Value = serde_json::from_slice(&fs::read(run.books()).unwrap()).unwrap();
    books["ring"]["lost"]["torn"] = 3.into();
    books["ring"]["passed"] = 37.into();
    run.keep_books(&books.to_string());
    let words = ["ring.lost.torn is 3, ledger and archive say 0", "ring.passed is 37", "say 40"];
    ends(&run.line_with_books()).refused(1, &words);
    // A loss that the books do not know.
    let run = Run::lossless();
    run.lose(12, 2, 7);
    ends(&run.line_with_books()).refused(1, &["ring.lost.torn is 0", "consumers.arch.delivered"]);
    for (text, words) in [
        ("", ["books", "--json prints"]),
        ("{\"schema\":\"circbuf.verify/1\"}", ["its schema is", "circbuf.verify/1"]),
        (
            "{\"schema\":\"circbuf.stats/1\",\"consumers\":{\"arch\":{\"enabled\":false}}}",
            ["had no archive", "--archive DIR"],
        ),
    ] {
        run.keep_books(text);
        ends(&run.line_with_books()).refused(1, &words);
    }
}

#[test]
fn what_cannot_be_compared_is_refused_and_told_how_to_mend() {
    let run = Run::lossless();
    let whole = fs::read_to_string(run.ledger()).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let refused = |text: &str, words: &[&str]| {
        fs::write(run.ledger(), text).unwrap();
        ends(&run.line()).refused(1, words);
    };
    refused("", &["ledger", "no frame"]);
    refused(&format!("{}\nnonsense\n{}\n", lines[0], lines[1]), &["line 2", "--ledger FILE"]);
    refused(&[lines[0], lines[1], lines[3]].join("\n"), &["line 3", "frame 3", "frame 2 belongs"]);
    refused(&[lines[0], lines[1], lines[0]].join("\n"), &["line 3", "two ledgers"]);
    let other = whole.replace("\"sec\":11", "\"sec\":10");
    refused(&other, &["none of its 40 frames", "different runs", "ledger"]);
    fs::remove_file(run.ledger()).unwrap();
    ends(&run.line()).refused(1, &["cannot open the ledger"]);
    ends("verify --ledger x").refused(2, &["--archive"]);
    fs::write(run.ledger(), &whole).unwrap();
    let nothing = format!("verify --archive /nonexistent --ledger {}", run.ledger().display());
    ends(&nothing).refused(1, &["/nonexistent"]);
}

#[test]
fn a_ledger_whose_last_line_is_cut_is_told_and_compared() {
    let run = Run::lossless();
    let whole = fs::read_to_string(run.ledger()).unwrap();
    fs::write(run.ledger(), &whole[..whole.len() - 30]).unwrap();
    let comparison = run.compared(0);
    assert_eq!(number(&comparison, "ledger_incomplete_line"), FRAMES);
    assert_eq!(number(&comparison, "delivered_good"), FRAMES - 1);
    assert_eq!(number(&comparison, "archive.unjudged"), 1);
    let told = ends(&run.line()).with_code(0).stdout;
    assert!(told.contains("line 40 of the ledger, the last, is not whole"), "{told}");
}
