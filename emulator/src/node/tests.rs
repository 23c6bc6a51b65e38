//! Every command in every situation, with both cameras' answers computed by hand from what is known
//! of their kernels.
use super::*;
use circbuf_abi::node::*;

use crate::fpga::{Fpga, Progress, Setup};
use crate::model::{FrameTime, Gap, Geometry, Picture};
use crate::rebuild;
use Firmware::{Nc353, Nc393};

const RING: u64 = 4096;

/// A ring of 4096 bytes into which frames of these lengths were written; a frame of `len` takes
/// `(len + 15) / 32 * 32 + 64` bytes.
struct Written {
    fpga: Fpga,
    frames: u32,
}

impl Written {
    fn lengths(lengths: &[usize]) -> Self {
        let geometry = Geometry { width: 64, height: 48, quality2: 80, color_mode: 0 };
        let (gap, stamped) = (Gap::Zero, true);
        let setup = Setup { gap, stamped, payload_bytes_max: 976, geometry, frame_period_ns: 0 };
        let fpga = Fpga::new(RingFile::memfd(RING).unwrap(), setup).unwrap();
        let mut written = Self { fpga, frames: 0 };
        lengths.iter().for_each(|length| written.frame(*length));
        written
    }

    fn frame(&mut self, length: usize) {
        let payload = vec![0x55; length];
        self.begin(&payload);
        while self.fpga.step(&payload, 4096) == Progress::Writing {}
    }

    fn begin(&mut self, payload: &[u8]) {
        let (quality2, color_mode) = (0x4650, 0);
        let picture =
            Picture { payload, crc32c: None, quality2, color_mode, width: 2048, height: 1536 };
        self.frames += 1;
        self.fpga.begin(&picture, FrameTime { sec: self.frames, usec: 5 }).unwrap();
    }

    fn node(&self, firmware: Firmware) -> Node {
        Node::new(self.fpga.file(), firmware).unwrap()
    }
}

/// Frames at 0, 160 and 256; the write pointer is 512.
fn three() -> Written {
    Written::lengths(&[100, 17, 200])
}

/// Four frames of 1024 bytes fill the ring exactly.
fn full() -> Written {
    Written::lengths(&[960; 4])
}

/// As [`full`], and then a short frame at 0 that takes 160 bytes.
fn lapped() -> Written {
    let mut written = full();
    written.frame(100);
    written
}

const TO: fn(u64) -> Sought = |to| Sought { position: to, answer: Answer::Is(to) };

fn stays(position: u64, errno: Errno) -> Sought {
    fails(position, errno)
}

fn waits(position: u64) -> Sought {
    Sought { position, answer: Answer::Waits }
}

/// Each row: position, command, and what comes of it.
#[track_caller]
fn holds(written: &Written, firmwares: &[Firmware], rows: &[(u64, i64, Sought)]) {
    for &firmware in firmwares {
        for &(position, command, expected) in rows {
            let sought = written.node(firmware).seek(position, command, SEEK_END);
            assert_eq!(sought, expected, "{firmware:?}: command {command} at {position}");
        }
    }
}

const BOTH: [Firmware; 2] = [Nc353, Nc393];
use Errno::{EINVAL, EOVERFLOW, ESPIPE};

