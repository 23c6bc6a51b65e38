#![no_main]
#![expect(dead_code, reason = "the program uses what this target does not")]

use circbuf_tests::fuzzing::{Target, check_config, config_seeds};

// The reader belongs to the program, not to a library.
#[path = "../../../tools/src/bin/circbuf/channel.rs"]
mod channel;
#[path = "../../../tools/src/bin/circbuf/config.rs"]
mod config;
#[path = "../../../tools/src/bin/circbuf/failure.rs"]
mod failure;
#[path = "../../../tools/src/bin/circbuf/options.rs"]
mod options;
#[path = "../../../tools/src/bin/circbuf/parse.rs"]
mod parse;

const TARGET: Target = Target {
    name: "config",
    check: |bytes| check_config(|text| config::parse(text).map(drop), bytes),
    seeds: config_seeds,
};

libfuzzer_sys::fuzz_target!(init: TARGET.write_seeds(), |bytes: &[u8]| (TARGET.check)(bytes));
