//! A camera that is a PCI function at a socket, and drivers of it, in processes of their own.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::util::{
    Running, assert_verified, at, circbuf, ends, ends_unprivileged, hold_against_ledger,
    index_entries, number, read_ledger, ring_dir,
};

const PICTURES: &str = "--source synthetic:4 --width 160 --height 120 --ring-bytes 1MiB";

/// Where they meet.
struct Place {
    dir: TempDir,
    socket: PathBuf,
}

impl Place {
    fn new() -> Place {
        let dir = ring_dir();
        let socket = dir.path().join("camera");
        Place { dir, socket }
    }

    fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    fn archive(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    fn camera(&self, options: &str) -> Running {
        let (socket, ledger) = (self.socket.display(), self.ledger());
        let line = format!("emulate --socket {socket} --ledger {} {options}", ledger.display());
        Running::circbuf(&line)
    }

    /// A camera that serves already.
    fn ready(&self, options: &str) -> Running {
        let mut camera = self.camera(options);
        camera.says("as a PCI function at");
        camera
    }

    fn driver(&self, options: &str) -> Running {
        let (socket, archive) = (self.socket.display(), self.archive());
        Running::circbuf(&format!(
            "run --device vfio-user:{socket} --json --arch-policy every --durability interval=1 \
             --archive {} {options}",
            archive.display()
        ))
    }

    fn archived(&self) -> u64 {
        index_entries(&self.archive()).len() as u64
    }

    /// Frames that the camera has begun.
    fn begun(&self) -> u64 {
        std::fs::read(self.ledger())
            .map_or(0, |lines| lines.iter().filter(|&&byte| byte == b'\n').count() as u64)
    }

    /// What was archived is in the ledger, and nothing is missing that is not told.
    fn assert_true(&self, books: &serde_json::Value) -> Vec<u64> {
        assert_eq!(books["closes"], true);
        assert_eq!(at(books, "ring.lost_is"), "exact");
        assert_verified(&self.archive());
        hold_against_ledger(&self.archive(), &self.ledger(), true)
    }
}

#[test]
fn camera_and_driver_start_in_either_order_and_lose_nothing() {
    for camera_first in [true, false] {
        let place = Place::new();
        let options = format!("{PICTURES} --unpaced --frames 400");
        let (camera, driver) = if camera_first {
            (place.ready(&options), place.driver("--lossless"))
        } else {
            let mut driver = place.driver("--lossless");
            driver.says("nobody serves it yet; waiting");
            (place.camera(&options), driver)
        };
        let books = driver.end().with_code(0).json();
        assert_eq!(books["ended_by"], "camera");
        let told = camera.end().with_code(0).stderr;
        assert!(told.contains("camera ended after 400 frames"), "{told}");
        assert!(!place.socket.exists(), "it goes with the camera");
        assert_eq!(place.assert_true(&books), (0..400).collect::<Vec<_>>());
    }
}

#[test]
fn a_driver_that_stands_still_for_laps_archives_nothing_torn_and_counts_what_it_lost() {
    let place = Place::new();
    let mut camera = place.ready(
        "--source noise:2000-60000 --ring-bytes 1MiB --fps 1000 --bus-mb-s unlimited --gap late",
    );
    let mut driver = place.driver("");
    for _ in 0..3 {
        let archived = place.archived();
        driver.waits("archiving", || place.archived() > archived + 5);
        driver.freeze();
        let begun = place.begun();
        camera.waits("laps", || place.begun() > begun + 200);
        driver.signal(Signal::SIGCONT);
    }
    let archived = place.archived();
    driver.waits("archiving", || place.archived() > archived + 5);
    camera.interrupt().with_code(0);
    let books = driver.end().with_code(0).json();
    assert_eq!(books["ended_by"], "camera");
    let held = place.assert_true(&books);
    let n = |path: &str| number(&books, path);
    assert!(n("ring.lost.overrun") >= 3 && n("ring.lost.corrupt") == 0, "{books:#}");
    assert_eq!(n("ring.frames_expected"), n("ring.frames_detected") + n("ring.lost.overrun"));
    assert_eq!(n("consumers.arch.delivered"), held.len() as u64);
    assert_eq!(n("ring.frames_expected"), read_ledger(&place.ledger()).len() as u64);
}

/// The processes that serve the camera's connections.
fn servers(camera: &Running) -> Vec<Pid> {
    servers_of(camera.pid())
}

fn servers_of(pid: u32) -> Vec<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("it lives");
    children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().expect("a pid"))).collect()
}

