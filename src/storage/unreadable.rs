//! Blocks that the disk cannot read.

use crate::limits::BLOCK_SIZE;
use std::io;

/// The system could not read a block, as of a bad sector. The error of the read that met it.
#[derive(Debug, thiserror::Error)]
#[error("the block at file offset {offset} cannot be read: {source}")]
pub(crate) struct UnreadableBlock {
    /// Where the block begins in the file.
    pub(crate) offset: u64,
    source: io::Error,
}

impl UnreadableBlock {
    pub(super) fn error(offset: u64, source: io::Error) -> io::Error {
        io::Error::new(source.kind(), UnreadableBlock { offset, source })
    }

    /// The block that an error of a storage is about, if it is about one.
    pub(crate) fn of(error: &io::Error) -> Option<&UnreadableBlock> {
        error.get_ref()?.downcast_ref()
    }
}

/// Fills `buf` from `offset` on through `read`. When that fails, the error names the first block
/// that cannot be read; if every block can be read on its own, there is no error.
pub(super) fn read_or_name_the_block(
    offset: u64,
    buf: &mut [u8],
    read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    match read(offset, buf) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {}
        outcome => return outcome,
    }
    let (mut at, mut rest) = (offset, buf);
    while !rest.is_empty() {
        let to_boundary = BLOCK_SIZE - usize::try_from(at % BLOCK_SIZE as u64).unwrap_or_default();
        let (block, behind) = rest.split_at_mut(rest.len().min(to_boundary));
        match read(at, block) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(error),
            Err(error) => return Err(UnreadableBlock::error(at - at % BLOCK_SIZE as u64, error)),
        }
        at += block.len() as u64;
        rest = behind;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_first_block_that_cannot_be_read_is_named() {
        for (offset, len, bad) in [(0, 20_000, 8_192), (100, 9_000, 4_096), (5_000, 10, 4_096)] {
            let read = |at: u64, buf: &mut [u8]| {
                if at < bad + 4_096 && bad < at + buf.len() as u64 {
                    return Err(io::Error::from_raw_os_error(5));
                }
                buf.fill(7);
                Ok(())
            };
            let mut buf = vec![0; len];
            let error = read_or_name_the_block(offset, &mut buf, read).unwrap_err();
            let block = UnreadableBlock::of(&error).unwrap();
            assert_eq!(block.offset, bad, "{error}");
            assert!(error.to_string().contains(&format!("file offset {bad}")), "{error}");
        }
    }

    #[test]
    fn a_read_that_fails_once_and_then_works_is_no_error() {
        let failed = Cell::new(false);
        let read = |_: u64, buf: &mut [u8]| {
            buf.fill(7);
            if failed.replace(true) { Ok(()) } else { Err(io::Error::from_raw_os_error(5)) }
        };
        let mut buf = [0; 9_000];
        read_or_name_the_block(10, &mut buf, read).unwrap();
        assert!(buf.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn the_end_of_the_file_is_no_block_that_cannot_be_read() {
        let read = |_: u64, _: &mut [u8]| Err(io::ErrorKind::UnexpectedEof.into());
        let error = read_or_name_the_block(0, &mut [0; 10], read).unwrap_err();
        assert!(UnreadableBlock::of(&error).is_none());
    }
}
