//! `circbuf archive`: what is in an archive, whether it is whole, mending it, and getting frames out.

mod export;

use std::io::{self, Write};
use std::path::PathBuf;

use circbuf_driver::archive::{
    ArchiveReader, Content, Entry, Extent, Found, VerifyReport, recover, verify,
};
use circbuf_driver::loss::Loss;
use circbuf_driver::ring::{Geometry, Timestamp};
use circbuf_tools::stdout;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::failure::{Code, Failure};
use crate::status::progress;
use export::ExportArgs;

/// The subcommands of `circbuf archive`.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// List frames and losses
    Ls(DirArgs),
    /// Read everything and check it; exit 4 if something is damaged
    Verify(DirArgs),
    /// After a crash: cut what is not whole off the end, and make the indexes again
    Recover(RecoverArgs),
    /// Write frames as files
    Export(ExportArgs),
}

/// An archive.
#[derive(Debug, Args)]
pub(crate) struct DirArgs {
    /// The archive's directory
    dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The options of `circbuf archive recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    archive: DirArgs,
    /// Change nothing, only tell what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn archive(command: &ArchiveCommand) -> Result<(), Failure> {
    match command {
        ArchiveCommand::Ls(args) => ls(args),
        ArchiveCommand::Verify(args) => verify_archive(args),
        ArchiveCommand::Recover(args) => recover_archive(args),
        ArchiveCommand::Export(args) => export::export(args),
    }
}

fn ls(args: &DirArgs) -> Result<(), Failure> {
    let archive = ArchiveReader::open(&args.dir).map_err(Failure::failed)?;
    let mut listing = Listing::default();
    let mut failed = None;
    let mut found = archive.scan().map_while(|found| found.map_err(|e| failed = Some(e)).ok());
    stdout::write(|out| match args.json {
        true => listing.json(&archive, &mut found, out),
        false => listing.text(&archive, &mut found, out),
    })?;
    failed.map_or(Ok(()), |error| Err(Failure::failed(error)))
}

/// What has been listed.
#[derive(Debug, Default)]
struct Listing {
    frames: u64,
    losses: Vec<Loss>,
    damaged: u64,
}

impl Listing {
    /// Counts what was found; the record, if it is one.
    fn take(&mut self, found: Found) -> Option<Entry> {
        match found {
            Found::Record(entry) => {
                match entry.content {
                    Content::Frame { .. } => self.frames += 1,
                    Content::Loss(loss) => self.losses.push(loss),
                }
                return Some(entry);
            }
            Found::Damaged(extent) => self.damaged += u64::from(!extent.zeros),
            Found::Tail(_) => {}
        }
        None
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
        for entry in found.filter_map(|found| self.take(found)) {
            if let Content::Frame { time, geometry } = entry.content {
                write!(out, "{comma}{}", frame_json(&entry, time, geometry))?;
                comma = ",";
            }
        }
        let losses = json!(self.losses);
        writeln!(out, r#"],"losses":{losses},"damaged_extents":{}}}"#, self.damaged)
    }

    fn text(
        &mut self,
        archive: &ArchiveReader,
        found: &mut dyn Iterator<Item = Found>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        for entry in found.filter_map(|found| self.take(found)) {
            writeln!(out, "{}", line(&entry))?;
        }
        let lost: u64 = self.losses.iter().map(|loss| loss.count).sum();
        let (segments, megabytes) = (archive.segments().len(), archive.bytes() as f64 / 1e6);
        write!(
            out,
            "{} frames, {lost} lost, in {segments} segments of {megabytes:.1} MB in all",
            self.frames
        )?;
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

fn line(entry: &Entry) -> String {
    let header = &entry.header;
    match entry.content {
        Content::Frame { time, geometry } => format!(
            "{:>9}  {time}  {:>8} bytes  {}x{}  segment {} at {:#x}",
            header.sequence,
            header.length,
            geometry.width,
            geometry.height,
            entry.segment,
            entry.offset
        ),
        Content::Loss(loss) => format!("{:>9}  {}", loss.sequence, describe(&loss)),
    }
}

fn describe(loss: &Loss) -> String {
    let time = |time: Option<Timestamp>| time.map_or("unknown".to_owned(), |time| time.to_string());
    format!(
        "-- {} {} lost: {}, {} to {}",
        loss.count,
        if loss.exact { "frames" } else { "frames (estimated)" },
        loss.reason.name(),
        time(loss.first),
        time(loss.last)
    )
}

fn verify_archive(args: &DirArgs) -> Result<(), Failure> {
    let report = verify(&args.dir, progress("verifying")).map_err(Failure::failed)?;
    stdout::write(|out| {
        if args.json {
            let mut object = json!(report);
            object["schema"] = json!("circbuf.archive-verify/1");
            object["clean"] = json!(report.is_clean());
            return writeln!(out, "{object}");
        }
        for problem in &report.problems.problems {
            writeln!(
                out,
                "segment {} at {:#x}: {}",
                problem.segment, problem.offset, problem.what
            )?;
        }
        let untold = report.problems.problems_total - report.problems.problems.len() as u64;
        if untold > 0 {
            writeln!(out, "and {untold} problems more")?;
        }
        writeln!(
            out,
            "{} frames and {} loss records ({} frames lost, {} skipped by policy) in {} segments of \
             {:.1} MB: {}",
            report.frames,
            report.losses,
            report.frames_lost,
            report.skipped,
            report.segments,
            report.bytes as f64 / 1e6,
            if report.is_clean() { "clean" } else { "DAMAGED" }
        )?;
        remarks(&report).iter().try_for_each(|remark| writeln!(out, "{remark}"))
    })?;
    if report.is_clean() {
        return Ok(());
    }
    let problems = report.problems.problems_total;
    Err(Failure::new(Code::Corruption, format!("{}: {problems} problems", args.dir.display())))
}

/// What is no damage and yet worth to be told.
fn remarks(report: &VerifyReport) -> Vec<String> {
    let mut remarks = Vec::new();
    if report.live {
        remarks.push("it is being written: what is not indexed yet is not judged".to_owned());
    }
    if report.unaccounted > 0 {
        remarks.push(format!(
            "{} frame numbers are unaccounted for: skipped by policy, or gone where bytes are \
             damaged or missing or no index tells",
            report.unaccounted
        ));
    }
    if report.hole_bytes > 0 {
        let hole_bytes = report.hole_bytes;
        remarks.push(format!("{hole_bytes} bytes between records were never written"));
    }
    if let Some(torn) = &report.torn {
        remarks.push(format!(
            "segment {} ends at {:#x} in {} bytes that are no whole record ({}): never finished, or \
             damaged since; no index tells which",
            torn.segment,
            torn.offset,
            torn.bytes,
            torn_record(torn)
        ));
    }
    if !report.live && report.unindexed + report.tail_bytes > 0 {
        remarks.push(format!(
            "{} records are not indexed, {} bytes behind the last whole record: as a killed run \
             leaves them; circbuf archive recover mends it",
            report.unindexed, report.tail_bytes
        ));
    }
    remarks
}

fn torn_record(torn: &Extent) -> String {
    match torn.sequence {
        Some(sequence) => format!("record of sequence {sequence}: {}", torn.what),
        None => torn.what.clone(),
    }
}

fn recover_archive(args: &RecoverArgs) -> Result<(), Failure> {
    let dir = &args.archive.dir;
    let report = recover(dir, args.dry_run, progress("recovering")).map_err(Failure::failed)?;
    stdout::write(|out| {
        if args.archive.json {
            let mut object = json!(report);
            object["schema"] = json!("circbuf.archive-recover/1");
            return writeln!(out, "{object}");
        }
        for cut in &report.cuts {
            let extent = &cut.extent;
            writeln!(
                out,
                "segment {}: cut {} bytes at {:#x}{}: {}",
                extent.segment,
                extent.bytes,
                extent.offset,
                cut.after.map_or(String::new(), |sequence| format!(", behind frame {sequence}")),
                extent.what
            )?;
        }
        for problem in &report.damaged.problems {
            writeln!(
                out,
                "segment {} at {:#x}: {}; left as it is",
                problem.segment, problem.offset, problem.what
            )?;
        }
        writeln!(
            out,
            "{}{} frames and {} loss records kept, {} bytes cut with {} torn records, {} indexes \
             made again",
            if report.dry_run { "dry run: " } else { "" },
            report.frames,
            report.losses,
            report.bytes_cut,
            report.records_torn,
            report.indexes_rebuilt
        )
    })?;
    match report.damaged.problems_total {
        0 => Ok(()),
        problems => Err(Failure::new(
            Code::Corruption,
            format!("{}: {problems} damaged stretches stay in it", dir.display()),
        )),
    }
}
