//! A client of vfio-user, as much of it as a camera needs. It believes no reply that it has not
//! checked: number, command, size and error flag.

mod region;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use circbuf_abi::pci::{BAR_BYTES, REGISTER_BAR, STATUS_BAR, VECTORS, config};
use nix::sys::eventfd::EventFd;

use super::memory::DmaMemory;
use super::transport::Space;
use super::wire::{HEADER_BYTES, Header, Wire};
use crate::mapping::Mapping;
use region::Region;

const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const DMA_UNMAP: u16 = 3;
const DEVICE_GET_INFO: u16 = 4;
const DEVICE_GET_REGION_INFO: u16 = 5;
const SET_IRQS: u16 = 8;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;

const FLAG_TYPE: u32 = 0xF;
const FLAG_REPLY: u32 = 1;
const FLAG_NO_REPLY: u32 = 1 << 4;
const FLAG_ERROR: u32 = 1 << 5;

const DEVICE_FLAG_PCI: u32 = 1 << 1;
const DMA_READ_WRITE: u32 = 3;
const IRQ_DATA_EVENTFD: u32 = 1 << 2;
const IRQ_ACTION_TRIGGER: u32 = 1 << 5;

/// Index of the MSI-X interrupts, and of configuration space among the regions, as VFIO has them.
const IRQ_MSIX: u32 = 2;
const REGION_CONFIG: u32 = 7;

/// No reply of a well-behaved server is longer.
const REPLY_BYTES_MAX: usize = 64 << 10;

/// How long a server may take for each answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What this client can do, told at the beginning.
const CAPABILITIES: &[u8] =
    b"{\"capabilities\":{\"max_msg_fds\":1,\"max_data_xfer_size\":1048576}}\0";

/// A PCI function at the other end of a socket.
#[derive(Debug)]
pub(super) struct VfioUser {
    connection: Mutex<Connection>,
}

/// The connection, and where it is in its conversation.
#[derive(Debug)]
struct Connection {
    wire: Wire,
    id: u16,
    /// What it failed of first: after an answer that is none, nothing that comes can be told from the rest
    /// of it.
    broken: Option<(io::ErrorKind, String)>,
}

