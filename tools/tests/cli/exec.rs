//! `circbuf exec`: C and Python programs that know nothing of the emulator, on an emulated camera.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::util::{Ended, Running, circbuf, disk_dir, ends, ends_unprivileged};

/// The source of a C or Python program.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/node").join(name)
}

/// Compiles a C program into `dir`.
pub(crate) fn compile(dir: &Path, name: &str, flags: &[&str]) -> PathBuf {
    let program = dir.join(name);
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]).args(flags);
    compiler.arg("-o").arg(&program).arg(source(&format!("{name}.c")));
    let compiled = Running::start(compiler).end();
    assert_eq!(compiled.code, Some(0), "{compiled:#?}");
    program
}

/// A camera with the options of `line`, and `program` on it.
fn exec(line: &str, program: &[&str]) -> Command {
    let mut command = circbuf(&format!("exec {line} --"));
    command.args(program);
    command
}

pub(crate) fn runs(line: &str, program: &[&str]) -> Ended {
    Running::start(exec(line, program)).end()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Small frames that go round a small ring, so that all situations come soon.
pub(crate) const LIVELY: &str =
    "--ring-bytes 256KiB --source noise:1000-30000 --fps 100 --fault exact-wrap";

/// Nothing failed, and nothing else was skipped. What a call of `lseek` costs, for those who look.
#[track_caller]
pub(crate) fn conforms(ended: &Ended, skipped: &str) -> String {
    let told = |prefix| ended.stdout.lines().filter(move |line| line.starts_with(prefix));
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(told("FAIL").count(), 0, "{ended:#?}");
    assert!(told("skip").all(|line| line.contains(skipped)), "{ended:#?}");
    told("# lseek").collect()
}

#[test]
fn the_node_conforms_in_every_situation() {
    let dir = disk_dir();
    let program = compile(dir.path(), "node_conformance", &[]);
    for model in ["nc353", "nc393"] {
        let line = format!("--model {model} {LIVELY}");
        let program = [text(&program), "-t", "40", "/dev/circbuf0", "/dev/jpeghead0"];
        let ended = runs(&line, &program);
        println!("{model}: {}", conforms(&ended, "empty ring"));
        assert!(ended.stdout.matches("\nok").count() > 230, "{ended:#?}");
        assert!(ended.stdout.contains(&format!("# /dev/circbuf0: {model}")), "{ended:#?}");
    }
}

#[test]
fn the_node_conforms_while_the_ring_is_empty() {
    let dir = disk_dir();
    let program = compile(dir.path(), "node_conformance", &[]);
    for model in ["nc353", "nc393"] {
        let program = [text(&program), "/dev/circbuf0"];
        let ended = runs(&format!("--model {model} --delay 1000s"), &program);
        conforms(&ended, "sharing");
        assert!(ended.stdout.matches("empty ring").count() >= 15, "{ended:#?}");
    }
}

/// The check finds what is wrong: a 393 is no 353.
#[test]
fn the_conformance_program_can_fail() {
    let dir = disk_dir();
    let program = compile(dir.path(), "node_conformance", &[]);
    let program = [text(&program), "-m", "353", "-t", "5", "/dev/circbuf0"];
    let ended = runs(&format!("--model nc393 {LIVELY}"), &program).with_code(1);
    let failed: Vec<_> = ended.stdout.lines().filter(|line| line.starts_with("FAIL")).collect();
    for wrong in ["USED", "pread"] {
        assert!(failed.iter().any(|line| line.contains(wrong)), "{wrong}: {ended:#?}");
    }
}

#[track_caller]
fn pictures(dir: &Path) -> Vec<(usize, usize)> {
    let mut sizes = Vec::new();
    while let Ok(file) = std::fs::read(dir.join(format!("{}.jpg", sizes.len()))) {
        let file = zune_jpeg::zune_core::bytestream::ZCursor::new(file);
        let mut decoder = zune_jpeg::JpegDecoder::new(file);
        decoder.decode().expect("a JPEG file");
        sizes.push(decoder.dimensions().expect("they stand in its header"));
    }
    sizes
}

fn saves_pictures(program: &[&str]) {
    for line in ["--model nc353", "--model nc393 --ring-bytes 256KiB --fault exact-wrap"] {
        let out = disk_dir();
        let line = format!("{line} --fps 60 --width 320 --height 240 --source synthetic:8");
        let args = ["/dev/circbuf0", "/dev/jpeghead0", text(out.path()), "8"];
        runs(&line, &[program, &args].concat()).with_code(0);
        assert_eq!(pictures(out.path()), [(320, 240); 8], "{program:?} {line}");
    }
}

#[test]
fn a_c_program_saves_pictures() {
    let dir = disk_dir();
    let program = compile(dir.path(), "save_frames", &[]);
    saves_pictures(&[text(&program)]);
}

#[test]
fn so_does_a_static_one() {
    let dir = disk_dir();
    let program = compile(dir.path(), "save_frames", &["-static"]);
    saves_pictures(&[text(&program)]);
}

#[test]
fn so_does_one_in_python() {
    if Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: there is no python3");
        return;
    }
    saves_pictures(&["python3", text(&source("save_frames.py"))]);
}

