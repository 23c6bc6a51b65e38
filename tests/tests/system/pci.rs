//! A PCI function over vfio-user, from the FPGA to the books: both sides as they are, in one process.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use circbuf_driver::device::pci::{PciOptions, PciPlace};
use circbuf_driver::device::{Device, OpenError};
use circbuf_driver::pipeline::{EndedBy, Finished, Options, Pipeline, Processor};
use circbuf_emulator::camera::{self, Limit};
use circbuf_emulator::ledger::{Ledger, LedgerEntry};
use circbuf_emulator::model::{Gap, Model};
use circbuf_emulator::pace::Pace;
use circbuf_emulator::pci::{Function, serve};
use circbuf_emulator::report::{Emitted, Report};
use circbuf_emulator::source::{Source, SourceOptions};
use circbuf_tests::GAPS;

const RING: u64 = 1 << 18;

/// A function behind a socket, for one connection.
struct Card {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    /// The connection, to break it.
    stream: mpsc::Receiver<UnixStream>,
    emitted: Arc<Emitted>,
    /// When it is dropped, the camera of a connection that is over ends.
    power: mpsc::Sender<()>,
    thread: JoinHandle<Option<Report>>,
}

fn options(frames: Option<u64>, gap: Gap) -> camera::Options {
    camera::Options {
        gap,
        pace: Pace::UNPACED,
        limit: Limit { frames, time: None },
        ledger: Ledger::in_memory(),
        ..camera::Options::of(Model::Custom { ring_bytes: RING })
    }
}

impl Card {
    fn noise(options: camera::Options) -> Card {
        Card::of("noise:32-9000", options)
    }

    fn of(source: &str, options: camera::Options) -> Card {
        let source = Source::open(&source.parse().unwrap(), &SourceOptions::default()).unwrap();
        let mut function = Function::new(source, options, RING).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("camera");
        let listener = UnixListener::bind(&socket).unwrap();
        let (sender, stream) = mpsc::channel();
        let (power, is_off) = mpsc::channel::<()>();
        let emitted = function.emitted();
        let thread = std::thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            sender.send(client.try_clone().unwrap()).unwrap();
            let _broken = serve(client, &mut function);
            let _off = is_off.recv();
            function.finish()
        });
        Card { _dir: dir, socket, stream, emitted, power, thread }
    }

    /// Takes its power, once the connection is over.
    fn end(self) -> Report {
        drop(self.power);
        self.thread.join().unwrap().expect("the camera can be stopped")
    }

    fn open(&self, credit: bool) -> Device {
        self.open_as(PciOptions { credit, ..PciOptions::default() }).unwrap()
    }

    fn open_as(&self, options: PciOptions) -> Result<Device, OpenError> {
        Device::open_pci(&PciPlace::VfioUser(self.socket.clone()), options)
    }
}

/// Length and checksum by number.
type Frames = BTreeMap<u64, (u32, u32)>;

/// Drives the function to the end of the run; what was delivered is kept.
fn drive(device: Device, credit: bool) -> (Finished, Frames) {
    drive_and(device, credit, |_| {})
}

/// As [`drive`], and does something at each frame.
fn drive_and(
    device: Device,
    credit: bool,
    at_frame: impl FnMut(u64) + Send + 'static,
) -> (Finished, Frames) {
    let credit = credit.then(|| Arc::new(AtomicU64::new(0)));
    drive_as(device, Options { credit, ..Options::default() }, at_frame)
}

fn drive_as(
    device: Device,
    mut options: Options,
    mut at_frame: impl FnMut(u64) + Send + 'static,
) -> (Finished, Frames) {
    let seen = Arc::<Mutex<Frames>>::default();
    let keep: Processor = {
        let seen = Arc::clone(&seen);
        Box::new(move |delivery| {
            let frame = &delivery.frame;
            assert!(frame.record_header().synthesised, "the device stamps no headers");
            let payload = frame.payload();
            let entry = (payload.len() as u32, crc_fast::crc32_iscsi(payload));
            let before = seen.lock().unwrap().insert(frame.sequence(), entry);
            assert_eq!(before, None, "delivered once");
            at_frame(frame.sequence());
        })
    };
    options.proc.policy = "every".parse().unwrap();
    let finished = Pipeline::start(device, vec![keep], None, &options).unwrap().join();
    finished.snapshot.check_balance().unwrap();
    let seen = seen.lock().unwrap().clone();
    (finished, seen)
}

