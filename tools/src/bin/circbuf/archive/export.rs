//! `circbuf archive export`: frames as files.

use std::fs;
use std::path::{Path, PathBuf};

use circbuf_driver::archive::{ArchiveReader, Content, Entry, Found};
use circbuf_driver::jpeg;
use circbuf_driver::record::PAYLOAD_OFFSET;
use circbuf_tools::exif;
use circbuf_tools::export::jpeg_name;
use circbuf_tools::stdout;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::failure::{Code, Failure, log_line};
use crate::status::progress;

/// The options of `circbuf archive export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The archive's directory
    dir: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value = "jpeg")]
    to: Format,
    /// Directory for the files; made if it does not exist. Files in it are not overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Formats
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Complete JPEG files with Exif, named SEC_USEC_CHANNEL.jpeg
    Jpeg,
}

#[derive(Debug, Default)]
struct Exported {
    files: u64,
    /// Frames of which no file can be made, and why the first was one.
    refused: u64,
    first_refusal: Option<String>,
    damaged: u64,
}

pub(crate) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let Format::Jpeg = args.to;
    let archive = ArchiveReader::open(&args.dir).map_err(|error| super::unreadable(&error))?;
    fs::create_dir_all(&args.out).map_err(at(&args.out))?;
    let (mut record, mut exported) = (Vec::new(), Exported::default());
    let mut show = progress("exporting");
    let mut scan = archive.scan();
    while let Some(found) = scan.next() {
        let entry = match found.map_err(Failure::failed)? {
            Found::Record(entry) => entry,
            // What was reserved and never written, as a killed run leaves it, is no damage.
            Found::Damaged(extent) | Found::Tail(extent) => {
                exported.damaged += u64::from(!extent.zeros);
                continue;
            }
        };
        if matches!(entry.content, Content::Frame { .. }) {
            match archive.read_record(&entry, &mut record) {
                Ok(()) => write_file(&args.out, &entry, &record, &mut exported)?,
                Err(error) => {
                    exported.damaged += 1;
                    log_line(&format!("frame {}: {error}; left out", entry.header.sequence));
                }
            }
        }
        show(scan.position(), archive.bytes());
    }
    show(1, 1);
    tell(args, &exported)
}

fn write_file(
    out: &Path,
    entry: &Entry,
    record: &[u8],
    exported: &mut Exported,
) -> Result<(), Failure> {
    let Content::Frame { time, geometry } = entry.content else { return Ok(()) };
    let payload = &record[PAYLOAD_OFFSET..][..entry.header.length as usize];
    let exif = exif::block(time, entry.header.sequence);
    let file = match jpeg::file(geometry, payload, Some(&exif)) {
        Ok(file) => file,
        Err(error) => {
            exported.refused += 1;
            exported.first_refusal.get_or_insert_with(|| error.to_string());
            return Ok(());
        }
    };
    let (camera, sequence) = (entry.header.camera, entry.header.sequence);
    let name = jpeg_name(time, camera, sequence, |name| out.join(name).exists());
    let path = out.join(name);
    fs::write(&path, file).map_err(at(&path))?;
    exported.files += 1;
    Ok(())
}

fn tell(args: &ExportArgs, exported: &Exported) -> Result<(), Failure> {
    stdout::write(|out| {
        if args.json {
            let object = json!({
                "schema": "circbuf.archive-export/1", "files": exported.files,
                "refused": exported.refused, "damaged": exported.damaged,
            });
            return writeln!(out, "{object}");
        }
        writeln!(out, "{} files in {}", exported.files, args.out.display())
    })?;
    if exported.damaged > 0 {
        let message = format!("{} stretches are damaged and left out", exported.damaged);
        return Err(Failure::new(Code::Corruption, message));
    }
    match &exported.first_refusal {
        Some(reason) => Err(Failure::failed(format!(
            "{} frames cannot be made into JPEG files: {reason}",
            exported.refused
        ))),
        None => Ok(()),
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    let path = path.to_owned();
    move |error| {
        Failure::failed(format!(
            "cannot write {}: {error}; --out takes a directory that can be written",
            path.display()
        ))
    }
}
