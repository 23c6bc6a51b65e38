//! Runs camera and driver, and torments them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use circbuf_driver::device::Device;
use circbuf_emulator::ring_file::RingFile;
use circbuf_tests::Random;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::driver::Rings;
use super::{Kind, camera, driver};
use crate::law::Point;
use crate::seeds::{Counts, add, variable};

/// Frames of one run, where there is time.
const FRAMES: u64 = 500_000;

/// The same where there is not.
const FRAMES_FEW: u64 = 60_000;

/// How a process of this program learns what it has to do.
const RING: &str = "ADVERSARY_RING";
const SEED: &str = "ADVERSARY_SEED";
const COUNT: &str = "ADVERSARY_FRAMES";
const WITHOUT: &str = "ADVERSARY_WITHOUT";

/// A process that does not outlive this.
struct Process(Child);

impl Process {
    fn start(test: &str, variables: &[(&str, String)]) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        // Until it is waited for, its number is its own.
        kill(Pid::from_raw(self.0.id() as i32), signal).expect("a process of ours");
    }

    /// Reads lines until it says "ready".
    fn ready(&mut self) -> BufReader<std::process::ChildStdout> {
        let mut lines = BufReader::new(self.0.stdout.take().unwrap());
        let mut line = String::new();
        while line.trim() != "ready" {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ends before it is ready");
        }
        lines
    }

    fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Stops it for a moment, unless it is over.
    fn hold(&mut self, pause: Duration) {
        if !self.is_over() {
            self.signal(Signal::SIGSTOP);
            std::thread::sleep(pause);
            self.signal(Signal::SIGCONT);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The kind that the environment tells.
fn told_kind() -> Kind {
    let seed = variable(SEED).expect("another test tells it");
    match std::env::var(WITHOUT).ok().as_deref() {
        None => Kind::of(seed),
        Some("nothing") => Kind::against(None, seed),
        Some(name) => {
            let point = Point::ALL.into_iter().find(|point| format!("{point:?}") == name);
            Kind::against(Some(point.expect("a point of the law")), seed)
        }
    }
}

#[test]
#[ignore = "run by other tests"]
fn camera_process() {
    let kind = told_kind();
    let path = std::env::var(RING).unwrap();
    let fpga = kind.fpga(RingFile::create(Path::new(&path), kind.ring_bytes).unwrap());
    println!("\nready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    camera::run(fpga, &kind, variable(COUNT).unwrap());
}

#[test]
#[ignore = "run by other tests"]
fn driver_process() {
    let kind = told_kind();
    eprintln!("{kind:?}");
    let path = std::env::var(RING).unwrap();
    let watched = Device::open(Path::new(&path), None).unwrap();
    let device = match kind.counted {
        true => Device::open(Path::new(&path), None),
        false => Device::from_fds(File::open(&path).unwrap(), None::<File>),
    };
    let rings = Rings { device: device.unwrap(), watched };
    let counts = driver::run(rings, &kind, || println!("\nready"));
    println!();
    counts.iter().for_each(|(name, count)| println!("{name}={count}"));
}

/// Runs camera and driver as processes, with stops at random on both sides; what the driver counted.
fn run_processes(seed: u64, frames: u64, without: Option<&str>) -> BTreeMap<String, u64> {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let ring = dir.path().join("ring").display().to_string();
    let mut variables = vec![(RING, ring), (SEED, seed.to_string()), (COUNT, frames.to_string())];
    variables.extend(without.map(|point| (WITHOUT, point.to_owned())));
    let mut camera = Process::start("adversary::processes::camera_process", &variables);
    let _camera_lines = camera.ready();
    let mut driver = Process::start("adversary::processes::driver_process", &variables);
    let driver_lines = driver.ready();
    let counted = std::thread::spawn(|| {
        let lines = driver_lines.lines().map(Result::unwrap);
        lines
            .filter_map(|line| {
                let (name, count) = line.split_once('=')?;
                Some((name.to_owned(), count.parse().ok()?))
            })
            .collect()
    });
    writeln!(camera.0.stdin.take().unwrap(), "go").unwrap();
    torment(&mut camera, &mut driver, &mut Random::of(seed));
    assert!(camera.0.wait().unwrap().success(), "the camera of seed {seed}");
    assert!(driver.0.wait().unwrap().success(), "the driver of seed {seed}");
    counted.join().unwrap()
}

/// Stops one and the other for a moment until both are over.
fn torment(camera: &mut Process, driver: &mut Process, random: &mut Random) {
    let mut pause = |us_max| Duration::from_micros(random.below(us_max));
    while !(camera.is_over() && driver.is_over()) {
        driver.hold(pause(4000));
        std::thread::sleep(pause(12_000));
        camera.hold(pause(4000));
        std::thread::sleep(pause(12_000));
    }
}

/// The same as two threads, without stops from outside.
fn run_threads(kind: &Kind, frames: u64) -> Counts {
    let fpga = kind.fpga(RingFile::memfd(kind.ring_bytes).unwrap());
    let device = |counted: bool| {
        let registers = counted.then(|| fpga.file().registers_fd());
        Device::from_fds(fpga.file().ring_fd(), registers).unwrap()
    };
    let rings = Rings { device: device(kind.counted), watched: device(true) };
    let both = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            both.wait();
            camera::run(fpga, kind, frames);
        });
        driver::run(rings, kind, || {
            both.wait();
        })
    })
}

/// Runs with seed after seed until the time is over, or so often; the sums.
fn campaign(
    runs: u64,
    mut run: impl FnMut(u64, u64) -> BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let seconds = variable("ADVERSARY_SECONDS");
    let frames = if seconds.is_some() { FRAMES } else { FRAMES_FEW };
    let begun = Instant::now();
    let mut sums = BTreeMap::new();
    for seed in 0.. {
        let is_over = match seconds {
            Some(seconds) => begun.elapsed() >= Duration::from_secs(seconds),
            None => seed >= runs,
        };
        if is_over {
            break;
        }
        let counts = run(seed, frames);
        println!("seed {seed}: {counts:?}");
        assert_eq!(counts["damaged"], 0, "seed {seed}");
        counts.iter().for_each(|(name, count)| add(&mut sums, name, *count));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let frames_per_s = sums["frames"] as f64 / seconds;
    println!("{seconds:.1} s, {frames_per_s:.0} frames/s: {sums:#?}");
    sums
}

#[test]
fn two_processes() {
    let sums = campaign(10, |seed, frames| run_processes(seed, frames, None));
    assert!(sums["delivered"] > 10_000 && sums["overrun"] > 10_000, "{sums:?}");
}

#[test]
fn two_threads() {
    let owned = |counts: Counts| counts.into_iter().map(|(name, n)| (name.to_owned(), n)).collect();
    let sums = campaign(20, |seed, frames| {
        let kind = Kind::of(1000 + seed);
        println!("{kind:?}");
        owned(run_threads(&kind, frames))
    });
    assert!(sums["delivered"] > 10_000 && sums["overrun"] > 10_000, "{sums:?}");
}

/// Not for every day: what is to be seen depends on the machine's moods.
#[test]
#[ignore = "shows what refusals are for, by the naive twin of the law"]
fn without_a_point_damaged_frames_pass() {
    for without in ["nothing", "Content", "Marks", "Reach"] {
        let counts = run_processes(1, FRAMES, Some(without));
        println!("without {without}: {counts:?}");
        assert_eq!(counts["damaged"] > 0, without == "Marks" || without == "Reach", "{without}");
    }
}
