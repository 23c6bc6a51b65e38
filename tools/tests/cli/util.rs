//! Running the program, waiting for what it does, and looking at what it left behind.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use circbuf_driver::archive::{ArchiveReader, Content, Found, INDEX_ENTRY_BYTES, IndexEntry};
use circbuf_driver::record::PAYLOAD_OFFSET;
use circbuf_emulator::ledger::{self, LedgerEntry};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// What never happens is given up after this: far longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that is a tmpfs where there is one, as is right for rings.
pub(crate) fn ring_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

pub(crate) fn disk_dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Small pictures that are quickly compressed; time is computed, so that no test waits for it.
pub(crate) const SMALL: &str = "--source synthetic:4 --width 160 --height 120 --virtual-time";

/// `circbuf` with the words of `line`, and nothing of the environment of the test.
pub(crate) fn circbuf(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_circbuf"));
    command.args(line.split_whitespace());
    let ours = std::env::vars_os().map(|(name, _)| name);
    ours.filter(|name| name.to_string_lossy().starts_with("CIRCBUF_")).for_each(|name| {
        command.env_remove(name);
    });
    command.stdin(Stdio::null());
    command
}

/// Runs `circbuf` to its end.
pub(crate) fn ends(line: &str) -> Ended {
    Running::start(circbuf(line)).end()
}

