use super::super::options::{ArchiveOptions, Durability};
use super::proof::{Recording, Seen, Story};
use super::tape::{Fault, Faults, Op};

fn options(durability: Durability, depth: usize) -> ArchiveOptions {
    let segment_bytes = 24_576;
    ArchiveOptions { durability, depth, segment_bytes, ..ArchiveOptions::default() }
}

fn no_faults() -> Faults {
    Box::new(|_, _| None)
}

/// Three frames and a loss, two of them in flight at once, in two segments.
fn small(durability: Durability) -> Story {
    let options = ArchiveOptions { segment_bytes: 16_384, ..options(durability, 2) };
    let mut recording = Recording::start(options, true, no_faults()).unwrap();
    recording.script.lock().unwrap().hold = true;
    recording.append(500);
    recording.append(4_000);
    recording.script.lock().unwrap().release.extend([1, 0]);
    recording.poll();
    recording.lose(2);
    recording.append(300);
    recording.poll();
    recording.end(true)
}

#[test]
fn a_small_archive_keeps_its_promise_whatever_a_power_cut_leaves_of_it() {
    let mut seen = Seen::default();
    for durability in [Durability::Frame, Durability::None, Durability::Interval(0)] {
        let story = small(durability);
        assert_eq!((story.counters.durable, story.counters.losses_written), (3, 1));
        story.prove(None, &mut seen).unwrap_or_else(|what| panic!("{durability:?}: {what}"));
    }
    println!("{seen:?}");
}
