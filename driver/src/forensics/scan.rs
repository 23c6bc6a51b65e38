//! One pass over an image: where headers are stamped, where trailers stand, where FF FF is.

use std::collections::HashMap;

use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES, TRAILER_BYTES, TRAILER_MARKER};

use super::{Found, Tear, Verdict, chunk};
use crate::ring::{FrameHeader, Timestamp, Trailer, padded, slot};

/// What stands in an image, not yet trusted.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    /// Starts behind stamped headers whose length fits the ring; the one at 0, whose header stands
    /// at the ring's end, comes last.
    pub(super) stamps: Vec<u64>,
    /// Plausible trailers whose length fits the ring, with zeros in front in their chunk, by offset.
    pub(super) ends: Vec<End>,
    /// For each chunk, how many in front of it hold the beginning of an FF FF.
    signatures_before: Vec<u32>,
}

/// The last chunk of a frame, with its trailer.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// Offset of the chunk.
    pub(super) offset: u64,
    /// Offset to which the trailer's length leads back.
    pub(super) start: u64,
    pub(super) length: u32,
    pub(super) time: Timestamp,
    /// Whether the padding that stands in the chunk before is zero as well.
    pub(super) is_padded: bool,
}

impl End {
    pub(super) fn found(&self, verdict: Verdict) -> Found {
        let End { start, length, time, .. } = *self;
        Found { start, length, time: Some(time), header: None, number: None, verdict }
    }
}

