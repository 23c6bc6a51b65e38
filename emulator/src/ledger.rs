//! The ledger: the truth about every frame that was written, to compare with what a driver says.
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fault::FaultSet;
use crate::model::FrameTime;

/// One frame, as one JSON line of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerEntry {
    /// Number of the frame, from 0.
    pub number: u64,
    /// Number of resets before it.
    pub epoch: u64,
    /// Cursor of its first byte.
    pub start: u64,
    /// Offset in the ring of its first byte.
    pub offset: u64,
    /// Length in bytes of the stuffed payload that was written, whatever the trailer tells; only where
    /// the damage is undetectable, as the trailer tells it.
    pub length: u32,
    /// CRC-32C of the payload of this length as it was written into the ring; 8 hexadecimal digits in
    /// JSON.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub crc32c: u32,
    /// Its time by the camera's clock, seconds since 1970; where the damage is undetectable, as the
    /// trailer tells it.
    pub sec: u32,
    /// Its time: microseconds.
    pub usec: u32,
    /// What was done to it.
    #[serde(default)]
    pub faults: FaultSet,
    /// Whether it is not as the camera meant it: it must not be handed on.
    #[serde(default)]
    pub damaged: bool,
    /// Whether a damaged frame is lawful all the same: wrong in payload, parameters or time only. The
    /// FPGA sends no checksum, so no driver can tell; handed on, it has to be as it was written.
    #[serde(default)]
    pub undetectable: bool,
}

impl LedgerEntry {
    /// The frame's time.
    #[must_use]
    pub fn time(&self) -> FrameTime {
        FrameTime { sec: self.sec, usec: self.usec }
    }
}

/// A ledger that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be made, written, opened or read.
    #[error("{path}: cannot {operation} the ledger: {source}")]
    Io {
        /// The ledger file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A line is no ledger entry.
    #[error("{path}, line {line}: no ledger entry: {source}")]
    Line {
        /// The ledger file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Where entries go: nowhere, to a file, into memory, or both of these.
#[derive(Debug, Default)]
pub struct Ledger {
    file: Option<LedgerFile>,
    entries: Option<Vec<LedgerEntry>>,
    error: Option<LedgerError>,
}

#[derive(Debug)]
struct LedgerFile {
    path: PathBuf,
    /// `None` until the first entry.
    file: Option<File>,
    line: Vec<u8>,
}

impl Ledger {
    /// Keeps nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Keeps every entry in memory (56 bytes a frame), for tests and examples.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { entries: Some(Vec::new()), ..Self::default() }
    }

    /// Streams the entries to `path`, which is replaced. Each goes there as a whole line right before
    /// its frame is written, so that a camera that is killed leaves the truth about what it wrote, and
    /// of the last one perhaps what it was about to write.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn to_file(path: &Path) -> Result<Self, LedgerError> {
        let file = File::create(path).map_err(io_error(path, "make"))?;
        let file = LedgerFile { path: path.to_owned(), file: Some(file), line: Vec::new() };
        Ok(Self { file: Some(file), ..Self::default() })
    }

    /// As [`to_file`](Self::to_file), but `path` is replaced when the first frame is written: a PCI
    /// function that is only looked at leaves the ledger of another run alone.
    #[must_use]
    pub fn to_file_later(path: &Path) -> Self {
        let file = LedgerFile { path: path.to_owned(), file: None, line: Vec::new() };
        Self { file: Some(file), ..Self::default() }
    }

    /// Whether anybody wants the entries.
    pub(crate) fn is_kept(&self) -> bool {
        self.file.is_some() || self.entries.is_some()
    }

    /// Adds an entry. After the first failure nothing more goes to the file: a ledger with a hole
    /// would accuse the driver.
    pub(crate) fn add(&mut self, entry: LedgerEntry) {
        if let Some(entries) = &mut self.entries {
            entries.push(entry);
        }
        let Some(Err(error)) = self.file.as_mut().map(|file| file.add(&entry)) else { return };
        log::warn!("{error}; the camera goes on without it");
        self.error = Some(error);
        self.file = None;
    }

    /// What is in memory, and the first failure to write the file.
    pub(crate) fn close(self) -> (Vec<LedgerEntry>, Option<LedgerError>) {
        (self.entries.unwrap_or_default(), self.error)
    }
}

