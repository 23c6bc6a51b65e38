//! Clients that lie, die or send what nobody expects: the process goes on.

use std::io::{IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::super::gate::{HEADER_BYTES, Lie, check};
use super::super::serve;
use super::*;

fn message(command: u16, body: &[u8]) -> Vec<u8> {
    let bytes = (HEADER_BYTES + body.len()) as u32;
    let mut message = vec![7, 0];
    message.extend(command.to_le_bytes());
    message.extend(bytes.to_le_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// Offset 0 of a region, and so many bytes.
fn access(region: u32, count: u32) -> Vec<u8> {
    [&[0; 8][..], &region.to_le_bytes(), &count.to_le_bytes()].concat()
}

fn version(text: &[u8]) -> Vec<u8> {
    [&[0, 0, 1, 0], text].concat()
}

const TEXT: &[u8] = b"{\"capabilities\":{}}\0";

#[test]
fn what_the_server_would_trust_does_not_pass() {
    let lies: &[(u16, Vec<u8>, Lie)] = &[
        (1, vec![], Lie::Text),
        (1, version(b""), Lie::Text),
        (1, version(b"{}"), Lie::Text),
        (1, version(b"{}\0{}\0"), Lie::Text),
        (2, vec![0; 31], Lie::Body { command: 2, body_bytes: 31 }),
        (3, vec![0; 32], Lie::Body { command: 3, body_bytes: 32 }),
        (4, vec![], Lie::Body { command: 4, body_bytes: 0 }),
        (5, vec![0; 33], Lie::Body { command: 5, body_bytes: 33 }),
        (8, vec![0; 24], Lie::Body { command: 8, body_bytes: 24 }),
        (13, vec![0], Lie::Body { command: 13, body_bytes: 1 }),
        (9, access(7, u32::MAX), Lie::Count { count: u32::MAX, bytes: 16 }),
        (9, access(7, 4097), Lie::Count { count: 4097, bytes: 16 }),
        (9, vec![0; 8], Lie::Count { count: u32::MAX, bytes: 8 }),
        (10, access(7, 4), Lie::Count { count: 4, bytes: 16 }),
        (10, [access(7, 4), vec![0; 8]].concat(), Lie::Count { count: 4, bytes: 24 }),
        (10, access(7, u32::MAX), Lie::Count { count: u32::MAX, bytes: 16 }),
    ];
    for (command, body, lie) in lies {
        assert_eq!(check(&mut message(*command, body)), Err(*lie), "command {command}");
    }
}

#[test]
fn what_is_whole_passes_as_it_is_and_what_is_unknown_without_its_body() {
    for (command, body) in [
        (1, version(TEXT)),
        (2, vec![0; 32]),
        (3, vec![0; 24]),
        (4, vec![0; 16]),
        (5, vec![0; 32]),
        (7, vec![0; 16]),
        (8, vec![0; 20]),
        (9, access(0, 4096)),
        (10, [access(0, 4), vec![0; 4]].concat()),
        (13, vec![]),
    ] {
        let mut passed = message(command, &body);
        assert_eq!(check(&mut passed), Ok(()));
        assert_eq!(passed, message(command, &body));
    }
    for command in [0, 6, 11, 12, 14, 15, 999] {
        let mut passed = message(command, &[1; 100]);
        assert_eq!(check(&mut passed), Ok(()));
        assert_eq!(passed, message(command, &[]));
    }
}

/// A server in a thread: its end gives the function back.
fn served(mut function: Function) -> (UnixStream, JoinHandle<Function>) {
    let (client, server) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let _lied = serve(server, &mut function);
        function
    });
    (client, thread)
}

/// Says hello, and reads the answer.
fn greet(client: &mut UnixStream) {
    let reply = ask(client, &message(1, &version(TEXT)));
    assert_eq!(&reply[..4], &[7, 0, 1, 0]);
}

/// The whole answer.
fn ask(client: &mut UnixStream, message: &[u8]) -> Vec<u8> {
    client.write_all(message).unwrap();
    let mut reply = vec![0; HEADER_BYTES];
    client.read_exact(&mut reply).unwrap();
    let bytes = u32::from_le_bytes([reply[4], reply[5], reply[6], reply[7]]);
    reply.resize(bytes as usize, 0);
    client.read_exact(&mut reply[HEADER_BYTES..]).unwrap();
    reply
}

#[test]
fn clients_that_lie_are_cut_off_and_take_nothing_with_them() {
    let sizes = |bytes: u32| {
        let mut lie = message(13, &[]);
        lie[4..8].copy_from_slice(&bytes.to_le_bytes());
        lie
    };
    let mut function = enabled(None);
    for lie in [
        sizes(0),
        sizes(15),
        sizes(u32::MAX),
        sizes(1 << 30),
        message(1, &version(b"\0\0")),
        message(1, &[]),
        message(9, &access(7, u32::MAX)),
        message(10, &access(0, u32::MAX)),
        vec![0xFF; 4096],
    ] {
        for greets in [false, true] {
            let (mut client, server) = served(function);
            if greets {
                greet(&mut client);
            }
            // It may be cut off before it has said it all.
            let _cut_off = client.write_all(&lie);
            let mut rest = Vec::new();
            let _reset = client.read_to_end(&mut rest);
            assert!(rest.is_empty(), "an answer to {:02x?}", &lie[..lie.len().min(48)]);
            function = server.join().unwrap();
        }
    }
    assert_eq!(function.u32(circbuf_abi::pci::bar0::MAGIC).to_le_bytes(), *b"CBUF");
}

#[test]
fn clients_that_die_anywhere_in_a_message_end_their_own_conversation() {
    let whole = message(10, &[access(7, 4), vec![0; 4]].concat());
    let mut function = enabled(None);
    for bytes in 0..whole.len() {
        let (mut client, server) = served(function);
        greet(&mut client);
        client.write_all(&whole[..bytes]).unwrap();
        drop(client);
        function = server.join().unwrap();
    }
}

#[test]
fn refusals_are_answers_and_the_conversation_goes_on() {
    let (mut client, server) = served(enabled(None));
    greet(&mut client);
    let flags = |reply: &[u8]| u32::from_le_bytes([reply[8], reply[9], reply[10], reply[11]]);
    // No such region, no such interrupts, not JSON, a command that it does not know; two descriptors'
    // worth of mapping at the end of the addresses.
    let far = [vec![32, 0, 0, 0, 3, 0, 0, 0], vec![0; 8], vec![0xFF; 8], vec![0xFF; 8]].concat();
    for refused in [
        message(9, &access(99, 4)),
        message(5, &[0xFF; 32]),
        message(7, &[0xFF; 16]),
        message(8, &[0xFF; 20]),
        message(1, &version(b"nonsense\0")),
        message(11, &[0; 24]),
        message(999, &[]),
        message(2, &far),
    ] {
        let reply = ask(&mut client, &refused);
        assert_eq!(flags(&reply), 0x21, "{refused:02x?}");
    }
    let reply = ask(&mut client, &message(9, &access(0, 4)));
    assert_eq!((flags(&reply), &reply[32..]), (1, &b"CBUF"[..]));
    drop(client);
    let _function = server.join().unwrap();
}

/// A client that sends more descriptors than a message may have is cut off, and they are closed.
#[test]
fn descriptors_beyond_all_measure_do_not_stay() {
    for ends in [1, 16, 17, 253] {
        let (mut client, server) = served(function(None));
        let (mut reader, writer) = std::io::pipe().unwrap();
        let fds = vec![writer.as_raw_fd(); ends];
        let hello = message(1, &version(TEXT));
        let parts = [IoSlice::new(&hello)];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(client.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
        drop(writer);
        match ends {
            ..=16 => client.read_exact(&mut [0; HEADER_BYTES]).unwrap(),
            _ => assert!(!matches!(client.read(&mut [0]), Ok(1)), "{ends} descriptors"),
        }
        drop(client);
        server.join().unwrap();
        // Nobody holds the other end of the pipe any more; otherwise to read is an error, and does not wait.
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0, "{ends} descriptors");
    }
}
