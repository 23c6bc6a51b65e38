//! `poll`, `ppoll`, `select` and `pselect6` where a node is among the descriptors.
//!
//! The kernel would find a node ready at any time, as it does every file. So the supervisor looks
//! itself: at the node, and at duplicates of the other descriptors.
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use circbuf_emulator::node::Readiness;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::device::{Devices, Kind};
use super::lookup::{self, Opened};
use super::seccomp::Call;
use super::seek;
use super::supervisor::{Outcome, Reply};
use super::target::{self, Threads};
use super::waiting::Wait;

/// The most descriptors that are looked at; a call with more is left to the kernel.
const DESCRIPTORS_MAX: u64 = 4096;

const POLLFD_BYTES: usize = 8;
const REVENTS: u64 = 6;

/// What `select` asks for and takes for an answer, for reading, writing and exceptions.
const ASKED: [PollFlags; 3] = [
    PollFlags::POLLIN.union(PollFlags::POLLRDNORM).union(PollFlags::POLLRDBAND),
    PollFlags::POLLOUT.union(PollFlags::POLLWRNORM).union(PollFlags::POLLWRBAND),
    PollFlags::POLLPRI,
];
const TAKEN: [PollFlags; 3] = [
    ASKED[0].union(PollFlags::POLLHUP).union(PollFlags::POLLERR),
    ASKED[1].union(PollFlags::POLLERR),
    ASKED[2],
];

/// Told whether or not it was asked for.
const ALWAYS: PollFlags = PollFlags::POLLHUP.union(PollFlags::POLLERR).union(PollFlags::POLLNVAL);

/// What a descriptor stands for.
#[derive(Debug)]
enum Subject {
    Node(Opened),
    Other(OwnedFd),
    /// It is not open.
    Closed,
    /// A negative number, which means nothing.
    None,
}

#[derive(Debug)]
struct Entry {
    descriptor: i32,
    subject: Subject,
    events: PollFlags,
}

/// How the answer is written.
#[derive(Debug)]
enum Form {
    /// An array of `pollfd`.
    Poll,
    /// Three bit sets, as they were asked for; none where the pointer is null.
    Select([Option<Vec<u8>>; 3]),
}

/// How the time that is left is written: seconds and so many units of it, as two 64-bit numbers.
#[derive(Debug, Clone, Copy)]
struct TimeArg {
    address: u64,
    units_per_s: u64,
}

/// How long a call waits.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Never,
    After(Duration),
    /// So long, which stands in memory; what is left is to stand there afterwards.
    At(TimeArg),
}

/// A call that waits for any of several descriptors.
#[derive(Debug)]
pub(super) struct Selection {
    entries: Vec<Entry>,
    deadline: Option<Instant>,
    form: Form,
    time: Option<TimeArg>,
}

/// `poll` and `ppoll`.
pub(super) fn poll_call(devices: &mut Devices, threads: &mut Threads, call: &Call) -> Outcome {
    if call.args[1] == 0 || call.args[1] > DESCRIPTORS_MAX {
        return Outcome::NotOurs;
    }
    let bytes = call.args[1] as usize * POLLFD_BYTES;
    let Ok(array) = target::read(call.tid, call.args[0], bytes) else { return Outcome::NotOurs };
    let asked = array.as_chunks::<POLLFD_BYTES>().0.iter().map(|[a, b, c, d, e, f, ..]| {
        let events = PollFlags::from_bits_retain(i16::from_ne_bytes([*e, *f]));
        (i32::from_ne_bytes([*a, *b, *c, *d]), events)
    });
    let asked: Vec<_> = asked.collect();
    if !asked.iter().any(|(descriptor, _)| is_node(devices, call, *descriptor)) {
        return Outcome::NotOurs;
    }
    let limit = match (call.number, u64::try_from(call.args[2] as i32)) {
        (libc::SYS_ppoll, _) => Limit::at(call.args[2], 1_000_000_000),
        (_, Ok(millis)) => Limit::After(Duration::from_millis(millis)),
        (_, Err(_)) => Limit::Never,
    };
    begin(devices, threads, call, (asked, Form::Poll), limit)
}

