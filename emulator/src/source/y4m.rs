//! YUV4MPEG2 streams, as ffmpeg writes them.
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use circbuf_abi::header::{COLOR_MODE_COLOR, COLOR_MODE_MONO4};
use jpeg_encoder::{ImageBuffer, JpegColorType};

use super::stoppable::{Stoppable, stdin};
use super::{Input, SourceError};
use crate::encode::{Encoder, noise_bytes};
use crate::model::{Geometry, Picture};

const EMPTY: &str = "it is empty; ffmpeg writes such a stream with -f yuv4mpegpipe";
const LINE_BYTES_MAX: u64 = 1024;
/// A stream of larger pictures has probably lost its header, and each has to fit into memory.
const PIXELS_MAX: usize = 1 << 26;

/// How a stream samples colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sampling {
    Mono,
    /// Half the columns, half the lines.
    C420,
    /// Half the columns.
    C422,
    C444,
}

/// What the header of a stream says.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Header {
    width: u16,
    height: u16,
    sampling: Sampling,
    fps: Option<f64>,
    interlaced: bool,
    full_range: bool,
}

/// A stream of pictures, compressed as they come.
pub struct Y4m {
    input: String,
    reader: Box<dyn BufRead + Send>,
    header: Header,
    encoder: Encoder,
    planes: Planes,
    payload_bytes_max: u32,
    stop: Option<Arc<AtomicBool>>,
    frames: u64,
}

impl fmt::Debug for Y4m {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, header, frames, .. } = self;
        f.debug_struct("Y4m")
            .field("input", input)
            .field("header", header)
            .field("frames", frames)
            .finish_non_exhaustive()
    }
}

impl Y4m {
    /// Opens a stream and reads its header.
    ///
    /// # Errors
    /// A file that cannot be opened, or a header that is none or asks for what cannot be had.
    pub(super) fn open(input: &Input, quality: u8) -> Result<Self, SourceError> {
        let (name, file) = match input {
            Input::Stdin => ("standard input".to_owned(), stdin()),
            Input::File(path) => (path.display().to_string(), File::open(path)),
        };
        let read = |error| SourceError::Read { path: name.clone().into(), error };
        let stop = Arc::<AtomicBool>::default();
        let file = Stoppable::new(file.map_err(read)?, Arc::clone(&stop));
        let mut stream =
            Self::from_reader(&name, BufReader::with_capacity(1 << 16, file), quality)?;
        stream.stop = Some(stop);
        Ok(stream)
    }

    fn from_reader(
        input: &str,
        mut reader: impl BufRead + Send + 'static,
        quality: u8,
    ) -> Result<Self, SourceError> {
        let stream = |reason| SourceError::Stream { input: input.into(), frame: 0, reason };
        let line = read_line(&mut reader).map_err(stream)?.ok_or(EMPTY.to_owned());
        let header = Header::parse(&line.map_err(stream)?).map_err(stream)?;
        let gray = header.sampling == Sampling::Mono;
        Ok(Self {
            input: input.into(),
            reader: Box::new(reader),
            header,
            encoder: Encoder::new(quality),
            planes: Planes::new(&header),
            payload_bytes_max: noise_bytes((header.width, header.height), quality, gray),
            stop: None,
            frames: 0,
        })
    }

    /// Ends a read that waits for somebody who sends nothing; `None` where a read does not wait.
    pub(super) fn stop_flag(&self) -> Option<Arc<AtomicBool>> {
        self.stop.clone()
    }