/// What a driver can find nothing wrong with.
fn lawful(ledger: &[LedgerEntry]) -> Frames {
    let lawful = ledger.iter().filter(|entry| !entry.damaged || entry.undetectable);
    lawful.map(|entry| (entry.number, (entry.length, entry.crc32c))).collect()
}

#[test]
fn every_frame_comes_through_dma_whatever_becomes_of_the_gap() {
    for gap in GAPS {
        let card = Card::noise(options(Some(3000), gap));
        let (finished, seen) = drive(card.open(true), true);
        assert_eq!(finished.ended_by.unwrap(), EndedBy::Camera);
        let report = card.end();
        assert_eq!((report.frames, seen.len()), (3000, 3000), "{gap:?}");
        assert!(seen == lawful(&report.ledger));
        assert_eq!(finished.snapshot.ring.frames_expected, Some(3000));
    }
}

/// Where none are set aside, which is usual, it is the sentence that is tested.
#[test]
fn frames_come_through_huge_pages_where_there_are_any() {
    let card = Card::noise(options(Some(3000), Gap::Zero));
    let huge = PciOptions { credit: true, huge_pages: true, ..PciOptions::default() };
    match card.open_as(huge) {
        Ok(device) => {
            assert!(device.ring().bytes() > RING, "rounded up to whole pages");
            let (finished, seen) = drive(device, true);
            assert_eq!(finished.ended_by.unwrap(), EndedBy::Camera);
            assert!(seen.len() == 3000 && seen == lawful(&card.end().ledger));
        }
        Err(error) => {
            let error = error.to_string();
            assert!(
                error.contains("that are set aside 0 are free; sysctl vm.nr_hugepages="),
                "{error}"
            );
        }
    }
}

#[test]
fn a_driver_that_is_too_slow_loses_frames_and_accepts_no_torn_one() {
    let card = Card::noise(options(Some(20_000), Gap::Zero));
    let (finished, seen) = drive(card.open(false), false);
    let report = card.end();
    let truth = lawful(&report.ledger);
    assert!(seen.iter().all(|(number, frame)| truth.get(number) == Some(frame)));
    let consumer = &finished.snapshot.consumers.proc;
    assert_eq!(consumer.delivered, seen.len() as u64);
}

#[test]
fn faults_of_the_camera_are_found_behind_dma_as_well() {
    let kinds = [
        "aborted",
        "no-trailer",
        "bad-trailer",
        "unescaped",
        "bit-flip",
        "time-back",
        "time-repeat",
        "stall",
        "sizes",
        "exact-wrap",
        "aligned-lap",
        "gap-skip",
        "restart",
    ];
    for kind in kinds {
        let mut options = options(Some(600), Gap::Late);
        options.faults.faults =
            vec![format!("{kind}@{}", 50).parse().unwrap(), kind.parse().unwrap()];
        let card = Card::noise(options);
        let (finished, seen) = drive(card.open(true), true);
        assert_eq!(finished.ended_by.unwrap(), EndedBy::Camera, "{kind}");
        let report = card.end();
        assert!(report.faults.faults() > 0, "{kind}");
        let truth = lawful(&report.ledger);
        let is_true = |(number, frame): (&u64, _)| truth.get(number) == Some(frame);
        assert!(seen.iter().all(is_true), "{kind}");
        // Beside a damaged frame on a bare ring, whole ones may be given up.
        let given_up = (truth.len() - seen.len()) as u64;
        assert!(given_up <= 4 * report.faults.faults(), "{kind}: {given_up} whole frames given up");
    }
}

/// The camera ends with its host's connection, and says so, unless the driver looks in between.
#[test]
fn a_connection_that_breaks_ends_the_run_with_what_was_complete() {
    let mut options = options(None, Gap::Zero);
    options.pace = Pace { fps: Some(500.0), bus_bytes_per_s: None };
    let card = Card::noise(options);
    let device = card.open(false);
    let stream = card.stream.recv().unwrap();
    let (finished, seen) = drive_and(device, false, move |number| {
        if number == 20 {
            stream.shutdown(Shutdown::Both).unwrap();
        }
    });
    match finished.ended_by {
        Ok(ended_by) => assert_eq!(ended_by, EndedBy::Camera),
        Err(error) => assert!(error.to_string().contains("the device is gone"), "{error}"),
    }
    let report = card.end();
    let truth = lawful(&report.ledger);
    assert!(seen.len() > 20 && seen.iter().all(|(number, frame)| truth.get(number) == Some(frame)));
}

