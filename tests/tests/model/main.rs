//! A model of the protocol between FPGA, interrupt handler and reader, exhaustively explored.
//!
//! The ring has a dozen words, and the parties do one load or store at a time, in every order that
//! there is: stores wait in buffers, the handler is late, the reader sleeps for laps, or copies ahead what
//! is written of a frame. What the law of
//! `circbuf_driver::validate` accepts is then one whole frame in all states that can be reached;
//! what less than the law accepts, or a writer that does less than is assumed of it, is found, as the
//! shortest way there. The tables in the documentation of `validate` are such ways.
//!
//! Left out: the words of a trailer are one, and so are `complete`, `frames` and the epoch beside
//! them, as their update counter makes them.
#![allow(unreachable_pub, reason = "a test has no public interface")]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod check;
mod counterexample;
mod explore;
mod machine;
mod reader;
mod rings;
mod world;
mod writer;

mod ahead;
mod law;
mod orders;
mod plain;
mod points;
mod tables;