    pub(super) fn next(&mut self) -> Result<Option<Picture<'_>>, SourceError> {
        let frame = self.frames;
        let stream = |reason| SourceError::Stream { input: self.input.clone(), frame, reason };
        match read_line(&mut self.reader).map_err(stream)? {
            None if frame == 0 => return Err(stream("it has a header, but no picture".into())),
            None => return Ok(None),
            Some(line) if line == b"FRAME" || line.starts_with(b"FRAME ") => {}
            Some(_) => return Err(stream("there is no FRAME line where one has to be".into())),
        }
        self.planes.read(&mut self.reader).map_err(stream)?;
        self.frames += 1;
        let scan = self.encoder.encode(&self.planes)?.payload.len();
        if scan > self.payload_bytes_max as usize {
            return Err(stream(format!(
                "it takes {scan} bytes, more than the {} of noise; ask for a lower quality",
                self.payload_bytes_max
            )));
        }
        let Geometry { width, height, quality2, color_mode } = self.geometry();
        let payload = self.encoder.scan();
        Ok(Some(Picture { payload, crc32c: None, quality2, color_mode, width, height }))
    }

    pub(super) fn geometry(&self) -> Geometry {
        let Header { width, height, sampling, .. } = self.header;
        let gray = sampling == Sampling::Mono;
        let color_mode = if gray { COLOR_MODE_MONO4 } else { COLOR_MODE_COLOR };
        Geometry { width, height, quality2: self.encoder.quality2(), color_mode }
    }

    pub(super) fn payload_bytes_max(&self) -> u32 {
        self.payload_bytes_max
    }

    pub(super) fn fps_hint(&self) -> Option<f64> {
        self.header.fps
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.header.interlaced {
            notes.push("the stream is interlaced: its fields stay woven".into());
        }
        if matches!(self.header.sampling, Sampling::C422 | Sampling::C444) {
            notes.push(
                "the stream has more colour than 4:2:0: every other sample is left out".into(),
            );
        }
        notes
    }
}

/// A line without its end; `None` if the stream is over.
fn read_line(reader: &mut impl BufRead) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() as u64 + 1 == LINE_BYTES_MAX => {
            Err(format!("a line is longer than {LINE_BYTES_MAX} bytes"))
        }
        Some(_) => Err("the stream is cut short in a line".into()),
    }
}

impl Header {
    fn parse(line: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("YUV4MPEG2"));
        let text = text.ok_or("no y4m stream (it does not begin with YUV4MPEG2)")?;
        let mut header = Self {
            width: 0,
            height: 0,
            sampling: Sampling::C420,
            fps: None,
            interlaced: false,
            full_range: false,
        };
        for field in text.split_ascii_whitespace() {
            header.read_field(field)?;
        }
        let Self { width, height, .. } = header;
        if width == 0 || height == 0 {
            return Err("its header tells no width and height".into());
        }
        if usize::from(width) * usize::from(height) > PIXELS_MAX {
            return Err(format!("{width}x{height}; {PIXELS_MAX} pixels is the limit"));
        }
        Ok(header)
    }

    fn read_field(&mut self, field: &str) -> Result<(), String> {
        let size =
            |size: &str| size.parse().map_err(|_| format!("a size of {size:?}; it is 1 to 65535"));
        match field.split_at_checked(1) {
            Some(("W", width)) => self.width = size(width)?,
            Some(("H", height)) => self.height = size(height)?,
            Some(("F", rate)) => self.fps = parse_rate(rate),
            Some(("I", order)) => self.interlaced = matches!(order, "t" | "b" | "m"),
            Some(("C", sampling)) => self.sampling = parse_sampling(sampling)?,
            Some(("X", "COLORRANGE=FULL")) => self.full_range = true,
            // Aspect and comments; a file may also say something that is not known here.
            _ => {}
        }
        Ok(())
    }
}

/// 0:0 means that the rate is not known.
fn parse_rate(rate: &str) -> Option<f64> {
    let (numerator, denominator) = rate.split_once(':')?;
    let (numerator, denominator): (u32, u32) = (numerator.parse().ok()?, denominator.parse().ok()?);
    (numerator > 0 && denominator > 0).then(|| f64::from(numerator) / f64::from(denominator))
}

