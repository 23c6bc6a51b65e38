//! The Exif block of an exported frame.

use circbuf_driver::ring::Timestamp;
use exif::experimental::Writer;
use exif::{Context, Field, In, Tag, Value};
use jiff::tz::TimeZone;

/// What an APP1 segment with Exif begins with.
const SIGNATURE: &[u8; 6] = b"Exif\0\0";
/// Number of the frame, as Elphel's cameras write it (TIFF/EP).
pub const IMAGE_NUMBER: Tag = Tag(Context::Exif, 0x9211);

/// The Exif block of a frame: "Exif" and two zeros, then TIFF; without marker and length, as
/// `circbuf_driver::jpeg::file` takes it.
///
/// The time is taken for UTC, with six digits of sub-seconds. Of the sequence there is room for the
/// low 32 bits.
#[must_use]
pub fn block(time: Timestamp, sequence: u64) -> Vec<u8> {
    let ascii = |tag, text: String| field(tag, Value::Ascii(vec![text.into_bytes()]));
    let fields = [
        ascii(Tag::Make, "circbuf".into()),
        ascii(Tag::Model, "circbuf".into()),
        ascii(Tag::Software, concat!("circbuf ", env!("CARGO_PKG_VERSION")).into()),
        field(Tag::ExifVersion, Value::Undefined(b"0232".to_vec(), 0)),
        ascii(Tag::DateTimeOriginal, date_time(time.sec)),
        ascii(Tag::OffsetTimeOriginal, "+00:00".into()),
        ascii(Tag::SubSecTimeOriginal, format!("{:06}", time.usec)),
        field(IMAGE_NUMBER, Value::Long(vec![sequence as u32])),
    ];
    let mut writer = Writer::new();
    fields.iter().for_each(|field| writer.push_field(field));
    let mut tiff = std::io::Cursor::new(Vec::new());
    writer.write(&mut tiff, true).expect("plain fields of a few bytes, written to memory");
    [SIGNATURE, tiff.get_ref().as_slice()].concat()
}

fn field(tag: Tag, value: Value) -> Field {
    Field { tag, ifd_num: In::PRIMARY, value }
}

fn date_time(sec: u32) -> String {
    let time = jiff::Timestamp::from_second(sec.into()).expect("32 bits end in the year 2106");
    time.to_zoned(TimeZone::UTC).strftime("%Y:%m:%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use circbuf_driver::jpeg;
    use circbuf_driver::ring::Geometry;

    use super::*;

    #[test]
    fn another_reader_finds_time_and_number_in_the_file() {
        let time = Timestamp { sec: 0x46FF_4A82, usec: 3_565 };
        let geometry = Geometry { width: 16, height: 16, quality2: 80, color_mode: 0 };
        let file = jpeg::file(geometry, &[0], Some(&block(time, 0x1_0000_002A))).unwrap();
        let read =
            exif::Reader::new().read_from_container(&mut std::io::Cursor::new(file)).unwrap();
        let text = |tag| match &read.get_field(tag, In::PRIMARY).unwrap().value {
            Value::Ascii(lines) => String::from_utf8(lines[0].clone()).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(text(Tag::DateTimeOriginal), "2007:09:30 07:04:34");
        assert_eq!(text(Tag::SubSecTimeOriginal), "003565");
        assert_eq!(text(Tag::OffsetTimeOriginal), "+00:00");
        assert_eq!(text(Tag::Make), "circbuf");
        let number = read.get_field(IMAGE_NUMBER, In::PRIMARY).unwrap();
        assert_eq!(number.value.get_uint(0), Some(42));
    }

    #[test]
    fn the_first_and_the_last_second_have_a_date() {
        assert_eq!(date_time(0), "1970:01:01 00:00:00");
        assert_eq!(date_time(u32::MAX), "2106:02:07 06:28:15");
    }
}
