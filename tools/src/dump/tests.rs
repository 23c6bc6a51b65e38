use circbuf_abi::registers;
use circbuf_driver::record::{PAYLOAD_OFFSET, RecordHeader, RecordKind};
use circbuf_driver::ring::{FrameHeader, Geometry, padded, slot};

use super::*;

/// The listing of the camera, as its documentation prints it.
const SEED: &str = "
4b7ff8: 000000a4 06000800 016c0120 0a3946c1 01ab010a 40404040 ffff0000 000378fe
000000: {d30b03cc} 8af1dc34 a5875e77 9d4cf334 204db683 b1533cc7 c59f949e 36b1af45
000008: 90e20102 5e9ad7f1 f68cd273 130a1dc5 7e50641c 41bd14ef 140720c5 73c0e02e ...
00de38: 20a50766 4e433fc9 7614f51c 087bd2e4 988ee64e cdf41ca0 6af40e1c 0000003b
00de40: 00000000 00000000 00000000 00000000 00000000 46ff4a82 000303bd <ff0378fe>
00de48: f6285e9f aeacb0a5 00000000 00000000 00000000 46ff4a81 000a1930 ff037929
00de50: [00000000] 00000000 00000000 00000000 00000000 00000000 00000000 00000000";

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A ring of 4b8000 words with those of the listing in their places.
fn seed_ring() -> Vec<u8> {
    let mut ring = vec![0; 0x4b_8000 * 4];
    for line in SEED.lines().skip(1) {
        let (address, row) = line.split_once(": ").unwrap();
        let address = usize::from_str_radix(address, 16).unwrap();
        for (index, word) in row.split(' ').filter(|word| *word != "...").enumerate() {
            let digits = word.trim_matches(|mark| "{}<>[]".contains(mark));
            let word = u32::from_str_radix(digits, 16).unwrap();
            ring[(address + index) * 4..][..4].copy_from_slice(&word.to_le_bytes());
        }
    }
    ring
}

fn dump_of(ring: Vec<u8>) -> Dump {
    Dump::of_ring(Path::new("ring"), RingImage::new(ring).unwrap())
}

fn output(dump: &Dump, args: &DumpArgs) -> String {
    let mut out = Vec::new();
    dump.write(&mut out, args).unwrap();
    String::from_utf8(out).unwrap()
}

fn listing(ring: Vec<u8>) -> String {
    output(&dump_of(ring), &DumpArgs::default())
}

/// A stamped frame of bytes 1, 2, 3.. at an offset of a small ring of zeros.
fn put(ring: &mut [u8], start: usize, length: u32) {
    let geometry = Geometry { width: 640, height: 480, quality2: 80, color_mode: 0 };
    let mut bytes = FrameHeader::synthesise(geometry, length).0.to_vec();
    bytes.extend((0..length).map(|at| (at % 250) as u8 + 1));
    bytes.resize(32 + padded(length) as usize - 12, 0);
    for word in [7, 8, 0xFF00_0000 | length] {
        bytes.extend(word.to_le_bytes());
    }
    let ring_bytes = ring.len();
    for (at, byte) in bytes.into_iter().enumerate() {
        ring[(start + ring_bytes - 32 + at) % ring_bytes] = byte;
    }
}

fn addresses(ring_bytes: usize, start: usize, length: u32) -> Vec<String> {
    let mut ring = vec![0; ring_bytes];
    put(&mut ring, start, length);
    let row =
        |line: &str| line.split(':').next().unwrap().trim().trim_start_matches('0').to_owned();
    listing(ring).lines().map(row).collect()
}

#[test]
fn the_listing_of_the_seed_comes_out_word_for_word() {
    assert_eq!(words(&listing(seed_ring())), words(SEED));
}

#[test]
fn rows_that_coincide_are_printed_once_and_nothing_elides_nothing() {
    // Words: ring of 0x400, frame at 0x40. Header, payload, trailer, gap, next start.
    assert_eq!(addresses(4096, 256, 5), ["38", "40", "48", "50"]);
    assert_eq!(addresses(4096, 256, 17), ["38", "40", "48", "50", "58"]);
    assert_eq!(addresses(4096, 256, 40), ["38", "40", "48", "50", "58"]);
    assert_eq!(addresses(4096, 256, 64), ["38", "40", "48", "50", "58", "60"]);
    assert_eq!(addresses(4096, 256, 100), ["38", "40", "48", "...", "58", "60", "68"]);
    assert_eq!(addresses(4096, 256, 90), ["38", "40", "48", "50", "58", "60", "68"]);
}

