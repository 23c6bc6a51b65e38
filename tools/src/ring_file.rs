//! Reads a ring into memory, with the counters of its register page.
//!
//! This is for forensics: the driver maps a ring, and copies no more of it than frames.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use circbuf_abi::registers::{
    COMPLETE, EPOCH, FRAMES, MAGIC, MAGIC_VALUE, MAX_SLOT_BYTES, PAGE_BYTES, RESERVED, RING_BYTES,
    RING_DEVICE, RING_INODE, STATE, STATE_ENDED, UPDATE, VERSION, VERSION_VALUE, WRITTEN,
};
use circbuf_abi::ring::CHUNK_BYTES;
use circbuf_driver::device::registers_path;
use circbuf_driver::forensics::{NoRing, RingImage, Writer};
/// Larger files are not taken for rings: `/dev/zero` has no end.
pub use circbuf_emulator::model::RING_BYTES_MAX;

/// A page that changes under the reader is read again this often.
const PAGE_READS_MAX: usize = 1000;

/// Why a ring could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be opened.
    #[error("{path}: {source}; name a ring file, a device or an archive segment that you may read", path = path.display())]
    Open {
        /// What was to be opened.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It can be opened, but not read.
    #[error("{path}: reading failed: {source}", path = path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is a pipe, a socket or a block device.
    #[error("{path} is neither a file nor a character device", path = path.display())]
    Kind {
        /// What it is called.
        path: PathBuf,
    },
    /// It is a directory.
    #[error("{path} is a directory; name a ring file, a device or an archive segment", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing is in it.
    #[error("{path} is empty; a ring that is being made has its size before it has its name", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// More than any ring has.
    #[error("{path} has more than {RING_BYTES_MAX} bytes, and is no archive segment", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Its size is that of no ring.
    #[error("{path}: {source}", path = path.display())]
    NoRing {
        /// The file.
        path: PathBuf,
        /// Which size it has.
        source: NoRing,
    },
}

impl ReadError {
    /// The program's exit code: 5 where there is no such ring or no access, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            ReadError::Read { .. } => 1,
            _ => 5,
        }
    }
}

/// The bytes of a ring and what its register page said.
#[derive(Debug)]
pub struct RingCopy {
    /// All of the ring.
    pub bytes: Vec<u8>,
    /// The register page, if there is one that fits: `written`, `complete` and `frames` as they
    /// were before the copy, all else as it was after it.
    pub registers: Option<Box<[u8; PAGE_BYTES]>>,
    /// Size of the ring as the register page tells it, or whoever knows: there may be fewer bytes,
    /// if the file was cut. `None` if nobody tells.
    pub ring_bytes: Option<u64>,
}

impl RingCopy {
    /// Reads all of a ring, which may be written meanwhile.
    ///
    /// # Errors
    /// If it cannot be read, is empty, or larger than any ring. A register page that does not fit
    /// is left aside with a warning in the log.
    pub fn read(path: &Path) -> Result<RingCopy, ReadError> {
        let before = read_page(path);
        let bytes = read_bytes(path)?;
        let registers = before.and_then(|before| {
            let page = join(&before, read_page(path)?);
            if page.is_none() {
                log::warn!(
                    "{}: reset while it was read; its counters are left aside",
                    path.display()
                );
            }
            page.filter(|page| fits(page, bytes.len() as u64, path))
        });
        let ring_bytes = registers.as_ref().map(|page| u64_at(page, RING_BYTES));
        Ok(RingCopy { bytes, registers, ring_bytes })
    }

    /// The image of the ring, judged by the counters as well where there are any.
    ///
    /// # Errors
    /// If the size is that of no ring.
    pub fn into_image(self, path: &Path) -> Result<RingImage, ReadError> {
        let image = RingImage::beginning(self.bytes, self.ring_bytes)
            .map_err(|source| ReadError::NoRing { path: path.to_path_buf(), source })?;
        let Some(page) = self.registers else { return Ok(image) };
        let [epoch, written, reserved, complete, frames] =
            [EPOCH, WRITTEN, RESERVED, COMPLETE, FRAMES].map(|field| u64_at(&page, field));
        let writer = Writer { epoch, written, reserved, complete, frames };
        Ok(image.with_writer(writer))
    }
}

