//! The picture of a camera that was set to another size and colour mode.
use circbuf_abi::header::COLOR_MODE_MONO4;
use jpeg_encoder::{ImageBuffer, JpegColorType};

use crate::encode::Encoder;
use crate::model::Geometry;

const WIDTH: u16 = 64;
const HEIGHT: u16 = 48;
const QUALITY: u8 = 70;

/// A small gray ramp, compressed.
#[derive(Debug)]
pub(super) struct OtherPicture {
    payload: Vec<u8>,
    quality2: u16,
}

impl OtherPicture {
    pub(super) fn compress() -> Self {
        let mut encoder = Encoder::new(QUALITY);
        let payload =
            encoder.encode(Ramp).expect("a few pixels can be compressed").payload.to_vec();
        Self { payload, quality2: encoder.quality2() }
    }

    pub(super) fn payload_bytes(&self) -> u32 {
        self.payload.len() as u32
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub(super) fn geometry(&self) -> Geometry {
        let Self { quality2, .. } = *self;
        Geometry { width: WIDTH, height: HEIGHT, quality2, color_mode: COLOR_MODE_MONO4 }
    }
}

struct Ramp;

impl ImageBuffer for Ramp {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Luma
    }

    fn width(&self) -> u16 {
        WIDTH
    }

    fn height(&self) -> u16 {
        HEIGHT
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        buffers[0].extend((0..WIDTH).map(|x| (2 * (x + y)) as u8));
    }
}
