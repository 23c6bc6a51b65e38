//! The supervisor: receives calls, answers them or lets them go on, and passes signals both ways.
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use circbuf_emulator::camera::Camera;
use circbuf_emulator::node::{Firmware, Node};
use circbuf_emulator::ring_file::RingFileError;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::device::Devices;
use super::seccomp::{Call, Listener};
use super::signals::{self, Arrived, Signals};
use super::spawn::{self, SpawnError};
use super::target::{self, Threads};
use super::waiting::{Parked, Wait, readable};
use super::{file, filter, seek, select, stat};

/// How often it is looked whether a parked thread is still there, and whether a signal waits for
/// it.
const TICK: Duration = Duration::from_millis(10);

/// Why a program cannot be run on a camera.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The camera's ring cannot be mapped.
    #[error(transparent)]
    Ring(#[from] RingFileError),
    /// The kernel does not let the program be supervised.
    #[error("{}", filter_refused(.0))]
    Filter(io::Error),
    /// There is no such program, or it cannot be executed.
    #[error("{program}: {source}")]
    Program {
        /// Its name.
        program: String,
        /// What is wrong.
        source: io::Error,
    },
    /// Supervision cannot go on.
    #[error("cannot {operation}: {source}")]
    Supervise {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn filter_refused(error: &io::Error) -> String {
    let mend = match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS) => "Linux 5.19 with seccomp is needed",
        Some(libc::EBUSY) => {
            "another supervisor has this process already, such as a second circbuf exec; run it outside"
        }
        Some(libc::EPERM | libc::EACCES) => "a container must allow seccomp",
        _ => "see seccomp(2)",
    };
    format!("cannot put the program under a seccomp filter: {error}; {mend}")
}

/// What a call comes to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It has nothing to do with a node: the kernel goes on with it.
    NotOurs,
    /// It returns this.
    Returns(Reply),
    /// It returns a new descriptor, with this flag.
    Opens(std::fs::File, u32),
    /// It waits.
    Parks(Wait),
}

/// What a call returns, and what it stores in the program's memory before.
#[derive(Debug)]
pub(super) struct Reply {
    value: Result<i64, Errno>,
    stores: Vec<(u64, Vec<u8>)>,
}

impl Reply {
    pub(super) fn storing(mut self, address: u64, bytes: Vec<u8>) -> Reply {
        self.stores.push((address, bytes));
        self
    }

    fn give(self, listener: &Listener, call: &Call) {
        // A number comes to stand for another thread only when nobody waits for this any more.
        if !self.stores.is_empty() && !listener.waits_for(call.id) {
            return;
        }
        let mut stores = self.stores.iter();
        let stored = stores.try_for_each(|(at, bytes)| target::write(call.tid, *at, bytes));
        listener.answer(call.id, stored.and(self.value));
    }
}

impl From<Result<i64, Errno>> for Reply {
    fn from(value: Result<i64, Errno>) -> Reply {
        Reply { value, stores: Vec::new() }
    }
}

impl From<Errno> for Outcome {
    fn from(errno: Errno) -> Outcome {
        Outcome::Returns(Err(errno).into())
    }
}

