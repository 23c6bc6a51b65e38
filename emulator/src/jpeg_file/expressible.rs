//! Whether a scan can be taken into the ring as it is: only if the header that is rebuilt from the
//! 32 bytes of the frame header says the same as the header that is left behind.
use std::fmt;

use circbuf_abi::header::{COLOR_MODE_COLOR, COLOR_MODE_MONO4};
use circbuf_abi::jpeg::{
    HUFFMAN_AC_CHROMA, HUFFMAN_AC_LUMA, HUFFMAN_DC_CHROMA, HUFFMAN_DC_LUMA, HuffmanTable,
    QUANT_CHROMA, QUANT_LUMA, ZIGZAG,
};

use super::{Huffman, JpegFile, ScanComponent};
use crate::encode::quantisation;

/// A scan with all that the frame header has to say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expressible<'a> {
    /// The scan, byte for byte as in the file.
    pub payload: &'a [u8],
    /// Qualities of the luma table (low byte) and the chroma table.
    pub quality2: u16,
    /// One of the frame header's `COLOR_MODE_*` constants.
    pub color_mode: u8,
}

/// Why a frame header cannot express a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// The components come one after the other.
    Scans,
    /// Restart markers.
    Restarts,
    /// Components that are not Y, Cb, Cr.
    Rgb,
    /// Colour that is not 4:2:0.
    Sampling,
    /// Huffman tables that are not those of Annex K.
    Huffman,
    /// Quantisation tables that are of no IJG quality.
    Quantisation,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scans => "more than one scan",
            Self::Restarts => "restart markers",
            Self::Rgb => "RGB components",
            Self::Sampling => "colour sampled otherwise than 4:2:0",
            Self::Huffman => "Huffman tables other than those of Annex K",
            Self::Quantisation => "quantisation tables of no IJG quality",
        })
    }
}

impl<'a> JpegFile<'a> {
    /// The scan, if a frame header can express it.
    ///
    /// # Errors
    /// The first thing that a frame header has no place for.
    pub fn expressible(&self) -> Result<Expressible<'a>, Obstacle> {
        if self.scans != 1 || self.scan.len() != self.components.len() {
            return Err(Obstacle::Scans);
        }
        if self.restart_interval != 0 {
            return Err(Obstacle::Restarts);
        }
        if self.is_rgb() {
            return Err(Obstacle::Rgb);
        }
        if !self.is_gray() && !self.is_420() {
            return Err(Obstacle::Sampling);
        }
        if !self.scan.iter().all(|component| self.has_standard_huffman(*component)) {
            return Err(Obstacle::Huffman);
        }
        Ok(Expressible {
            payload: self.payload,
            quality2: self.quality2().ok_or(Obstacle::Quantisation)?,
            color_mode: if self.is_gray() { COLOR_MODE_MONO4 } else { COLOR_MODE_COLOR },
        })
    }

    /// As decoders decide: by Adobe's word, else by the letters R, G, B where there is no JFIF.
    fn is_rgb(&self) -> bool {
        let ids = self.components.iter().map(|component| component.id);
        let named = !self.has_jfif && self.adobe_transform.is_none() && ids.eq(*b"RGB");
        !self.is_gray() && (self.adobe_transform == Some(0) || named)
    }

    fn is_420(&self) -> bool {
        let in_order = self.scan.iter().map(|component| component.component).eq(0..3);
        let factors = self.components.iter().map(|it| (it.horizontal, it.vertical));
        in_order && factors.eq([(2, 2), (1, 1), (1, 1)])
    }

    fn has_standard_huffman(&self, scan: ScanComponent) -> bool {
        let (dc, ac) = match scan.component {
            0 => (HUFFMAN_DC_LUMA, HUFFMAN_AC_LUMA),
            _ => (HUFFMAN_DC_CHROMA, HUFFMAN_AC_CHROMA),
        };
        self.dc[scan.dc].is_some_and(|table| is_same(&table, &dc))
            && self.ac[scan.ac].is_some_and(|table| is_same(&table, &ac))
    }

    fn quality2(&self) -> Option<u16> {
        let luma = self.quality_of(0, &QUANT_LUMA)?;
        if self.is_gray() {
            return Some(u16::from_le_bytes([luma; 2]));
        }
        let chroma = self.quality_of(1, &QUANT_CHROMA)?;
        let both = self.quality_of(2, &QUANT_CHROMA) == Some(chroma);
        both.then_some(u16::from_le_bytes([luma, chroma]))
    }

    fn quality_of(&self, component: usize, base: &[u8; 64]) -> Option<u8> {
        let table = self.quantisation[self.components[component].quantisation]?;
        (1..=100).rev().find(|quality| {
            let steps = quantisation(base, *quality);
            table.iter().zip(ZIGZAG).all(|(step, at)| *step == u16::from(steps[usize::from(at)]))
        })
    }
}

fn is_same(table: &Huffman<'_>, standard: &HuffmanTable) -> bool {
    table.counts == standard.counts && table.symbols == standard.symbols
}
