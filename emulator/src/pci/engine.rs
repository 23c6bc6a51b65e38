//! The camera behind the function: it stands still, or runs in a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use circbuf_abi::pci::bar0::ERROR_CAMERA;

use super::host::{HostMemory, HostRing};
use super::latch::ErrorLatch;
use crate::camera::{Camera, CameraError};
use crate::report::{EndedBy, Report};

/// How long a camera may take to stop when its host is gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// The camera, and the ring that it was given.
#[derive(Debug)]
pub(super) struct Engine {
    state: State,
    ring: Option<Arc<HostRing>>,
    errors: Arc<ErrorLatch>,
    /// Stops the camera.
    stop: Arc<AtomicBool>,
    /// Whether a camera that is stopped has ended.
    says_farewell: Arc<AtomicBool>,
    ended_by: Option<EndedBy>,
}

#[derive(Debug)]
enum State {
    Idle(Box<Camera>),
    Running(CameraThread),
    /// It panicked, or its thread could not be started.
    Broken,
}

/// Gives the camera back, which may go on, and tells why it stopped.
type CameraThread = JoinHandle<(Box<Camera>, Result<EndedBy, CameraError>)>;

impl Engine {
    pub(super) fn new(camera: Camera, errors: Arc<ErrorLatch>) -> Self {
        Self {
            stop: camera.stop_flag(),
            state: State::Idle(Box::new(camera)),
            ring: None,
            errors,
            says_farewell: Arc::default(),
            ended_by: None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    pub(super) fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Whether the camera has ended by itself, or by a farewell.
    pub(super) fn has_ended(&self) -> bool {
        match self.ended_by {
            Some(EndedBy::Frames | EndedBy::Time | EndedBy::Source) => true,
            Some(EndedBy::Stop) => self.says_farewell.load(Ordering::Relaxed),
            None => false,
        }
    }

    /// Ends the camera behind its frame, from another thread.
    pub(super) fn farewell(&self) -> impl Fn() + Send + use<> {
        let (stop, says_farewell) = (Arc::clone(&self.stop), Arc::clone(&self.says_farewell));
        move || {
            says_farewell.store(true, Ordering::SeqCst);
            stop.store(true, Ordering::SeqCst);
        }
    }

    /// Gives a camera that stands still a ring of `bytes` at `iova`, and its credit if it is to wait for
    /// that.
    pub(super) fn take_ring(
        &mut self,
        memory: &Arc<HostMemory>,
        (iova, bytes): (u64, u64),
        credit: Option<Arc<AtomicU64>>,
    ) {
        let State::Idle(camera) = &mut self.state else { return };
        let (memory, errors) = (Arc::clone(memory), Arc::clone(&self.errors));
        let ring = HostRing::new(memory, (iova, bytes), errors, Arc::clone(&self.stop));
        let ring = Arc::new(ring);
        camera.attach(Arc::clone(&ring), credit);
        self.ring = Some(ring);
    }

    /// Starts a camera that has a ring.
    pub(super) fn start(&mut self) {
        if self.ring.is_none() || self.is_running() {
            return;
        }
        self.stop.store(false, Ordering::SeqCst);
        if self.says_farewell.load(Ordering::SeqCst) {
            self.stop.store(true, Ordering::SeqCst);
        }
        if let State::Idle(camera) = std::mem::replace(&mut self.state, State::Broken) {
            match self.spawn(camera) {
                Ok(thread) => self.state = State::Running(thread),
                Err(error) => {
                    log::error!("the camera's thread cannot be started: {error}");
                    self.errors.raise(ERROR_CAMERA);
                }
            }
        }
    }

    /// Runs a camera until it stops.
    fn spawn(&self, mut camera: Box<Camera>) -> io::Result<CameraThread> {
        let (stop, errors) = (Arc::clone(&self.stop), Arc::clone(&self.errors));
        let says_farewell = Arc::clone(&self.says_farewell);
        std::thread::Builder::new().name("camera".to_owned()).spawn(move || {
            let ended_by = camera.run_on(&stop);
            match &ended_by {
                Ok(EndedBy::Stop) if says_farewell.load(Ordering::SeqCst) => camera.end(),
                Ok(EndedBy::Stop) => camera.rest(),
                Ok(EndedBy::Frames | EndedBy::Time | EndedBy::Source) => {}
                Err(error) => {
                    log::error!("the camera failed: {error}");
                    camera.rest();
                    errors.raise(ERROR_CAMERA);
                }
            }
            (camera, ended_by)
        })
    }

    /// Stops the camera behind its frame, or with the next store if the frame is not wanted any more;
    /// and gives the ring back.
    pub(super) fn stop(&mut self, at_once: bool) {
        if at_once && let Some(ring) = &self.ring {
            ring.lose();
        }
        self.stop.store(true, Ordering::SeqCst);
        self.join();
    }

    /// Takes note of a camera that has stopped by itself.
    pub(super) fn settle(&mut self) {
        if matches!(&self.state, State::Running(thread) if thread.is_finished()) {
            self.join();
        }
    }

    /// Waits for the camera, which is about to stop or has stopped.
    fn join(&mut self) {
        self.ring = None;
        self.state = match std::mem::replace(&mut self.state, State::Broken) {
            State::Running(thread) => match thread.join() {
                Ok((camera, ended_by)) => {
                    self.ended_by = ended_by.ok();
                    State::Idle(camera)
                }
                Err(_) => {
                    self.errors.raise(ERROR_CAMERA);
                    State::Broken
                }
            },
            standing => standing,
        };
    }

    /// Stops the camera at once. Nothing is known any more of why it had stopped before.
    pub(super) fn reset(&mut self) {
        self.stop(true);
        self.ended_by = None;
        if let State::Idle(camera) = &mut self.state {
            camera.rest();
        }
    }

    /// What the camera did; nothing if it cannot be stopped.
    pub(super) fn finish(mut self) -> Option<Report> {
        if let (State::Running(thread), Some(ring)) = (&self.state, &self.ring) {
            ring.lose();
            let end = Instant::now() + PATIENCE;
            while !thread.is_finished() {
                if Instant::now() >= end {
                    return None;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.settle();
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Idle(camera) => Some(camera.into_report(self.ended_by.unwrap_or(EndedBy::Stop))),
            State::Running(_) | State::Broken => None,
        }
    }
}

impl Drop for Engine {
    /// The camera's thread ends by itself then.
    fn drop(&mut self) {
        if let Some(ring) = &self.ring {
            ring.lose();
        }
    }
}
