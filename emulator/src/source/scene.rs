//! The drawn scene, line by line, in integers: a gradient with a texture that scrolls, a disc that
//! bounces, colour bars that wander, and on top of it what the picture says about itself.
use jpeg_encoder::{ImageBuffer, JpegColorType};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

use crate::font::{ADVANCE, GLYPH_HEIGHT, GLYPH_WIDTH, glyph_row};
use crate::framecode::BlockCode;

/// Side of the square of texture, which is repeated.
const TILE: usize = 256;
/// Luma of the texture, from its darkest to its brightest point. It decides how many bits a
/// picture takes: with this, 0.5 to 1 bit a pixel at quality 80, as a camera's pictures do.
const TEXTURE_LEVELS: u64 = 48;
/// Squares of texture that pass by in a turn.
const TILES_PER_TURN: usize = 4;
const NEUTRAL: u8 = 128;
const BLACK: u8 = 16;
const WHITE: u8 = 235;
/// Luma, Cb and Cr of the disc.
const DISC: [u8; 3] = [150, 90, 190];
/// The bars of a test card at 75 %: white, yellow, cyan, green, magenta, red, blue, black.
const BARS: [[u8; 3]; 8] = [
    [191, 128, 128],
    [169, 44, 142],
    [134, 156, 44],
    [112, 72, 58],
    [79, 184, 198],
    [57, 100, 212],
    [22, 212, 114],
    [0, 128, 128],
];
/// Lines of text, and room for the longest one, `TIME 4294967295.999999`.
const TEXT_LINES: usize = 2;
const TEXT_COLUMNS: usize = 22;
/// From a line of text to the next, in rows of a glyph.
const TEXT_ADVANCE: usize = GLYPH_HEIGHT + 2;

/// What is the same in all pictures.
#[derive(Debug)]
pub(super) struct Scene {
    width: u16,
    height: u16,
    gray: bool,
    texture: Vec<u8>,
}

/// What a picture says about itself.
#[derive(Debug)]
pub(super) struct Caption {
    pub(super) code: BlockCode,
    pub(super) text: [String; TEXT_LINES],
}

impl Scene {
    pub(super) fn new((width, height): (u16, u16), gray: bool, seed: u64) -> Self {
        Self { width, height, gray, texture: texture(seed) }
    }

    /// The scene at `turn`, of which 65536 are a full one: then everything is where it began.
    pub(super) fn view(&self, turn: u16, caption: Caption) -> View<'_> {
        let (width, height) = (usize::from(self.width), usize::from(self.height));
        let place = |x: usize| (x * 65536 / width) as u16;
        let radius = width.min(height) / 8;
        let bounce = |turn, room: usize| radius + triangle(turn) * (room - 2 * radius) / 32768;
        View {
            scene: self,
            ramp: (0..width).map(|x| (triangle(place(x).wrapping_add(turn)) >> 9) as u8).collect(),
            bars: (0..width)
                .map(|x| BARS[usize::from(place(x).wrapping_add(turn) >> 13)])
                .collect(),
            scroll: usize::from(turn) * TILES_PER_TURN * TILE / 65536,
            disc: Disc {
                x: bounce(turn.wrapping_mul(2), width),
                y: bounce(turn.wrapping_mul(3), height),
                radius,
            },
            text_scale: text_scale(width, height, caption.code.height()),
            caption,
        }
    }
}

/// Up and down again: 0, to 32767 in the middle, to 0.
fn triangle(turn: u16) -> usize {
    usize::from(if turn < 0x8000 { turn } else { !turn })
}

/// Noise, smoothed so that a picture of it is neither flat nor a waste of bits.
fn texture(seed: u64) -> Vec<u8> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let rough: Vec<u64> = (0..TILE * TILE).map(|_| random.next_u64() >> 56).collect();
    let at = |x: usize, y: usize| rough[y % TILE * TILE + x % TILE];
    let smooth = |place: usize| {
        let (x, y) = (place % TILE, place / TILE);
        (0..9).map(|step| at(x + step % 3, y + step / 3)).sum::<u64>() / 9
    };
    (0..TILE * TILE).map(|place| ((smooth(place) * TEXTURE_LEVELS) >> 8) as u8).collect()
}

