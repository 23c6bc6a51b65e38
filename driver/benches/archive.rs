//! How fast an archive is written, and at what price: frames that lie in their slabs are appended as
//! fast as the archive takes them. `scripts/bench-archive.sh` runs it beside fio.
//!
//! ```text
//! archive [--dir D] [--mib N] [--payload BYTES] [--depth N] [--pages small|huge]
//!         [--engine auto|uring|pwrite] [--keep]
//! ```
//! Prints one line of JSON: bytes of records written, seconds from the first append until all of it is
//! durable, how many of them were spent at the end to seal the segment, seconds of processor time in user and
//! kernel mode, and how it was written.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use circbuf_abi::registers as reg;
use circbuf_driver::archive::{Archive, ArchiveCounters, ArchiveOptions, EngineChoice, Session};
use circbuf_driver::capture::{Capture, Captured, Origin};
use circbuf_driver::clock::Moment;
use circbuf_driver::device::Device;
use circbuf_driver::dispatch::Outlet;
use circbuf_driver::frame::Frame;
use circbuf_driver::slab::SlabPool;
use circbuf_driver::tail::{StartAt, Tail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

type Failure = Box<dyn std::error::Error>;

/// Frames that take turns: as many as are in flight and as many as wait.
const FRAMES: usize = 16;
/// As the pipeline appends them.
const BURST_FRAMES: u64 = 16;

struct Arguments {
    dir: PathBuf,
    bytes: u64,
    payload_bytes: usize,
    huge: bool,
    keep: bool,
    options: ArchiveOptions,
}

fn arguments() -> Result<Arguments, Failure> {
    let dir = std::env::temp_dir().join(format!("archive-bench-{}", std::process::id()));
    let options = ArchiveOptions::default();
    let (bytes, payload_bytes) = (64 << 20, 230_400);
    let mut found = Arguments { dir, bytes, payload_bytes, huge: true, keep: false, options };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} takes a value"));
        match word.as_str() {
            // Cargo says so.
            "--bench" => {}
            "--keep" => found.keep = true,
            "--dir" => found.dir = value()?.into(),
            "--mib" => found.bytes = value()?.parse::<u64>()? << 20,
            "--payload" => found.payload_bytes = value()?.parse()?,
            "--depth" => found.options.depth = value()?.parse()?,
            "--pages" => found.huge = value()? == "huge",
            "--engine" => {
                found.options.engine = match value()?.as_str() {
                    "uring" => EngineChoice::Uring,
                    "pwrite" => EngineChoice::Pwrite,
                    _ => EngineChoice::Auto,
                }
            }
            _ => return Err(format!("{word} is no option").into()),
        }
    }
    Ok(found)
}

/// Payload, zeros and trailer, then the gap.
fn slot_bytes(payload_bytes: usize) -> usize {
    (payload_bytes + 15) / 32 * 32 + 64
}

/// Writes frames into a ring as a camera does that stamps no headers, and tells of them.
fn emit(payload_bytes: usize, ring: &File, page: &File) -> io::Result<()> {
    let slot_bytes = slot_bytes(payload_bytes);
    for number in 0..FRAMES {
        let mut slot: Vec<u8> =
            (0..payload_bytes).map(|at| (at * 31 + number) as u8 & 0x7F).collect();
        slot.resize(slot_bytes - 32 - 12, 0);
        slot.extend((1_000_000_000 + number as u32).to_le_bytes());
        slot.extend(0u32.to_le_bytes());
        slot.extend((payload_bytes as u32 | 0xFF00_0000).to_le_bytes());
        slot.resize(slot_bytes, 0);
        ring.write_all_at(&slot, (number * slot_bytes) as u64)?;
    }
    let end = (FRAMES * slot_bytes) as u64;
    for counter in [reg::RESERVED, reg::WRITTEN, reg::COMPLETE] {
        page.write_all_at(&end.to_le_bytes(), counter as u64)?;
    }
    page.write_all_at(&(FRAMES as u64).to_le_bytes(), reg::FRAMES as u64)
}