#[test]
fn a_server_that_is_killed_takes_its_own_driver_and_nobody_else() {
    let place = Place::new();
    let mut camera = place.ready(&format!("{PICTURES} --fps 200"));
    let mut driver = place.driver("");
    driver.waits("archiving", || place.archived() > 5);
    let [server] = servers(&camera)[..] else { panic!("one connection has one process") };
    driver.freeze();
    let begun = place.begun();
    camera.waits("a backlog", || place.begun() > begun + 60);
    kill(server, Signal::SIGKILL).expect("it serves");
    camera.says("a process that served a connection ended with signal: 9");
    driver.signal(Signal::SIGCONT);
    let ended = driver.end().with_code(1);
    assert!(ended.stderr.contains("the device is gone"), "{}", ended.stderr);
    assert!(ended.stderr.contains("start it, and this driver, again"), "{}", ended.stderr);
    // All that was complete was read. Of the last frame the ledger tells before it is written.
    let held = place.assert_true(&ended.json());
    assert!(held.iter().copied().eq(0..held.len() as u64), "{held:?}");
    assert!(
        (held.len() as u64..=held.len() as u64 + 1).contains(&place.begun()),
        "{}",
        place.begun()
    );
    // The next one has a camera of its own, from its first frame on.
    let line = format!("run --device vfio-user:{} --frames 10 --json", place.socket.display());
    let books = ends(&line).with_code(0).json();
    assert_eq!(number(&books, "ring.passed"), 10);
    camera.signal(Signal::SIGTERM);
    camera.end().with_code(0);
}

