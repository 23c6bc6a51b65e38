use super::*;

fn geometry(quality2: u16, color_mode: u8) -> Geometry {
    Geometry { width: 2048, height: 1536, quality2, color_mode }
}

fn tables(quality2: u16) -> [Vec<u8>; 2] {
    let header = header(geometry(quality2, COLOR_MODE_COLOR)).unwrap();
    [header[0x19..0x59].to_vec(), header[0x5E..0x9E].to_vec()]
}

/// The tables that libjpeg's `cjpeg -quality 80` and `-quality 30` write.
#[rustfmt::skip]
const LUMA_80: [u8; 64] = [
    0x06, 0x04, 0x05, 0x06, 0x05, 0x04, 0x06, 0x06, 0x05, 0x06, 0x07, 0x07, 0x06, 0x08, 0x0A, 0x10,
    0x0A, 0x0A, 0x09, 0x09, 0x0A, 0x14, 0x0E, 0x0F, 0x0C, 0x10, 0x17, 0x14, 0x18, 0x18, 0x17, 0x14,
    0x16, 0x16, 0x1A, 0x1D, 0x25, 0x1F, 0x1A, 0x1B, 0x23, 0x1C, 0x16, 0x16, 0x20, 0x2C, 0x20, 0x23,
    0x26, 0x27, 0x29, 0x2A, 0x29, 0x19, 0x1F, 0x2D, 0x30, 0x2D, 0x28, 0x30, 0x25, 0x28, 0x29, 0x28,
];
#[rustfmt::skip]
const CHROMA_30_HEAD: [u8; 16] = [
    0x1C, 0x1E, 0x1E, 0x28, 0x23, 0x28, 0x4E, 0x2B, 0x2B, 0x4E, 0xA4, 0x6E, 0x5D, 0x6E, 0xA4, 0xA4,
];

#[test]
fn a_colour_header_has_623_bytes_that_stand_where_the_camera_puts_them() {
    let header = header(geometry(80, COLOR_MODE_COLOR)).unwrap();
    assert_eq!(header.len(), 623);
    assert_eq!(
        header[..0x14],
        *b"\xFF\xD8\xFF\xE0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\0\0"
    );
    assert_eq!(header[0x14..0x19], [0xFF, 0xDB, 0, 0x43, 0]);
    assert_eq!(header[0x59..0x5E], [0xFF, 0xDB, 0, 0x43, 1]);
    let sof = [0xFF, 0xC0, 0, 17, 8, 0x06, 0x00, 0x08, 0x00, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1];
    assert_eq!(header[0x9E..0xB1], sof);
    for (at, bytes, id) in [(0xB1, 33, 0x00), (0xD2, 183, 0x10), (0x189, 33, 0x01)] {
        let length = [0, bytes as u8 - 2];
        assert_eq!(header[at..at + 5], [0xFF, 0xC4, length[0], length[1], id], "at {at:#x}");
    }
    assert_eq!(header[0x1AA..0x1AF], [0xFF, 0xC4, 0, 181, 0x11]);
    assert_eq!(header[609..], [0xFF, 0xDA, 0, 12, 3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0]);
}

#[test]
fn a_gray_header_has_613_bytes_and_one_component() {
    let header = header(geometry(80, COLOR_MODE_MONO4)).unwrap();
    assert_eq!(header.len(), 613);
    assert_eq!(header[0x9E..0xA2], [0xFF, 0xC0, 0, 11]);
    assert_eq!(header[0xA7..0xAB], [1, 1, 0x22, 0]);
    assert_eq!(header[603..], [0xFF, 0xDA, 0, 8, 1, 1, 0x00, 0, 63, 0]);
}

#[test]
fn tables_are_those_of_libjpeg() {
    assert_eq!(tables(80)[0], LUMA_80);
    assert_eq!(tables(30)[1][..16], CHROMA_30_HEAD);
    assert_eq!(tables(100), [vec![1; 64], vec![1; 64]]);
}

#[test]
fn one_quality_counts_for_both_tables_and_two_for_one_each() {
    assert_eq!(tables(80), tables(0x5050));
    assert_eq!(tables(0x1E50), [tables(80)[0].clone(), tables(30)[1].clone()]);
    assert_eq!(tables(0x9E50)[1], tables(30)[0], "bit 15 takes the luma table");
    assert_eq!(tables(0x6464), tables(0x7F7F), "more than 100 counts as 100");
}

#[test]
fn portrait_turns_both_tables() {
    let unzigzag = |table: &[u8]| {
        let mut rows = [0; 64];
        ZIGZAG.iter().zip(table).for_each(|(&place, &step)| rows[usize::from(place)] = step);
        rows
    };
    for (upright, turned) in tables(50).iter().zip(tables(50 | 0x80)) {
        let (upright, turned) = (unzigzag(upright), unzigzag(&turned));
        for place in 0..64 {
            assert_eq!(turned[place], upright[place % 8 * 8 + place / 8]);
        }
    }
    assert_ne!(tables(50)[0], tables(50 | 0x80)[0]);
}

#[test]
fn what_makes_no_header_is_refused_with_its_numbers() {
    let refused = |geometry| header(geometry).unwrap_err().to_string();
    let good = geometry(80, COLOR_MODE_COLOR);
    assert!(refused(Geometry { height: 0, ..good }).contains("2048 x 0"));
    for quality2 in [0, 0x80, 0x5000, 0x8050] {
        let error = header(geometry(quality2, COLOR_MODE_COLOR)).unwrap_err();
        assert_eq!(error, JpegHeaderError::Quality { quality2 });
    }
    assert_eq!(header(geometry(80, COLOR_MODE_RAW16)), Err(JpegHeaderError::Raw));
    assert!(refused(geometry(80, 5)).contains("colour mode 5"));
    let error = file(good, &[], Some(&vec![0; EXIF_BYTES_MAX + 1])).unwrap_err();
    assert_eq!(error, JpegHeaderError::Exif { bytes: 65534 });
}

#[test]
fn a_file_is_soi_exif_header_scan_and_eoi() {
    let geometry = geometry(80, COLOR_MODE_COLOR);
    let header = header(geometry).unwrap();
    let plain = file(geometry, &[1, 2, 3], None).unwrap();
    assert_eq!(plain, [&header[..], &[1, 2, 3, 0xFF, 0xD9]].concat());
    let exif = file(geometry, &[1, 2, 3], Some(b"Exif\0\0x")).unwrap();
    assert_eq!(exif[..13], *b"\xFF\xD8\xFF\xE1\x00\x09Exif\0\0x");
    assert_eq!(exif[13..], plain[2..]);
    assert!(file(geometry, &[], Some(&vec![0; EXIF_BYTES_MAX])).is_ok());
}
