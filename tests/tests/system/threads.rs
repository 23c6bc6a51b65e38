//! Camera, capture, workers and archive on threads of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use circbuf_driver::archive::{
    Archive, ArchiveOptions, ArchiveReader, Content, Durability, Found, Session, verify,
};
use circbuf_driver::clock::Moment;
use circbuf_driver::device::Device;
use circbuf_driver::dispatch::Delivery;
use circbuf_driver::pipeline::{EndedBy, Finished, Options, Pipeline, Processor};
use circbuf_driver::record::PAYLOAD_OFFSET;
use circbuf_driver::slab::SlabPool;
use circbuf_driver::tail::{StartAt, Step, Tail};
use circbuf_driver::validate::copy_and_check;
use circbuf_emulator::camera::{self, Camera, Limit};
use circbuf_emulator::fpga::Progress;
use circbuf_emulator::ledger::{Ledger, LedgerEntry};
use circbuf_emulator::model::{Gap, Model};
use circbuf_emulator::pace::Pace;
use circbuf_emulator::ring_file::RingFile;
use circbuf_emulator::source::{Source, SourceOptions};
use circbuf_tests::{START, SteppedCamera, payload, picture};

/// A camera as fast as the machine, from noise of these lengths.
struct Setup {
    ring_bytes: u64,
    noise: &'static str,
    frames: u64,
    gap: Gap,
    bare: bool,
    credit: Option<Arc<AtomicU64>>,
}

impl Setup {
    fn camera(&self) -> Camera {
        let model = Model::Custom { ring_bytes: self.ring_bytes };
        let source = Source::open(&self.noise.parse().unwrap(), &SourceOptions::default()).unwrap();
        let mut options = camera::Options::of(model);
        options.gap = self.gap;
        options.bare = self.bare;
        options.pace = Pace::UNPACED;
        options.limit = Limit { frames: Some(self.frames), time: None };
        options.ledger = Ledger::in_memory();
        options.credit = self.credit.clone();
        Camera::new(RingFile::memfd(self.ring_bytes).unwrap(), source, options).unwrap()
    }

    fn pipeline(
        &self,
        camera: &Camera,
        processors: Vec<Processor>,
        archive: Option<Archive>,
    ) -> Pipeline {
        let ring = camera.ring();
        let device = Device::from_fds(ring.ring_fd(), Some(ring.registers_fd())).unwrap();
        let mut options = Options { credit: self.credit.clone(), ..Options::default() };
        options.proc.policy = "every".parse().unwrap();
        options.arch.policy = "every".parse().unwrap();
        options.slab_bytes = 4 << 20;
        Pipeline::start(device, processors, archive, &options).unwrap()
    }

    /// Runs both to the camera's end.
    fn run(
        &self,
        processors: Vec<Processor>,
        archive: Option<Archive>,
    ) -> (Finished, Vec<LedgerEntry>) {
        let camera = self.camera();
        let pipeline = self.pipeline(&camera, processors, archive);
        let camera = camera.spawn().unwrap();
        let finished = pipeline.join();
        assert_eq!(*finished.ended_by.as_ref().unwrap(), EndedBy::Camera);
        let report = camera.join().unwrap();
        assert_eq!(report.frames, self.frames);
        (finished, report.ledger)
    }
}

/// Length and checksum by number.
type Seen = Arc<Mutex<BTreeMap<u64, (u32, u32)>>>;

fn truth(ledger: &[LedgerEntry]) -> BTreeMap<u64, (u32, u32)> {
    ledger.iter().map(|entry| (entry.number, (entry.length, entry.crc32c))).collect()
}

fn note(seen: &Seen, delivery: &Delivery) {
    let payload = delivery.frame.payload();
    let entry = (payload.len() as u32, crc_fast::crc32_iscsi(payload));
    let before = seen.lock().unwrap().insert(delivery.frame.sequence(), entry);
    assert_eq!(before, None, "delivered once");
}

/// The number that noise has in its first bytes: a digit in the upper half of each.
fn stamp(payload: &[u8]) -> u64 {
    payload[..16].iter().fold(0, |number, byte| number << 4 | u64::from(byte >> 4))
}

#[test]
fn a_lossless_camera_as_fast_as_the_machine_loses_nothing() {
    for bare in [false, true] {
        let setup = Setup {
            ring_bytes: 1 << 16,
            noise: "noise:32-4000",
            frames: 20_000,
            gap: Gap::Late,
            bare,
            credit: Some(Arc::default()),
        };
        let seen = Seen::default();
        let processors: Vec<Processor> = (0..2)
            .map(|_| {
                let seen = Arc::clone(&seen);
                Box::new(move |delivery: &Delivery| {
                    assert_eq!(stamp(delivery.frame.payload()), delivery.frame.sequence());
                    assert!(delivery.lost.is_empty());
                    note(&seen, delivery);
                }) as Processor
            })
            .collect();
        let (finished, ledger) = setup.run(processors, None);
        let books = finished.snapshot;
        books.check_balance().unwrap();
        assert_eq!(books.ring.frames_expected, Some(20_000));
        assert_eq!((books.ring.passed, books.consumers.proc.delivered), (20_000, 20_000));
        assert!(*seen.lock().unwrap() == truth(&ledger), "content");
    }
}

