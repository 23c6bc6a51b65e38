//! Faults files, and what they say done to a camera.

use circbuf_driver::device::Device;
use circbuf_driver::record::{frame_body_bytes, record_bytes};
use circbuf_driver::slab::{Slab, SlabPool};
use circbuf_driver::tail::{StartAt, Step, Tail};
use circbuf_driver::validate::copy_and_check;
use circbuf_emulator::fault::{FaultKind, Faults, Injector};
use circbuf_emulator::fpga::{Fpga, Progress, Setup};
use circbuf_emulator::model::Gap;
use circbuf_emulator::ring_file::RingFile;

use super::config::check as check_text;
use crate::{START, payload, picture};

const RING_BYTES: u64 = 1 << 16;
const FRAMES: u64 = 24;

/// The bytes are the file.
pub(super) fn check(bytes: &[u8]) {
    let read = |text: &str| Faults::from_toml(text);
    check_text(|text| read(text).map(drop).map_err(|error| error.to_string()), bytes);
    let Some(faults) = std::str::from_utf8(bytes).ok().and_then(|text| read(text).ok()) else {
        return;
    };
    assert!(faults.faults.iter().all(|fault| !fault.to_string().contains('\n')));
    inject(&faults);
}

/// No frame that was damaged is delivered, except where its bytes are lawful all the same.
fn inject(faults: &Faults) {
    let (mut fpga, device) = bench(faults);
    let mut injector = Injector::new(faults, &fpga).expect("there is an interrupt handler");
    let mut tail = Tail::attach(&device, StartAt::Newest).expect("true counters are believed");
    let bytes = record_bytes(frame_body_bytes((RING_BYTES / 2) as u32));
    let mut slab = SlabPool::new(1 << 20).take(bytes).expect("the pool is large enough");
    let mut damaged = Vec::new();
    for number in 0..FRAMES {
        let payload = payload(number, 1 + 61 * number as usize);
        let time = START.plus_nanos(number * 500_000_000);
        let frame = injector.frame(&fpga, &picture(&payload), time).expect("the picture fits");
        fpga.begin_doctored(&frame);
        let entry = frame.ledger_entry(&fpga);
        damaged.push(entry.damaged && !entry.undetectable);
        while fpga.step(frame.payload(), 4096) == Progress::Writing {}
        deliver(&device, &mut tail, &mut slab, &damaged);
    }
}

fn bench(faults: &Faults) -> (Fpga, Device) {
    let payload_bytes_max = faults.payload_bytes_max(2000, RING_BYTES);
    let geometry = picture(&[]).geometry();
    let setup =
        Setup { gap: Gap::Zero, stamped: true, payload_bytes_max, geometry, frame_period_ns: 0 };
    let ring = RingFile::memfd(RING_BYTES).expect("there is memory");
    let fpga = Fpga::new(ring, setup).expect("the ring holds four frames");
    let file = fpga.file();
    let device = Device::from_fds(file.ring_fd(), Some(file.registers_fd()));
    let device = device.expect("the ring can be mapped");
    (fpga, device)
}

/// Reads all that is there.
fn deliver(device: &Device, tail: &mut Tail, slab: &mut Slab, damaged: &[bool]) {
    loop {
        match tail.poll(device).expect("faults do not make the counters lie") {
            Step::Idle => return,
            Step::Lost(_) => {}
            Step::Frame(candidate) => {
                let delivered = copy_and_check(device, &candidate, slab).is_ok();
                let number = candidate.sequence as usize;
                assert!(!delivered || !damaged[number], "frame {number}: {candidate:?}");
            }
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let each = FaultKind::ALL.map(|kind| format!("[[fault]]\nkind = \"{kind}\"\nevery = 2\n"));
    let when = [
        "seed = 7\n[[fault]]\nkind = \"bit-flip\"\nat = [3, 17]\n",
        "[[fault]]\nkind = \"restart\"\nat_s = [1, 2.5]\n[[fault]]\nkind = \"sprint\"\nrate = 0.5\n",
    ];
    let texts = each.iter().map(String::as_str).chain(when);
    texts.map(|text| text.as_bytes().to_vec()).collect()
}
