//! An archive that is written on tape, with what it promised and when; and whether a disk after a
//! power cut keeps the promise.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::super::engine::Engine;
use super::super::error::{ReadError, RecoverError};
use super::super::index::{INDEX_ENTRY_BYTES, IndexEntry};
use super::super::options::{ArchiveCounters, ArchiveOptions, Durability, Session};
use super::super::reader::ArchiveReader;
use super::super::recover::{RecoverReport, recover};
use super::super::scan::Found;
use super::super::scripted::{SESSION, Script, Scripted, frame};
use super::super::verify::verify;
use super::super::writer::Archive;
use super::tape::{Change, Fault, Faults, Tape, files, with_tape};
use super::{Chance, Files, after_cut};
use crate::clock::Moment;
use crate::loss::{Loss, LossReason};
use crate::record::RecordKind;
use crate::slab::SlabPool;

/// A record: whether it is a frame, and its sequence.
type Key = (bool, u64);

/// On tmpfs where there is one: there are thousands of disks.
pub(super) fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// An archive that is being written on tape.
pub(super) struct Recording {
    dir: TempDir,
    pool: SlabPool,
    pub(super) script: Arc<Mutex<Script>>,
    pub(super) now: Moment,
    archive: Archive,
    indexed: bool,
    lazy: bool,
    sequence: u64,
    promised: Vec<(usize, Key)>,
}

/// What came of it.
pub(super) struct Story {
    pub(super) tape: Tape,
    /// What was reported as durable, and when.
    promised: Vec<(usize, Key)>,
    /// Bytes of all records that were ever to be written.
    records: HashSet<Arc<[u8]>>,
    pub(super) counters: ArchiveCounters,
}

impl Recording {
    /// `None` if the archive cannot be begun.
    pub(super) fn start(options: ArchiveOptions, held: bool, faults: Faults) -> Option<Recording> {
        let (dir, script, now) = (directory(), Arc::<Mutex<Script>>::default(), Moment::default());
        let engine = match held {
            true => Engine::Scripted(Scripted::new(&script)),
            false => Engine::plain(),
        };
        let (indexed, lazy) = (options.index, options.durability == Durability::None);
        let session = Session { session: SESSION, camera: 1, ..Session::default() };
        Tape::start(dir.path(), faults);
        let Ok(archive) = Archive::with_engine(dir.path(), session, options, engine, now) else {
            Tape::stop();
            return None;
        };
        let (pool, promised) = (SlabPool::new(16 << 20), Vec::new());
        Some(Recording { dir, pool, script, now, archive, indexed, lazy, sequence: 0, promised })
    }

    /// Does something with the archive, and notes what it has promised since.
    fn step(&mut self, act: impl FnOnce(&mut Archive)) {
        act(&mut self.archive);
        self.note();
    }

    pub(super) fn append(&mut self, length: u32) {
        let (frame, now) = (frame(&self.pool, self.sequence, length), self.now);
        self.sequence += 1;
        self.step(|archive| archive.append(frame, now));
    }

    pub(super) fn lose(&mut self, count: u64) {
        let (reason, exact, sequence) = (LossReason::Overrun, true, self.sequence);
        let loss = Loss { reason, refusal: None, sequence, count, exact, first: None, last: None };
        self.sequence += count;
        let now = self.now;
        self.step(|archive| archive.append_loss(&loss, now));
    }

    pub(super) fn poll(&mut self) {
        let now = self.now;
        self.step(|archive| archive.poll(now));
    }

    pub(super) fn seal(&mut self) {
        let now = self.now;
        self.step(|archive| archive.seal(now));
    }

    /// The index tells; the frames it does not name, [`Archive::drain_durable`] does.
    fn note(&mut self) {
        let now = with_tape(|tape| tape.now).unwrap();
        let counters = self.archive.counters();
        let known: BTreeSet<Key> = self.promised.iter().map(|(_, key)| *key).collect();
        let detected = self.archive.drain_durable().map(|detected_ns| (true, detected_ns - 10));
        let mut new: BTreeSet<Key> = detected.collect();
        for (name, bytes) in files(self.dir.path()) {
            if name.ends_with(".idx") {
                new.extend(entries(&bytes).map(|entry| key(entry.kind, entry.sequence)));
            }
        }
        self.promised.extend(new.difference(&known).map(|key| (now, *key)));
        let frames = self.promised.iter().filter(|(_, (is_frame, _))| *is_frame).count() as u64;
        assert!(frames <= counters.durable, "what is told is counted");
        if counters.io_errors == 0 && (self.indexed || !self.lazy) {
            assert_eq!(frames, counters.durable, "what is counted is told");
        }
    }