fn parse_sampling(sampling: &str) -> Result<Sampling, String> {
    match sampling {
        "420" | "420jpeg" | "420paldv" | "420mpeg2" => Ok(Sampling::C420),
        "422" => Ok(Sampling::C422),
        "444" => Ok(Sampling::C444),
        "mono" => Ok(Sampling::Mono),
        _ => Err(format!(
            "colour C{sampling} is not read; 8 bits of C420, C422, C444 or Cmono are (with ffmpeg: \
             -pix_fmt yuv420p)"
        )),
    }
}

/// One picture, each plane as the stream has it.
struct Planes {
    header: Header,
    luma: Vec<u8>,
    blue: Vec<u8>,
    red: Vec<u8>,
    luma_levels: [u8; 256],
    chroma_levels: [u8; 256],
}

impl Planes {
    fn new(header: &Header) -> Self {
        let (width, height) = (usize::from(header.width), usize::from(header.height));
        let chroma = match header.sampling {
            Sampling::Mono => 0,
            Sampling::C420 => width.div_ceil(2) * height.div_ceil(2),
            Sampling::C422 => width.div_ceil(2) * height,
            Sampling::C444 => width * height,
        };
        let level = |value, black, range| {
            if header.full_range { value as u8 } else { expand(value, black, range) }
        };
        Self {
            header: *header,
            luma: vec![0; width * height],
            blue: vec![0; chroma],
            red: vec![0; chroma],
            luma_levels: std::array::from_fn(|value| level(value, (16, 0), 219)),
            chroma_levels: std::array::from_fn(|value| level(value, (128, 128), 224)),
        }
    }

    fn read(&mut self, reader: &mut impl Read) -> Result<(), String> {
        for plane in [&mut self.luma, &mut self.blue, &mut self.red] {
            reader.read_exact(plane).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => "the stream is cut short in a picture".to_owned(),
                _ => error.to_string(),
            })?;
        }
        Ok(())
    }

    /// The colour of a line with an even number, a byte for every pixel.
    fn push_chroma(&self, plane: &[u8], y: usize, line: &mut Vec<u8>) {
        let width = usize::from(self.header.width);
        let level = |value: &u8| self.chroma_levels[usize::from(*value)];
        let end = line.len() + width;
        let half = width.div_ceil(2);
        match self.header.sampling {
            Sampling::Mono => {}
            Sampling::C444 => line.extend(plane[y * width..][..width].iter().map(level)),
            Sampling::C420 | Sampling::C422 => {
                let row = if self.header.sampling == Sampling::C420 { y / 2 } else { y };
                let samples = plane[row * half..][..half].iter().map(level);
                line.extend(samples.flat_map(|sample| [sample; 2]));
            }
        }
        line.truncate(end);
    }
}

/// Video levels, `range` steps from `from` on, to the 255 steps from `to` on that JPEG has.
fn expand(value: usize, (from, to): (i32, i32), range: i32) -> u8 {
    let scaled = (value as i32 - from) * 255;
    let rounding = if scaled < 0 { -range / 2 } else { range / 2 };
    ((scaled + rounding) / range + to).clamp(0, 255) as u8
}

impl ImageBuffer for &Planes {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        match self.header.sampling {
            Sampling::Mono => JpegColorType::Luma,
            _ => JpegColorType::Ycbcr,
        }
    }

    fn width(&self) -> u16 {
        self.header.width
    }

    fn height(&self) -> u16 {
        self.header.height
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let (y, width) = (usize::from(y), usize::from(self.header.width));
        let line = self.luma[y * width..][..width].iter();
        buffers[0].extend(line.map(|value| self.luma_levels[usize::from(*value)]));
        if self.header.sampling == Sampling::Mono {
            return;
        }
        for (plane, buffer) in [&self.blue, &self.red].into_iter().zip(&mut buffers[1..]) {
            if y.is_multiple_of(2) {
                self.push_chroma(plane, y, buffer);
            } else {
                buffer.resize(buffer.len() + width, 128);
            }
        }
    }
}

#[cfg(test)]
mod tests;
