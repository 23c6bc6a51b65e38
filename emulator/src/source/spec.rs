//! Names of sources, and the files behind a path.
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use circbuf_abi::ring::PAYLOAD_BYTES_MAX;

use super::{SourceError, refused};

/// The most pictures of a cycle.
const CYCLE_MAX: u32 = 100_000;

/// Where a stream comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file or a named pipe.
    File(PathBuf),
}

/// Which source, as the user names it: `synthetic`, `synthetic:N`, `noise:MIN[-MAX]`, `y4m:PATH`,
/// `y4m:-`, `jpeg:PATH`, `npy:PATH` or the path of a file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// A moving scene.
    Synthetic {
        /// Compress so many pictures beforehand and send them again and again.
        cycle: Option<u32>,
    },
    /// Random bitstreams.
    Noise {
        /// The shortest payload in stuffed bytes.
        bytes_min: u32,
        /// The longest payload in stuffed bytes.
        bytes_max: u32,
    },
    /// A YUV4MPEG2 stream.
    Y4m(Input),
    /// A JPEG file or a folder of them.
    Jpeg(PathBuf),
    /// An `.npy` file or a folder of them.
    Npy(PathBuf),
    /// A file or folder of one of these kinds.
    Path(PathBuf),
}

impl FromStr for SourceSpec {
    type Err = SourceError;

    fn from_str(spec: &str) -> Result<Self, SourceError> {
        let path = |path: &str| {
            if path.is_empty() { Err("no path is given".to_owned()) } else { Ok(path.into()) }
        };
        let parsed = match spec.split_once(':') {
            None if spec == "synthetic" => Ok(Self::Synthetic { cycle: None }),
            None if spec == "noise" => Err("how long? noise:MIN-MAX, in bytes".into()),
            Some(("synthetic", pictures)) => parse_cycle(pictures),
            Some(("noise", range)) => parse_noise(range),
            Some(("y4m", "-")) => Ok(Self::Y4m(Input::Stdin)),
            Some(("y4m", file)) => path(file).map(|file| Self::Y4m(Input::File(file))),
            Some(("jpeg", file)) => path(file).map(Self::Jpeg),
            Some(("npy", file)) => path(file).map(Self::Npy),
            _ => path(spec).map(Self::Path),
        };
        parsed.map_err(|reason| SourceError::Spec { spec: spec.into(), reason })
    }
}

fn parse_cycle(pictures: &str) -> Result<SourceSpec, String> {
    match pictures.parse() {
        Ok(cycle @ 1..=CYCLE_MAX) => Ok(SourceSpec::Synthetic { cycle: Some(cycle) }),
        _ => Err(format!("a cycle has 1 to {CYCLE_MAX} pictures")),
    }
}

fn parse_noise(range: &str) -> Result<SourceSpec, String> {
    let (min, max) = range.split_once('-').unwrap_or((range, range));
    match (min.parse(), max.parse()) {
        (Ok(bytes_min), Ok(bytes_max))
            if 1 <= bytes_min && bytes_min <= bytes_max && bytes_max <= PAYLOAD_BYTES_MAX =>
        {
            Ok(SourceSpec::Noise { bytes_min, bytes_max })
        }
        _ => Err(format!(
            "it is noise:MIN-MAX in bytes, 1 to {PAYLOAD_BYTES_MAX}, the smaller one first"
        )),
    }
}

/// Files of one kind, sorted by name; there is at least one.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) paths: Vec<PathBuf>,
    /// Other files beside them.
    pub(super) ignored: usize,
}

