//! A camera for the driver's own tests, written plainly from the drawing in `circbuf_abi::ring`: it puts
//! frames and registers into files, one byte string at a time, and knows nothing of the driver.

use std::fs::File;
use std::os::unix::fs::FileExt;

use circbuf_abi::registers as reg;

use crate::device::Device;

pub(crate) struct HandCamera {
    pub(crate) ring: File,
    pub(crate) page: File,
    pub(crate) ring_bytes: u64,
    pub(crate) stamps: bool,
    pub(crate) zeroes_gap: bool,
    /// Cursor of the next frame's start.
    pub(crate) next: u64,
    pub(crate) frames: u64,
    pub(crate) time_us: u64,
}

impl HandCamera {
    pub(crate) fn new(ring_bytes: u64, stamps: bool) -> HandCamera {
        let (ring, page) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        ring.set_len(ring_bytes).unwrap();
        page.set_len(4096).unwrap();
        let camera = HandCamera {
            ring,
            page,
            ring_bytes,
            stamps,
            zeroes_gap: true,
            next: 0,
            frames: 0,
            time_us: 1_000_000_000_000_000,
        };
        camera.register(reg::MAGIC, reg::MAGIC_VALUE);
        camera.page.write_all_at(&1u32.to_le_bytes(), reg::VERSION as u64).unwrap();
        camera.register(reg::RING_BYTES, ring_bytes);
        camera.register(reg::MAX_SLOT_BYTES, ring_bytes / 4 / 32 * 32);
        let flags = u32::from(stamps);
        camera.page.write_all_at(&flags.to_le_bytes(), reg::FLAGS as u64).unwrap();
        camera
    }

    pub(crate) fn device(&self) -> Device {
        Device::from_fds(&self.ring, Some(&self.page)).unwrap()
    }

    pub(crate) fn device_without_registers(&self) -> Device {
        Device::from_fds(&self.ring, None::<File>).unwrap()
    }

    pub(crate) fn register(&self, offset: usize, value: u64) {
        self.page.write_all_at(&value.to_le_bytes(), offset as u64).unwrap();
    }

    /// Writes at a cursor, wrapping.
    pub(crate) fn put(&self, cursor: u64, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            let offset = (cursor + index as u64) % self.ring_bytes;
            self.ring.write_all_at(&[*byte], offset).unwrap();
        }
    }

    /// A payload that tells the frame's number and contains FF 00.
    pub(crate) fn payload(number: u64, length: usize) -> Vec<u8> {
        let pattern = [number as u8 & 0x7F, 0xFF, 0x00, (number >> 7) as u8 & 0x7F, 0x11];
        let mut payload: Vec<u8> = pattern.iter().copied().cycle().take(length).collect();
        if payload.last() == Some(&0xFF) {
            *payload.last_mut().unwrap() = 0x22;
        }
        payload
    }

    pub(crate) fn emit(&mut self, length: usize) {
        self.emit_payload(&HandCamera::payload(self.frames, length));
    }

    /// The byte at a cursor.
    pub(crate) fn byte(&self, cursor: u64) -> u8 {
        let mut byte = [0];
        self.ring.read_exact_at(&mut byte, cursor % self.ring_bytes).unwrap();
        byte[0]
    }

    /// A whole frame: bytes, stamp, counters.
    pub(crate) fn emit_payload(&mut self, payload: &[u8]) {
        self.emit_and(payload, |_| {});
    }

    /// The same, with something done to it before the counters tell of it.
    pub(crate) fn emit_and(&mut self, payload: &[u8], before_told: impl FnOnce(&HandCamera)) {
        let start = self.next;
        let mut bytes = payload.to_vec();
        bytes.extend([0; 4]);
        while bytes.len() % 32 != 20 {
            bytes.push(0);
        }
        self.time_us += 10_000;
        bytes.extend(((self.time_us / 1_000_000) as u32).to_le_bytes());
        bytes.extend(((self.time_us % 1_000_000) as u32).to_le_bytes());
        bytes.extend((payload.len() as u32 | 0xFF00_0000).to_le_bytes());
        let end = start + bytes.len() as u64;
        self.register(reg::RESERVED, end + 32);
        self.put(start, &bytes);
        if self.zeroes_gap {
            self.put(end, &[0; 32]);
        }
        self.register(reg::WRITTEN, end + 32);
        if self.stamps {
            self.stamp(start, payload.len());
        }
        before_told(self);
        self.next = end + 32;
        self.frames += 1;
        self.publish();
    }

    pub(crate) fn stamp(&self, start: u64, length: usize) {
        let mut header = [0; 32];
        header[16..24].copy_from_slice(&[80, 80, 0, 0, 0x40, 0, 0x30, 0]);
        header[26..28].fill(0xFF);
        header[28..32].copy_from_slice(&(length as u32).to_le_bytes());
        self.put(start + self.ring_bytes - 32, &header);
    }

    pub(crate) fn publish(&self) {
        self.register(reg::COMPLETE, self.next);
        self.register(reg::FRAMES, self.frames);
    }

    /// Goes on as if the last frame had ended at this cursor.
    pub(crate) fn begin_at(&mut self, cursor: u64) {
        self.next = cursor;
        if cursor >= 64 {
            self.frames = self.frames.max(1);
            self.put(cursor - 44, &[7, 0, 0, 0, 7, 0, 0, 0, 16, 0, 0, 0xFF]);
        }
        self.register(reg::RESERVED, cursor);
        self.register(reg::WRITTEN, cursor);
        self.publish();
    }
}
