//! The capturing thread.

use std::time::Duration;

use nix::sys::prctl::set_timerslack;

use super::EndedBy;
use super::reading::{Reading, Turn};
use super::turns::{Next, Turns};
use crate::clock::{Clock, Moment};
use crate::device::DeviceError;
use crate::wait::Spin;

/// The capturing thread and the channels that are not over.
pub(super) struct Run {
    readings: Vec<Reading>,
    turns: Turns,
    spin: Spin,
}

impl Run {
    pub(super) fn new(readings: Vec<Reading>, spin: Spin) -> Run {
        let turns = Turns::of(readings.len());
        Run { readings, turns, spin }
    }

    /// Captures until all channels are over.
    pub(super) fn run(mut self) {
        // Naps are short: with the usual 50 us of slack they would end twice as late. Where it cannot be
        // had, they do.
        let _as_it_was = set_timerslack(1);
        let clock = Clock::new();
        let mut now = clock.now();
        while !self.readings.is_empty() {
            now = self.advance(now, &clock);
        }
    }

    /// One turn, or one pause. The moment at which the next one begins.
    fn advance(&mut self, now: Moment, clock: &Clock) -> Moment {
        let readings = &self.readings;
        match self.turns.next(now.monotonic_ns, |index| readings[index].headroom()) {
            Next::Serve(index) => return self.serve(index, now, clock),
            Next::Relax => drop(self.spin.relax()),
            Next::Sleep(nap_ns) => {
                self.spin.reset();
                self.sleep(Duration::from_nanos(nap_ns));
            }
        }
        clock.now()
    }

    fn serve(&mut self, index: usize, now: Moment, clock: &Clock) -> Moment {
        match self.readings[index].turn(now, clock) {
            Ok(Turn::Frame) => {
                self.spin.reset();
                // The end of this frame is the beginning of the next: one look at the clock for both.
                return clock.last();
            }
            Ok(Turn::Loss) => self.spin.reset(),
            Ok(Turn::Again) => {}
            Ok(Turn::Idle(pause)) => {
                self.turns.pause(index, now.monotonic_ns, pause);
                // To look at nothing takes no time that counts.
                return now;
            }
            Ok(Turn::Over(ended_by)) => self.end(index, Ok(ended_by)),
            Err(error) => self.end(index, Err(error)),
        }
        clock.now()
    }

    fn end(&mut self, index: usize, ended_by: Result<EndedBy, DeviceError>) {
        self.turns.remove(index);
        self.readings.remove(index).end(ended_by);
    }

