//! Opening the file of a command.

use crate::problem::Problem;
use cloakroom::Cloakroom;
use std::path::Path;

/// Opens the file for reading only.
pub fn read_only(path: &Path) -> Result<Cloakroom, Problem> {
    Cloakroom::open_read_only(path).map_err(|error| Problem::of(&error, path))
}

/// Opens a file that exists for writing.
pub fn writable(path: &Path) -> Result<Cloakroom, Problem> {
    // Opening for writing would create it.
    if !path.exists() {
        return Err(Problem::missing(path));
    }
    // A command does only its own work, and no sweeping in the background.
    Cloakroom::builder().sweep_interval(None).open(path).map_err(|error| Problem::of(&error, path))
}

/// Refuses a target that exists. The creation decides again, when it gives the file its name.
pub fn vacant(path: &Path) -> Result<(), Problem> {
    match path.symlink_metadata() {
        Ok(_) => Err(Problem::exists(path)),
        Err(_) => Ok(()),
    }
}
