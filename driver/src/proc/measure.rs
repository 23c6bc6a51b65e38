//! The built-in processor: decodes a frame and measures its luma.

use serde::Serialize;

use crate::frame::Frame;
use crate::proc::decode::{DecodeError, Decoder, Picture};
use crate::proc::framecode::{self, NumberIs};

/// A pixel of at least this luma counts as saturated.
pub const SATURATED_LUMA: u8 = 250;

/// What was measured of a frame; one JSON line of `--proc decode`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The frame's number.
    pub sequence: u64,
    /// Start of the exposure by the camera's clock: seconds since 1970.
    pub sec: u32,
    /// And microseconds.
    pub usec: u32,
    /// Pixels in a row.
    pub width: u16,
    /// Rows.
    pub height: u16,
    /// What the pixels say.
    #[serde(flatten)]
    pub luma: Luma,
    /// The number in the code of a synthetic picture.
    pub number: Option<u64>,
    /// Whether that number is the frame's or the place in a cycle.
    pub number_is: Option<NumberIs>,
    /// The timestamp in the code: seconds since 1970.
    pub code_sec: Option<u32>,
    /// And microseconds.
    pub code_usec: Option<u32>,
}

/// Figures of the luma of all pixels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Luma {
    /// Average, 0 to 255.
    pub mean: f64,
    /// The lowest luma that at least 1 % of the pixels do not exceed.
    pub p1: u8,
    /// The same for 50 %.
    pub p50: u8,
    /// The same for 99 %.
    pub p99: u8,
    /// Share of the pixels with a luma of at least [`SATURATED_LUMA`], 0 to 1.
    pub saturated: f64,
    /// Mean square of the Laplacian `4 c - left - right - above - below` over all pixels that have
    /// four neighbours; 0 if there are none. It falls when a lens loses its focus, and depends on
    /// the scene and on noise, so that it compares frames of one camera only.
    pub sharpness: f64,
}

impl Decoder {
    /// Decodes a frame and measures it.
    ///
    /// # Errors
    /// If the frame cannot be decoded, as noise cannot.
    pub fn measure(&mut self, frame: &Frame) -> Result<Measured, DecodeError> {
        let (geometry, time) = (frame.geometry(), frame.time());
        let picture = self.decode(frame)?;
        let code = framecode::read(&picture);
        Ok(Measured {
            sequence: frame.sequence(),
            sec: time.sec,
            usec: time.usec,
            width: geometry.width,
            height: geometry.height,
            luma: Luma::of(&picture),
            number: code.map(|code| code.number.into()),
            number_is: code.map(|code| code.number_is),
            code_sec: code.map(|code| code.time.sec),
            code_usec: code.map(|code| code.time.usec),
        })
    }
}

impl Luma {
    /// Measures a picture of at least one pixel.
    #[must_use]
    pub fn of(picture: &Picture<'_>) -> Luma {
        let histogram = histogram(picture.luma);
        let pixels = picture.luma.len() as f64;
        let sum: u64 = (0u64..).zip(histogram).map(|(luma, count)| luma * count).sum();
        let saturated: u64 = histogram[usize::from(SATURATED_LUMA)..].iter().sum();
        Luma {
            mean: sum as f64 / pixels,
            p1: percentile(&histogram, 1),
            p50: percentile(&histogram, 50),
            p99: percentile(&histogram, 99),
            saturated: saturated as f64 / pixels,
            sharpness: sharpness(picture),
        }
    }
}

fn histogram(luma: &[u8]) -> [u64; 256] {
    let mut histogram = [0; 256];
    luma.iter().for_each(|&luma| histogram[usize::from(luma)] += 1);
    histogram
}

fn percentile(histogram: &[u64; 256], percent: u64) -> u8 {
    let pixels: u64 = histogram.iter().sum();
    let mut below = 0;
    let reached = |&count: &u64| {
        below += count;
        below * 100 >= pixels * percent
    };
    histogram.iter().position(reached).unwrap_or(0) as u8
}

fn sharpness(picture: &Picture<'_>) -> f64 {
    let Picture { width, height, luma } = *picture;
    if width < 3 || height < 3 {
        return 0.0;
    }
    let rows: Vec<&[u8]> = luma.chunks_exact(width).collect();
    let sum: u64 = rows.windows(3).map(|rows| row_energy(rows[0], rows[1], rows[2])).sum();
    sum as f64 / ((width - 2) * (height - 2)) as f64
}