/// Opens a file for reading, directories excepted.
///
/// # Errors
/// If it is missing, not readable, or a directory.
pub fn open(path: &Path) -> Result<File, ReadError> {
    let failed = |source| ReadError::Open { path: path.to_path_buf(), source };
    // A pipe without a writer would otherwise hold up the open for ever.
    let file = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if kind.is_dir() {
        return Err(ReadError::Directory { path: path.to_path_buf() });
    }
    match kind.is_file() || kind.is_char_device() {
        true => Ok(file),
        false => Err(ReadError::Kind { path: path.to_path_buf() }),
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ReadError> {
    let file = open(path)?;
    let failed = |source| ReadError::Read { path: path.to_path_buf(), source };
    let too_large = || ReadError::TooLarge { path: path.to_path_buf() };
    // A camera's node tells no size, but ends.
    let told = file.metadata().map_err(failed)?.len();
    if told > RING_BYTES_MAX {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(told as usize + 1);
    file.take(RING_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 {
        0 => Err(ReadError::Empty { path: path.to_path_buf() }),
        count if count > RING_BYTES_MAX => Err(too_large()),
        _ => Ok(bytes),
    }
}

/// The register page beside a ring, at a moment when its counters belonged together.
fn read_page(ring: &Path) -> Option<Box<[u8; PAGE_BYTES]>> {
    let path = registers_path(ring);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            log::warn!("{}: {error}; reading the ring without its counters", path.display());
            return None;
        }
    };
    let mut page = Box::new([0; PAGE_BYTES]);
    for _ in 0..PAGE_READS_MAX {
        let mut again = [0; 8];
        let read = file
            .read_exact_at(page.as_mut_slice(), 0)
            .and_then(|()| file.read_exact_at(&mut again, UPDATE as u64));
        if let Err(error) = read {
            let why = match error.kind() {
                ErrorKind::UnexpectedEof => format!("cut short of its {PAGE_BYTES} bytes"),
                _ => error.to_string(),
            };
            log::warn!("{}: {why}; reading the ring without its counters", path.display());
            return None;
        }
        let update = u64_at(&page, UPDATE);
        if update.is_multiple_of(2) && update == u64::from_le_bytes(again) {
            return Some(page);
        }
    }
    log::warn!("{}: never at rest; reading the ring without its counters", path.display());
    None
}

/// What is certain of an image that was taken between both pages.
fn join(
    before: &[u8; PAGE_BYTES],
    mut after: Box<[u8; PAGE_BYTES]>,
) -> Option<Box<[u8; PAGE_BYTES]>> {
    if u64_at(before, EPOCH) != u64_at(&after, EPOCH) {
        return None;
    }
    for field in [WRITTEN, COMPLETE, FRAMES] {
        after[field..field + 8].copy_from_slice(&before[field..field + 8]);
    }
    Some(after)
}

fn fits(page: &[u8; PAGE_BYTES], ring_bytes: u64, path: &Path) -> bool {
    let path = registers_path(path);
    let version = u32::from_le_bytes([0, 1, 2, 3].map(|byte| page[VERSION + byte]));
    if u64_at(page, MAGIC) != MAGIC_VALUE || version != VERSION_VALUE {
        log::warn!("{} is no register page; reading the ring without its counters", path.display());
        return false;
    }
    let told = u64_at(page, RING_BYTES);
    if told < ring_bytes || told > RING_BYTES_MAX || !told.is_multiple_of(CHUNK_BYTES as u64) {
        log::warn!(
            "{} is that of a ring of {told} bytes, but this one has {ring_bytes}; reading it without its counters",
            path.display()
        );
        return false;
    }
    if !agree(page) {
        log::warn!(
            "{}: its counters contradict themselves; reading the ring without them",
            path.display()
        );
        return false;
    }
    true
}

/// Whether the counters can be those of one device, by what the register page promises of them. The driver
/// is content with less: it only goes on from where it is, and an image has to be explained as a whole.
fn agree(page: &[u8; PAGE_BYTES]) -> bool {
    let [written, reserved, complete, frames, max_slot_bytes] =
        [WRITTEN, RESERVED, COMPLETE, FRAMES, MAX_SLOT_BYTES].map(|field| u64_at(page, field));
    complete.is_multiple_of(CHUNK_BYTES as u64)
        && complete <= written
        && written <= reserved
        && reserved.max(frames) <= u64::MAX / 2
        && complete <= frames.saturating_mul(max_slot_bytes)
}

/// Makes the page that of an image, in which nobody writes any more.
pub(crate) fn mark_ended(page: &mut [u8; PAGE_BYTES]) {
    page[STATE..STATE + 4].copy_from_slice(&STATE_ENDED.to_le_bytes());
    // The image is another file, and nobody will replace it.
    page[RING_DEVICE..RING_INODE + 8].fill(0);
}

pub(crate) fn u64_at(page: &[u8; PAGE_BYTES], field: usize) -> u64 {
    u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| page[field + byte]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ring_is_refused_by_name_and_with_its_exit_code() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        let refused = |path: &Path| {
            let read = RingCopy::read(path).and_then(|copy| copy.into_image(path));
            let error = read.unwrap_err();
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
            (error.exit_code(), error.to_string())
        };
        assert_eq!(refused(&path).0, 5);
        assert_eq!(refused(dir.path()).0, 5);
        std::fs::write(&path, []).unwrap();
        assert_eq!(refused(&path).0, 5);
        std::fs::write(&path, [0; 63]).unwrap();
        let (code, message) = refused(&path);
        assert!(code == 5 && message.contains("63 bytes are no ring"), "{message}");
    }

    #[test]
    fn a_reset_between_both_pages_leaves_no_counters() {
        let before = [0; PAGE_BYTES];
        let mut after = Box::new(before);
        assert!(join(&before, after.clone()).is_some());
        after[EPOCH] = 1;
        assert!(join(&before, after).is_none());
    }

    #[test]
    fn counters_of_no_device_are_left_aside() {
        let page = |counters: [u64; 4]| {
            let mut page = [0; PAGE_BYTES];
            page[MAX_SLOT_BYTES..MAX_SLOT_BYTES + 8].copy_from_slice(&1024_u64.to_le_bytes());
            for (field, value) in [WRITTEN, RESERVED, COMPLETE, FRAMES].into_iter().zip(counters) {
                page[field..field + 8].copy_from_slice(&value.to_le_bytes());
            }
            page
        };
        let lawful = [2048, 3072, 2048, 2];
        assert!(agree(&page([0; 4])) && agree(&page(lawful)));
        // Of written, reserved, complete and frames one at a time is a lie.
        for (lie, value) in [
            (0, 2047),
            (0, 3073),
            (1, 2047),
            (1, u64::MAX - 31),
            (2, 2047),
            (2, 2080),
            (3, 1),
            (3, u64::MAX),
        ] {
            let mut counters = lawful;
            counters[lie] = value;
            assert!(!agree(&page(counters)), "{counters:?}");
        }
    }

    #[test]
    fn counters_are_those_from_before_and_the_reservation_that_from_after() {
        let (mut before, mut after) = ([0; PAGE_BYTES], Box::new([0; PAGE_BYTES]));
        for field in [WRITTEN, RESERVED, COMPLETE, FRAMES] {
            before[field] = 1;
            after[field] = 2;
        }
        let page = join(&before, after).unwrap();
        let fields = [WRITTEN, COMPLETE, FRAMES, RESERVED].map(|field| u64_at(&page, field));
        assert_eq!(fields, [1, 1, 1, 2]);
    }
}