    /// A device that could end the sleep of its own thread cannot end that of several.
    fn sleep(&self, nap: Duration) {
        match &self.readings[..] {
            [only] => only.sleep(nap),
            _ => std::thread::sleep(nap),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use circbuf_abi::registers as reg;

    use super::*;
    use crate::device::Device;
    use crate::hand_camera::HandCamera;
    use crate::pipeline::{Channel, Options, Pipeline, PipelineError, Processor};
    use crate::wait::Wait;

    const RING: u64 = 16 << 10;
    const LENGTH: usize = 100;

    /// Channels that are served step by step, without a thread.
    struct Bench {
        run: Run,
        pipelines: Vec<Pipeline>,
        clock: Clock,
        now: Moment,
        /// Whose frames were found, in order.
        found: Arc<Mutex<Vec<usize>>>,
    }

    impl Bench {
        fn new(devices: Vec<Device>) -> Bench {
            let found = Arc::<Mutex<Vec<usize>>>::default();
            let spin = Spin::of(1);
            let mut options = Options { inline: true, wait: Wait::Spin, ..Options::default() };
            options.proc.policy = "every".parse().unwrap();
            let prepared = devices.into_iter().enumerate().map(|(number, device)| {
                let found = Arc::clone(&found);
                let note: Processor = Box::new(move |_| found.lock().unwrap().push(number));
                let (archive, options) = (None, options.clone());
                let channel = Channel { device, processors: vec![note], archive, options };
                channel.prepare(&spin).unwrap()
            });
            let (readings, pipelines) = prepared.unzip();
            let clock = Clock::new();
            let now = clock.now();
            Bench { run: Run::new(readings, spin), pipelines, clock, now, found }
        }

        fn advance(&mut self) {
            self.now = self.run.advance(self.now, &self.clock);
        }

        fn found(&self) -> Vec<usize> {
            self.found.lock().unwrap().clone()
        }
    }

    fn cameras(count: usize) -> Vec<HandCamera> {
        (0..count).map(|_| HandCamera::new(RING, true)).collect()
    }

    #[test]
    fn the_channel_whose_writer_is_nearest_is_read_first() {
        let mut cameras = cameras(3);
        let mut bench = Bench::new(cameras.iter().map(HandCamera::device).collect());
        let mut waiting = [3, 40, 25];
        for (camera, frames) in cameras.iter_mut().zip(waiting) {
            (0..frames).for_each(|_| camera.emit(LENGTH));
        }
        // A few more than there are frames: a channel that has none left is looked at now and then.
        (0..80).for_each(|_| bench.advance());
        let found = bench.found();
        assert_eq!(found.len(), 68, "{found:?}");
        assert_eq!(found[..12], [1; 12], "{found:?}");
        let mut passed = [0; 3];
        for served in found {
            let is_nearest = waiting.iter().all(|&frames| frames <= waiting[served]);
            assert!(is_nearest || passed[served] >= 12, "{served} of {waiting:?}, {passed:?}");
            passed.iter_mut().for_each(|passed| *passed += 1);
            (waiting[served], passed[served]) = (waiting[served] - 1, 0);
        }
    }

    #[test]
    fn a_camera_that_nobody_keeps_up_with_takes_no_frame_from_the_others() {
        let mut cameras = cameras(3);
        cameras.iter_mut().for_each(|camera| camera.emit(LENGTH));
        let bare = cameras[2].device_without_registers();
        let mut bench = Bench::new(vec![cameras[0].device(), cameras[1].device(), bare]);
        for step in 0..1200 {
            (0..2).for_each(|_| cameras[0].emit(LENGTH));
            if step % 40 == 0 {
                cameras[1..].iter_mut().for_each(|camera| camera.emit(LENGTH));
            }
            bench.advance();
        }
        (0..300).for_each(|_| bench.advance());
        let books: Vec<_> = bench.pipelines.iter().map(Pipeline::snapshot).collect();
        assert!(books.iter().all(|books| books.check_balance().is_ok()), "{books:#?}");
        assert!(books[0].ring.lost.overrun > 500 && books[0].ring.passed > 500, "{books:#?}");
        for quiet in &books[1..] {
            assert_eq!((quiet.ring.passed, quiet.lost()), (30, 0), "{books:#?}");
        }
    }

    #[test]
    fn a_channel_that_fails_ends_alone() {
        let mut cameras = cameras(2);
        let mut bench = Bench::new(cameras.iter().map(HandCamera::device).collect());
        cameras.iter_mut().for_each(|camera| camera.emit(LENGTH));
        (0..4).for_each(|_| bench.advance());
        cameras[0].register(reg::COMPLETE, 1);
        (0..20).for_each(|_| bench.advance());
        assert!(bench.pipelines[0].is_finished() && !bench.pipelines[1].is_finished());
        let failed = bench.pipelines.remove(0).join();
        assert!(matches!(failed.ended_by, Err(PipelineError::Device(_))), "{failed:?}");
        assert_eq!(failed.snapshot.ring.passed, 1);
        cameras[1].emit(LENGTH);
        (0..4).for_each(|_| bench.advance());
        assert_eq!(bench.found(), [0, 1, 1]);
        bench.pipelines[0].stop();
        (0..4).for_each(|_| bench.advance());
        assert!(bench.pipelines[0].is_finished() && bench.run.readings.is_empty());
    }
}
