//! What the FPGA compresses: pictures drawn, read from files or a pipe, or noise.
mod checksum;
mod jpeg;
mod noise;
mod npy;
mod scene;
mod set;
mod spec;
mod stoppable;
mod synthetic;
mod y4m;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use noise::Noise;
pub use set::PictureSet;
pub use spec::{Input, SourceSpec};
pub use synthetic::Synthetic;
pub use y4m::Y4m;

use crate::encode::EncodeError;
use crate::model::{FrameTime, Geometry, Picture};
use spec::Found;

/// What is done with a JPEG whose scan the frame header cannot express.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JpegMode {
    /// It is decoded and compressed anew, and counted aloud.
    #[default]
    Auto,
    /// It is refused.
    Verbatim,
}

/// How a source makes its pictures. What a source does not need is left aside.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceOptions {
    /// Width of drawn pictures in pixels.
    pub width: u16,
    /// Height of drawn pictures in pixels.
    pub height: u16,
    /// IJG quality of what is compressed here, 1 to 100.
    pub quality: u8,
    /// What is random follows from it.
    pub seed: u64,
    /// Frames a second that are going to be asked for, `None` if as many as can be had.
    pub fps: Option<f64>,
    /// Draw without colour.
    pub gray: bool,
    /// JPEGs that do not fit.
    pub jpeg: JpegMode,
    /// Values of an `.npy` that become black and white; `None`: the smallest and the largest in
    /// the folder.
    pub window: Option<(f64, f64)>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            width: 640,
            height: 480,
            quality: 80,
            seed: 1,
            fps: Some(12.0),
            gray: false,
            jpeg: JpegMode::Auto,
            window: None,
        }
    }
}

/// A source that cannot be opened or that fails.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The name of a source was not understood.
    #[error("source {spec:?}: {reason}")]
    Spec {
        /// As given.
        spec: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// A size, a quality or a window that cannot be.
    #[error("{0}")]
    Options(String),
    /// A file or folder that could not be read.
    #[error("cannot read {}: {error}; name JPEG, .npy or .y4m files that are there and may be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file or folder that is not what it has to be.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Pictures of one source have one size.
    #[error(
        "pictures of different sizes: {} is {}x{}, {} is {}x{}; scale them, or keep them in \
         folders of their own", .0.path.display(), .0.width, .0.height,
        .1.path.display(), .1.width, .1.height
    )]
    SizesDiffer(Box<FileSize>, Box<FileSize>),
    /// A stream broke off or went wrong.
    #[error("{input}, picture {frame}: {reason}")]
    Stream {
        /// File name, or standard input.
        input: String,
        /// Frames that were read before.
        frame: u64,
        /// What is wrong.
        reason: String,
    },
    /// A picture could not be compressed into a frame.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A picture file and its size in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSize {
    /// The file.
    pub path: PathBuf,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
}

/// Pictures for the FPGA, one after the other.
#[derive(Debug)]
pub enum Source {
    /// A moving scene that tells its frame number.
    Synthetic(Synthetic),
    /// JPEG files, again and again.
    Jpeg(PictureSet),
    /// Arrays, again and again.
    Npy(PictureSet),
    /// A stream of pictures, once.
    Y4m(Box<Y4m>),
    /// Random bitstreams.
    Noise(Noise),
}

impl Source {
    /// Opens a source. Files are read and checked as a whole here, so that what is wrong with one
    /// of them is told before the camera starts; of a stream, the header is read.
    ///
    /// # Errors
    /// What is missing, unreadable, refused or does not fit together, by name.
    pub fn open(spec: &SourceSpec, options: &SourceOptions) -> Result<Self, SourceError> {
        options.check()?;
        match spec {
            SourceSpec::Synthetic { cycle } => Synthetic::new(*cycle, options).map(Self::Synthetic),
            SourceSpec::Noise { bytes_min, bytes_max } => {
                Noise::new(*bytes_min, *bytes_max, options.seed).map(Self::Noise)
            }
            SourceSpec::Y4m(input) => {
                Y4m::open(input, options.quality).map(Box::new).map(Self::Y4m)
            }
            SourceSpec::Jpeg(path) | SourceSpec::Npy(path) | SourceSpec::Path(path) => {
                match spec::find(spec, path)? {
                    Found::Jpeg(files) => jpeg::read_set(&files, options).map(Self::Jpeg),
                    Found::Npy(files) => npy::read_set(&files, options).map(Self::Npy),
                    Found::Y4m(path) => {
                        Y4m::open(&Input::File(path), options.quality).map(Box::new).map(Self::Y4m)
                    }
                }
            }
        }
    }

