//! The stretches of a ring: what each of its bytes is part of, and who wrote over what.

use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES};

use super::paint::{Canvas, Owner, last_chunk};
use super::{Found, Overwriter, RingImage, Tear, Verdict};
use crate::ring::{padded, slot};

const CHUNK: u64 = CHUNK_BYTES as u64;
const GAP: u64 = GAP_BYTES as u64;

/// A stretch of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Offset of its first byte.
    pub start: u64,
    /// Its size. If it reaches over the ring's end, it goes on at offset 0.
    pub bytes: u64,
    /// What it is.
    pub content: Content,
}

/// What a stretch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A frame with the header slot in front of it, or what is left of one: the frame at this index
    /// of [`super::Survey::frames`], whose verdict says which.
    Frame(usize),
    /// Zeros behind the frame at this index, where the next one's header will stand; or older bytes,
    /// if the writer skips gaps and has begun the next.
    Gap(usize),
    /// A frame without header of which the end is not there, or between two cuts no mark at all.
    Head {
        /// Who wrote over the end.
        by: Overwriter,
    },
    /// A frame that was begun and has no end yet, or never got one.
    Unfinished,
    /// Bytes that no frame explains.
    Garbage,
    /// Zeros that no frame explains: nobody has written here.
    Unused,
    /// Bytes of the ring that the image has not.
    Missing,
}

impl Stretch {
    /// Whether this stretch is a contradiction that no overwriting explains; `frames` are those of
    /// the same survey.
    #[must_use]
    pub fn is_corrupt(&self, frames: &[Found]) -> bool {
        match self.content {
            Content::Frame(index) => frames[index].is_corrupt(),
            content => content == Content::Garbage,
        }
    }
}

/// Divides the ring, and says of each frame that is not sound who wrote over it.
pub(super) fn partition(image: &RingImage, frames: &mut [Found]) -> Vec<Stretch> {
    let runs = Runs::new(image, frames, &Canvas::paint(image, frames));
    let newest = newest(frames);
    let content = |at: usize| match runs.runs[at].owner {
        Owner::Frame(index) => Content::Frame(index),
        Owner::Gap(index) => Content::Gap(index),
        Owner::Unfinished => Content::Unfinished,
        Owner::Missing => Content::Missing,
        Owner::Unused => Content::Unused,
        Owner::Garbage => match runs.explain(at, newest) {
            Content::Garbage if !runs.is_of_this_epoch(at) => Content::Unfinished,
            // What is being written the counters tell.
            Content::Unfinished if image.writer.is_some() && runs.is_of_this_epoch(at) => {
                Content::Garbage
            }
            content => content,
        },
    };
    let stretch = |(at, &Run { start, bytes, .. })| Stretch { start, bytes, content: content(at) };
    let mut stretches: Vec<Stretch> = runs.runs.iter().enumerate().map(stretch).collect();
    let border = Border { runs: &runs, stretches: &stretches, newest };
    let overwriters: Vec<_> = (0..frames.len()).map(|at| border.overwriter(at)).collect();
    let misplaced: Vec<usize> =
        (0..frames.len()).filter(|&at| runs.is_misplaced(at, overwriters[at])).collect();
    runs.clip(&mut stretches);
    for (found, by) in frames.iter_mut().zip(overwriters) {
        found.verdict = match (found.verdict, by) {
            (Verdict::Torn { tear, .. }, Some(by)) => Verdict::Torn { tear, by },
            (Verdict::Stale { .. }, Some(by)) => Verdict::Stale { by },
            (known, _) => known,
        };
    }
    misplaced.into_iter().for_each(|at| frames[at].misplace());
    stretches
}

/// The sound frame that was written last.
fn newest(frames: &[Found]) -> Option<usize> {
    let sound = frames.iter().enumerate().filter(|(_, found)| found.is_sound());
    sound.max_by_key(|(_, found)| found.time).map(|(index, _)| index)
}

/// Chunks in a row that belong to the same owner.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: u64,
    bytes: u64,
    owner: Owner,
}

