//! `circbuf archive`: what is in an archive, whether it is whole, mending it, and getting frames out.

mod export;
mod ls;

use std::path::PathBuf;

use circbuf_driver::archive::{Cut, Extent, VerifyReport, recover, verify};
use circbuf_tools::stdout;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::failure::{Code, Failure};
use crate::status::progress;
use export::ExportArgs;

/// The subcommands of `circbuf archive`.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// List frames, and the gaps between them
    Ls(DirArgs),
    /// Read everything and check it; exit 4 if something is damaged
    Verify(DirArgs),
    /// After a crash: remove what was never finished, and make the indexes again
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
        ArchiveCommand::Ls(args) => ls::ls(args),
        ArchiveCommand::Verify(args) => verify_archive(args),
        ArchiveCommand::Recover(args) => recover_archive(args),
        ArchiveCommand::Export(args) => export::export(args),
    }
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
        remarks.push(format!(
            "{hole_bytes} bytes between records were never written, or erased by recover"
        ));
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

fn removed(how: &str, cut: &Cut) -> String {
    let Extent { segment, bytes, offset, what, .. } = &cut.extent;
    let behind = cut.after.map_or(String::new(), |sequence| format!(", behind frame {sequence}"));
    format!("segment {segment}: {how} {bytes} bytes at {offset:#x}{behind}: {what}")
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
        report.erased.iter().try_for_each(|cut| writeln!(out, "{}", removed("erased", cut)))?;
        report.cuts.iter().try_for_each(|cut| writeln!(out, "{}", removed("cut", cut)))?;
        for problem in &report.damaged.problems {
            writeln!(
                out,
                "segment {} at {:#x}: {}; left as it is",
                problem.segment, problem.offset, problem.what
            )?;
        }
        writeln!(
            out,
            "{}{} frames and {} loss records kept, {} bytes cut and {} erased with {} torn records, \
             {} indexes made again",
            if report.dry_run { "dry run: " } else { "" },
            report.frames,
            report.losses,
            report.bytes_cut,
            report.bytes_erased,
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
