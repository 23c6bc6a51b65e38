//! The fuzz targets without a fuzzer: the corpus, the seeds, and mutations of both. The mutations
//! follow from a seed, so that the same build runs the same inputs.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, reason = "an input that fails is to be found again")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use circbuf_tests::Random;
use circbuf_tests::fuzzing::{Target, mutate, target};

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", name].iter().collect();
    let files = std::fs::read_dir(dir).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Runs one input; one that fails is kept for the next run.
fn try_one(target: Target, input: &[u8]) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.check)(input))) else { return };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.failed", target.name));
    std::fs::write(&path, input).unwrap();
    println!(
        "these {} bytes are in {}; as a file in tests/fuzz/corpus/{} they are tried first",
        input.len(),
        path.display(),
        target.name
    );
    resume_unwind(panic);
}

fn fuzz(name: &str, mutations: u64) {
    let target = target(name);
    let inputs = [(target.seeds)(), corpus(name)].concat();
    inputs.iter().for_each(|input| try_one(target, input));
    let mut random = Random::of(1);
    for _ in 0..mutations {
        let [input, other] = [(); 2].map(|()| &inputs[random.below(inputs.len() as u64) as usize]);
        try_one(target, &mutate(&mut random, input, other));
    }
}

#[test]
fn what_is_found_in_an_image_is_what_the_law_says() {
    fuzz("walker", 3000);
}

#[test]
fn what_the_tail_delivers_is_lawful_whatever_the_writer_does() {
    fuzz("tail", 1500);
}

#[test]
fn a_mended_archive_keeps_what_was_whole_and_is_mended() {
    fuzz("archive", 500);
}

#[test]
fn what_is_encoded_is_parsed_as_it_was() {
    fuzz("index", 3000);
}

#[test]
fn a_jpeg_file_that_is_taken_can_be_decoded_from_the_ring() {
    fuzz("jpeg", 1500);
}

#[test]
fn an_array_becomes_its_levels_of_gray() {
    fuzz("npy", 1500);
}

#[test]
fn a_stream_gives_the_frames_that_are_in_it() {
    fuzz("y4m", 500);
}

#[test]
fn any_frame_is_decoded_or_refused() {
    fuzz("decode", 1500);
}