    /// The picture of frame `number`, whose exposure began at `time`; `None` behind the end of a
    /// stream. A stream gives its pictures in order, whatever the number.
    ///
    /// # Errors
    /// A stream that goes wrong, or a picture too large for a frame.
    pub fn next(
        &mut self,
        number: u64,
        time: FrameTime,
    ) -> Result<Option<Picture<'_>>, SourceError> {
        match self {
            Self::Synthetic(synthetic) => synthetic.next(number, time).map(Some),
            Self::Jpeg(set) | Self::Npy(set) => Ok(Some(set.picture(number))),
            Self::Y4m(stream) => stream.next(),
            Self::Noise(noise) => Ok(Some(noise.next(number))),
        }
    }

    /// Has the pictures tell their checksums, where they are sent again and again or cut from what is.
    pub(crate) fn keep_checksums(&mut self) {
        match self {
            Self::Synthetic(synthetic) => synthetic.keep_checksums(),
            Self::Jpeg(set) | Self::Npy(set) => set.keep_checksums(),
            Self::Noise(noise) => noise.keep_checksums(),
            Self::Y4m(_) => {}
        }
    }

    /// The kind of picture: of files, that of the first one; of noise, zeros.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        match self {
            Self::Synthetic(synthetic) => synthetic.geometry(),
            Self::Jpeg(set) | Self::Npy(set) => set.geometry(),
            Self::Y4m(stream) => stream.geometry(),
            Self::Noise(_) => Geometry::default(),
        }
    }

    /// No payload is longer, in stuffed bytes. Where pictures are compressed on the fly, one that
    /// turned out longer would be an error of [`Source::next`].
    #[must_use]
    pub fn payload_bytes_max(&self) -> u32 {
        match self {
            Self::Synthetic(synthetic) => synthetic.payload_bytes_max(),
            Self::Jpeg(set) | Self::Npy(set) => set.payload_bytes_max(),
            Self::Y4m(stream) => stream.payload_bytes_max(),
            Self::Noise(noise) => noise.payload_bytes_max(),
        }
    }

    /// What the user should be told at the start, a sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        match self {
            Self::Synthetic(synthetic) => synthetic.notes(),
            Self::Jpeg(set) | Self::Npy(set) => set.notes(),
            Self::Y4m(stream) => stream.notes(),
            Self::Noise(noise) => noise.notes(),
        }
    }

    /// Set, it ends a read that waits for somebody who sends nothing: [`Source::next`] fails then.
    /// `None` where nothing waits.
    #[must_use]
    pub fn stop_flag(&self) -> Option<Arc<AtomicBool>> {
        match self {
            Self::Y4m(stream) => stream.stop_flag(),
            _ => None,
        }
    }

    /// Frames a second that a stream says it has.
    #[must_use]
    pub fn fps_hint(&self) -> Option<f64> {
        match self {
            Self::Y4m(stream) => stream.fps_hint(),
            _ => None,
        }
    }
}

impl SourceOptions {
    fn check(&self) -> Result<(), SourceError> {
        if !(1..=100).contains(&self.quality) {
            let quality = self.quality;
            return Err(SourceError::Options(format!("a quality of {quality}; it is 1 to 100")));
        }
        if let Some((low, high)) = self.window
            && !(low.is_finite() && high.is_finite() && low < high)
        {
            let reason = format!("a window from {low} to {high}; the first has to be the smaller");
            return Err(SourceError::Options(reason));
        }
        Ok(())
    }
}

fn refused(path: &std::path::Path, reason: impl ToString) -> SourceError {
    SourceError::Refused { path: path.into(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