impl LedgerFile {
    fn add(&mut self, entry: &LedgerEntry) -> Result<(), LedgerError> {
        self.write(entry).map_err(io_error(&self.path, "write"))
    }

    fn write(&mut self, entry: &LedgerEntry) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, entry)?;
        self.line.push(b'\n');
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::create(&self.path)?),
        };
        file.write_all(&self.line)
    }
}

/// Reads the entries of a ledger file, one at a time.
///
/// # Errors
/// The file cannot be opened; then, for each line, that it cannot be read or is no entry.
pub fn read(
    path: &Path,
) -> Result<impl Iterator<Item = Result<LedgerEntry, LedgerError>>, LedgerError> {
    let file = File::open(path).map_err(io_error(path, "open"))?;
    let path = path.to_owned();
    Ok(BufReader::new(file).lines().enumerate().map(move |(index, text)| {
        let text = text.map_err(io_error(&path, "read"))?;
        let line = index + 1;
        serde_json::from_str(&text).map_err(|source| LedgerError::Line {
            path: path.clone(),
            line,
            source,
        })
    }))
}

fn io_error(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError::Io { path, operation, source }
}

fn to_hex<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:08x}"))
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.len() == 8 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u32::from_str_radix(&text, 16)
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not 8 hexadecimal digits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: LedgerEntry = LedgerEntry {
        number: 7,
        epoch: 1,
        start: 20_019_424,
        offset: 227_552,
        length: 0x378FE,
        crc32c: 0x0A1B_2C3D,
        sec: 0x46FF_4A82,
        usec: 197_565,
        faults: FaultSet::EMPTY,
        damaged: false,
        undetectable: false,
    };
    const LINE: &str = concat!(
        r#"{"number":7,"epoch":1,"start":20019424,"offset":227552,"length":227582,"#,
        r#""crc32c":"0a1b2c3d","sec":1191135874,"usec":197565,"#,
        r#""faults":[],"damaged":false,"undetectable":false}"#
    );

    #[test]
    fn an_entry_is_one_json_line() {
        assert_eq!(serde_json::to_string(&ENTRY).unwrap(), LINE);
        assert_eq!(serde_json::from_str::<LedgerEntry>(LINE).unwrap(), ENTRY);
        for bad in ["+a1b2c3d", "0a1b2c3", "0a1b2c3dd", "0a1b2c3g"] {
            let line = LINE.replace("0a1b2c3d", bad);
            assert!(serde_json::from_str::<LedgerEntry>(&line).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_read_back_and_a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut ledger = Ledger::to_file(&path).unwrap();
        ledger.add(ENTRY);
        ledger.add(LedgerEntry { number: 8, ..ENTRY });
        let (entries, error) = ledger.close();
        assert!(entries.is_empty() && error.is_none());
        let numbers: Vec<_> = read(&path).unwrap().map(|entry| entry.unwrap().number).collect();
        assert_eq!(numbers, [7, 8]);

        std::fs::write(&path, format!("{LINE}\n{{\"number\":8")).unwrap();
        let error = read(&path).unwrap().nth(1).unwrap().unwrap_err();
        assert!(error.to_string().contains("ledger.jsonl, line 2: no ledger entry"), "{error}");
    }

    #[test]
    fn every_entry_is_in_the_file_at_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut ledger = Ledger::to_file(&path).unwrap();
        for lines in 1..=100 {
            ledger.add(ENTRY);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{LINE}\n").repeat(lines));
        }
        assert!(ledger.close().1.is_none());
    }

    #[test]
    fn a_full_disk_does_not_stop_the_camera() {
        let mut ledger = Ledger::to_file(Path::new("/dev/full")).unwrap();
        for number in 0..1000 {
            ledger.add(LedgerEntry { number, ..ENTRY });
        }
        let (_, error) = ledger.close();
        let error = error.expect("the device is full").to_string();
        assert!(error.contains("/dev/full: cannot write the ledger"), "{error}");
    }
}
