//! The hex dump of a ring, as `test_mmap` printed it on the camera, and what forensics say about
//! every stretch of it.

mod listing;
mod report;
mod segment;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use circbuf_abi::ring::RING_BYTES_ALIGN;
use circbuf_driver::forensics::{Found, RingImage, Survey};
use clap::Args;

use crate::ring_file::{RING_BYTES_MAX, ReadError, RingCopy};
use crate::save::{self, SaveError};
use crate::stdout;
use listing::Listing;
use segment::Segment;

/// Dump the frames of a ring in hex, by word address.
#[derive(Debug, Clone, Default, Args)]
pub struct DumpArgs {
    /// Ring file (live ones too), camera node, or archive segment (.cbs)
    pub ring: PathBuf,
    /// Name the fields of headers and trailers beside the rows
    #[arg(long, conflicts_with_all = ["json", "check"])]
    pub annotate: bool,
    /// Print one JSON object instead of hex, with every frame and every stretch of the ring
    #[arg(long)]
    pub json: bool,
    /// Tell of every stretch of the ring what it is (a whole frame, a torn one and by which, a stale
    /// rest, never used, ...), and exit with 4 if bytes contradict each other in a way that no
    /// overwriting explains
    #[arg(long)]
    pub check: bool,
    /// Size of the whole ring, if the file was cut and no register page beside it tells
    #[arg(long, value_name = "BYTES", value_parser = crate::size::parse)]
    pub ring_bytes: Option<u64>,
    /// Only the frame with this number, counted from 0 in the order of the ring
    #[arg(long, value_name = "N")]
    pub frame: Option<usize>,
    /// Save an image of the ring to this new file (and its register page beside it) instead of dumping it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["annotate", "json", "check", "frame", "ring_bytes"])]
    pub save: Option<PathBuf>,
}

/// How a dump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All was printed, and nothing contradicts anything, or was not asked about it.
    Sound,
    /// `--check` found bytes that no overwriting explains.
    Corrupt,
}

impl Outcome {
    /// The program's exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Outcome::Sound => 0,
            Outcome::Corrupt => 4,
        }
    }
}

/// Why there is no dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The ring cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The image cannot be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The size that was told cannot be that of this ring.
    #[error("{path}: --ring-bytes {told}: {why}", path = path.display())]
    RingBytes {
        /// What was read.
        path: PathBuf,
        /// As told.
        told: u64,
        /// Why not, and what would do.
        why: String,
    },
    /// There is nothing to print.
    #[error("{path}: no whole frame in {bytes} bytes; {why}", path = path.display())]
    NoFrame {
        /// What was read.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What is there instead.
        why: &'static str,
    },
    /// The number that was asked for is too high.
    #[error("{path}: no frame {asked}; {count} were found, counted from 0", path = path.display())]
    FrameNumber {
        /// What was read.
        path: PathBuf,
        /// As asked.
        asked: usize,
        /// How many there are.
        count: usize,
    },
    /// What was found cannot be printed.
    #[error("writing to stdout failed: {0}")]
    Stdout(#[from] io::Error),
}

impl DumpError {
    /// The program's exit code: 2 for a size that cannot be, 4 where no frame is, 5 without access, 1
    /// otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            DumpError::Read(error) | DumpError::Save(SaveError::Read(error)) => error.exit_code(),
            DumpError::RingBytes { .. } => 2,
            DumpError::NoFrame { .. } => 4,
            _ => 1,
        }
    }
}

/// Runs `circbuf dump`.
///
/// # Errors
/// If the ring cannot be read or saved, has not the size that was told, holds no frame (where it is
/// listed) or not the one that was asked for, or stdout cannot be written. A closed stdout is no error.
pub fn run(args: &DumpArgs) -> Result<Outcome, DumpError> {
    if let Some(to) = &args.save {
        let saved = save::save(&args.ring, to)?;
        log::info!("{}: saved {} bytes", to.display(), saved.ring_bytes);
        return Ok(Outcome::Sound);
    }
    let dump = Dump::read(&args.ring, args.ring_bytes)?;
    dump.print(args)
}

/// Everything that a dump may print: frames, each in the image in which it stands.
#[derive(Debug)]
pub(crate) struct Dump {
    path: PathBuf,
    bytes: u64,
    /// A ring is one image; a segment has one for each record.
    pieces: Vec<Piece>,
    is_segment: bool,
    /// Record headers that are none: offsets in a segment.
    broken: Vec<u64>,
}

/// An image with what is in it.
#[derive(Debug)]
struct Piece {
    image: RingImage,
    /// Where the image begins in the file.
    offset: u64,
    survey: Survey,
    /// Number of the frame, where a record tells it.
    sequence: Option<u64>,
}