#[test]
fn rows_wrap_at_the_ring_s_end() {
    assert_eq!(addresses(4096, 0, 5), ["3f8", "", "8", "10"]);
    assert_eq!(addresses(4096, 4064, 40), ["3f0", "3f8", "", "8", "10"]);
}

#[test]
fn the_shortest_frame_has_two_marks_in_one_row() {
    let mut ring = vec![0; 4096];
    put(&mut ring, 32, 5);
    let text = listing(ring);
    let row = "000008: {04030201} 00000005 00000000 00000000 00000000 00000007 00000008 <ff000005>";
    assert!(text.lines().any(|line| line == row), "{text}");
    assert!(text.lines().last().unwrap().starts_with("000018: [00000000] "), "{text}");
}

#[test]
fn one_frame_is_chosen_by_its_number_and_others_are_refused_with_the_count() {
    let mut ring = vec![0; 4096];
    put(&mut ring, 32, 100);
    put(&mut ring, 32 + slot(100) as usize, 5);
    let dump = dump_of(ring);
    let frame = |frame| DumpArgs { frame: Some(frame), ..DumpArgs::default() };
    assert!(output(&dump, &frame(1)).contains("{04030201} 00000005"));
    assert!(!output(&dump, &frame(0)).contains("<ff000005>"));
    let error = dump.print(&frame(2)).unwrap_err();
    assert!(error.to_string().contains("no frame 2; 2 were found"), "{error}");
}

#[test]
fn annotations_stand_beside_the_rows() {
    let args = DumpArgs { annotate: true, ..DumpArgs::default() };
    let text = output(&dump_of(seed_ring()), &args);
    assert!(text.contains("<ff0378fe>  trailer: 1191135874 s, 197565 us, length 227582"), "{text}");
    assert!(text.contains("0000003b  its last 30 bytes"), "{text}");
}

#[test]
fn json_tells_of_every_frame_and_of_what_is_left() {
    let args = DumpArgs { json: true, ..DumpArgs::default() };
    let json: serde_json::Value =
        serde_json::from_str(&output(&dump_of(seed_ring()), &args)).unwrap();
    assert_eq!(
        (&json["schema"], &json["ring_bytes"]),
        (&"circbuf.dump/2".into(), &19_791_872.into())
    );
    let [whole, stale] = &json["frames"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!((&whole["verdict"], &whole["index"]), (&"whole".into(), &0.into()));
    assert_eq!((&whole["start_word"], &whole["length"]), (&0.into(), &0x378FE.into()));
    assert_eq!((&whole["sec"], &whole["usec"]), (&1_191_135_874.into(), &197_565.into()));
    assert_eq!((&stale["verdict"], &stale["overwritten_by"]), (&"stale".into(), &0.into()));
    assert!(stale["index"].is_null() && !stale["corrupt"].as_bool().unwrap());
}

#[test]
fn check_fails_on_what_no_overwriting_explains_and_on_that_only() {
    let args = DumpArgs { check: true, ..DumpArgs::default() };
    assert_eq!(dump_of(seed_ring()).print(&args).unwrap(), Outcome::Sound);
    let mut ring = vec![0; 4096];
    put(&mut ring, 32, 100);
    put(&mut ring, 1024, 100);
    ring[1024 + 50..][..2].fill(0xFF);
    let dump = dump_of(ring);
    let text = output(&dump, &args);
    assert!(text.contains("torn: ff ff in the payload at byte 0x432 (nothing explains"), "{text}");
    assert!(text.ends_with("1 torn (160 bytes), 1 whole (160 bytes); 1 corrupt\n"), "{text}");
    assert_eq!(dump.print(&args).unwrap(), Outcome::Corrupt);
}

#[test]
fn a_ring_without_frames_is_refused_with_what_is_there_instead() {
    let refused = |ring| {
        let error = dump_of(ring).print(&DumpArgs::default()).unwrap_err();
        (error.exit_code(), error.to_string())
    };
    let (code, zeros) = refused(vec![0; 4096]);
    assert!(code == 4 && zeros.contains("all of them are zero"), "{zeros}");
    let (code, noise) = refused((0..4096).map(|at| (at * at / 7) as u8).collect());
    assert!(code == 4 && noise.contains("neither a signature nor a trailer"), "{noise}");
}

#[test]
fn what_the_register_page_says_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    let mut ring = vec![0; 4096];
    put(&mut ring, 0, 100);
    put(&mut ring, slot(100) as usize, 5);
    std::fs::write(&path, &ring).unwrap();
    let sound = |written: u64, reserved: u64| {
        let mut page = vec![0; registers::PAGE_BYTES];
        page[registers::VERSION] = 1;
        let magic = (registers::MAGIC, registers::MAGIC_VALUE);
        let words = [magic, (registers::RING_BYTES, 4096), (registers::WRITTEN, written)];
        for (field, value) in words.into_iter().chain([(registers::RESERVED, reserved)]) {
            page[field..field + 8].copy_from_slice(&value.to_le_bytes());
        }
        std::fs::write(dir.path().join("ring.regs"), page).unwrap();
        Dump::read(&path, None).unwrap().entries().filter(|(index, ..)| index.is_some()).count()
    };
    assert_eq!(sound(0, 0), 0, "nothing was written in this epoch");
    assert_eq!(sound(slot(100), slot(100)), 1, "the second frame is not all written");
    assert_eq!(sound(4096, 4096 - 32), 2);
    assert_eq!(sound(4096, 4096 + 32), 1, "the writer may be in the first frame");
}

