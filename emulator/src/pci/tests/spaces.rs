//! Configuration space and registers, against numbers written by hand.

use circbuf_abi::pci::bar0::*;
use circbuf_abi::pci::config;

use super::*;

/// Configuration space after a reset, up to the end of the last capability.
const GOLDEN: [(usize, &[u8]); 7] = [
    // Vendor, device, command, status with a capability list; revision 1, class 04 80 00.
    (0x00, &[0xF4, 0x1A, 0xFC, 0x10, 0, 0, 0x10, 0, 1, 0, 0x80, 4]),
    // Subsystem; first capability.
    (0x2C, &[0xF4, 0x1A, 0x0F, 0xCB, 0, 0, 0, 0, 0x40]),
    // PCI Express, version 2, endpoint; FLR and role-based errors; device control as in the standard.
    (0x40, &[0x10, 0x80, 2, 0, 0, 0x80, 0, 0x10, 0x10, 0x28]),
    (0x4C, &[0x11]),
    (0x52, &[0x11]),
    // MSI-X: two vectors, table at 0 and pending bits at 0x800 of BAR 4.
    (0x80, &[0x11, 0, 1, 0, 4, 0, 0, 0, 4, 8, 0, 0]),
    (0xFFC, &[0, 0, 0, 0]),
];

#[test]
fn configuration_space_has_these_bytes_and_no_others() {
    let function = function(None);
    let mut expected = vec![0; config::BYTES];
    for (at, bytes) in GOLDEN {
        expected[at..][..bytes.len()].copy_from_slice(bytes);
    }
    let mut bytes = vec![0xAA; config::BYTES];
    function.read_config(0, &mut bytes);
    assert_eq!(bytes, expected);
    let mut beyond = [0; 4];
    function.read_config(config::BYTES as u64 - 2, &mut beyond);
    assert_eq!(beyond, [0, 0, 0xFF, 0xFF]);
    function.read_config(u64::MAX, &mut beyond);
    assert_eq!(beyond, [0xFF; 4]);
}

#[test]
fn a_host_that_writes_ones_reads_the_sizes_of_the_bars() {
    let mut function = function(None);
    let sizes = [0xFFFF_F000, 0, 0xFFFF_F000, 0, 0xFFFF_F000, 0_u32];
    for (bar, size) in sizes.into_iter().enumerate() {
        let (at, mut read) = ((config::BAR + 4 * bar) as u64, [0; 4]);
        function.write_config(at, &[0xFF; 4]);
        function.read_config(at, &mut read);
        assert_eq!(u32::from_le_bytes(read), size, "BAR {bar}");
        function.write_config(at, &0xFEDC_B000_u32.to_le_bytes());
        function.read_config(at, &mut read);
        assert_eq!(u32::from_le_bytes(read), 0xFEDC_B000 & size, "BAR {bar}");
    }
    // No ROM, and identity cannot be written.
    for at in [0x30, 0x00] {
        let (mut before, mut after) = ([0; 4], [0; 4]);
        function.read_config(at, &mut before);
        function.write_config(at, &[0xFF; 4]);
        function.read_config(at, &mut after);
        assert_eq!(after, before);
    }
    function.write_config(u64::MAX - 1, &[0xFF; 4]);
    function.write_config(config::BYTES as u64 - 1, &[0xFF; 4]);
}

#[test]
fn registers_have_their_reset_values() {
    let mut function = enabled(None);
    assert_eq!(function.u32(MAGIC).to_le_bytes(), *b"CBUF");
    assert_eq!(function.u32(VERSION), 1);
    assert_eq!(function.u32(FEATURES), FEATURE_CREDIT);
    for register in [CHANNEL, CONTROL, STATUS, ERRORS, GEOMETRY, QUALITY & !3, 0x1C, END, 0xFFC] {
        assert_eq!(function.u32(register), 0, "{register:#x}");
    }
    for register in [FAULT_IOVA, RING_IOVA, CREDIT, FRAME_PERIOD_NS, FRAMES] {
        assert_eq!(function.u64(register), 0, "{register:#x}");
    }
    assert_eq!(function.u64(RING_BYTES), RING);
    // The largest payload of 40000 bytes, four to 35 zeros, the trailer and the gap.
    assert_eq!(function.u64(MAX_SLOT_BYTES), 40_064);
    assert_eq!(function.errors(), 0);
}

