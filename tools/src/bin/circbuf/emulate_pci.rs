//! `circbuf emulate --socket`: the camera as a PCI function. Each connection is served by a process of its
//! own, this program once more with the connection as its standard output, so that a client that dies
//! or lies takes nobody else down.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use circbuf_driver::device::pci::check_socket_path;
use circbuf_emulator::ledger::Ledger;
use circbuf_emulator::pci::serve;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use crate::camera::CameraPlan;
use crate::emulate::tell;
use crate::failure::{Code, Failure, log_line};
use crate::status::{interruption, wait};

/// Connections that are served at a time. One more is turned away.
const CONNECTIONS_MAX: usize = 16;

/// Exit code of a process whose client hung up before its camera had ended.
const CLIENT_LEFT: i32 = 75;

/// How long a client may take to read what is left when its camera is ended from outside.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves cameras to whoever connects, until a camera has ended and everybody is gone, the time is over, or
/// a signal.
pub(crate) fn listen(plan: &CameraPlan, socket: &Path) -> Result<(), Failure> {
    let what = check(plan)?;
    let socket = Socket::bind(socket)?;
    log_line(&format!("circbuf: {what}, as a PCI function at {}", socket.path.display()));
    let interrupted = interruption()?;
    let (mut servers, mut has_ended) = (Servers::default(), false);
    let end = plan.ends_at();
    loop {
        has_ended |= servers.reap();
        let is_over = interrupted.load(std::sync::atomic::Ordering::Relaxed)
            || end.is_some_and(|end| Instant::now() >= end);
        if is_over || (has_ended && servers.children.is_empty()) {
            servers.end();
            return Ok(());
        }
        if let Some(stream) = socket.accept()? {
            servers.start(stream);
        }
    }
}

/// Serves the one connection that is the standard output, and has this number.
pub(crate) fn serve_stdout(plan: &CameraPlan, connection: Connection) -> Result<(), Failure> {
    let Connection { number, emulator } = connection;
    let stream = io::stdout().as_fd().try_clone_to_owned();
    let stream = stream.map(UnixStream::from).map_err(Failure::failed)?;
    let path = plan.pace.ledger.as_deref().map(|path| ledger_of(path, number));
    let ledger = path.as_deref().map_or_else(Ledger::none, Ledger::to_file_later);
    let mut function = plan.make_function(ledger, |_| {})?.function;
    let (interrupted, farewell) = (interruption()?, function.farewell());
    end_with(emulator)?;
    std::thread::spawn(move || {
        while !wait(&interrupted) {}
        farewell();
        std::thread::sleep(FAREWELL);
        std::process::exit(CLIENT_LEFT);
    });
    let served = serve(stream, &mut function);
    let has_ended = function.has_ended();
    let report = function.finish();
    if let Err(error) = served {
        log::warn!("{error}");
    }
    match report {
        Some(report) if report.frames > 0 => {
            tell(&report, None)?;
            if let Some(path) = path.filter(|_| number > 1) {
                log_line(&format!(
                    "circbuf: connection {number} has its ledger at {}",
                    path.display()
                ));
            }
        }
        Some(_) => {}
        None => log::warn!("the camera could not be stopped, and ends with its process"),
    }
    // A camera that hangs is not waited for.
    std::process::exit(if has_ended { 0 } else { CLIENT_LEFT });
}

/// Has the kernel say to this process that the emulator which started it is gone, however it ended: the
/// camera ends then as it does with an emulator that is asked to. To the kernel that is the thread which
/// started it: the emulator's main thread, which stays until all have ended.
fn end_with(emulator: i32) -> Result<(), Failure> {
    set_pdeathsig(Signal::SIGTERM).map_err(Failure::failed)?;
    // It may have gone before the kernel knew.
    match getppid() == Pid::from_raw(emulator) {
        true => Ok(()),
        false => Err(Failure::failed("the emulator is gone")),
    }
}

/// The ledger of a connection: of the first one the file that was named, of others one beside it, so that none
/// takes another one's place.
fn ledger_of(path: &Path, number: u64) -> PathBuf {
    let Some(stem) = path.file_stem().filter(|_| number > 1) else { return path.into() };
    let mut name = OsString::from(stem);
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Looks whether a camera can be made at all, before anybody connects. Standard input can be read only
/// once, by the process that serves.
fn check(plan: &CameraPlan) -> Result<String, Failure> {
    if let Some(path) = &plan.pace.ledger {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(Failure::failed(format!("{}: no such folder", path.display())));
        }
    }
    match plan.source.source.as_deref() {
        Some("y4m:-") => Ok("y4m:-, for the first connection".to_owned()),
        _ => plan.make_function(Ledger::none(), log_line).map(|ready| ready.what),
    }
}