/// Side of a dot of the text: with the picture, as far as there is room below the code.
fn text_scale(width: usize, height: usize, code_height: usize) -> usize {
    let across = width / (TEXT_COLUMNS * ADVANCE);
    let below = (height - code_height) / (TEXT_LINES * TEXT_ADVANCE + 1);
    (height / 240).max(1).min(across).min(below)
}

#[derive(Debug, Clone, Copy)]
struct Disc {
    x: usize,
    y: usize,
    radius: usize,
}

impl Disc {
    /// The columns that it covers in line `y`.
    fn span(&self, y: usize) -> Option<std::ops::Range<usize>> {
        let distance = self.y.abs_diff(y);
        let half = (self.radius * self.radius).checked_sub(distance * distance)?.isqrt();
        Some(self.x - half..self.x + half)
    }
}

/// One picture of the scene.
#[derive(Debug)]
pub(super) struct View<'a> {
    scene: &'a Scene,
    ramp: Vec<u8>,
    bars: Vec<[u8; 3]>,
    scroll: usize,
    disc: Disc,
    text_scale: usize,
    caption: Caption,
}

impl View<'_> {
    fn draw_luma(&self, y: usize, line: &mut [u8]) {
        if self.is_bars(y) {
            for (luma, bar) in line.iter_mut().zip(&self.bars) {
                *luma = bar[0];
            }
        } else {
            self.draw_background(y, line);
            if let Some(span) = self.disc.span(y) {
                line[span].fill(DISC[0]);
            }
        }
        self.draw_text(y, line);
        self.caption.code.draw_line(y, line);
    }

    fn draw_background(&self, y: usize, line: &mut [u8]) {
        let row = &self.scene.texture[y % TILE * TILE..][..TILE];
        let mut texture = [0; TILE];
        let (left, right) = texture.split_at_mut(TILE - self.scroll % TILE);
        left.copy_from_slice(&row[self.scroll % TILE..]);
        right.copy_from_slice(&row[..self.scroll % TILE]);
        let shade = (24 + 96 * y / usize::from(self.scene.height)) as u8;
        for (line, ramp) in line.chunks_mut(TILE).zip(self.ramp.chunks(TILE)) {
            for ((luma, ramp), texture) in line.iter_mut().zip(ramp).zip(&texture) {
                *luma = shade + ramp + texture;
            }
        }
    }

    fn draw_chroma(&self, y: usize, plane: usize, line: &mut [u8]) {
        if self.is_bars(y) {
            for (chroma, bar) in line.iter_mut().zip(&self.bars) {
                *chroma = bar[plane];
            }
        } else {
            let shade = (96 + 64 * y / usize::from(self.scene.height)) as u8;
            for (chroma, ramp) in line.iter_mut().zip(&self.ramp) {
                *chroma = if plane == 1 { 96 + ramp } else { shade };
            }
            if let Some(span) = self.disc.span(y) {
                line[span].fill(DISC[plane]);
            }
        }
        if self.text_row(y).is_some() {
            line[..self.text_width()].fill(NEUTRAL);
        }
        if y < self.caption.code.height() {
            line[..self.caption.code.width()].fill(NEUTRAL);
        }
    }

    fn is_bars(&self, y: usize) -> bool {
        y >= usize::from(self.scene.height) / 8 * 7
    }

    /// The row of the text's block that line `y` shows, in dots.
    fn text_row(&self, y: usize) -> Option<usize> {
        let row = y.checked_sub(self.caption.code.height())?.checked_div(self.text_scale)?;
        (row <= TEXT_LINES * TEXT_ADVANCE).then_some(row)
    }

    fn text_width(&self) -> usize {
        TEXT_COLUMNS * ADVANCE * self.text_scale
    }

    fn draw_text(&self, y: usize, line: &mut [u8]) {
        let Some(row) = self.text_row(y) else {
            return;
        };
        line[..self.text_width()].fill(BLACK);
        // One row of dots is left free above each line of text.
        let (text, row) = (row / TEXT_ADVANCE, (row % TEXT_ADVANCE).wrapping_sub(1));
        let Some(text) = self.caption.text.get(text).filter(|_| row < GLYPH_HEIGHT) else {
            return;
        };
        let glyphs = line.chunks_mut(ADVANCE * self.text_scale);
        for (glyph, sign) in glyphs.zip(text.bytes().take(TEXT_COLUMNS)) {
            let bits = glyph_row(sign, row);
            for (column, dot) in glyph.chunks_mut(self.text_scale).enumerate() {
                // The first column of dots is left free.
                if bits >> (GLYPH_WIDTH - column) & 1 == 1 {
                    dot.fill(WHITE);
                }
            }
        }
    }
}

