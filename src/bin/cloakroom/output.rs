//! Standard output: text for people, or one JSON object per line for programs.

use crate::problem::Problem;
use serde::Serialize;
use std::io::{self, BufWriter, Stdout, Write};
use std::path::Path;

/// Where results go.
pub struct Output {
    json: bool,
    out: BufWriter<Stdout>,
    /// Whether whoever read the output has gone.
    closed: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json, out: BufWriter::with_capacity(1 << 16, io::stdout()), closed: false }
    }

    /// Whether programs read it.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// One JSON object on a line of its own.
    pub fn object(&mut self, object: &impl Serialize) -> Result<(), Problem> {
        let written = serde_json::to_writer(&mut *self, object)
            .map_err(io::Error::from)
            .and_then(|()| self.write_all(b"\n"));
        written.map_err(|error| self.failed(error))
    }

    /// Lines of text.
    pub fn lines(
        &mut self,
        lines: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), Problem> {
        for line in lines {
            self.line(line.as_ref())?;
        }
        Ok(())
    }

    /// A line of text.
    pub fn line(&mut self, line: &str) -> Result<(), Problem> {
        self.text(&format!("{line}\n"))
    }

    /// Text as it is.
    pub fn text(&mut self, text: &str) -> Result<(), Problem> {
        self.write_all(text.as_bytes()).map_err(|error| self.failed(error))
    }

    /// Hands over what is buffered.
    pub fn finish(&mut self) -> Result<(), Problem> {
        self.flush().map_err(|error| self.failed(error))
    }

    /// Whether whoever read the output has gone, so that nobody wants the rest.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What a failed write means.
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
        // Whoever cares has called `finish`; what is left after a failure is handed over as far as
        // it goes.
        let _ = self.out.flush();
    }
}

/// A path as text, in which what is no Unicode is replaced.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A path as a word of a command line that can be copied into a shell.
pub fn quoted(path: &Path) -> String {
    let text = shown(path);
    let plain = |c: char| c.is_alphanumeric() || "_./,:=@%+-".contains(c);
    let text = if text.starts_with('-') { format!("./{text}") } else { text };
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A place within the file, without the name of the file.
pub fn within<'a>(location: &'a str, file: &Path) -> &'a str {
    location.strip_prefix(&shown(file)).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(location)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_when_a_shell_would_take_it_apart() {
        for (path, word) in [
            ("edge.cloak", "edge.cloak"),
            ("/var/lib/a-b/edge_1.cloak", "/var/lib/a-b/edge_1.cloak"),
            ("über.cloak", "über.cloak"),
            ("my file.cloak", "'my file.cloak'"),
            ("it's.cloak", r"'it'\''s.cloak'"),
            ("$HOME.cloak", "'$HOME.cloak'"),
            ("-x.cloak", "./-x.cloak"),
            ("-x y.cloak", "'./-x y.cloak'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