impl Dump {
    fn read(path: &Path, ring_bytes: Option<u64>) -> Result<Dump, DumpError> {
        if let Some(segment) = Segment::open(path)? {
            return match ring_bytes {
                Some(told) => Err(wrong_size(path, told, "this is an archive segment and no ring")),
                None => Ok(segment.read()?),
            };
        }
        let mut copy = RingCopy::read(path)?;
        if let Some(told) = ring_bytes {
            check_size(&copy, path, told)?;
            copy.ring_bytes = Some(told);
        }
        Ok(Dump::of_ring(path, copy.into_image(path)?))
    }

    fn of_ring(path: &Path, image: RingImage) -> Dump {
        let (bytes, survey) = (image.ring_bytes(), image.survey());
        let pieces = vec![Piece { image, offset: 0, survey, sequence: None }];
        Dump { path: path.into(), bytes, pieces, is_segment: false, broken: Vec::new() }
    }

    /// All frames that were found, in order; sound ones with the number by which `--frame` finds
    /// them.
    fn entries(&self) -> impl Iterator<Item = (Option<usize>, &Piece, &Found)> {
        let frames = |piece: &Piece| 0..piece.survey.frames.len();
        let all = self.pieces.iter().flat_map(move |p| frames(p).map(move |at| (p, at)));
        let mut count = 0;
        all.map(move |(piece, at)| {
            let found = &piece.survey.frames[at];
            let index = found.is_sound().then_some(count);
            count += usize::from(found.is_sound());
            (index, piece, found)
        })
    }

    fn is_corrupt(&self) -> bool {
        let is_corrupt = |survey: &Survey| {
            let mut stretches = survey.stretches.iter();
            survey.frames.iter().any(Found::is_corrupt)
                || stretches.any(|stretch| stretch.is_corrupt(&survey.frames))
        };
        !self.broken.is_empty() || self.pieces.iter().any(|piece| is_corrupt(&piece.survey))
    }

    fn print(&self, args: &DumpArgs) -> Result<Outcome, DumpError> {
        let count = self.entries().filter(|(index, ..)| index.is_some()).count();
        if let Some(asked) = args.frame.filter(|&asked| asked >= count && count > 0) {
            return Err(DumpError::FrameNumber { path: self.path.clone(), asked, count });
        }
        stdout::write(|out| self.write(out, args))?;
        // --check and --json have something to say of every ring, the listing shows frames alone.
        let judges = (args.check || args.json) && !self.pieces.is_empty();
        if count == 0 && !judges {
            return Err(self.no_frame());
        }
        Ok(if args.check && self.is_corrupt() { Outcome::Corrupt } else { Outcome::Sound })
    }

    fn write(&self, out: &mut dyn Write, args: &DumpArgs) -> io::Result<()> {
        if args.json {
            report::write_json(out, self, args.frame)
        } else if args.check {
            report::write_table(out, self, args.frame)
        } else {
            self.write_listing(out, args)
        }
    }

    fn write_listing(&self, out: &mut dyn Write, args: &DumpArgs) -> io::Result<()> {
        let listing = Listing::new(self.bytes, !self.is_segment, args.annotate);
        let mut separator = "";
        for (index, piece, found) in self.entries() {
            if index.is_some() && (args.frame.is_none() || args.frame == index) {
                out.write_all(separator.as_bytes())?;
                listing.write(out, piece, found)?;
                separator = "\n";
            }
        }
        Ok(())
    }

    fn no_frame(&self) -> DumpError {
        let why = if self.is_segment {
            "the segment has no frame record"
        } else if self.pieces.iter().all(|p| p.image.bytes().iter().all(|&byte| byte == 0)) {
            "all of them are zero, so that the camera has not written yet"
        } else {
            match self.entries().next() {
                Some(_) => "what was found is overwritten in part: --check tells by what",
                None => "neither a signature nor a trailer leads to one",
            }
        };
        // Not what the file was taken to lack.
        let missing: u64 = self.pieces.iter().map(|piece| piece.image.missing_bytes()).sum();
        DumpError::NoFrame { path: self.path.clone(), bytes: self.bytes - missing, why }
    }
}

/// Whether a ring of this size may have left these bytes.
fn check_size(copy: &RingCopy, path: &Path, told: u64) -> Result<(), DumpError> {
    let (file_bytes, page) = (copy.bytes.len() as u64, copy.ring_bytes);
    let why = if told < file_bytes {
        format!("the file has {file_bytes} bytes")
    } else if told > RING_BYTES_MAX || !told.is_multiple_of(RING_BYTES_ALIGN) {
        format!("a ring has a multiple of {RING_BYTES_ALIGN} bytes, at most {RING_BYTES_MAX}")
    } else if let Some(page) = page.filter(|&page| page != told) {
        format!("the register page beside it tells {page}")
    } else {
        return Ok(());
    };
    Err(wrong_size(path, told, &why))
}

fn wrong_size(path: &Path, told: u64, why: &str) -> DumpError {
    DumpError::RingBytes { path: path.into(), told, why: why.into() }
}

#[cfg(test)]
mod tests;