#[test]
fn the_ring_is_empty() {
    holds(
        &Written::lengths(&[]),
        &BOTH,
        &[
            (0, LSEEK_CIRC_TORP, TO(0)),
            (64, LSEEK_CIRC_TOWP, TO(0)),
            (0, LSEEK_CIRC_PREV, stays(0, EOVERFLOW)),
            (0, LSEEK_CIRC_NEXT, stays(0, EOVERFLOW)),
            (64, LSEEK_CIRC_LAST, TO(0)),
            (64, LSEEK_CIRC_FIRST, TO(0)),
            (64, LSEEK_CIRC_SCND, TO(0)),
            (0, LSEEK_CIRC_SETP, TO(0)),
            (0, LSEEK_CIRC_VALID, TO(0)),
            (0, LSEEK_CIRC_READY, stays(0, EINVAL)),
            (0, LSEEK_CIRC_WAIT, waits(0)),
            (0, LSEEK_CIRC_FREE, TO(RING)),
            (64, LSEEK_CIRC_VALID, stays(64, EINVAL)),
            (64, LSEEK_CIRC_WAIT, stays(64, ESPIPE)),
        ],
    );
    let empty = Written::lengths(&[]);
    holds(&empty, &[Nc393], &[(0, LSEEK_CIRC_USED, TO(0)), (0, LSEEK_CIRC_GETFRAME, TO(0))]);
    holds(&empty, &[Nc353], &[(0, LSEEK_CIRC_USED, TO(RING))]);
}

#[test]
fn at_the_write_pointer() {
    holds(
        &three(),
        &BOTH,
        &[
            (512, LSEEK_CIRC_PREV, TO(256)),
            (512, LSEEK_CIRC_NEXT, stays(512, EOVERFLOW)),
            (512, LSEEK_CIRC_LAST, TO(256)),
            (512, LSEEK_CIRC_FIRST, TO(0)),
            (512, LSEEK_CIRC_SCND, TO(160)),
            (512, LSEEK_CIRC_SETP, TO(512)),
            (512, LSEEK_CIRC_VALID, TO(512)),
            (512, LSEEK_CIRC_READY, stays(512, EINVAL)),
            (512, LSEEK_CIRC_WAIT, waits(512)),
            (512, LSEEK_CIRC_FREE, TO(RING)),
            (512, LSEEK_DAEMON_CIRCBUF + 3, TO(512)),
            // Without meaning: stop the compressor, tell microseconds, and one that is unknown.
            (512, 14, TO(512)),
            (512, 15, TO(512)),
            (512, 99, TO(512)),
        ],
    );
    let answers = Sought { position: 512, answer: Answer::Is(2) };
    holds(
        &three(),
        &[Nc393],
        &[(512, LSEEK_CIRC_GETFRAME, answers), (512, LSEEK_CIRC_USED, TO(0))],
    );
    holds(
        &three(),
        &[Nc353],
        &[(512, LSEEK_CIRC_GETFRAME, TO(512)), (512, LSEEK_CIRC_USED, TO(RING))],
    );
}

#[test]
fn at_frames() {
    holds(
        &three(),
        &BOTH,
        &[
            // The oldest one has no trailer in front.
            (0, LSEEK_CIRC_PREV, stays(0, EOVERFLOW)),
            (0, LSEEK_CIRC_NEXT, TO(160)),
            (160, LSEEK_CIRC_PREV, TO(0)),
            (160, LSEEK_CIRC_NEXT, TO(256)),
            (256, LSEEK_CIRC_NEXT, TO(512)),
            (160, LSEEK_CIRC_VALID, TO(160)),
            (160, LSEEK_CIRC_READY, TO(160)),
            (160, LSEEK_CIRC_WAIT, TO(160)),
            (160, LSEEK_CIRC_LAST, TO(256)),
            (160, LSEEK_CIRC_FREE, TO(160 + RING - 512)),
            (160, LSEEK_CIRC_USED, TO(512 - 160)),
            (160, LSEEK_CIRC_TORP, TO(0)),
        ],
    );
}

#[test]
fn where_no_frame_starts() {
    holds(
        &three(),
        &BOTH,
        &[
            // Misaligned, in the middle of a payload, and where nothing was ever written.
            (164, LSEEK_CIRC_VALID, stays(164, EINVAL)),
            (164, LSEEK_CIRC_WAIT, stays(164, ESPIPE)),
            (164, LSEEK_CIRC_FREE, stays(164, EINVAL)),
            (192, LSEEK_CIRC_READY, stays(192, EINVAL)),
            (192, LSEEK_CIRC_PREV, stays(192, EINVAL)),
            (192, LSEEK_CIRC_NEXT, stays(192, EINVAL)),
            (192, LSEEK_CIRC_SETP, stays(192, EINVAL)),
            (1024, LSEEK_CIRC_USED, stays(1024, EINVAL)),
            (1024, LSEEK_CIRC_WAIT, stays(1024, ESPIPE)),
            // These do not look at the position.
            (164, LSEEK_CIRC_TOWP, TO(512)),
            (192, LSEEK_CIRC_LAST, TO(256)),
            (192, LSEEK_CIRC_FIRST, TO(0)),
            (1024, 14, TO(1024)),
        ],
    );
}

