//! What a server tells of a region, and whether it can be mapped.

use std::io;
use std::os::fd::OwnedFd;

use super::{odd, u32s, words};

/// Size of what is told of every region, without capabilities.
const INFO_BYTES: usize = 32;

/// Room for capabilities that is asked for: some twenty areas.
const CAPABILITIES_BYTES: usize = 512;

const FLAG_READ: u32 = 1;
const FLAG_MMAP: u32 = 1 << 2;
const FLAG_CAPABILITIES: u32 = 1 << 3;

/// Capability: the parts of a region that can be mapped.
const SPARSE_MMAP: u16 = 1;

/// A region of the device.
#[derive(Debug)]
pub(super) struct Region {
    index: u32,
    flags: u32,
    pub(super) bytes: u64,
    /// Where it begins in the file.
    offset: u64,
    file: Option<OwnedFd>,
    /// Offset and size of the areas that can be mapped, if not all of it can.
    areas: Option<Vec<(u64, u64)>>,
}

impl Region {
    pub(super) fn request(index: u32) -> Vec<u8> {
        words(&[(INFO_BYTES + CAPABILITIES_BYTES) as u32, 0, index, 0, 0, 0, 0, 0])
    }

    pub(super) fn parse(index: u32, body: &[u8], mut fds: Vec<OwnedFd>) -> io::Result<Region> {
        let [_, flags, told, capabilities, bytes, bytes_high, offset, offset_high] = u32s(body)?;
        if told != index {
            return Err(odd(format!("it tells of region {told}, not {index}")));
        }
        let wide = |low, high| u64::from(low) | u64::from(high) << 32;
        Ok(Region {
            index,
            flags,
            bytes: wide(bytes, bytes_high),
            offset: wide(offset, offset_high),
            file: fds.pop(),
            areas: match flags & FLAG_CAPABILITIES {
                0 => None,
                _ => sparse_areas(body, capabilities as usize)?,
            },
        })
    }

    /// The file to map the first `bytes` of, and from where on.
    pub(super) fn mappable(self, bytes: u64) -> io::Result<(OwnedFd, u64)> {
        let wanted = FLAG_READ | FLAG_MMAP;
        let in_areas =
            |areas: &[(u64, u64)]| areas.iter().any(|&(at, size)| at == 0 && size >= bytes);
        let is_mappable = self.flags & wanted == wanted
            && self.bytes >= bytes
            && self.areas.as_deref().is_none_or(in_areas);
        match self.file {
            Some(file) if is_mappable => Ok((file, self.offset)),
            _ => Err(odd(format!("its region {} cannot be mapped", self.index))),
        }
    }
}

/// The areas of the sparse mmap capability, if there is one in the chain that begins at `next`.
/// Offsets count from the beginning of the info; each capability stands behind the one before.
fn sparse_areas(body: &[u8], mut next: usize) -> io::Result<Option<Vec<(u64, u64)>>> {
    let mut least = INFO_BYTES;
    while next != 0 {
        let capability = match next >= least {
            true => body.get(next..).unwrap_or_default(),
            false => &[],
        };
        let [id_and_version, following] = u32s(capability)?;
        if id_and_version as u16 == SPARSE_MMAP {
            return areas(capability).map(Some);
        }
        (least, next) = (next + 8, following as usize);
    }
    Ok(None)
}

fn areas(capability: &[u8]) -> io::Result<Vec<(u64, u64)>> {
    let [_, _, count, _] = u32s(capability)?;
    let (areas, _) = capability[16..].as_chunks::<16>();
    let areas = areas.get(..count as usize).ok_or_else(|| odd("its list of areas is cut short"))?;
    let u64_of =
        |bytes: &[u8]| bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
    Ok(areas.iter().map(|area| (u64_of(&area[..8]), u64_of(&area[8..]))).collect())
}
