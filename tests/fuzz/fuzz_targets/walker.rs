#![no_main]

use circbuf_tests::fuzzing::target;

libfuzzer_sys::fuzz_target!(
    init: target("walker").write_seeds(),
    |bytes: &[u8]| (target("walker").check)(bytes)
);
