//! The configuration file: a TOML table for each group of options. Unknown keys are errors.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::failure::Failure;
use crate::options::{ArchArgs, DriverArgs, LimitArgs, PaceArgs, ProcArgs, RingArgs, SourceArgs};

/// What a configuration file may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) source: SourceArgs,
    pub(crate) ring: RingArgs,
    pub(crate) pace: PaceArgs,
    pub(crate) limits: LimitArgs,
    pub(crate) driver: DriverArgs,
    pub(crate) proc: ProcArgs,
    pub(crate) arch: ArchArgs,
}

impl Config {
    /// Reads the file; without one, nothing is set.
    pub(crate) fn load(path: Option<&PathBuf>) -> Result<Config, Failure> {
        path.map_or(Ok(Config::default()), |path| read(path))
    }
}

fn read(path: &Path) -> Result<Config, Failure> {
    let refuse = |why: String| Failure::usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    parse(&text).map_err(refuse)
}

/// Reads the text of a file.
pub(crate) fn parse(text: &str) -> Result<Config, String> {
    let config: Config = toml::from_str(text).map_err(|error| one_line(text, &error))?;
    let out_of_range = [
        (
            "source.quality",
            config.source.quality.is_some_and(|q| !(1..=100).contains(&q)),
            "1 to 100",
        ),
        ("ring.channels", config.ring.channels.is_some_and(|n| !(1..=4).contains(&n)), "1 to 4"),
        ("limits.frames", config.limits.frames == Some(0), "from 1"),
        ("proc.workers", config.proc.workers.is_some_and(|n| !(1..=256).contains(&n)), "1 to 256"),
        ("proc.queue", config.proc.queue == Some(0), "from 1"),
        ("arch.queue", config.arch.queue == Some(0), "from 1"),
        ("arch.segment_seconds", config.arch.segment_seconds == Some(0), "from 1"),
    ];
    match out_of_range.iter().find(|(_, wrong, _)| *wrong) {
        Some((key, _, range)) => Err(format!("{key} is out of range; it goes {range}")),
        None => Ok(config),
    }
}

/// The parser's message with the line it is about, instead of a drawing over several lines.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    match error.span() {
        Some(span) => {
            let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
            format!("line {line}: {message}")
        }
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use circbuf_tests::fuzzing::{Target, check_config, config_seeds};

    #[test]
    fn any_text_is_read_or_refused_in_one_line() {
        let check = |bytes: &[u8]| check_config(|text| super::parse(text).map(drop), bytes);
        Target { name: "config", check, seeds: config_seeds }.run_seeded(3000);
    }
}
