//! Values as they are typed on the command line and in a configuration.

use std::str::FromStr;
use std::time::Duration;

use circbuf_driver::pipeline::LossLimit;
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

/// The longest run that can be asked for: ten years.
const SECONDS_MAX: f64 = 315_360_000.0;

/// A number of bytes: `19791872`, `64MiB`, `80MB`, `16k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        circbuf_tools::size::parse(text).map(Bytes)
    }
}

/// A time in seconds: `20`, `0.5`, `20s`, `100ms`. Above zero, at most ten years.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seconds(pub(crate) f64);

impl Seconds {
    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs_f64(self.0)
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seconds, String> {
        let (number, unit) = match text.strip_suffix("ms") {
            Some(number) => (number, 1e-3),
            None => (text.strip_suffix('s').unwrap_or(text), 1.0),
        };
        let seconds = number.parse::<f64>().map_err(|_| format!("'{text}' is no time"))? * unit;
        // A nanosecond is the least that a duration can hold.
        if !(1e-9..=SECONDS_MAX).contains(&seconds) {
            return Err(format!(
                "{text} s is out of range; above 0, at most {SECONDS_MAX} (10 years)"
            ));
        }
        Ok(Seconds(seconds))
    }
}

/// The rate of the bus in 10^6 bytes a second, or `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum BusRate {
    /// As fast as memory.
    Unlimited,
    /// So many 10^6 bytes a second.
    MegabytesPerSecond(f64),
}

impl FromStr for BusRate {
    type Err = String;

    fn from_str(text: &str) -> Result<BusRate, String> {
        if text == "unlimited" {
            return Ok(BusRate::Unlimited);
        }
        match text.parse::<f64>() {
            Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(BusRate::MegabytesPerSecond(rate)),
            _ => Err(format!("'{text}' is no rate; 0.001 to 1000000, or unlimited")),
        }
    }
}

/// How much may be lost: `N` frames or `P%` of what was expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LossBudget(pub(crate) LossLimit);

impl FromStr for LossBudget {
    type Err = String;

    fn from_str(text: &str) -> Result<LossBudget, String> {
        let budget = match text.strip_suffix('%') {
            Some(percent) => {
                percent.parse().ok().filter(|p| (0.0..=100.0).contains(p)).map(LossLimit::Percent)
            }
            None => text.parse().ok().map(LossLimit::Frames),
        };
        budget
            .map(LossBudget)
            .ok_or_else(|| format!("'{text}' is no loss budget; N frames, or P% from 0 to 100"))
    }
}

/// Two numbers: `LOW,HIGH`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Window(pub(crate) f64, pub(crate) f64);

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Window, String> {
        let parsed = text.split_once(',').and_then(|(low, high)| {
            Some(Window(low.trim().parse().ok()?, high.trim().parse().ok()?))
        });
        parsed.ok_or_else(|| format!("'{text}' is no window; LOW,HIGH"))
    }
}

/// What a run does with each frame: `none`, `decode`, `decode=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProcessorChoice {
    /// Nothing but counting it.
    None,
    /// Decode and measure it; the measures go to the file if there is one, `-` is stdout.
    Decode(Option<String>),
}

impl FromStr for ProcessorChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<ProcessorChoice, String> {
        match text.split_once('=') {
            None if text == "none" => Ok(ProcessorChoice::None),
            None if text == "decode" => Ok(ProcessorChoice::Decode(None)),
            Some(("decode", file)) if !file.is_empty() => {
                Ok(ProcessorChoice::Decode(Some(file.to_owned())))
            }
            _ => Err(format!("'{text}' is no processor; none, decode or decode=FILE")),
        }
    }
}

/// `none`, `frame` or `interval=MS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DurabilityChoice(pub(crate) circbuf_driver::archive::Durability);

impl FromStr for DurabilityChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DurabilityChoice, String> {
        use circbuf_driver::archive::Durability;
        let durability = match text.split_once('=') {
            None if text == "none" => Some(Durability::None),
            None if text == "frame" => Some(Durability::Frame),
            Some(("interval", ms)) => {
                ms.parse().ok().filter(|&ms| ms > 0).map(Durability::Interval)
            }
            _ => None,
        };
        let durability = durability.map(DurabilityChoice);
        durability.ok_or_else(|| format!("'{text}' is no durability; none, frame or interval=MS"))
    }
}

/// Lets a type that is typed as text also stand in a configuration, as text or as a plain number.
macro_rules! deserialize_from_text {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = deserializer.deserialize_any(Text)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

deserialize_from_text!(Bytes, Seconds, BusRate, LossBudget, Window, ProcessorChoice);
deserialize_from_text!(DurabilityChoice);

/// A text, or a list of texts.
pub(crate) fn one_or_more<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_any(Texts)
}

struct Texts;

impl<'de> Visitor<'de> for Texts {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Vec<String>, E> {
        Ok(vec![text.to_owned()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
        std::iter::from_fn(|| list.next_element().transpose()).collect()
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_u64<E>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!("64MiB".parse(), Ok(Bytes(64 << 20)));
        assert_eq!("19791872".parse(), Ok(Bytes(19_791_872)));
        assert_eq!("80MB".parse(), Ok(Bytes(80_000_000)));
        for bad in ["", "MiB", "-1", "1.5M", "99999999999G", "4 k", "4parsec"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_are_above_zero_and_bounded() {
        assert_eq!("20".parse(), Ok(Seconds(20.0)));
        assert_eq!("250ms".parse(), Ok(Seconds(0.25)));
        for bad in ["0", "-1", "nan", "inf", "1e300", "", "s", "0.0", "1e-300"] {
            assert!(bad.parse::<Seconds>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn budgets_are_frames_or_per_cent() {
        assert_eq!("0".parse(), Ok(LossBudget(LossLimit::Frames(0))));
        assert_eq!("0.5%".parse(), Ok(LossBudget(LossLimit::Percent(0.5))));
        for bad in ["", "%", "-1", "101%", "nan%", "1.5"] {
            assert!(bad.parse::<LossBudget>().is_err(), "{bad:?}");
        }
    }
}
