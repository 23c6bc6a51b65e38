//! The driver against a server that is scripted: one that is well, and one wrong thing at a time.

pub(super) mod fake;

use circbuf_abi::pci::{bar0 as reg, config};
use circbuf_abi::registers as page;
use fake::{Answer, Camera, Server};

use super::{PciOptions, PciPlace, memory};
use crate::device::{Device, OpenError};

fn open(server: &Server) -> Result<Device, OpenError> {
    Device::open_pci(&PciPlace::VfioUser(server.path()), PciOptions::default())
}

/// The sentence with which a camera is refused, without its name.
fn refusal(camera: Camera) -> String {
    let server = Server::start(camera);
    let error = open(&server).expect_err("that is no camera to be driven").to_string();
    let name = format!("vfio-user:{}: ", server.path().display());
    error.strip_prefix(&name).unwrap_or(&error).to_owned()
}

#[test]
fn a_camera_is_brought_up_in_this_order_and_stopped_at_the_end() {
    let server = Server::start(Camera::new());
    let device = open(&server).unwrap();
    assert_eq!((device.ring().bytes(), device.max_slot_bytes()), (1 << 20, 4096));
    device.start().unwrap();
    assert!(device.check().is_ok() && !device.registers().unwrap().is_stamped());
    drop(device);
    let writes = server.writes();
    let command = config::COMMAND as u64;
    let expected = [
        (7, command, 6),
        (0, reg::CONTROL, reg::CONTROL_RESET),
        (0, reg::RING_IOVA, 0),
        (0, reg::RING_IOVA + 4, 1),
        (0, reg::RING_BYTES, 1 << 20),
        (0, reg::RING_BYTES + 4, 0),
        (0, reg::CONTROL, reg::CONTROL_ENABLE),
        (0, reg::CONTROL, reg::CONTROL_ENABLE | reg::CONTROL_RUN),
        (0, reg::CONTROL, 0),
    ];
    assert_eq!(writes, expected);
    assert_eq!(server.mappings(), [(1 << 32, 1 << 20)]);
}

#[test]
fn a_ring_of_another_size_and_credit_are_asked_for() {
    let server = Server::start(Camera::new());
    let place = PciPlace::VfioUser(server.path());
    let options = PciOptions { ring_bytes: Some(1 << 16), credit: true, ..PciOptions::default() };
    let device = Device::open_pci(&place, options).unwrap();
    assert_eq!(device.ring().bytes(), 1 << 16);
    device.release(4096, false);
    device.release(8192, false);
    device.release(8224, false);
    device.release(8224, true);
    device.release(32, false);
    device.start().unwrap();
    device.check().unwrap();
    let credits: Vec<u32> =
        server.writes().iter().filter(|w| w.1 == reg::CREDIT).map(|w| w.2).collect();
    assert_eq!(credits, [8192, 8224, 32], "an eighth of the ring, idle, a new epoch");
    for control in [reg::CONTROL_ENABLE, reg::CONTROL_ENABLE | reg::CONTROL_RUN] {
        assert!(server.writes().contains(&(0, reg::CONTROL, control | reg::CONTROL_CREDIT)));
    }
    drop(device);
    for (bytes, why) in [(4096, "a ring of 4096"), ((1 << 20) + 1, "a ring of 1048577")] {
        let options = PciOptions { ring_bytes: Some(bytes), ..PciOptions::default() };
        let error = Device::open_pci(&place, options).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("multiple of 4096"), "{error}");
    }
}

/// Whether there are huge pages or not, no ring ends within one.
#[test]
fn a_ring_of_huge_pages_has_whole_ones() {
    let server = Server::start(Camera::new());
    let place = PciPlace::VfioUser(server.path());
    let page_bytes = memory::Pages::find(true).unwrap().bytes();
    assert!(page_bytes > 1 << 20 && page_bytes.is_power_of_two());
    let options = PciOptions { huge_pages: true, ..PciOptions::default() };
    let half = PciOptions { ring_bytes: Some(page_bytes / 2), ..options };
    let error = Device::open_pci(&place, half).unwrap_err().to_string();
    assert!(error.contains(&format!("it takes a multiple of {page_bytes}")), "{error}");
    match Device::open_pci(&place, options) {
        Ok(device) => assert_eq!(device.ring().bytes(), page_bytes, "1 MiB, rounded up"),
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("it takes 1 huge pages of "), "{error}");
            assert!(error.contains("sysctl vm.nr_hugepages="), "{error}");
        }
    }
}

