//! The FPGA of a PCI function: its ring comes and goes.
use std::sync::Arc;

use circbuf_abi::registers::STATE_IDLE;

use super::{Fpga, Parts, Setup, SetupError, slot_bytes, statics};
use crate::dma::{RegisterPage, RingMemory};
use crate::model::check_ring_bytes;
use crate::pci::{HostRing, Vectors};
use crate::ring_file::Identity;

impl Fpga {
    /// The FPGA of a PCI function, with the register page that is its status page. It has no ring until
    /// it is [attached](Self::attach) to one.
    ///
    /// # Errors
    /// A ring of the size that the function proposes holds fewer than four of the largest slots.
    pub(crate) fn of_function(
        registers: RegisterPage,
        vectors: Arc<Vectors>,
        ring: Arc<HostRing>,
        setup: Setup,
    ) -> Result<Self, SetupError> {
        check_ring_bytes(ring.bytes(), slot_bytes(setup.payload_bytes_max))?;
        let statics = statics(&setup, ring.bytes(), Identity::default());
        let ring = RingMemory::Host(ring);
        let parts = Parts { ring, registers, file: None, vectors: Some(vectors) };
        Ok(Self::of(parts, statics, setup.gap))
    }

    /// Takes a host's memory as the ring from now on, which begins an epoch.
    pub(crate) fn attach(&mut self, ring: Arc<HostRing>) {
        if std::mem::replace(&mut self.has_begun, true) {
            self.reset();
        }
        self.ring = RingMemory::Host(ring);
        self.statics.ring_bytes = self.ring.bytes();
        self.registers.describe(&self.statics);
    }

    /// Tells the driver that the FPGA stands still, and may go on.
    pub(crate) fn rest(&mut self) {
        self.current = None;
        self.registers.set_state(STATE_IDLE);
    }
}
