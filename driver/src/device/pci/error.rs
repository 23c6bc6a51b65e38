//! What can be wrong with a PCI function, as sentences that tell the mend.

use std::fmt;
use std::io;

use circbuf_abi::pci::bar0::{
    ERROR_ACCESS, ERROR_BUS_MASTER, ERROR_CAMERA, ERROR_CONFIG, ERROR_DMA,
};

use super::VfioError;

/// Why a PCI function cannot be used, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum PciError {
    /// There is nobody who answers as a vfio-user server does.
    #[error("{device}: {source}{}", mend(source))]
    Connect {
        /// The device.
        device: String,
        /// What happened.
        source: io::Error,
    },
    /// The kernel's VFIO does not give it.
    #[error(transparent)]
    Vfio(#[from] VfioError),
    /// An access failed.
    #[error("{device}: cannot {action}: {source}")]
    Access {
        /// The device.
        device: String,
        /// What was tried.
        action: &'static str,
        /// What happened.
        source: io::Error,
    },
    /// It is no camera.
    #[error("{device}: {what}; name the PCI function of a camera")]
    Identity {
        /// The device.
        device: String,
        /// What was found instead.
        what: String,
    },
    /// Memory decoding or bus mastering cannot be set.
    #[error(
        "{device}: its command register keeps {command:#06x} where memory decoding and bus mastering \
         (0x0006) were set; something between driver and device forbids them"
    )]
    Command {
        /// The device.
        device: String,
        /// As read back.
        command: u16,
    },
    /// The ring cannot have this size.
    #[error(
        "{device}: a ring of {ring_bytes} bytes; it takes a multiple of {page_bytes} that holds four slots \
         of {max_slot_bytes}"
    )]
    Ring {
        /// The device.
        device: String,
        /// As asked for, or as the device says.
        ring_bytes: u64,
        /// Size of a page of its memory.
        page_bytes: u64,
        /// The device's largest slot.
        max_slot_bytes: u64,
    },
    /// The device stands still, and says why.
    #[error("{device}: {errors}")]
    Stopped {
        /// The device.
        device: String,
        /// Why.
        errors: DeviceErrors,
    },
    /// The device does not answer as one that is there.
    #[error(
        "{device}: the device is gone ({how}); what it had completed was read, or is counted as lost; start \
         it, and this driver, again"
    )]
    Gone {
        /// The device.
        device: String,
        /// What shows it.
        how: String,
    },
}

/// What is to be done about a server that cannot be talked to, where the error does not say so itself.
fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidInput => "",
        io::ErrorKind::PermissionDenied => {
            "; its server's user has to let you write to the socket (chmod, chgrp), and pass to its folder"
        }
        _ => "; is its server running (circbuf emulate --socket)?",
    }
}

/// What stands in a device's error register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceErrors {
    /// Bits `ERROR_*` of [`circbuf_abi::pci::bar0`]. None of them: the device does not run, and does
    /// not say why.
    pub bits: u32,
    /// The first address that it could not write, where that is the error.
    pub fault_iova: u64,
}

impl fmt::Display for DeviceErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeviceErrors { bits, fault_iova } = *self;
        if bits & ERROR_DMA != 0 {
            write!(
                f,
                "DMA to {fault_iova:#x} failed: the ring is not mapped for the device any more (look for \
                 DMAR or IOMMU faults in dmesg; in a guest, its memory has to be shared); "
            )?;
        }
        let sentences = [
            (ERROR_CONFIG, "it refuses the ring's address or size; "),
            (ERROR_ACCESS, "its registers were accessed in a way that they do not allow; "),
            (ERROR_BUS_MASTER, "bus mastering is off: set bit 2 of its command register; "),
            (ERROR_CAMERA, "the camera behind it failed: its own log tells why; "),
        ];
        for (_, sentence) in sentences.iter().filter(|(bit, _)| bits & bit != 0) {
            f.write_str(sentence)?;
        }
        write!(f, "the device has stopped (error register {bits:#x}); start this driver again")
    }
}
