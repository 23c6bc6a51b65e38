//! A moving scene whose pictures tell which frame they are.
use std::path::PathBuf;

use circbuf_abi::framecode::{HEIGHT_MIN, WIDTH_MIN};
use circbuf_abi::header::{COLOR_MODE_COLOR, COLOR_MODE_MONO4};
use circbuf_abi::ring::PAYLOAD_BYTES_MAX;

use super::scene::{Caption, Scene};
use super::{FileSize, PictureSet, SourceError, SourceOptions};
use crate::encode::Encoder;
use crate::framecode::{BlockCode, CodeKind};
use crate::model::{FrameTime, Geometry, Picture};

/// Frames of a full turn of the scene where it is drawn on the fly.
const TURN_FRAMES: u64 = 256;
/// Pixels a second that are drawn and compressed on the fly at most. One core of a 2-core x86-64
/// virtual machine does 95 to 140 million (2048x1536 at quality 80, release build), and the driver
/// and its processors want some of it, too. Whoever asks for more gets a cycle, whatever the
/// machine and its load, so that it can be told beforehand.
const PIXELS_PER_S_MAX: f64 = 64e6;
/// Pictures of a cycle that nobody has asked for, if they fit into [`CYCLE_BYTES`].
const CYCLE_PICTURES: u32 = 25;
const CYCLE_PICTURES_MIN: u32 = 4;
const CYCLE_BYTES: u32 = 24 << 20;
/// More would take many seconds a picture, and could not be compressed into 2^24 bytes anyway.
const PIXELS_MAX: u64 = 1 << 27;

/// The scene, drawn frame by frame or as a cycle.
#[derive(Debug)]
pub struct Synthetic {
    scene: Scene,
    encoder: Encoder,
    geometry: Geometry,
    payload_bytes_max: u32,
    cycle: Option<PictureSet>,
    notes: Vec<String>,
}

impl Synthetic {
    /// A scene in the size of `options`, a cycle of `cycle` pictures if given.
    ///
    /// # Errors
    /// A picture too small for the block code, or too large for a frame.
    pub(super) fn new(cycle: Option<u32>, options: &SourceOptions) -> Result<Self, SourceError> {
        let (width, height) = (options.width, options.height);
        check_size(width, height)?;
        let encoder = Encoder::new(options.quality);
        let color_mode = if options.gray { COLOR_MODE_MONO4 } else { COLOR_MODE_COLOR };
        let geometry = Geometry { width, height, quality2: encoder.quality2(), color_mode };
        let mut source = Self {
            scene: Scene::new((width, height), options.gray, options.seed),
            encoder,
            geometry,
            payload_bytes_max: 0,
            cycle: None,
            notes: Vec::new(),
        };
        source.measure()?;
        if let Some(pictures) = cycle.or_else(|| source.cycle_needed(options.fps)) {
            source.compress_cycle(pictures)?;
        }
        Ok(source)
    }

