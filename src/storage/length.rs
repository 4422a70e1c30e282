//! The length of an open file.

use std::fs::File;
use std::io;

/// Asks for the length and for nothing else. Who asks for the times of a file as well has Linux
/// give the next write a time of its own (["multigrain
/// timestamps"](https://docs.kernel.org/filesystems/multigrain-ts.html), since 6.13), and every
/// durable write then writes the inode, too.
#[cfg(target_os = "linux")]
pub(super) fn of(file: &File) -> io::Result<u64> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    match statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::SIZE) {
        Ok(found) if found.stx_mask & StatxFlags::SIZE.bits() != 0 => Ok(found.stx_size),
        // The standard library has other ways.
        _ => Ok(file.metadata()?.len()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn of(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_that_of_now() {
        let file = tempfile::tempfile().unwrap();
        for len in [0, 1, 4_096, 1 << 33, 7] {
            file.set_len(len).unwrap();
            assert_eq!(of(&file).unwrap(), len);
        }
    }
}
