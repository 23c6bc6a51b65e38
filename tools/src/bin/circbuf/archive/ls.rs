//! `circbuf archive ls`: frames, and the gaps between them.

use std::io::{self, Write};

use circbuf_driver::archive::{ArchiveReader, Content, Entry, Found};
use circbuf_driver::loss::Loss;
use circbuf_driver::ring::{Geometry, Timestamp};
use circbuf_tools::stdout;
use serde::Serialize;
use serde_json::{Value, json};

use super::{DirArgs, unreadable};
use crate::failure::Failure;

/// Frames that are missing between two archived ones, and why.
#[derive(Debug, Default, Serialize)]
struct Gap {
    /// Number of the archived frame in front; `None` where the archive begins.
    after: Option<u64>,
    /// Number of the archived frame behind; `None` where the archive ends.
    before: Option<u64>,
    /// How many frames.
    lost: u64,
    losses: Vec<Loss>,
}

/// What has been listed.
#[derive(Debug, Default)]
struct Listing {
    frames: u64,
    /// Those with losses; what a policy left out is only counted.
    gaps: Vec<Gap>,
    /// Between the last frame and what comes next.
    open: Gap,
    /// Numbers between frames that no loss tells of.
    skipped: u64,
    damaged: u64,
}

pub(super) fn ls(args: &DirArgs) -> Result<(), Failure> {
    let archive = ArchiveReader::open(&args.dir).map_err(|error| unreadable(&error))?;
    let mut listing = Listing::default();
    let mut failed = None;
    let mut found = archive.scan().map_while(|found| found.map_err(|e| failed = Some(e)).ok());
    stdout::write(|out| match args.json {
        true => listing.json(&archive, &mut found, out),
        false => listing.text(&archive, &mut found, out),
    })?;
    failed.map_or(Ok(()), |error| Err(Failure::failed(error)))
}

impl Listing {
    /// Counts what was found; if it is a frame, that and the gap in front of it.
    fn take(&mut self, found: Found) -> Option<(Entry, Gap)> {
        match found {
            Found::Record(entry) => match entry.content {
                Content::Frame { .. } => return Some((entry, self.close(entry.header.sequence))),
                Content::Loss(loss) => {
                    self.open.lost = self.open.lost.saturating_add(loss.count);
                    self.open.losses.push(loss);
                }
            },
            Found::Damaged(extent) => self.damaged += u64::from(!extent.zeros),
            Found::Tail(_) => {}
        }
        None
    }

    /// The gap in front of the frame of this number.
    fn close(&mut self, sequence: u64) -> Gap {
        self.frames += 1;
        let next = Gap { after: Some(sequence), ..Gap::default() };
        let gap = Gap { before: Some(sequence), ..std::mem::replace(&mut self.open, next) };
        let missing = gap.after.map_or(0, |after| sequence.saturating_sub(after).saturating_sub(1));
        self.skipped = self.skipped.saturating_add(missing.saturating_sub(gap.lost));
        gap
    }

