//! Walks through the entropy-coded data of a scan from its first block to its last, so that what
//! is taken into the ring as it is can be decoded. Decoders are of no use for that: they fill up
//! what is missing.
use super::{Huffman, JpegError, JpegFile};

/// Bytes that may follow the last block: the 353 writes words of 16 bits, and can count a 00 more.
const SLACK_BITS: u32 = 7 + 3 * 8;
/// The longest difference of DC coefficients and the longest AC coefficient of 8-bit samples.
const DC_BITS_MAX: u8 = 11;
const AC_BITS_MAX: u8 = 10;

/// Proves that `file`, which has one scan, has all its blocks and nothing else.
pub(super) fn walk(file: &JpegFile<'_>) -> Result<(), JpegError> {
    let mcu = Mcu::of(file)?;
    let blocks = mcu.count * mcu.blocks.len() as u64;
    let mut left = mcu.count;
    let mut done = 0;
    for interval in intervals(file.payload) {
        let limit = if file.restart_interval == 0 { left } else { file.restart_interval.into() };
        let mut bits = Bits { bytes: interval, buffer: 0, count: 0 };
        if left == 0 {
            let reason = "a restart marker is out of place";
            return Err(JpegError::Scan { block: done, blocks, reason });
        }
        let count = left.min(limit);
        let walked = (0..count).try_for_each(|_| {
            mcu.blocks.iter().try_for_each(|(dc, ac)| {
                bits.skip_block(dc, ac)?;
                done += 1;
                Ok(())
            })
        });
        let walked = walked.and_then(|()| bits.expect_end());
        walked.map_err(|reason| JpegError::Scan { block: done, blocks, reason })?;
        left -= count;
    }
    if left > 0 {
        return Err(JpegError::Scan { block: done, blocks, reason: "a restart marker is missing" });
    }
    Ok(())
}

/// Whether a table has more codes than there is room for.
pub(super) fn is_oversubscribed(table: &Huffman<'_>) -> bool {
    let room = (1..=16).zip(table.counts).map(|(bits, count)| u32::from(count) << (16 - bits));
    room.sum::<u32>() > 1 << 16
}

/// What is between restart markers. There is an FF in front of 00 and in front of these only.
fn intervals(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(payload);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let marker = bytes.windows(2).position(|pair| pair[0] == 0xFF && pair[1] != 0);
        rest = marker.map(|at| &bytes[at + 2..]);
        Some(&bytes[..marker.unwrap_or(bytes.len())])
    })
}

/// The minimum coded unit: for each of its blocks the tables.
struct Mcu {
    blocks: Vec<(Codes, Codes)>,
    count: u64,
}

impl Mcu {
    fn of(file: &JpegFile<'_>) -> Result<Self, JpegError> {
        let unit = if file.scan.len() == 1 { (1, 1) } else { largest_sampling(file) };
        let mut blocks = Vec::new();
        for scan in &file.scan {
            let (Some(dc), Some(ac)) = (&file.dc[scan.dc], &file.ac[scan.ac]) else {
                let reason = "there is no Huffman table to decode it";
                return Err(JpegError::Scan { block: 0, blocks: 0, reason });
            };
            let component = file.components[scan.component];
            let repeat = if file.scan.len() == 1 {
                1
            } else {
                usize::from(component.horizontal) * usize::from(component.vertical)
            };
            let codes = (Codes::new(dc), Codes::new(ac));
            blocks.extend(std::iter::repeat_n(codes, repeat));
        }
        let columns = u64::from(file.width).div_ceil(8 * unit.0);
        let rows = u64::from(file.height).div_ceil(8 * unit.1);
        Ok(Self { blocks, count: columns * rows })
    }
}

fn largest_sampling(file: &JpegFile<'_>) -> (u64, u64) {
    let largest = |factor: fn(&super::Component) -> u8| {
        file.components.iter().map(factor).max().map_or(1, u64::from)
    };
    (largest(|it| it.horizontal), largest(|it| it.vertical))
}

/// For every 16 bits that can come next: the length of the code they begin with (0: none), and
/// its symbol.
#[derive(Clone)]
struct Codes(std::rc::Rc<[(u8, u8)]>);

impl Codes {
    fn new(table: &Huffman<'_>) -> Self {
        let mut codes = vec![(0, 0); 1 << 16];
        let mut symbols = table.symbols.iter();
        let mut next = 0;
        for (bits, count) in (1..=16).zip(table.counts) {
            for symbol in symbols.by_ref().take(usize::from(count)) {
                let end = next + (1 << (16 - bits));
                codes[next..end].fill((bits, *symbol));
                next = end;
            }
        }
        Self(codes.into())
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    /// The next bits, from the highest down.
    buffer: u64,
    count: u32,
}

impl Bits<'_> {
    fn refill(&mut self) {
        while self.count <= 56
            && let [byte, rest @ ..] = self.bytes
        {
            self.buffer |= u64::from(*byte) << (56 - self.count);
            self.count += 8;
            self.bytes = if *byte == 0xFF { rest.get(1..).unwrap_or_default() } else { rest };
        }
    }

    fn symbol(&mut self, codes: &Codes) -> Result<u8, &'static str> {
        if self.count < 32 {
            self.refill();
        }
        let (bits, symbol) = codes.0[(self.buffer >> 48) as usize];
        if bits == 0 {
            return Err(if self.count < 16 { "the data end" } else { "no Huffman code" });
        }
        self.skip(bits)?;
        Ok(symbol)
    }

    fn skip(&mut self, bits: u8) -> Result<(), &'static str> {
        self.count = self.count.checked_sub(bits.into()).ok_or("the data end")?;
        self.buffer <<= bits;
        Ok(())
    }

    fn skip_block(&mut self, dc: &Codes, ac: &Codes) -> Result<(), &'static str> {
        let bits = self.symbol(dc)?;
        if bits > DC_BITS_MAX {
            return Err("a DC coefficient is too large");
        }
        self.skip(bits)?;
        let mut coefficient = 1;
        while coefficient < 64 {
            let symbol = self.symbol(ac)?;
            let (run, bits) = (symbol >> 4, symbol & 15);
            match (run, bits) {
                (0, 0) => break,
                (15, 0) | (_, 1..=AC_BITS_MAX) => {}
                _ => return Err("an AC coefficient cannot be"),
            }
            self.skip(bits)?;
            coefficient += usize::from(run) + 1;
        }
        if coefficient > 64 { Err("more than 64 coefficients") } else { Ok(()) }
    }

    fn expect_end(&mut self) -> Result<(), &'static str> {
        self.refill();
        let is_over = self.bytes.is_empty() && self.count <= SLACK_BITS;
        if is_over { Ok(()) } else { Err("data left over behind the last block") }
    }
}
