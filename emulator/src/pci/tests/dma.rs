//! The ring in the host's memory, whatever the host does to it.

use std::io::Read;

use circbuf_abi::pci::bar0::*;
use circbuf_abi::pci::{VECTOR_ERROR, VECTOR_FRAME, config};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::*;
use crate::camera::Camera;
use crate::report::EndedBy;
use crate::ring_file::RingFile;

const PAGE: u64 = 4096;

/// It has a ring, and runs.
const RUNS: u32 = STATUS_ENABLED | STATUS_RUNNING;

/// Some laps of the ring.
const FRAMES_OF_LAPS: u64 = 60;

/// What an FPGA with a ring of its own writes: the ring, the register page, the ledger's checksums.
fn twin() -> (Vec<u8>, Vec<u8>, Vec<u32>) {
    let ring = RingFile::memfd(RING).unwrap();
    let camera = Camera::new(ring, source(), options(Some(FRAMES_OF_LAPS))).unwrap();
    let [ring, page] = [camera.ring().ring_fd(), camera.ring().registers_fd()]
        .map(|fd| File::from(fd.try_clone_to_owned().unwrap()));
    let report = camera.run(&Default::default()).unwrap();
    let checksums = report.ledger.iter().map(|entry| entry.crc32c).collect();
    (contents(&ring), contents(&page), checksums)
}

fn run_to_the_end(function: &mut Function) {
    function.run(0);
    function.wait_for(|function| function.u32(STATUS) & STATUS_RUNNING == 0);
    assert_eq!((function.errors(), function.u32(STATUS)), (0, STATUS_ENDED));
}

/// Frames of up to ten pages, in pages that lie anywhere in one file or in many: each frame crosses
/// mappings.
#[test]
fn a_ring_in_scattered_pages_has_the_bytes_of_one_in_a_piece() {
    let (ring, page, checksums) = twin();
    let pages = RING / PAGE;
    for (is_sealed, files) in [(true, 1), (true, pages), (false, 1), (false, pages)] {
        let mut function = enabled(Some(FRAMES_OF_LAPS));
        let host: Vec<File> =
            (0..files).map(|_| memfd((pages / files + 3) * PAGE, is_sealed)).collect();
        // Page after page somewhere else: 29 is prime to their number.
        let place = |page: u64| (page % files, (page * 29 % pages) % (pages / files) + 3);
        for page in (0..pages).rev() {
            let (file, at) = if files == 1 { (0, page * 29 % pages + 3) } else { place(page) };
            let file = host[file as usize].try_clone().unwrap();
            function.map_dma(IOVA + page * PAGE, PAGE, (Some(file), at * PAGE)).unwrap();
        }
        assert_eq!(function.dma_mappings() as u64, pages);
        run_to_the_end(&mut function);
        let mut gathered = Vec::new();
        for page in 0..pages {
            let (file, at) = if files == 1 { (0, page * 29 % pages + 3) } else { place(page) };
            let mut bytes = vec![0; PAGE as usize];
            host[file as usize].read_exact_at(&mut bytes, at * PAGE).unwrap();
            gathered.extend(bytes);
        }
        assert!(gathered == ring, "{files} files, sealed {is_sealed}");
        let mut status = vec![0; page::PAGE_BYTES];
        function.read_status_page(0, &mut status);
        assert!(status == page, "status page");
        let report = function.finish().unwrap();
        let told: Vec<u32> = report.ledger.iter().map(|entry| entry.crc32c).collect();
        assert_eq!((told, report.ended_by), (checksums.clone(), EndedBy::Frames));
    }
}

fn events(function: &mut Function) -> [EventFd; 2] {
    [VECTOR_FRAME, VECTOR_ERROR].map(|vector| {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        let theirs = File::from(event.as_fd().try_clone_to_owned().unwrap());
        function.set_vector(vector, Some(theirs)).unwrap();
        event
    })
}

#[test]
fn each_whole_frame_signals_its_vector() {
    let mut function = enabled(Some(FRAMES_OF_LAPS));
    function.map(&memfd(RING, true));
    let [frames, errors] = events(&mut function);
    run_to_the_end(&mut function);
    assert_eq!(frames.read(), Ok(FRAMES_OF_LAPS));
    assert_eq!(function.u64(FRAMES), FRAMES_OF_LAPS);
    assert!(errors.read().is_err(), "no error");
    function.trigger(VECTOR_ERROR).unwrap();
    assert_eq!(errors.read(), Ok(1));
    assert!(function.trigger(2).is_err() && function.set_vector(2, None).is_err());
}

#[test]
fn only_an_eventfd_can_be_signalled() {
    let mut function = enabled(None);
    let (mut reader, writer) = std::io::pipe().unwrap();
    assert!(function.set_vector(0, Some(File::from(OwnedFd::from(writer)))).is_err());
    function.trigger(0).unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0, "closed, and nothing was written");
}