/// Nobody is left who holds a camera that no one can end.
#[test]
fn an_emulator_that_is_killed_leaves_no_process_behind() {
    let place = Place::new();
    let mut camera = place.ready(&format!("{PICTURES} --fps 200"));
    let mut driver = place.driver("--lossless");
    driver.waits("archiving", || place.archived() > 5);
    let _mute = UnixStream::connect(&place.socket).expect("it serves");
    let pid = camera.pid();
    camera.waits("a second connection", || servers_of(pid).len() == 2);
    let servers = servers(&camera);
    camera.signal(Signal::SIGKILL);
    // The driver's camera ends in order: it is told so, and has read everything.
    let books = driver.end().with_code(0).json();
    assert_eq!(books["ended_by"], "camera");
    let held = place.assert_true(&books);
    assert_eq!(held.len() as u64, number(&books, "ring.frames_expected"));
    for server in servers {
        // Whoever inherits it may leave it unburied.
        let end = Instant::now() + Duration::from_secs(60);
        while is_alive(server) {
            assert!(Instant::now() < end, "{server} goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    camera.waits_for_end();
}

fn is_alive(process: Pid) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = state.rsplit_once(") ").and_then(|(_, state)| state.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[test]
fn seconds_end_the_emulator_whether_somebody_is_there_or_not() {
    let place = Place::new();
    let ended = place.camera(&format!("{PICTURES} --seconds 100ms")).end().with_code(0);
    assert!(!place.socket.exists() && !place.ledger().exists(), "{}", ended.stderr);
    // The driver reads what there is, and is told that the camera has ended.
    let camera = place.ready(&format!("{PICTURES} --fps 200 --seconds 4"));
    let books = place.driver("--lossless").end().with_code(0).json();
    assert_eq!(books["ended_by"], "camera");
    camera.end().with_code(0);
    let held = place.assert_true(&books);
    assert!(!held.is_empty() && held.len() as u64 == number(&books, "ring.frames_expected"));
}

#[test]
fn every_connection_has_a_ledger_and_a_number_of_frames_of_its_own() {
    let place = Place::new();
    let camera = place.ready(&format!("{PICTURES} --unpaced --seed 3 --frames 40"));
    // Two at a time: when one has ended, the camera waits for the other.
    let mute = UnixStream::connect(&place.socket).expect("it serves");
    let run = |archive: &str| {
        let (socket, archive) = (place.socket.display(), place.dir.path().join(archive));
        let archive = archive.display();
        let run = format!(
            "run --device vfio-user:{socket} --json --lossless --arch-policy every --archive {archive}"
        );
        assert_eq!(number(&ends(&run).with_code(0).json(), "ring.passed"), 40);
    };
    run("second");
    run("third");
    drop(mute);
    let told = camera.end().with_code(0).stderr;
    assert!(!place.ledger().exists(), "the first connection said nothing");
    for (connection, archive) in [(2, "second"), (3, "third")] {
        let ledger = place.dir.path().join(format!("ledger-{connection}"));
        let says = format!("connection {connection} has its ledger at {}", ledger.display());
        assert!(told.contains(&says), "{told}");
        let held = hold_against_ledger(&place.dir.path().join(archive), &ledger, true);
        assert!(held.iter().copied().eq(0..40), "{held:?}");
    }
}

#[test]
fn clients_that_lie_or_say_nothing_disturb_nobody() {
    let place = Place::new();
    let mut camera = place.ready(&format!("{PICTURES} --fps 200"));
    let mut driver = place.driver("--lossless");
    driver.waits("archiving", || place.archived() > 5);
    let connect = || UnixStream::connect(&place.socket).expect("it serves");
    let _mute: Vec<UnixStream> = (0..5).map(|_| connect()).collect();
    for lie in [&[0xFF; 64][..], b"GET / HTTP/1.1\r\n\r\n", &[0; 16]] {
        let mut client = connect();
        client.write_all(lie).expect("it is read");
        let mut answer = Vec::new();
        let _reset = client.read_to_end(&mut answer);
        assert!(answer.is_empty(), "cut off");
        camera.says("a client was cut off");
    }
    drop(connect());
    let archived = place.archived();
    driver.waits("archiving", || place.archived() > archived + 20);
    camera.signal(Signal::SIGINT);
    let books = driver.end().with_code(0).json();
    let held = place.assert_true(&books);
    assert_eq!(held.len() as u64, number(&books, "ring.frames_expected"));
    camera.end().with_code(0);
}

#[test]
fn sockets_that_cannot_be_served_are_refused() {
    let place = Place::new();
    let socket = place.socket.display();
    let emulate = format!("emulate {PICTURES} --frames 1 --socket");
    std::fs::write(&place.socket, "a file").expect("a place of ours");
    ends(&format!("{emulate} {socket}")).refused(5, &["is no socket, not replaced"]);
    std::fs::remove_file(&place.socket).expect("it is there");
    let listener = UnixListener::bind(&place.socket).expect("a place of ours");
    ends(&format!("{emulate} {socket}")).refused(5, &["another process serves this socket"]);
    drop(listener);
    // Nobody listens at it any more: it is replaced.
    place.ready(PICTURES).interrupt().with_code(0);
    let missing = place.dir.path().join("no").join("socket");
    ends(&format!("{emulate} {}", missing.display())).refused(5, &["No such file"]);
    ends(&format!("{emulate} {socket} --ring {socket}")).refused(2, &["--ring"]);
    ends(&format!("{emulate} {socket} --lossless")).refused(2, &["run --lossless"]);
    ends(&format!("{emulate} {socket} --fault irq-lost")).refused(2, &["nobody stamps"]);
    ends(&format!("emulate --source {} --socket {socket}", missing.display()))
        .refused(1, &["No such file"]);
    ends("emulate").refused(2, &["--ring", "--socket"]);
}

#[test]
fn devices_that_are_no_pci_function_are_refused() {
    let place = Place::new();
    let socket = place.socket.display();
    ends("run --device vfio-user:").refused(2, &["names no socket", "vfio-user:SOCKET"]);
    ends("run --device vfio-usr:/tmp/x").refused(2, &["is no PCI function"]);
    let long = place.dir.path().join("x".repeat(108));
    let too_long = &["107 bytes at most", "go nearer"];
    ends(&format!("run --device vfio-user:{}", long.display())).refused(2, too_long);
    ends(&format!("emulate {PICTURES} --socket {}", long.display())).refused(2, too_long);
    ends("run --huge-pages").refused(2, &["--huge-pages is about the ring of a PCI function"]);
    // At once: nobody waits for a file to become a socket.
    let no_socket = &["no socket; name the one at which a server of vfio-user listens"];
    ends("run --device vfio-user:/etc/passwd").refused(5, no_socket);
    ends(&format!("run --device vfio-user:{}", place.dir.path().display())).refused(5, no_socket);
    let run = format!("run --device vfio-user:{socket}");
    ends(&format!("{run} --fps 12")).refused(2, &["--fps is about the embedded camera"]);
    ends(&format!("{run} --bare")).refused(2, &["--bare is about the embedded camera"]);
    let nobody = ends(&format!("{run} --timeout 100ms")).with_code(5);
    assert!(nobody.stderr.contains("is its server running"), "{}", nobody.stderr);
    // Somebody listens who lets nobody in, and then one who knows nothing of vfio-user.
    let listener = UnixListener::bind(&place.socket).expect("a place of ours");
    std::fs::set_permissions(&place.socket, Permissions::from_mode(0o000)).expect("it is ours");
    ends_unprivileged(place.dir.path(), &run).refused(5, &["has to let you write to the socket"]);
    std::fs::set_permissions(&place.socket, Permissions::from_mode(0o600)).expect("it is ours");
    let stranger = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("somebody comes");
        client.write_all(&[0xAA; 64]).expect("it reads");
        let _hung_up = client.read_to_end(&mut Vec::new());
    });
    ends(&run).refused(5, &["it answers", "is its server running"]);
    stranger.join().expect("it only talks");
}

/// A ring of another size than the device proposes is the driver's to choose.
#[test]
fn the_driver_chooses_the_size_of_the_ring() {
    let place = Place::new();
    let camera = place.ready(&format!("{PICTURES} --unpaced --frames 100"));
    let run = format!("run --device vfio-user:{} --lossless --json", place.socket.display());
    ends(&format!("{run} --ring-bytes 4KiB")).refused(5, &["a ring of 4096 bytes", "four slots"]);
    let ended = Running::start(circbuf(&format!("{run} --ring-bytes 256KiB"))).end().with_code(0);
    assert!(ended.stderr.contains("ring of 262144 bytes"), "{}", ended.stderr);
    assert_eq!(number(&ended.json(), "ring.passed"), 100);
    camera.end().with_code(0);
}
