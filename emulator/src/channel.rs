//! One channel of the camera: the FPGA with its pace, its ledger and, for tests, its credit.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use circbuf_abi::ring::GAP_BYTES;

use crate::clock::RunningClock;
use crate::fault::FaultSet;
use crate::fpga::{Fpga, FrameError, Progress};
use crate::ledger::{Ledger, LedgerEntry};
use crate::model::{FrameTime, Picture};
use crate::pace::{Pace, Schedule};
use crate::report::{Emitted, EndedBy, Report};
use crate::ring_file::RingFile;

/// Bytes that the FPGA announces and writes at a time: 0.1 ms of the bus.
const BURST_BYTES: u64 = 8192;

/// How long a lossless camera sleeps while the driver has not released what it needs.
const CREDIT_SLEEP: Duration = Duration::from_micros(50);

/// How often a lossless camera looks before it sleeps.
const CREDIT_LOOKS: u32 = 64;

/// Without any pace, virtual time goes on by this per frame, so that it comes to an end.
const UNPACED_FRAME_NS: u64 = 1000;

/// When a frame is exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exposure {
    /// On the running clock.
    pub(crate) at_ns: u64,
    /// As the trailer tells it.
    pub(crate) time: FrameTime,
}

/// The way of a picture from the compressor to memory. Dropping it tells the driver that the camera
/// has ended.
#[derive(Debug)]
pub(crate) struct Channel {
    fpga: Fpga,
    schedule: Schedule,
    ledger: Ledger,
    credit: Option<Arc<AtomicU64>>,
    emitted: Arc<Emitted>,
    last_time: Option<FrameTime>,
}

impl Channel {
    pub(crate) fn new(fpga: Fpga, pace: &Pace) -> Self {
        Self {
            fpga,
            schedule: Schedule::new(pace),
            ledger: Ledger::none(),
            credit: None,
            emitted: Arc::default(),
            last_time: None,
        }
    }

    pub(crate) fn with_ledger(mut self, ledger: Ledger) -> Self {
        self.ledger = ledger;
        self
    }

    pub(crate) fn with_credit(mut self, credit: Option<Arc<AtomicU64>>) -> Self {
        self.credit = credit;
        self
    }

    pub(crate) fn ring(&self) -> &RingFile {
        self.fpga.file()
    }

    pub(crate) fn emitted(&self) -> Arc<Emitted> {
        Arc::clone(&self.emitted)
    }

    pub(crate) fn frames(&self) -> u64 {
        self.fpga.frames()
    }

    /// When the next frame is exposed. It is known beforehand, so that a source can draw the time
    /// into the picture.
    pub(crate) fn expose(&self, clock: &RunningClock) -> Exposure {
        let at_ns = self.schedule.exposure_ns(clock.now_ns());
        Exposure { at_ns, time: clock.frame_time(at_ns).strictly_after(self.last_time) }
    }

    /// How long the camera will have run at the time of this exposure.
    pub(crate) fn run_time(&self, exposure: Exposure) -> Duration {
        Duration::from_nanos(exposure.at_ns.saturating_sub(self.schedule.start_ns()))
    }

    /// Waits until the driver has released the whole slot of the next frame, or until `stop`. It
    /// waits in front of the frame and not in the middle, so that a stop leaves whole frames.
    pub(crate) fn wait_for_credit(
        &self,
        picture: &Picture<'_>,
        stop: &AtomicBool,
    ) -> Result<(), FrameError> {
        let Some(credit) = &self.credit else { return Ok(()) };
        let ring_bytes = self.ring().ring_bytes();
        let (_, slot_bytes) = self.fpga.measure(picture.payload)?;
        // The header slot in front of what is released belongs to the driver's next frame, and the
        // trailer in front of that tells it whether the next one is stale.
        let needed =
            (self.fpga.cursor() + slot_bytes + 2 * GAP_BYTES as u64).saturating_sub(ring_bytes);
        let mut looks = 0;
        while credit.load(Ordering::Acquire) < needed && !stop.load(Ordering::Relaxed) {
            if looks < CREDIT_LOOKS {
                looks += 1;
                std::thread::yield_now();
            } else {
                std::thread::sleep(CREDIT_SLEEP);
            }
        }
        Ok(())
    }

    /// Writes a frame. A stop makes it hurry, but leaves it whole.
    pub(crate) fn emit(
        &mut self,
        picture: &Picture<'_>,
        exposure: Exposure,
        clock: &mut RunningClock,
        stop: &AtomicBool,
    ) -> Result<(), FrameError> {
        let entry = self.entry(picture.payload, exposure.time);
        self.fpga.begin(picture, exposure.time)?;
        self.last_time = Some(exposure.time);
        if let Some(slip) = self.schedule.begin(exposure.at_ns, clock.now_ns()) {
            log::warn!(
                "frame {} begins {:.1} ms late: source, bus or machine is too slow for the \
                 frame rate",
                self.fpga.frames(),
                slip.as_secs_f64() * 1e3
            );
        }
        self.transfer(picture.payload, clock, stop);
        if let Some(entry) = entry {
            self.ledger.add(entry);
        }
        self.emitted.add(picture.payload);
        if self.schedule.is_unpaced() && clock.is_virtual() {
            clock.sleep_until(exposure.at_ns + UNPACED_FRAME_NS, stop);
        }
        Ok(())
    }

    pub(crate) fn report(mut self, ended_by: EndedBy) -> Report {
        let (ledger, ledger_error) = std::mem::take(&mut self.ledger).close();
        Report {
            frames: self.emitted.frames(),
            payload_bytes: self.emitted.payload_bytes(),
            ended_by,
            late_frames: self.schedule.late_frames(),
            slip_max: self.schedule.slip_max(),
            ledger,
            ledger_error,
        }
    }

    fn transfer(&mut self, payload: &[u8], clock: &mut RunningClock, stop: &AtomicBool) {
        let start = self.fpga.cursor();
        while self.fpga.step(payload, BURST_BYTES) == Progress::Writing {
            let sent_bytes = self.fpga.cursor() - start;
            if let Some(until_ns) = self.schedule.ahead_until_ns(sent_bytes, || clock.now_ns()) {
                clock.sleep_until(until_ns, stop);
            }
        }
        self.schedule.end(self.fpga.cursor() - start);
    }

    /// The frame that is about to be written, if anybody keeps the ledger.
    fn entry(&self, payload: &[u8], time: FrameTime) -> Option<LedgerEntry> {
        self.ledger.is_kept().then(|| LedgerEntry {
            number: self.fpga.frames(),
            epoch: self.fpga.epoch(),
            start: self.fpga.cursor(),
            offset: self.fpga.cursor() % self.ring().ring_bytes(),
            length: payload.len() as u32,
            crc32c: crc32c::crc32c(payload),
            sec: time.sec,
            usec: time.usec,
            faults: FaultSet::EMPTY,
            damaged: false,
            undetectable: false,
        })
    }
}

impl Drop for Channel {
    /// However the camera ends, by a panic too: a driver would wait for ever.
    fn drop(&mut self) {
        self.fpga.end();
    }
}

#[cfg(test)]
mod tests;
