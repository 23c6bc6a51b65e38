use jpeg_encoder::{ColorType, SamplingFactor};
use proptest::prelude::*;

use super::*;

const WIDTH: u16 = 45;
const HEIGHT: u16 = 37;

fn pixels(channels: usize) -> Vec<u8> {
    let count = usize::from(WIDTH) * usize::from(HEIGHT) * channels;
    (0..count).map(|place| (place * place / 97 + place * 5) as u8).collect()
}

/// A file by the encoder with its own settings, but for what `set` changes.
fn encoded(color: ColorType, set: fn(&mut jpeg_encoder::Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, 75);
    set(&mut encoder);
    let channels = match color {
        ColorType::Luma => 1,
        ColorType::Rgb => 3,
        _ => 4,
    };
    encoder.encode(&pixels(channels), WIDTH, HEIGHT, color).unwrap();
    file
}

fn plain() -> Vec<u8> {
    encoded(ColorType::Rgb, |_| {})
}

fn obstacle(file: &[u8]) -> Obstacle {
    JpegFile::parse(file).unwrap().expressible().unwrap_err()
}

/// Place of the first `kind` segment's contents.
fn contents_of(file: &[u8], kind: u8) -> usize {
    file.windows(2).position(|pair| pair == [0xFF, kind]).unwrap() + 4
}

#[test]
fn a_scan_with_standard_tables_passes_as_it_is() {
    let file = plain();
    let parsed = JpegFile::parse(&file).unwrap();
    assert_eq!((parsed.width(), parsed.height(), parsed.is_gray()), (WIDTH, HEIGHT, false));
    let found = parsed.expressible().unwrap();
    assert_eq!((found.quality2, found.color_mode), (75 << 8 | 75, 0));
    assert!(file.ends_with(&[found.payload, &[0xFF, 0xD9]].concat()));
    assert!(found.payload.len() > 100);
    let before = file.len() - found.payload.len() - 2;
    assert_eq!(file[before - 3..before], [0, 63, 0], "the end of the scan header");
}

#[test]
fn gray_passes_whatever_its_sampling_factors_say() {
    let mut file = encoded(ColorType::Luma, |_| {});
    for sampling in [0x11, 0x22] {
        let at = contents_of(&file, 0xC0);
        file[at + 7] = sampling;
        let parsed = JpegFile::parse(&file).unwrap();
        let found = parsed.expressible().unwrap();
        assert_eq!((found.quality2, found.color_mode), (75 << 8 | 75, 14));
    }
}

#[test]
fn luma_and_chroma_may_be_of_different_quality() {
    let file = encoded(ColorType::Rgb, |encoder| {
        let table = |base, quality| {
            let table = crate::encode::quantisation(base, quality).map(u16::from);
            jpeg_encoder::QuantizationTableType::Custom(Box::new(table))
        };
        encoder.set_quantization_tables(
            table(&circbuf_abi::jpeg::QUANT_LUMA, 90),
            table(&circbuf_abi::jpeg::QUANT_CHROMA, 40),
        );
    });
    let parsed = JpegFile::parse(&file).unwrap();
    assert_eq!(parsed.expressible().unwrap().quality2, 40 << 8 | 90);
}

#[test]
fn components_may_be_numbered_as_they_like_but_not_r_g_b() {
    let mut file = plain();
    let (frame, scan) = (contents_of(&file, 0xC0), contents_of(&file, 0xDA));
    for (ids, is_rgb) in [([1, 2, 3], false), ([7, 0, 200], false), (*b"RGB", true)] {
        for (component, id) in ids.into_iter().enumerate() {
            file[frame + 6 + 3 * component] = id;
            file[scan + 1 + 2 * component] = id;
        }
        assert!(JpegFile::parse(&file).unwrap().expressible().is_ok(), "JFIF says YCbCr");
        let jfif = contents_of(&file, 0xE0);
        let mut bare = file.clone();
        bare[jfif..jfif + 4].copy_from_slice(b"JUNK");
        let found = JpegFile::parse(&bare).unwrap().expressible();
        assert_eq!(found.err(), is_rgb.then_some(Obstacle::Rgb));
    }
}