#[test]
fn an_access_of_eight_bytes_is_two_of_four() {
    let mut function = enabled(None);
    function.write_registers(RING_IOVA, &0x1122_3344_5566_7788_u64.to_le_bytes());
    assert_eq!(function.u32(RING_IOVA), 0x5566_7788);
    assert_eq!(function.u32(RING_IOVA + 4), 0x1122_3344);
    let mut wide = [0; 8];
    function.read_registers(RING_IOVA, &mut wide);
    assert_eq!(u64::from_le_bytes(wide), 0x1122_3344_5566_7788);
    // The high half is that of the time when the low one was read.
    assert_eq!(function.u32(RING_IOVA), 0x5566_7788);
    function.put(RING_IOVA + 4, 7);
    assert_eq!(function.u32(RING_IOVA + 4), 0x1122_3344);
    assert_eq!(function.u64(RING_IOVA), 7 << 32 | 0x5566_7788);
    assert_eq!(function.errors(), 0);
}

#[test]
fn what_the_registers_do_not_allow_changes_nothing_and_is_told() {
    let mut function = enabled(None);
    for (offset, bytes) in [(MAGIC, 1), (MAGIC, 2), (RING_IOVA + 4, 8), (2, 4), (0, 16), (0, 3)] {
        let mut read = vec![0; bytes];
        function.read_registers(offset, &mut read);
        assert!(read.iter().all(|&byte| byte == 0xFF), "{bytes} at {offset:#x}");
        assert_eq!(function.errors(), ERROR_ACCESS);
        function.put(ERRORS, ERROR_ACCESS);
        assert_eq!(function.errors(), 0, "a one clears it");
    }
    for register in [MAGIC, VERSION, STATUS, FAULT_IOVA, MAX_SLOT_BYTES, FRAMES + 4, GEOMETRY] {
        let before = function.u32(register);
        function.put(register, !before);
        assert_eq!((function.u32(register), function.errors()), (before, ERROR_ACCESS));
        function.put(ERRORS, u32::MAX);
    }
    function.put(0x1C, 1);
    function.put(0x800, 1);
    assert_eq!((function.u32(0x1C), function.errors()), (0, 0), "nothing stands there");
}

#[test]
fn nobody_answers_while_memory_decoding_is_off() {
    let mut function = function(None);
    assert_eq!(function.u32(MAGIC), u32::MAX);
    function.put(RING_IOVA, 0x1000);
    function.write_config(config::COMMAND as u64, &config::COMMAND_MEMORY.to_le_bytes());
    assert_eq!((function.u32(MAGIC), function.u64(RING_IOVA)), (MAGIC_VALUE, 0));
}

#[test]
fn a_start_that_cannot_be_is_refused_with_its_reason() {
    let mut function = enabled(None);
    for (iova, bytes) in [
        (IOVA + 1, RING),
        (IOVA + 2048, RING),
        (IOVA, RING - 1),
        (IOVA, 4096),
        (IOVA, 0),
        (u64::MAX - 4095, RING),
        (0, u64::MAX - 4095),
    ] {
        function.put_wide(RING_IOVA, iova);
        function.put_wide(RING_BYTES, bytes);
        function.put(CONTROL, CONTROL_RUN);
        let told = (function.errors(), function.u32(CONTROL), function.u32(STATUS));
        assert_eq!(told, (ERROR_CONFIG, 0, 0), "{bytes:#x} at {iova:#x}");
        function.put(ERRORS, u32::MAX);
    }
    assert_eq!(function.page_u64(page::MAGIC), 0, "no status page before the first start");
    function.write_config(config::COMMAND as u64, &config::COMMAND_MEMORY.to_le_bytes());
    function.run(0);
    assert_eq!((function.errors(), function.u32(STATUS)), (ERROR_BUS_MASTER, 0));
}
