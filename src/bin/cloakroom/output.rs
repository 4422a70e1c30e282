//! Standard output: text for people, or one JSON object per line for programs.

use crate::problem::Problem;
use serde::Serialize;
use std::io::{self, BufWriter, Stdout, Write};

/// Standard output for results.
pub struct Output {
    json: bool,
    out: BufWriter<Stdout>,
    /// Whether the reader of the output has closed it.
    closed: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json, out: BufWriter::with_capacity(1 << 16, io::stdout()), closed: false }
    }

    /// Whether the output is JSON, for programs.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Writes one JSON object as a line.
    pub fn object(&mut self, object: &impl Serialize) -> Result<(), Problem> {
        let written = serde_json::to_writer(&mut *self, object)
            .map_err(io::Error::from)
            .and_then(|()| self.write_all(b"\n"));
        written.map_err(|error| self.failed(error))
    }

    /// Writes lines of text.
    pub fn lines(
        &mut self,
        lines: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), Problem> {
        for line in lines {
            self.line(line.as_ref())?;
        }
        Ok(())
    }

    /// Writes a line of text.
    pub fn line(&mut self, line: &str) -> Result<(), Problem> {
        self.text(&format!("{line}\n"))
    }

    /// Writes text without a line end.
    pub fn text(&mut self, text: &str) -> Result<(), Problem> {
        self.write_all(text.as_bytes()).map_err(|error| self.failed(error))
    }

    /// Writes what is buffered.
    pub fn finish(&mut self) -> Result<(), Problem> {
        self.flush().map_err(|error| self.failed(error))
    }

    /// Whether the reader of the output has closed it, so that the rest is not needed.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The problem that a failed write stands for.
    pub fn failed(&self, error: io::Error) -> Problem {
        if self.closed {
            Problem::output_closed()
        } else {
            Problem::system("writing standard output", error)
        }
    }

    fn noted<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.closed |= error.kind() == io::ErrorKind::BrokenPipe;
        }
        result
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let result = self.out.write(buf);
        self.noted(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.out.flush();
        self.noted(result)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // `finish` reports errors. After a failure the rest is written as far as possible.
        let _ = self.out.flush();
    }
}
