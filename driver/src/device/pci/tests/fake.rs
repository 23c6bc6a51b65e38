//! A server of vfio-user with a camera that is no more than its registers.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use circbuf_abi::pci::{DEVICE_ID, VENDOR_ID, bar0 as reg, config};
use circbuf_abi::registers as page;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// What the server does about a request.
pub(crate) enum Answer {
    /// The header for this, and the rest.
    Body(Vec<u8>, Option<RawFd>),
    /// The error flag, with this number.
    Refuse(u32),
    /// These bytes and nothing else.
    Raw(Vec<u8>),
    Silence,
    HangUp,
}

/// Answers a request by its command and body, or leaves it to the camera.
pub(crate) type Script = Box<dyn FnMut(u16, &[u8]) -> Option<Answer> + Send>;

pub(crate) struct Camera {
    pub(crate) config: Vec<u8>,
    pub(crate) command_writable: u16,
    registers: Vec<u8>,
    /// Instead of taking the ring, sets these error bits.
    pub(crate) start_errors: Option<u32>,
    pub(crate) page_magic: u64,
    pub(crate) script: Option<Script>,
    page: File,
    /// Region, offset and the first 32 bits.
    writes: Vec<(u32, u64, u32)>,
    mappings: Vec<(u64, u64)>,
}

/// The server, for as many connections as come one after the other.
pub(crate) struct Server {
    dir: tempfile::TempDir,
    camera: Arc<Mutex<Camera>>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Camera {
    pub(crate) fn new() -> Camera {
        let mut camera = Camera {
            config: vec![0; config::BYTES],
            command_writable: 6,
            registers: vec![0; 4096],
            start_errors: None,
            page_magic: page::MAGIC_VALUE,
            script: None,
            page: tempfile::tempfile().unwrap(),
            writes: Vec::new(),
            mappings: Vec::new(),
        };
        camera.config[..2].copy_from_slice(&VENDOR_ID.to_le_bytes());
        camera.config[2..4].copy_from_slice(&DEVICE_ID.to_le_bytes());
        camera.page.set_len(4096).unwrap();
        camera.set(reg::MAGIC, reg::MAGIC_VALUE);
        camera.set(reg::VERSION, 1);
        camera.set(reg::FEATURES, reg::FEATURE_CREDIT);
        camera.set(reg::RING_BYTES, 1 << 20);
        camera.set(reg::MAX_SLOT_BYTES, 4096);
        camera
    }

    pub(crate) fn set(&mut self, register: u64, word: u32) {
        self.registers[register as usize..][..4].copy_from_slice(&word.to_le_bytes());
    }

    fn answer(&mut self, command: u16, body: &[u8]) -> Answer {
        if let Some(answer) = self.script.as_mut().and_then(|script| script(command, body)) {
            return answer;
        }
        match command {
            1 => Answer::Body(b"\0\0\0\0{\"capabilities\":{}}\0".to_vec(), None),
            2 => {
                self.mappings.push((u64_at(body, 16), u64_at(body, 24)));
                Answer::Body(Vec::new(), None)
            }
            4 => Answer::Body([16_u32, 2, 9, 5].map(u32::to_le_bytes).concat(), None),
            5 => self.region(u32_at(body, 8)),
            9 => self.read(body),
            10 => self.write(body),
            _ => Answer::Body(body.to_vec(), None),
        }
    }

    fn region(&self, index: u32) -> Answer {
        let (flags, size) = match index {
            0 => (3, 4096),
            2 => (5, 4096),
            7 => (3, 4096),
            _ => (0, 0),
        };
        let info = [32, flags, index, 0, size, 0, 0, 0].map(u32::to_le_bytes).concat();
        Answer::Body(info, (index == 2).then(|| self.page.as_raw_fd()))
    }

    fn read(&self, body: &[u8]) -> Answer {
        let space = if u32_at(body, 8) == 0 { &self.registers } else { &self.config };
        let (at, count) = (u64_at(body, 0) as usize, u32_at(body, 12) as usize);
        Answer::Body([body, &space[at..at + count]].concat(), None)
    }

    fn write(&mut self, body: &[u8]) -> Answer {
        let (access, written) = body.split_at(16);
        let (region, offset) = (u32_at(access, 8), u64_at(access, 0));
        let mut word = [0; 4];
        let first = written.len().min(4);
        word[..first].copy_from_slice(&written[..first]);
        let word = u32::from_le_bytes(word);
        self.writes.push((region, offset, word));
        match (region, offset) {
            (0, reg::CONTROL) => self.control(word),
            (0, _) => self.registers[offset as usize..][..written.len()].copy_from_slice(written),
            _ => {
                let command = word as u16 & self.command_writable;
                self.config[config::COMMAND..][..2].copy_from_slice(&command.to_le_bytes());
            }
        }
        Answer::Body(access.to_vec(), None)
    }

    fn control(&mut self, word: u32) {
        if word & reg::CONTROL_ENABLE == 0 {
            return self.set(reg::STATUS, 0);
        }
        if word & reg::CONTROL_RUN != 0 {
            return self.set(reg::STATUS, reg::STATUS_ENABLED | reg::STATUS_RUNNING);
        }
        if let Some(bits) = self.start_errors {
            return self.set(reg::ERRORS, bits);
        }
        let ring_bytes = u64_at(&self.registers, reg::RING_BYTES as usize);
        let put = |at, bytes: &[u8]| self.page.write_all_at(bytes, at as u64).unwrap();
        put(page::MAGIC, &self.page_magic.to_le_bytes());
        put(page::VERSION, &page::VERSION_VALUE.to_le_bytes());
        put(page::RING_BYTES, &ring_bytes.to_le_bytes());
        put(page::MAX_SLOT_BYTES, &4096_u64.to_le_bytes());
        self.set(reg::STATUS, reg::STATUS_ENABLED);
    }
}

impl Server {
    pub(crate) fn start(camera: Camera) -> Server {
        let server =
            Server { dir: tempfile::tempdir().unwrap(), camera: Arc::new(Mutex::new(camera)) };
        let listener = UnixListener::bind(server.path()).unwrap();
        let camera = Arc::clone(&server.camera);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &camera);
            }
        });
        server
    }

    /// A server that answers as the script says, and otherwise as a camera that is well.
    pub(crate) fn scripted(
        script: impl FnMut(u16, &[u8]) -> Option<Answer> + Send + 'static,
    ) -> Server {
        Server::start(Camera { script: Some(Box::new(script)), ..Camera::new() })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("camera")
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Camera)) {
        change(&mut self.camera.lock().unwrap());
    }

    pub(crate) fn set_page(&self, field: usize, word: u32) {
        let camera = self.camera.lock().unwrap();
        camera.page.write_all_at(&word.to_le_bytes(), field as u64).unwrap();
    }

    pub(crate) fn writes(&self) -> Vec<(u32, u64, u32)> {
        self.camera.lock().unwrap().writes.clone()
    }

    pub(crate) fn mappings(&self) -> Vec<(u64, u64)> {
        self.camera.lock().unwrap().mappings.clone()
    }
}

