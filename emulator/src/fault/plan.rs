//! Which faults strike which frames, as it stands in a file or on a command line.
use std::fmt;
use std::str::FromStr;

use circbuf_abi::ring::{CHUNK_BYTES, PAYLOAD_BYTES_MAX, SLOTS_MIN};
use serde::Deserialize;
use toml::Spanned;

use super::FaultKind;
use super::noise::payload_bytes_max;
use super::other_picture::OtherPicture;

/// How often a fault strikes whose frames are not told.
const EVERY: u64 = 100;

/// Faults to inject.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// What is drawn follows from it.
    pub seed: u64,
    /// The faults; where two fall on one frame, the first one strikes it.
    pub faults: Vec<Fault>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { seed: 1, faults: Vec::new() }
    }
}

/// A kind of fault, and when it strikes.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// When.
    pub when: When,
}

/// When a fault strikes.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// At the frames of these numbers.
    At(Vec<u64>),
    /// At the frames N, 2N, 3N...; N is at least 1.
    Every(u64),
    /// At each frame with this probability, above 0 and at most 1.
    Rate(f64),
    /// At the first frame that is exposed so many seconds after the first one, or later.
    AtSeconds(Vec<f64>),
}

/// Faults that cannot be injected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultsError {
    /// A faults file that is not as it should be.
    #[error("line {line}: {reason}")]
    File {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// There is no such kind.
    #[error("no fault is called {name:?}; there are {}", FaultKind::ALL.map(FaultKind::name).join(", "))]
    Kind {
        /// As given.
        name: String,
    },
    /// A fault is not of the form `KIND` or `KIND@N`.
    #[error("{text:?}: {number:?} is no frame number; KIND@N strikes frame N, counted from 0")]
    Number {
        /// As given.
        text: String,
        /// What stands for the number.
        number: String,
    },
    /// The kind is about the interrupt handler, and there is none.
    #[error("{kind} is about frame headers, but the ring is bare: nobody stamps any")]
    Bare {
        /// Which.
        kind: FaultKind,
    },
}

/// A faults file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "seed")]
    seed: u64,
    #[serde(default)]
    fault: Vec<Spanned<Table>>,
}

fn seed() -> u64 {
    Faults::default().seed
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    kind: FaultKind,
    at: Option<Vec<u64>>,
    every: Option<u64>,
    rate: Option<f64>,
    at_s: Option<Vec<f64>>,
}

impl Faults {
    /// Reads the text of a faults file. A file without a fault is lawful.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn from_toml(text: &str) -> Result<Self, FaultsError> {
        let line_of = |at: usize| text.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1;
        let file: File = toml::from_str(text).map_err(|error| FaultsError::File {
            line: line_of(error.span().map_or(0, |span| span.start.min(text.len()))),
            reason: error.message().replace('\n', " "),
        })?;
        let fault = |table: Spanned<Table>| {
            let line = line_of(table.span().start.min(text.len()));
            table.into_inner().fault().map_err(|reason| FaultsError::File { line, reason })
        };
        let faults = file.fault.into_iter().map(fault).collect::<Result<_, _>>()?;
        Ok(Self { seed: file.seed, faults })
    }

    /// Whether a fault of this kind is among them.
    #[must_use]
    pub fn contains(&self, kind: FaultKind) -> bool {
        self.faults.iter().any(|fault| fault.kind == kind)
    }

    /// The largest payload, in bytes, that the register page has to promise on a ring of
    /// `ring_bytes`, where the source makes none above `of_source`.
    #[must_use]
    pub fn payload_bytes_max(&self, of_source: u32, ring_bytes: u64) -> u32 {
        let mut bytes = of_source;
        if self.contains(FaultKind::Geometry) {
            bytes = bytes.max(OtherPicture::compress().payload_bytes());
        }
        if self.contains(FaultKind::Sizes) {
            let slot = ring_bytes / SLOTS_MIN / CHUNK_BYTES as u64 * CHUNK_BYTES as u64;
            let largest = payload_bytes_max(slot).min(PAYLOAD_BYTES_MAX.into());
            bytes = bytes.max(largest as u32);
        }
        bytes
    }

    /// Checks that they can be injected into a ring with or without an interrupt handler.
    ///
    /// # Errors
    /// The first kind that cannot.
    pub fn check(&self, stamped: bool) -> Result<(), FaultsError> {
        let mut kinds = self.faults.iter().map(|fault| fault.kind);
        match kinds.find(|kind| kind.needs_handler() && !stamped) {
            Some(kind) => Err(FaultsError::Bare { kind }),
            None => Ok(()),
        }
    }
}

