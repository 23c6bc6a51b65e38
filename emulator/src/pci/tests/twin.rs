//! The host's memory against a naive one: an array of pages, looked up byte by byte.

use std::sync::Arc;

use circbuf_abi::pci::bar0::ERROR_DMA;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::super::host::{HostMemory, HostRing};
use super::super::latch::ErrorLatch;
use super::*;

const PAGE: u64 = 4096;

/// Pages of addresses, and of the file behind them.
const PAGES: u64 = 16;

/// A mapping: first page, pages, first page of the file.
type Extent = (u64, u64, u64);

#[derive(Default)]
struct Naive {
    extents: Vec<Extent>,
}

impl Naive {
    fn overlapping(&self, first: u64, last: u64) -> impl Fn(&Extent) -> bool + use<> {
        move |&(at, pages, _)| at <= last && at + pages > first
    }

    fn map(&mut self, extent: Extent) -> bool {
        let overlaps = self.overlapping(extent.0, extent.0 + extent.1 - 1);
        let is_free = !self.extents.iter().any(overlaps);
        self.extents.extend(is_free.then_some(extent));
        is_free
    }

    /// The byte of the file behind an address.
    fn place(&self, address: u64) -> Option<u64> {
        let page = address / PAGE;
        let (at, _, file) = *self.extents.iter().find(|e| self.overlapping(page, page)(e))?;
        Some((file + page - at) * PAGE + address % PAGE)
    }
}

#[test]
fn stores_land_where_a_naive_memory_has_them_and_fault_where_it_does() {
    for seed in 0..60 {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut below = |limit: u64| random.next_u64() % limit;
        let file = memfd(PAGES * PAGE, seed % 2 == 0);
        let (memory, mut naive) = (Arc::<HostMemory>::default(), Naive::default());
        let mut expected = vec![0; (PAGES * PAGE) as usize];
        for step in 0..60_u64 {
            let (first, pages) = (below(PAGES), 1 + below(3));
            match below(4) {
                0 => {
                    let at = below(PAGES - 2);
                    let part = (Some(file.try_clone().unwrap()), at * PAGE);
                    let mapped = memory.map(first * PAGE, pages * PAGE, part).is_ok();
                    assert_eq!(mapped, naive.map((first, pages, at)), "seed {seed}");
                }
                1 => {
                    // Not even a page: whoever has an address in it goes.
                    memory.unmap(first * PAGE + 100, 200);
                    let gone = naive.overlapping(first, first);
                    naive.extents.retain(|extent| !gone(extent));
                }
                _ => {
                    let offset = (first * PAGE + below(PAGE)) / 32 * 32;
                    let bytes = vec![step as u8 + 1; (32 * (1 + below(400))) as usize];
                    let fault = store(&memory, offset, &bytes);
                    let places =
                        (offset..).map(|address| (address, naive.place(address))).zip(&bytes);
                    let mut missing = None;
                    for ((address, place), &byte) in places {
                        let Some(place) = place else {
                            missing = Some(address);
                            break;
                        };
                        expected[place as usize] = byte;
                    }
                    assert_eq!(fault, missing, "seed {seed}");
                }
            }
            assert_eq!(memory.extents(), naive.extents.len());
        }
        assert!(contents(&file) == expected, "seed {seed}");
    }
}

/// Stores by a ring that begins at address 0; where that fails, if it does.
fn store(memory: &Arc<HostMemory>, offset: u64, bytes: &[u8]) -> Option<u64> {
    let errors = Arc::new(ErrorLatch::new(Arc::default()));
    let ring =
        HostRing::new(Arc::clone(memory), (0, 64 * PAGE), Arc::clone(&errors), Arc::default());
    ring.store(offset, bytes);
    assert_eq!(ring.is_lost(), errors.bits() == ERROR_DMA);
    ring.is_lost().then(|| errors.fault_iova())
}