/// The slot of the fourth frame ends at the end of the ring, and no frame has followed.
#[test]
fn the_wrap_is_exact() {
    // The 393's pointer is 0, and NEXT goes where nothing is valid.
    holds(
        &full(),
        &[Nc393],
        &[
            (7, LSEEK_CIRC_TOWP, TO(0)),
            (3072, LSEEK_CIRC_NEXT, TO(RING)),
            (RING, LSEEK_CIRC_VALID, stays(RING, EINVAL)),
            (RING, LSEEK_CIRC_WAIT, stays(RING, ESPIPE)),
            (0, LSEEK_CIRC_VALID, TO(0)),
            (0, LSEEK_CIRC_PREV, TO(3072)),
            (0, LSEEK_CIRC_USED, TO(0)),
            (3072, LSEEK_CIRC_USED, TO(1024)),
            (3072, LSEEK_CIRC_FREE, TO(3072)),
            // Where the write pointer is, the oldest frame was until now.
            (0, LSEEK_CIRC_FIRST, TO(1024)),
            (0, LSEEK_CIRC_SCND, TO(2048)),
        ],
    );
    // The 353's is the ring's size, as NEXT computes it, and 0 is another place: the frame there
    // has lost its header to the gap.
    holds(
        &full(),
        &[Nc353],
        &[
            (7, LSEEK_CIRC_TOWP, TO(RING)),
            (3072, LSEEK_CIRC_NEXT, TO(RING)),
            (RING, LSEEK_CIRC_VALID, TO(RING)),
            (RING, LSEEK_CIRC_WAIT, waits(RING)),
            (RING, LSEEK_CIRC_PREV, TO(3072)),
            (RING, LSEEK_CIRC_USED, TO(RING)),
            (RING, LSEEK_CIRC_FREE, TO(RING)),
            (0, LSEEK_CIRC_VALID, stays(0, EINVAL)),
            (3072, LSEEK_CIRC_FREE, TO(3072)),
            (0, LSEEK_CIRC_FIRST, TO(1024)),
            (0, LSEEK_CIRC_SCND, TO(2048)),
        ],
    );
}

#[test]
fn the_oldest_is_overwritten() {
    // Frames at 0 and from 256 on, 1024 bytes each, and one at 3328 that goes over the one at 0.
    holds(
        &Written::lengths(&[200, 960, 960, 960, 900]),
        &BOTH,
        &[
            (0, LSEEK_CIRC_TOWP, TO(192)),
            (0, LSEEK_CIRC_VALID, stays(0, EINVAL)),
            (0, LSEEK_CIRC_NEXT, stays(0, EINVAL)),
            (0, LSEEK_CIRC_WAIT, stays(0, ESPIPE)),
            (192, LSEEK_CIRC_LAST, TO(3328)),
            (192, LSEEK_CIRC_FIRST, TO(256)),
            (192, LSEEK_CIRC_SCND, TO(1280)),
            (3328, LSEEK_CIRC_NEXT, TO(192)),
            (256, LSEEK_CIRC_PREV, stays(256, EOVERFLOW)),
            (256, LSEEK_CIRC_FREE, TO(64)),
            (256, LSEEK_CIRC_USED, TO(RING + 192 - 256)),
        ],
    );
}

