//! `circbuf verify`: an archive, held against the ledger of the camera.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use circbuf_tools::answer_key::{Comparison, RunBooks, compare};
use circbuf_tools::stdout;
use clap::Args;
use serde_json::json;

use crate::failure::{Code, Failure};
use crate::status::progress;

/// The options of `circbuf verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  circbuf run --seconds 20 --archive A --ledger L --json > books
  circbuf verify --ledger L --archive A --books books

Without --books nobody can tell a frame that vanished from one that a policy left, nor numbers that are
wrong in all frames from those of a ring without counters.

Exit codes: 4 if a frame was archived that is damaged or not as the ledger says, or a record is damaged
(circbuf archive verify looks at every byte); 1 if the books differ, or ledger and archive cannot be
compared.")]
pub(crate) struct VerifyArgs {
    /// What the camera wrote, as --ledger of run or emulate tells it
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
    /// What the driver archived of it
    #[arg(long, value_name = "DIR")]
    archive: PathBuf,
    /// Hold the books against both as well: what `circbuf run --json` printed
    #[arg(long, value_name = "FILE")]
    books: Option<PathBuf>,
    /// Of books of several channels, the one that ledger and archive belong to
    #[arg(long, value_name = "N", requires = "books")]
    channel: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let books = args.books.as_deref().map(|path| RunBooks::read(path, args.channel));
    let books = books.transpose().map_err(Failure::failed)?;
    let (ledger, archive) = (&args.ledger, &args.archive);
    let comparison = compare(ledger, archive, books.as_ref(), &mut progress("comparing"))
        .map_err(Failure::failed)?;
    stdout::write(|out| match args.json {
        true => writeln!(out, "{}", json!(comparison)),
        false => table(out, &comparison),
    })?;
    check(&comparison)
}

/// Why a comparison is a failure.
pub(crate) fn check(comparison: &Comparison) -> Result<(), Failure> {
    let Comparison { columns, archive, .. } = comparison;
    let corruption = |message: String| Err(Failure::new(Code::Corruption, message));
    if columns.delivered_damaged > 0 {
        let most = columns.delivered_damaged * 2 > archive.frames;
        return corruption(format!(
            "{} archived frames are damaged or not as the ledger says, {} of them unknown to it{}",
            columns.delivered_damaged,
            comparison.unknown,
            if most { "; are archive and ledger of the same run?" } else { "" }
        ));
    }
    if archive.damaged > 0 {
        return corruption(format!(
            "{} records or stretches of the archive are damaged on the disk; see circbuf archive verify",
            archive.damaged
        ));
    }
    if archive.lost_twice > 0 {
        return Err(Failure::failed(format!(
            "the archive tells {} frames twice, as lost and as archived or lost for two reasons",
            archive.lost_twice
        )));
    }
    let differences = comparison.books.as_deref().unwrap_or_default();
    if differences.is_empty() {
        return Ok(());
    }
    let told = differences.iter().map(|difference| {
        let books = difference.books.map_or("nothing".to_owned(), |frames| frames.to_string());
        format!("{} is {books}, ledger and archive say {}", difference.number, difference.found)
    });
    let told: Vec<String> = told.collect();
    Err(Failure::failed(format!("the books differ: {}", told.join("; "))))
}

/// The comparison for people.
pub(crate) fn table(out: &mut dyn Write, comparison: &Comparison) -> io::Result<()> {
    let Comparison { columns, archive, damage, .. } = comparison;
    let lost = archive.lost.values().fold(0u64, |sum, &frames| sum.saturating_add(frames));
    writeln!(
        out,
        "{} frames in the ledger; in the archive {} frames, and losses of {lost}",
        comparison.frames, archive.frames
    )?;
    row(out, "", ["good", "damaged", "undetectable", "overwritten"])?;
    let delivered = [columns.delivered_good, columns.delivered_damaged, columns.undetectable];
    let [good, wrong, undetectable] = delivered.map(|frames| frames.to_string());
    row(out, "archived", [&good, &wrong, &undetectable, "-"])?;
    let refused = [columns.refused_good, columns.refused_damaged, columns.overwritten];
    let [good, found, overwritten] = refused.map(|frames| frames.to_string());
    row(out, "refused", [&good, &found, "-", &overwritten])?;
    row(out, "", ["missed", "not archived", "before driver", "after driver"])?;
    let others = [columns.missed, columns.not_archived, columns.before_attach, columns.after_end];
    let others = others.map(|frames| frames.to_string());
    row(out, "not seen", others.each_ref().map(String::as_str))?;
    if comparison.is_estimated() {
        writeln!(
            out,
            "  (numbers are the driver's own, of a ring without counters: frames are compared by time and \
             content, and what became of those that are not archived is estimated)"
        )?;
    }
    reasons(out, comparison)?;
    faults(out, comparison)?;
    write!(
        out,
        "  damaged {}, found {}, accepted {}",
        damage.damaged, damage.found, damage.accepted
    )?;
    match damage.not_examined {
        0 => writeln!(out)?,
        frames => writeln!(out, "; {frames} were lost before they were looked at")?,
    }
    remarks(comparison).iter().try_for_each(|remark| writeln!(out, "  {remark}"))
}

fn row(out: &mut dyn Write, name: &str, cells: [&str; 4]) -> io::Result<()> {
    let cells = cells.map(|cell| format!("{cell:>14}")).concat();
    writeln!(out, "  {name:<9}{cells}")
}

fn reasons(out: &mut dyn Write, comparison: &Comparison) -> io::Result<()> {
    let list = |counts: &BTreeMap<&str, u64>| {
        let each: Vec<String> =
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        each.join(", ")
    };
    if comparison.by_reason.is_empty() {
        return Ok(());
    }
    write!(out, "  lost by reason: {}", list(&comparison.by_reason))?;
    match comparison.by_refusal.is_empty() {
        true => writeln!(out),
        false => writeln!(out, "; refused by: {}", list(&comparison.by_refusal)),
    }
}

/// A line for each kind of fault, if there are any.
fn faults(out: &mut dyn Write, comparison: &Comparison) -> io::Result<()> {
    if comparison.by_fault.keys().all(|&name| name == "none") {
        return Ok(());
    }
    let title = ["injected", "archived", "found", "good refused", "needless"];
    let cells = |cells: [String; 5]| cells.map(|cell| format!("{cell:>14}")).concat();
    writeln!(out, "  {:<18}{}", "fault", cells(title.map(str::to_owned)))?;
    for (name, book) in &comparison.by_fault {
        let columns = &book.columns;
        let archived = columns.delivered_good + columns.undetectable + columns.delivered_damaged;
        let numbers =
            [book.injected, archived, columns.refused_damaged, columns.refused_good, book.needless];
        writeln!(out, "  {name:<18}{}", cells(numbers.map(|frames| frames.to_string())))?;
    }
    Ok(())
}

/// What is no failure and yet worth to be told.
fn remarks(comparison: &Comparison) -> Vec<String> {
    let archive = &comparison.archive;
    let mut remarks = Vec::new();
    if let Some(line) = comparison.ledger_incomplete_line {
        remarks.push(format!(
            "line {line} of the ledger, the last, is not whole: its camera was killed; {} archived \
             frames cannot be judged",
            archive.unjudged
        ));
    }
    if archive.lost_unknown > 0 && !comparison.is_estimated() {
        remarks.push(format!(
            "{} lost frames lie outside of the ledger: it does not go as far as the archive",
            archive.lost_unknown
        ));
    }
    if comparison.books.as_ref().is_some_and(Vec::is_empty) {
        remarks.push("the books of the run are equal to the frame".to_owned());
    }
    remarks
}
