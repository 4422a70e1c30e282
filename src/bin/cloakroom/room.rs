//! Opening the file of a command.

use crate::problem::Problem;
use cloakroom::{Builder, Cloakroom, Error};
use std::path::Path;

/// Opens the file for reading only.
pub fn read_only(path: &Path) -> Result<Cloakroom, Problem> {
    Cloakroom::open_read_only(path).map_err(|error| Problem::of(&error, path))
}

/// Opens a file that exists for writing.
pub fn writable(path: &Path) -> Result<Cloakroom, Problem> {
    writable_as(Cloakroom::builder(), path)
}

/// Opens a file that exists for writing, with options.
pub fn writable_as(options: Builder, path: &Path) -> Result<Cloakroom, Problem> {
    // Opening for writing would create it.
    if !path.exists() {
        return Err(Problem::missing(path));
    }
    // Opening an empty file for writing would make a room of it.
    if path.metadata().is_ok_and(|found| found.is_file() && found.len() == 0) {
        let (path, reason) = (path.to_path_buf(), "it is empty".to_owned());
        return Err(Problem::of(&Error::NotCloakroom { path: path.clone(), reason }, &path));
    }
    // A command does only its own work, and no sweeping in the background.
    options.sweep_interval(None).open(path).map_err(|error| Problem::of(&error, path))
}

/// Refuses a target that exists. The creation decides again, when it gives the file its name.
pub fn vacant(path: &Path) -> Result<(), Problem> {
    match path.symlink_metadata() {
        Ok(_) => Err(Problem::exists(path)),
        Err(_) => Ok(()),
    }
}