    /// Ends the recording, sealed or as it is.
    pub(super) fn end(mut self, seal: bool) -> Story {
        let now = self.now;
        if seal {
            self.step(|archive| archive.close(now));
        }
        let counters = self.archive.counters();
        drop(self.archive);
        let tape = Tape::stop();
        let records = tape.events.iter().filter_map(|event| match &event.change {
            Change::Write { bytes, .. } => Some(Arc::clone(bytes)),
            _ => None,
        });
        Story { records: records.collect(), tape, promised: self.promised, counters }
    }
}

fn key(kind: RecordKind, sequence: u64) -> Key {
    (kind == RecordKind::Frame, sequence)
}

/// The entries of an index that can be read.
fn entries(index: &[u8]) -> impl Iterator<Item = IndexEntry> {
    let whole = index.as_chunks::<INDEX_ENTRY_BYTES>().0.iter();
    whole.filter_map(|entry| IndexEntry::parse(entry).ok())
}

/// Makes a directory hold these files and no others.
fn put(dir: &Path, disk: &Files) {
    for name in files(dir).keys().filter(|name| !disk.contains_key(*name)) {
        fs::remove_file(dir.join(name)).unwrap();
    }
    for (name, bytes) in disk {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

/// What a proof has seen.
#[derive(Default)]
pub(super) struct Seen {
    /// Different disks.
    pub(super) disks: usize,
    /// Different disks on which recovery itself was cut.
    pub(super) again: usize,
    pub(super) cut: usize,
    pub(super) erased: usize,
    /// Disks with whole records that were not promised.
    pub(super) more: usize,
    known: HashSet<(usize, u64)>,
}

impl Story {
    /// Cuts the power at each point, with every chance or so many, and recovers.
    pub(super) fn prove(
        &self,
        chances: Option<(u64, usize)>,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let dir = directory();
        seen.known.clear();
        for time in 0..=self.tape.now {
            self.prove_at(time, chances, dir.path(), seen)?;
        }
        Ok(())
    }

    pub(super) fn prove_at(
        &self,
        time: usize,
        chances: Option<(u64, usize)>,
        dir: &Path,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let mut chance = chances.map_or_else(Chance::all, |(seed, _)| Chance::some(seed, time));
        let promised = self.promised_at(time);
        for round in 0.. {
            let disk = after_cut(&self.tape, time, &mut chance);
            if seen.is_new(promised.len(), &disk) {
                let told = |what| format!("cut at {time}, round {round}: {what}");
                self.keeps(&promised, &disk, dir, seen).map_err(told)?;
                if seen.disks.is_multiple_of(97) {
                    self.keeps_through(&promised, &disk, dir, seen).map_err(told)?;
                }
            }
            let more = chances.map_or_else(|| chance.next(), |(_, rounds)| round + 1 < rounds);
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// Promises one happening too early.
    pub(super) fn promise_early(&mut self) {
        self.promised.iter_mut().for_each(|(at, _)| *at -= 3);
    }

    fn promised_at(&self, time: usize) -> BTreeSet<Key> {
        self.promised.iter().filter(|(at, _)| *at <= time).map(|(_, key)| *key).collect()
    }

    /// Whether the index of a disk names only what is there, and recovery gives what was promised.
    fn keeps(
        &self,
        promised: &BTreeSet<Key>,
        disk: &Files,
        dir: &Path,
        seen: &mut Seen,
    ) -> Result<(), String> {
        seen.disks += 1;
        put(dir, disk);
        self.index_is_true(disk)?;
        let planned = seen.disks.is_multiple_of(8).then(|| recover(dir, true, |_, _| {}));
        ensure!(planned.is_none() || files(dir) == *disk, "a dry run changes something");
        let report = match recover(dir, false, |_, _| {}) {
            Err(RecoverError::Read(ReadError::NotAnArchive { .. })) if promised.is_empty() => {
                return Ok(());
            }
            report => report.map_err(|error| error.to_string())?,
        };
        if let Some(planned) = planned {
            let planned = planned.map_err(|error| error.to_string())?;
            ensure!(RecoverReport { dry_run: false, ..planned } == report, "planned otherwise");
        }
        ensure!(report.damaged.problems_total == 0, "{:?}", report.damaged);
        seen.cut += usize::from(!report.cuts.is_empty());
        seen.erased += usize::from(!report.erased.is_empty());
        self.is_sound(promised, dir, seen)
    }

    fn index_is_true(&self, disk: &Files) -> Result<(), String> {
        for (name, index) in disk.iter().filter(|(name, _)| name.ends_with(".idx")) {
            for entry in entries(index) {
                let segment = disk.get(&name.replace(".idx", ".cbs")).map_or(&[][..], |s| &s[..]);
                let record = segment.get(entry.offset as usize..entry.end() as usize);
                let is_there = record.is_some_and(|record| self.records.contains(record));
                let sequence = entry.sequence;
                ensure!(is_there, "{name} names sequence {sequence}, which is not there");
            }
        }
        Ok(())
    }

    /// Whether a recovered archive is whole, holds what was promised, and needs no recovery.
    fn is_sound(
        &self,
        promised: &BTreeSet<Key>,
        dir: &Path,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let found = self.read_all(dir)?;
        let gone: Vec<_> = promised.difference(&found).collect();
        ensure!(gone.is_empty(), "promised and gone: {gone:?}");
        seen.more += usize::from(found.len() > promised.len());
        let verified = verify(dir, |_, _| {}).map_err(|error| error.to_string())?;
        let left = verified.unindexed + verified.tail_bytes;
        ensure!(verified.is_clean() && left == 0, "not clean: {verified:?}");
        let disk = files(dir);
        let again = recover(dir, false, |_, _| {}).map_err(|error| error.to_string())?;
        let told = again.cuts.len() + again.erased.len() + again.indexes_rebuilt as usize;
        ensure!(told == 0 && files(dir) == disk, "a second recovery does more: {again:?}");
        Ok(())
    }

    fn read_all(&self, dir: &Path) -> Result<BTreeSet<Key>, String> {
        let archive = ArchiveReader::open(dir).map_err(|error| error.to_string())?;
        let (mut found, mut record) = (BTreeSet::new(), Vec::new());
        for item in archive.scan() {
            let entry = match item.map_err(|error| error.to_string())? {
                Found::Record(entry) => entry,
                Found::Damaged(extent) if extent.zeros => continue,
                other => return Err(format!("left: {other:?}")),
            };
            archive.read_record(&entry, &mut record).map_err(|error| error.to_string())?;
            let sequence = entry.header.sequence;
            ensure!(self.records.contains(&record[..]), "sequence {sequence} was never written so");
            found.insert(key(entry.header.kind, sequence));
        }
        Ok(found)
    }

    /// Cuts the power again at each point of the recovery, or lets one of its operations fail, and
    /// recovers once more.
    fn keeps_through(
        &self,
        promised: &BTreeSet<Key>,
        disk: &Files,
        dir: &Path,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let Some(tape) = recovery(disk, dir, None) else { return Ok(()) };
        let mut left: Vec<Files> = Vec::new();
        for time in 0..=tape.now {
            left.extend((0..6).map(|seed| after_cut(&tape, time, &mut Chance::some(seed, time))));
        }
        for failing in 0..tape.ops.len() {
            if let Some(failed) = recovery(disk, dir, Some(failing)) {
                left.push(files(dir));
                left.push(after_cut(&failed, failed.now, &mut Chance::some(7, failing)));
            }
        }
        for (round, disk) in left.iter().enumerate() {
            let what = |what| format!("recovery cut or failed, round {round}: {what}");
            self.keeps(promised, disk, dir, seen).map_err(what)?;
            seen.again += 1;
        }
        Ok(())
    }
}

/// A recovery on tape, with one operation that fails; `None` if there was nothing to be done.
fn recovery(disk: &Files, dir: &Path, failing: Option<usize>) -> Option<Tape> {
    put(dir, disk);
    Tape::start(
        dir,
        Box::new(move |at, _| (Some(at) == failing).then_some(Fault::Errno(libc::EIO))),
    );
    let recovered = recover(dir, false, |_, _| {});
    let tape = Tape::stop();
    assert!(failing.is_none() || recovered.is_err(), "a failure is told");
    (!tape.ops.is_empty()).then_some(tape)
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Seen { disks, again, cut, erased, more, .. } = self;
        write!(
            f,
            "{disks} disks, {again} of them after a recovery that was cut or failed: {cut} with a cut \
             tail, {erased} with something erased, {more} with more than was promised"
        )
    }
}

impl Seen {
    fn is_new(&mut self, promised: usize, disk: &Files) -> bool {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        disk.hash(&mut hasher);
        self.known.insert((promised, hasher.finish()))
    }
}
