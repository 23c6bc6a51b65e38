//! The books, for people and for programs.

mod channels;

use std::io::{self, Write};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use circbuf_driver::latency::Percentiles;
use circbuf_driver::pipeline::{EndedBy, LossLimit};
use circbuf_driver::stats::{ConsumerBook, PointerBook, Snapshot};
use circbuf_emulator::fault::Tally;
use circbuf_emulator::report::Report;
use serde_json::json;

pub(crate) use channels::{json_of_all, tables};

use crate::camera::describe_faults;
use crate::failure::{Code, Failure};
use crate::options::{DriverArgs, OnLoss};
use crate::plan::Decoded;
use crate::session::Outcome;

/// The table at the end of a run.
pub(crate) fn table(out: &mut dyn Write, outcome: &Outcome) -> io::Result<()> {
    let snapshot = &outcome.finished.snapshot;
    let ring = &snapshot.ring;
    writeln!(
        out,
        "{:.1} s  {} frames found whole, {:.1}/s{}",
        snapshot.elapsed_s,
        ring.passed,
        ring.passed as f64 / snapshot.elapsed_s.max(1e-9),
        headroom(ring.headroom_bytes_min, ring.bytes),
    )?;
    if let Some(Ok(camera)) = &outcome.camera {
        camera_line(out, camera)?;
    }
    row(out, "", ["expected", "detected", "passed", "overrun", "torn", "corrupt", ""], "")?;
    let frames = [ring.frames_detected, ring.passed, ring.lost.overrun, ring.lost.torn];
    let [detected, passed, overrun, torn] = frames.map(|frames| frames.to_string());
    let expected = ring.frames_expected.map_or("unknown".to_owned(), |frames| frames.to_string());
    let corrupt = ring.lost.corrupt.to_string();
    row(out, "ring", [&expected, &detected, &passed, &overrun, &torn, &corrupt, ""], "")?;
    if ring.lost_is == "estimated" {
        writeln!(
            out,
            "  ({}: what was overrun is estimated, and this line proves nothing)",
            why_estimated(ring.pointer.as_ref())
        )?;
    }
    row(
        out,
        "",
        ["expected", "delivered", "policy", "no_slab", "queue_full", "io", "in flight"],
        "",
    )?;
    consumer(out, "proc", &snapshot.consumers.proc)?;
    if outcome.finished.archive.is_some() {
        consumer(out, "arch", &snapshot.consumers.arch.book)?;
    }
    rest(out, outcome)
}

fn why_estimated(pointer: Option<&PointerBook>) -> String {
    let Some(PointerBook { window_ms, lost }) = pointer else { return "no counters".to_owned() };
    let mut reasons = Vec::new();
    if lost.late_looks > 0 {
        reasons.push(format!(
            "the write pointer was looked at too late {} times, later than {window_ms:.2} ms after the \
             look before, so that nobody knows how often it had been round; a machine with less to do \
             looks sooner, --max-frame-bytes and --bus-mb-s-max may give it more time",
            lost.late_looks
        ));
    }
    if lost.resets > 0 {
        reasons.push(format!("the camera was reset {} times, or seemed to be", lost.resets));
    }
    if reasons.is_empty() {
        reasons.push("a frame that was damaged, or overwritten before it was looked at, hides how many there were".to_owned());
    }
    reasons.join("; ")
}

fn camera_line(out: &mut dyn Write, camera: &Report) -> io::Result<()> {
    write!(
        out,
        "  camera wrote {} frames, {:.1} MB",
        camera.frames,
        camera.payload_bytes as f64 / 1e6
    )?;
    match camera.late_frames {
        0 => writeln!(out)?,
        late => writeln!(
            out,
            "; {late} began late, by up to {:.1} ms: source, bus or machine is too slow for the rate",
            camera.slip_max.as_secs_f64() * 1e3
        )?,
    }
    describe_faults(&camera.faults).map_or(Ok(()), |faults| writeln!(out, "  injected {faults}"))
}

fn headroom(bytes: Option<u64>, ring_bytes: u64) -> String {
    bytes.map_or(String::new(), |bytes| {
        let percent = bytes as f64 * 100.0 / ring_bytes as f64;
        format!("; the writer came no nearer than {percent:.0} % of the ring")
    })
}

/// One line of the table.
fn row(out: &mut dyn Write, name: &str, cells: [&str; 7], end: &str) -> io::Result<()> {
    write!(out, "  {name:<6}")?;
    let cells = cells.into_iter().filter(|cell| !cell.is_empty());
    for cell in cells {
        write!(out, "{cell:>11}")?;
    }
    writeln!(out, "{end}")
}

fn consumer(out: &mut dyn Write, name: &str, book: &ConsumerBook) -> io::Result<()> {
    let lost = book.lost;
    let cells = [
        book.expected,
        book.delivered,
        book.policy,
        lost.no_slab,
        lost.queue_full,
        lost.io,
        book.in_flight,
    ];
    let cells = cells.map(|frames| frames.to_string());
    let end = if book.closes { "   closes" } else { "   DOES NOT CLOSE" };
    row(out, name, cells.each_ref().map(String::as_str), end)
}

