//! The search for frames in an image of a ring, against the law on the same bytes.

use circbuf_abi::ring::CHUNK_BYTES;
use circbuf_driver::forensics::{Found, RingImage, Verdict, Writer};

use super::input::Input;
use super::law::{Still, padded};
use super::ring::Pen;
use crate::{GAPS, SteppedCamera, content};

const RING_BYTES_MAX: usize = 8192;
const STEPS_MAX: usize = 64;
/// Laps that the twin of the counters' law counts one by one.
const LAPS_COUNTED: u64 = 64;

/// Byte 0: whether there are counters, and whether the ring follows as it is or as a program.
pub(super) fn check(bytes: &[u8]) {
    let mut input = Input::of(bytes);
    let mode = input.u8();
    let writer = (mode & 1 != 0).then(|| {
        let (written, ahead) = (input.number(), input.number());
        let reserved = written.saturating_add(ahead);
        Writer { epoch: 0, written, reserved, complete: written, frames: ahead }
    });
    let ring = if mode & 2 == 0 { raw(input) } else { written(input) };
    check_ring(&ring, writer);
}

fn raw(input: Input<'_>) -> Vec<u8> {
    let mut ring = input.rest().to_vec();
    ring.truncate(RING_BYTES_MAX);
    ring
}

fn written(mut input: Input<'_>) -> Vec<u8> {
    let chunks = 2 + usize::from(input.u8());
    let mut pen = Pen::new(vec![0; chunks * CHUNK_BYTES]);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        pen.step(&mut input);
    }
    pen.ring
}

fn check_ring(ring: &[u8], writer: Option<Writer>) {
    let lawful = ring.len().is_multiple_of(CHUNK_BYTES) && ring.len() >= 2 * CHUNK_BYTES;
    let image = RingImage::new(ring.to_vec());
    assert_eq!(image.is_ok(), lawful, "{} bytes", ring.len());
    let Ok(image) = image else { return };
    let still = Still(ring);
    let found = image.frames();
    check_stamped(still, &found);
    found.iter().for_each(|found| check_one(still, found));
    check_apart(still, &found);
    if let Some(writer) = writer {
        check_counters(still, &found, writer, &image.clone().with_writer(writer).frames());
    }
}

/// Behind every stamp that can be one stands a whole frame or a torn one, once.
fn check_stamped(still: Still<'_>, found: &[Found]) {
    let starts = (0..still.bytes()).step_by(CHUNK_BYTES);
    let expected: Vec<(u64, u32, bool)> = starts
        .filter_map(|start| {
            let length = still.stamp(start)?;
            let fits = length > 0 && padded(length) + 32 <= still.bytes();
            let whole = still.shortest(start).is_some_and(|(shortest, _)| shortest == length)
                && !is_repeated(still, start, length);
            fits.then_some((start, length, whole))
        })
        .collect();
    let mut told: Vec<(u64, u32, bool)> = found
        .iter()
        .filter(|found| matches!(found.verdict, Verdict::Whole | Verdict::Torn { .. }))
        .filter(|found| found.header.is_some())
        .map(|found| (found.start, found.length, found.verdict == Verdict::Whole))
        .collect();
    told.sort_unstable();
    assert_eq!(told, expected, "stamped frames, and whether they are whole");
}

/// Whether the trailer is that of the frame before.
fn is_repeated(still: Still<'_>, start: u64, length: u32) -> bool {
    let is_another = padded(length) + 32 < still.bytes();
    is_another && still.trailer(start + still.bytes() - 32) == still.trailer(start + padded(length))
}

fn check_one(still: Still<'_>, found: &Found) {
    let Found { start, length, .. } = *found;
    assert!(start.is_multiple_of(32) && start < still.bytes(), "{found:?}");
    assert!(padded(length) + 32 <= still.bytes(), "{found:?}");
    let trailer = still.trailer(start + padded(length));
    let own = trailer.filter(|(_, told)| *told == length);
    assert_eq!(found.time, own.map(|(time, _)| time), "{found:?}");
    match found.verdict {
        Verdict::Whole | Verdict::Unstamped => {
            assert_eq!(still.frame(start, length), found.time, "{found:?}");
            assert_eq!(still.shortest(start).map(|(length, _)| length), Some(length), "{found:?}");
        }
        Verdict::Torn { .. } => {
            assert!(found.header.is_none() || still.stamp(start) == Some(length), "{found:?}");
        }
        Verdict::Stale { .. } => {
            assert_eq!(trailer.map(|(_, length)| length), Some(length), "{found:?}");
        }
    }
}