/// A socket that goes with this process.
struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    fn bind(path: &Path) -> Result<Socket, Failure> {
        check_socket_path(path).map_err(Failure::usage)?;
        let refuse = |why: &dyn std::fmt::Display| {
            Failure::new(Code::NoDevice, format!("{}: {why}", path.display()))
        };
        let bound = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                remove_stale(path).map_err(|why| refuse(&why))?;
                UnixListener::bind(path)
            }
            bound => bound,
        };
        let listener = bound.map_err(|error| refuse(&error))?;
        listener.set_nonblocking(true).map_err(|error| refuse(&error))?;
        Ok(Socket { path: path.to_owned(), listener })
    }

    /// The next connection, if one comes within a moment.
    fn accept(&self) -> Result<Option<UnixStream>, Failure> {
        let mut events = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        // A signal ends it as well.
        let _ready = poll(&mut events, PollTimeout::from(50_u8));
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(Failure::failed)?;
                Ok(Some(stream))
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(None)
            }
            Err(error) => {
                // Too many open files, for example: those who hang up make room.
                log::warn!("a connection was not accepted: {error}");
                std::thread::sleep(Duration::from_millis(50));
                Ok(None)
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// Removes a socket that a process has left behind.
fn remove_stale(path: &Path) -> Result<(), String> {
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if !is_socket {
        return Err("is no socket, not replaced; remove it or take another name".to_owned());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| error.to_string())
        }
        _ => Err("another process serves this socket; stop it or take another name".to_owned()),
    }
}

/// A connection, as the process that serves it is told of it: by two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection {
    /// From 1.
    number: u64,
    /// The process that has accepted it.
    emulator: i32,
}

impl FromStr for Connection {
    type Err = String;

    fn from_str(text: &str) -> Result<Connection, String> {
        let numbers = text.split_once(':').and_then(|(number, emulator)| {
            Some(Connection { number: number.parse().ok()?, emulator: emulator.parse().ok()? })
        });
        numbers.ok_or_else(|| format!("'{text}' is not of circbuf's own making"))
    }
}

/// The processes that serve.
#[derive(Default)]
struct Servers {
    children: Vec<Child>,
    /// Connections so far.
    started: u64,
}

impl Servers {
    fn start(&mut self, stream: UnixStream) {
        if self.children.len() >= CONNECTIONS_MAX {
            return log::warn!("more than {CONNECTIONS_MAX} connections: one was turned away");
        }
        // As it was started, so that it makes the same camera; apart from our terminal's signals.
        self.started += 1;
        let started = Command::new("/proc/self/exe")
            .args(std::env::args_os().skip(1))
            .args(["--serve-stdout", &format!("{}:{}", self.started, std::process::id())])
            .stdout(Stdio::from(OwnedFd::from(stream)))
            .process_group(0)
            .spawn();
        match started {
            Ok(child) => self.children.push(child),
            Err(error) => log::warn!("a connection cannot be served: {error}"),
        }
    }

    /// Buries those that have ended. Tells whether one's camera had ended too.
    fn reap(&mut self) -> bool {
        let mut has_ended = false;
        self.children.retain_mut(|child| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                has_ended |= ended_well(status);
                false
            }
            Err(_) => false,
        });
        has_ended
    }

    /// Ends all cameras, and waits until their clients have read what there is.
    fn end(&mut self) {
        for child in &self.children {
            let _gone = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        }
        let end = Instant::now() + FAREWELL + Duration::from_secs(1);
        while !self.children.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            self.reap();
        }
        for child in &mut self.children {
            let _gone = child.kill().and_then(|()| child.wait());
        }
    }
}

/// What a process says by its exit code; that it was killed is worth a line.
fn ended_well(status: ExitStatus) -> bool {
    match status.code() {
        Some(0) => true,
        Some(CLIENT_LEFT) => false,
        _ => {
            log::warn!("a process that served a connection ended with {status}");
            false
        }
    }
}
