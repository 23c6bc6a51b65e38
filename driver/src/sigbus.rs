//! What happens when somebody truncates a file that is mapped: the kernel answers the next load
//! with SIGBUS, which would end the process with every frame that it holds.
//!
//! Instead, a page of zeros is put where the file's page is missing, and the mapping remembers it.
//! The driver asks [`Guard::was_hit`] and ends in good order. A SIGBUS that has nothing to do with a
//! watched range ends the process. A handler that the program had before is not called.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::libc;

/// Mappings that can be watched at a time: ring and register page of 32 devices.
const RANGES: usize = 64;

static TABLE: [Range; RANGES] = [const { Range::empty() }; RANGES];
static INSTALL: Once = Once::new();
/// Asked when the handler is installed: a handler may not.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

struct Range {
    taken: AtomicBool,
    start: AtomicUsize,
    bytes: AtomicUsize,
    hit: AtomicBool,
}

impl Range {
    const fn empty() -> Range {
        Range {
            taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            hit: AtomicBool::new(false),
        }
    }

    fn contains(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        start != 0 && (start..start + self.bytes.load(Ordering::Relaxed)).contains(&address)
    }
}

/// Watches one range of addresses for as long as it lives.
#[derive(Debug)]
pub(crate) struct Guard {
    index: Option<usize>,
}

impl Guard {
    /// Watches `bytes` from `start` on, which is page-aligned. With [`RANGES`] mappings watched
    /// already the range stays unwatched.
    pub(crate) fn watch(start: usize, bytes: usize) -> Guard {
        INSTALL.call_once(install);
        let free = |range: &Range| !range.taken.swap(true, Ordering::AcqRel);
        let index = TABLE.iter().position(free);
        if let Some(range) = index.map(|index| &TABLE[index]) {
            range.hit.store(false, Ordering::Relaxed);
            range.bytes.store(bytes, Ordering::Relaxed);
            range.start.store(start, Ordering::Release);
        }
        if index.is_none() {
            log::warn!("more than {RANGES} mappings: one that is truncated will end the process");
        }
        Guard { index }
    }

    pub(crate) fn was_hit(&self) -> bool {
        self.index.is_some_and(|index| TABLE[index].hit.load(Ordering::Relaxed))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(range) = self.index.map(|index| &TABLE[index]) {
            range.start.store(0, Ordering::Release);
            range.taken.store(false, Ordering::Release);
        }
    }
}

fn install() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    if let Ok(Some(bytes)) = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) {
        PAGE_BYTES.store(bytes as usize, Ordering::Relaxed);
    }
    let action =
        SigAction::new(SigHandler::SigAction(on_sigbus), SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: `on_sigbus` calls nothing but atomics, mmap, sigaction and raise, all of which may be
    // called in a signal handler.
    let installed = unsafe { sigaction(Signal::SIGBUS, &action) };
    if let Err(error) = installed {
        log::warn!("a ring that is truncated while in use will end the process: {error}");
    }
}

extern "C" fn on_sigbus(_: libc::c_int, siginfo: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler installed with SA_SIGINFO.
    let siginfo = unsafe { &*siginfo };
    // SAFETY: si_addr is the union's member that SIGBUS fills in.
    let address = unsafe { siginfo.si_addr() } as usize;
    match TABLE.iter().find(|range| range.contains(address)) {
        Some(range) if put_zeros(address) => range.hit.store(true, Ordering::Relaxed),
        _ => die(),
    }
}

/// Puts one page of zeros in place of the missing one.
fn put_zeros(address: usize) -> bool {
    let page_bytes = PAGE_BYTES.load(Ordering::Relaxed);
    let page = (address & !(page_bytes - 1)) as *mut libc::c_void;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the page lies in a watched range, which is a mapping of ours that holds nothing but
    // the missing page of a file, and to which no reference exists (see `mapping`).
    let mapped = unsafe { libc::mmap(page, page_bytes, libc::PROT_READ, flags, -1, 0) };
    mapped != libc::MAP_FAILED
}

/// Ends the process as an unhandled SIGBUS does: with the default action, the load that failed is
/// done once more on return.
fn die() {
    // SAFETY: SIG_DFL is a valid disposition for SIGBUS.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}