/// No byte belongs to two frames that are both told to be there.
fn check_apart(still: Still<'_>, found: &[Found]) {
    let mut owners = vec![None; still.0.len()];
    for frame in found.iter().filter(|found| found.is_sound()) {
        for at in frame.start..frame.start + padded(frame.length) {
            let owner = &mut owners[(at % still.bytes()) as usize];
            assert_eq!(*owner, None, "{frame:?} overlaps {owner:?}");
            *owner = Some(frame.start);
        }
    }
}

/// The counters take away nothing but what point 4 of the law does.
fn check_counters(still: Still<'_>, plain: &[Found], writer: Writer, judged: &[Found]) {
    let place = |found: &&Found| (found.start, found.length, found.header.is_some());
    let sound = |all: &[Found]| {
        let mut sound: Vec<_> = all.iter().filter(|f| f.is_sound()).map(|f| place(&f)).collect();
        sound.sort_unstable();
        sound
    };
    judged.iter().for_each(|found| check_one(still, found));
    if writer.written / still.bytes() > LAPS_COUNTED {
        return;
    }
    let stands = |found: &&Found| {
        let first = found.start;
        let laps = (0..=LAPS_COUNTED).map(|lap| first + lap * still.bytes());
        // What is complete ends with a gap: a frame right in front of that is none that was counted.
        let end = |start| start + padded(found.length) + 32;
        let last = laps.take_while(|&start| end(start) <= writer.complete).last();
        last.is_some_and(|start| {
            u128::from(writer.reserved) <= u128::from(start + still.bytes()) - 32
        })
    };
    // A frame that ends where the counters say is believed without a gap in front of it, and takes
    // the place of whatever else would be believed there.
    let (plain_sound, sound) = (sound(plain), sound(judged));
    let led_to = || sound.iter().filter(|found| !plain_sound.contains(found));
    let is_near = |&(start, length, _): &(u64, u32, bool), found: &Found| {
        let front = found.start + still.bytes() - 64;
        let [behind, before] =
            [start + still.bytes() - front % still.bytes(), front + still.bytes() - start];
        behind % still.bytes() < padded(found.length) + 96
            || before % still.bytes() < padded(length) + 32
    };
    for found in plain.iter().filter(|f| f.is_sound()).filter(stands) {
        let is_left = sound.contains(&place(&found)) || led_to().any(|led| is_near(led, found));
        assert!(is_left, "{writer:?}: {found:?} {sound:?}");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (gap, stamped) in GAPS.into_iter().flat_map(|gap| [(gap, true), (gap, false)]) {
        for frames in [0, 3, 9] {
            let mut camera = SteppedCamera::new(4096, 900, gap, stamped);
            (0..frames).for_each(|frame| camera.emit(100 + 97 * frame));
            camera.steps(7, 500);
            let ring = camera.fpga().file().ring_fd().try_clone_to_owned();
            let ring = content(&ring.expect("a descriptor is left").into());
            // 0x80: a number of 32 bits follows.
            let written = camera.fpga().cursor() as u32;
            let counters = [[0x80].as_slice(), &written.to_le_bytes(), &[0, 32, 0]].concat();
            seeds.push([[0].as_slice(), &ring].concat());
            seeds.push([[1].as_slice(), &counters, &ring].concat());
        }
    }
    // Frames of 100, 200 and 300 bytes, the second without a stamp; then the pen goes back.
    let frames =
        [0, 100, 0, 1, 0x55, 0, 200, 0, 0, 0x55, 0, 0x2C, 1, 1, 0x55, 2, 3, 0, 0, 50, 0, 1, 9];
    seeds.push([[2, 40].as_slice(), &frames].concat());
    seeds
}