#[test]
fn processes_threads_and_signals_share_the_node_as_on_a_camera() {
    let dir = disk_dir();
    let program = compile(dir.path(), "processes", &[]);
    for model in ["nc353", "nc393"] {
        for (begins, delay) in [("idle", "1000s"), ("starting", "1s")] {
            let line = format!("--model {model} --delay {delay}");
            let ended = runs(&line, &[text(&program), "/dev/circbuf0", begins]);
            assert_eq!(ended.code, Some(0), "{ended:#?}");
            assert!(ended.stdout.lines().all(|line| line.starts_with("ok")), "{ended:#?}");
        }
    }
}

/// Pipes, forks, files, signals, and an exit code.
const SCRIPT: &str = r#"
cd "$1"
printf 'b\na\nc\n' | sort > sorted; cat sorted - < /dev/null
(sleep 0.1; echo late) & (exit 3); echo "exit $?"; wait
for i in 1 2 3; do (echo "child $i") | sed s/child/CHILD/; done
ls; wc -c < sorted; head -c 2 sorted; tail -n 1 sorted; tail -c 2 sorted | od -c
test -e missing || echo none; cat missing 2>&1; echo x > /dev/null
dd if=sorted bs=1 skip=2 count=1 2>/dev/null; echo
trap 'echo trapped' USR1; kill -USR1 $$; sh -c 'kill -TERM $$'; echo "killed $?"
find . -type f | sort; readlink /proc/self/cwd > link && rm link; exit 42
"#;

#[test]
fn a_shell_script_behaves_as_without_a_camera() {
    let run = |mut command: Command| {
        let dir = disk_dir();
        command.args(["sh", "-c", SCRIPT, "script"]).arg(dir.path());
        Running::start(command).end()
    };
    let mut env = Command::new("env");
    env.stdin(Stdio::null());
    let without = run(env);
    for model in ["nc353", "nc393"] {
        let with = run(exec(&format!("--model {model}"), &[]));
        assert_eq!((with.code, &with.stdout), (without.code, &without.stdout), "{with:#?}");
    }
    assert_eq!(without.code, Some(42));
}

#[test]
fn the_tools_of_a_shell_see_a_character_device() {
    let script = "ls -l /dev/circbuf0; test -c /dev/circbuf1 || echo one; realpath /dev/circbuf0; \
                  head -c 100 < /dev/circbuf0 | wc -c; cd /dev; stat -c %s:%t:%T circbuf0";
    let ended = runs("--model nc393", &["sh", "-c", script]).with_code(0);
    assert!(ended.stdout.starts_with("crw-rw-rw- 1 root root 135, 32 "), "{ended:#?}");
    assert!(ended.stdout.ends_with("one\n/dev/circbuf0\n100\n67108864:87:20\n"), "{ended:#?}");
    assert_eq!(ended.complaints(), [""; 0], "{ended:#?}");
}