/// `select` and `pselect6`.
pub(super) fn select_call(devices: &mut Devices, threads: &mut Threads, call: &Call) -> Outcome {
    let count = call.args[0];
    if count == 0 || count > DESCRIPTORS_MAX {
        return Outcome::NotOurs;
    }
    let bytes = count.div_ceil(64) as usize * 8;
    let read = |address| match address {
        0 => Ok(None),
        _ => target::read(call.tid, address, bytes).map(Some),
    };
    let [Ok(reading), Ok(writing), Ok(except)] = [1, 2, 3].map(|at| read(call.args[at])) else {
        return Outcome::NotOurs;
    };
    let sets = [reading, writing, except];
    let asked: Vec<_> = (0..count as i32)
        .map(|descriptor| (descriptor, asked_of(&sets, descriptor)))
        .filter(|(_, events)| !events.is_empty())
        .collect();
    if !asked.iter().any(|(descriptor, _)| is_node(devices, call, *descriptor)) {
        return Outcome::NotOurs;
    }
    let units_per_s = match call.number {
        libc::SYS_pselect6 => 1_000_000_000,
        _ => 1_000_000,
    };
    let limit = Limit::at(call.args[4], units_per_s);
    begin(devices, threads, call, (asked, Form::Select(sets)), limit)
}

fn is_node(devices: &Devices, call: &Call, descriptor: i32) -> bool {
    descriptor >= 0 && lookup::device_of(devices, call.tid, descriptor).is_some()
}

fn asked_of(sets: &[Option<Vec<u8>>; 3], descriptor: i32) -> PollFlags {
    let (at, bit) = (descriptor as usize / 8, descriptor % 8);
    let has = |set: &Option<Vec<u8>>| set.as_ref().is_some_and(|set| set[at] >> bit & 1 == 1);
    let asked = sets.iter().zip(ASKED).filter(|(set, _)| has(set));
    asked.fold(PollFlags::empty(), |events, (_, asked)| events | asked)
}

/// Looks once, and parks the call if nothing is ready.
fn begin(
    devices: &mut Devices,
    threads: &mut Threads,
    call: &Call,
    (asked, form): (Vec<(i32, PollFlags)>, Form),
    limit: Limit,
) -> Outcome {
    let (time, limit) = match limit {
        Limit::Never => (None, None),
        Limit::After(limit) => (None, Some(limit)),
        Limit::At(time) => match time.read(call) {
            Ok(limit) => (Some(time), Some(limit)),
            Err(errno) => return errno.into(),
        },
    };
    let entry = |(descriptor, events)| Entry {
        descriptor,
        subject: subject(devices, threads, call, descriptor),
        events,
    };
    let entries: Vec<_> = asked.into_iter().map(entry).collect();
    let is_closed = |entry: &Entry| matches!(entry.subject, Subject::Closed);
    if matches!(form, Form::Select(_)) && entries.iter().any(is_closed) {
        return Errno::EBADF.into();
    }
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let selection = Selection { entries, deadline, form, time };
    match selection.ended(devices, call) {
        Some(returns) => Outcome::Returns(returns),
        None => Outcome::Parks(Wait::Selection(selection)),
    }
}

fn subject(devices: &Devices, threads: &mut Threads, call: &Call, descriptor: i32) -> Subject {
    if descriptor < 0 {
        return Subject::None;
    }
    match lookup::opened(devices, threads, call.tid, descriptor) {
        Ok(Some(opened)) => Subject::Node(opened),
        Ok(None) => match threads.duplicate(call.tid, descriptor) {
            Ok(duplicate) => Subject::Other(duplicate),
            Err(_) => Subject::Closed,
        },
        Err(_) => Subject::Closed,
    }
}

impl Selection {
    /// When the time is over, if it ever is.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The descriptors that the kernel can look at.
    pub(super) fn others(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.entries.iter().filter_map(|entry| match &entry.subject {
            Subject::Other(other) => Some(PollFd::new(other.as_fd(), entry.events)),
            _ => None,
        })
    }

    /// What the call returns, if something is ready or the time is over; what it stores says what.
    pub(super) fn ended(&self, devices: &mut Devices, call: &Call) -> Option<Reply> {
        let ready = self.ready(devices);
        let is_over = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let count = match &self.form {
            Form::Poll => ready.iter().filter(|events| !events.is_empty()).count(),
            Form::Select(_) => self.bits(&ready).count(),
        };
        if count == 0 && !is_over {
            return None;
        }
        let mut reply = self.told(Ok(count as i64).into(), call, &ready);
        if let (Some(time), Some(deadline)) = (self.time, self.deadline) {
            reply = reply.storing(time.address, time.left(deadline));
        }
        Some(reply)
    }

