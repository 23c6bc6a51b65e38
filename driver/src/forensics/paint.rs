//! To whom each chunk of a ring belongs.

use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES};

use super::{Found, RingImage};
use crate::ring::{Trailer, padded};

const CHUNK: u64 = CHUNK_BYTES as u64;
const GAP: u64 = GAP_BYTES as u64;

/// The owner of a chunk. Frames are told by their index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Frame(usize),
    /// The frame in front of this gap.
    Gap(usize),
    /// The frame that was being written while the image was taken.
    Unfinished,
    /// Not in the image.
    Missing,
    /// Nobody, and it is zero.
    Unused,
    /// Nobody, and it is not.
    Garbage,
}

/// The chunks of a ring, each painted at most once: so the time is linear however many frames
/// claim the same bytes.
pub(super) struct Canvas<'a> {
    image: &'a RingImage,
    owners: Vec<Option<Owner>>,
}

impl Canvas<'_> {
    /// Paints everything. What is certain comes first: whole frames, then what the counters say,
    /// then the marks of the others, and what lies between these last.
    pub(super) fn paint(image: &RingImage, frames: &[Found]) -> Vec<Owner> {
        let chunks = image.bytes.len() / CHUNK_BYTES;
        let mut canvas = Canvas { image, owners: vec![None; chunks] };
        let present = image.present_bytes.next_multiple_of(CHUNK);
        canvas.fill(present, image.ring_bytes() - present, Owner::Missing);
        canvas.paint_sound(frames);
        canvas.paint_unfinished();
        canvas.paint_gaps(frames, Found::is_sound);
        canvas.paint_remains(frames);
        canvas.paint_gaps(frames, |_| true);
        canvas.rest()
    }

    fn paint_sound(&mut self, frames: &[Found]) {
        let sound = || frames.iter().enumerate().filter(|(_, found)| found.is_sound());
        for (index, found) in sound() {
            self.fill(found.start, padded(found.length), Owner::Frame(index));
        }
        for (index, found) in sound() {
            // At the same start the sound frame comes first, and next to it whoever has a header.
            let others = frames[index + 1..].iter().take_while(|other| other.start == found.start);
            if !others.into_iter().any(|other| other.header.is_some()) {
                self.fill(self.before(found.start, GAP), GAP, Owner::Frame(index));
            }
        }
    }

    /// From the last whole frame to where nothing was touched, whoever stood there before.
    fn paint_unfinished(&mut self) {
        let Some(writer) = self.image.writer else { return };
        let bytes = writer.reserved.saturating_sub(writer.complete);
        let start = writer.complete / CHUNK * CHUNK % self.image.ring_bytes();
        let bytes = bytes.min(self.image.ring_bytes()).next_multiple_of(CHUNK);
        self.fill(start, bytes, Owner::Unfinished);
    }

    fn paint_gaps(&mut self, frames: &[Found], has_end: impl Fn(&Found) -> bool) {
        for (index, found) in frames.iter().enumerate().filter(|(_, found)| has_end(found)) {
            let is_its = self.owner(last_chunk(found)) == Some(Owner::Frame(index));
            let gap = found.start + padded(found.length);
            if is_its && self.image.chunk(gap) == &[0; CHUNK_BYTES] {
                self.fill(gap, GAP, Owner::Gap(index));
            }
        }
    }

    /// What is left of a frame reaches from its header forward, and from its trailer backward, as
    /// far as nobody else is known to be.
    fn paint_remains(&mut self, frames: &[Found]) {
        let remains = || frames.iter().enumerate().filter(|(_, found)| !found.is_sound());
        for (index, found) in remains() {
            if found.header.is_some() {
                self.fill(self.before(found.start, GAP), GAP, Owner::Frame(index));
            }
            if self.has_trailer(found) {
                self.fill(last_chunk(found), CHUNK, Owner::Frame(index));
            }
        }
        for (index, found) in remains() {
            if self.owner(self.before(found.start, GAP)) == Some(Owner::Frame(index)) {
                self.forward(found.start, padded(found.length), Owner::Frame(index));
            }
        }
        for (index, found) in remains() {
            if self.owner(last_chunk(found)) == Some(Owner::Frame(index)) {
                self.backward(found, Owner::Frame(index));
            }
        }
    }

    /// Whether a trailer stands in the last chunk, and is this frame's.
    fn has_trailer(&self, found: &Found) -> bool {
        let trailer = Trailer::parse(self.image.chunk(last_chunk(found)));
        trailer.is_plausible() && trailer.length == found.length
    }

    fn rest(self) -> Vec<Owner> {
        let (chunks, _) = self.image.bytes.as_chunks::<CHUNK_BYTES>();
        let owners = self.owners.iter().zip(chunks).map(|(owner, chunk)| match owner {
            Some(owner) => *owner,
            None if chunk == &[0; CHUNK_BYTES] => Owner::Unused,
            None => Owner::Garbage,
        });
        let mut owners: Vec<Owner> = owners.collect();
        // A single chunk of zeros amid others is a gap, or padding, that nobody explains either.
        for middle in 1..owners.len() - 1 {
            if owners[middle - 1..=middle + 1] == [Owner::Garbage, Owner::Unused, Owner::Garbage] {
                owners[middle] = Owner::Garbage;
            }
        }
        owners
    }

    /// Takes those chunks of a stretch that are free.
    fn fill(&mut self, start: u64, bytes: u64, owner: Owner) {
        for offset in (start..start + bytes).step_by(CHUNK_BYTES) {
            let at = self.index(offset);
            self.owners[at].get_or_insert(owner);
        }
    }

    /// Takes chunks up to the first that is somebody else's.
    fn forward(&mut self, start: u64, bytes: u64, owner: Owner) {
        for offset in (start..start + bytes).step_by(CHUNK_BYTES) {
            let at = self.index(offset);
            if *self.owners[at].get_or_insert(owner) != owner {
                return;
            }
        }
    }

    /// The same from the trailer down to the header slot.
    fn backward(&mut self, found: &Found, owner: Owner) {
        let last = last_chunk(found) + self.image.ring_bytes();
        for chunks in 0..=padded(found.length) / CHUNK {
            let at = self.index(last - chunks * CHUNK);
            if *self.owners[at].get_or_insert(owner) != owner {
                return;
            }
        }
    }

    fn owner(&self, offset: u64) -> Option<Owner> {
        self.owners[self.index(offset)]
    }

    fn index(&self, offset: u64) -> usize {
        (offset % self.image.ring_bytes() / CHUNK) as usize
    }

    fn before(&self, offset: u64, bytes: u64) -> u64 {
        (offset + self.image.ring_bytes() - bytes) % self.image.ring_bytes()
    }
}

/// Where the chunk with the trailer begins, by the length that the frame is said to have.
pub(super) fn last_chunk(found: &Found) -> u64 {
    found.start + padded(found.length) - CHUNK
}
