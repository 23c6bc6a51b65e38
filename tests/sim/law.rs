//! A naive twin of the law of validity (`circbuf_driver::validate`), chunk by chunk, in which one
//! point can be left out: what it delivers then shows what the point is there for.

use circbuf_driver::device::Device;
use circbuf_driver::loss::Refusal;
use circbuf_driver::ring::{FrameHeader, Timestamp, Trailer, padded, slot};

/// A point of the law.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Start and end.
    Bounds,
    /// What is between them.
    Content,
    /// Header and trailer after the copy, and where no counter is, the trailer in front.
    Marks,
    /// The writer's counter after the copy.
    Reach,
}

impl Point {
    pub(crate) const ALL: [Point; 4] = [Point::Bounds, Point::Content, Point::Marks, Point::Reach];
}

/// The law, whole or without one point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Law {
    pub(crate) without: Option<Point>,
}

/// A frame that is being read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    law: Law,
    start: u64,
    epoch: u64,
    stamped: bool,
    pub(crate) trailer: Trailer,
    /// The slot in front, as it was when the copy began.
    header: Option<FrameHeader>,
    /// Where no counter is: what stood in front of that slot.
    before: Option<Trailer>,
    body: Vec<u8>,
}

impl Law {
    pub(crate) const WHOLE: Law = Law { without: None };

    fn checks(self, point: Point) -> bool {
        self.without != Some(point)
    }

    /// Point 1: the frame that starts at `start`, which is complete.
    pub(crate) fn read(
        self,
        device: &Device,
        (start, epoch): (u64, u64),
        stamped: bool,
    ) -> Option<Reading> {
        let trailer = match (self.checks(Point::Bounds), stamped) {
            (false, _) => first_marker(device, start),
            (true, true) => by_header(device, start),
            (true, false) => by_chain(device, start),
        }?;
        let is_told = device.registers().is_some() || device.pointer().is_some();
        let before = (!is_told).then(|| in_front(device, start));
        let (header, body) = (None, Vec::new());
        Some(Reading { law: self, start, epoch, stamped, trailer, header, before, body })
    }
}

impl Reading {
    /// Point 2, the first half: copies so many chunks more.
    pub(crate) fn copy(&mut self, device: &Device, chunks: u64) {
        self.header.get_or_insert_with(|| device.ring().header(self.start));
        for _ in 0..chunks {
            if self.body.len() as u64 == padded(self.trailer.length) {
                return;
            }
            self.body.extend(device.ring().chunk(self.start + self.body.len() as u64));
        }
    }

    /// Copies what is left, and the verdict; the payload if it is good.
    pub(crate) fn finish(mut self, device: &Device) -> Result<Vec<u8>, Refusal> {
        self.copy(device, u64::MAX);
        let checks = |point| self.law.checks(point);
        // That the writer came by says it all, whatever else does not hold.
        let reach = if checks(Point::Reach) { self.reach(device) } else { Ok(()) };
        let content = if checks(Point::Content) { self.content() } else { Ok(()) };
        let marks = if checks(Point::Marks) { self.marks(device) } else { Ok(()) };
        reach.and(content).and(marks)?;
        self.body.truncate(self.trailer.length as usize);
        Ok(self.body)
    }

    fn content(&self) -> Result<(), Refusal> {
        let (front, trailer) = self.body.split_at(self.body.len() - 12);
        let zeros = &front[self.trailer.length as usize..];
        // The four zeros in front of the trailer are always there, and never looked at for pairs.
        if front[..front.len() - 4].windows(2).any(|pair| pair == [0xFF, 0xFF]) {
            return Err(Refusal::Pair);
        }
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(Refusal::Padding);
        }
        if trailer_of(trailer) != self.trailer {
            return Err(Refusal::Trailer);
        }
        Ok(())
    }

    fn marks(&self, device: &Device) -> Result<(), Refusal> {
        if device.ring().trailer(self.start + padded(self.trailer.length)) != self.trailer {
            return Err(Refusal::Trailer);
        }
        let header = device.ring().header(self.start);
        let signed = header.0[26..28] == [0xFF, 0xFF] && header.0[31] == 0;
        let lawful = signed && header.length() == self.trailer.length;
        if self.stamped && !(lawful && Some(header) == self.header) {
            return Err(Refusal::Header);
        }
        match self.before.is_none_or(|before| in_front(device, self.start) == before) {
            true => Ok(()),
            false => Err(Refusal::Header),
        }
    }

    fn reach(&self, device: &Device) -> Result<(), Refusal> {
        let Some(reach) = device.reach() else { return Ok(()) };
        let limit = self.start + device.ring().bytes() - 32;
        match reach.epoch == self.epoch && reach.reserved <= limit {
            true => Ok(()),
            false => Err(Refusal::Overtaken),
        }
    }
}

/// What is in the chunk in front of the slot in front of `start`.
fn in_front(device: &Device, start: u64) -> Trailer {
    device.ring().trailer(start + device.ring().bytes() - 32)
}

/// Whatever has the marker of a trailer is one.
fn first_marker(device: &Device, start: u64) -> Option<Trailer> {
    let chunks = device.max_slot_bytes() / 32;
    let mut trailers = (1..chunks).map(|chunk| device.ring().trailer(start + chunk * 32));
    trailers.find(|trailer| trailer.marker == 0xFF && slot(trailer.length) <= chunks * 32)
}

fn by_header(device: &Device, start: u64) -> Option<Trailer> {
    let length = device.ring().header(start).length();
    let trailer = device.ring().trailer(start + padded(length));
    (trailer.length == length && is_lawful(device, &trailer)).then_some(trailer)
}

/// From trailer to trailer backwards, from where the next frame starts.
fn by_chain(device: &Device, start: u64) -> Option<Trailer> {
    let mut next = device.registers()?.progress()?.complete;
    while next > start {
        let trailer = device.ring().trailer(next - 32);
        next = next.checked_sub(slot(trailer.length)).filter(|_| is_lawful(device, &trailer))?;
        if next == start {
            return Some(trailer);
        }
    }
    None
}

fn is_lawful(device: &Device, trailer: &Trailer) -> bool {
    let fits = trailer.length >= 1 && slot(trailer.length) <= device.max_slot_bytes();
    fits && trailer.marker == 0xFF && trailer.time.usec < 1_000_000
}

fn trailer_of(bytes: &[u8]) -> Trailer {
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Trailer {
        time: Timestamp { sec: word(0), usec: word(4) },
        length: word(8) & 0x00FF_FFFF,
        marker: bytes[11],
    }
}
