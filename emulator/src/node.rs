//! The camera's character device: what the kernel of a camera makes of the ring for its programs.
//!
//! A [`Node`] is the state machine behind `/dev/circbufN` and `/dev/jpegheadN`, without the system
//! calls: it is told a file position and a command, and says the new position and what `lseek`
//! returns. It looks at the live ring, so its answers are those of a camera in the same moment,
//! oddities included, for a program that runs into them on a camera is to run into them here:
//!
//! * a position is tested by its header alone: any aligned place that FF FF stands in front of is
//!   "valid", and the range up to the write pointer is never considered;
//! * NEXT goes behind the newest frame, FREE and USED make their answer the position, TORP moves
//!   even where it fails;
//! * a slot that ends where the ring ends: the 393's write pointer is 0 then, but its NEXT goes to
//!   the ring's size, where nothing is valid until the next frame has its header; the 353's write
//!   pointer is the ring's size, and position 0 is another place;
//! * a 393 rounds positions down to 4 when it reads, but not the position that follows.
//!
//! Two things are friendlier than on a camera: waiting for a daemon to be enabled
//! (`LSEEK_DAEMON_CIRCBUF`) never waits, for nobody could enable one; and a chain of bogus lengths
//! ends at the ring's bounds instead of outside.
mod jpeghead;

use circbuf_abi::header::{LENGTH, SIGNATURE, SIGNATURE_OFFSET};
use circbuf_abi::node as command;
use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES, TRAILER_MARKER};
use nix::errno::Errno;
use nix::libc::{SEEK_CUR, SEEK_END, SEEK_SET};

use crate::dma::{RegisterView, RingView};
use crate::ring_file::{RingFile, RingFileError};

pub use jpeghead::{HEADER_BYTES_MAX, seek_in_header};

/// Whose kernel it is. They differ where a slot ends at the end of the ring, at USED, and in reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// Elphel 353, firmware 8.
    Nc353,
    /// Elphel 393.
    Nc393,
}

/// What `lseek` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This offset, or what the command counts.
    Is(u64),
    /// -1 with this `errno`.
    Fails(Errno),
    /// Not yet: ask again when a frame is complete.
    Waits,
}

/// What a call of `lseek` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sought {
    /// The file position afterwards; it may have moved although the call fails.
    pub position: u64,
    /// What the call returns.
    pub answer: Answer,
}

/// What `poll` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// POLLHUP: no frame is at the position.
    Gone,
    /// POLLIN and POLLRDNORM: a whole frame is at the position.
    Ready,
    /// Nothing yet: the position is the write pointer.
    Waits,
}

/// What the header in front of a position says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Misaligned,
    /// There is no header: overwritten, or never a frame's start.
    Gone,
    /// The write pointer, or a frame that is not acquired yet.
    Pending,
    Whole {
        length: u32,
    },
}

impl Place {
    /// As most commands check it before they do anything.
    fn is_valid(self) -> bool {
        matches!(self, Self::Pending | Self::Whole { .. })
    }
}

/// The devices of one channel.
#[derive(Debug)]
pub struct Node {
    ring: RingView,
    registers: RegisterView,
    firmware: Firmware,
    epoch: u64,
    /// The position that SETP leaves for TORP, for all programs together.
    read_pointer: u64,
}

/// What the interrupt handler of the camera has published.
#[derive(Debug, Clone, Copy)]
struct Published {
    write_pointer: u64,
    frames: u64,
}

