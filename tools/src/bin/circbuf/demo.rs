//! `circbuf demo`: a tour that proves what it shows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use circbuf_driver::archive::{ArchiveReader, Content, Found};
use circbuf_driver::record::PAYLOAD_OFFSET;
use circbuf_emulator::ledger::{Ledger, LedgerEntry};
use circbuf_tools::stdout;
use clap::Args;

use crate::camera::CameraPlan;
use crate::failure::{Code, Failure, log_line};
use crate::options::{ArchArgs, LimitArgs, PaceArgs, ProcArgs};
use crate::parse::{ProcessorChoice, Seconds};
use crate::plan::DriverPlan;
use crate::report;
use crate::session::{Outcome, run_embedded};

/// The options of `circbuf demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How long the camera runs
    #[arg(long, default_value = "10")]
    seconds: Seconds,
    /// Directory for ring, ledger and archive, which must not exist yet [default: one in the
    /// temporary directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What the archive holds, compared with what the camera emitted.
#[derive(Debug, Default)]
struct Comparison {
    emitted: u64,
    identical: u64,
    different: u64,
    missing: u64,
}

pub(crate) fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let dir = args.out.clone().unwrap_or_else(default_dir);
    std::fs::create_dir(&dir)
        .map_err(|error| Failure::failed(format!("{}: {error}", dir.display())))?;
    let ring = dir.join("ring");
    let ledger = dir.join("ledger.jsonl");
    let archive = dir.join("archive");
    let camera = CameraPlan {
        pace: PaceArgs { fps: Some(60.0), ledger: Some(ledger.clone()), ..PaceArgs::default() },
        limits: LimitArgs { seconds: Some(args.seconds), frames: None },
        ..CameraPlan::default()
    };
    let driver = DriverPlan {
        proc: ProcArgs { processor: Some(ProcessorChoice::Decode(None)), ..ProcArgs::default() },
        arch: ArchArgs { dir: Some(archive.clone()), ..ArchArgs::default() },
        ..DriverPlan::default()
    };
    let to_file = Ledger::to_file(&ledger).map_err(Failure::failed)?;
    let outcome = run_embedded(&camera, Some(&ring), to_file, &driver, |what| {
        log_line(&format!("camera   {what}"));
        log_line(&format!(
            "driver   decodes and measures every frame, archives into {}",
            archive.display()
        ));
    })?;
    stdout::write(|out| report::table(out, &outcome))?;
    let comparison = compare(&ledger, &archive)?;
    stdout::write(|out| tell(out, &comparison, &dir))?;
    outcome.check()?;
    outcome.decoded.check_pictures()?;
    comparison.check(&outcome)
}

fn default_dir() -> PathBuf {
    std::env::temp_dir().join(format!("circbuf-demo-{}", std::process::id()))
}

/// Holds every archived frame against the camera's ledger: number, time, length and content.
fn compare(ledger: &Path, archive: &Path) -> Result<Comparison, Failure> {
    let entries = circbuf_emulator::ledger::read(ledger).map_err(Failure::failed)?;
    let mut truth: HashMap<u64, LedgerEntry> = HashMap::new();
    for entry in entries {
        let entry = entry.map_err(Failure::failed)?;
        truth.insert(entry.number, entry);
    }
    let mut comparison = Comparison { emitted: truth.len() as u64, ..Comparison::default() };
    let archive = ArchiveReader::open(archive).map_err(Failure::failed)?;
    let mut record = Vec::new();
    for found in archive.scan() {
        let Found::Record(entry) = found.map_err(Failure::failed)? else { continue };
        let Content::Frame { time, .. } = entry.content else { continue };
        archive.read_record(&entry, &mut record).map_err(Failure::failed)?;
        let payload = &record[PAYLOAD_OFFSET..][..entry.header.length as usize];
        let is_true = truth.remove(&entry.header.sequence).is_some_and(|emitted| {
            (emitted.sec, emitted.usec, emitted.length)
                == (time.sec, time.usec, entry.header.length)
                && emitted.crc32c == crc32c::crc32c(payload)
        });
        comparison.identical += u64::from(is_true);
        comparison.different += u64::from(!is_true);
    }
    comparison.missing = truth.len() as u64;
    Ok(comparison)
}

fn tell(out: &mut dyn std::io::Write, comparison: &Comparison, dir: &Path) -> std::io::Result<()> {
    let Comparison { emitted, identical, different, missing } = comparison;
    writeln!(
        out,
        "  ledger   {emitted} frames emitted: {identical} archived byte for byte, {different} \
         damaged and accepted, {missing} missing"
    )?;
    let dir = dir.display();
    writeln!(
        out,
        "\nnext:\n  \
         circbuf dump --check {dir}/ring           which frames the ring still holds\n  \
         test_mmap {dir}/ring --frame 0            one of them in hex\n  \
         circbuf archive ls {dir}/archive          what was archived\n  \
         circbuf archive verify {dir}/archive      whether all of it is whole\n  \
         circbuf archive export {dir}/archive --out {dir}/jpeg\n  \
         circbuf run --device /dev/circbuf0        the same on a camera\n\
         (from a checkout: cargo run --release -- in place of circbuf)"
    )
}

impl Comparison {
    /// Every frame that is not archived has to be in the books as lost.
    fn check(&self, outcome: &Outcome) -> Result<(), Failure> {
        if self.different > 0 {
            let message = format!("{} archived frames are not what was emitted", self.different);
            return Err(Failure::new(Code::Corruption, message));
        }
        let snapshot = &outcome.finished.snapshot;
        let book = &snapshot.consumers.arch.book;
        let named = book.lost.total() + book.policy + snapshot.ring.lost.total();
        match self.missing == named {
            true => Ok(()),
            false => Err(Failure::failed(format!(
                "{} frames are missing in the archive, but the books name {named}",
                self.missing
            ))),
        }
    }
}