    pub(super) fn next(
        &mut self,
        number: u64,
        time: FrameTime,
    ) -> Result<Picture<'_>, SourceError> {
        if let Some(cycle) = &self.cycle {
            return Ok(cycle.picture(number));
        }
        let turn = turn_of(number, TURN_FRAMES);
        let caption = Caption {
            code: self.code(number, time, CodeKind::Frame),
            text: [format!("FRAME {number}"), format!("TIME {}.{:06}", time.sec, time.usec)],
        };
        let Geometry { width, height, quality2, color_mode } = self.geometry;
        let payload = self.encoder.encode(&self.scene.view(turn, caption))?.payload;
        Ok(Picture { payload, crc32c: None, quality2, color_mode, width, height })
    }

    pub(super) fn keep_checksums(&mut self) {
        if let Some(cycle) = &mut self.cycle {
            cycle.keep_checksums();
        }
    }

    fn code(&self, number: u64, time: FrameTime, kind: CodeKind) -> BlockCode {
        BlockCode::new(number, time, kind, self.geometry.width, self.geometry.height)
    }

    /// The scene is much the same at every turn: what it takes at two of them, and a half more, is
    /// never reached.
    fn measure(&mut self) -> Result<(), SourceError> {
        let mut bytes_max = 0;
        for number in [0, TURN_FRAMES / 3] {
            let picture = self.next(number, FrameTime::MAX)?;
            bytes_max = bytes_max.max(picture.payload.len() as u64);
        }
        let bytes_max = bytes_max * 3 / 2 + 1024;
        let Geometry { width, height, .. } = self.geometry;
        self.payload_bytes_max = match u32::try_from(bytes_max) {
            Ok(bytes) if bytes <= PAYLOAD_BYTES_MAX => bytes,
            _ => {
                return Err(SourceError::Options(format!(
                    "a picture of {width}x{height} may take {bytes_max} bytes at this quality, a \
                     frame holds {PAYLOAD_BYTES_MAX}; ask for a lower quality or a smaller picture"
                )));
            }
        };
        Ok(())
    }

    /// Pictures of the cycle, if the encoder cannot follow.
    fn cycle_needed(&mut self, fps: Option<f64>) -> Option<u32> {
        let pixels = f64::from(self.geometry.width) * f64::from(self.geometry.height);
        let reason = match fps {
            Some(fps) if fps * pixels <= PIXELS_PER_S_MAX => return None,
            Some(fps) => format!(
                "{:.0} million pixels a second are asked for, {:.0} are drawn on the fly at most",
                fps * pixels / 1e6,
                PIXELS_PER_S_MAX / 1e6
            ),
            None => "an unpaced camera outruns the encoder".into(),
        };
        let fitting = CYCLE_BYTES / self.payload_bytes_max;
        let pictures = fitting.clamp(CYCLE_PICTURES_MIN, CYCLE_PICTURES);
        self.notes.push(format!("a cycle of {pictures} pre-compressed pictures, because {reason}"));
        Some(pictures)
    }

    fn compress_cycle(&mut self, pictures: u32) -> Result<(), SourceError> {
        let mut cycle = PictureSet::default();
        let Geometry { width, height, quality2, .. } = self.geometry;
        for place in 0..u64::from(pictures) {
            let caption = Caption {
                code: self.code(place, FrameTime::default(), CodeKind::Cycle),
                text: [format!("CYCLE {place}"), format!("OF {pictures}")],
            };
            let view = self.scene.view(turn_of(place, pictures.into()), caption);
            let scan = self.encoder.encode(&view)?;
            let file = FileSize { path: PathBuf::from("synthetic"), width, height };
            cycle.push(file, scan, quality2)?;
        }
        self.payload_bytes_max = cycle.payload_bytes_max();
        self.cycle = Some(cycle);
        if self.notes.is_empty() {
            self.notes.push(format!("a cycle of {pictures} pre-compressed pictures, as asked for"));
        }
        Ok(())
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(super) fn payload_bytes_max(&self) -> u32 {
        self.payload_bytes_max
    }

    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

fn turn_of(number: u64, frames: u64) -> u16 {
    ((number % frames) * 65536 / frames) as u16
}

fn check_size(width: u16, height: u16) -> Result<(), SourceError> {
    if usize::from(width) < WIDTH_MIN || usize::from(height) < HEIGHT_MIN {
        return Err(SourceError::Options(format!(
            "{width}x{height} pixels have no room for the block code; the smallest picture is \
             {WIDTH_MIN}x{HEIGHT_MIN}"
        )));
    }
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(SourceError::Options(format!(
            "{width}x{height} pixels may not fit into a frame; {PIXELS_MAX} is the limit"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use circbuf_abi::framecode::{KIND_CYCLE, KIND_FRAME};

    use super::*;
    use crate::framecode::cell_pixels;
    use crate::rebuild::{Told, luma, read_code};

    const TIME: FrameTime = FrameTime { sec: 1_190_000_000, usec: 123_456 };

    fn options(width: u16, height: u16, quality: u8) -> SourceOptions {
        SourceOptions { width, height, quality, ..SourceOptions::default() }
    }

    fn told(picture: &Picture<'_>) -> Option<Told> {
        let cell = cell_pixels(picture.width, picture.height);
        read_code(&luma(picture), picture.width.into(), cell)
    }

    #[test]
    fn the_code_survives_every_quality_in_both_cell_sizes_and_colours() {
        for (width, height) in [(144, 72), (321, 243), (640, 480)] {
            for quality in (10..=100).step_by(15) {
                for gray in [false, true] {
                    let options = SourceOptions { gray, ..options(width, height, quality) };
                    let mut source = Synthetic::new(None, &options).unwrap();
                    let number = 0x1_8000_0000 + u64::from(quality);
                    let expected = Told {
                        number: number as u32,
                        sec: TIME.sec,
                        usec: TIME.usec,
                        kind: KIND_FRAME,
                    };
                    let picture = source.next(number, TIME).unwrap();
                    assert_eq!(told(&picture), Some(expected), "{width}x{height} q{quality}");
                }
            }
        }
    }

    #[test]
    fn pictures_differ_are_bounded_and_take_what_a_cameras_do() {
        let mut source = Synthetic::new(None, &options(640, 480, 80)).unwrap();
        let mut last = Vec::new();
        for number in 0..TURN_FRAMES {
            let bound = source.payload_bytes_max() as usize;
            let payload = source.next(number, TIME).unwrap().payload;
            let bits_per_pixel = payload.len() as f64 * 8.0 / (640.0 * 480.0);
            assert!((0.5..=1.2).contains(&bits_per_pixel), "{bits_per_pixel} bits a pixel");
            assert!(payload.len() <= bound && payload != last);
            last = payload.to_vec();
        }
    }

    #[test]
    fn a_cycle_tells_the_place_in_it() {
        let mut source = Synthetic::new(Some(3), &options(160, 120, 80)).unwrap();
        assert_eq!(source.notes(), ["a cycle of 3 pre-compressed pictures, as asked for"]);
        let mut longest = 0;
        for number in 0..7 {
            let picture = source.next(number, TIME).unwrap();
            longest = longest.max(picture.payload.len());
            let expected = Told { number: number as u32 % 3, sec: 0, usec: 0, kind: KIND_CYCLE };
            assert_eq!((told(&picture), picture.crc32c), (Some(expected), None));
        }
        assert_eq!(source.payload_bytes_max() as usize, longest);
        source.keep_checksums();
        let picture = source.next(5, TIME).unwrap();
        assert_eq!(picture.crc32c, Some(crc_fast::crc32_iscsi(picture.payload)));
    }

    #[test]
    fn who_asks_for_more_than_can_be_followed_gets_a_cycle_and_is_told() {
        let notes = |fps| {
            let options = SourceOptions { fps, ..options(640, 480, 80) };
            Synthetic::new(None, &options).unwrap().notes()
        };
        assert!(notes(Some(200.0)).is_empty());
        assert!(notes(Some(1000.0))[0].contains("307 million pixels a second"));
        assert!(notes(None)[0].contains("unpaced"));
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let error = |width, height| {
            Synthetic::new(None, &options(width, height, 80)).unwrap_err().to_string()
        };
        assert!(error(143, 72).contains("144x72"));
        assert!(error(144, 71).contains("144x72"));
        assert!(error(65535, 65535).contains("may not fit"));
    }
}
