//! The program `circbuf`, as users and scripts meet it: what they type, what comes out, and with which
//! exit code it ends.

mod bad_archives;
mod bad_options;
mod bad_rings;
mod bad_sources;
mod channels;
mod config;
mod exec;
mod export;
mod faults;
mod forensics;
mod killed;
mod losses;
mod nodes;
mod pci;
mod run;
mod two_processes;
mod util;
mod verify;