fn serve(mut stream: UnixStream, camera: &Mutex<Camera>) {
    let mut header = [0; 16];
    while stream.read_exact(&mut header).is_ok() {
        let mut body = vec![0; u32_at(&header, 4) as usize - 16];
        stream.read_exact(&mut body).unwrap();
        let command = u16::from_le_bytes([header[2], header[3]]);
        let answer = camera.lock().unwrap().answer(command, &body);
        let is_posted = u32_at(&header, 8) & 1 << 4 != 0;
        let (flags, errno, body, fd) = match answer {
            Answer::Body(..) if is_posted => continue,
            Answer::Body(body, fd) => (1, 0, body, fd),
            Answer::Refuse(errno) => (0x21, errno, Vec::new(), None),
            Answer::Raw(bytes) => {
                stream.write_all(&bytes).unwrap();
                continue;
            }
            Answer::Silence => continue,
            Answer::HangUp => return,
        };
        header[4..8].copy_from_slice(&(16 + body.len() as u32).to_le_bytes());
        header[8..12].copy_from_slice(&u32::to_le_bytes(flags));
        header[12..].copy_from_slice(&u32::to_le_bytes(errno));
        let message = [&header[..], &body].concat();
        let fds: Vec<RawFd> = fd.into_iter().collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        let message = [IoSlice::new(&message)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        if sendmsg::<()>(stream.as_raw_fd(), &message, rights, flags, None).is_err() {
            return;
        }
    }
}