/// What is behind a path.
#[derive(Debug)]
pub(super) enum Found {
    Jpeg(Files),
    Npy(Files),
    Y4m(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Jpeg,
    Npy,
    Y4m,
}

/// The pictures behind `path`, of the kind that `spec` asks for.
pub(super) fn find(spec: &SourceSpec, path: &Path) -> Result<Found, SourceError> {
    let wanted = match spec {
        SourceSpec::Jpeg(_) => Some(Kind::Jpeg),
        SourceSpec::Npy(_) => Some(Kind::Npy),
        _ => None,
    };
    let read = |error| SourceError::Read { path: path.into(), error };
    if fs::metadata(path).map_err(read)?.is_dir() {
        return find_in_folder(path, wanted);
    }
    let kind = match wanted.or_else(|| kind_by_name(path)) {
        Some(kind) => kind,
        None => kind_by_content(path)?,
    };
    Ok(found(kind, Files { paths: vec![path.into()], ignored: 0 }))
}

fn find_in_folder(folder: &Path, wanted: Option<Kind>) -> Result<Found, SourceError> {
    let read = |error| SourceError::Read { path: folder.into(), error };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if !path.is_dir() {
            files.push((kind_by_name(&path), path));
        }
    }
    files.sort_by(|(_, one), (_, other)| one.cmp(other));
    let known = |(kind, _): &&(Option<Kind>, PathBuf)| match wanted {
        None => kind.is_some(),
        wanted => *kind == wanted,
    };
    let Some((Some(kind), first)) = files.iter().find(known) else {
        return Err(refused(folder, nothing_in(files.len(), wanted)));
    };
    let other = files.iter().filter(known).find(|(other, _)| *other != Some(*kind));
    if let Some((_, other)) = other {
        let (first, other) = (first.display(), other.display());
        let reason = format!(
            "pictures of different kinds, {first} and {other}; name a kind as in jpeg:PATH"
        );
        return Err(refused(folder, reason));
    }
    let kind = *kind;
    let count = files.len();
    let paths: Vec<_> =
        files.into_iter().filter(|(its, _)| *its == Some(kind)).map(|(_, path)| path).collect();
    if kind == Kind::Y4m && paths.len() > 1 {
        return Err(refused(folder, format!("{} streams; name one of them", paths.len())));
    }
    let ignored = count - paths.len();
    Ok(found(kind, Files { paths, ignored }))
}

fn nothing_in(files: usize, wanted: Option<Kind>) -> String {
    let names = match wanted {
        None => ".jpg, .jpeg, .npy or .y4m",
        Some(Kind::Jpeg) => ".jpg or .jpeg",
        Some(Kind::Npy) => ".npy",
        Some(Kind::Y4m) => ".y4m",
    };
    match files {
        0 => "the folder is empty; put JPEG, .npy or .y4m files into it".into(),
        files => format!("none of the {files} files in the folder is named {names}"),
    }
}

fn found(kind: Kind, files: Files) -> Found {
    match kind {
        Kind::Jpeg => Found::Jpeg(files),
        Kind::Npy => Found::Npy(files),
        Kind::Y4m => Found::Y4m(files.paths.into_iter().next().unwrap_or_default()),
    }
}

/// The contents of a file, which has at most `bytes_max`.
pub(super) fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, SourceError> {
    let read = |error| SourceError::Read { path: path.into(), error };
    let bytes = fs::metadata(path).map_err(read)?.len();
    if bytes > bytes_max {
        return Err(refused(path, format!("{bytes} bytes; {bytes_max} is the limit")));
    }
    fs::read(path).map_err(read)
}

fn kind_by_name(path: &Path) -> Option<Kind> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "jpg" | "jpeg" => Some(Kind::Jpeg),
        "npy" => Some(Kind::Npy),
        "y4m" => Some(Kind::Y4m),
        _ => None,
    }
}

fn kind_by_content(path: &Path) -> Result<Kind, SourceError> {
    let read = |error| SourceError::Read { path: path.into(), error };
    let mut head = Vec::new();
    fs::File::open(path).map_err(read)?.take(10).read_to_end(&mut head).map_err(read)?;
    match head.as_slice() {
        [0xFF, 0xD8, ..] => Ok(Kind::Jpeg),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Ok(Kind::Npy),
        b"YUV4MPEG2 " => Ok(Kind::Y4m),
        [] => Err(refused(path, "the file is empty")),
        _ => Err(refused(path, "neither a JPEG nor an npy nor a y4m file")),
    }
}
