//! What was found, as a table and as JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};

use circbuf_driver::forensics::{Content, Found, Overwriter, Stretch, Tear, Verdict};
use serde::Serialize;

use super::{Dump, Piece};

const SCHEMA: &str = "circbuf.dump/2";

#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: &'static str,
    path: String,
    /// Null for a segment.
    ring_bytes: Option<u64>,
    /// Whether a register page or the user told the size.
    ring_bytes_told: bool,
    /// Bytes of the ring that the file has not.
    missing_bytes: u64,
    frames: Vec<Entry>,
    stretches: Vec<Part>,
    /// By verdict: how many stretches, and their bytes.
    sums: BTreeMap<&'static str, Sum>,
    /// Number of stretches and records that contradict themselves.
    corrupt: usize,
    /// Offsets of records in a segment whose header is broken.
    broken_records: &'a [u64],
}

/// A frame, by offsets in the file.
#[derive(Debug, Clone, Serialize)]
struct Entry {
    /// The number by which `--frame` finds it; null if it is not sound.
    index: Option<usize>,
    /// The camera's number, if the register page or a record tells it.
    sequence: Option<u64>,
    start: u64,
    start_word: u64,
    length: u32,
    sec: Option<u32>,
    usec: Option<u32>,
    verdict: &'static str,
    /// What contradicts it, of a torn frame.
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

/// A stretch, by offsets in the file.
#[derive(Debug, Serialize)]
struct Part {
    start: u64,
    /// Behind its last byte; at most `start` if it reaches over the ring's end.
    end: u64,
    bytes: u64,
    wraps: bool,
    verdict: &'static str,
    /// Whose bytes these are, or behind whom they stand.
    frame: Option<Entry>,
    overwritten_by: Option<By>,
    corrupt: bool,
}

/// Who wrote over a frame.
#[derive(Debug, Serialize)]
struct By {
    /// `frame`, `unfinished`, `cut`, `restart` or `unknown`.
    who: &'static str,
    /// The frame, if it is one.
    start: Option<u64>,
    sequence: Option<u64>,
    sec: Option<u32>,
    usec: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Sum {
    stretches: usize,
    bytes: u64,
}

impl Entry {
    fn of((index, piece, found): (Option<usize>, &Piece, &Found)) -> Entry {
        let geometry = found.header.map(|header| header.geometry());
        let start = piece.offset + found.start;
        let overwritten_by = match found.overwriter() {
            Some(Overwriter::Frame(start)) => Some(piece.offset + start),
            _ => None,
        };
        Entry {
            index,
            sequence: piece.sequence.or(found.number),
            start,
            start_word: start / 4,
            length: found.length,
            sec: found.time.map(|time| time.sec),
            usec: found.time.map(|time| time.usec),
            verdict: name(found.verdict),
            reason: reason(found.verdict),
            overwritten_by,
            corrupt: found.is_corrupt(),
            width: geometry.map(|geometry| geometry.width),
            height: geometry.map(|geometry| geometry.height),
            quality2: geometry.map(|geometry| geometry.quality2),
            color_mode: geometry.map(|geometry| geometry.color_mode),
        }
    }
}

impl Part {
    /// `entries` are those of this piece.
    fn of(piece: &Piece, entries: &[Entry], stretch: &Stretch) -> Part {
        let ring_bytes = piece.image.ring_bytes();
        let end = stretch.start + stretch.bytes;
        let wraps = end > ring_bytes;
        let frames = &piece.survey.frames;
        let (frame, by) = match stretch.content {
            Content::Frame(at) => (Some(entries[at].clone()), frames[at].overwriter()),
            Content::Gap(at) => (Some(entries[at].clone()), None),
            Content::Head { by } => (None, Some(by)),
            _ => (None, None),
        };
        Part {
            start: piece.offset + stretch.start,
            end: piece.offset + if wraps { end - ring_bytes } else { end },
            bytes: stretch.bytes,
            wraps,
            verdict: verdict(stretch.content, frames),
            frame,
            overwritten_by: by.map(|by| By::of(by, piece, entries)),
            corrupt: stretch.is_corrupt(frames),
        }
    }
}

impl By {
    fn of(by: Overwriter, piece: &Piece, entries: &[Entry]) -> By {
        let who = match by {
            Overwriter::Frame(_) => "frame",
            Overwriter::Unfinished => "unfinished",
            Overwriter::Cut => "cut",
            Overwriter::Restart => "restart",
            Overwriter::Unknown => "unknown",
        };
        let Overwriter::Frame(start) = by else {
            return By { who, start: None, sequence: None, sec: None, usec: None };
        };
        // At the same start the sound one comes first.
        let at = piece.survey.frames.partition_point(|found| found.start < start);
        let Entry { start, sequence, sec, usec, .. } = entries[at];
        By { who, start: Some(start), sequence, sec, usec }
    }
}

/// All frames, and all stretches with theirs.
fn judge(dump: &Dump) -> (Vec<Entry>, Vec<Part>) {
    let entries: Vec<Entry> = dump.entries().map(Entry::of).collect();
    let (mut parts, mut rest) = (Vec::new(), entries.as_slice());
    for piece in &dump.pieces {
        let (own, behind) = rest.split_at(piece.survey.frames.len());
        parts.extend(piece.survey.stretches.iter().map(|stretch| Part::of(piece, own, stretch)));
        rest = behind;
    }
    (entries, parts)
}

fn sums(parts: &[Part]) -> BTreeMap<&'static str, Sum> {
    let mut sums = BTreeMap::<_, Sum>::new();
    for part in parts {
        let sum = sums.entry(part.verdict).or_default();
        sum.stretches += 1;
        sum.bytes += part.bytes;
    }
    sums
}

fn corrupt(dump: &Dump, parts: &[Part]) -> usize {
    parts.iter().filter(|part| part.corrupt).count() + dump.broken.len()
}

pub(super) fn write_json(out: &mut dyn Write, dump: &Dump, frame: Option<usize>) -> io::Result<()> {
    let (mut frames, mut stretches) = judge(dump);
    let (sums, corrupt) = (sums(&stretches), corrupt(dump, &stretches));
    if frame.is_some() {
        frames.retain(|entry| entry.index == frame);
        stretches.retain(|part| is_of(part, frame));
    }
    let images = || dump.pieces.iter().map(|piece| &piece.image);
    let report = Report {
        schema: SCHEMA,
        path: dump.path.display().to_string(),
        ring_bytes: (!dump.is_segment).then_some(dump.bytes),
        ring_bytes_told: images().all(|image| image.is_size_told()),
        missing_bytes: images().map(|image| image.missing_bytes()).sum(),
        frames,
        stretches,
        sums,
        corrupt,
        broken_records: &dump.broken,
    };
    serde_json::to_writer(&mut *out, &report)?;
    writeln!(out)
}

fn is_of(part: &Part, frame: Option<usize>) -> bool {
    part.frame.as_ref().is_some_and(|entry| entry.index == frame)
}

pub(super) fn write_table(
    out: &mut dyn Write,
    dump: &Dump,
    frame: Option<usize>,
) -> io::Result<()> {
    let (_, parts) = judge(dump);
    let digits = format!("{:x}", dump.bytes).len();
    let width = 2 * digits + "0x..0x".len();
    writeln!(out, "{:<width$}      bytes  frame  number    length  time", "stretch")?;
    for part in parts.iter().filter(|part| frame.is_none() || is_of(part, frame)) {
        let Part { start, end, bytes, .. } = part;
        write!(out, "0x{start:0digits$x}..0x{end:0digits$x} {bytes:>10}  ")?;
        writeln!(out, "{}  {}", columns(part), description(part))?;
    }
    for offset in &dump.broken {
        writeln!(out, "record at byte {offset}: its header is broken")?;
    }
    write_summary(out, dump, &parts)
}

fn columns(part: &Part) -> String {
    let Some(frame) = part.frame.as_ref().filter(|_| part.verdict != GAP) else {
        return format!("{:>5}  {:>6}  {:>8}  {:<17}", "-", "-", "-", "-");
    };
    let index = frame.index.map_or("-".into(), |index| index.to_string());
    let sequence = frame.sequence.map_or("-".into(), |number| number.to_string());
    let time = time(frame.sec, frame.usec).unwrap_or("-".into());
    format!("{index:>5}  {sequence:>6}  {:>8}  {time:<17}", frame.length)
}

fn time(sec: Option<u32>, usec: Option<u32>) -> Option<String> {
    Some(format!("{}.{:06}", sec?, usec?))
}

fn description(part: &Part) -> String {
    let mut text = part.verdict.to_owned();
    let reason = part.frame.as_ref().and_then(|frame| frame.reason.clone());
    if let Some(reason) = reason {
        text = format!("{text}: {reason}");
    }
    if let Some(by) = &part.overwritten_by {
        text += &overwritten(by);
    }
    if part.corrupt {
        text += " (nothing explains this)";
    }
    if part.wraps {
        text += " (wraps)";
    }
    text
}

fn overwritten(by: &By) -> String {
    let Some(start) = by.start else {
        return match by.who {
            "unfinished" => ", overwritten by the unfinished frame".into(),
            "cut" => ", cut off".into(),
            "restart" => ", from before the pointer went back to 0".into(),
            _ => String::new(),
        };
    };
    let number = by.sequence.map_or(String::new(), |number| format!(" {number}"));
    let time = time(by.sec, by.usec).map_or(String::new(), |time| format!(", {time}"));
    format!(", overwritten by frame{number} at {start:#x}{time}")
}

fn write_summary(out: &mut dyn Write, dump: &Dump, parts: &[Part]) -> io::Result<()> {
    let sums = sums(parts);
    let named = sums.iter().map(|(verdict, sum)| {
        let Sum { stretches, bytes } = sum;
        format!("{stretches} {verdict} ({bytes} bytes)")
    });
    let bytes: u64 = sums.values().map(|sum| sum.bytes).sum();
    let named: Vec<_> = named.collect();
    writeln!(out, "{bytes} bytes: {}; {} corrupt", named.join(", "), corrupt(dump, parts))?;
    for image in dump.pieces.iter().map(|piece| &piece.image).filter(|i| !i.is_size_told()) {
        match image.missing_bytes() {
            0 => writeln!(
                out,
                "the ring's size is not told: a cut ring cannot be told from a smaller one (--ring-bytes)"
            )?,
            missing => writeln!(
                out,
                "the file was cut: at least {missing} bytes are missing, and nothing tells how many (--ring-bytes)"
            )?,
        }
    }
    Ok(())
}

const GAP: &str = "gap";

fn verdict(content: Content, frames: &[Found]) -> &'static str {
    match content {
        Content::Frame(at) => name(frames[at].verdict),
        Content::Gap(_) => GAP,
        Content::Head { .. } => "torn",
        Content::Unfinished => "unfinished",
        Content::Garbage => "garbage",
        Content::Unused => "never used",
        Content::Missing => "missing",
    }
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Whole => "whole",
        Verdict::Unstamped => "header missing",
        Verdict::Torn { .. } => "torn",
        Verdict::Stale { .. } => "stale",
    }
}

fn reason(verdict: Verdict) -> Option<String> {
    let Verdict::Torn { tear, .. } = verdict else { return None };
    Some(match tear {
        Tear::NoTrailer => "no trailer where the length puts it".into(),
        Tear::Length { trailer } => format!("the trailer tells {trailer} bytes"),
        Tear::Repeated => "its trailer is that of the frame before".into(),
        Tear::Signature { offset } => format!("ff ff in the payload at byte {offset:#x}"),
        Tear::Padding { offset } => format!("not zero behind the payload at byte {offset:#x}"),
        Tear::Counters => "the writer had come by".into(),
        Tear::Misplaced => "its trailer leads to no frame".into(),
        Tear::Cut => "a part of it is missing".into(),
    })
}
