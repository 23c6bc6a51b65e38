//! Two-dimensional arrays as numpy stores them, scaled to 8 bits of gray.
use std::path::Path;

use jpeg_encoder::{ImageBuffer, JpegColorType};

use super::spec::{Files, read_file};
use super::{FileSize, PictureSet, SourceError, SourceOptions, refused};
use crate::encode::Encoder;

/// A file is read as a whole.
const FILE_BYTES_MAX: u64 = 1 << 28;
const MAGIC: &[u8] = b"\x93NUMPY";

/// Type of an element; two bytes are little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    U8,
    I16,
    U16,
}

/// A parsed file.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Array<'a> {
    width: u16,
    height: u16,
    element: Element,
    /// In C order, whole.
    bytes: &'a [u8],
}

/// The values that become black and white.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Window {
    low: f64,
    high: f64,
}

/// Reads and compresses all files.
pub(super) fn read_set(files: &Files, options: &SourceOptions) -> Result<PictureSet, SourceError> {
    let mut set = PictureSet::default();
    let window = match options.window {
        Some((low, high)) => Window { low, high },
        None => window_over(files)?,
    };
    let mut encoder = Encoder::new(options.quality);
    for path in &files.paths {
        with_array(path, |array| {
            let size = FileSize { path: path.clone(), width: array.width, height: array.height };
            let quality2 = encoder.quality2();
            let scan = encoder.encode(Gray { array, window });
            set.push(size, scan.map_err(|error| refused(path, error))?, quality2)
        })?;
    }
    set.note(format!("values from {} to {} become 8 bits of gray", window.low, window.high));
    if files.ignored > 0 {
        set.note(format!("other files in the folder, ignored: {}", files.ignored));
    }
    Ok(set)
}

/// From the smallest to the largest value of all files.
fn window_over(files: &Files) -> Result<Window, SourceError> {
    let mut range: Option<(i32, i32)> = None;
    for path in &files.paths {
        with_array(path, |array| {
            for value in array.lines().flatten() {
                let (low, high) = range.unwrap_or((value, value));
                range = Some((low.min(value), high.max(value)));
            }
            Ok(())
        })?;
    }
    let (low, high) = range.map_or((0.0, 0.0), |(low, high)| (f64::from(low), f64::from(high)));
    // A single value everywhere is black, and not a division by zero.
    Ok(Window { low, high: high.max(low + 1.0) })
}

fn with_array<R>(
    path: &Path,
    then: impl FnOnce(Array<'_>) -> Result<R, SourceError>,
) -> Result<R, SourceError> {
    let bytes = read_file(path, FILE_BYTES_MAX)?;
    then(parse(&bytes).map_err(|reason| refused(path, reason))?)
}

/// Parses a file of version 1.0, 2.0 or 3.0.
fn parse(file: &[u8]) -> Result<Array<'_>, String> {
    let (header, bytes) = split_header(file)?;
    let descr = value_of(header, "descr").and_then(quoted).ok_or("its header has no 'descr'")?;
    let element = element_of(descr)?;
    match value_of(header, "fortran_order") {
        Some(order) if order.starts_with("False") => {}
        Some(order) if order.starts_with("True") => {
            return Err("in Fortran order; save it with numpy.ascontiguousarray".into());
        }
        _ => return Err("its header has no 'fortran_order'".into()),
    }
    let (height, width) = shape_of(header)?;
    let expected = usize::from(width) * usize::from(height) * element.bytes();
    if bytes.len() != expected {
        let found = bytes.len();
        return Err(format!("{found} bytes of data, {height}x{width} of {descr} take {expected}"));
    }
    Ok(Array { width, height, element, bytes })
}

fn split_header(file: &[u8]) -> Result<(&str, &[u8]), String> {
    let rest = file.strip_prefix(MAGIC).ok_or("no npy file (it does not begin with 93 NUMPY)")?;
    let (bytes, rest) = match rest {
        [1, 0, low, high, rest @ ..] => (usize::from(u16::from_le_bytes([*low, *high])), rest),
        [2 | 3, 0, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        [1..=3, 0, ..] | [] | [_] => return Err("truncated in its header".into()),
        [major, minor, ..] => {
            return Err(format!("npy version {major}.{minor}; 1.0 to 3.0 are read"));
        }
    };
    let (header, data) = rest.split_at_checked(bytes).ok_or("truncated in its header")?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    Ok((header, data))
}

/// What stands behind a key of the header, a Python dict literal without nesting but the shape.
fn value_of<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}'"))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

fn quoted(value: &str) -> Option<&str> {
    value.strip_prefix('\'')?.split_once('\'').map(|(text, _)| text)
}

fn element_of(descr: &str) -> Result<Element, String> {
    match descr {
        "|u1" | "<u1" => Ok(Element::U8),
        "<i2" => Ok(Element::I16),
        "<u2" => Ok(Element::U16),
        ">i2" | ">u2" => Err(format!("big endian ({descr}); convert it with .astype('<u2')")),
        _ => Err(format!("elements of type {descr:?}; |u1, <i2 and <u2 are read")),
    }
}

/// Rows and columns.
fn shape_of(header: &str) -> Result<(u16, u16), String> {
    let shape = value_of(header, "shape")
        .and_then(|value| value.strip_prefix('(')?.split_once(')'))
        .map(|(shape, _)| shape)
        .ok_or("its header has no 'shape'")?;
    let sizes: Vec<&str> =
        shape.split(',').map(str::trim).filter(|size| !size.is_empty()).collect();
    let &[rows, columns] = sizes.as_slice() else {
        return Err(format!("{} dimensions, shape ({shape}); a picture has 2", sizes.len()));
    };
    match (rows.parse(), columns.parse()) {
        (Ok(rows @ 1..), Ok(columns @ 1..)) => Ok((rows, columns)),
        _ => Err(format!("shape ({shape}); rows and columns are 1 to 65535")),
    }
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
        }
    }

    fn value(self, bytes: &[u8]) -> i32 {
        match (self, bytes) {
            (Self::I16, [low, high]) => i16::from_le_bytes([*low, *high]).into(),
            (Self::U16, [low, high]) => u16::from_le_bytes([*low, *high]).into(),
            _ => bytes[0].into(),
        }
    }
}

impl<'a> Array<'a> {
    fn line(self, y: usize) -> impl Iterator<Item = i32> + 'a {
        let bytes = usize::from(self.width) * self.element.bytes();
        let line = &self.bytes[y * bytes..][..bytes];
        line.chunks_exact(self.element.bytes()).map(move |bytes| self.element.value(bytes))
    }

    fn lines(self) -> impl Iterator<Item = impl Iterator<Item = i32> + 'a> {
        (0..usize::from(self.height)).map(move |y| self.line(y))
    }
}

impl Window {
    fn level(self, value: i32) -> u8 {
        let level = (f64::from(value) - self.low) / (self.high - self.low) * 255.0;
        level.round().clamp(0.0, 255.0) as u8
    }
}

struct Gray<'a> {
    array: Array<'a>,
    window: Window,
}

impl ImageBuffer for Gray<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Luma
    }

    fn width(&self) -> u16 {
        self.array.width
    }

    fn height(&self) -> u16 {
        self.array.height
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let line = self.array.line(usize::from(y));
        buffers[0].extend(line.map(|value| self.window.level(value)));
    }
}

#[cfg(test)]
mod tests;