impl<'a> Scan<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Scan<'a> {
        let mut scan =
            Scan { bytes, stamps: Vec::new(), ends: Vec::new(), signatures_before: vec![0] };
        let (chunks, _) = bytes.as_chunks::<CHUNK_BYTES>();
        let mut signatures = 0;
        for (index, chunk) in chunks.iter().enumerate() {
            let next = chunks[(index + 1) % chunks.len()][0];
            signatures += u32::from(starts_signature(chunk, next));
            scan.signatures_before.push(signatures);
            scan.note((index * CHUNK_BYTES) as u64, chunk);
        }
        scan
    }

    fn note(&mut self, offset: u64, chunk: &[u8; CHUNK_BYTES]) {
        let header = FrameHeader(*chunk);
        if header.is_stamped() && header.length() > 0 && slot(header.length()) <= self.ring_bytes()
        {
            self.stamps.push((offset + GAP_BYTES as u64) % self.ring_bytes());
        }
        if chunk[CHUNK_BYTES - 1] == TRAILER_MARKER {
            self.ends.extend(self.end(offset, Trailer::parse(chunk)));
        }
    }

    fn end(&self, offset: u64, trailer: Trailer) -> Option<End> {
        let Trailer { length, time, .. } = trailer;
        if !trailer.is_plausible() || slot(length) > self.ring_bytes() {
            return None;
        }
        let behind = offset + CHUNK_BYTES as u64 + self.ring_bytes();
        let start = (behind - padded(length)) % self.ring_bytes();
        let not_zero = self.padding(start, length);
        let is_here =
            not_zero.is_some_and(|at| at / CHUNK_BYTES as u64 * CHUNK_BYTES as u64 == offset);
        let is_padded = not_zero.is_none();
        (!is_here).then_some(End { offset, start, length, time, is_padded })
    }

    /// The end that stands in the chunk at this offset, which may lie behind the ring's end.
    pub(super) fn end_at(&self, offset: u64) -> Option<&End> {
        let offset = offset % self.ring_bytes();
        let index = self.ends.binary_search_by_key(&offset, |end| end.offset).ok()?;
        Some(&self.ends[index])
    }

    /// Whether the same trailer stands in front of the header slot; a ring may have room for one
    /// frame only.
    pub(super) fn is_repeated(&self, start: u64, trailer: Trailer) -> bool {
        let before = start + self.ring_bytes() - (GAP_BYTES + CHUNK_BYTES) as u64;
        let is_another = slot(trailer.length) < self.ring_bytes();
        is_another && Trailer::parse(chunk(self.bytes, before)) == trailer
    }

    /// Whether the trailer of another frame stands between this end and its start.
    pub(super) fn holds_another(&self, end: &End) -> bool {
        let index = self.ends.partition_point(|other| other.offset < end.offset);
        let before = self.ends[(index + self.ends.len() - 1) % self.ends.len()].offset;
        let distance = (end.offset + self.ring_bytes() - before) % self.ring_bytes();
        distance > 0 && distance < padded(end.length)
    }

    /// The trailer of a frame, if the chunk in which it belongs can hold one.
    pub(super) fn trailer(&self, start: u64, length: u32) -> Option<Trailer> {
        let last = start + padded(length) - CHUNK_BYTES as u64;
        Some(Trailer::parse(chunk(self.bytes, last))).filter(Trailer::is_plausible)
    }

    /// Whether the payload and the zeros behind it can be those of a frame.
    pub(super) fn judge(&self, start: u64, length: u32) -> Result<Timestamp, Tear> {
        let trailer = self.trailer(start, length).ok_or(Tear::NoTrailer)?;
        if trailer.length != length {
            return Err(Tear::Length { trailer: trailer.length });
        }
        if self.is_repeated(start, trailer) {
            return Err(Tear::Repeated);
        }
        if let Some(offset) = self.signature(start, length) {
            return Err(Tear::Signature { offset });
        }
        self.padding(start, length).map_or(Ok(trailer.time), |offset| Err(Tear::Padding { offset }))
    }

    /// For each start to which ends without FF FF in their payload lead, the least length.
    pub(super) fn nearest(&self) -> HashMap<u64, u32> {
        let mut nearest = HashMap::new();
        for end in &self.ends {
            if end.is_padded && self.signature(end.start, end.length).is_none() {
                let length = nearest.entry(end.start).or_insert(end.length);
                *length = end.length.min(*length);
            }
        }
        nearest
    }

    /// The first byte between payload and trailer that is not zero.
    fn padding(&self, start: u64, length: u32) -> Option<u64> {
        let zeros = u64::from(length)..padded(length) - TRAILER_BYTES as u64;
        let mut offsets = zeros.map(|at| (start + at) % self.ring_bytes());
        offsets.find(|&offset| self.byte(offset) != 0)
    }

    /// The first FF FF in a payload. Whole chunks are looked up in the counts, so that a thousand
    /// trailers that claim the same bytes cost no more than one.
    pub(super) fn signature(&self, start: u64, length: u32) -> Option<u64> {
        let length = u64::from(length);
        // All pairs that begin in these chunks end in the payload.
        let whole = (length - 1) / CHUNK_BYTES as u64 * CHUNK_BYTES as u64;
        let end = (start + whole).min(self.ring_bytes());
        let wrapped = (start + whole).saturating_sub(self.ring_bytes());
        let in_chunks = self.counted(start, end).or_else(|| self.counted(0, wrapped));
        in_chunks.or_else(|| self.pair(start + whole, start + length))
    }

    fn counted(&self, first: u64, behind: u64) -> Option<u64> {
        let [first, behind] = [first, behind].map(|offset| offset as usize / CHUNK_BYTES);
        let counts = &self.signatures_before[..=behind];
        if first >= behind || counts[first] == counts[behind] {
            return None;
        }
        let index = counts.partition_point(|&count| count <= counts[first]) - 1;
        let offset = (index * CHUNK_BYTES) as u64;
        self.pair(offset, offset + CHUNK_BYTES as u64 + 1)
    }

    /// The first FF FF of which both bytes are at least at `first` and below `behind`.
    fn pair(&self, first: u64, behind: u64) -> Option<u64> {
        let pair =
            (first..behind - 1).find(|&at| self.byte(at) == 0xFF && self.byte(at + 1) == 0xFF);
        pair.map(|at| at % self.ring_bytes())
    }

    fn byte(&self, offset: u64) -> u8 {
        self.bytes[(offset % self.ring_bytes()) as usize]
    }

    fn ring_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Whether FF FF begins in this chunk, of which the next byte is `next`. Without branches, so that
/// the compiler takes all bytes at once.
fn starts_signature(chunk: &[u8; CHUNK_BYTES], next: u8) -> bool {
    let mut found = (chunk[CHUNK_BYTES - 1] == 0xFF) & (next == 0xFF);
    for at in 0..CHUNK_BYTES - 1 {
        found |= (chunk[at] == 0xFF) & (chunk[at + 1] == 0xFF);
    }
    found
}
