//! One channel of the camera: the FPGA with its pace, its ledger and, for tests, its credit and its
//! faults.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use circbuf_abi::ring::GAP_BYTES;

use crate::clock::RunningClock;
use crate::fault::{Doctored, Faults, FaultsError, Injector};
use crate::fpga::{Fpga, FrameError, Progress, slot_bytes};
use crate::ledger::Ledger;
use crate::model::{FrameTime, Picture};
use crate::pace::{Pace, Schedule};
use crate::pci::HostRing;
use crate::report::{Emitted, EndedBy, Report};
use crate::ring_file::RingFile;

/// Bytes that the FPGA announces and writes at a time where the bus has a rate: 0.1 ms of it.
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
    /// Whether it has to be waited for; else it follows the frame before.
    pub(crate) is_scheduled: bool,
}

/// The way of a picture from the compressor to memory. Dropping it tells the driver that the camera
/// has ended.
#[derive(Debug)]
pub(crate) struct Channel {
    fpga: Fpga,
    pace: Pace,
    schedule: Schedule,
    injector: Option<Injector>,
    ledger: Ledger,
    credit: Option<Arc<AtomicU64>>,
    emitted: Arc<Emitted>,
    last_time: Option<FrameTime>,
}

impl Channel {
    pub(crate) fn new(fpga: Fpga, pace: &Pace) -> Self {
        Self {
            fpga,
            pace: *pace,
            schedule: Schedule::new(pace),
            injector: None,
            ledger: Ledger::none(),
            credit: None,
            emitted: Arc::default(),
            last_time: None,
        }
    }

    pub(crate) fn with_faults(mut self, faults: &Faults) -> Result<Self, FaultsError> {
        if !faults.faults.is_empty() {
            self.injector = Some(Injector::new(faults, &self.fpga)?);
        }
        Ok(self)
    }

    pub(crate) fn with_ledger(mut self, ledger: Ledger) -> Self {
        self.ledger = ledger;
        self
    }

    pub(crate) fn with_credit(mut self, credit: Option<Arc<AtomicU64>>) -> Self {
        self.credit = credit;
        self
    }

    /// Goes on in a host's memory, with or without waiting for the driver. The schedule begins anew.
    pub(crate) fn attach(&mut self, ring: Arc<HostRing>, credit: Option<Arc<AtomicU64>>) {
        self.fpga.attach(ring);
        self.credit = credit;
        self.schedule = Schedule::new(&self.pace);
    }

    /// Tells the driver that the camera stands still, and may go on.
    pub(crate) fn rest(&mut self) {
        self.fpga.rest();
    }

    /// Tells the driver that the camera has ended.
    pub(crate) fn end(&mut self) {
        self.fpga.end();
    }

    pub(crate) fn max_slot_bytes(&self) -> u64 {
        self.fpga.max_slot_bytes()
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
        let now_ns = clock.now_ns();
        let sprints = self.injector.as_ref().is_some_and(|faults| faults.is_sprinting(&self.fpga));
        let is_scheduled = !sprints && !self.schedule.is_unpaced();
        let at_ns = if is_scheduled { self.schedule.exposure_ns(now_ns) } else { now_ns };
        let time = clock.frame_time(at_ns).strictly_after(self.last_time);
        Exposure { at_ns, time, is_scheduled }
    }

    /// How long the camera will have run at the time of this exposure.
    pub(crate) fn run_time(&self, exposure: Exposure) -> Duration {
        Duration::from_nanos(exposure.at_ns.saturating_sub(self.schedule.start_ns()))
    }