/// Runs until the ring is full and the camera waits for credit.
fn fill(function: &mut Function) -> u64 {
    function.run(CONTROL_CREDIT);
    let max_slot = function.u64(MAX_SLOT_BYTES);
    function.wait_for(move |function| {
        // No frame may begin that does not fit behind the last one.
        function.page_u64(page::COMPLETE) + max_slot > RING
            && function.page_u64(page::RESERVED) == function.page_u64(page::COMPLETE)
    });
    function.page_u64(page::COMPLETE)
}

#[test]
fn memory_that_is_taken_away_under_a_running_camera_is_a_fault_that_is_told() {
    for is_sealed in [true, false] {
        let mut function = enabled(None);
        let host = memfd(RING, is_sealed);
        for page in 0..RING / PAGE {
            let file = host.try_clone().unwrap();
            function.map_dma(IOVA + page * PAGE, PAGE, (Some(file), page * PAGE)).unwrap();
        }
        let [_, errors] = events(&mut function);
        let complete = fill(&mut function);
        let before = contents(&host);
        // The first page goes: the camera comes to it when it goes on.
        function.unmap_dma(IOVA, PAGE);
        assert_eq!((function.errors(), function.u32(STATUS)), (0, RUNS));
        function.put_wide(CREDIT, complete);
        function.wait_for(|function| function.u32(STATUS) == 0);
        assert_eq!((function.errors(), function.u64(FAULT_IOVA)), (ERROR_DMA, IOVA));
        assert_eq!(function.u32(CONTROL) & CONTROL_RUN, 0, "it clears the bit itself");
        assert_eq!(errors.read(), Ok(1));
        assert_eq!(function.page_state(), page::STATE_IDLE);
        // No frame beyond was told of, and nothing was written where the page had been.
        let told = function.page_u64(page::COMPLETE);
        assert!(told <= RING && told >= complete, "{told:#x}");
        assert!(contents(&host)[..PAGE as usize] == before[..PAGE as usize]);
        // As long as nobody has taken note it stays so.
        function.put(CONTROL, CONTROL_RUN);
        assert_eq!(function.u32(STATUS), 0);
        function.put(ERRORS, ERROR_DMA);
        assert_eq!((function.errors(), function.u64(FAULT_IOVA)), (0, 0));
        function.map_dma(IOVA, PAGE, (Some(host.try_clone().unwrap()), 0)).unwrap();
        fill(&mut function);
        assert_eq!((function.page_u64(page::EPOCH), function.errors()), (1, 0));
    }
}

#[test]
fn a_ring_that_was_never_mapped_is_a_fault_at_its_first_byte() {
    let read_only = {
        let file = memfd(RING, true);
        let fd = file.as_raw_fd();
        File::open(format!("/proc/self/fd/{fd}")).unwrap()
    };
    let too_short = memfd(RING - PAGE, true);
    let (pipe, _writer) = std::io::pipe().unwrap();
    let pipe = File::from(OwnedFd::from(pipe));
    for file in [None, Some(read_only), Some(too_short), Some(pipe)] {
        let mut function = enabled(None);
        if let Some(file) = &file {
            function.map(file);
        }
        function.run(0);
        function.wait_for(|function| function.u32(STATUS) == 0);
        let told = (function.errors(), function.u64(FAULT_IOVA), function.u64(FRAMES));
        assert_eq!(told, (ERROR_DMA, IOVA, 0), "{file:?}");
    }
}

/// The size of this memory is not sealed, and its owner cuts it off again and again.
#[test]
fn memory_that_is_truncated_under_the_writer_kills_nobody() {
    let mut function = enabled(None);
    let host = memfd(RING, false);
    function.map(&host);
    function.run(0);
    for _ in 0..200 {
        host.set_len(0).unwrap();
        let frames = function.u64(FRAMES);
        function.wait_for(|function| function.u64(FRAMES) > frames);
    }
    assert_eq!((function.errors(), function.u32(STATUS)), (0, RUNS));
    function.put(CONTROL, 0);
    assert_eq!((function.u32(STATUS), function.page_state()), (0, page::STATE_IDLE));
    let (frames, ring) = (function.u64(FRAMES), contents(&host));
    assert_eq!(function.u64(FRAMES), frames);
    assert!(contents(&host) == ring, "it stands still");
}

/// A driver looks at the status page before the first frame; and whoever takes the ring anew begins an
/// epoch.
#[test]
fn a_device_that_has_a_ring_tells_of_it_before_it_writes() {
    let mut function = enabled(None);
    let host = memfd(RING, true);
    function.map(&host);
    for epoch in 0..3 {
        function.put_wide(RING_IOVA, IOVA);
        function.put(CONTROL, CONTROL_ENABLE);
        let told = [CONTROL, STATUS, ERRORS].map(|register| function.u32(register));
        assert_eq!(told, [CONTROL_ENABLE, STATUS_ENABLED, 0]);
        let told = [page::MAGIC, page::RING_BYTES, page::EPOCH, page::COMPLETE, page::RESERVED]
            .map(|field| function.page_u64(field));
        assert_eq!(told, [page::MAGIC_VALUE, RING, epoch, 0, 0]);
        assert!(epoch > 0 || contents(&host).iter().all(|&byte| byte == 0), "nothing was written");
        function.put(CONTROL, CONTROL_ENABLE | CONTROL_RUN);
        assert_eq!(function.u32(STATUS), RUNS);
        let frames = function.page_u64(page::FRAMES);
        function.wait_for(|function| function.page_u64(page::FRAMES) > frames + 5);
        assert_eq!(function.page_u64(page::EPOCH), epoch);
        function.put(CONTROL, 0);
    }
}

