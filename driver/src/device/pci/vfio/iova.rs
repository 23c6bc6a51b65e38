//! Where in the device's addresses the ring is put.

use super::super::transport::RING_IOVA as FIRST;
use super::sysfs::Reserved;

/// Addresses are multiples of it, so that huge pages of memory can be huge pages of the IOMMU.
const ALIGN: u64 = 2 << 20;

/// The addresses of the smallest tables that an IOMMU of a PC has (three levels, 39 bits).
const END: u64 = 1 << 39;

/// The lowest address at which `bytes` lie clear of what is reserved.
pub(super) fn choose(reserved: &[Reserved], bytes: u64) -> Option<u64> {
    let mut first = FIRST;
    loop {
        let last = first.checked_add(bytes)?.checked_sub(1).filter(|&last| last < END)?;
        let in_the_way = |region: &&Reserved| {
            *region.addresses.start() <= last && first <= *region.addresses.end()
        };
        let Some(region) = reserved.iter().find(in_the_way) else { return Some(first) };
        first = region.addresses.end().checked_add(1)?.checked_next_multiple_of(ALIGN)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reserved(first: u64, last: u64) -> Reserved {
        Reserved::new(first..=last, "msi")
    }

    #[test]
    fn the_first_free_address_is_taken() {
        assert_eq!(choose(&[], 19_791_872), Some(FIRST));
        assert_eq!(choose(&[reserved(0, FIRST)], 4096), Some(FIRST + ALIGN));
        let msi = reserved(0xFEE0_0000, 0xFEEF_FFFF);
        assert_eq!(choose(&[msi], 4096), Some(FIRST));
        let within = reserved(FIRST + 0x10_0000, FIRST + 0x40_0FFF);
        assert_eq!(choose(std::slice::from_ref(&within), 0x10_0000), Some(FIRST));
        assert_eq!(choose(&[within], 0x10_0001), Some(FIRST + 3 * ALIGN));
        assert_eq!(choose(&[], END - FIRST), Some(FIRST));
        assert_eq!(choose(&[], END - FIRST + 1), None);
        assert_eq!(choose(&[reserved(0, u64::MAX)], 4096), None);
        assert_eq!(choose(&[], u64::MAX), None);
    }

    proptest! {
        #[test]
        fn it_is_the_lowest_of_all_that_are_free(
            taken in prop::collection::vec((0u64..400, 0u64..60), 0..8),
            megabytes in 1u64..100,
        ) {
            let regions: Vec<_> = taken
                .iter()
                .map(|&(first, more)| reserved(FIRST + (first << 20), FIRST + ((first + more + 1) << 20) - 1))
                .collect();
            let bytes = megabytes << 20;
            // The twin walks over all addresses.
            let is_free = |first: u64| {
                let clear = |region: &Reserved| {
                    (first..first + bytes)
                        .step_by(1 << 20)
                        .all(|address| !region.addresses.contains(&address))
                };
                regions.iter().all(clear)
            };
            let twin = (0..).map(|index| FIRST + index * ALIGN).find(|&first| is_free(first));
            prop_assert_eq!(choose(&regions, bytes), twin);
        }
    }
}
