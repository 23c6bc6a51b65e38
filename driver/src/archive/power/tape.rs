//! What an archive does to its disk, in the order in which it does it, and from when on it is
//! certain to survive a power cut.
//!
//! The disk is as bad as the interfaces allow. A write or a change of a file's size is certain
//! after a successful sync of the file that began when it was complete, a name after a sync of the
//! directory; until then any part of it may be there. After a sync that failed, what it should have
//! made certain never will be, whatever later syncs say: the kernel reports an error once and takes
//! the pages for clean.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// An operation that may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Create,
    Rename,
    Remove,
    Write,
    WriteAll,
    Reserve,
    SetLen,
    SyncData,
    SyncAll,
    SyncNames,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// With this error; of a write, half is done.
    Errno(i32),
    /// Only half of it is written.
    Short,
    /// A sync says that all is well, and it is not.
    Lie,
}

/// Something done to the disk.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { file: u32, offset: u64, bytes: Arc<[u8]> },
    SetLen { file: u32, bytes: u64 },
    Reserve { file: u32, end: u64 },
    Link { name: String, file: u32 },
    Rename { from: String, to: String, file: u32 },
    Unlink { name: String },
}

impl Change {
    /// The file whose sync makes it certain; none for the directory.
    fn file(&self) -> Option<u32> {
        match self {
            Change::Write { file, .. }
            | Change::SetLen { file, .. }
            | Change::Reserve { file, .. } => Some(*file),
            Change::Link { .. } | Change::Rename { .. } | Change::Unlink { .. } => None,
        }
    }

    fn is_write(&self) -> bool {
        matches!(self, Change::Write { .. })
    }
}

/// A change and its times, counted in happenings on the tape.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) change: Change,
    pub(super) begun: usize,
    /// Complete, so that the next sync holds for it.
    complete: bool,
    pub(super) certain: Option<usize>,
    /// A sync that should have made it certain failed.
    doubtful: bool,
}

/// The tape.
pub(super) struct Tape {
    /// The files that were there before.
    pub(super) before: BTreeMap<String, Vec<u8>>,
    pub(super) events: Vec<Event>,
    /// Happenings so far.
    pub(super) now: usize,
    names: BTreeMap<String, u32>,
    files: u32,
    faults: Faults,
    pub(super) ops: Vec<Op>,
}

/// What becomes of an operation, by its number and kind.
pub(super) type Faults = Box<dyn FnMut(usize, Op) -> Option<Fault>>;

thread_local! {
    static TAPE: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// Does something with the tape of this thread if there is one.
pub(super) fn with_tape<T>(act: impl FnOnce(&mut Tape) -> T) -> Option<T> {
    TAPE.with_borrow_mut(|tape| tape.as_mut().map(act))
}

fn name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned()
}

/// The plain files of a directory.
pub(super) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let paths = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    paths.map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

impl Tape {
    /// From here on, what this thread's archives do in `dir` is on tape.
    pub(super) fn start(dir: &Path, faults: Faults) {
        let before = files(dir);
        let names: BTreeMap<_, _> = before.keys().cloned().zip(0..).collect();
        let files = names.len() as u32;
        let (events, now, ops) = (Vec::new(), 0, Vec::new());
        let tape = Tape { before, events, now, names, files, faults, ops };
        TAPE.with_borrow_mut(|running| assert!(running.replace(tape).is_none(), "one at a time"));
    }

    pub(super) fn stop() -> Tape {
        TAPE.take().expect("a tape runs")
    }

    pub(super) fn fault(&mut self, op: Op) -> Option<Fault> {
        self.ops.push(op);
        (self.faults)(self.ops.len() - 1, op)
    }

    /// Lets index entries be written before the sync of what they name is over.
    pub(super) fn hasten_names(&mut self) {
        let named = self.names.iter().filter(|(name, _)| name.ends_with(".idx"));
        let indexes: Vec<u32> = named.map(|(_, number)| *number).collect();
        for event in &mut self.events {
            let file = event.change.file();
            if event.change.is_write() && file.is_some_and(|file| indexes.contains(&file)) {
                event.begun -= 2;
            }
        }
    }

    pub(super) fn number(&self, path: &Path) -> Option<u32> {
        self.names.get(&name(path)).copied()
    }

    pub(super) fn push(&mut self, change: Change, complete: bool) {
        self.now += 1;
        let (begun, certain, doubtful) = (self.now, None, false);
        self.events.push(Event { change, begun, complete, certain, doubtful });
    }

    /// A write is complete, whether its beginning is on the tape or not.
    pub(super) fn wrote(&mut self, file: u32, offset: u64, bytes: &[u8]) {
        let begun = self.events.iter_mut().rev().find(|event| match &event.change {
            Change::Write { file: of, offset: at, bytes: what } => {
                !event.complete && (*of, *at, &what[..]) == (file, offset, bytes)
            }
            _ => false,
        });
        match begun {
            Some(event) => event.complete = true,
            None => self.push(Change::Write { file, offset, bytes: bytes.into() }, true),
        }
    }

    pub(super) fn create(&mut self, path: &Path) -> Option<u32> {
        let (name, number) = (name(path), self.files);
        self.files += 1;
        self.names.insert(name.clone(), number);
        self.push(Change::Link { name, file: number }, true);
        Some(number)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) {
        let (from, to) = (name(from), name(to));
        let file = self.names.remove(&from).expect("the file was made on tape");
        self.names.insert(to.clone(), file);
        self.push(Change::Rename { from, to, file }, true);
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.names.remove(&name(path));
        self.push(Change::Unlink { name: name(path) }, true);
    }

    pub(super) fn synced(&mut self, op: Op, file: Option<u32>) {
        self.now += 1;
        for event in &mut self.events {
            // A sync of the data alone may leave the file as long as it was.
            let covered = op != Op::SyncData || event.change.is_write();
            if event.change.file() == file && covered && event.complete && !event.doubtful {
                event.certain.get_or_insert(self.now);
            }
        }
    }

    pub(super) fn sync_failed(&mut self, file: Option<u32>) {
        self.now += 1;
        for event in &mut self.events {
            event.doubtful |= event.change.file() == file && event.certain.is_none();
        }
    }
}