/// For each run, the frame that was met last on the way.
fn nearest(
    count: usize,
    way: impl Iterator<Item = usize>,
    frame: impl Fn(usize) -> Option<usize>,
) -> Vec<Option<usize>> {
    let (mut nearest, mut last) = (vec![None; count], None);
    for at in way {
        last = frame(at).or(last);
        nearest[at] = last;
    }
    nearest
}

struct Runs<'a> {
    image: &'a RingImage,
    frames: &'a [Found],
    runs: Vec<Run>,
    /// For each run, the frame of which it is or which comes next, going around, among those that are
    /// left whole; and likewise before.
    next_frame: Vec<Option<usize>>,
    last_frame: Vec<Option<usize>>,
}

impl<'a> Runs<'a> {
    fn new(image: &'a RingImage, frames: &'a [Found], owners: &[Owner]) -> Runs<'a> {
        let mut runs: Vec<Run> = Vec::new();
        for (start, &owner) in (0..).step_by(CHUNK_BYTES).zip(owners) {
            match runs.last_mut() {
                Some(last) if last.owner == owner => last.bytes += CHUNK,
                _ => runs.push(Run { start, bytes: CHUNK, owner }),
            }
        }
        // Around the ring's end it is one stretch, the last.
        let last = runs.len() - 1;
        if last > 0 && runs[0].owner == runs[last].owner {
            runs[last].bytes += runs[0].bytes;
            runs.remove(0);
        }
        let (count, left_whole) = (runs.len(), |at: usize| match runs[at].owner {
            Owner::Frame(index) if frames[index].is_left_whole() => Some(index),
            _ => None,
        });
        // The second time around, the first of them are known to the last.
        let last_frame = nearest(count, (0..count).chain(0..count), left_whole);
        let next_frame = nearest(count, (0..count).rev().chain((0..count).rev()), left_whole);
        Runs { image, frames, runs, next_frame, last_frame }
    }

    fn behind(&self, at: usize) -> usize {
        (at + 1) % self.runs.len()
    }

    fn before(&self, at: usize) -> usize {
        (at + self.runs.len() - 1) % self.runs.len()
    }

    /// The run in which the chunk at this offset is.
    fn at(&self, offset: u64) -> usize {
        let offset = offset % self.image.ring_bytes();
        match self.runs.partition_point(|run| run.start <= offset) {
            // It belongs to the one that reaches over the end.
            0 => self.runs.len() - 1,
            behind => behind - 1,
        }
    }

    /// What bytes without owner may be: behind a frame, where the next one begins, stands one that
    /// was never finished, unless the frames go on behind it.
    fn explain(&self, at: usize, newest: Option<usize>) -> Content {
        let mut before = self.before(at);
        if self.runs[before].owner == Owner::Unused && self.runs[before].bytes == GAP {
            before = self.before(before);
        }
        let (before, behind) = (self.runs[before].owner, self.runs[self.behind(at)].owner);
        match (before, behind) {
            // The very first frame, or the first since the pointer went back.
            (Owner::Unused, _) if self.runs[at].start == 0 && self.may_be_restart(at) => {
                Content::Unfinished
            }
            (Owner::Missing, _) | (_, Owner::Missing) => Content::Head { by: Overwriter::Cut },
            (Owner::Unused | Owner::Garbage, _) => Content::Garbage,
            // It was begun more than once.
            (Owner::Unfinished, Owner::Unused) => Content::Unfinished,
            // A writer that skips gaps left an older frame's bytes there.
            (Owner::Frame(frame), Owner::Unfinished) if self.runs[at].bytes == GAP => {
                Content::Gap(frame)
            }
            // A lap is cut short where the pointer went back to 0.
            (_, Owner::Frame(0)) if self.frames[0].start == 0 && self.goes_on(at) => {
                Content::Head { by: Overwriter::Frame(0) }
            }
            (_, Owner::Unfinished) if self.ends_at_0(at) => {
                Content::Head { by: Overwriter::Unfinished }
            }
            // What the counters leave over is not being written, and in the first epoch nothing was
            // abandoned.
            (Owner::Frame(frame) | Owner::Gap(frame), _)
                if self.image.writer.is_some_and(|writer| writer.epoch == 0)
                    && newest == Some(frame) =>
            {
                Content::Garbage
            }
            // The frame that was begun at 0 has taken the trailer of the one over the end.
            (Owner::Frame(frame), _) if self.is_torn_over_end(frame) => Content::Unfinished,
            (_, Owner::Unused) => Content::Unfinished,
            _ if self.goes_on(at) && !self.may_be_restart(at) => Content::Garbage,
            _ => Content::Unfinished,
        }
    }

    fn is_of_this_epoch(&self, at: usize) -> bool {
        self.image.is_of_this_epoch(self.runs[at].start, self.runs[at].bytes)
    }

    fn ends_at_0(&self, at: usize) -> bool {
        self.runs[at].start + self.runs[at].bytes == self.image.ring_bytes()
    }

    fn is_torn_over_end(&self, index: usize) -> bool {
        let found = &self.frames[index];
        let is_over_end = found.start + slot(found.length) > self.image.ring_bytes();
        !found.is_sound() && is_over_end && self.image.writer.is_none()
    }

    /// Whether a frame may have been begun at 0 amid this run: counters would tell.
    fn may_be_restart(&self, at: usize) -> bool {
        let Run { start, bytes, .. } = self.runs[at];
        let has_0 = start == 0 || start + bytes > self.image.ring_bytes();
        has_0 && self.image.writer.is_none()
    }

    /// Whether what is left of an older frame, as it seems, stands amid frames that go on: nobody can
    /// have left it there.
    fn is_misplaced(&self, index: usize, by: Option<Overwriter>) -> bool {
        let found = &self.frames[index];
        let run = self.at(last_chunk(found));
        let is_stale = matches!(found.verdict, Verdict::Stale { .. });
        let is_its = self.runs[run].owner == Owner::Frame(index);
        let has_frames = self.last_frame[run].is_some() && self.next_frame[run].is_some();
        is_stale && is_its && has_frames && by == Some(Overwriter::Unknown) && self.goes_on(run)
    }

    /// Whether the frame in front of a run was written before the one behind it, or nothing is there.
    fn goes_on(&self, at: usize) -> bool {
        let [last, next] = [self.last_frame[at], self.next_frame[at]];
        let (Some(last), Some(next)) = (last, next) else { return true };
        let (last, next) = (&self.frames[last], &self.frames[next]);
        // Without counters, the pointer may have gone back to 0 between them.
        let is_told = self.image.writer.is_some() || last.start < next.start || next.start == 0;
        last.time < next.time && is_told
    }

    /// A cut need not be at the edge of a chunk.
    fn clip(&self, stretches: &mut [Stretch]) {
        let missing = stretches.iter().position(|stretch| stretch.content == Content::Missing);
        let Some(at) = missing else { return };
        let rest = stretches[at].start - self.image.present_bytes;
        stretches[at].start -= rest;
        stretches[at].bytes += rest;
        let before = self.before(at);
        stretches[before].bytes -= rest;
    }
}

