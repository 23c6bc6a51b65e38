//! The same seed in virtual time gives the same bytes.

use std::fs::File;
use std::sync::atomic::AtomicBool;

use circbuf_emulator::camera::{Camera, Limit, Options};
use circbuf_emulator::clock::Clock;
use circbuf_emulator::ledger::{Ledger, LedgerEntry};
use circbuf_emulator::model::Model;
use circbuf_emulator::ring_file::RingFile;
use circbuf_emulator::source::{Source, SourceOptions};
use circbuf_tests::content;

const RING: u64 = 1 << 20;

/// Ring, register page and ledger after a run.
fn run(source: &str, seed: u64) -> (Vec<u8>, Vec<u8>, Vec<LedgerEntry>) {
    let model = Model::Custom { ring_bytes: RING };
    let options = SourceOptions { seed, width: 320, height: 240, ..SourceOptions::default() };
    let source = Source::open(&source.parse().unwrap(), &options).unwrap();
    let mut options = Options::of(model);
    options.clock = Clock::Virtual;
    options.pace.fps = Some(12.0);
    options.limit = Limit { frames: Some(150), time: None };
    options.ledger = Ledger::in_memory();
    let camera = Camera::new(RingFile::memfd(RING).unwrap(), source, options).unwrap();
    let ring = File::from(camera.ring().ring_fd().try_clone_to_owned().unwrap());
    let page = File::from(camera.ring().registers_fd().try_clone_to_owned().unwrap());
    let report = camera.run(&AtomicBool::new(false)).unwrap();
    assert_eq!(report.ledger.len(), 150);
    (content(&ring), content(&page), report.ledger)
}

#[test]
fn the_same_seed_gives_the_same_ring_page_and_ledger_every_time() {
    for source in ["noise:100-60000", "synthetic:5"] {
        let (ring, page, ledger) = run(source, 7);
        let again = run(source, 7);
        assert!(ring == again.0, "{source}: the ring");
        assert!(page == again.1, "{source}: the register page");
        assert_eq!(ledger, again.2, "{source}");
        assert!(ledger.last().unwrap().start > RING, "{source}: it has been round");
    }
    assert_ne!(run("noise:100-60000", 8).2, run("noise:100-60000", 7).2, "the seed matters");
}
