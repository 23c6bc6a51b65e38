#![no_main]

use circbuf_tests::fuzzing::target;

libfuzzer_sys::fuzz_target!(
    init: target("index").write_seeds(),
    |bytes: &[u8]| (target("index").check)(bytes)
);