fn rest(out: &mut dyn Write, outcome: &Outcome) -> io::Result<()> {
    let snapshot = &outcome.finished.snapshot;
    let arch = &snapshot.consumers.arch;
    if let Some(archive) = &outcome.finished.archive {
        let past_cache =
            if archive.direct { "past the page cache" } else { "through the page cache" };
        writeln!(
            out,
            "  archive  {:.1} MB, segments: {}, durable frames: {}, by {} {past_cache}",
            arch.bytes_written as f64 / 1e6,
            arch.segments,
            arch.durable,
            archive.engine,
        )?;
    }
    let (decoded, undecodable) = counts(&outcome.decoded);
    if decoded + undecodable > 0 {
        let misnumbered = outcome.decoded.misnumbered.load(Ordering::Relaxed);
        writeln!(
            out,
            "  decoded  {decoded} frames; {undecodable} do not decode, {misnumbered} show another \
             number in the picture"
        )?;
    }
    let latency = &snapshot.latency_us;
    let text = |p: Percentiles| format!("{:.0}/{:.0}/{:.0}", p.p50, p.p99, p.max);
    writeln!(
        out,
        "  latency  us since a frame was found, p50/p99/max: tail {}, proc {}, durable {}",
        text(latency.tail),
        text(latency.proc),
        text(latency.durable)
    )
}

fn counts(decoded: &Decoded) -> (u64, u64) {
    (decoded.decoded.load(Ordering::Relaxed), decoded.undecodable.load(Ordering::Relaxed))
}

/// The same as one JSON object.
pub(crate) fn json(outcome: &Outcome) -> serde_json::Value {
    let mut object = serde_json::to_value(&outcome.finished.snapshot).expect("numbers are JSON");
    let (decoded, undecodable) = counts(&outcome.decoded);
    let misnumbered = outcome.decoded.misnumbered.load(Ordering::Relaxed);
    object["decoded"] =
        json!({ "frames": decoded, "undecodable": undecodable, "misnumbered": misnumbered });
    object["ended_by"] = json!(match &outcome.finished.ended_by {
        Ok(EndedBy::Stop | EndedBy::Camera) if outcome.interrupted => "stop",
        Ok(EndedBy::Stop) => "stop",
        Ok(EndedBy::Camera) => "camera",
        Ok(EndedBy::Frames) => "frames",
        Ok(EndedBy::Silence) => "silence",
        Ok(EndedBy::Abandoned) => "abandoned",
        Ok(EndedBy::Loss) => "loss",
        Err(_) => "error",
    });
    object["camera"] = match &outcome.camera {
        Some(Ok(camera)) => json!({
            "frames": camera.frames,
            "payload_bytes": camera.payload_bytes,
            "late_frames": camera.late_frames,
            "slip_us_max": camera.slip_max.as_micros() as u64,
            "faults": faults_by_kind(&camera.faults),
            "frames_struck": camera.faults.frames(),
            "frames_damaged": camera.faults.damaged(),
            "frames_undetectable": camera.faults.undetectable(),
        }),
        _ => serde_json::Value::Null,
    };
    if let Some(archive) = &outcome.finished.archive {
        object["archive"] = json!({
            "engine": archive.engine,
            "direct": archive.direct,
            "io_errors": archive.io_errors,
            "last_error": archive.last_error,
        });
    }
    object
}

/// How often each kind was injected, by name.
fn faults_by_kind(tally: &Tally) -> serde_json::Value {
    tally.by_kind().map(|(kind, faults)| (kind.name().to_owned(), json!(faults))).collect()
}

/// Whether more was lost than allowed: the ring's losses and those of the worse consumer.
pub(crate) fn check_budget(snapshot: &Snapshot, driver: &DriverArgs) -> Result<(), Failure> {
    let stops = driver.on_loss == Some(OnLoss::Stop);
    let none = stops.then_some(LossLimit::Frames(0));
    let Some(budget) = driver.max_lost.map(|budget| budget.0).or(none) else { return Ok(()) };
    let lost = snapshot.lost();
    let expected = snapshot.ring.frames_detected + snapshot.ring.lost.overrun;
    let (exceeded, allowed) = match budget {
        LossLimit::Frames(frames) => (lost > frames, frames.to_string()),
        LossLimit::Percent(percent) => {
            (lost as f64 * 100.0 > percent * expected as f64, format!("{percent} %"))
        }
    };
    if !exceeded {
        return Ok(());
    }
    let rule = match driver.max_lost {
        Some(_) => format!("--max-lost allows {allowed}"),
        None => "--on-loss stop allows none (--max-lost N|P% would)".to_owned(),
    };
    let message = format!("{lost} of {expected} frames lost ({}); {rule}", what_was_lost(snapshot));
    Err(Failure::new(Code::LossBudget, message))
}

/// Every loss in the books, by name.
fn what_was_lost(snapshot: &Snapshot) -> String {
    let (ring, consumers) = (snapshot.ring.lost, &snapshot.consumers);
    let of_ring = [("overrun", ring.overrun), ("torn", ring.torn), ("corrupt", ring.corrupt)];
    let of_consumers = [("proc", consumers.proc.lost), ("arch", consumers.arch.book.lost)];
    let of_consumers = of_consumers.into_iter().flat_map(|(name, lost)| {
        let named = [("no_slab", lost.no_slab), ("queue_full", lost.queue_full), ("io", lost.io)];
        named.map(|(reason, frames)| (format!("{name} {reason}"), frames))
    });
    let all = of_ring.map(|(reason, frames)| (reason.to_owned(), frames)).into_iter();
    let losses = all.chain(of_consumers).filter(|&(_, frames)| frames > 0);
    let told: Vec<String> = losses.map(|(name, frames)| format!("{name} {frames}")).collect();
    told.join(", ")
}

/// A file of measures that is incomplete.
pub(crate) fn check_measures(decoded: &Decoded) -> Result<(), Failure> {
    match &*decoded.write_error.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(Failure::failed(format!("the measures could not be written: {error}"))),
        None => Ok(()),
    }
}