/// The answer to a request.
#[derive(Debug)]
struct Reply {
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl VfioUser {
    /// Connects to the server, and looks whether it has a PCI device with the spaces that are needed.
    pub(super) fn connect(path: &Path) -> io::Result<VfioUser> {
        VfioUser::connect_within(path, PATIENCE)
    }

    fn connect_within(path: &Path, patience: Duration) -> io::Result<VfioUser> {
        let wire = Wire::connect(path, patience)?;
        let connection = Mutex::new(Connection { wire, id: 0, broken: None });
        let server = VfioUser { connection };
        server.agree_on_version()?;
        server.check_device()?;
        Ok(server)
    }

    fn agree_on_version(&self) -> io::Result<()> {
        // Version 0.1 of the protocol, major and minor.
        let reply = self.request(VERSION, &[&[0, 0, 1, 0], CAPABILITIES].concat(), &[])?;
        match reply.body.get(..2) {
            Some([0, 0]) => Ok(()),
            Some([low, high]) => Err(odd(format!(
                "it speaks version {} of vfio-user, this driver speaks 0",
                u16::from_le_bytes([*low, *high])
            ))),
            _ => Err(odd("it tells no version of vfio-user")),
        }
    }

    fn check_device(&self) -> io::Result<()> {
        let reply = self.request(DEVICE_GET_INFO, &words(&[16, 0, 0, 0]), &[])?;
        let [_, flags, regions, _] = u32s(&reply.body)?;
        if flags & DEVICE_FLAG_PCI == 0 || regions <= REGION_CONFIG {
            return Err(odd("it serves no PCI device"));
        }
        for (index, bytes) in [
            (REGISTER_BAR as u32, BAR_BYTES),
            (STATUS_BAR as u32, BAR_BYTES),
            (REGION_CONFIG, config::MSIX as u64),
        ] {
            let found = self.region(index)?.bytes;
            if found < bytes {
                return Err(odd(format!("its region {index} has {found} bytes, not {bytes}")));
            }
        }
        Ok(())
    }

    pub(super) fn read(&self, space: Space, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let request = access(space, offset, bytes.len());
        let reply = self.request(REGION_READ, &request, &[])?;
        match reply.body.strip_prefix(&request[..]) {
            Some(read) if read.len() == bytes.len() => {
                bytes.copy_from_slice(read);
                Ok(())
            }
            _ => Err(odd("it answers another read than was asked for")),
        }
    }

    pub(super) fn write(&self, space: Space, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let access = access(space, offset, bytes.len());
        let reply = self.request(REGION_WRITE, &[&access, bytes].concat(), &[])?;
        match reply.body == access {
            true => Ok(()),
            false => Err(odd("it answers another write than was asked for")),
        }
    }

    pub(super) fn post(&self, space: Space, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let body = [&access(space, offset, bytes.len()), bytes].concat();
        self.open().send(REGION_WRITE, FLAG_NO_REPLY, &body, &[])
    }

    pub(super) fn map_dma(&self, iova: u64, memory: &DmaMemory) -> io::Result<()> {
        let mut body = words(&[32, DMA_READ_WRITE]);
        for word in [0, iova, memory.bytes()] {
            body.extend_from_slice(&word.to_le_bytes());
        }
        self.request(DMA_MAP, &body, &[memory.as_fd().as_raw_fd()]).map(drop)
    }

    pub(super) fn unmap_dma(&self, iova: u64, bytes: u64) -> io::Result<()> {
        let mut body = words(&[24, 0]);
        for word in [iova, bytes] {
            body.extend_from_slice(&word.to_le_bytes());
        }
        self.request(DMA_UNMAP, &body, &[]).map(drop)
    }

    pub(super) fn status_page(&self) -> io::Result<Mapping> {
        let region = self.region(STATUS_BAR as u32)?;
        let (file, offset) = region.mappable(BAR_BYTES)?;
        Mapping::at(&file, offset, BAR_BYTES as usize)
    }

    pub(super) fn set_interrupts(&self, events: &[&EventFd]) -> io::Result<()> {
        assert!(events.len() <= VECTORS, "an event for each vector at most");
        let flags = IRQ_DATA_EVENTFD | IRQ_ACTION_TRIGGER;
        let fds: Vec<RawFd> = events.iter().map(|event| event.as_raw_fd()).collect();
        self.request(SET_IRQS, &words(&[20, flags, IRQ_MSIX, 0, fds.len() as u32]), &fds).map(drop)
    }

    fn region(&self, index: u32) -> io::Result<Region> {
        let reply = self.request(DEVICE_GET_REGION_INFO, &Region::request(index), &[])?;
        Region::parse(index, &reply.body, reply.fds)
    }

    fn request(&self, command: u16, body: &[u8], fds: &[RawFd]) -> io::Result<Reply> {
        let mut connection = self.open();
        connection.send(command, 0, body, fds)?;
        // A refusal is an answer; anything else that is wrong leaves the conversation nowhere.
        let reply = connection.receive(command);
        reply.inspect_err(|error| connection.note(error))?
    }

    fn open(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn send(&mut self, command: u16, flags: u32, body: &[u8], fds: &[RawFd]) -> io::Result<()> {
        if let Some((kind, why)) = &self.broken {
            return Err(io::Error::new(*kind, why.clone()));
        }
        self.id = self.id.wrapping_add(1);
        let message_bytes = (HEADER_BYTES + body.len()) as u32;
        let header = Header { id: self.id, command, message_bytes, flags, errno: 0 };
        let sent = self.wire.send(&[&header.to_bytes(), body].concat(), fds);
        sent.inspect_err(|error| self.note(error))
    }

    fn note(&mut self, error: &io::Error) {
        self.broken = Some((error.kind(), error.to_string()));
    }

    /// The answer to the request that was sent last: the outer error is that of the conversation, the
    /// inner one the server's refusal.
    fn receive(&mut self, command: u16) -> io::Result<io::Result<Reply>> {
        let (header, fds) = loop {
            let (header, fds) = self.wire.header()?;
            // A write that was posted is answered if it failed.
            let is_late = header.id != self.id
                && header.command == REGION_WRITE
                && header.flags & FLAG_ERROR != 0
                && header.message_bytes as usize == HEADER_BYTES;
            if !is_late {
                break (header, fds);
            }
            log::debug!("a posted write was refused");
        };
        let Header { id, message_bytes, flags, errno, .. } = header;
        if (id, header.command, flags & FLAG_TYPE) != (self.id, command, FLAG_REPLY) {
            return Err(odd(format!("it answers {header:?} to request {} of {command}", self.id)));
        }
        let body_bytes = (message_bytes as usize)
            .checked_sub(HEADER_BYTES)
            .filter(|&bytes| bytes <= REPLY_BYTES_MAX)
            .ok_or_else(|| odd(format!("it announces an answer of {message_bytes} bytes")))?;
        let mut body = vec![0; body_bytes];
        self.wire.body(&mut body)?;
        Ok(match flags & FLAG_ERROR {
            0 => Ok(Reply { body, fds }),
            _ => Err(refusal(errno)),
        })
    }
}

/// Some servers refuse without a number.
fn refusal(errno: u32) -> io::Error {
    match i32::try_from(errno) {
        Ok(errno @ 1..) => io::Error::from_raw_os_error(errno),
        _ => io::Error::other("the server refuses, and does not say why"),
    }
}

fn odd(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// What an access to a region begins with.
fn access(space: Space, offset: u64, bytes: usize) -> Vec<u8> {
    let region = match space {
        Space::Config => REGION_CONFIG,
        Space::Registers => REGISTER_BAR as u32,
    };
    [&offset.to_le_bytes()[..], &words(&[region, bytes as u32])].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The first words of a reply.
fn u32s<const N: usize>(body: &[u8]) -> io::Result<[u32; N]> {
    let (whole, _) = body.as_chunks();
    let words: Option<&[[u8; 4]; N]> = whole.first_chunk();
    words
        .map(|words| words.map(u32::from_le_bytes))
        .ok_or_else(|| odd(format!("its answer of {} bytes is too short", body.len())))
}

#[cfg(test)]
mod tests;
