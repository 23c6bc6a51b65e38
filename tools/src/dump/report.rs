//! What was found, as a table and as JSON.

use std::io::{self, Write};

use circbuf_driver::forensics::{Found, Overwriter, Tear, Verdict};
use serde::Serialize;

use super::{Dump, Piece};

const SCHEMA: &str = "circbuf.dump/1";

#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: &'static str,
    path: String,
    /// Null for a segment.
    ring_bytes: Option<u64>,
    frames: Vec<Entry>,
    /// Offsets of records in a segment whose header is broken.
    broken_records: &'a [u64],
}

/// A frame, by offsets in the file.
#[derive(Debug, Serialize)]
struct Entry {
    /// The number by which `--frame` finds it; null if it is not sound.
    index: Option<usize>,
    sequence: Option<u64>,
    start: u64,
    start_word: u64,
    length: u32,
    sec: Option<u32>,
    usec: Option<u32>,
    verdict: &'static str,
    /// What contradicts the header, of a torn frame.
    reason: Option<String>,
    /// Start of the frame that wrote over it.
    overwritten_by: Option<u64>,
    /// Whether no overwriting explains it.
    corrupt: bool,
    width: Option<u16>,
    height: Option<u16>,
    quality2: Option<u16>,
    color_mode: Option<u8>,
}

impl Entry {
    fn of((index, piece, found): (Option<usize>, &Piece, &Found)) -> Entry {
        let geometry = found.header.map(|header| header.geometry());
        let start = piece.offset + found.start;
        Entry {
            index,
            sequence: piece.sequence,
            start,
            start_word: start / 4,
            length: found.length,
            sec: found.time.map(|time| time.sec),
            usec: found.time.map(|time| time.usec),
            verdict: name(found.verdict),
            reason: reason(found.verdict),
            overwritten_by: overwriter(found.verdict),
            corrupt: found.is_corrupt(),
            width: geometry.map(|geometry| geometry.width),
            height: geometry.map(|geometry| geometry.height),
            quality2: geometry.map(|geometry| geometry.quality2),
            color_mode: geometry.map(|geometry| geometry.color_mode),
        }
    }
}

fn entries(dump: &Dump, frame: Option<usize>) -> impl Iterator<Item = Entry> {
    let is_asked = move |entry: &Entry| frame.is_none() || entry.index == frame;
    dump.entries().map(Entry::of).filter(is_asked)
}

pub(super) fn write_json(out: &mut dyn Write, dump: &Dump, frame: Option<usize>) -> io::Result<()> {
    let report = Report {
        schema: SCHEMA,
        path: dump.path.display().to_string(),
        ring_bytes: (!dump.is_segment).then_some(dump.bytes),
        frames: entries(dump, frame).collect(),
        broken_records: &dump.broken,
    };
    serde_json::to_writer(&mut *out, &report)?;
    writeln!(out)
}

pub(super) fn write_table(
    out: &mut dyn Write,
    dump: &Dump,
    frame: Option<usize>,
) -> io::Result<()> {
    writeln!(out, "frame  start word    bytes  time               verdict")?;
    for entry in entries(dump, frame) {
        let index = entry.index.map_or("-".into(), |index| index.to_string());
        let time = match (entry.sec, entry.usec) {
            (Some(sec), Some(usec)) => format!("{sec}.{usec:06}"),
            _ => "-".into(),
        };
        let Entry { start_word, length, verdict, .. } = entry;
        write!(out, "{index:>5}  {start_word:>10x} {length:>8}  {time:<17}  {verdict}")?;
        if let Some(reason) = entry.reason {
            write!(out, ": {reason}")?;
        }
        if let Some(start) = entry.overwritten_by {
            write!(out, ", overwritten by the frame at {:x}", start / 4)?;
        }
        writeln!(out, "{}", if entry.corrupt { " (nothing explains this)" } else { "" })?;
    }
    for offset in &dump.broken {
        writeln!(out, "record at byte {offset}: its header is broken")?;
    }
    write_summary(out, dump)
}

fn write_summary(out: &mut dyn Write, dump: &Dump) -> io::Result<()> {
    let count = |name_asked| dump.entries().filter(|(.., f)| name(f.verdict) == name_asked).count();
    let counts =
        ["whole", "unstamped", "torn", "stale"].map(|name| format!("{} {name}", count(name)));
    let corrupt = dump.entries().filter(|(.., f)| f.is_corrupt()).count() + dump.broken.len();
    writeln!(out, "{}; {corrupt} corrupt", counts.join(", "))
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Whole => "whole",
        Verdict::Unstamped => "unstamped",
        Verdict::Torn { .. } => "torn",
        Verdict::Stale { .. } => "stale",
    }
}

fn reason(verdict: Verdict) -> Option<String> {
    let Verdict::Torn { tear, .. } = verdict else { return None };
    Some(match tear {
        Tear::NoTrailer => "no trailer where the length puts it".into(),
        Tear::Length { trailer } => format!("the trailer tells {trailer} bytes"),
        Tear::Signature { offset } => format!("ff ff in the payload at byte {offset:#x}"),
        Tear::Padding { offset } => format!("not zero behind the payload at byte {offset:#x}"),
        Tear::Counters => "the writer had come by".into(),
    })
}

fn overwriter(verdict: Verdict) -> Option<u64> {
    match verdict {
        Verdict::Torn { by: Overwriter::Frame(start), .. }
        | Verdict::Stale { by: Overwriter::Frame(start) } => Some(start),
        _ => None,
    }
}
