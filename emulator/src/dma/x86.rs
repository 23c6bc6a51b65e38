//! Stores of whole chunks by vector instructions.
use std::arch::asm;
use std::sync::atomic::AtomicU64;

use circbuf_abi::ring::CHUNK_BYTES;

/// Stores `chunks` into `words`, which is as long, chunk after chunk, or returns `false` where the
/// processor cannot. A chunk is one store, and the processor keeps stores in program order. It is
/// written in assembly because another party reads the words meanwhile: no store of Rust's own that
/// is wider than an atomic allows that.
pub(super) fn store(words: &[AtomicU64], chunks: &[u8]) -> bool {
    assert!(size_of_val(words) == chunks.len() && chunks.len().is_multiple_of(CHUNK_BYTES));
    if !std::arch::is_x86_feature_detected!("avx2") {
        return false;
    }
    if !chunks.is_empty() {
        // SAFETY: the processor has AVX2, both are equally long, and neither is empty.
        unsafe { store_avx2(words, chunks) };
    }
    true
}

/// # Safety
/// The processor has AVX2, and both are as long as each other: one chunk at least, and whole ones.
unsafe fn store_avx2(words: &[AtomicU64], chunks: &[u8]) {
    let (target, source) = (words.as_ptr_range().end, chunks.as_ptr_range().end);
    // Counts up to 0, which saves a comparison; both ends are addressed relative to it.
    let left = (chunks.len() as isize).wrapping_neg();
    // SAFETY: the loop loads `chunks` and stores as many bytes into `words`, which are atomics and so
    // may be stored to while others load them. All vector registers count as changed.
    unsafe {
        asm!(
            "2:",
            "vmovdqu ymm0, [{source} + rcx]",
            "vmovdqu [{target} + rcx], ymm0",
            "add rcx, {chunk}",
            "jnz 2b",
            "vzeroupper",
            source = in(reg) source,
            target = in(reg) target,
            chunk = const CHUNK_BYTES,
            inout("rcx") left => _,
            clobber_abi("C"),
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    /// Every length and every place to begin in a page, from sources of every alignment in a chunk.
    #[test]
    fn the_same_bytes_as_the_portable_form_and_no_others() {
        if !std::arch::is_x86_feature_detected!("avx2") {
            return;
        }
        let ring = || -> Vec<AtomicU64> { (0..512).map(|_| AtomicU64::new(u64::MAX)).collect() };
        let source: Vec<u8> = (0..4096 + CHUNK_BYTES).map(|at| (at % 251) as u8).collect();
        for bytes in (0..=4096).step_by(CHUNK_BYTES) {
            for start in [0, (4096 - bytes) / 64 * 32, 4096 - bytes] {
                let chunks = &source[bytes / CHUNK_BYTES % CHUNK_BYTES..][..bytes];
                let (fast, plain) = (ring(), ring());
                let place = start / 8..(start + bytes) / 8;
                assert!(store(&fast[place.clone()], chunks));
                super::super::store_by_words(&plain[place], chunks);
                let loaded = |ring: &[AtomicU64]| -> Vec<u64> {
                    ring.iter().map(|word| word.load(Ordering::Relaxed)).collect()
                };
                assert_eq!(loaded(&fast), loaded(&plain), "{bytes} bytes at {start}");
            }
        }
    }
}
