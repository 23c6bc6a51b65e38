//! Images of a ring that is written while they are taken.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use circbuf_abi::registers::{
    MAGIC, MAGIC_VALUE, PAGE_BYTES, RESERVED, RING_BYTES, VERSION, VERSION_VALUE, WRITTEN,
};
use circbuf_driver::forensics::Found;
use circbuf_driver::ring::{FrameHeader, Geometry, padded, slot};
use circbuf_tools::ring_file::RingCopy;
use circbuf_tools::save;

const RING: u64 = 1 << 20;

/// Every byte of the payload tells the frame's number, and so does its time.
fn payload_byte(number: u32) -> u8 {
    (number % 251) as u8 + 1
}

/// A camera that writes files, with its counters in the order in which the driver relies on them.
struct Camera {
    ring: File,
    registers: File,
    cursor: u64,
}

impl Camera {
    fn new(path: &Path) -> Camera {
        let create = |path: &Path| {
            OpenOptions::new().write(true).create_new(true).open(path).expect("a new file")
        };
        let (ring, registers) = (create(path), create(&path.with_extension("regs")));
        ring.set_len(RING).expect("room for the ring");
        let mut page = [0; PAGE_BYTES];
        page[VERSION..VERSION + 4].copy_from_slice(&VERSION_VALUE.to_le_bytes());
        page[MAGIC..MAGIC + 8].copy_from_slice(&MAGIC_VALUE.to_le_bytes());
        page[RING_BYTES..RING_BYTES + 8].copy_from_slice(&RING.to_le_bytes());
        registers.write_all_at(&page, 0).expect("room for the page");
        Camera { ring, registers, cursor: 0 }
    }

    fn tell(&self, field: usize, value: u64) {
        self.registers.write_all_at(&value.to_le_bytes(), field as u64).expect("the page is there");
    }

    fn put(&self, cursor: u64, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(4096).enumerate() {
            let offset = (cursor + index as u64 * 4096) % RING;
            let (before, behind) = chunk.split_at(chunk.len().min((RING - offset) as usize));
            self.ring.write_all_at(before, offset).expect("the ring is there");
            self.ring.write_all_at(behind, 0).expect("the ring is there");
        }
    }

    fn frame(&mut self, number: u32) {
        let length = 1 + number * 7919 % 150_000;
        let mut bytes = vec![0; slot(length) as usize];
        bytes[..length as usize].fill(payload_byte(number));
        let trailer = &mut bytes[padded(length) as usize - 12..][..12];
        trailer[..4].copy_from_slice(&number.to_le_bytes());
        trailer[8..].copy_from_slice(&(0xFF00_0000 | length).to_le_bytes());
        self.tell(RESERVED, self.cursor + slot(length));
        self.put(self.cursor, &bytes);
        let header = FrameHeader::synthesise(Geometry::default(), length);
        self.put(self.cursor + RING - 32, &header.0);
        self.cursor += slot(length);
        self.tell(WRITTEN, self.cursor);
    }
}

fn assert_true(ring: &[u8], found: &Found) {
    let number = found.time.expect("a sound frame has a trailer").sec;
    for at in 0..u64::from(found.length) {
        let byte = ring[((found.start + at) % RING) as usize];
        assert_eq!(byte, payload_byte(number), "byte {at} of {found:?}");
    }
}

#[test]
fn what_is_sound_in_an_image_is_one_frame_however_fast_the_camera_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ring");
    let mut camera = Camera::new(&path);
    (0..20).for_each(|number| camera.frame(number));
    let is_done = AtomicBool::new(false);
    let mut sound = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (20..).take_while(|_| !is_done.load(Ordering::Relaxed)).for_each(|n| camera.frame(n));
        });
        for _ in 0..300 {
            let image = RingCopy::read(&path).and_then(|copy| copy.into_image(&path));
            let image = image.expect("the ring is there");
            let found = image.frames();
            let whole = found.iter().filter(|found| found.is_sound());
            whole.for_each(|found| {
                assert_true(image.bytes(), found);
                sound += 1;
            });
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let to = dir.path().join("image");
    save::save(&path, &to).expect("room for the image");
    let saved = RingCopy::read(&to).and_then(|copy| copy.into_image(&to)).expect("an image");
    sound += saved.frames().iter().filter(|found| found.is_sound()).count();
    assert!(sound > 0, "at rest there is at least one");
}