/// A camera that writes small frames at a rate with which its ring is not full for a while.
fn leisurely() -> Card {
    let mut options = options(None, Gap::Zero);
    options.pace = Pace { fps: Some(500.0), bus_bytes_per_s: None };
    Card::of("noise:32-200", options)
}

/// Holds the capturing thread at the first frame until a backlog lies in the ring and the device has died,
/// and so long that it is looked at next.
fn drive_into_a_backlog(
    (device, emitted): (Device, Arc<Emitted>),
    backlog: u64,
    mut dies: impl FnMut() + Send + 'static,
) -> (Finished, Frames) {
    let options = Options { inline: true, ..Options::default() };
    drive_as(device, options, move |number| {
        if number == 0 {
            while emitted.frames() < backlog {
                std::thread::yield_now();
            }
            dies();
            std::thread::sleep(Duration::from_millis(400));
        }
    })
}

/// Every frame up to some number was found, no other is expected, and this is what is told at the end.
fn assert_read_out((finished, seen): (Finished, &Frames), told: &str) {
    let count = seen.len() as u64;
    assert!(seen.keys().copied().eq(0..count), "{:?}", seen.keys());
    let ring = &finished.snapshot.ring;
    assert_eq!((ring.frames_expected, ring.passed), (Some(count), count));
    assert_eq!(finished.snapshot.consumers.proc.delivered, count);
    let error = finished.ended_by.unwrap_err().to_string();
    assert!(error.contains(told), "{error}");
}

#[test]
fn what_lies_in_the_ring_when_the_connection_breaks_is_read_out() {
    const BACKLOG: u64 = 60;
    let card = leisurely();
    let device = card.open(false);
    let stream = card.stream.recv().unwrap();
    let hang_up = move || stream.shutdown(Shutdown::Both).unwrap();
    let camera = (device, Arc::clone(&card.emitted));
    let (finished, seen) = drive_into_a_backlog(camera, BACKLOG, hang_up);
    assert!(seen.len() as u64 >= BACKLOG, "{} frames", seen.len());
    assert_read_out((finished, &seen), "the device is gone (the server has hung up)");
    // It has gone on, which a driver that does not hear of it may not wait for.
    let truth = lawful(&card.end().ledger);
    assert!(seen.iter().all(|(number, frame)| truth.get(number) == Some(frame)));
}

#[test]
fn what_lies_in_the_ring_when_the_camera_fails_is_read_out() {
    const PICTURES: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let path = cut_short(&dir, PICTURES);
    let mut options = options(None, Gap::Zero);
    // It fails some time after it was started, which a driver looks at.
    options.pace = Pace { fps: Some(200.0), bus_bytes_per_s: None };
    let card = Card::of(path.to_str().unwrap(), options);
    let camera = (card.open(false), Arc::clone(&card.emitted));
    let (finished, seen) = drive_into_a_backlog(camera, PICTURES, || {});
    assert_eq!(seen.len() as u64, PICTURES);
    assert_read_out((finished, &seen), "the camera behind it failed");
    assert!(seen == lawful(&card.end().ledger));
}

/// A stream that ends in the middle of the picture behind so many.
fn cut_short(dir: &tempfile::TempDir, pictures: u64) -> PathBuf {
    let path = dir.path().join("cut-short.y4m");
    let frame = [&b"FRAME\n"[..], &[0x80; 16 * 16 * 3 / 2]].concat();
    let mut stream = b"YUV4MPEG2 W16 H16 F25:1 C420jpeg\n".to_vec();
    (0..pictures).for_each(|_| stream.extend_from_slice(&frame));
    stream.extend_from_slice(&frame[..20]);
    std::fs::write(&path, stream).unwrap();
    path
}

#[test]
fn a_camera_that_fails_stops_the_device_and_the_driver_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = cut_short(&dir, 2);
    let mut options = options(None, Gap::Zero);
    options.pace = Pace { fps: Some(20.0), bus_bytes_per_s: None };
    let card = Card::of(path.to_str().unwrap(), options);
    let (finished, seen) = drive(card.open(false), false);
    assert_eq!(seen.len(), 2);
    let error = finished.ended_by.unwrap_err().to_string();
    assert!(error.contains("the camera behind it failed: its own log tells why"), "{error}");
}

/// One host after the other in the same function is a matter of resets: the epoch tells them apart.
#[test]
fn a_device_that_is_dropped_stands_still() {
    let card = Card::noise(options(None, Gap::Zero));
    drop(card.open(false));
    let report = card.end();
    assert_eq!(report.frames, report.ledger.len() as u64, "stopped behind a whole frame");
}
