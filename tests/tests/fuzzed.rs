//! The fuzz targets without a fuzzer, from the same corpus.

use circbuf_tests::fuzzing::target;

#[test]
fn what_is_found_in_an_image_is_what_the_law_says() {
    target("walker").run_seeded(6000);
}

#[test]
fn what_the_tail_delivers_is_lawful_whatever_the_writer_does() {
    target("tail").run_seeded(3000);
}

#[test]
fn a_mended_archive_keeps_what_was_whole_and_is_mended() {
    target("archive").run_seeded(2000);
}

#[test]
fn what_is_encoded_is_parsed_as_it_was() {
    target("index").run_seeded(6000);
}

#[test]
fn a_jpeg_file_that_is_taken_can_be_decoded_from_the_ring() {
    target("jpeg").run_seeded(3000);
}

#[test]
fn an_array_becomes_its_levels_of_gray() {
    target("npy").run_seeded(3000);
}

#[test]
fn a_stream_gives_the_frames_that_are_in_it() {
    target("y4m").run_seeded(1000);
}

#[test]
fn any_frame_is_decoded_or_refused() {
    target("decode").run_seeded(3000);
}

#[test]
fn no_fault_that_a_file_asks_for_is_delivered() {
    target("faults").run_seeded(500);
}
