//! A camera of two channels, and one program that sees both.

#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use circbuf_emulator::camera::{Camera, Options};
use circbuf_emulator::model::Model;
use circbuf_emulator::node::Firmware;
use circbuf_emulator::ring_file::RingFile;
use circbuf_emulator::source::{Source, SourceOptions};
use circbuf_tools::exec::Supervisor;

/// Waits for a frame of each channel, and tells their sizes and a part of the JPEG header.
const SCRIPT: &str = "
import os, select, sys
sizes = []
for channel in range(2):
    node = os.open(f'/dev/circbuf{channel}', os.O_RDONLY)
    head = os.open(f'/dev/jpeghead{channel}', os.O_RDONLY)
    ready = select.poll()
    ready.register(node, select.POLLIN)
    assert ready.poll(60_000) == [(node, select.POLLIN)]
    os.lseek(head, os.lseek(node, 5, os.SEEK_END) + 1, os.SEEK_END)
    sizes += [os.fstat(node).st_size, os.read(head, 0x300)[0xa3:0xa7].hex()]
assert not os.path.exists('/dev/circbuf2')
assert sizes == [1 << 20, '007800a0', 2 << 20, '00f00140'], sizes
sys.exit(3)
";

#[test]
fn one_program_sees_both() {
    let pictures = |width: u16, height: u16| {
        let options = SourceOptions { width, height, ..SourceOptions::default() };
        Source::open(&"synthetic:2".parse().unwrap(), &options).unwrap()
    };
    let cameras = [(1 << 20, pictures(160, 120)), (2 << 20, pictures(320, 240))];
    let cameras = cameras.map(|(ring_bytes, source)| {
        let mut options = Options::of(Model::Custom { ring_bytes });
        options.pace.fps = Some(100.0);
        Camera::new(RingFile::memfd(ring_bytes).unwrap(), source, options).unwrap()
    });
    let supervisor = Supervisor::new(&cameras.each_ref(), Firmware::Nc393).unwrap();
    // One channel after the other begins.
    let cameras = cameras.map(|camera| camera.spawn_after(Duration::from_millis(50)).unwrap());
    let program = ["python3", "-c", SCRIPT].map(Into::into);
    match supervisor.run(&program) {
        Err(circbuf_tools::exec::ExecError::Program { source, .. }) => {
            println!("skipped: no python3: {source}");
        }
        ended => assert_eq!(ended.unwrap(), 3),
    }
    drop(cameras);
}
