use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

use super::super::options::{ArchiveOptions, Durability};
use super::proof::{Recording, Seen, Story};
use super::tape::{Fault, Faults, Op};

const EVERY: [Durability; 3] = [Durability::Frame, Durability::Interval(300), Durability::None];

fn no_faults() -> Faults {
    Box::new(|_, _| None)
}

fn options(durability: Durability) -> ArchiveOptions {
    let (segment_bytes, depth) = (20_480, 3);
    ArchiveOptions { durability, depth, segment_bytes, ..ArchiveOptions::default() }
}

/// Five frames and a loss in two segments, three of them in flight at once, which are complete in
/// the worst order; and time for a disk that failed to be tried again. `None` if it failed before.
fn small(durability: Durability, faults: Faults) -> Option<Story> {
    let mut recording = Recording::start(options(durability), true, faults)?;
    recording.script.lock().unwrap().hold = true;
    recording.append(3_800);
    recording.append(7_000);
    recording.append(3_700);
    for ticket in [1, 0, 2] {
        recording.script.lock().unwrap().release.push_back(ticket);
        recording.poll();
    }
    recording.now.monotonic_ns += 1_000_000_000;
    recording.script.lock().unwrap().hold = false;
    recording.lose(2);
    recording.append(9_000);
    recording.poll();
    recording.now.monotonic_ns += 1_000_000_000;
    recording.append(3_500);
    recording.poll();
    Some(recording.end(true))
}

/// An archive driven by a seed, with each operation failing as often as is said, in thousandths.
fn random(seed: u64, failing: u64) -> Option<Story> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut below = move |limit: u64| random.next_u64() % limit;
    let options = ArchiveOptions {
        segment_bytes: 30_000 + below(60_000),
        segment_seconds: Some(5),
        depth: 1 + below(5) as usize,
        index: failing > 0 || below(4) > 0,
        ..options(EVERY[below(3) as usize])
    };
    let mut recording = Recording::start(options, below(3) > 0, faults(seed, failing))?;
    for _ in 0..60 {
        match below(20) {
            0..4 => recording.append(1 + below(3_900) as u32),
            4..8 => recording.append(1 + below(9_000) as u32),
            8 => recording.lose(1 + below(3)),
            9..12 => {
                let ticket = below(40);
                recording.script.lock().unwrap().release.push_back(ticket);
                recording.poll();
            }
            12..15 => recording.now.monotonic_ns += below(400_000_000),
            15..17 => recording.script.lock().unwrap().hold ^= true,
            17 if failing > 0 => {
                let broken = below(4) == 0;
                recording.script.lock().unwrap().broken = broken;
            }
            18 if failing > 0 && below(8) == 0 => {
                recording.script.lock().unwrap().collapse = true;
            }
            19 if below(6) == 0 => recording.seal(),
            _ => recording.poll(),
        }
    }
    Some(recording.end(below(2) == 0))
}

fn faults(seed: u64, failing: u64) -> Faults {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(!seed);
    Box::new(move |_, op| {
        let (dice, ways) = (random.next_u64(), ways(op));
        (dice % 1000 < failing).then(|| ways[(dice >> 32) as usize % ways.len()])
    })
}

#[test]
fn a_small_archive_keeps_its_promise_whatever_any_power_cut_leaves_of_it() {
    let mut seen = Seen::default();
    for durability in EVERY {
        let story = small(durability, no_faults()).unwrap();
        assert_eq!((story.counters.durable, story.counters.losses_written), (5, 1));
        story.prove(None, &mut seen).unwrap_or_else(|what| panic!("{durability:?}: {what}"));
    }
    println!("{seen}");
    assert!(seen.disks > 1000 && seen.again > 0 && seen.cut > 0 && seen.erased > 0, "{seen}");
}

#[test]
fn an_archive_driven_by_a_seed_keeps_its_promise_after_power_cuts() {
    let mut seen = Seen::default();
    for seed in 0..8 {
        let story = random(seed, 0).unwrap();
        story
            .prove(Some((seed, 3)), &mut seen)
            .unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    println!("{seen}");
    assert!(seen.disks > 1000 && seen.more > 0 && seen.erased > 0, "{seen}");
}

/// How an operation can fail.
fn ways(op: Op) -> &'static [Fault] {
    match op {
        Op::Write | Op::WriteAll => {
            &[Fault::Errno(libc::EIO), Fault::Errno(libc::ENOSPC), Fault::Short]
        }
        Op::Reserve => &[Fault::Errno(libc::ENOSPC), Fault::Errno(libc::EOPNOTSUPP)],
        _ => &[Fault::Errno(libc::EIO)],
    }
}

#[test]
fn whichever_operation_fails_no_promise_is_made_on_the_strength_of_it() {
    let (mut seen, mut failed) = (Seen::default(), 0);
    for durability in EVERY {
        let ops = small(durability, no_faults()).unwrap().tape.ops;
        for (first, op) in ops.into_iter().enumerate() {
            for fault in ways(op) {
                // Now alone, now with the two that follow: what is tried instead fails as well.
                let last = first + first % 2 * 2;
                let faults: Faults = Box::new(move |at, op| {
                    let fails = (first..=last).contains(&at) && ways(op).contains(fault);
                    fails.then_some(*fault)
                });
                let Some(story) = small(durability, faults) else { continue };
                failed += u64::from(story.counters.io_errors > 0);
                let what = format!("{durability:?}, {fault:?} from {first} to {last}, {op:?}");
                story
                    .prove(Some((first as u64, 1)), &mut seen)
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
            }
        }
    }
    println!("{seen}, {failed} failed");
    assert!(failed > 50, "{failed}");
}

#[test]
fn an_archive_on_a_disk_that_fails_now_and_then_keeps_its_promise_after_power_cuts() {
    let (mut seen, mut lost, mut durable) = (Seen::default(), 0, 0);
    for seed in 100..135 {
        let Some(story) = random(seed, 20 + seed % 60) else { continue };
        (lost, durable) = (lost + story.counters.frames_lost_io, durable + story.counters.durable);
        story
            .prove(Some((seed, 2)), &mut seen)
            .unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    println!("{seen}, {lost} frames lost, {durable} durable");
    assert!(lost > 100 && durable > 100, "{lost} {durable}");
}

/// What the proof says of a story that must not hold.
fn refuted(story: &Story) -> String {
    let seen = &mut Seen::default();
    story.prove(None, seen).expect_err("the proof is blind")
}

#[test]
fn a_sync_that_failed_unnoticed_is_found_out_though_all_later_ones_succeed() {
    let first_lies = |lying: Op| -> Faults {
        let mut lied = false;
        Box::new(move |_, op| {
            (op == lying && !std::mem::replace(&mut lied, true)).then_some(Fault::Lie)
        })
    };
    let story = small(Durability::Frame, first_lies(Op::SyncData)).unwrap();
    assert!(refuted(&story).contains("which is not there"));
    let story = small(Durability::Frame, first_lies(Op::SyncAll)).unwrap();
    assert!(refuted(&story).contains("no segment starts here"));
    let story = small(Durability::Frame, first_lies(Op::SyncNames)).unwrap();
    assert!(refuted(&story).contains("which is not there"));
}

#[test]
fn a_name_or_a_promise_that_comes_too_early_is_found_out() {
    for durability in EVERY {
        let mut story = small(durability, no_faults()).unwrap();
        story.tape.hasten_names();
        assert!(refuted(&story).contains("which is not there"), "{durability:?}");
    }
    let mut story = small(Durability::Frame, no_faults()).unwrap();
    story.promise_early();
    assert!(refuted(&story).contains("promised and gone"));
}