#[test]
fn a_processor_that_panics_does_not_leave_a_lossless_run_waiting() {
    let credit = Some(Arc::default());
    let noise = "noise:32-4000";
    let setup =
        Setup { ring_bytes: 1 << 16, noise, frames: 1 << 40, gap: Gap::Zero, bare: false, credit };
    let camera = setup.camera();
    let panics: Processor = Box::new(|delivery| assert!(delivery.frame.sequence() < 100));
    let pipeline = setup.pipeline(&camera, vec![panics], None);
    let camera = camera.spawn().unwrap();
    let finished = pipeline.join();
    camera.stop();
    let told = finished.ended_by.unwrap_err().to_string();
    assert_eq!(told, "the proc thread panicked");
    finished.snapshot.check_balance().unwrap();
    assert_eq!(finished.snapshot.consumers.proc.delivered, 100);
}

#[test]
fn what_a_slow_driver_archives_is_true_and_what_it_lost_is_counted() {
    for (gap, bare) in [(Gap::Zero, false), (Gap::Skip, false), (Gap::Late, true)] {
        let setup = Setup {
            ring_bytes: 1 << 17,
            noise: "noise:2000-20000",
            frames: 6000,
            gap,
            bare,
            credit: None,
        };
        let folder = tempfile::tempdir().unwrap();
        let session = Session { ring_bytes: setup.ring_bytes, ..Session::default() };
        let options = ArchiveOptions {
            segment_bytes: 4 << 20,
            durability: Durability::None,
            ..ArchiveOptions::default()
        };
        let archive = Archive::create(folder.path(), session, options, Moment::now()).unwrap();
        let seen = Seen::default();
        let noted = Arc::clone(&seen);
        let slow = Box::new(move |delivery: &Delivery| {
            // As if it measured something: some 0.2 ms of work a frame.
            let sum =
                (0..64).fold(0, |sum, _| sum ^ crc_fast::crc32_iscsi(delivery.frame.payload()));
            std::hint::black_box(sum);
            note(&noted, delivery);
        });
        let (finished, ledger) = setup.run(vec![slow], Some(archive));
        let (books, truth) = (finished.snapshot, truth(&ledger));
        books.check_balance().unwrap();
        assert_eq!(books.ring.frames_expected, Some(6000));
        let lost = books.ring.lost;
        assert_eq!(lost.corrupt, 0);
        assert_eq!(books.ring.passed + lost.overrun + lost.torn, 6000);
        for (number, entry) in &*seen.lock().unwrap() {
            assert_eq!(truth.get(number), Some(entry), "frame {number}");
        }
        let (frames, missing) = read(folder.path());
        assert_eq!(frames.len() as u64, books.consumers.arch.book.delivered);
        assert_eq!(frames.len() as u64 + missing, 6000, "every frame is there or told as lost");
        for (number, entry) in &frames {
            assert_eq!(truth.get(number), Some(entry), "archived frame {number}");
        }
        assert!(verify(folder.path(), |_, _| {}).unwrap().is_clean());
    }
}

/// The law alone against a writer that never pauses: each lap lands on the frames of the lap before.
#[test]
fn no_copy_that_races_with_the_writer_is_accepted_damaged() {
    const FRAMES: u64 = 100_000;
    for (gap, length) in [(Gap::Zero, 970), (Gap::Skip, 970), (Gap::Skip, 200)] {
        let payloads: Vec<Vec<u8>> = (0..61).map(|number| payload(number, length)).collect();
        let camera = SteppedCamera::new(4096, 976, gap, true);
        let device = camera.device(true);
        let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
        let writer = {
            let (mut fpga, payloads) = (camera.into_fpga(), payloads.clone());
            std::thread::spawn(move || {
                for number in 0..FRAMES {
                    let payload = &payloads[number as usize % payloads.len()];
                    fpga.begin(&picture(payload), START.plus_nanos(number * 1000)).unwrap();
                    while fpga.step(payload, 256) == Progress::Writing {}
                }
                fpga.end();
            })
        };
        let pool = SlabPool::new(16 << 10);
        let mut accounted = 0;
        while !(device.has_ended() && tail.has_read_all(&device)) {
            match tail.poll(&device).unwrap() {
                Step::Idle => std::thread::yield_now(),
                Step::Lost(loss) => accounted += loss.count,
                Step::Frame(candidate) => {
                    accounted += 1;
                    let mut slab = pool.take(4096).unwrap();
                    if copy_and_check(&device, &candidate, &mut slab).is_ok() {
                        let truth = &payloads[candidate.sequence as usize % payloads.len()];
                        assert!(slab[PAYLOAD_OFFSET..].starts_with(truth), "{candidate:?}");
                    }
                }
            }
        }
        writer.join().unwrap();
        assert_eq!(accounted, FRAMES, "{gap:?} {length}");
    }
}

/// Length and checksum of archived frames by number, and how many are recorded as lost.
fn read(folder: &Path) -> (BTreeMap<u64, (u32, u32)>, u64) {
    let reader = ArchiveReader::open(folder).unwrap();
    let (mut frames, mut missing, mut record) = (BTreeMap::new(), 0, Vec::new());
    for found in reader.scan() {
        let Found::Record(entry) = found.unwrap() else { panic!("a whole segment") };
        match entry.content {
            Content::Loss(loss) => missing += loss.count,
            Content::Frame { .. } => {
                reader.read_record(&entry, &mut record).unwrap();
                let length = entry.header.length;
                let payload = &record[PAYLOAD_OFFSET..][..length as usize];
                frames.insert(entry.header.sequence, (length, crc_fast::crc32_iscsi(payload)));
            }
        }
    }
    (frames, missing)
}
