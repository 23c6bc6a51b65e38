use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

use super::*;
use crate::record::RecordKind;

fn seal(slab: Slab) -> SealedSlab {
    let header = RecordHeader {
        kind: RecordKind::Frame,
        synthesised: false,
        camera: 0,
        length: 1,
        sequence: u64::from(slab[0]),
        epoch: 0,
        cursor: 0,
        realtime_ns: 0,
        monotonic_ns: 0,
        lost_before: 0,
        session: 0,
    };
    slab.seal(Seal { header, time: Timestamp::default(), is_record: false })
}

#[test]
fn slabs_are_aligned_and_reused_last_in_first_out() {
    let pool = SlabPool::new(1 << 20);
    let (a, b) = (pool.take(4096).unwrap(), pool.take(4096).unwrap());
    let (at_a, at_b) = (a.as_ptr(), b.as_ptr());
    assert_eq!(at_a.align_offset(RECORD_ALIGN), 0);
    drop(a);
    drop(b);
    assert_eq!(pool.take(4096).unwrap().as_ptr(), at_b);
    assert_ne!(at_a, at_b);
}

#[test]
fn an_exhausted_pool_gives_none_until_a_slab_comes_back() {
    let pool = SlabPool::new(64 << 10);
    let taken: Vec<_> = std::iter::from_fn(|| pool.take(16 << 10)).collect();
    assert_eq!(taken.len(), 4);
    assert!(!pool.has_room(1));
    drop(taken);
    assert!(pool.has_room(1) && pool.take(1).is_some());
}

#[test]
fn free_slabs_of_other_classes_make_room() {
    let pool = SlabPool::new(64 << 10);
    drop(std::iter::from_fn(|| pool.take(16 << 10)).collect::<Vec<_>>());
    let large = pool.take(64 << 10).expect("the four small ones are free");
    assert_eq!(large.len(), 64 << 10);
    assert!(pool.take(1).is_none());
}

#[test]
fn a_record_larger_than_the_budget_or_any_class_is_refused() {
    assert!(SlabPool::new(64 << 10).take(65 << 10).is_none());
    assert!(SlabPool::new(usize::MAX).take(64 << 20).is_none());
    assert!(!SlabPool::new(usize::MAX).has_room(64 << 20));
}

#[test]
fn the_largest_frame_has_a_class() {
    let bytes = crate::record::record_bytes(crate::record::frame_body_bytes((1 << 24) - 1));
    assert!(SlabPool::new(usize::MAX).take(bytes).is_some());
}

#[test]
fn a_slab_is_free_when_the_last_of_its_holders_lets_go_and_not_before() {
    let pool = SlabPool::new(16 << 10);
    let frame = seal(pool.take(1).unwrap());
    let at = frame.as_ptr();
    let other = frame.clone();
    drop(frame);
    assert_eq!((pool.taken(), pool.has_room(1)), (1, false));
    drop(other);
    assert_eq!((pool.taken(), pool.take(1).unwrap().as_ptr()), (0, at));
}

#[test]
fn holders_that_let_go_at_the_same_time_give_back_once_and_nobody_writes_under_them() {
    let pool = SlabPool::new(32 << 10);
    let holders = [(); 2].map(|()| {
        let (sender, frames) = std::sync::mpsc::sync_channel::<(u8, SealedSlab)>(1);
        let check = move || {
            for (number, frame) in frames {
                assert!(frame.iter().all(|byte| *byte == number));
                assert_eq!(frame.seal().header.sequence, u64::from(number));
            }
        };
        (sender, std::thread::spawn(check))
    });
    for round in 0..5_000 {
        let mut slab = loop {
            match pool.take(1) {
                Some(slab) => break slab,
                None => std::thread::yield_now(),
            }
        };
        let number = round as u8;
        slab.fill(number);
        let frame = seal(slab);
        holders.iter().for_each(|(sender, _)| sender.send((number, frame.clone())).unwrap());
    }
    for (sender, thread) in holders {
        drop(sender);
        thread.join().unwrap();
    }
    assert_eq!(pool.taken(), 0);
    assert_eq!([(); 3].map(|()| pool.take(1)).iter().flatten().count(), 2);
}

#[test]
fn a_frame_outlives_its_pool() {
    let mut slab = SlabPool::new(1 << 20).take(1).unwrap();
    slab.fill(3);
    let frame = seal(slab);
    assert!(frame.clone().iter().all(|byte| *byte == 3));
}

#[test]
fn slabs_in_huge_pages_keep_to_the_budget_as_exactly_as_others() {
    let pool = SlabPool::with_huge_pages(4 << 20);
    let mut small: Vec<_> = (0..8).map(|_| pool.take(256 << 10).unwrap()).collect();
    let large: Vec<_> = (0..4).map(|_| pool.take(512 << 10).unwrap()).collect();
    assert!(!pool.has_room(1) && !pool.has_room(512 << 10));
    // Two that are no neighbours make room for one of twice their size.
    small.swap_remove(6);
    small.swap_remove(2);
    let other = pool.take(512 << 10).unwrap();
    assert!(!pool.has_room(1) && pool.take(1).is_none());
    drop((small, large, other));
    assert!(pool.take(4 << 20).is_some());
    let tight = SlabPool::with_huge_pages(64 << 10);
    assert_eq!(std::iter::from_fn(|| tight.take(1)).take(9).collect::<Vec<_>>().len(), 4);
}

/// A pool against sets of addresses: whatever comes and goes, no two slabs share memory, the
/// budget holds, and `has_room` tells what `take` does.
#[test]
fn any_order_of_takes_and_drops_keeps_the_books_of_the_pool() {
    for seed in 0..40 {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let budget = 8 << 20;
        let pool = match seed % 2 {
            0 => SlabPool::new(budget),
            _ => SlabPool::with_huge_pages(budget),
        };
        let (mut held, mut refused): (Vec<Slab>, u32) = (Vec::new(), 0);
        for _ in 0..400 {
            if random.next_u64() % 5 < 2 && !held.is_empty() {
                held.swap_remove(random.next_u64() as usize % held.len());
                continue;
            }
            let bytes = (16 << 10) << (random.next_u64() % 7);
            let has_room = pool.has_room(bytes);
            let total: usize = held.iter().map(|slab| slab.len()).sum();
            assert_eq!(has_room, total + bytes <= budget, "seed {seed}");
            let slab = pool.take(bytes);
            assert_eq!(slab.is_some(), has_room, "seed {seed}");
            refused += u32::from(slab.is_none());
            let range = |slab: &Slab| (slab.as_ptr() as usize, slab.len());
            if let Some(slab) = slab {
                let (at, len) = range(&slab);
                assert!(held.iter().map(range).all(|(a, l)| at + len <= a || a + l <= at));
                held.push(slab);
            }
            assert!(pool.shared.lock().mapped_bytes <= budget);
            assert_eq!(pool.taken(), held.len());
        }
        assert!(refused > 0, "seed {seed}: the budget was never felt");
        drop(held);
        assert!(pool.take(budget).is_some_and(|slab| slab.len() == budget));
    }
}
