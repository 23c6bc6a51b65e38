//! The books of a run with several channels: each channel's own, and their sums.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::table;
use crate::session::Outcome;

/// Version of the object with several channels.
const SCHEMA: &str = "circbuf.channels/1";

/// Numbers of a channel's object that are added up, by their paths.
const SUMMED: [&str; 20] = [
    "/ring/frames_expected",
    "/ring/frames_detected",
    "/ring/passed",
    "/ring/lost/overrun",
    "/ring/lost/torn",
    "/ring/lost/corrupt",
    "/consumers/proc/expected",
    "/consumers/proc/delivered",
    "/consumers/proc/policy",
    "/consumers/proc/in_flight",
    "/consumers/proc/lost/no_slab",
    "/consumers/proc/lost/queue_full",
    "/consumers/arch/expected",
    "/consumers/arch/delivered",
    "/consumers/arch/policy",
    "/consumers/arch/in_flight",
    "/consumers/arch/lost/no_slab",
    "/consumers/arch/lost/queue_full",
    "/consumers/arch/lost/io",
    "/consumers/arch/bytes_written",
];

/// The table of each channel; that of one alone has no title.
pub(crate) fn tables(out: &mut dyn Write, outcomes: &[Outcome]) -> io::Result<()> {
    for outcome in outcomes {
        if let Some(number) = outcome.channel.shown() {
            writeln!(out, "channel {number}  {}", outcome.device)?;
        }
        table(out, outcome)?;
    }
    Ok(())
}

/// The object of one channel alone; of several one that holds theirs.
pub(crate) fn json_of_all(outcomes: &[Outcome]) -> Value {
    if let [only] = outcomes {
        return super::json(only);
    }
    let channels: Vec<Value> = outcomes.iter().map(channel).collect();
    let elapsed = channels.iter().filter_map(|channel| channel["elapsed_s"].as_f64());
    json!({
        "schema": SCHEMA,
        "elapsed_s": elapsed.fold(0.0, f64::max),
        "closes": channels.iter().all(|channel| channel["closes"] == true),
        "sums": sums(&channels),
        "channels": channels,
    })
}

fn channel(outcome: &Outcome) -> Value {
    let mut object = super::json(outcome);
    object["channel"] = json!(outcome.channel.number());
    object["device"] = json!(outcome.device);
    object
}

/// Of each number, at the place that it has in a channel's object; null where one channel does not know
/// it.
fn sums(channels: &[Value]) -> Value {
    let mut sums = Value::Null;
    for path in SUMMED {
        let number = |channel: &Value| channel.pointer(path).and_then(Value::as_u64);
        let sum: Option<u64> = channels.iter().map(number).sum();
        let place = path.split('/').skip(1).fold(&mut sums, |object, key| &mut object[key]);
        *place = json!(sum);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_added_where_all_channels_know_them() {
        let channel = |expected: Value, torn: u64| {
            json!({
                "ring": { "frames_expected": expected, "lost": { "torn": torn } },
                "consumers": { "arch": { "lost": { "io": 2 } } }
            })
        };
        let sums = sums(&[channel(json!(5), 1), channel(json!(7), 2)]);
        assert_eq!(sums["ring"]["frames_expected"], 12);
        assert_eq!(sums["ring"]["lost"]["torn"], 3);
        assert_eq!(sums["consumers"]["arch"]["lost"]["io"], 4);
        let sums = super::sums(&[channel(json!(5), 1), channel(Value::Null, 2)]);
        assert!(sums["ring"]["frames_expected"].is_null());
    }
}
