//! The copy kernels against memcpy, and against the usual way: memcpy, then memchr for FF.
//!
//! `cargo bench -p circbuf-driver --bench kernels [-- FILTER]`. Criterion gives each contender's throughput;
//! the table in front of it gives ratios: there the contenders take turns within a round, each with the same
//! stretches of the ring and the same slabs, because a shared machine drifts more between two measurements
//! than they differ.

#![allow(clippy::unwrap_used, clippy::print_stdout, unsafe_code)]

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use circbuf_driver::checksum::Checksum;
use circbuf_driver::copy::{Kernel, PairScan, Stores};
use circbuf_driver::mapping::Mapping;
use circbuf_driver::record::PAYLOAD_OFFSET;
use circbuf_driver::slab::{Slab, SlabPool};
use criterion::{Criterion, Throughput};

/// The ring of a 353.
const RING_BYTES: usize = 19_791_872;
const ROUNDS: usize = 300;
/// Bytes that a contender copies in its turn: a time slice is much longer, so that what else the machine
/// does spoils some rounds and not all.
const TURN_BYTES: usize = 2 << 20;

/// The ring, once for the kernels and once as what memcpy reads from.
struct Ring {
    mapping: Mapping,
    bytes: memmap2::Mmap,
}

impl Ring {
    /// Full of what a JPEG's scan looks like to the kernels: an FF now and then, none behind another.
    fn new() -> Ring {
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        let mut state = 1u32;
        let random = std::iter::from_fn(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((state >> 24) as u8)
        });
        let mut bytes: Vec<u8> = random.take(RING_BYTES).collect();
        (1..RING_BYTES).filter(|at| at % 2 == 1).for_each(|at| bytes[at] &= 0xFE);
        file.write_all(&bytes).unwrap();
        let mapping = Mapping::ring(&file, RING_BYTES).unwrap();
        // SAFETY: nobody else has the file.
        let bytes = unsafe { memmap2::MmapOptions::new().populate().map(&file) }.unwrap();
        Ring { mapping, bytes }
    }
}

/// Slabs that are filled in turns.
struct Slabs {
    slabs: Vec<Slab>,
    next: usize,
}

impl Slabs {
    fn new(count: usize, frame_bytes: usize) -> Slabs {
        let pool = SlabPool::new(1 << 30);
        let slabs = (0..count).map(|_| {
            let mut slab = pool.take(PAYLOAD_OFFSET + frame_bytes).unwrap();
            slab.fill(1);
            slab
        });
        Slabs { slabs: slabs.collect(), next: 0 }
    }

    fn next(&mut self, frame_bytes: usize) -> &mut [u8] {
        self.next = (self.next + 1) % self.slabs.len();
        &mut self.slabs[self.next][PAYLOAD_OFFSET..][..frame_bytes]
    }
}

/// Ways to get a frame at an offset into a slab.
type Contender = (&'static str, Box<dyn Fn(&Ring, usize, &mut [u8])>);

fn memcpy(ring: &Ring, offset: usize, target: &mut [u8]) {
    target.copy_from_slice(&ring.bytes[offset..][..target.len()]);
    black_box(target);
}

fn memcpy_memchr(ring: &Ring, offset: usize, target: &mut [u8]) {
    target.copy_from_slice(&ring.bytes[offset..][..target.len()]);
    let is_pair = |at: usize| target.get(at + 1) == Some(&0xFF);
    black_box(memchr::memchr_iter(0xFF, target).any(is_pair));
}

fn fused(kernel: Kernel, stores: Stores) -> impl Fn(&Ring, usize, &mut [u8]) {
    move |ring, offset, target| {
        let mut scan = PairScan::default();
        kernel.copy(&ring.mapping, offset, target, stores, &mut scan);
        black_box((target, scan.has_pair()));
    }
}

fn fused_crc(kernel: Kernel, stores: Stores) -> impl Fn(&Ring, usize, &mut [u8]) {
    move |ring, offset, target| {
        let (mut scan, mut checksum) = (PairScan::default(), Checksum::new());
        let sums = (&mut scan, &mut checksum);
        kernel.copy_summed(&ring.mapping, offset, target, stores, sums);
        black_box((target, checksum.finish(), scan.has_pair()));
    }
}

fn contenders() -> Vec<Contender> {
    let mut contenders: Vec<Contender> = vec![
        ("memcpy", Box::new(memcpy)),
        ("memcpy, then memchr", Box::new(memcpy_memchr)),
        ("the best, and CRC-32C", Box::new(fused_crc(Kernel::best(), Stores::Cached))),
        (
            "the best, non-temporal, and CRC-32C",
            Box::new(fused_crc(Kernel::best(), Stores::Streaming)),
        ),
    ];
    #[cfg(target_arch = "x86_64")]
    contenders.push((
        "nothing read, non-temporal zeros",
        // SAFETY: every x86-64 has SSE2.
        Box::new(|_, _, target| unsafe { fill_streaming(target) }),
    ));
    for kernel in Kernel::available() {
        let (cached, streaming) = match kernel {
            Kernel::Avx512 => ("AVX-512", "AVX-512, non-temporal"),
            Kernel::Avx2 => ("AVX2", "AVX2, non-temporal"),
            Kernel::Portable => ("portable", ""),
        };
        contenders.push((cached, Box::new(fused(kernel, Stores::Cached))));
        if kernel != Kernel::Portable {
            contenders.push((streaming, Box::new(fused(kernel, Stores::Streaming))));
        }
    }
    contenders
}

/// What the memory takes: nothing is read, and nothing kept in the cache.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn fill_streaming(target: &mut [u8]) {
    use std::arch::x86_64::*;
    let zeros = _mm_setzero_si128();
    for bytes in target.chunks_exact_mut(16) {
        // SAFETY: the place is our own, one vector long, and aligned as slabs are.
        unsafe { _mm_stream_si128(bytes.as_mut_ptr().cast(), zeros) };
    }
    _mm_sfence();
}