/// Looks at the edges of what is left of a frame for whoever wrote over the rest.
struct Border<'a> {
    runs: &'a Runs<'a>,
    stretches: &'a [Stretch],
    newest: Option<usize>,
}

impl Border<'_> {
    /// `None` if it is sound, or the overwriter is known already.
    fn overwriter(&self, index: usize) -> Option<Overwriter> {
        let Found { start, length, .. } = self.runs.frames[index];
        match self.seen(index)? {
            Overwriter::Unknown if !self.runs.image.is_of_this_epoch(start, padded(length)) => {
                Some(Overwriter::Restart)
            }
            by => Some(by),
        }
    }

    fn seen(&self, index: usize) -> Option<Overwriter> {
        let found = &self.runs.frames[index];
        let known = found.overwriter()?;
        if matches!(known, Overwriter::Cut | Overwriter::Restart) {
            return None;
        }
        let header = self.runs.at(found.start + self.runs.image.ring_bytes() - GAP);
        let trailer = self.runs.at(last_chunk(found));
        let is_its = |run: usize| self.runs.runs[run].owner == Owner::Frame(index);
        let neighbour = match (is_its(header), is_its(trailer)) {
            _ if self.is_all_there(found, index) => return Some(self.contradicted(found)),
            (true, _) => self.runs.behind(header),
            (false, true) => self.runs.before(trailer),
            (false, false) if found.header.is_some() => header,
            (false, false) => trailer,
        };
        Some(self.written_by(neighbour, found))
    }

    /// Whether no other took any of its bytes, the header slot excepted.
    fn is_all_there(&self, found: &Found, index: usize) -> bool {
        let run = self.runs.runs[self.runs.at(found.start)];
        let ring_bytes = self.runs.image.ring_bytes();
        let inside = (found.start + ring_bytes - run.start) % ring_bytes;
        run.owner == Owner::Frame(index) && inside + padded(found.length) <= run.bytes
    }

    /// Who may have written into a frame of which all bytes are its own.
    fn contradicted(&self, found: &Found) -> Overwriter {
        let image = self.runs.image;
        let before = self.runs.before(self.runs.at(found.start));
        let newest = match self.runs.runs[before].owner {
            Owner::Frame(index) | Owner::Gap(index) => {
                self.newest.filter(|&newest| newest == index)
            }
            _ => None,
        };
        // Its gap, or its last chunk.
        let has_slot = |newest: &Found| {
            let end = newest.start + slot(newest.length) + image.ring_bytes();
            (end - found.start) % image.ring_bytes() <= GAP
        };
        let newest = newest.map(|newest| &self.runs.frames[newest]);
        match (found.verdict, newest) {
            (Verdict::Torn { tear, .. }, _) if tear != Tear::Counters => {
                self.contradicted_by(found, tear, newest.is_some())
            }
            // The slot in front is the newest frame's.
            (_, Some(newest)) if has_slot(newest) && newest.time > found.time => {
                Overwriter::Frame(newest.start)
            }
            (Verdict::Stale { .. }, None) if self.runs.runs[before].owner != Owner::Unfinished => {
                Overwriter::Unknown
            }
            _ => Overwriter::Unfinished,
        }
    }

    /// Who may have written into a frame whose bytes contradict each other. Counters would have told.
    fn contradicted_by(&self, found: &Found, tear: Tear, is_behind_newest: bool) -> Overwriter {
        let image = self.runs.image;
        let reaches_end = found.start == 0 || found.start + slot(found.length) > image.ring_bytes();
        match tear {
            _ if tear.is_amid_a_chunk() => Overwriter::Unknown,
            _ if image.writer.is_some() => Overwriter::Unknown,
            _ if reaches_end && !image.is_size_told => Overwriter::Cut,
            // The pointer may have gone back to 0, and a frame been begun there.
            _ if reaches_end || is_behind_newest => Overwriter::Unfinished,
            _ => Overwriter::Unknown,
        }
    }

    /// Whether this is no frame but a trailer in the other's own place.
    fn is_trailer_of(&self, by: usize, found: &Found) -> bool {
        let by = &self.runs.frames[by];
        let ring_bytes = self.runs.image.ring_bytes();
        let is_its_place = last_chunk(by) % ring_bytes == last_chunk(found) % ring_bytes;
        !by.is_left_whole() && is_its_place && found.header.is_some()
    }

    fn is_older(&self, by: usize, found: &Found) -> bool {
        let by = &self.runs.frames[by];
        found.time.is_some() && by.time.is_some() && by.time < found.time
    }

    fn written_by(&self, run: usize, found: &Found) -> Overwriter {
        match self.stretches[run].content {
            Content::Frame(by) | Content::Gap(by) if self.is_trailer_of(by, found) => {
                self.contradicted(found)
            }
            Content::Frame(by) | Content::Gap(by) if self.is_older(by, found) => {
                Overwriter::Unknown
            }
            Content::Frame(by) | Content::Gap(by) => {
                let start = self.runs.frames[by].start;
                // The handler comes to every frame but the newest, and leaves no older header.
                let is_header_of_another = found.header.is_some() && start == found.start;
                let may_be_restart = start == 0 && self.runs.image.writer.is_none();
                match is_header_of_another && self.newest != Some(by) && !may_be_restart {
                    true => Overwriter::Unknown,
                    false => Overwriter::Frame(start),
                }
            }
            Content::Unfinished | Content::Head { .. } => Overwriter::Unfinished,
            Content::Missing => Overwriter::Cut,
            Content::Garbage | Content::Unused => Overwriter::Unknown,
        }
    }
}