fn record(sequence: u64, length: u32) -> Vec<u8> {
    let header = RecordHeader {
        kind: RecordKind::Frame,
        synthesised: false,
        camera: 0,
        length,
        sequence,
        epoch: 0,
        cursor: 0,
        realtime_ns: 0,
        monotonic_ns: 0,
        lost_before: 0,
        session: 0,
    };
    let mut record = vec![0; header.record_bytes()];
    let body_end = PAYLOAD_OFFSET + padded(length) as usize;
    put(&mut record[PAYLOAD_OFFSET - 32..body_end], 32, length);
    header.seal(&mut record);
    record
}

#[test]
fn a_segment_lists_the_slots_of_its_records_by_their_place_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.cbs");
    let mut file = [vec![0; 4096], record(70, 100), record(71, 5000)].concat();
    std::fs::write(&path, &file).unwrap();
    let dump = Dump::read(&path, None).unwrap();
    let text = output(&dump, &DumpArgs::default());
    let first: Vec<&str> = text.split("\n\n").next().unwrap().lines().collect();
    let starts = ["000418: ", "000420: {04030201}", "000428: ", " ...", "000438: "];
    assert_eq!(first.len(), starts.len(), "{text}");
    assert!(first.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{text}");
    let json = output(&dump, &DumpArgs { json: true, ..DumpArgs::default() });
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["frames"][1]["sequence"], &json["ring_bytes"]), (&71.into(), &().into()));
    assert_eq!(json["frames"][1]["start"], 8192 + 128);

    file[8192 + 20] ^= 1;
    std::fs::write(&path, &file).unwrap();
    let dump = Dump::read(&path, None).unwrap();
    assert_eq!(dump.broken, [8192]);
    let args = DumpArgs { check: true, ..DumpArgs::default() };
    assert_eq!(dump.print(&args).unwrap(), Outcome::Corrupt);
}

#[test]
fn a_segment_cut_anywhere_is_read_up_to_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.cbs");
    let file = [vec![0; 4096], record(70, 100), record(71, 5000)].concat();
    for cut in (0..file.len()).step_by(61) {
        std::fs::write(&path, &file[..cut]).unwrap();
        let dump = Dump::read(&path, None).unwrap();
        let whole = usize::from(cut >= 4096 + 256) + usize::from(cut >= 8192 + 96 + 32 + 5024);
        assert_eq!(dump.entries().count(), whole, "cut at {cut}");
    }
}
