#![no_main]

use circbuf_tests::fuzzing::target;

libfuzzer_sys::fuzz_target!(
    init: target("y4m").write_seeds(),
    |bytes: &[u8]| (target("y4m").check)(bytes)
);