#[test]
fn what_a_frame_header_cannot_express_is_told() {
    let with = |set| obstacle(&encoded(ColorType::Rgb, set));
    assert_eq!(with(|it| it.set_sampling_factor(SamplingFactor::F_2_1)), Obstacle::Sampling);
    assert_eq!(with(|it| it.set_sampling_factor(SamplingFactor::F_1_1)), Obstacle::Sampling);
    assert_eq!(with(|it| it.set_restart_interval(2)), Obstacle::Restarts);
    assert_eq!(with(|it| it.set_optimized_huffman_tables(true)), Obstacle::Scans);
    assert_eq!(
        with(|it| it.set_quantization_tables(
            jpeg_encoder::QuantizationTableType::Flat,
            jpeg_encoder::QuantizationTableType::Default
        )),
        Obstacle::Quantisation
    );
    let optimised = encoded(ColorType::Luma, |it| it.set_optimized_huffman_tables(true));
    assert_eq!(obstacle(&optimised), Obstacle::Huffman);
}

#[test]
fn adobe_can_say_that_it_is_rgb() {
    let mut file = plain();
    let adobe = [&[0xFF, 0xEE, 0, 14][..], b"Adobe", &[0; 7]].concat();
    file.splice(2..2, adobe);
    assert_eq!(obstacle(&file), Obstacle::Rgb);
}

#[test]
fn kinds_that_no_camera_makes_are_refused_by_name() {
    let message = |file: &[u8]| JpegFile::parse(file).unwrap_err().to_string();
    let progressive = encoded(ColorType::Rgb, |encoder| encoder.set_progressive(true));
    assert!(message(&progressive).starts_with("progressive;"));
    assert!(message(&encoded(ColorType::Cmyk, |_| {})).starts_with("four components"));
    for (kind, name) in [(0xC3, "lossless"), (0xC9, "arithmetic"), (0xC5, "hierarchical")] {
        let mut file = plain();
        let at = contents_of(&file, 0xC0);
        file[at - 3] = kind;
        assert!(message(&file).starts_with(name));
    }
    let mut deep = plain();
    let at = contents_of(&deep, 0xC0);
    deep[at] = 12;
    assert!(message(&deep).starts_with("12 bits"));
    let large = vec![0; PAYLOAD_BYTES_MAX as usize + 1];
    assert_eq!(JpegFile::parse(&large).unwrap_err(), JpegError::TooLarge { bytes: 1 << 24 });
}

#[test]
fn restart_markers_without_an_interval_are_corrupt() {
    let mut file = plain();
    let end = file.len() - 2;
    file.splice(end..end, [0xFF, 0xD0]);
    assert!(matches!(JpegFile::parse(&file), Err(JpegError::Scan { .. })));
}

#[test]
fn bytes_behind_the_end_do_not_matter_but_bytes_behind_the_scan_do() {
    let mut file = plain();
    file.extend([1, 2, 3]);
    assert!(JpegFile::parse(&file).is_ok());
    let end = file.len() - 5;
    file.splice(end..end, [0xAA; 8]);
    let error = JpegFile::parse(&file).unwrap_err().to_string();
    assert!(error.contains("left over"), "{error}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for file in [plain(), encoded(ColorType::Rgb, |encoder| encoder.set_restart_interval(1))] {
        for bytes in 0..file.len() {
            assert!(JpegFile::parse(&file[..bytes]).is_err(), "cut at {bytes}");
        }
    }
}

#[test]
fn a_scan_without_its_end_is_refused_though_the_marker_is_there() {
    let file = plain();
    let scan = contents_of(&file, 0xDA) + 10;
    for bytes in scan..file.len() - 2 {
        if file[bytes - 1] != 0xFF {
            let cut = [&file[..bytes], &[0xFF, 0xD9]].concat();
            assert!(JpegFile::parse(&cut).is_err(), "cut at {bytes}");
        }
    }
}

proptest! {
    #![proptest_config(crate::rebuild::seeded(2000))]

    #[test]
    fn flipped_bytes_never_panic_and_what_is_accepted_is_decodable(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        restarts in any::<bool>(),
    ) {
        let mut file = if restarts {
            encoded(ColorType::Rgb, |encoder| encoder.set_restart_interval(3))
        } else {
            plain()
        };
        for (place, byte) in flips {
            let place = place.index(file.len());
            file[place] = byte;
        }
        if let Ok(parsed) = JpegFile::parse(&file)
            && let Ok(found) = parsed.expressible()
        {
            prop_assert!(crate::escape::is_stuffed(found.payload));
            let picture = crate::model::Picture {
                payload: found.payload,
                crc32c: None,
                quality2: found.quality2,
                color_mode: found.color_mode,
                width: parsed.width(),
                height: parsed.height(),
            };
            crate::rebuild::luma(&picture);
        }
    }

    #[test]
    fn random_bytes_behind_soi_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let file = [&[0xFF, 0xD8, 0xFF][..], &bytes].concat();
        let _ = JpegFile::parse(&file);
    }
}