    /// What is ready of each entry.
    fn ready(&self, devices: &mut Devices) -> Vec<PollFlags> {
        let mut others: Vec<_> = self.others().collect();
        // If the kernel refuses to look, nothing is ready now.
        let _refused = poll(&mut others, PollTimeout::ZERO);
        let mut others = others.iter().map(|other| other.revents().unwrap_or(PollFlags::empty()));
        let mut ready = |entry: &Entry| match &entry.subject {
            Subject::None => PollFlags::empty(),
            Subject::Closed => PollFlags::POLLNVAL,
            Subject::Other(_) => others.next().unwrap_or(PollFlags::empty()),
            Subject::Node(opened) => node_ready(devices, opened) & (entry.events | ALWAYS),
        };
        self.entries.iter().map(&mut ready).collect()
    }

    /// The descriptors that `select` finds in each of the three sets.
    fn bits<'a>(&'a self, ready: &'a [PollFlags]) -> impl Iterator<Item = (usize, usize)> + 'a {
        self.entries.iter().zip(ready).flat_map(|(entry, ready)| {
            let is_set =
                |set: &usize| entry.events.contains(ASKED[*set]) && ready.intersects(TAKEN[*set]);
            (0..3).filter(is_set).map(|set| (set, entry.descriptor as usize)).collect::<Vec<_>>()
        })
    }

    /// The reply with what is ready, in the form of the call.
    fn told(&self, reply: Reply, call: &Call, ready: &[PollFlags]) -> Reply {
        match &self.form {
            Form::Poll => (0_u64..).zip(ready).fold(reply, |reply, (at, events)| {
                let address = call.args[0] + at * POLLFD_BYTES as u64 + REVENTS;
                reply.storing(address, events.bits().to_ne_bytes().to_vec())
            }),
            Form::Select(sets) => {
                let mut told = sets.clone();
                told.iter_mut().flatten().for_each(|set| set.fill(0));
                for (set, descriptor) in self.bits(ready) {
                    if let Some(set) = &mut told[set] {
                        set[descriptor / 8] |= 1 << (descriptor % 8);
                    }
                }
                let stored = call.args[1..].iter().zip(told);
                stored.fold(reply, |reply, (address, set)| match set {
                    Some(set) => reply.storing(*address, set),
                    None => reply,
                })
            }
        }
    }
}

fn node_ready(devices: &mut Devices, opened: &Opened) -> PollFlags {
    // Of the camera's nodes, this one alone can be waited for.
    if opened.device.kind == Kind::Jpeghead {
        return PollFlags::empty();
    }
    match devices.rings[opened.device.channel].node.poll(seek::position(&opened.file)) {
        Readiness::Gone => PollFlags::POLLHUP,
        Readiness::Ready => PollFlags::POLLIN | PollFlags::POLLRDNORM,
        Readiness::Waits => PollFlags::empty(),
    }
}

impl Limit {
    /// The time at `address`; none if that is null.
    fn at(address: u64, units_per_s: u64) -> Limit {
        if address == 0 { Limit::Never } else { Limit::At(TimeArg { address, units_per_s }) }
    }
}

impl TimeArg {
    fn read(self, call: &Call) -> Result<Duration, Errno> {
        let bytes = target::read(call.tid, self.address, 16)?;
        let [seconds, units] = [0, 8]
            .map(|at| i64::from_ne_bytes(*bytes[at..].first_chunk().expect("16 bytes were read")));
        let seconds = u64::try_from(seconds).map_err(|_| Errno::EINVAL)?;
        let units = u64::try_from(units).map_err(|_| Errno::EINVAL)?;
        match self.units_per_s {
            // A `timeval` may be out of order, a `timespec` not.
            per_s @ 1_000_000_000 if units >= per_s => Err(Errno::EINVAL),
            per_s => {
                let nanos = units % per_s * (1_000_000_000 / per_s);
                Ok(Duration::new(seconds.saturating_add(units / per_s), nanos as u32))
            }
        }
    }

    /// What is left of the time, as it is stored.
    fn left(self, deadline: Instant) -> Vec<u8> {
        let left = deadline.saturating_duration_since(Instant::now());
        let units = u64::from(left.subsec_nanos()) / (1_000_000_000 / self.units_per_s);
        [left.as_secs().to_ne_bytes(), units.to_ne_bytes()].concat()
    }
}
