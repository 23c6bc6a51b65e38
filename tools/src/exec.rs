//! Runs an unmodified program that believes to be on a camera: `/dev/circbufN` and `/dev/jpegheadN`
//! are there for it, and for nobody else.
//!
//! The program runs under a seccomp filter. The kernel stops it at the few system calls that could
//! concern such a node (those with a path, `lseek`, `poll` and their like) and asks this process,
//! the supervisor, which answers for the node and lets all others go on as if nothing had happened.
//! An `open` of a node puts a real descriptor into the program: the ring's memory, opened again for
//! reading. So `mmap` shows the live ring, and neither it nor ordinary reading stops at all. (On a
//! 393, which rounds unaligned positions down, `read` stops.) Neither root nor a kernel module is
//! needed, and the program may be static and of any language. A call that stops, of whatever file,
//! takes about 10 us; all others take what they always do.
//!
//! # What keeps the state
//! The file position is the kernel's own, in the open file that the program got: whatever `dup`,
//! `fork`, `exec` or a socket do with the descriptor, they share the position as they do on a
//! camera, and nothing has to be followed or cleaned up. At a call the supervisor looks which file
//! the number stands for, takes a duplicate for a moment, and moves that. A 353 keeps a JPEG header
//! for each open file, which is a memfd of its own here; a 393 keeps one for each channel.
//!
//! # Waiting
//! A thread in `LSEEK_CIRC_WAIT` or `poll` is parked until the camera completes a frame, and stops
//! no other thread or process. `poll` and `select` on a node and other descriptors wait for
//! duplicates of those. A signal with a handler ends `poll` with EINTR within 10 ms; as on a
//! camera, it does not end `LSEEK_CIRC_WAIT`, unless it kills.
//!
//! # What cannot be done
//! * `epoll` on a node (refused by the kernel with EPERM, as for a regular file) and io_uring (not
//!   seen at all); setuid programs run without their privilege; 32-bit programs are ended with a
//!   message. A program that brings a filter with a listener of its own, another `circbuf exec`
//!   above all, is not supervised twice.
//! * `write` fails with EBADF, `mmap` for writing with EACCES: the ring belongs to the camera,
//!   whatever the node's permissions say. On a camera both would write into it. Who opens the ring's
//!   memory again by `/proc`, be it root, gets EPERM for both: it is sealed.
//! * A node that is opened with `O_WRONLY` or `O_PATH` is open for neither reading nor writing, which
//!   `F_GETFL` tells; `lseek` and `poll` work on both.
//! * `mmap` from an offset begins there (a camera ignores it), and ends with the ring (SIGBUS
//!   behind).
//! * On a 393, `readv`, `sendfile` and their like read unaligned positions as they are; `read` and
//!   `pread` round them down, as the camera does.
//! * `ppoll` and `pselect` on a node leave the signal mask alone that they are given.
//! * Nodes do not show in a listing of `/dev`, symbolic links to them are not followed, and
//!   `/proc/self/fd` tells what they are made of.
mod device;
mod file;
mod filter;
mod lookup;
#[allow(unsafe_code)]
mod seccomp;
mod seek;
mod select;
mod signals;
#[allow(unsafe_code)]
mod spawn;
mod stat;
mod supervisor;
mod target;
mod waiting;

pub use supervisor::{ExecError, Supervisor};