/// Frames in slabs, by the way that every frame takes.
fn frames(payload_bytes: usize, huge: bool) -> Result<Vec<Frame>, Failure> {
    let slot_bytes = slot_bytes(payload_bytes);
    let (ring, page) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let ring_bytes = ((FRAMES + 1) * slot_bytes).next_multiple_of(reg::PAGE_BYTES) as u64;
    ring.set_len(ring_bytes)?;
    page.set_len(reg::PAGE_BYTES as u64)?;
    page.write_all_at(&reg::MAGIC_VALUE.to_le_bytes(), reg::MAGIC as u64)?;
    page.write_all_at(&reg::VERSION_VALUE.to_le_bytes(), reg::VERSION as u64)?;
    page.write_all_at(&ring_bytes.to_le_bytes(), reg::RING_BYTES as u64)?;
    page.write_all_at(&(slot_bytes as u64).to_le_bytes(), reg::MAX_SLOT_BYTES as u64)?;
    let device = Arc::new(Device::from_fds(&ring, Some(&page))?);
    let tail = Tail::attach(&device, StartAt::Newest)?;
    emit(payload_bytes, &ring, &page)?;
    let pool = match huge {
        true => SlabPool::with_huge_pages(64 << 20),
        false => SlabPool::new(64 << 20),
    };
    // The frames are records, because an archive is to take them; the other consumer hardly takes any.
    let (proc, _) = Outlet::new("nth=1000000".parse()?, 1);
    let (arch, inlet) = Outlet::new("every".parse()?, FRAMES);
    let mut capture = Capture::new(device, tail, pool, Origin::default(), (proc, Some(arch)));
    while capture.step(Moment::now(), Moment::now)? != Captured::Nothing {}
    let frames: Vec<Frame> = inlet.try_iter().map(|delivery| delivery.frame).collect();
    match frames.len() {
        FRAMES => Ok(frames),
        found => Err(format!("{found} of {FRAMES} frames came out of the ring").into()),
    }
}

/// Seconds of processor time of this process in user and kernel mode.
fn processor_time() -> Result<[f64; 2], Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    Ok([seconds(usage.user_time()), seconds(usage.system_time())])
}

/// What the archive counted, and the seconds that it took to seal.
fn write(mut archive: Archive, frames: &[Frame], bytes: u64) -> (ArchiveCounters, f64) {
    let count = bytes / frames[0].record().len() as u64;
    for (number, frame) in (0..count).zip(frames.iter().cycle()) {
        archive.append(frame.clone(), Moment::now());
        if number % BURST_FRAMES == BURST_FRAMES - 1 {
            archive.poll(Moment::now());
            archive.drain_durable().for_each(drop);
        }
    }
    let began = Instant::now();
    let counters = archive.finish(Moment::now());
    (counters, began.elapsed().as_secs_f64())
}

fn main() -> Result<(), Failure> {
    let arguments = arguments()?;
    let frames = frames(arguments.payload_bytes, arguments.huge)?;
    let options = arguments.options.clone();
    let archive = Archive::create(&arguments.dir, Session::default(), options, Moment::now())?;
    let (before, began) = (processor_time()?, Instant::now());
    let (counters, sealing) = write(archive, &frames, arguments.bytes);
    let (seconds, after) = (began.elapsed().as_secs_f64(), processor_time()?);
    if !arguments.keep {
        std::fs::remove_dir_all(&arguments.dir)?;
    }
    if counters.frames_lost_io > 0 {
        return Err(format!("{} frames were lost: {counters:?}", counters.frames_lost_io).into());
    }
    let ArchiveCounters { bytes_written, engine, direct, .. } = counters;
    let (user, system) = (after[0] - before[0], after[1] - before[1]);
    let pages = if arguments.huge { "huge" } else { "small" };
    writeln!(
        io::stdout(),
        r#"{{"bytes":{bytes_written},"seconds":{seconds:.4},"sealing":{sealing:.4},"user":{user:.4},"system":{system:.4},"engine":"{engine}","direct":{direct},"pages":"{pages}","depth":{}}}"#,
        arguments.options.depth
    )?;
    Ok(())
}