/// The node of this camera and its ring's memory; its interrupt is connected.
fn channel(
    camera: &Camera,
    firmware: Firmware,
    interrupts: &EventFd,
) -> Result<(Node, OwnedFd), ExecError> {
    let node = Node::new(camera.ring(), firmware)?;
    // What the program gets is this memory.
    camera.ring().seal_content()?;
    let duplicate = failed("duplicate a descriptor");
    let ring = camera.ring().ring_fd().try_clone_to_owned().map_err(duplicate)?;
    let line = interrupts.as_fd().try_clone_to_owned();
    camera.emitted().connect(line.map_err(failed("duplicate a descriptor"))?);
    Ok((node, ring))
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> ExecError {
    move |source| ExecError::Supervise { operation, source }
}

/// A program that runs on an emulated camera.
#[derive(Debug)]
pub struct Supervisor {
    devices: Devices,
    interrupts: EventFd,
    signals: Signals,
    threads: Threads,
    parked: Vec<Parked>,
    /// When the parked calls are looked at whatever happens.
    next_look: Instant,
    /// Whether descriptors that parked calls wait for are ready for something else.
    are_others_noisy: bool,
    /// The program.
    child: i32,
    /// Its exit code, when it has ended.
    code: Option<u8>,
}

/// What there is to do.
#[derive(Debug)]
struct Woken {
    by_call: bool,
    /// Nobody is left under the filter.
    by_end: bool,
    by_frame: bool,
    by_signal: bool,
    /// By a descriptor that a parked call waits for.
    by_other: bool,
}

impl Supervisor {
    /// Sets the nodes up, one pair for each camera. From now on signals that end a process are kept
    /// for [`run`](Self::run), in this thread and those that it starts: the cameras are to be
    /// started behind this. `run` also takes the ends of all children of this process.
    ///
    /// # Errors
    /// A ring cannot be mapped, or the operating system refuses what it needs.
    pub fn new(cameras: &[&Camera], firmware: Firmware) -> Result<Supervisor, ExecError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let interrupts = EventFd::from_value_and_flags(0, flags)
            .map_err(|errno| failed("make an eventfd")(errno.into()))?;
        let channels = cameras.iter().map(|camera| channel(camera, firmware, &interrupts));
        let devices = Devices::new(firmware, channels.collect::<Result<_, _>>()?)
            .map_err(failed("make the nodes"))?;
        let signals = Signals::take().map_err(|errno| failed("catch signals")(errno.into()))?;
        Ok(Supervisor {
            devices,
            interrupts,
            signals,
            threads: Threads::default(),
            parked: Vec::new(),
            next_look: Instant::now(),
            are_others_noisy: false,
            child: 0,
            code: None,
        })
    }

    /// Runs `program`, its name and its arguments, until it and all that it has started have ended.
    /// Returns its exit code, 128 and the signal's number if one has ended it. Where others go on
    /// behind it, a signal ends this as well.
    ///
    /// # Errors
    /// The program cannot be started or supervised.
    pub fn run(mut self, program: &[OsString]) -> Result<u8, ExecError> {
        // So that those whose parent has ended stay below this process, which may look into them.
        prctl::set_child_subreaper(true)
            .map_err(|errno| failed("become a subreaper")(errno.into()))?;
        let filter = filter::filter(self.devices.firmware == Firmware::Nc393);
        let spawned = spawn::spawn(program, filter, self.signals.before());
        let (child, listener) = spawned.map_err(|error| match error {
            SpawnError::Filter(source) => ExecError::Filter(source),
            SpawnError::Program(source) => {
                ExecError::Program { program: program[0].display().to_string(), source }
            }
        })?;
        self.child = child.id() as i32;
        loop {
            let woken = self
                .wait(&listener)
                .map_err(|errno| failed("wait for the program")(errno.into()))?;
            if woken.by_signal && self.take_signals() {
                return Ok(self.code.unwrap_or_default());
            }
            if woken.by_call {
                self.receive(&listener)?;
            }
            self.look_again(&listener, &woken);
            if woken.by_end {
                return Ok(self.last_code());
            }
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, listener: &Listener) -> nix::Result<Woken> {
        let mut looked_at = vec![
            readable(listener.as_fd()),
            readable(self.interrupts.as_fd()),
            readable(self.signals.as_fd()),
        ];
        if !self.are_others_noisy {
            looked_at.extend(self.parked.iter().flat_map(Parked::others));
        }
        let until = self.parked.iter().filter_map(Parked::deadline).chain([self.next_look]).min();
        let limit = match (until, self.parked.is_empty()) {
            (Some(until), false) => {
                Some(TimeSpec::from(until.saturating_duration_since(Instant::now())))
            }
            _ => None,
        };
        match ppoll(&mut looked_at, limit, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let has =
            |at: usize, events| looked_at[at].revents().is_some_and(|told| told.intersects(events));
        Ok(Woken {
            by_call: has(0, PollFlags::POLLIN),
            by_end: has(0, PollFlags::POLLHUP),
            by_frame: has(1, PollFlags::POLLIN),
            by_signal: has(2, PollFlags::POLLIN),
            by_other: (3..looked_at.len()).any(|at| has(at, PollFlags::all())),
        })
    }

    fn receive(&mut self, listener: &Listener) -> Result<(), ExecError> {
        let call = listener.receive().map_err(failed("receive a system call"))?;
        let Some(call) = call else { return Ok(()) };
        if call.arch != filter::NATIVE_ARCH || call.number >= filter::X32 {
            refuse_foreign(listener, &call);
            return Ok(());
        }
        match self.outcome(&call) {
            Outcome::NotOurs => listener.resume(call.id),
            // What the thread's number stands for may have changed while it was looked at; then
            // nobody waits for this, and nobody gets it.
            Outcome::Returns(reply) => reply.give(listener, &call),
            Outcome::Opens(file, flags) => {
                listener.answer_with_file(call.id, file.as_fd(), flags);
            }
            Outcome::Parks(wait) => {
                if self.parked.is_empty() {
                    self.next_look = Instant::now() + TICK;
                }
                self.parked.push(Parked { call, wait });
            }
        }
        Ok(())
    }

    fn outcome(&mut self, call: &Call) -> Outcome {
        let (devices, threads) = (&mut self.devices, &mut self.threads);
        match call.number {
            libc::SYS_lseek => seek::lseek(devices, threads, call),
            libc::SYS_read | libc::SYS_pread64 => seek::read(devices, threads, call),
            libc::SYS_openat | libc::SYS_openat2 => file::open(devices, call),
            libc::SYS_fstat | libc::SYS_newfstatat => stat::stat(devices, call),
            libc::SYS_statx => stat::statx(devices, call),
            libc::SYS_faccessat | libc::SYS_faccessat2 => file::access(devices, call),
            libc::SYS_ppoll => select::poll_call(devices, threads, call),
            libc::SYS_pselect6 => select::select_call(devices, threads, call),
            libc::SYS_readlinkat => file::refused(devices, call, Errno::EINVAL),
            libc::SYS_getxattr | libc::SYS_lgetxattr => {
                file::refused(devices, call, Errno::EOPNOTSUPP)
            }
            libc::SYS_listxattr | libc::SYS_llistxattr => {
                file::refused(devices, call, Errno::EOPNOTSUPP)
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => file::open(devices, call),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat | libc::SYS_lstat => stat::stat(devices, call),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_access => file::access(devices, call),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll => select::poll_call(devices, threads, call),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_select => select::select_call(devices, threads, call),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_readlink => file::refused(devices, call, Errno::EINVAL),
            _ => Outcome::NotOurs,
        }
    }

    /// Answers the parked calls that need not wait longer.
    fn look_again(&mut self, listener: &Listener, woken: &Woken) {
        if woken.by_frame {
            // Only that it counts again matters, not how many frames there were.
            let _counted = self.interrupts.read();
        }
        let now = Instant::now();
        let is_tick = now >= self.next_look;
        let is_due = |parked: &Parked| parked.deadline().is_some_and(|deadline| now >= deadline);
        let is_time = is_tick || self.parked.iter().any(is_due);
        if self.parked.is_empty() || !(is_time || woken.by_frame || woken.by_other) {
            return;
        }
        if is_tick {
            self.next_look = now + TICK;
        }
        let before = self.parked.len();
        let devices = &mut self.devices;
        self.parked.retain_mut(|parked| {
            let id = parked.call.id;
            if !listener.waits_for(id) {
                return false;
            }
            let mut ended = parked.ended(devices);
            if ended.is_none() && is_tick {
                ended = parked.interrupted();
            }
            let stays = ended.is_none();
            if let Some(reply) = ended {
                reply.give(listener, &parked.call);
            }
            stays
        });
        // A descriptor may be ready for something that nobody asked for: look at it at times only.
        self.are_others_noisy = woken.by_other && self.parked.len() == before;
    }

    /// Passes signals on, and takes the ends of children. Whether to end without those that are
    /// left.
    fn take_signals(&mut self) -> bool {
        let mut ends = false;
        while let Some(arrived) = self.signals.next() {
            match (arrived, self.code) {
                (Arrived::Child, _) => self.take_children(WaitPidFlag::WNOHANG),
                (Arrived::Forward(signal), None) => signals::send(self.child, signal),
                (Arrived::Shared, None) => {}
                (Arrived::Forward(_) | Arrived::Shared, Some(_)) => ends = true,
            }
        }
        ends
    }

    /// Takes the ends of all children that have ended: of the program, and of those that it has
    /// left.
    fn take_children(&mut self, flags: WaitPidFlag) {
        loop {
            let ended = match waitpid(None, Some(flags)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code as u8),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as u8),
                Err(Errno::EINTR) => continue,
                Ok(_) | Err(_) => return,
            };
            if ended.0.as_raw() == self.child {
                self.code = Some(ended.1);
            }
        }
    }

    /// The program's exit code, when nobody is left.
    fn last_code(&mut self) -> u8 {
        self.take_children(WaitPidFlag::empty());
        self.code.unwrap_or_default()
    }
}

/// A program of another architecture has other numbers for its calls, and other structures.
fn refuse_foreign(listener: &Listener, call: &Call) {
    let process = target::process_of(call.tid).unwrap_or(call.tid);
    if listener.waits_for(call.id) {
        let name = std::fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
        log::error!(
            "{}: a 32-bit program, which cannot be supervised; build it for this machine's own 64 \
             bits. It is ended",
            name.display()
        );
        signals::send(process, Signal::SIGKILL);
    }
    listener.answer(call.id, Err(Errno::ENOSYS));
}