/// What makes a header untrustworthy: the trailer of the frame that is gone is still there, and
/// leads to the new one at the same place.
#[test]
fn an_old_trailer_leads_to_a_new_frame() {
    holds(
        &lapped(),
        &BOTH,
        &[
            (0, LSEEK_CIRC_TOWP, TO(160)),
            (RING, LSEEK_CIRC_VALID, TO(RING)),
            (0, LSEEK_CIRC_NEXT, TO(160)),
            (0, LSEEK_CIRC_PREV, TO(3072)),
            (1024, LSEEK_CIRC_PREV, TO(0)),
            (160, LSEEK_CIRC_FIRST, TO(0)),
            (160, LSEEK_CIRC_SCND, TO(1024)),
        ],
    );
}

/// The frame at 1024 loses its header as soon as the gap of the one that grows up to it is written,
/// and its own place does not become the write pointer.
#[test]
fn a_position_is_overwritten_while_it_is_held() {
    let mut written = lapped();
    let mut node = written.node(Nc393);
    assert_eq!(node.poll(1024), Readiness::Ready);
    written.frame(832);
    written.frame(100);
    assert_eq!(node.seek(0, LSEEK_CIRC_TOWP, SEEK_END), TO(160 + 896 + 160));
    assert_eq!(node.poll(1024), Readiness::Gone);
    assert_eq!(node.seek(1024, 0, SEEK_CUR), stays(1024, EINVAL));
    assert_eq!(node.seek(1024, LSEEK_CIRC_WAIT, SEEK_END), stays(1024, ESPIPE));
}

#[test]
fn plain_seeks_roll_over_and_check_nothing() {
    let written = three();
    for firmware in BOTH {
        let mut node = written.node(firmware);
        let size = RING as i64;
        for (to, comes) in [(0, 0), (33, 33), (size, 0), (size + 5, 5), (-32, RING - 32)] {
            assert_eq!(node.seek(160, to, SEEK_SET), TO(comes), "{to}");
            assert_eq!(node.seek(7, 3 * size + to, SEEK_SET), TO(comes), "{to}");
        }
        assert_eq!(node.seek(160, 64, SEEK_CUR), TO(224));
        assert_eq!(node.seek(160, -161, SEEK_CUR), TO(RING - 1));
        assert_eq!(node.seek(160, size, SEEK_CUR), TO(160));
        assert_eq!(node.seek(RING, i64::MAX, SEEK_CUR).answer, Answer::Is(RING - 1));
        assert_eq!(node.seek(160, 0, SEEK_CUR), TO(160));
        assert_eq!(node.seek(192, 0, SEEK_CUR), stays(192, EINVAL));
        assert_eq!(node.seek(160, 0, SEEK_END), TO(RING));
        assert_eq!(node.seek(160, -36, SEEK_END), TO(RING - 36));
        assert_eq!(node.seek(160, 0, 3), stays(160, EINVAL));
    }
}

#[test]
fn the_read_pointer_is_shared_and_a_restart_resets_it() {
    let mut written = three();
    let mut node = written.node(Nc393);
    assert_eq!(node.seek(160, LSEEK_CIRC_SETP, SEEK_END), TO(160));
    assert_eq!(node.seek(192, LSEEK_CIRC_SETP, SEEK_END), stays(192, EINVAL));
    assert_eq!(node.seek(512, LSEEK_CIRC_TORP, SEEK_END), TO(160));
    written.fpga.reset();
    // The frame at 0 is still in memory, but its place is the write pointer's.
    assert_eq!(node.seek(512, LSEEK_CIRC_TORP, SEEK_END), TO(0));
    let torp = |node: &mut Node| node.seek(512, LSEEK_CIRC_TORP, SEEK_END);
    assert_eq!(node.seek(160, LSEEK_CIRC_SETP, SEEK_END), TO(160));
    [960, 960, 100].into_iter().for_each(|length| written.frame(length));
    assert_eq!(torp(&mut node), stays(160, EINVAL), "it moves although it fails");
}

