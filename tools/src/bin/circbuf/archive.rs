//! `circbuf archive`: what is in an archive, whether it is whole, mending it, and getting frames out.

mod export;
mod ls;
mod verify;

use std::path::{Path, PathBuf};

use circbuf_driver::archive::{Cut, Extent, ReadError, RecoverError, recover};
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
    /// Read everything and check it, of all channels that are in DIR; exit 4 if something is damaged
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
        ArchiveCommand::Verify(args) => verify::verify_all(args),
        ArchiveCommand::Recover(args) => recover_archive(args),
        ArchiveCommand::Export(args) => export::export(args),
    }
}

/// The archives of several channels in a folder, as `run --archive` writes them: each channel's number, and
/// its folder.
fn channels(dir: &Path) -> Vec<(u32, PathBuf)> {
    let number = |name: &str| name.strip_prefix("channel")?.parse().ok();
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut channels: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path())))
        .filter(|(_, path)| path.is_dir())
        .collect();
    channels.sort();
    channels
}

/// Why an archive cannot be read; of a folder with those of several channels, which it could be.
fn unreadable(error: &ReadError) -> Failure {
    let ReadError::NotAnArchive { dir } = error else { return Failure::failed(error) };
    let channels: Vec<String> =
        channels(dir).iter().map(|(_, path)| path.display().to_string()).collect();
    match channels.is_empty() {
        true => Failure::failed(error),
        false => Failure::failed(format!(
            "{}: holds the archives of {} channels; name one of them: {}",
            dir.display(),
            channels.len(),
            channels.join(", ")
        )),
    }
}

fn removed(how: &str, cut: &Cut) -> String {
    let Extent { segment, bytes, offset, what, .. } = &cut.extent;
    let behind = cut.after.map_or(String::new(), |sequence| format!(", behind frame {sequence}"));
    format!("segment {segment}: {how} {bytes} bytes at {offset:#x}{behind}: {what}")
}

fn recover_archive(args: &RecoverArgs) -> Result<(), Failure> {
    let dir = &args.archive.dir;
    let report = recover(dir, args.dry_run, progress("recovering"));
    let report = report.map_err(|error| match error {
        RecoverError::Read(error) => unreadable(&error),
        error => Failure::failed(error),
    })?;
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