/// Frames of a ring, one behind the other, over and over.
fn offsets(frame_bytes: usize) -> impl Iterator<Item = usize> {
    (0..RING_BYTES / frame_bytes).map(move |frame| frame * frame_bytes).cycle()
}

/// How long a contender's turn takes.
fn turn(
    (_, copy): &Contender,
    ring: &Ring,
    slabs: &mut Slabs,
    offsets: &mut impl Iterator<Item = usize>,
    frame_bytes: usize,
) -> Duration {
    let began = Instant::now();
    for offset in offsets.take(TURN_BYTES / frame_bytes) {
        copy(ring, offset, slabs.next(frame_bytes));
    }
    began.elapsed()
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
    (at(0.5), at(0.1), at(0.9))
}

/// A table of ratios to memcpy.
fn ratios(ring: &Ring, title: &str, slabs: &mut Slabs, frame_bytes: usize) {
    let contenders = contenders();
    let mut offsets = offsets(frame_bytes);
    let mut round = || {
        let turns = contenders.iter().map(|way| turn(way, ring, slabs, &mut offsets, frame_bytes));
        turns.map(|time| time.as_secs_f64()).collect::<Vec<_>>()
    };
    // The first laps warm up.
    (0..20).for_each(|_| drop(round()));
    let rounds: Vec<Vec<f64>> = (0..ROUNDS).map(|_| round()).collect();
    println!(
        "\n{title}\n\n| | ratio to memcpy | 10 % to 90 % of the rounds | GB/s |\n|---|--:|--:|--:|"
    );
    for (index, (name, _)) in contenders.iter().enumerate() {
        let (ratio, low, high) =
            median(rounds.iter().map(|round| round[0] / round[index]).collect());
        let (seconds, _, _) = median(rounds.iter().map(|round| round[index]).collect());
        let gb_s = (TURN_BYTES / frame_bytes * frame_bytes) as f64 / seconds / 1e9;
        println!("| {name} | {ratio:.2} | {low:.2} to {high:.2} | {gb_s:.1} |");
    }
}

fn main() {
    let ring = Ring::new();
    for frame_bytes in [230_400, 4096] {
        let title = |slabs| format!("Frames of {frame_bytes} bytes, {slabs}:");
        ratios(&ring, &title("2 hot slabs"), &mut Slabs::new(2, frame_bytes), frame_bytes);
        let cold = (64 << 20) / frame_bytes;
        ratios(
            &ring,
            &title("slabs of 64 MB in turns"),
            &mut Slabs::new(cold, frame_bytes),
            frame_bytes,
        );
    }
    let mut criterion = Criterion::default().configure_from_args();
    for frame_bytes in [230_400, 4096] {
        let mut group = criterion.benchmark_group(format!("ring to hot slab, {frame_bytes} bytes"));
        group.throughput(Throughput::Bytes(frame_bytes as u64));
        let mut slabs = Slabs::new(2, frame_bytes);
        for (name, copy) in contenders() {
            let mut frames = offsets(frame_bytes);
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    copy(&ring, frames.next().unwrap(), slabs.next(frame_bytes));
                });
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