#[test]
fn poll_tells_frames_waiting_and_loss() {
    for firmware in BOTH {
        let written = three();
        let mut node = written.node(firmware);
        assert_eq!(node.poll(160), Readiness::Ready);
        assert_eq!(node.poll(512), Readiness::Waits);
        assert_eq!(node.poll(192), Readiness::Gone);
        assert_eq!(node.poll(161), Readiness::Gone);
    }
    assert_eq!(full().node(Nc393).poll(RING), Readiness::Gone);
    assert_eq!(full().node(Nc353).poll(RING), Readiness::Waits);
}

#[test]
fn reads_end_with_the_ring_and_a_393_rounds_down() {
    let written = three();
    let trailer = [2, 0, 0, 0, 5, 0, 0, 0, 17, 0, 0, 0xFF];
    for (firmware, at, skipped) in [(Nc353, 213, 1), (Nc393, 215, 0), (Nc353, 212, 0)] {
        let mut out = [0; 8];
        assert_eq!(written.node(firmware).read(at, &mut out), 8);
        assert_eq!(out, trailer[skipped..][..8], "{firmware:?} at {at}");
    }
    let mut out = [0; 100];
    assert_eq!(written.node(Nc393).read(RING - 10, &mut out), 10);
    assert_eq!(written.node(Nc393).read(RING, &mut out), 0);
    assert!(written.node(Nc393).is_read_shifted(6) && !written.node(Nc353).is_read_shifted(6));
}

#[test]
fn slots_are_as_long_as_the_fpga_makes_them() {
    for length in (1..100).chain([0x378FE, 0x37929, 0xFF_FFFF]) {
        assert_eq!(slot_bytes(length), crate::fpga::slot_bytes(length), "{length}");
    }
    assert_eq!(slot_bytes(0), 64);
}

/// The header of a colour frame and the tables alone, against a decoder and against a naive twin.
#[test]
fn jpeg_headers() {
    let written = three();
    let node = written.node(Nc353);
    let header = node.jpeg_header(160 + 1).unwrap();
    assert_eq!(header.len(), 623);
    assert_eq!(header[..4], [0xFF, 0xD8, 0xFF, 0xE0]);
    assert_eq!(header[0x9E..0xAA], [0xFF, 0xC0, 0, 17, 8, 6, 0, 8, 0, 3, 1, 0x22]);
    assert_eq!(header[609..], [0xFF, 0xDA, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 0x3F, 0][..]);
    let (quality2, color_mode) = (0x4650, 0);
    let picture =
        Picture { payload: &[], crc32c: None, quality2, color_mode, width: 2048, height: 1536 };
    let twin = rebuild::jpeg_file(&picture);
    assert_eq!(header[20..], twin[2..twin.len() - 2], "as the twin, which has no APP0");
    let tables = node.jpeg_header(160 + 2).unwrap();
    assert_eq!(tables, [&header[0x19..][..64], &header[0x5E..][..64]].concat());
    for nowhere in [192 + 1, 4096 + 64 + 1, i64::MAX] {
        assert_eq!(node.jpeg_header(nowhere), Err(EINVAL), "{nowhere}");
    }
    assert!(lapped().node(Nc393).jpeg_header(RING as i64 + 1).is_ok(), "as NEXT has told it");
}

#[test]
fn positions_in_a_header_stay_in_it() {
    let sought = |offset, whence| seek_in_header(623, 20, offset, whence);
    assert_eq!(sought(0, SEEK_SET), TO(0));
    assert_eq!(sought(700, SEEK_SET), TO(623));
    assert_eq!(sought(-5, SEEK_CUR), TO(15));
    assert_eq!(sought(i64::MAX, SEEK_CUR), TO(623));
    assert_eq!(sought(0, SEEK_END), TO(623));
    assert_eq!(sought(-3, SEEK_END), TO(620));
    assert_eq!(sought(-21, SEEK_CUR), fails(0, EOVERFLOW));
    assert_eq!(sought(0, 3), fails(20, EINVAL));
}