    /// One object, frame by frame: an archive has more of them than memory has room for.
    fn json(
        &mut self,
        archive: &ArchiveReader,
        found: &mut dyn Iterator<Item = Found>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let session = json!(archive.session());
        write!(out, r#"{{"schema":"circbuf.archive-ls/1","session":{session},"frames":["#)?;
        let mut comma = "";
        for found in found {
            let Some((entry, gap)) = self.take(found) else { continue };
            if let Content::Frame { time, geometry } = entry.content {
                write!(out, "{comma}{}", frame_json(&entry, time, geometry))?;
                comma = ",";
            }
            self.gaps.extend((gap.lost > 0).then_some(gap));
        }
        let last = std::mem::take(&mut self.open);
        self.gaps.extend((last.lost > 0).then_some(last));
        let losses: Vec<&Loss> = self.gaps.iter().flat_map(|gap| &gap.losses).collect();
        writeln!(
            out,
            r#"],"losses":{},"gaps":{},"skipped":{},"damaged_extents":{}}}"#,
            json!(losses),
            json!(self.gaps),
            self.skipped,
            self.damaged
        )
    }

    fn text(
        &mut self,
        archive: &ArchiveReader,
        found: &mut dyn Iterator<Item = Found>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let (mut gaps, mut lost) = (0, 0u64);
        let mut show = |out: &mut dyn Write, gap: &Gap| {
            gaps += u64::from(gap.lost > 0);
            lost = gap.lost.saturating_add(lost);
            gap.losses.iter().try_for_each(|loss| writeln!(out, "{}", gap.line(loss)))
        };
        for found in found {
            let Some((entry, gap)) = self.take(found) else { continue };
            show(out, &gap)?;
            if let Content::Frame { time, geometry } = entry.content {
                writeln!(out, "{}", line(&entry, time, geometry))?;
            }
        }
        show(out, &self.open)?;
        let (segments, megabytes) = (archive.segments().len(), archive.bytes() as f64 / 1e6);
        write!(
            out,
            "{} frames, {lost} lost in {gaps} gaps, in {segments} segments of {megabytes:.1} MB in all",
            self.frames
        )?;
        if self.skipped > 0 {
            write!(
                out,
                "; {} numbers between them were left by the archive's policy, or are gone",
                self.skipped
            )?;
        }
        match self.damaged {
            0 => writeln!(out),
            damaged => writeln!(out, "; {damaged} stretches are damaged: see verify"),
        }
    }
}

fn frame_json(entry: &Entry, time: Timestamp, geometry: Geometry) -> Value {
    let header = &entry.header;
    json!({
        "sequence": header.sequence, "sec": time.sec, "usec": time.usec, "length": header.length,
        "width": geometry.width, "height": geometry.height, "quality2": geometry.quality2,
        "color_mode": geometry.color_mode, "camera": header.camera, "epoch": header.epoch,
        "cursor": header.cursor, "realtime_ns": header.realtime_ns, "lost_before": header.lost_before,
        "header_synthesised": header.synthesised, "segment": entry.segment, "offset": entry.offset,
    })
}

fn line(entry: &Entry, time: Timestamp, geometry: Geometry) -> String {
    let header = &entry.header;
    format!(
        "{:>9}  {time}  {:>8} bytes  {}x{}  segment {} at {:#x}",
        header.sequence,
        header.length,
        geometry.width,
        geometry.height,
        entry.segment,
        entry.offset
    )
}

impl Gap {
    /// One of its stretches: how many, between which frames, why, and from when to when.
    fn line(&self, loss: &Loss) -> String {
        let place = match (self.after, self.before) {
            (Some(after), Some(before)) => format!("between {after} and {before}"),
            (None, Some(before)) => format!("in front of {before}"),
            (Some(after), None) => format!("behind {after}"),
            (None, None) => "and no frame archived".to_owned(),
        };
        let refusal =
            loss.refusal.map_or(String::new(), |refusal| format!(" ({})", refusal.name()));
        let time = |time: Option<Timestamp>| time.map_or("unknown".to_owned(), |t| t.to_string());
        format!(
            "{:>9}  -- {} {} lost {place}: {}{refusal}, {} to {}",
            loss.sequence,
            loss.count,
            if loss.exact { "frames" } else { "frames (estimated)" },
            loss.reason.name(),
            time(loss.first),
            time(loss.last)
        )
    }
}

#[cfg(test)]
mod tests {
    use circbuf_driver::loss::LossReason;
    use circbuf_driver::record::{RecordHeader, RecordKind};

    use super::*;

    fn found(kind: RecordKind, sequence: u64, content: Content) -> Found {
        #[rustfmt::skip]
        let header = RecordHeader { kind, synthesised: true, camera: 0, length: 1, sequence, epoch: 0,
            cursor: 0, realtime_ns: 0, monotonic_ns: 0, lost_before: 0, session: 0 };
        Found::Record(Entry { segment: 0, offset: 4096, header, body_crc: 0, content })
    }

    fn frame(sequence: u64) -> Found {
        let (time, geometry) = (Timestamp::default(), Geometry::default());
        found(RecordKind::Frame, sequence, Content::Frame { time, geometry })
    }

    fn loss(sequence: u64, count: u64) -> Found {
        let reason = LossReason::Overrun;
        #[rustfmt::skip]
        let loss = Loss { reason, refusal: None, sequence, count, exact: true, first: None, last: None };
        found(RecordKind::Loss, sequence, Content::Loss(loss))
    }

    /// Found by fuzzing: any number may stand in a record with a right checksum.
    #[test]
    fn numbers_that_no_counter_holds_are_counted_as_the_largest() {
        let mut listing = Listing::default();
        let mut take = |found| listing.take(found).map(|(_, gap)| gap.lost);
        assert_eq!(take(frame(u64::MAX)), Some(0));
        assert_eq!([loss(5, u64::MAX), loss(7, u64::MAX)].map(&mut take), [None, None]);
        assert_eq!(take(frame(0)), Some(u64::MAX));
        assert_eq!([frame(u64::MAX), frame(1), frame(u64::MAX - 1)].map(take), [Some(0); 3]);
        assert_eq!((listing.frames, listing.skipped), (5, u64::MAX));
    }
}