#[test]
fn whatever_is_no_camera_is_named() {
    let config = |at: usize, word: u16| {
        let mut camera = Camera::new();
        camera.config[at..at + 2].copy_from_slice(&word.to_le_bytes());
        camera
    };
    let register = |at: u64, word: u32| {
        let mut camera = Camera::new();
        camera.set(at, word);
        camera
    };
    assert_eq!(
        refusal(config(config::VENDOR, 0x8086)),
        "it is the PCI device 8086:10fc; name the PCI function of a camera"
    );
    assert_eq!(
        refusal(register(reg::MAGIC, 0x1234)),
        "its magic register reads 0x00001234; name the PCI function of a camera"
    );
    assert_eq!(
        refusal(register(reg::MAGIC, u32::MAX)),
        "its magic register reads 0xffffffff; name the PCI function of a camera"
    );
    assert!(refusal(register(reg::VERSION, 9)).contains("of version 9, this driver knows 1"));
    let mut stubborn = Camera::new();
    stubborn.command_writable = 2;
    assert!(refusal(stubborn).contains("its command register keeps 0x0002"), "bus mastering");
    assert!(refusal(register(reg::RING_BYTES, 4096)).contains("four slots of 4096"));
    assert!(refusal(register(reg::MAX_SLOT_BYTES + 4, u32::MAX)).contains("a ring of 1048576"));
    assert!(refusal(register(reg::RING_BYTES + 4, u32::MAX)).contains("a ring of"));
}

#[test]
fn a_start_that_is_refused_says_why() {
    for (bits, why) in [
        (reg::ERROR_CONFIG, "it refuses the ring's address or size"),
        (reg::ERROR_BUS_MASTER, "bus mastering is off: set bit 2"),
        (reg::ERROR_CAMERA, "the camera behind it failed: its own log tells why"),
        (reg::ERROR_DMA, "DMA to 0x100000000 failed: the ring is not mapped"),
        (0, "the device has stopped (error register 0x0)"),
    ] {
        let mut camera = Camera::new();
        camera.start_errors = Some(bits);
        camera.set(reg::FAULT_IOVA + 4, 1);
        let said = refusal(camera);
        assert!(said.contains(why) && said.ends_with("start this driver again"), "{said}");
    }
    let mut camera = Camera::new();
    camera.page_magic = 7;
    assert!(refusal(camera).contains("register page refused: it is no register page"));
}

#[test]
fn a_device_that_fails_or_goes_while_it_runs_is_told_of() {
    let server = Server::start(Camera::new());
    let device = open(&server).unwrap();
    device.check().unwrap();
    server.change(|camera| camera.set(reg::ERRORS, reg::ERROR_DMA));
    let error = device.check().unwrap_err().to_string();
    assert!(error.contains("DMA to 0x0 failed"), "{error}");
    server.change(|camera| camera.set(reg::MAGIC, u32::MAX));
    let error = device.check().unwrap_err().to_string();
    assert!(error.contains("the device is gone (its magic register reads 0xffffffff)"), "{error}");
    server.change(|camera| camera.script = Some(Box::new(|_, _| Some(Answer::HangUp))));
    let error = device.check().unwrap_err().to_string();
    assert!(error.contains("the device is gone (the server has hung up)"), "{error}");
    // What it wrote can still be read, and once it has said that it ended nothing else matters.
    assert_eq!(device.registers().unwrap().progress().unwrap().frames, 0);
    server.set_page(page::STATE, page::STATE_ENDED);
    device.check().unwrap();
}