/// Runs `circbuf` as somebody for whom permissions mean something, although the tests may run as
/// root. `dir` is opened to everybody, and the program copied there: its own folder may be closed.
pub(crate) fn ends_unprivileged(dir: &Path, line: &str) -> Ended {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    if !nix::unistd::geteuid().is_root() {
        return ends(line);
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("a directory of ours");
    let program = dir.join("circbuf");
    fs::copy(env!("CARGO_BIN_EXE_circbuf"), &program).expect("room for a copy");
    let mut command = Command::new(program);
    command.args(line.split_whitespace()).uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
    Running::start(command).end()
}

/// Runs `circbuf`, which has to succeed, and reads the object that it prints.
pub(crate) fn json(line: &str) -> Value {
    ends(line).with_code(0).json()
}

/// A process that is killed if the test ends before it does.
pub(crate) struct Running {
    child: Child,
    line: String,
    stdout: Option<JoinHandle<String>>,
    stderr: Arc<Mutex<String>>,
    stderr_reader: Option<JoinHandle<()>>,
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) line: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let line = format!("{command:?}");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the program was built with this test");
        let stdout = child.stdout.take().map(|mut out| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                out.read_to_end(&mut bytes).expect("a pipe can be read");
                String::from_utf8_lossy(&bytes).into_owned()
            })
        });
        let stderr = Arc::<Mutex<String>>::default();
        let pipe = child.stderr.take().expect("it was asked for");
        let collected = Arc::clone(&stderr);
        let stderr_reader = Some(std::thread::spawn(move || collect(pipe, &collected)));
        Running { child, line, stdout, stderr, stderr_reader }
    }

    /// Starts `circbuf`.
    pub(crate) fn circbuf(line: &str) -> Running {
        Running::start(circbuf(line))
    }

    /// Waits until the program has said so on stderr.
    pub(crate) fn says(&mut self, what: &str) {
        let stderr = Arc::clone(&self.stderr);
        let told = || stderr.lock().expect("no panic holds it").clone();
        self.waits(what, || told().contains(what));
    }

    /// Waits for something that this process is to do.
    pub(crate) fn waits(&mut self, what: &str, mut is_true: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_true() {
            let exited = self.child.try_wait().expect("it is our child");
            let stderr = self.stderr.lock().expect("no panic holds it").clone();
            let state = format!("{}: {exited:?}, {stderr}", self.line);
            assert!(exited.is_none() || is_true(), "ended before {what}: {state}");
            assert!(Instant::now() < end, "never {what}: {state}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it is our child");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it with SIGSTOP, and waits until all of its threads stand still.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let pid = Pid::from_raw(self.child.id() as i32);
        let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("it is our child");
        assert_eq!(status, WaitStatus::Stopped(pid, Signal::SIGSTOP), "{}", self.line);
    }

    /// Takes the pipe to its stdin.
    pub(crate) fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("it was asked for")
    }

    /// Waits until a process that was killed is gone.
    pub(crate) fn waits_for_end(&mut self) {
        self.child.wait().expect("it is our child");
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("it is our child") {
                Some(status) => break status,
                None if Instant::now() > end => {
                    let stderr = self.stderr.lock().expect("no panic holds it").clone();
                    panic!("{} does not end: {stderr}", self.line)
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let stdout = self.stdout.take().map(|reader| reader.join().expect("it only reads"));
        if let Some(reader) = self.stderr_reader.take() {
            reader.join().expect("it only reads");
        }
        let stderr = self.stderr.lock().expect("no panic holds it").clone();
        assert!(!stderr.contains("panicked"), "{}: {stderr}", self.line);
        let line = self.line.clone();
        Ended { line, code: status.code(), stdout: stdout.unwrap_or_default(), stderr }
    }

    /// SIGINT, as Ctrl-C sends it, and the end.
    pub(crate) fn interrupt(self) -> Ended {
        self.signal(Signal::SIGINT);
        self.end()
    }
}

fn collect(pipe: ChildStderr, collected: &Mutex<String>) {
    let mut lines = BufReader::new(pipe);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        let mut collected = collected.lock().expect("no panic holds it");
        collected.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, and been waited for.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Ended {
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{}: {self:#?}", self.line);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// What it said on stderr, without what it announces at the start and what it only notes.
    pub(crate) fn complaints(&self) -> Vec<&str> {
        let announces = |line: &&str| line.starts_with("note: ") || line.contains(", ring of ");
        self.stderr.lines().filter(|line| !announces(line)).collect()
    }

    /// It was refused with this code and in one line, in which all of these words are.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}: {self:#?}", self.line);
        let complaints = self.complaints();
        assert_eq!(complaints.len(), 1, "one line: {self:#?}");
        assert!(complaints[0].starts_with("circbuf: "), "{self:#?}");
        for word in words {
            assert!(complaints[0].contains(word), "{word:?} in {self:#?}");
        }
    }
}

/// A u64 of the register page beside `ring`; 0 while there is none.
pub(crate) fn register(ring: &Path, field: usize) -> u64 {
    let mut bytes = [0; 8];
    let read = fs::File::open(registers(ring))
        .and_then(|page| page.read_exact_at(&mut bytes, field as u64));
    read.map_or(0, |()| u64::from_le_bytes(bytes))
}

pub(crate) fn registers(ring: &Path) -> PathBuf {
    ring.with_extension("regs")
}

/// All whole entries of all indexes of an archive, read as a stranger would.
pub(crate) fn index_entries(archive: &Path) -> Vec<IndexEntry> {
    let Ok(listed) = fs::read_dir(archive) else { return Vec::new() };
    let mut paths: Vec<_> = listed.map(|file| file.expect("a name").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|suffix| suffix == "idx"));
    paths.sort();
    let mut entries = Vec::new();
    for path in paths {
        let bytes = fs::read(&path).expect("an index can be read");
        let (whole, _torn) = bytes.as_chunks::<INDEX_ENTRY_BYTES>();
        entries.extend(whole.iter().map(|entry| IndexEntry::parse(entry).expect("a whole entry")));
    }
    entries
}

/// The ledger of a camera that has ended.
pub(crate) fn read_ledger(path: &Path) -> Vec<LedgerEntry> {
    let entries = ledger::read(path).expect("a ledger");
    entries.map(|entry| entry.expect("a ledger entry")).collect()
}

/// Holds every frame of an archive against the ledger, which tells the truth: time, length and
/// content, and where `numbered` the number. Returns the numbers as the ledger has them.
pub(crate) fn hold_against_ledger(archive: &Path, ledger: &Path, numbered: bool) -> Vec<u64> {
    let truth = read_ledger(ledger).into_iter().map(|entry| ((entry.sec, entry.usec), entry));
    let truth: HashMap<_, _> = truth.collect();
    let reader = ArchiveReader::open(archive).expect("an archive");
    let (mut numbers, mut record) = (Vec::new(), Vec::new());
    for found in reader.scan() {
        let Found::Record(entry) = found.expect("the archive can be read") else { continue };
        let Content::Frame { time, .. } = entry.content else { continue };
        reader.read_record(&entry, &mut record).expect("a whole record");
        let payload = &record[PAYLOAD_OFFSET..][..entry.header.length as usize];
        let truth = truth.get(&(time.sec, time.usec)).expect("no frame of another time");
        assert_eq!(truth.length, entry.header.length, "{truth:?}");
        assert_eq!(truth.crc32c, crc_fast::crc32_iscsi(payload), "torn: {truth:?}");
        assert!(!numbered || truth.number == entry.header.sequence, "{truth:?} {entry:?}");
        numbers.push(truth.number);
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    numbers
}

/// The number at a path such as `ring.lost.overrun`.
#[track_caller]
pub(crate) fn number(object: &Value, path: &str) -> u64 {
    let value = at(object, path);
    value.as_u64().unwrap_or_else(|| panic!("{path} is no number in {object:#}"))
}

/// The value at a path such as `ring.lost_is`.
#[track_caller]
pub(crate) fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    let pointer = format!("/{}", path.replace('.', "/"));
    object.pointer(&pointer).unwrap_or_else(|| panic!("no {path} in {object:#}"))
}

/// The archive is whole.
#[track_caller]
pub(crate) fn assert_verified(archive: &Path) -> Value {
    let report = json(&format!("archive verify {} --json", archive.display()));
    assert_eq!(report["clean"], true, "{report:#}");
    report
}
