//! `circbuf archive verify`: whether archives are whole.

use std::path::{Path, PathBuf};

use circbuf_driver::archive::{Extent, ReadError, VerifyReport, verify};
use circbuf_tools::stdout;
use serde_json::{Value, json};

use super::{DirArgs, channels, unreadable};
use crate::failure::{Code, Failure};
use crate::status::progress;

/// Verifies an archive, or those of all channels in its place.
pub(super) fn verify_all(args: &DirArgs) -> Result<(), Failure> {
    match (read(&args.dir), channels(&args.dir)) {
        (Err(ReadError::NotAnArchive { .. }), channels) if !channels.is_empty() => {
            verify_channels(channels, args.json)
        }
        (Err(error), _) => Err(unreadable(&error)),
        (Ok(report), _) => {
            stdout::write(|out| match args.json {
                true => writeln!(out, "{}", object(&report)),
                false => lines(&report).iter().try_for_each(|line| writeln!(out, "{line}")),
            })?;
            judge(&args.dir, &report)
        }
    }
}

/// One that cannot be read does not hide what the others are.
fn verify_channels(channels: Vec<(u32, PathBuf)>, as_json: bool) -> Result<(), Failure> {
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for (number, dir) in channels {
        match read(&dir) {
            Ok(report) => {
                failures.extend(judge(&dir, &report).err());
                reports.push((number, report));
            }
            Err(error) => failures.push(unreadable(&error)),
        }
    }
    stdout::write(|out| {
        if as_json {
            let told = reports.iter().map(|(number, report)| {
                let mut told = object(report);
                told["channel"] = json!(number);
                told
            });
            let channels: Vec<Value> = told.collect();
            let schema = "circbuf.archive-verify.channels/1";
            let all =
                json!({ "schema": schema, "clean": failures.is_empty(), "channels": channels });
            return writeln!(out, "{all}");
        }
        reports.iter().try_for_each(|(number, report)| {
            let mut lines = lines(report).into_iter();
            lines.try_for_each(|line| writeln!(out, "channel {number}: {line}"))
        })
    })?;
    Failure::together(failures)
}

fn read(dir: &Path) -> Result<VerifyReport, ReadError> {
    verify(dir, progress("verifying"))
}

fn judge(dir: &Path, report: &VerifyReport) -> Result<(), Failure> {
    match report.problems.problems_total {
        _ if report.is_clean() => Ok(()),
        problems => {
            Err(Failure::new(Code::Corruption, format!("{}: {problems} problems", dir.display())))
        }
    }
}

fn object(report: &VerifyReport) -> Value {
    let mut object = json!(report);
    object["schema"] = json!("circbuf.archive-verify/1");
    object["clean"] = json!(report.is_clean());
    object
}

fn lines(report: &VerifyReport) -> Vec<String> {
    let problems = &report.problems;
    let told = problems.problems.iter();
    let mut lines: Vec<String> = told
        .map(|problem| {
            format!("segment {} at {:#x}: {}", problem.segment, problem.offset, problem.what)
        })
        .collect();
    let untold = problems.problems_total - lines.len() as u64;
    if untold > 0 {
        lines.push(format!("and {untold} problems more"));
    }
    lines.push(format!(
        "{} frames and {} loss records ({} frames lost, {} skipped by policy) in {} segments of \
         {:.1} MB: {}",
        report.frames,
        report.losses,
        report.frames_lost,
        report.skipped,
        report.segments,
        report.bytes as f64 / 1e6,
        if report.is_clean() { "clean" } else { "DAMAGED" }
    ));
    lines.extend(remarks(report));
    lines
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
