//! The filter: at which system calls the kernel stops the program and asks.
//!
//! A filter sees numbers, not what stands behind a pointer or a descriptor, so it stops calls that
//! have nothing to do with a node as well. Not stopped are `lseek(fd, 0, SEEK_SET)`, which is the
//! same on every file, and all reading: a node's bytes and position are the kernel's own. Only the
//! 393's habit to round positions down to 4 stops `read`, and `pread` where the position is not
//! rounded.
use nix::libc;

#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE_ARCH: u32 = 0xC000_00B7;

/// Numbers from here on are calls of the x32 interface.
pub(super) const X32: i64 = 0x4000_0000;

/// Calls that name a file by its path.
const WITH_PATH: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_openat2,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];

/// Calls on descriptors.
const ON_DESCRIPTORS: &[libc::c_long] = &[
    libc::SYS_fstat,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
];

/// Where the parts of a call stand in `seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn arg_low(arg: u32) -> u32 {
    16 + 8 * arg
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// A place to go on at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Next,
    Lseek,
    Pread,
    Allow,
    Ask,
}

/// An instruction, before it is known how far its goals are.
struct Step(u32, u32, Goal, Goal);

/// The filter for a camera whose reads are `shifted` at unaligned positions.
pub(super) fn filter(shifted: bool) -> Vec<libc::sock_filter> {
    use Goal::{Allow, Ask, Lseek, Next, Pread};
    let mut steps = vec![
        Step(LOAD, ARCH, Next, Next),
        Step(IF_EQUAL, NATIVE_ARCH, Next, Ask),
        Step(LOAD, NUMBER, Next, Next),
        Step(IF_AT_LEAST, X32 as u32, Ask, Next),
        Step(IF_EQUAL, libc::SYS_lseek as u32, Lseek, Next),
    ];
    if shifted {
        steps.push(Step(IF_EQUAL, libc::SYS_read as u32, Ask, Next));
        steps.push(Step(IF_EQUAL, libc::SYS_pread64 as u32, Pread, Next));
    }
    let asked = ON_DESCRIPTORS.iter().chain(WITH_PATH);
    steps.extend(asked.map(|&number| Step(IF_EQUAL, number as u32, Ask, Next)));
    let mut places = vec![(Allow, steps.len())];
    steps.push(Step(RETURN, libc::SECCOMP_RET_ALLOW, Next, Next));
    places.push((Lseek, steps.len()));
    steps.extend([
        Step(LOAD, arg_low(2), Next, Next),
        Step(IF_EQUAL, libc::SEEK_SET as u32, Next, Ask),
        Step(LOAD, arg_low(1), Next, Next),
        Step(IF_EQUAL, 0, Next, Ask),
        Step(LOAD, arg_low(1) + 4, Next, Next),
        Step(IF_EQUAL, 0, Next, Ask),
        Step(RETURN, libc::SECCOMP_RET_ALLOW, Next, Next),
    ]);
    places.push((Pread, steps.len()));
    steps.extend([
        Step(LOAD, arg_low(3), Next, Next),
        Step(AND, 3, Next, Next),
        Step(IF_EQUAL, 0, Next, Ask),
        Step(RETURN, libc::SECCOMP_RET_ALLOW, Next, Next),
    ]);
    places.push((Ask, steps.len()));
    steps.push(Step(RETURN, libc::SECCOMP_RET_USER_NOTIF, Next, Next));
    let distance = |at: usize, goal: Goal| {
        let place = places.iter().find(|(placed, _)| *placed == goal);
        place.map_or(0, |(_, place)| (place - at - 1) as u8)
    };
    let placed = |(at, Step(code, k, then, otherwise)): (usize, Step)| libc::sock_filter {
        code: code as u16,
        jt: distance(at, then),
        jf: distance(at, otherwise),
        k,
    };
    steps.into_iter().enumerate().map(placed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter on a call, as the kernel does.
    fn run(filter: &[libc::sock_filter], arch: u32, number: i64, args: [u64; 6]) -> u32 {
        let load = |offset: u32| match offset {
            NUMBER => number as u32,
            ARCH => arch,
            _ => (args[(offset as usize - 16) / 8] >> (offset % 8 * 8)) as u32,
        };
        let (mut at, mut value) = (0, 0);
        loop {
            let step = filter[at];
            let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
            at += 1;
            match u32::from(step.code) {
                LOAD => value = load(step.k),
                AND => value &= step.k,
                IF_EQUAL => at += jump(value == step.k),
                IF_AT_LEAST => at += jump(value >= step.k),
                RETURN => return step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn asks_at_the_calls_that_could_concern_a_node() {
        for shifted in [false, true] {
            let filter = filter(shifted);
            assert!(filter.len() < 256, "every jump fits its byte");
            let asks = |number: libc::c_long, args: [u64; 6]| match run(
                &filter,
                NATIVE_ARCH,
                number,
                args,
            ) {
                libc::SECCOMP_RET_USER_NOTIF => true,
                libc::SECCOMP_RET_ALLOW => false,
                other => panic!("{other:#x}"),
            };
            for number in ON_DESCRIPTORS.iter().chain(WITH_PATH) {
                assert!(asks(*number, [0; 6]), "{number}");
            }
            for number in [libc::SYS_write, libc::SYS_mmap, libc::SYS_close, libc::SYS_execve] {
                assert!(!asks(number, [1; 6]), "{number}");
            }
            assert!(!asks(libc::SYS_lseek, [3, 0, 0, 0, 0, 0]), "to the beginning");
            for (offset, whence) in [(1, 0), (1 << 32, 0), (0, 1), (0, 2), (11, 2), (0, 7)] {
                assert!(asks(libc::SYS_lseek, [3, offset, whence, 0, 0, 0]), "{offset} {whence}");
            }
            assert_eq!(asks(libc::SYS_read, [3; 6]), shifted);
            assert!(!asks(libc::SYS_pread64, [3, 0, 9, 8, 0, 0]));
            assert_eq!(asks(libc::SYS_pread64, [3, 0, 9, 9, 0, 0]), shifted);
        }
    }

    #[test]
    fn asks_at_every_call_of_another_architecture() {
        let filter = filter(false);
        let i386 = 0x4000_0003;
        assert_eq!(run(&filter, i386, libc::SYS_write, [0; 6]), libc::SECCOMP_RET_USER_NOTIF);
        assert_eq!(run(&filter, NATIVE_ARCH, X32 + 1, [0; 6]), libc::SECCOMP_RET_USER_NOTIF);
    }
}
