#![no_main]

use circbuf_tests::fuzzing::target;

libfuzzer_sys::fuzz_target!(
    init: target("jpeg").write_seeds(),
    |bytes: &[u8]| (target("jpeg").check)(bytes)
);
