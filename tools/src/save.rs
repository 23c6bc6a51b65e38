//! Saves an image of a ring, live or not, that all tools read again.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use circbuf_abi::registers::{RESERVED, WRITTEN};

use circbuf_driver::device::registers_path;

use crate::ring_file::{ReadError, RingCopy, mark_ended, u64_at};

/// Why no image was saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The ring cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The image cannot be written. What exists is never written over.
    #[error("{path}: saving the image failed: {source}; --save takes the name of a new file", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// Bytes of the ring, or as many as there are of it.
    pub ring_bytes: u64,
    /// Bytes that the writer may have touched while the image was taken; `None` if the ring has
    /// no counters. The frames in them are not sound in the image.
    pub moved_bytes: Option<u64>,
}

/// Copies a ring to the new file `to` and, if it has a register page, that to `to` with `.regs`
/// behind: with the counters between which the image was taken, and in the state "ended".
///
/// # Errors
/// If the ring cannot be read, or a file cannot be written or exists already.
pub fn save(ring: &Path, to: &Path) -> Result<Saved, SaveError> {
    let copy = RingCopy::read(ring)?;
    let mut moved_bytes = None;
    // First the page: a ring file that has its name is complete.
    if let Some(mut page) = copy.registers {
        mark_ended(&mut page);
        moved_bytes = Some(u64_at(&page, RESERVED).saturating_sub(u64_at(&page, WRITTEN)));
        write_new(&registers_path(to), page.as_slice())?;
    }
    write_new(to, &copy.bytes)?;
    Ok(Saved { ring_bytes: copy.bytes.len() as u64, moved_bytes })
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), SaveError> {
    let open = OpenOptions::new().write(true).create_new(true).open(path);
    let write = open.and_then(|mut file| file.write_all(bytes));
    write.map_err(|source| SaveError::Write { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use circbuf_abi::registers::{
        MAGIC, MAGIC_VALUE, PAGE_BYTES, RING_BYTES, STATE, STATE_ENDED, STATE_RUNNING, VERSION,
    };

    use super::*;

    fn page(ring_bytes: u64, written: u64) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        page[VERSION] = 1;
        page[STATE] = STATE_RUNNING as u8;
        let words = [(MAGIC, MAGIC_VALUE), (RING_BYTES, ring_bytes), (WRITTEN, written)];
        for (field, value) in words.into_iter().chain([(RESERVED, written + 64)]) {
            page[field..field + 8].copy_from_slice(&value.to_le_bytes());
        }
        page
    }

    #[test]
    fn an_image_has_the_ring_s_bytes_and_a_page_that_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (ring, image) = (dir.path().join("r"), dir.path().join("i"));
        std::fs::write(&ring, [7; 8192]).unwrap();
        std::fs::write(dir.path().join("r.regs"), page(8192, 96)).unwrap();
        let saved = save(&ring, &image).unwrap();
        assert_eq!(saved, Saved { ring_bytes: 8192, moved_bytes: Some(64) });
        assert_eq!(std::fs::read(&image).unwrap(), [7; 8192]);
        let saved_page = std::fs::read(dir.path().join("i.regs")).unwrap();
        assert_eq!(saved_page[STATE], STATE_ENDED as u8);
        assert_eq!(saved_page[STATE + 1..], page(8192, 96)[STATE + 1..]);
    }

    #[test]
    fn nothing_that_exists_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let ring = dir.path().join("r");
        std::fs::write(&ring, [7; 64]).unwrap();
        let error = save(&ring, &ring).unwrap_err().to_string();
        assert!(error.contains("exists"), "{error}");
        assert_eq!(std::fs::read(&ring).unwrap(), [7; 64]);
    }

    #[test]
    fn a_page_of_a_smaller_ring_is_left_aside_and_that_of_a_cut_one_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (ring, image) = (dir.path().join("r"), dir.path().join("i"));
        std::fs::write(&ring, [7; 4096]).unwrap();
        std::fs::write(dir.path().join("r.regs"), page(64, 96)).unwrap();
        assert_eq!(save(&ring, &image).unwrap().moved_bytes, None);
        assert!(!dir.path().join("i.regs").exists());
        std::fs::write(dir.path().join("r.regs"), page(8192, 96)).unwrap();
        let cut = dir.path().join("c");
        let saved = Saved { ring_bytes: 4096, moved_bytes: Some(64) };
        assert_eq!(save(&ring, &cut).unwrap(), saved);
        assert!(dir.path().join("c.regs").exists());
    }
}
