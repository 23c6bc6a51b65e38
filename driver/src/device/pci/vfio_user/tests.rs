//! A client that believes nothing: each of these servers says one thing that is not so.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use super::super::memory::Pages;
use super::super::tests::fake::{Answer, Server};
use super::*;

/// Far more than a well-behaved server takes; only what is to time out waits so long.
const PATIENCE: Duration = Duration::from_millis(300);

fn connect(server: &Server) -> io::Result<VfioUser> {
    VfioUser::connect_within(&server.path(), PATIENCE)
}

/// A server that answers this command in another way.
fn odd_about(command: u16, mut answer: impl FnMut(&[u8]) -> Answer + Send + 'static) -> Server {
    Server::scripted(move |asked, body| (asked == command).then(|| answer(body)))
}

fn body(words: &[u32]) -> Answer {
    Answer::Body(words.iter().flat_map(|word| word.to_le_bytes()).collect(), None)
}

#[test]
fn a_server_that_is_not_there_is_an_error_and_no_wait() {
    let dir = tempfile::tempdir().unwrap();
    let missing = VfioUser::connect(&dir.path().join("nobody")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let path = dir.path().join("left behind");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert_eq!(VfioUser::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    for (path, why) in [
        (dir.path().to_owned(), "it is a folder and no socket"),
        (PathBuf::from("/etc/passwd"), "it is a file and no socket"),
        (dir.path().join("x".repeat(108)), "a socket's path has 107 bytes at most"),
    ] {
        let error = VfioUser::connect(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn silence_ends_every_wait() {
    for command in [VERSION, DEVICE_GET_INFO, DEVICE_GET_REGION_INFO] {
        let error = connect(&odd_about(command, |_| Answer::Silence)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "command {command}");
        assert_eq!(error.to_string(), "no answer within 0.3 s");
    }
    // A server that takes connections and nothing else.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("busy");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = VfioUser::connect_within(&path, PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn part_of_an_answer_is_none() {
    let header = |id: u16, bytes: u32| {
        [
            &id.to_le_bytes()[..],
            &VERSION.to_le_bytes(),
            &bytes.to_le_bytes(),
            &[1, 0, 0, 0],
            &[0; 4],
        ]
        .concat()
    };
    for (raw, kind) in [
        (header(1, 40), ErrorKind::TimedOut),
        (header(1, 40)[..7].to_vec(), ErrorKind::TimedOut),
        (header(1, 15), ErrorKind::InvalidData),
        (header(1, u32::MAX), ErrorKind::InvalidData),
        (header(2, 16), ErrorKind::InvalidData),
        (vec![0xFF; 64], ErrorKind::InvalidData),
    ] {
        let said = raw.clone();
        let error = connect(&odd_about(VERSION, move |_| Answer::Raw(said.clone()))).unwrap_err();
        assert_eq!(error.kind(), kind, "{raw:02x?}: {error}");
    }
}

#[test]
fn what_is_no_pci_device_with_these_regions_is_refused() {
    for (server, why) in [
        (odd_about(VERSION, |_| body(&[1])), "speaks version 1 of vfio-user"),
        (odd_about(VERSION, |_| body(&[])), "tells no version"),
        (odd_about(DEVICE_GET_INFO, |_| body(&[16, 1, 9, 5])), "no PCI device"),
        (odd_about(DEVICE_GET_INFO, |_| body(&[16, 2, 7, 5])), "no PCI device"),
        (odd_about(DEVICE_GET_INFO, |_| body(&[16, 2])), "answer of 8 bytes is too short"),
        (
            odd_about(DEVICE_GET_REGION_INFO, |_| body(&[32, 3, 5, 0, 4096, 0, 0, 0])),
            "region 5, not 0",
        ),
        (odd_about(DEVICE_GET_REGION_INFO, |_| body(&[32, 3, 0, 0, 64, 0, 0, 0])), "has 64 bytes"),
        (odd_about(VERSION, |_| Answer::Refuse(0)), "does not say why"),
        (odd_about(VERSION, |_| Answer::HangUp), "hung up"),
    ] {
        let error = connect(&server).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// The crate's own client takes a refused mapping for a good one, and waits for ever for the bytes of a
/// refused read.
#[test]
fn a_refusal_is_an_error_and_the_conversation_goes_on() {
    let server = Server::scripted(|command, _| {
        matches!(command, DMA_MAP | SET_IRQS | REGION_READ).then_some(Answer::Refuse(12))
    });
    let client = connect(&server).unwrap();
    let memory = Pages::find(false).unwrap().take(4096).unwrap();
    let event = EventFd::new().unwrap();
    for refused in [
        client.map_dma(0, &memory),
        client.set_interrupts(&[&event]),
        client.read(Space::Config, 0, &mut [0; 4]),
    ] {
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(12));
    }
    client.write(Space::Registers, 0x28, &[1, 2, 3, 4]).unwrap();
}

#[test]
fn an_answer_to_something_else_breaks_the_conversation() {
    let server = odd_about(REGION_READ, |asked| Answer::Body([asked, &[0; 8]].concat(), None));
    let client = connect(&server).unwrap();
    let error = client.read(Space::Config, 0, &mut [0; 4]).unwrap_err();
    assert!(error.to_string().contains("another read than was asked for"));
    let server = odd_about(REGION_WRITE, |_| body(&[0, 0, 0, 0]));
    let error = connect(&server).unwrap().write(Space::Registers, 8, &[0; 4]).unwrap_err();
    assert!(error.to_string().contains("another write than was asked for"));
    let server = odd_about(REGION_READ, |_| Answer::Raw(vec![0; 16]));
    let client = connect(&server).unwrap();
    let told = [(); 2].map(|()| client.read(Space::Config, 0, &mut [0; 4]).unwrap_err());
    assert_eq!(told[0].kind(), ErrorKind::InvalidData);
    // What came first is what counts, whoever asks.
    let posted = client.post(Space::Registers, 0x38, &[0; 8]).unwrap_err();
    for later in [&told[1], &posted] {
        assert_eq!((later.kind(), later.to_string()), (told[0].kind(), told[0].to_string()));
    }
}

#[test]
fn a_posted_write_that_was_refused_does_not_spoil_the_next_answer() {
    let server = odd_about(REGION_WRITE, |_| Answer::Refuse(22));
    let client = connect(&server).unwrap();
    client.post(Space::Registers, 0x38, &[0; 8]).unwrap();
    let mut magic = [0; 4];
    client.read(Space::Registers, 0, &mut magic).unwrap();
    assert_eq!(&magic, b"CBUF");
}

/// Region info of the status page with this flags and capabilities, and a file or none.
fn page_info(flags: u32, next: u32, capabilities: &[u32], has_file: bool) -> Server {
    let file = has_file.then(|| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        file
    });
    let words = [&[32, flags, 2, next, 4096, 0, 4096, 0], capabilities].concat();
    odd_about(DEVICE_GET_REGION_INFO, move |asked| {
        let index = asked[8];
        let mut told = words.clone();
        told[2] = index.into();
        let Answer::Body(info, _) = body(&told) else { unreachable!("as it was made") };
        Answer::Body(info, file.as_ref().filter(|_| index == 2).map(AsRawFd::as_raw_fd))
    })
}

#[test]
fn only_a_page_that_can_be_mapped_as_a_whole_is_mapped() {
    // Capability 1, version 1; the next one; number of areas; then offset and size of each.
    let whole = [1 | 1 << 16, 0, 1, 0, 0, 0, 4096, 0];
    let other = [9 | 1 << 16, 40, 1 | 1 << 16, 0, 1, 0, 0, 0, 4096, 0];
    for (flags, next, capabilities) in [(5, 0, &[][..]), (13, 32, &whole), (13, 32, &other)] {
        let server = page_info(flags, next, capabilities, true);
        assert_eq!(connect(&server).unwrap().status_page().unwrap().bytes(), 4096);
    }
    let half = [1 | 1 << 16, 0, 1, 0, 0, 0, 2048, 0];
    let later = [1 | 1 << 16, 0, 1, 0, 2048, 0, 4096, 0];
    let none = [1 | 1 << 16, 0, 0, 0];
    let cut_short = [1 | 1 << 16, 0, 7, 0, 0, 0, 4096, 0];
    let circle = [9 | 1 << 16, 32];
    for (flags, next, capabilities, has_file) in [
        (1, 0, &[][..], true),
        (4, 0, &[], true),
        (5, 0, &[], false),
        (13, 32, &half, true),
        (13, 32, &later, true),
        (13, 32, &none, true),
        (13, 32, &cut_short, true),
        (13, 32, &circle, true),
        (13, 8, &whole, true),
        (13, 4000, &whole, true),
        (13, u32::MAX, &whole, true),
    ] {
        let server = page_info(flags, next, capabilities, has_file);
        // Some of it is seen when it connects already.
        let mapped = connect(&server).and_then(|client| client.status_page());
        let error = mapped.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{flags} {next} {capabilities:?}");
    }
}