impl ImageBuffer for &View<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        if self.scene.gray { JpegColorType::Luma } else { JpegColorType::Ycbcr }
    }

    fn width(&self) -> u16 {
        self.scene.width
    }

    fn height(&self) -> u16 {
        self.scene.height
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let (y, width) = (usize::from(y), usize::from(self.scene.width));
        let planes = if self.scene.gray { 1 } else { 3 };
        for (plane, buffer) in buffers.iter_mut().take(planes).enumerate() {
            let start = buffer.len();
            buffer.resize(start + width, NEUTRAL);
            let line = &mut buffer[start..];
            match plane {
                0 => self.draw_luma(y, line),
                // The encoder takes chroma from even lines only.
                _ if y.is_multiple_of(2) => self.draw_chroma(y, plane, line),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framecode::CodeKind;
    use crate::model::FrameTime;

    fn caption(width: u16, height: u16) -> Caption {
        let code = BlockCode::new(1, FrameTime::default(), CodeKind::Frame, width, height);
        Caption { code, text: ["7".into(), "TIME 4294967295.999999".into()] }
    }

    fn luma(view: &View<'_>, y: usize) -> Vec<u8> {
        let mut line = vec![0; view.scene.width.into()];
        view.draw_luma(y, &mut line);
        line
    }

    #[test]
    fn text_stands_below_the_code() {
        let scene = Scene::new((640, 480), false, 1);
        let view = scene.view(0, caption(640, 480));
        // Dots of 2 pixels, the first row and the first column of them free.
        for (row, dots) in ["     ", "#####", "    #", "   # "].iter().enumerate() {
            let line = luma(&view, 144 + 2 * row);
            assert!(line[..264] == luma(&view, 145 + 2 * row)[..264]);
            let drawn = line[2..12].chunks(2).map(|dot| {
                assert!(dot == [BLACK; 2] || dot == [WHITE; 2]);
                if dot[0] == WHITE { '#' } else { ' ' }
            });
            assert!(drawn.eq(dots.chars()), "row {row}");
        }
    }

    #[test]
    fn every_line_can_be_drawn_in_every_size_at_every_turn() {
        for (width, height) in [(144, 72), (145, 90), (2000, 72), (144, 2000), (700, 481)] {
            let scene = Scene::new((width, height), false, 1);
            for turn in (0..=u16::MAX).step_by(997) {
                let view = &scene.view(turn, caption(width, height));
                let mut buffers = Default::default();
                (0..height).for_each(|y| view.fill_buffers(y, &mut buffers));
                let pixels = usize::from(width) * usize::from(height);
                assert_eq!(buffers.map(|buffer| buffer.len()), [pixels, pixels, pixels, 0]);
            }
        }
    }

    #[test]
    fn a_whole_turn_ends_where_it_began() {
        let scene = Scene::new((320, 240), false, 1);
        let line = |turn| luma(&scene.view(turn, caption(320, 240)), 130);
        let off = |one: Vec<u8>, other: Vec<u8>| {
            one.iter().zip(other).filter(|(one, other)| one.abs_diff(*other) > 1).count()
        };
        assert!(off(line(u16::MAX), line(0)) < off(line(0x8000), line(0)));
        assert_ne!(line(100), line(400));
    }
}