impl Table {
    fn fault(self) -> Result<Fault, String> {
        let kind = self.kind;
        let when = match (self.at, self.every, self.rate, self.at_s) {
            (Some(at), None, None, None) => Ok(When::At(at)),
            (None, Some(every), None, None) => Ok(When::Every(every)),
            (None, None, Some(rate), None) => Ok(When::Rate(rate)),
            (None, None, None, Some(at_s)) => Ok(When::AtSeconds(at_s)),
            (None, None, None, None) => {
                Err("when? give one of at = [frames], every = N, rate = P, at_s = [seconds]")
            }
            _ => Err("more than one of at, every, rate, at_s; give one fault table for each"),
        };
        let when = when.and_then(When::checked).map_err(|reason| format!("{kind}: {reason}"))?;
        Ok(Fault { kind, when })
    }
}

impl When {
    fn checked(self) -> Result<Self, &'static str> {
        let seconds_fit = |seconds: &f64| seconds.is_finite() && *seconds >= 0.0;
        match &self {
            Self::At(frames) if frames.is_empty() => Err("at = [] strikes no frame"),
            Self::Every(0) => Err("every = 0; it strikes the frames N, 2N, 3N..., from N = 1"),
            Self::Rate(rate) if !(*rate > 0.0 && *rate <= 1.0) => {
                Err("rate is a probability above 0 and at most 1")
            }
            Self::AtSeconds(seconds) if seconds.is_empty() => Err("at_s = [] strikes no frame"),
            Self::AtSeconds(seconds) if !seconds.iter().all(seconds_fit) => {
                Err("at_s counts seconds since the first frame, from 0")
            }
            _ => Ok(self),
        }
    }
}

impl FromStr for Fault {
    type Err = FaultsError;

    /// `KIND@N` strikes frame N, `KIND` every hundredth frame.
    fn from_str(text: &str) -> Result<Self, FaultsError> {
        let Some((kind, number)) = text.split_once('@') else {
            return Ok(Self { kind: text.parse()?, when: When::Every(EVERY) });
        };
        let kind = kind.parse()?;
        let number = number.parse().map_err(|_| FaultsError::Number {
            text: text.to_owned(),
            number: number.to_owned(),
        })?;
        Ok(Self { kind, when: When::At(vec![number]) })
    }
}

/// For people: `bit-flip every 20 frames`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        match &self.when {
            When::At(frames) => write!(f, "at {}", some_of(frames)),
            When::Every(frames) => write!(f, "every {frames} frames"),
            When::Rate(rate) => write!(f, "at {} % of the frames", rate * 100.0),
            When::AtSeconds(seconds) => write!(f, "at {} s", some_of(seconds)),
        }
    }
}

