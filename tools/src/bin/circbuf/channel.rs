//! The channels of a run: how their numbers show in the names of what belongs to them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A channel of a run. That of a run with one channel has no number that shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelOf {
    number: u32,
    channels: usize,
}

impl ChannelOf {
    /// The channels of a run of so many.
    pub(crate) fn all(channels: usize) -> impl Iterator<Item = ChannelOf> {
        (0..).take(channels).map(move |number| ChannelOf { number, channels })
    }

    /// From 0.
    pub(crate) fn number(self) -> u32 {
        self.number
    }

    /// The number, where there are several.
    pub(crate) fn shown(self) -> Option<u32> {
        (!self.is_only()).then_some(self.number)
    }

    fn is_only(self) -> bool {
        self.channels == 1
    }

    /// The channel's own file: the number stands behind the name and in front of its extension.
    pub(crate) fn file(self, path: &Path) -> PathBuf {
        let Some(stem) = path.file_stem().filter(|_| !self.is_only()) else { return path.into() };
        let mut name = OsString::from(stem);
        name.push(self.number.to_string());
        if let Some(extension) = path.extension() {
            name.push(".");
            name.push(extension);
        }
        path.with_file_name(name)
    }

    /// The channel's own folder in a folder.
    pub(crate) fn folder(self, path: &Path) -> PathBuf {
        match self.is_only() {
            true => path.into(),
            false => path.join(format!("channel{}", self.number)),
        }
    }

    /// What is said, and of which channel.
    pub(crate) fn says(self, what: &str) -> String {
        match self.is_only() {
            true => what.to_owned(),
            false => format!("channel {}: {what}", self.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_channel_shows_no_number_and_several_do() {
        let names = |channels, path: &str| -> Vec<PathBuf> {
            ChannelOf::all(channels).map(|channel| channel.file(Path::new(path))).collect()
        };
        assert_eq!(names(1, "/dev/shm/ring.bin"), [Path::new("/dev/shm/ring.bin")]);
        assert_eq!(names(2, "/dev/shm/ring"), ["/dev/shm/ring0", "/dev/shm/ring1"].map(Path::new));
        assert_eq!(names(2, "a.b/l.jsonl"), ["a.b/l0.jsonl", "a.b/l1.jsonl"].map(Path::new));
        let folders: Vec<_> = ChannelOf::all(2).map(|c| c.folder(Path::new("A"))).collect();
        assert_eq!(folders, ["A/channel0", "A/channel1"].map(Path::new));
        assert_eq!(ChannelOf::all(1).next().unwrap().folder(Path::new("A")), Path::new("A"));
    }
}
