//! The nodes that are there, and what an open one is made of.
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use circbuf_abi::node::{MINOR_CIRCBUF, MINOR_JPEGHEAD, MINOR_NC353_CIRCBUF, MINOR_NC353_JPEGHEAD};
use circbuf_emulator::node::{Firmware, Node};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/dev/circbufN`: the ring.
    Circbuf,
    /// `/dev/jpegheadN`: headers for its frames.
    Jpeghead,
}

/// A node: its kind and the number of its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) kind: Kind,
    pub(super) channel: usize,
}

/// One channel.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) node: Node,
    file: File,
    /// Device and inode, which no other file has.
    identity: (u64, u64),
    /// The header of all that have opened the node, on a 393.
    header: Option<File>,
}

/// All nodes of the camera.
#[derive(Debug)]
pub(super) struct Devices {
    pub(super) firmware: Firmware,
    pub(super) rings: Vec<Ring>,
}

impl Devices {
    /// Nodes for channels, each with its ring's memory.
    pub(super) fn new(
        firmware: Firmware,
        channels: Vec<(Node, OwnedFd)>,
    ) -> std::io::Result<Devices> {
        let ring = |(channel, (node, file)): (usize, (Node, OwnedFd))| {
            let file = File::from(file);
            let metadata = file.metadata()?;
            let header = match firmware {
                Firmware::Nc353 => None,
                Firmware::Nc393 => Some(make_header(channel)?),
            };
            Ok(Ring { node, file, identity: (metadata.dev(), metadata.ino()), header })
        };
        let rings = channels.into_iter().enumerate().map(ring).collect::<std::io::Result<_>>()?;
        Ok(Devices { firmware, rings })
    }

    /// The node of this name.
    pub(super) fn named(&self, path: &Path) -> Option<Device> {
        let name = path.strip_prefix("/dev").ok()?.to_str()?;
        let (kind, number) = split_name(name)?;
        let channel = match (number, self.firmware) {
            // The 353 has one sensor, and its nodes no numbers.
            ("", Firmware::Nc353) => 0,
            (number, _) => (0..self.rings.len()).find(|channel| channel.to_string() == number)?,
        };
        Some(Device { kind, channel })
    }

    /// Whether a path could mean a node or go through one, so that it is worth more than a glance.
    pub(super) fn could_be(path: &[u8]) -> bool {
        let mut parts = path.split(|byte| *byte == b'/').map(std::str::from_utf8);
        parts.any(|part| part.is_ok_and(|name| split_name(name).is_some()))
    }

    /// The node of which this is an open file, by what the kernel calls it; `look` tells device and
    /// inode.
    pub(super) fn of_file(
        &self,
        name: &OsStr,
        look: impl FnOnce() -> Option<(u64, u64)>,
    ) -> Option<Device> {
        let name = name.as_bytes().strip_prefix(b"/memfd:circbuf")?;
        let header = (0..self.rings.len())
            .find(|channel| name.strip_suffix(b" (deleted)") == Some(&header_suffix(*channel)));
        if let Some(channel) = header {
            return Some(Device { kind: Kind::Jpeghead, channel });
        }
        self.with_ring(look()?)
    }

    /// The node whose ring has this device and inode.
    pub(super) fn with_ring(&self, identity: (u64, u64)) -> Option<Device> {
        let channel = self.rings.iter().position(|ring| ring.identity == identity)?;
        Some(Device { kind: Kind::Circbuf, channel })
    }

    /// A new open file of the node, to be read at most, with those of `flags` that stay with an open
    /// file.
    pub(super) fn open(&self, device: Device, flags: i32) -> std::io::Result<File> {
        let ring = &self.rings[device.channel];
        match (device.kind, &ring.header) {
            (Kind::Circbuf, _) => open_again(&ring.file, flags),
            (Kind::Jpeghead, None) => open_again(&make_header(device.channel)?, flags),
            (Kind::Jpeghead, Some(shared)) => {
                if flags & libc::O_PATH == 0 {
                    // It is emptied for all who have it open.
                    shared.set_len(0)?;
                }
                open_again(shared, flags)
            }
        }
    }

    /// Makes the JPEG header that `command` asks for the content of `opened`, at its beginning.
    pub(super) fn make_jpeg_header(
        &self,
        device: Device,
        opened: &File,
        command: i64,
    ) -> Result<i64, Errno> {
        let header = self.rings[device.channel].node.jpeg_header(command)?;
        let store = || -> std::io::Result<()> {
            let writable = OpenOptions::new().write(true).open(own_path(opened))?;
            writable.set_len(header.len() as u64)?;
            writable.write_all_at(&header, 0)?;
            let mut opened = opened;
            opened.seek(SeekFrom::Start(0)).map(drop)
        };
        store().map_err(|_| Errno::EIO)?;
        Ok(0)
    }

    /// Size of a node in bytes: a ring's, or what a header may have.
    pub(super) fn size_bytes(&self, device: Device) -> u64 {
        match device.kind {
            Kind::Circbuf => self.rings[device.channel].node.ring_bytes(),
            Kind::Jpeghead => circbuf_emulator::node::HEADER_BYTES_MAX as u64,
        }
    }

    /// The minor number of a node.
    pub(super) fn minor(&self, device: Device) -> u32 {
        let first = match (device.kind, self.firmware) {
            (Kind::Circbuf, Firmware::Nc353) => MINOR_NC353_CIRCBUF,
            (Kind::Jpeghead, Firmware::Nc353) => MINOR_NC353_JPEGHEAD,
            (Kind::Circbuf, Firmware::Nc393) => MINOR_CIRCBUF,
            (Kind::Jpeghead, Firmware::Nc393) => MINOR_JPEGHEAD,
        };
        first + device.channel as u32
    }
}

fn split_name(name: &str) -> Option<(Kind, &str)> {
    let kinds = [("circbuf", Kind::Circbuf), ("jpeghead", Kind::Jpeghead)];
    kinds.into_iter().find_map(|(stem, kind)| Some((kind, name.strip_prefix(stem)?)))
}

/// Behind "circbuf", this makes the name of a header: no other program's, as this process is in it.
fn header_suffix(channel: usize) -> Vec<u8> {
    format!("-{}-jpeghead{channel}", std::process::id()).into_bytes()
}

fn make_header(channel: usize) -> std::io::Result<File> {
    let name = [b"circbuf".to_vec(), header_suffix(channel)].concat();
    Ok(memfd_create(OsStr::from_bytes(&name), MFdFlags::MFD_CLOEXEC)?.into())
}

/// Who asks for reading and writing gets reading. Who does not ask for reading gets a file that can be
/// neither read nor written: one of `O_PATH` could not be handed over, and one for writing would write.
fn open_again(file: &File, flags: i32) -> std::io::Result<File> {
    let is_path = flags & libc::O_PATH != 0;
    let access = match flags & libc::O_ACCMODE {
        libc::O_RDONLY | libc::O_RDWR if !is_path => libc::O_RDONLY,
        _ => libc::O_ACCMODE,
    };
    let kept = flags & (libc::O_NONBLOCK | libc::O_APPEND);
    let flags = OFlag::from_bits_retain(access | kept | libc::O_CLOEXEC);
    Ok(open(own_path(file).as_str(), flags, Mode::empty())?.into())
}

fn own_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use circbuf_emulator::ring_file::RingFile;

    use super::*;

    fn devices(firmware: Firmware, channels: usize) -> Devices {
        let channel = |_| {
            let ring = RingFile::memfd(4096).unwrap();
            (Node::new(&ring, firmware).unwrap(), ring.ring_fd().try_clone_to_owned().unwrap())
        };
        Devices::new(firmware, (0..channels).map(channel).collect()).unwrap()
    }

    fn identity(file: &File) -> Option<(u64, u64)> {
        let metadata = file.metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    }

    #[test]
    fn names_mean_nodes() {
        let named = |firmware, path: &str| {
            let device = devices(firmware, 2).named(Path::new(path));
            device.map(|device| (device.kind, device.channel))
        };
        use Firmware::{Nc353, Nc393};
        assert_eq!(named(Nc393, "/dev/circbuf1"), Some((Kind::Circbuf, 1)));
        assert_eq!(named(Nc393, "/dev/jpeghead0"), Some((Kind::Jpeghead, 0)));
        assert_eq!(named(Nc353, "/dev/circbuf"), Some((Kind::Circbuf, 0)));
        assert_eq!(named(Nc353, "/dev/jpeghead0"), Some((Kind::Jpeghead, 0)));
        for nothing in ["/dev/circbuf", "/dev/circbuf2", "/dev/circbuf00", "/dev/x/circbuf0"] {
            assert_eq!(named(Nc393, nothing), None, "{nothing}");
        }
        for could in ["circbuf0", "/dev//jpeghead3", "a/circbuf0/.", "/dev/circbuf0/x"] {
            assert!(Devices::could_be(could.as_bytes()), "{could}");
        }
        for not in ["/dev/null", "", "/", "/dev/mycircbuf0"] {
            assert!(!Devices::could_be(not.as_bytes()), "{not}");
        }
    }

    #[test]
    fn open_files_are_recognised_and_others_are_not() {
        let devices = devices(Firmware::Nc393, 2);
        for device in [(Kind::Circbuf, 1), (Kind::Jpeghead, 0)] {
            let device = Device { kind: device.0, channel: device.1 };
            let opened = OwnedFd::from(devices.open(device, libc::O_RDWR).unwrap());
            let name = std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).unwrap();
            let look = || identity(&File::from(opened.try_clone().unwrap()));
            assert_eq!(devices.of_file(name.as_os_str(), look), Some(device));
        }
        let other = RingFile::memfd(4096).unwrap();
        let other = File::from(other.ring_fd().try_clone_to_owned().unwrap());
        let look = || identity(&other);
        assert_eq!(devices.of_file(OsStr::new("/memfd:circbuf (deleted)"), look), None);
        assert_eq!(devices.of_file(OsStr::new("/dev/null"), || panic!("not looked at")), None);
    }
}
