//! The file of a benchmark.

use crate::problem::{Kind, Problem};
use std::path::{Path, PathBuf};

/// A new file, deleted afterwards unless the caller named it.
pub struct Target {
    path: PathBuf,
    keep: bool,
}

impl Target {
    /// `file`, or a temporary one in the current directory.
    pub fn new(file: Option<&Path>) -> Result<Self, Problem> {
        let (path, keep) = match file {
            Some(path) => (path.to_path_buf(), true),
            None => (PathBuf::from(format!("cloakroom-bench-{}.cloak", std::process::id())), false),
        };
        if path.exists() {
            let exists =
                format!("{}: already exists; the benchmark needs a new file", path.display());
            return Err(Problem::new(Kind::Exists, exists));
        }
        Ok(Self { path, keep })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the file.
    pub fn directory(&self) -> &Path {
        self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
