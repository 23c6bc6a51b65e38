//! A consumer that hangs keeps frames, but not all slabs: the other one goes on.

use std::sync::Arc;

use circbuf_driver::capture::{Capture, Captured, Origin};
use circbuf_driver::clock::Moment;
use circbuf_driver::dispatch::Outlet;
use circbuf_driver::slab::SlabPool;
use circbuf_driver::tail::{StartAt, Tail};
use circbuf_emulator::model::Gap;
use circbuf_tests::SteppedCamera;

const FRAMES: u64 = 300;

/// `hangs` names the consumer that never takes a frame; its queue would hold more than all slabs.
fn run(hangs: &str) {
    let mut camera = SteppedCamera::new(64 << 10, 900, Gap::Zero, true);
    let device = Arc::new(camera.device(true));
    let tail = Tail::attach(&device, StartAt::Newest).unwrap();
    let policy = "every".parse().unwrap();
    let (proc, proc_queue) = Outlet::new(policy, 128);
    let (arch, arch_queue) = Outlet::new(policy, 128);
    let pool = SlabPool::new(8 * (16 << 10));
    let mut capture = Capture::new(device, tail, pool, Origin::default(), (proc, Some(arch)));
    let busy = if hangs == "proc" { &arch_queue } else { &proc_queue };
    let now = Moment::default();
    for number in 0..FRAMES {
        camera.emit(800);
        assert_eq!(capture.step(now, || now).unwrap(), Captured::Frame, "frame {number}");
        let delivery = busy.try_recv().expect("the frame, as it came");
        assert_eq!(delivery.frame.sequence(), number);
        assert!(delivery.lost.is_empty(), "nothing is lost for the one that keeps up");
    }
    let books = capture.books();
    assert_eq!(books.passed, FRAMES);
    let (hung, busy) =
        if hangs == "proc" { (books.proc, books.arch) } else { (books.arch, books.proc) };
    assert_eq!((hung.in_flight, hung.no_slab), (8, FRAMES - 8), "it keeps what the pool has");
    assert_eq!((busy.no_slab, busy.queue_full), (0, 0));
    assert!(hung.closes() && busy.closes());
}

#[test]
fn a_processor_that_hangs_does_not_starve_the_archive() {
    run("proc");
}

#[test]
fn an_archive_that_hangs_does_not_starve_the_processor() {
    run("arch");
}