    /// The frame that is written of a picture.
    pub(crate) fn make<'a>(
        &mut self,
        picture: &Picture<'a>,
        exposure: Exposure,
    ) -> Result<Doctored<'a>, FrameError> {
        self.last_time = Some(exposure.time);
        if let Some(injector) = &mut self.injector {
            return injector.frame(&self.fpga, picture, exposure.time);
        }
        self.fpga.measure(picture.payload)?;
        Ok(Doctored::sound(picture, exposure.time))
    }

    /// Waits until the driver has released the whole slot of the next frame, and before a reset the
    /// whole ring; or until `stop`. It waits in front of the frame and not in the middle, so that a
    /// stop leaves whole frames.
    pub(crate) fn wait_for_credit(&self, frame: &Doctored<'_>, stop: &AtomicBool) {
        if frame.sprints() {
            return;
        }
        let cursor = self.fpga.cursor();
        let slot_bytes = slot_bytes(frame.payload().len() as u32);
        // The header slot in front of what is released belongs to the driver's next frame, and the
        // trailer in front of that tells it whether the next one is stale.
        let behind = cursor + slot_bytes + 2 * GAP_BYTES as u64;
        let needed = match frame.restarts() {
            true => cursor,
            false => behind.saturating_sub(self.fpga.ring_bytes()),
        };
        self.wait_until(stop, |credit| credit >= needed);
    }

    /// Writes a frame. A stop makes it hurry, but leaves it whole.
    pub(crate) fn emit(
        &mut self,
        frame: &Doctored<'_>,
        exposure: Exposure,
        clock: &mut RunningClock,
        stop: &AtomicBool,
    ) {
        self.begin(frame, stop);
        // In front of the frame: a camera that is killed must leave none that the ledger does not have.
        if self.ledger.is_kept() {
            self.ledger.add(frame.ledger_entry(&self.fpga));
        }
        if exposure.is_scheduled {
            self.enter_in_schedule(exposure, clock);
        }
        let ended = match frame.sprints() {
            true => self.sprint(frame),
            false => self.transfer(frame, clock, stop),
        };
        if ended == Progress::Lost {
            return;
        }
        self.emitted.add(frame.payload());
        if self.schedule.is_unpaced() && clock.is_virtual() {
            clock.sleep_until(exposure.at_ns + UNPACED_FRAME_NS, stop);
        }
    }

    pub(crate) fn report(mut self, ended_by: EndedBy) -> Report {
        let (ledger, ledger_error) = std::mem::take(&mut self.ledger).close();
        Report {
            frames: self.emitted.frames(),
            payload_bytes: self.emitted.payload_bytes(),
            ended_by,
            late_frames: self.schedule.late_frames(),
            slip_max: self.schedule.slip_max(),
            faults: self.injector.as_ref().map(|faults| faults.tally().clone()).unwrap_or_default(),
            ledger,
            ledger_error,
        }
    }

    /// Begins a frame. After a reset, cursors in the credit are of the epoch before until the driver
    /// has seen it: then it has read nothing of this one.
    fn begin(&mut self, frame: &Doctored<'_>, stop: &AtomicBool) {
        let before = self.fpga.cursor();
        self.fpga.begin_doctored(frame);
        if frame.restarts() && before > 0 {
            self.wait_until(stop, |credit| credit < before);
        }
    }

    /// Waits until `is_enough` of the credit, if there is any, or until `stop`.
    fn wait_until(&self, stop: &AtomicBool, is_enough: impl Fn(u64) -> bool) {
        let Some(credit) = &self.credit else { return };
        let mut looks = 0;
        while !is_enough(credit.load(Ordering::Acquire)) && !stop.load(Ordering::Relaxed) {
            if looks < CREDIT_LOOKS {
                looks += 1;
                std::thread::yield_now();
            } else {
                std::thread::sleep(CREDIT_SLEEP);
            }
        }
    }

    fn enter_in_schedule(&mut self, exposure: Exposure, clock: &RunningClock) {
        if let Some(slip) = self.schedule.begin(exposure.at_ns, clock.now_ns()) {
            log::warn!(
                "frame {} begins {:.1} ms late: source, bus or machine is too slow for the \
                 frame rate",
                self.fpga.frames(),
                slip.as_secs_f64() * 1e3
            );
        }
    }

    fn sprint(&mut self, frame: &Doctored<'_>) -> Progress {
        loop {
            match self.fpga.step(frame.payload(), u64::MAX) {
                Progress::Writing => {}
                ended => return ended,
            }
        }
    }

    fn transfer(
        &mut self,
        frame: &Doctored<'_>,
        clock: &mut RunningClock,
        stop: &AtomicBool,
    ) -> Progress {
        let start = self.fpga.cursor();
        let half = slot_bytes(frame.payload().len() as u32) / 2;
        let mut stall_ns = frame.stall_ns();
        let burst_bytes = match (stall_ns, self.schedule.has_bus_rate()) {
            (1.., _) => BURST_BYTES.min(half),
            (0, true) => BURST_BYTES,
            (0, false) => u64::MAX,
        };
        let ended = loop {
            let progress = self.fpga.step(frame.payload(), burst_bytes);
            if progress != Progress::Writing {
                break progress;
            }
            let sent_bytes = self.fpga.cursor() - start;
            if stall_ns > 0 && sent_bytes >= half {
                clock.sleep_until(clock.now_ns() + std::mem::take(&mut stall_ns), stop);
            }
            if let Some(until_ns) = self.schedule.ahead_until_ns(sent_bytes, || clock.now_ns()) {
                clock.sleep_until(until_ns, stop);
            }
        };
        self.schedule.end(self.fpga.cursor() - start);
        ended
    }
}

impl Drop for Channel {
    /// However the camera ends, by a panic too: a driver would wait for ever.
    fn drop(&mut self) {
        self.fpga.end();
        self.emitted.interrupt();
    }
}

#[cfg(test)]
mod tests;
