mod conversation;
mod dma;
mod spaces;
mod twin;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use circbuf_abi::pci::bar0::{CONTROL, CONTROL_RUN, ERRORS, RING_BYTES, RING_IOVA, STATUS};
use circbuf_abi::pci::config::{COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY};
use circbuf_abi::registers as page;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Function;
use crate::camera::{Limit, Options};
use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::model::Model;
use crate::pace::Pace;
use crate::source::{Source, SourceOptions};

/// Size of the rings: four slots of the largest frame.
const RING: u64 = 1 << 18;

/// Where the ring stands for the device.
const IOVA: u64 = 0x12_3456_7000;

fn source() -> Source {
    let spec = "noise:1000-40000".parse().unwrap();
    Source::open(&spec, &SourceOptions::default()).unwrap()
}

fn options(frames: Option<u64>) -> Options {
    Options {
        bare: true,
        pace: Pace::UNPACED,
        clock: Clock::Virtual,
        limit: Limit { frames, time: None },
        ledger: Ledger::in_memory(),
        ..Options::of(Model::Custom { ring_bytes: RING })
    }
}

/// A function that has just got power.
fn function(frames: Option<u64>) -> Function {
    Function::new(source(), options(frames), RING).unwrap()
}

/// One that may access memory.
fn enabled(frames: Option<u64>) -> Function {
    let mut function = function(frames);
    let command = COMMAND_MEMORY | COMMAND_BUS_MASTER;
    function.write_config(COMMAND as u64, &command.to_le_bytes());
    function
}

fn memfd(bytes: u64, is_sealed: bool) -> File {
    if is_sealed {
        return crate::ring_file::sealed_memfd("host", bytes).unwrap();
    }
    let file = File::from(memfd_create("host", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(bytes).unwrap();
    file
}

impl Function {
    fn u32(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.read_registers(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn u64(&mut self, offset: u64) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset + 4)) << 32
    }

    fn put(&mut self, offset: u64, word: u32) {
        self.write_registers(offset, &word.to_le_bytes());
    }

    fn put_wide(&mut self, offset: u64, word: u64) {
        self.put(offset, word as u32);
        self.put(offset + 4, (word >> 32) as u32);
    }

    fn page_u64(&self, field: usize) -> u64 {
        let mut bytes = [0; 8];
        self.read_status_page(field as u64, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn page_state(&self) -> u32 {
        let mut bytes = [0; 4];
        self.read_status_page(page::STATE as u64, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Programs the ring and starts.
    fn run(&mut self, control: u32) {
        self.put_wide(RING_IOVA, IOVA);
        self.put_wide(RING_BYTES, RING);
        self.put(CONTROL, CONTROL_RUN | control);
    }

    /// Maps a whole ring.
    fn map(&mut self, file: &File) {
        self.map_dma(IOVA, RING, (Some(file.try_clone().unwrap()), 0)).unwrap();
    }

    /// Looks until it does not run any more, or these frames are whole.
    fn wait_for(&mut self, is_over: impl Fn(&mut Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !is_over(self) {
            assert!(Instant::now() < end, "status {:#x}", self.u32(STATUS));
            std::thread::yield_now();
        }
    }

    fn errors(&mut self) -> u32 {
        self.u32(ERRORS)
    }
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}