#[test]
fn bus_mastering_that_is_switched_off_ends_dma() {
    let mut function = enabled(None);
    function.map(&memfd(RING, true));
    let [_, errors] = events(&mut function);
    fill(&mut function);
    function.write_config(config::COMMAND as u64, &config::COMMAND_MEMORY.to_le_bytes());
    assert_eq!((function.errors(), function.u32(STATUS)), (ERROR_BUS_MASTER, 0));
    assert_eq!(errors.read(), Ok(1));
}

#[test]
fn the_ring_cannot_be_moved_while_it_is_written() {
    let mut function = enabled(None);
    function.map(&memfd(RING, true));
    fill(&mut function);
    for register in [RING_IOVA, RING_IOVA + 4, RING_BYTES, RING_BYTES + 4] {
        function.put(register, 0x10_0000);
        assert_eq!((function.errors(), function.u64(RING_BYTES)), (ERROR_CONFIG, RING));
        assert_eq!((function.u64(RING_IOVA), function.u32(STATUS)), (IOVA, RUNS));
        function.put(ERRORS, ERROR_CONFIG);
    }
}

#[test]
fn a_reset_leaves_the_count_of_frames_and_nothing_else() {
    for flr in [true, false] {
        let mut function = enabled(None);
        let host = memfd(RING, true);
        function.map(&host);
        fill(&mut function);
        let frames = function.u64(FRAMES);
        function.put(RING_IOVA, 1);
        assert_eq!((function.errors(), frames > 0), (ERROR_CONFIG, true));
        if flr {
            let control = config::EXPRESS_DEVICE_CONTROL as u64;
            function.write_config(control, &config::DEVICE_CONTROL_FLR.to_le_bytes());
            let mut read = [0; 2];
            function.read_config(control, &mut read);
            assert_eq!(u16::from_le_bytes(read), 0x2810, "the bit reads as 0");
            function.read_config(config::COMMAND as u64, &mut read);
            assert_eq!(read, [0, 0]);
            let command = config::COMMAND_MEMORY | config::COMMAND_BUS_MASTER;
            function.write_config(config::COMMAND as u64, &command.to_le_bytes());
        } else {
            function.put(CONTROL, CONTROL_RESET);
        }
        let registers = [ERRORS, CONTROL, STATUS].map(|register| function.u32(register));
        assert_eq!(registers, [0; 3], "FLR {flr}");
        let registers = [RING_IOVA, RING_BYTES, CREDIT].map(|register| function.u64(register));
        assert_eq!(registers, [0, RING, 0]);
        assert_eq!((function.u64(FRAMES), function.page_state()), (frames, page::STATE_IDLE));
        // Mappings are the host's affair, and still there.
        fill(&mut function);
        assert_eq!(function.page_u64(page::EPOCH), 1);
        assert!(function.page_u64(page::FRAMES) > frames);
    }
}

#[test]
fn mappings_do_not_overlap_and_unmapping_what_is_not_there_is_no_error() {
    let mut function = enabled(None);
    function.map_dma(IOVA, 2 * PAGE, (None, 0)).unwrap();
    for (iova, bytes) in [
        (IOVA, PAGE),
        (IOVA + PAGE, PAGE),
        (IOVA - PAGE, 2 * PAGE),
        (0, u64::MAX),
        (IOVA, 0),
        (u64::MAX - 10, 100),
    ] {
        assert!(function.map_dma(iova, bytes, (None, 0)).is_err(), "{bytes:#x} at {iova:#x}");
    }
    // What touches it only does no harm, whatever its size.
    function.map_dma(IOVA - PAGE, PAGE, (None, 0)).unwrap();
    function.map_dma(IOVA + 2 * PAGE, 100, (None, 0)).unwrap();
    function.unmap_dma(0, IOVA - PAGE);
    function.unmap_dma(IOVA + 3 * PAGE, u64::MAX);
    assert_eq!(function.dma_mappings(), 3);
    function.unmap_dma(IOVA - 1, 2);
    assert_eq!(function.dma_mappings(), 1);
    function.unmap_all_dma();
    assert_eq!(function.dma_mappings(), 0);
}

/// A host that says nothing any more does not keep the function.
#[test]
fn a_camera_that_waits_is_finished_all_the_same() {
    let mut function = enabled(None);
    function.map(&memfd(RING, true));
    fill(&mut function);
    let frames = function.u64(FRAMES);
    let report = function.finish().unwrap();
    assert_eq!((report.frames, report.ended_by), (frames, EndedBy::Stop));
}