/// The first few of a list.
fn some_of<T: fmt::Display>(all: &[T]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = all.iter().take(SHOWN).map(T::to_string).collect();
    let more = if all.len() > SHOWN { "..." } else { "" };
    shown.join(", ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faults_file() {
        let text = r#"
            seed = 7
            [[fault]]
            kind = "bit-flip"
            every = 20
            [[fault]]
            kind = "restart"
            at = [3, 17]
            [[fault]]
            kind = "sprint"
            at_s = [1, 2.5]
            [[fault]]
            kind = "irq-lost"
            rate = 0.05
        "#;
        let faults = Faults::from_toml(text).unwrap();
        let fault = |kind, when| Fault { kind, when };
        let expected = vec![
            fault(FaultKind::BitFlip, When::Every(20)),
            fault(FaultKind::Restart, When::At(vec![3, 17])),
            fault(FaultKind::Sprint, When::AtSeconds(vec![1.0, 2.5])),
            fault(FaultKind::IrqLost, When::Rate(0.05)),
        ];
        assert_eq!(faults, Faults { seed: 7, faults: expected });
        assert_eq!(Faults::from_toml("").unwrap(), Faults::default());
        assert_eq!(faults.check(true), Ok(()));
        assert_eq!(faults.check(false), Err(FaultsError::Bare { kind: FaultKind::IrqLost }));
        let told: Vec<_> = faults.faults.iter().map(Fault::to_string).collect();
        assert_eq!(told[0], "bit-flip every 20 frames");
        assert_eq!(told[1], "restart at 3, 17");
        assert_eq!(told[2], "sprint at 1, 2.5 s");
        assert_eq!(told[3], "irq-lost at 5 % of the frames");
    }

    #[test]
    fn errors_name_the_line_and_what_is_wrong() {
        let cases = [
            ("sed = 1", 1, "unknown field `sed`"),
            ("\nseed = -1", 2, "invalid value"),
            ("[[fault]]\nkind = \"rust\"\nevery = 1", 2, "unknown variant `rust`"),
            ("[[fault]]\nevery = 1", 1, "missing field `kind`"),
            ("\n[[fault]]\nkind = \"stall\"", 2, "stall: when? give one of at"),
            ("[[fault]]\nkind = \"stall\"\nat = [1]\nrate = 0.5", 1, "more than one of at"),
            ("[[fault]]\nkind = \"stall\"\nat = []", 1, "at = [] strikes no frame"),
            ("[[fault]]\nkind = \"stall\"\nat = [-1]", 3, "invalid value"),
            ("[[fault]]\nkind = \"stall\"\nat_s = []", 1, "at_s = [] strikes"),
            ("[[fault]]\nkind = \"stall\"\nat_s = [-1.0]", 1, "from 0"),
            ("[[fault]]\nkind = \"stall\"\nat_s = [nan]", 1, "from 0"),
            ("[[fault]]\nkind = \"stall\"\nevery = 0", 1, "every = 0"),
            ("[[fault]]\nkind = \"stall\"\nrate = 0.0", 1, "above 0"),
            ("[[fault]]\nkind = \"stall\"\nrate = 1.01", 1, "at most 1"),
            ("[[fault]]\nkind = \"stall\"\nrate = nan", 1, "at most 1"),
            ("[[fault]]\nkind = \"stall\"\nonce = 4", 3, "unknown field `once`"),
            ("fault = 3\n", 1, "invalid type"),
            ("[[fault", 1, ""),
        ];
        for (text, expected, reason) in cases {
            match Faults::from_toml(text) {
                Err(FaultsError::File { line, reason: told }) => {
                    assert!(told.contains(reason), "{text:?}: {told}");
                    assert_eq!(line, expected, "{text:?}: {told}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn faults_on_the_command_line() {
        let fault = |text: &str| text.parse::<Fault>();
        let sprint = Fault { kind: FaultKind::Sprint, when: When::At(vec![30]) };
        assert_eq!(fault("sprint@30"), Ok(sprint));
        let stall = Fault { kind: FaultKind::Stall, when: When::Every(100) };
        assert_eq!(fault("stall"), Ok(stall));
        assert!(fault("rust").unwrap_err().to_string().contains("there are sprint, aborted"));
        assert!(fault("stall@x").unwrap_err().to_string().contains("\"x\" is no frame number"));
        assert!(fault("stall@").is_err() && fault("@1").is_err() && fault("stall@-1").is_err());
    }
}
