//! Writing data to stdout.

use std::io::{self, BufWriter, ErrorKind, Write};

/// Writes to stdout through a buffer. A reader that has gone away, as `head` does, is the end of
/// the work and no failure.
///
/// # Errors
/// Whatever `write` or stdout fails with, except for a broken pipe.
pub fn write(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    end_quietly(write_all(io::stdout().lock(), write))
}

fn write_all(
    out: impl Write,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let result = write(&mut out).and_then(|()| out.flush());
    // What could not be written would be written again, and fail again, when the buffer is dropped.
    let _unwritten = out.into_parts();
    result
}

fn end_quietly(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed(ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_broken_pipe_is_the_end_and_no_failure() {
        for (kind, is_ok) in [(ErrorKind::BrokenPipe, true), (ErrorKind::StorageFull, false)] {
            let result = end_quietly(write_all(Closed(kind), |out| out.write_all(&[0; 1 << 17])));
            assert_eq!(result.is_ok(), is_ok, "{kind}");
            let late = end_quietly(write_all(Closed(kind), |out| out.write_all(b"small")));
            assert_eq!(late.is_ok(), is_ok, "{kind}, on the last flush");
        }
    }
}