#[test]
fn the_end_of_the_program_is_ours() {
    runs("", &["sh", "-c", "exit 7"]).with_code(7);
    runs("", &["sh", "-c", "kill -KILL $$"]).with_code(128 + 9);
    runs("", &["/no/such/program"]).refused(127, &["/no/such/program", "No such file"]);
    runs("", &["/dev/null"]).refused(126, &["/dev/null", "denied"]);
    // Who is left behind still has its camera.
    let left = "(sleep 0.3; stat -c %T /dev/circbuf0) & exit 3";
    assert_eq!(runs("", &["sh", "-c", left]).with_code(3).stdout, "b\n");
}

#[test]
fn signals_reach_the_program() {
    use nix::sys::signal::Signal;
    let script = "trap 'echo got it; exit 5' TERM; echo ready >&2; while :; do sleep 0.01; done";
    let mut running = Running::start(exec("", &["sh", "-c", script]));
    running.says("ready");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().with_code(5).stdout, "got it\n");
    // One that waits for a frame of an idle camera is ended as well.
    let dir = disk_dir();
    let program = compile(dir.path(), "save_frames", &[]);
    let script = "echo ready >&2; exec \"$0\" /dev/circbuf0 /dev/jpeghead0 . 1";
    let mut running = Running::start(exec("--delay 1000s", &["sh", "-c", script, text(&program)]));
    running.says("ready");
    running.signal(Signal::SIGTERM);
    running.end().with_code(128 + 15);
}

#[test]
fn what_makes_no_sense_is_refused() {
    ends("exec --bare -- true").refused(2, &["--bare", "leave out"]);
    ends("exec --lossless -- true").refused(2, &["--lossless", "leave it out"]);
    ends("exec").refused(2, &["PROGRAM"]);
    let inner = [env!("CARGO_BIN_EXE_circbuf"), "exec", "--", "true"];
    runs("", &inner).refused(5, &["seccomp", "run it outside"]);
}

/// The smallest program for an i386: it would exit with 0.
const ELF32: [u8; 96] = {
    let mut elf = [0; 96];
    let parts: [(usize, &[u8]); 9] = [
        (0, b"\x7FELF\x01\x01\x01"),
        (16, &[2, 0, 3, 0, 1]),
        (24, &[0x54, 0x80, 0x04, 0x08, 52]),
        (40, &[52, 0, 32, 0, 1]),
        (52, &[1]),
        (60, &[0, 0x80, 0x04, 0x08, 0, 0x80, 0x04, 0x08, 96, 0, 0, 0, 96]),
        (76, &[5, 0, 0, 0, 0, 0x10]),
        // xor ebx, ebx; xor eax, eax; inc eax; int 0x80
        (84, &[0x31, 0xDB, 0x31, 0xC0, 0x40, 0xCD, 0x80]),
        (44, &[1]),
    ];
    let mut part = 0;
    while part < parts.len() {
        let (at, bytes) = parts[part];
        let mut byte = 0;
        while byte < bytes.len() {
            elf[at + byte] = bytes[byte];
            byte += 1;
        }
        part += 1;
    }
    elf
};

fn executable(dir: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.path().join(name);
    std::fs::write(&path, content).expect("room for a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

#[test]
fn a_32_bit_program_is_told() {
    let dir = disk_dir();
    let program = executable(&dir, "old", &ELF32);
    if !Command::new(&program).status().is_ok_and(|status| status.success()) {
        println!("skipped: this kernel runs no 32-bit programs");
        return;
    }
    let ended = runs("", &[text(&program)]).with_code(128 + 9);
    assert!(ended.stderr.contains("a 32-bit program"), "{ended:#?}");
}

#[test]
fn nobody_needs_to_be_root() {
    let dir = disk_dir();
    let ended = ends_unprivileged(dir.path(), "exec --model nc393 -- wc -c /dev/circbuf0");
    assert_eq!(ended.with_code(0).stdout, "67108864 /dev/circbuf0\n");
}