impl Node {
    /// Maps the camera's ring and register page, to read them. The ring has to be stamped.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn new(file: &RingFile, firmware: Firmware) -> Result<Self, RingFileError> {
        let (ring, registers) = file.map_to_read()?;
        let (ring, registers) = (RingView::new(ring), RegisterView::new(registers));
        Ok(Self { ring, registers, firmware, epoch: 0, read_pointer: 0 })
    }

    /// Size of the ring in bytes, which is the size of the device.
    #[must_use]
    pub fn ring_bytes(&self) -> u64 {
        self.ring.bytes()
    }

    /// `lseek(fd, offset, whence)` on an open file of the ring at `position`, at most the ring's
    /// size.
    pub fn seek(&mut self, position: u64, offset: i64, whence: i32) -> Sought {
        let published = self.published();
        let at = |position| Sought { position, answer: Answer::Is(position) };
        match (whence, offset) {
            (SEEK_SET, to) => at(self.rolled(to.into())),
            (SEEK_CUR, 0) => match self.place(position, published).is_valid() {
                true => at(self.rolled(position.into())),
                false => fails(position, Errno::EINVAL),
            },
            (SEEK_CUR, by) => at(self.rolled(i128::from(position) + i128::from(by))),
            // Here alone the ring's size stays what it is.
            (SEEK_END, 0) => at(self.ring_bytes()),
            (SEEK_END, ..0) => at(self.rolled(offset.into())),
            (SEEK_END, command) => self.command(position, command, published),
            _ => fails(position, Errno::EINVAL),
        }
    }

    /// What `poll` tells about an open file of the ring at `position`.
    pub fn poll(&mut self, position: u64) -> Readiness {
        let published = self.published();
        match self.place(position, published) {
            Place::Misaligned | Place::Gone => Readiness::Gone,
            Place::Pending if position == published.write_pointer => Readiness::Waits,
            Place::Pending | Place::Whole { .. } => Readiness::Ready,
        }
    }

    /// `read` at `position`: bytes up to the end of the ring, as many as there are; none behind it.
    #[must_use]
    pub fn read(&self, position: u64, out: &mut [u8]) -> usize {
        let bytes = out.len().min(self.ring_bytes().saturating_sub(position) as usize);
        let from = match self.firmware {
            Firmware::Nc353 => position,
            Firmware::Nc393 => position & !3,
        };
        self.ring.copy(from, &mut out[..bytes]);
        bytes
    }

    /// Whether `read` at `position` gives other bytes than those that stand there.
    #[must_use]
    pub fn is_read_shifted(&self, position: u64) -> bool {
        self.firmware == Firmware::Nc393 && !position.is_multiple_of(4)
    }

    fn command(&mut self, position: u64, command: i64, published: Published) -> Sought {
        let at = |position| Sought { position, answer: Answer::Is(position) };
        let write_pointer = published.write_pointer;
        match command {
            command::LSEEK_CIRC_TORP => self.checked(self.read_pointer, published, Node::stays),
            command::LSEEK_CIRC_TOWP => at(write_pointer),
            command::LSEEK_CIRC_PREV => {
                self.checked(position, published, |node, from| node.to_previous(from, published))
            }
            command::LSEEK_CIRC_NEXT => self.to_next(position, published),
            command::LSEEK_CIRC_LAST => {
                at(self.previous(write_pointer, published).unwrap_or(write_pointer))
            }
            command::LSEEK_CIRC_FIRST => at(self.oldest_two(published).0),
            command::LSEEK_CIRC_SCND => at(self.oldest_two(published).1),
            command::LSEEK_CIRC_SETP => {
                let sought = self.checked(position, published, Node::stays);
                if sought.answer == Answer::Is(position) {
                    self.read_pointer = position;
                }
                sought
            }
            command::LSEEK_CIRC_VALID => self.checked(position, published, Node::stays),
            command::LSEEK_CIRC_READY => match self.place(position, published) {
                Place::Whole { .. } => at(position),
                _ => fails(position, Errno::EINVAL),
            },
            command::LSEEK_CIRC_WAIT => self.wait(position, published),
            command::LSEEK_CIRC_FREE => self.checked(position, published, |node, position| {
                at(node.free(position, write_pointer))
            }),
            command::LSEEK_CIRC_USED => self.checked(position, published, |node, position| {
                at(node.used(position, write_pointer))
            }),
            command::LSEEK_CIRC_GETFRAME if self.firmware == Firmware::Nc393 => {
                Sought { position, answer: Answer::Is(published.frames.saturating_sub(1)) }
            }
            _ => at(position),
        }
    }

    /// What `then` makes of `position`, or EINVAL there if nothing valid is at it.
    fn checked(
        &self,
        position: u64,
        published: Published,
        then: impl FnOnce(&Self, u64) -> Sought,
    ) -> Sought {
        match self.place(position, published).is_valid() {
            true => then(self, position),
            false => fails(position, Errno::EINVAL),
        }
    }

    fn stays(&self, position: u64) -> Sought {
        Sought { position, answer: Answer::Is(position) }
    }

    fn to_previous(&self, position: u64, published: Published) -> Sought {
        match self.previous(position, published) {
            Some(previous) => self.stays(previous),
            None => fails(position, Errno::EOVERFLOW),
        }
    }

    fn to_next(&self, position: u64, published: Published) -> Sought {
        match self.place(position, published) {
            Place::Misaligned | Place::Gone => fails(position, Errno::EINVAL),
            Place::Pending => fails(position, Errno::EOVERFLOW),
            Place::Whole { length } => {
                // Not wrapped where it is just the ring's size.
                let next = position + slot_bytes(length);
                let over = next > self.ring_bytes();
                self.stays(if over { next % self.ring_bytes() } else { next })
            }
        }
    }

    fn wait(&self, position: u64, published: Published) -> Sought {
        match self.place(position, published) {
            Place::Misaligned | Place::Gone => fails(position, Errno::ESPIPE),
            Place::Pending => Sought { position, answer: Answer::Waits },
            Place::Whole { .. } => self.stays(position),
        }
    }

    fn free(&self, position: u64, write_pointer: u64) -> u64 {
        let free = position + self.ring_bytes() - write_pointer;
        if position > write_pointer { free - self.ring_bytes() } else { free }
    }

    fn used(&self, position: u64, write_pointer: u64) -> u64 {
        let used = write_pointer + self.ring_bytes() - position;
        let is_behind = match self.firmware {
            Firmware::Nc353 => write_pointer > position,
            Firmware::Nc393 => write_pointer >= position,
        };
        if is_behind { used - self.ring_bytes() } else { used }
    }

    /// Start of the frame whose trailer ends in front of the gap in front of `position`.
    fn previous(&self, position: u64, published: Published) -> Option<u64> {
        let gap = position + self.ring_bytes() - GAP_BYTES as u64;
        let trailer = self.ring.chunk_before(gap);
        let [length @ .., marker] = trailer[CHUNK_BYTES - 4..].first_chunk::<4>()?;
        if *marker != TRAILER_MARKER {
            return None;
        }
        let slot = slot_bytes(u32::from_le_bytes([length[0], length[1], length[2], 0]));
        let start = match position >= slot {
            true => position - slot,
            false => (position + self.ring_bytes()).checked_sub(slot)?,
        };
        self.place(start, published).is_valid().then_some(start)
    }

    /// Starts of the oldest frame that the chain of trailers leads to from the write pointer, and
    /// of the next one; the write pointer stands for those that are not there. The chain may pass
    /// the beginning of the ring once.
    fn oldest_two(&self, published: Published) -> (u64, u64) {
        let (mut first, mut second) = (published.write_pointer, published.write_pointer);
        let mut has_wrapped = false;
        while let Some(older) = self.previous(first, published) {
            let wraps = older > first;
            if (wraps && has_wrapped) || self.place(older, published) == Place::Pending {
                break;
            }
            has_wrapped |= wraps;
            (first, second) = (older, first);
        }
        (first, second)
    }

    /// The test that stands in front of everything: alignment, the write pointer, the signature,
    /// the length, in this order.
    fn place(&self, position: u64, published: Published) -> Place {
        if !position.is_multiple_of(CHUNK_BYTES as u64) {
            return Place::Misaligned;
        }
        if position == published.write_pointer {
            return Place::Pending;
        }
        let header = self.ring.chunk_before(position);
        if header[SIGNATURE_OFFSET..LENGTH] != SIGNATURE.to_le_bytes() {
            return Place::Gone;
        }
        match *header[LENGTH..].first_chunk().expect("four bytes are left") {
            [low, mid, high, 0] => Place::Whole { length: u32::from_le_bytes([low, mid, high, 0]) },
            _ => Place::Pending,
        }
    }

    /// Where the write pointer is. After a restart of the camera the read pointer is 0 again.
    fn published(&mut self) -> Published {
        let progress = self.registers.progress();
        if std::mem::replace(&mut self.epoch, progress.epoch) != progress.epoch {
            self.read_pointer = 0;
        }
        let ring_bytes = self.ring_bytes();
        let write_pointer = match (self.firmware, progress.complete) {
            (Firmware::Nc393, complete) => complete % ring_bytes,
            (Firmware::Nc353, 0) => 0,
            (Firmware::Nc353, complete) => (complete - 1) % ring_bytes + 1,
        };
        Published { write_pointer, frames: progress.frames }
    }

    /// Brought into the ring by adding or taking away its size.
    fn rolled(&self, offset: i128) -> u64 {
        offset.rem_euclid(self.ring_bytes().into()) as u64
    }
}

fn fails(position: u64, errno: Errno) -> Sought {
    Sought { position, answer: Answer::Fails(errno) }
}

/// Distance from one frame's start to the next, as the camera's kernel computes it.
fn slot_bytes(length: u32) -> u64 {
    (u64::from(length) + 15) / 32 * 32 + 64
}

#[cfg(test)]
mod tests;
