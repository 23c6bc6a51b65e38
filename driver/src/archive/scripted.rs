//! For tests: an engine whose writes complete, or fail, when and in the order that a test says,
//! and frames made without a ring.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use byteorder::{ByteOrder, LittleEndian};

use super::engine::{Completion, Reap, Write};
use crate::frame::Frame;
use crate::record::{
    PAYLOAD_OFFSET, RECORD_HEADER_BYTES, RecordHeader, RecordKind, frame_body_bytes,
};
use crate::ring::{FrameHeader, Geometry, Timestamp, padded};
use crate::slab::SlabPool;

/// What the engine is told.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Writes stay in flight until their tickets are released or someone waits.
    pub(super) hold: bool,
    pub(super) release: VecDeque<u64>,
    /// Whoever waits, waits until this is over.
    pub(super) stall: bool,
    /// Writes with these tickets fail with this error number.
    pub(super) fail: Vec<(u64, i32)>,
    /// Everything fails.
    pub(super) broken: bool,
    /// The engine itself fails; what is in flight is lost sight of.
    pub(super) collapse: bool,
}

/// The engine.
#[derive(Debug)]
pub(super) struct Scripted {
    held: Vec<Write>,
    script: Arc<Mutex<Script>>,
}

impl Scripted {
    pub(super) fn new(script: &Arc<Mutex<Script>>) -> Scripted {
        Scripted { held: Vec::new(), script: Arc::clone(script) }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.held.len()
    }

    pub(super) fn submit(&mut self, write: Write) {
        let (bytes, offset) = write.rest();
        write.file().begun(bytes, offset);
        self.held.push(write);
    }

    pub(super) fn reap(&mut self, how: Reap, completions: &mut Vec<Completion>) -> io::Result<()> {
        while how == Reap::Wait && self.script.lock().unwrap().stall {
            std::thread::yield_now();
        }
        let (hold, released) = {
            let mut script = self.script.lock().unwrap();
            if script.collapse && !self.held.is_empty() {
                return Err(io::Error::from_raw_os_error(libc::EBADF));
            }
            (script.hold, std::mem::take(&mut script.release))
        };
        let mut ready: Vec<u64> = released.into();
        if !hold {
            ready.extend(self.held.iter().map(|write| write.ticket));
        } else if how == Reap::Wait && ready.is_empty() {
            // The latest first: the worst order there is.
            ready.extend(self.held.last().map(|write| write.ticket));
        }
        for ticket in ready {
            let Some(place) = self.held.iter().position(|write| write.ticket == ticket) else {
                continue;
            };
            let write = self.held.remove(place);
            let script = self.script.lock().unwrap();
            let failure = script.fail.iter().find(|(failing, _)| *failing == ticket);
            let failure = failure.map(|(_, errno)| *errno);
            completions.push(match failure.or(script.broken.then_some(libc::EIO)) {
                Some(errno) => {
                    Completion { ticket, result: Err(io::Error::from_raw_os_error(errno)) }
                }
                None => write.perform(),
            });
        }
        Ok(())
    }
}

/// Session of all frames that are made here.
pub(super) const SESSION: u64 = 0x5E55_1011;

/// A whole frame with this number and payload length; its content follows from both.
pub(super) fn frame(pool: &SlabPool, sequence: u64, length: u32) -> Frame {
    let header = RecordHeader {
        kind: RecordKind::Frame,
        synthesised: false,
        camera: 1,
        length,
        sequence,
        epoch: 0,
        cursor: sequence * 64,
        realtime_ns: 1_000 + sequence,
        monotonic_ns: 10 + sequence,
        lost_before: 0,
        session: SESSION,
    };
    let time = Timestamp { sec: 1_000_000 + sequence as u32, usec: 999_999 };
    let mut slab = pool.take(header.record_bytes()).expect("the pool is large enough");
    slab[..RECORD_HEADER_BYTES + frame_body_bytes(length)].fill(0);
    let geometry = Geometry { width: 64, height: 48, quality2: 0x5050, color_mode: 0 };
    let stamp = FrameHeader::synthesise(geometry, length).0;
    slab[RECORD_HEADER_BYTES..PAYLOAD_OFFSET].copy_from_slice(&stamp);
    for (at, byte) in slab[PAYLOAD_OFFSET..][..length as usize].iter_mut().enumerate() {
        *byte = (at as u64 * 7 + sequence) as u8 & 0x7F;
    }
    let trailer = PAYLOAD_OFFSET + padded(length) as usize - 12;
    LittleEndian::write_u32(&mut slab[trailer..], time.sec);
    LittleEndian::write_u32(&mut slab[trailer + 4..], time.usec);
    LittleEndian::write_u32(&mut slab[trailer + 8..], 0xFF00_0000 | length);
    let body = &slab[RECORD_HEADER_BYTES..][..frame_body_bytes(length)];
    let body_crc = crc_fast::crc32_iscsi(body);
    Frame::seal(slab, header, time, Some(body_crc))
}
