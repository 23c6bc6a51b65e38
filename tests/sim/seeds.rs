//! Runs seeds, each in a process that has one thread and does nothing else: the disk fails by
//! limits that are those of a process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use circbuf_emulator::fault::FaultKind;

use crate::bench::Bench;
use crate::disk::program_with_disk;
use crate::world::World;

/// What came of a seed, by name.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

fn run(seed: u64) -> Counts {
    let mut counts = World::of(seed).run();
    counts.extend(Bench::of(seed).run());
    counts
}

/// Seeds that one process runs: every so many of a range.
#[derive(Debug, Clone, Copy)]
struct Share {
    first: u64,
    end: u64,
    stride: u64,
}

impl Share {
    const VARIABLE: &str = "SIM_SHARE";

    fn spawn(self) -> Child {
        let share = format!("{} {} {}", self.first, self.end, self.stride);
        program_with_disk()
            .args(["--exact", "seeds::worker", "--ignored", "--nocapture", "--test-threads=1"])
            .env(Share::VARIABLE, share)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn of_environment() -> Option<Share> {
        let share = std::env::var(Share::VARIABLE).ok()?;
        let mut numbers = share.split(' ').map(|number| number.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        Some(Share { first: next(), end: next(), stride: next() })
    }
}

/// Tells each seed before it is run, and its counts behind it.
#[test]
#[ignore = "run by other tests"]
fn worker() {
    let share = Share::of_environment().expect("another test says which seeds");
    for seed in (share.first..share.end).step_by(share.stride as usize) {
        println!("\nseed {seed}");
        run(seed).iter().for_each(|(name, count)| println!("{name}={count}"));
    }
}

/// Follows a share to its end: how many seeds there were, and the sums of their counts.
fn follow(mut child: Child) -> (u64, BTreeMap<String, u64>) {
    let (mut seed, mut seeds) = (String::from("none"), 0);
    let mut sums = BTreeMap::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap) {
        if let Some(number) = line.strip_prefix("seed ") {
            seed = number.to_owned();
            seeds += 1;
        } else if let Some((name, count)) = line.split_once('=') {
            add(&mut sums, name, count.parse().unwrap());
        }
    }
    let ended = child.wait().unwrap();
    assert!(
        ended.success(),
        "seed {seed} fails ({ended}); replay it with\n  \
         SIM_SEED={seed} cargo test -p circbuf-tests --test sim -- --exact seeds::seeds --nocapture"
    );
    (seeds, sums)
}

/// Digests wrap.
pub(crate) fn add(sums: &mut BTreeMap<String, u64>, name: &str, count: u64) {
    let sum = sums.entry(name.to_owned()).or_default();
    *sum = sum.wrapping_add(count);
}

/// A number in the environment.
pub(crate) fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Runs seeds on all cores; the sums of their counts.
fn run_all(first: u64, seeds: u64) -> BTreeMap<String, u64> {
    let stride = std::thread::available_parallelism().unwrap().get() as u64;
    let shares = (0..stride).map(|n| Share { first: first + n, end: first + seeds, stride });
    let children: Vec<Child> = shares.map(Share::spawn).collect();
    let followers = children.into_iter().map(|child| std::thread::spawn(|| follow(child)));
    let (mut ran, mut sums) = (0, BTreeMap::new());
    for follower in followers.collect::<Vec<_>>() {
        let came = follower.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ran += came.0;
        came.1.iter().for_each(|(name, count)| add(&mut sums, name, *count));
    }
    assert_eq!(ran, seeds);
    sums
}

/// Random schedules keep the books, the order, the truth and the slabs.
#[test]
fn seeds() {
    if let Some(seed) = variable("SIM_SEED") {
        println!("seed {seed}: {:#?}", run_all(seed, 1));
        return;
    }
    let first = variable("SIM_FIRST").unwrap_or(0);
    let seeds = variable("SIM_SEEDS").unwrap_or(2000);
    let sums = run_all(first, seeds);
    println!("seeds {first} to {}: {sums:#?}", first + seeds - 1);
    // The schedules reach what they are made for, and every kind of fault.
    let is_reached = |kind: &FaultKind| sums.contains_key(kind.name());
    let all_reached = FaultKind::ALL.iter().all(is_reached);
    let rare = sums.iter().find(|(name, count)| *name != "refused_good" && **count < seeds / 100);
    assert!(seeds < 1000 || (all_reached && rare.is_none()), "hardly any {rare:?} in {sums:?}");
}

#[test]
fn a_seed_does_the_same_every_time() {
    let share = Share { first: 1000, end: 1040, stride: 1 };
    let (one, other) = (share.spawn(), share.spawn());
    assert_eq!(follow(one), follow(other));
}
