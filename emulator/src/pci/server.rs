//! A function behind one connection of vfio-user.

use std::fs::{File, Permissions};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use circbuf_abi::pci::{BAR_BYTES, MSIX_BAR, REGISTER_BAR, STATUS_BAR, VECTORS, config};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_NORESIZE, VFIO_IRQ_SET_ACTION_MASK,
    VFIO_IRQ_SET_ACTION_UNMASK, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info,
    vfio_region_sparse_mmap_area,
};
use vfio_user::{
    DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion, SparseArea,
};

use super::function::Function;
use super::gate;

/// A connection that was not served to its end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The way to the server inside cannot be made.
    #[error("cannot set up the connection: {0}")]
    SetUp(#[from] io::Error),
    /// The conversation failed.
    #[error("the conversation with the client failed: {0}")]
    Conversation(#[from] vfio_user::Error),
}

/// Serves `function` to the client at the other end of `stream` until it hangs up. Interrupts, DMA and
/// the status page do not go through the connection.
///
/// # Errors
/// The conversation cannot be begun, or fails. That the client hangs up is no error.
pub fn serve(stream: UnixStream, function: &mut Function) -> Result<(), ServeError> {
    let (listener, inside) = private_pair()?;
    let server = Server::from_owned_fd(OwnedFd::from(listener), true, irqs(), regions(function));
    let [to_server, from_server] = [inside.try_clone()?, inside];
    let [from_client, to_client] = [stream.try_clone()?, stream];
    std::thread::scope(|scope| {
        let gate = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let gates = gate("gate in")
            .spawn_scoped(scope, || gate::let_in(&from_client, &to_server))
            .and_then(|_| {
                gate("gate out").spawn_scoped(scope, || gate::let_out(&from_server, &to_client))
            });
        let served = gates
            .map_err(ServeError::from)
            .and_then(|_| server.run(&mut Backend { function }).map_err(ServeError::from));
        // Whatever ended it, the gates end as well.
        let _gone = from_client.shutdown(Shutdown::Both);
        let _gone = to_server.shutdown(Shutdown::Both);
        served
    })
}

/// A listener, and the one stream that waits there to be accepted: the crate's server takes no stream.
/// The socket has a name for a moment, in a folder that is closed to others.
fn private_pair() -> io::Result<(UnixListener, UnixStream)> {
    let only_ours = Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().prefix("circbuf-").permissions(only_ours).tempdir()?;
    let path = folder.path().join("vfio-user");
    let listener = UnixListener::bind(&path)?;
    Ok((listener, UnixStream::connect(&path)?))
}

fn irqs() -> Vec<IrqInfo> {
    let irq = |index| match index {
        VFIO_PCI_MSIX_IRQ_INDEX => IrqInfo {
            index,
            flags: VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE,
            count: VECTORS as u32,
        },
        _ => IrqInfo { index, flags: 0, count: 0 },
    };
    (0..VFIO_PCI_NUM_IRQS).map(irq).collect()
}

fn regions(function: &Function) -> Vec<ServerRegion> {
    let page = function.status_page().as_raw_fd();
    (0..VFIO_PCI_NUM_REGIONS).map(|index| region(index, page)).collect()
}

fn region(index: u32, page: i32) -> ServerRegion {
    let (read, write) = (VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE);
    let is_page = index == STATUS_BAR as u32;
    let (bytes, flags) = match index {
        VFIO_PCI_CONFIG_REGION_INDEX => (config::BYTES as u64, read | write),
        _ if is_page => (BAR_BYTES, read | VFIO_REGION_INFO_FLAG_MMAP),
        _ if index == REGISTER_BAR as u32 || index == MSIX_BAR as u32 => (BAR_BYTES, read | write),
        _ => (0, 0),
    };
    let area = vfio_region_sparse_mmap_area { offset: 0, size: BAR_BYTES };
    ServerRegion {
        region_info: vfio_region_info {
            argsz: size_of::<vfio_region_info>() as u32,
            flags,
            index,
            cap_offset: 0,
            size: bytes,
            offset: 0,
        },
        sparse_areas: if is_page { vec![SparseArea { area }] } else { Vec::new() },
        mmap_fd: is_page.then_some(page),
    }
}

/// The function, as the crate's server calls it.
struct Backend<'a> {
    function: &'a mut Function,
}

impl ServerBackend for Backend<'_> {
    fn region_read(&mut self, region: u32, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        match region as usize {
            REGISTER_BAR => self.function.read_registers(offset, bytes),
            STATUS_BAR => self.function.read_status_page(offset, bytes),
            _ if region == VFIO_PCI_CONFIG_REGION_INDEX => self.function.read_config(offset, bytes),
            // The MSI-X table belongs to whoever stands between device and host.
            _ => bytes.fill(0),
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match region as usize {
            REGISTER_BAR => self.function.write_registers(offset, bytes),
            _ if region == VFIO_PCI_CONFIG_REGION_INDEX => {
                self.function.write_config(offset, bytes)
            }
            _ => {}
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        iova: u64,
        bytes: u64,
        file: Option<File>,
    ) -> io::Result<()> {
        let file = file.filter(|_| flags.contains(DmaMapFlags::WRITE));
        self.function.map_dma(iova, bytes, (file, offset)).map_err(|error| {
            log::info!("refused: {error}");
            io::Error::new(io::ErrorKind::InvalidInput, error)
        })
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, iova: u64, bytes: u64) -> io::Result<()> {
        match flags.contains(DmaUnmapFlags::UNMAP_ALL) {
            true => self.function.unmap_all_dma(),
            false => self.function.unmap_dma(iova, bytes),
        }
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.function.reset();
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> io::Result<()> {
        // The others are not there; a host may say so to all of them.
        if index != VFIO_PCI_MSIX_IRQ_INDEX {
            return Ok(());
        }
        if flags & (VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK) != 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if count == 0 {
            return (0..VECTORS).try_for_each(|vector| self.function.set_vector(vector, None));
        }
        let (start, mut fds) = (start as usize, fds.into_iter());
        let vectors = start..start.saturating_add(count as usize);
        for vector in vectors.take(VECTORS + 1) {
            match flags & VFIO_IRQ_SET_DATA_EVENTFD {
                0 => self.function.trigger(vector)?,
                _ => self.function.set_vector(vector, fds.next())?,
            }
        }
        Ok(())
    }
}
