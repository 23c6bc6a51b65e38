//! Compressed pictures that are kept in memory and sent again and again.
use std::ops::Range;
use std::path::Path;

use super::{FileSize, SourceError};
use crate::encode::Scan;
use crate::model::{Geometry, Picture};

/// The most bytes of compressed pictures that are kept.
pub(super) const SET_BYTES_MAX: usize = 1 << 30;

/// A cycle of compressed pictures of one size.
#[derive(Debug, Default)]
pub struct PictureSet {
    payloads: Vec<u8>,
    pictures: Vec<Kept>,
    first: Option<FileSize>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Kept {
    payload: Range<usize>,
    crc32c: Option<u32>,
    quality2: u16,
    color_mode: u8,
}

impl PictureSet {
    /// Appends a picture of `file`, which is named if it does not fit in with the others.
    pub(super) fn push(
        &mut self,
        file: FileSize,
        scan: Scan<'_>,
        quality2: u16,
    ) -> Result<(), SourceError> {
        let first = self.first.get_or_insert_with(|| file.clone());
        if (first.width, first.height) != (file.width, file.height) {
            return Err(SourceError::SizesDiffer(first.clone().into(), file.into()));
        }
        let start = self.payloads.len();
        let end = start + scan.payload.len();
        if end > SET_BYTES_MAX {
            return Err(too_many(&file.path, self.pictures.len()));
        }
        self.payloads.extend_from_slice(scan.payload);
        let (payload, color_mode) = (start..end, scan.color_mode);
        self.pictures.push(Kept { payload, crc32c: None, quality2, color_mode });
        Ok(())
    }

    /// Has the pictures tell their checksums.
    pub(super) fn keep_checksums(&mut self) {
        for kept in &mut self.pictures {
            kept.crc32c = Some(crc_fast::crc32_iscsi(&self.payloads[kept.payload.clone()]));
        }
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Tells that the pictures are not compressed alike, which a ring without headers cannot.
    pub(super) fn note_differences(&mut self) {
        let kind = |kept: &Kept| (kept.quality2, kept.color_mode);
        let first = self.pictures.first().map(kind);
        let others = self.pictures.iter().filter(|kept| Some(kind(kept)) != first).count();
        if others > 0 {
            self.note(format!(
                "{others} of {} pictures differ from the first in quality or colour, and a bare \
                 ring tells only that of the first",
                self.len()
            ));
        }
    }

    /// Number of pictures in the cycle.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there is no picture at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    /// The picture of frame `number`.
    pub(super) fn picture(&self, number: u64) -> Picture<'_> {
        let kept = &self.pictures[(number % self.len() as u64) as usize];
        let Geometry { width, height, .. } = self.geometry();
        Picture {
            payload: &self.payloads[kept.payload.clone()],
            crc32c: kept.crc32c,
            quality2: kept.quality2,
            color_mode: kept.color_mode,
            width,
            height,
        }
    }

    pub(super) fn geometry(&self) -> Geometry {
        let (Some(size), Some(kept)) = (&self.first, self.pictures.first()) else {
            return Geometry::default();
        };
        Geometry {
            width: size.width,
            height: size.height,
            quality2: kept.quality2,
            color_mode: kept.color_mode,
        }
    }

    pub(super) fn payload_bytes_max(&self) -> u32 {
        self.pictures.iter().map(|kept| kept.payload.len() as u32).max().unwrap_or(0)
    }

    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

fn too_many(path: &Path, before: usize) -> SourceError {
    let reason = format!(
        "with it and the {before} pictures before, more than {} MiB would have to be kept in \
         memory; take fewer pictures or a lower quality",
        SET_BYTES_MAX >> 20
    );
    super::refused(path, reason)
}