/// Sum of the squared Laplacian over the inner pixels of a row. A square is at most 1020^2, so that
/// 32 bits would hold 4128 of them only.
fn row_energy(above: &[u8], row: &[u8], below: &[u8]) -> u64 {
    let inner = row.windows(3).zip(&above[1..]).zip(&below[1..]);
    inner
        .map(|((row, &above), &below)| {
            let around = [row[0], row[2], above, below].map(i32::from).iter().sum::<i32>();
            let laplacian = 4 * i32::from(row[1]) - around;
            u64::from((laplacian * laplacian) as u32)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use circbuf_abi::framecode::LUMA_CLEAR;

    use super::*;
    use crate::jpeg::flat;
    use crate::record::{PAYLOAD_OFFSET, RECORD_HEADER_BYTES, RecordHeader, RecordKind};
    use crate::ring::{FrameHeader, Geometry, Timestamp, padded};
    use crate::slab::SlabPool;

    fn frame(geometry: Geometry, payload: &[u8]) -> Frame {
        let length = payload.len() as u32;
        let header = RecordHeader {
            kind: RecordKind::Frame,
            synthesised: true,
            camera: 0,
            length,
            sequence: 41,
            epoch: 0,
            cursor: 0,
            realtime_ns: 0,
            monotonic_ns: 0,
            lost_before: 0,
            session: 0,
        };
        let mut slab = SlabPool::new(1 << 22).take(header.record_bytes()).expect("4 MiB are free");
        let stamp = FrameHeader::synthesise(geometry, length);
        slab[RECORD_HEADER_BYTES..PAYLOAD_OFFSET].copy_from_slice(&stamp.0);
        slab[PAYLOAD_OFFSET..][..padded(length) as usize].fill(0);
        slab[PAYLOAD_OFFSET..][..payload.len()].copy_from_slice(payload);
        Frame::seal(slab, header, Timestamp { sec: 7, usec: 8 }, None)
    }

    fn luma(width: usize, height: usize, luma: &[u8]) -> Luma {
        Luma::of(&Picture { width, height, luma })
    }

    #[test]
    fn a_picture_measured_by_hand() {
        let measured = luma(4, 3, &[0, 0, 0, 0, 0, 10, 250, 0, 0, 0, 0, 255]);
        assert_eq!(measured.mean, 515.0 / 12.0);
        assert_eq!((measured.p1, measured.p50, measured.p99), (0, 0, 255));
        assert_eq!(measured.saturated, 2.0 / 12.0);
        // The two inner pixels: 4 * 10 - 250 and 4 * 250 - 10.
        assert_eq!(measured.sharpness, f64::from(210 * 210 + 990 * 990) / 2.0);
    }

    #[test]
    fn percentiles_are_the_lowest_luma_that_covers_the_share() {
        let ramp: Vec<u8> = (0..100).collect();
        let measured = luma(100, 1, &ramp);
        assert_eq!((measured.p1, measured.p50, measured.p99), (0, 49, 98));
        assert_eq!(measured.sharpness, 0.0);
    }

    #[test]
    fn a_coloured_frame_without_a_code_is_measured() {
        let geometry = flat::color(32, 16);
        let scan = flat::scan(geometry, |column, _| if column < 2 { 40 } else { 255 });
        let measured = Decoder::new().measure(&frame(geometry, &scan)).unwrap();
        assert_eq!((measured.sequence, measured.sec, measured.usec), (41, 7, 8));
        assert_eq!((measured.width, measured.height, measured.number), (32, 16, None));
        assert_eq!((measured.luma.p1, measured.luma.p99), (40, 255));
        assert_eq!((measured.luma.mean, measured.luma.saturated), (147.5, 0.5));
        // One edge of 215 in 30 x 14 inner pixels, seen from both sides.
        assert_eq!(measured.luma.sharpness, f64::from(2 * 14 * 215 * 215) / f64::from(30 * 14));
    }

    #[test]
    fn a_frame_with_a_code_tells_its_number_through_jpeg() {
        let geometry = flat::gray(152, 80);
        let code = framecode::golden::ROWS;
        let black = |column: usize, row: usize| {
            let cell = code
                .get(row.wrapping_sub(1))
                .and_then(|r| r.as_bytes().get(column.wrapping_sub(1)));
            cell == Some(&b'#')
        };
        let scan = flat::scan(geometry, |c, r| if black(c, r) { 16 } else { LUMA_CLEAR });
        let measured = Decoder::new().measure(&frame(geometry, &scan)).unwrap();
        let line = serde_json::to_value(&measured).unwrap();
        assert_eq!(line["number"], 0x1234_5678);
        assert_eq!(line["number_is"], "frame");
        assert_eq!(
            (&line["code_sec"], &line["code_usec"]),
            (&1_191_135_874.into(), &197_565.into())
        );
        assert!(line["mean"].is_f64() && line["luma"].is_null());
    }
}
