//! The kernel's side of a seccomp filter with a listener: `seccomp(2)`, `seccomp_unotify(2)`.
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`: the one that is answered runs where the answer was made.
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// `PIDFD_THREAD`, since Linux 6.9.
const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;

/// A system call at which a thread of the program stands still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) id: u64,
    /// Of the thread.
    pub(super) tid: i32,
    /// `AUDIT_ARCH_*`.
    pub(super) arch: u32,
    pub(super) number: i64,
    pub(super) args: [u64; 6],
}

/// Where the calls come in.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        // SAFETY: the request takes a number and no pointer.
        unsafe {
            libc::ioctl(
                descriptor.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS as libc::Ioctl,
                SYNC_WAKE_UP,
            )
        };
        Self(descriptor)
    }

    /// The next call, which is there; none if its thread was killed meanwhile.
    pub(super) fn receive(&self) -> io::Result<Option<Call>> {
        let data = libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] };
        let mut notification = libc::seccomp_notif { id: 0, pid: 0, flags: 0, data };
        match self.request(libc::SECCOMP_IOCTL_NOTIF_RECV as libc::Ioctl, &mut notification) {
            Ok(_) => {}
            Err(Errno::ENOENT | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        let libc::seccomp_notif { id, pid, data, .. } = notification;
        let (arch, number) = (data.arch, i64::from(data.nr));
        Ok(Some(Call { id, tid: pid as i32, arch, number, args: data.args }))
    }

    /// Whether the thread still waits for the answer to this call. If so, its number has stood for
    /// it all the time.
    pub(super) fn waits_for(&self, id: u64) -> bool {
        let mut id = id;
        self.request(libc::SECCOMP_IOCTL_NOTIF_ID_VALID as libc::Ioctl, &mut id).is_ok()
    }

    /// Lets the kernel do what the program asked for.
    pub(super) fn resume(&self, id: u64) {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        self.send(libc::seccomp_notif_resp { id, val: 0, error: 0, flags });
    }

    /// Makes the call return this.
    pub(super) fn answer(&self, id: u64, answer: Result<i64, Errno>) {
        let (val, error) = match answer {
            Ok(value) => (value, 0),
            Err(errno) => (0, -(errno as i32)),
        };
        self.send(libc::seccomp_notif_resp { id, val, error, flags: 0 });
    }

    /// Puts an open file into the program, at the lowest number that is free, and makes the call
    /// return that.
    pub(super) fn answer_with_file(&self, id: u64, file: BorrowedFd<'_>, flags: u32) {
        let mut added = libc::seccomp_notif_addfd {
            id,
            flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            srcfd: file.as_raw_fd() as u32,
            newfd: 0,
            newfd_flags: flags,
        };
        if let Err(errno) = self.request(libc::SECCOMP_IOCTL_NOTIF_ADDFD as libc::Ioctl, &mut added)
        {
            // Not added, EMFILE for instance; or the thread is gone, and nobody reads this.
            self.answer(id, Err(errno));
        }
    }

    fn send(&self, mut response: libc::seccomp_notif_resp) {
        // Where the thread was killed meanwhile, nobody waits for it.
        let _gone = self.request(libc::SECCOMP_IOCTL_NOTIF_SEND as libc::Ioctl, &mut response);
    }

    fn request<T>(&self, request: libc::Ioctl, argument: &mut T) -> Result<i32, Errno> {
        // SAFETY: every request above is passed the structure that its number says.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut *argument) })
    }
}

/// Puts the calling thread under `filter` for good, and returns the listener.
pub(super) fn install(filter: &[libc::sock_filter]) -> io::Result<RawFd> {
    // SAFETY: changes a flag of this process.
    let denied = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    Errno::result(denied)?;
    let program = libc::sock_fprog {
        len: filter.len() as libc::c_ushort,
        filter: filter.as_ptr().cast_mut(),
    };
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: `program` describes a slice that outlives the call, which only reads it.
    let listener = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    Ok(Errno::result(listener)? as RawFd)
}

/// A handle of the thread `tid` alone, which never comes to stand for another one.
pub(super) fn open_thread(tid: i32) -> Result<OwnedFd, Errno> {
    open_pidfd(tid, PIDFD_THREAD)
}

/// A handle of the process `pid`.
pub(super) fn open_process(pid: i32) -> Result<OwnedFd, Errno> {
    open_pidfd(pid, 0)
}

fn open_pidfd(pid: i32, flags: libc::c_uint) -> Result<OwnedFd, Errno> {
    // SAFETY: takes numbers only.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) };
    let opened = Errno::result(opened)? as RawFd;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// A duplicate of the descriptor `number` of the process: the same open file.
pub(super) fn duplicate(process: BorrowedFd<'_>, number: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes numbers only.
    let taken = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    let taken = Errno::result(taken)? as RawFd;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(taken) })
}
