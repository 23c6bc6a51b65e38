//! Faults: what goes wrong in a camera, on demand.
//!
//! [`Faults`] says which [`FaultKind`] strikes which frames: from a TOML file, or from `KIND@N` on a
//! command line. An [`Injector`] makes of each picture and its time a [`Doctored`] frame, which the
//! FPGA writes as it writes a sound one: what is wrong is wrong from the first chunk, and no driver
//! sees a good frame before it. What was done stands in the ledger.
//!
//! ```toml
//! seed = 7                  # what is drawn follows from it; 1 if it is left out
//!
//! [[fault]]
//! kind = "bit-flip"
//! every = 20                # frames 20, 40, ...; or:
//!                           # at = [3, 17]     these frames
//! [[fault]]                 # rate = 0.05      each frame with this probability
//! kind = "restart"          # at_s = [1.5]     the first frame exposed so long after the first
//! at = [1000]
//! ```
//!
//! A frame suffers one fault at most. If several fall on one frame, or one cannot strike it (there
//! is no FF FF in a payload of a byte), the first of the file that can does, and the others wait for
//! the frames that follow; none is lost. While a sprint or an aligned lap lasts, the others wait, and
//! one more of its kind is part of it: these two last for so many frames that they want a lower rate
//! than the others.
//! Everything drawn is a function of the seed and the frame's number: the same faults on the same
//! pictures give the same bytes and the same ledger.
//!
//! | kind | what is wrong | the frame |
//! |---|---|---|
//! | `sprint` | the writer laps the reader | good |
//! | `aborted` | half a payload, the trailer of the frame before | damaged |
//! | `no-trailer` | zeros for a trailer | damaged |
//! | `bad-trailer` | a trailer that no frame can have | damaged |
//! | `unescaped` | FF FF in the payload | damaged |
//! | `bit-flip` | one bit of payload, trailer or header | damaged, perhaps undetectable |
//! | `time-back`, `time-forward` | the clock is set | good |
//! | `time-repeat` | the time of the frame before | good |
//! | `stall` | the bus pauses in mid-frame | good |
//! | `sizes` | a tiny or a huge payload | good |
//! | `exact-wrap` | the slot ends where the ring ends | good |
//! | `aligned-lap` | equal slots that divide the ring | good |
//! | `gap-skip`, `gap-late` | the gap is not zeroed, or late | good |
//! | `header-clobbered` | the header is overwritten | damaged |
//! | `geometry` | another picture size and colour mode | good |
//! | `irq-lost` | no header | damaged |
//! | `irq-coalesced` | no header, published with the next frame | damaged |
//! | `pointer-off` | the pointer is a chunk low at the wrap | good |
//! | `restart` | the pointer returns to 0 | good |
//!
//! *Damaged* frames must not be handed on. *Undetectable* is a damaged frame that is lawful all the
//! same, by the law of validity of `circbuf_driver::validate`: see
//! [`LedgerEntry::undetectable`](crate::ledger::LedgerEntry::undetectable).
mod doctor;
mod doctored;
mod injector;
mod kind;
mod lawful;
mod noise;
mod other_picture;
mod plan;
mod set;
mod tally;
mod trigger;

pub use doctored::Doctored;
pub(crate) use doctored::{Manner, Service, Stamp};
pub use injector::Injector;
pub use kind::FaultKind;
pub use plan::{Fault, Faults, FaultsError, When};
pub use set::FaultSet;
pub use tally::Tally;
