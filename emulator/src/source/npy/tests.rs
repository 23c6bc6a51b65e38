use std::fs;

use proptest::prelude::*;

use super::*;
use crate::model::Picture;
use crate::rebuild;

fn file(version: u8, descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header =
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}   \n");
    let mut file = vec![0x93, b'N', b'U', b'M', b'P', b'Y', version, 0];
    if version == 1 {
        file.extend((header.len() as u16).to_le_bytes());
    } else {
        file.extend((header.len() as u32).to_le_bytes());
    }
    file.extend(header.bytes());
    file.extend(data);
    file
}

fn values(file: &[u8]) -> Vec<Vec<i32>> {
    parse(file).unwrap().lines().map(Iterator::collect).collect()
}

fn reason(file: &[u8]) -> String {
    parse(file).unwrap_err()
}

#[test]
fn the_three_types_in_the_three_versions() {
    for version in 1..=3 {
        let bytes = file(version, "|u1", "False", "(2, 3)", &[1, 2, 3, 4, 5, 255]);
        assert_eq!(values(&bytes), [[1, 2, 3], [4, 5, 255]]);
        let bytes = file(version, "<u2", "False", "(1, 2)", &[1, 0, 0, 0x80]);
        assert_eq!(values(&bytes), [[1, 32768]]);
        let bytes = file(version, "<i2", "False", "(2, 1)", &[1, 0, 0, 0x80]);
        assert_eq!(values(&bytes), [[1], [-32768]]);
    }
}

#[test]
fn everything_else_is_refused_with_its_reason() {
    let data = [0; 8];
    assert!(reason(&file(1, ">u2", "False", "(2, 2)", &data)).starts_with("big endian"));
    assert!(reason(&file(1, "<f4", "False", "(2, 1)", &data)).contains("\"<f4\""));
    assert!(reason(&file(1, "<u2", "True", "(2, 2)", &data)).starts_with("in Fortran order"));
    assert!(reason(&file(1, "<u2", "False", "(2, 2, 1)", &data)).starts_with("3 dimensions"));
    assert!(reason(&file(1, "<u2", "False", "(4,)", &data)).starts_with("1 dimensions"));
    assert!(reason(&file(1, "<u2", "False", "(2, 3)", &data)).starts_with("8 bytes of data"));
    assert!(reason(&file(1, "<u2", "False", "(0, 3)", &[])).contains("1 to 65535"));
    assert!(reason(&file(1, "<u2", "False", "(1, 65536)", &[])).contains("1 to 65535"));
    assert!(reason(&file(4, "<u2", "False", "(2, 2)", &data)).starts_with("npy version 4.0"));
    assert!(reason(b"").starts_with("no npy file"));
    assert!(reason(b"\x93NUMPY\x01").starts_with("truncated"));
    assert!(reason(b"\x93NUMPY\x01\x00\x10\x00{").starts_with("truncated"));
}

#[test]
fn a_window_maps_its_ends_to_black_and_white() {
    let window = Window { low: -100.0, high: 410.0 };
    assert_eq!(
        [-32768, -100, 155, 410, 32767].map(|value| window.level(value)),
        [0, 0, 128, 255, 255]
    );
}

#[test]
fn by_default_the_window_is_that_of_all_files() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut paths = Vec::new();
    for (name, low, high) in [("a.npy", 1000_u16, 3000_u16), ("b.npy", 2000, 5000)] {
        let data: Vec<u8> = (0..32 * 32)
            .flat_map(|at| if at % 32 < 16 { low } else { high }.to_le_bytes())
            .collect();
        paths.push(folder.path().join(name));
        fs::write(folder.path().join(name), file(1, "<u2", "False", "(32, 32)", &data)).unwrap();
    }
    let files = Files { paths, ignored: 0 };
    let set = read_set(&files, &SourceOptions::default()).unwrap();
    assert_eq!(set.notes(), ["values from 1000 to 5000 become 8 bits of gray"]);
    let picture = set.picture(0);
    let Picture { quality2, color_mode, width, height, .. } = picture;
    assert_eq!((quality2, color_mode, width, height), (0x5050, 14, 32, 32));
    let luma = rebuild::luma(&picture);
    assert!(luma[0] <= 3 && luma[31].abs_diff(128) <= 3, "{} {}", luma[0], luma[31]);
}

#[test]
fn one_value_everywhere_is_black() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("flat.npy");
    fs::write(&path, file(1, "|u1", "False", "(8, 8)", &[77; 64])).unwrap();
    let set =
        read_set(&Files { paths: vec![path], ignored: 0 }, &SourceOptions::default()).unwrap();
    assert!(rebuild::luma(&set.picture(0)).iter().all(|luma| *luma <= 2));
}

proptest! {
    #![proptest_config(crate::rebuild::seeded(2000))]

    #[test]
    fn flipped_and_cut_files_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        bytes in any::<prop::sample::Index>(),
    ) {
        let mut file = file(1, "<u2", "False", "(2, 2)", &[0; 8]);
        for (place, byte) in flips {
            let place = place.index(file.len());
            file[place] = byte;
        }
        let cut = bytes.index(file.len());
        prop_assert!(parse(&file[..cut]).is_err());
        if let Ok(array) = parse(&file) {
            let values = array.lines().flatten().count();
            prop_assert_eq!(values * array.element.bytes(), array.bytes.len());
        }
    }
}
