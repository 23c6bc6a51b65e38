#![no_main]

use circbuf_tests::fuzzing::target;

libfuzzer_sys::fuzz_target!(
    init: target("faults").write_seeds(),
    |bytes: &[u8]| (target("faults").check)(bytes)
);
