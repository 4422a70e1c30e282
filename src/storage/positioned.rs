//! Reads and writes at an offset, on each operating system.
//!
//! On Unix they use no file cursor. On Windows the system moves a cursor, which nothing here uses.
//! A call that a signal interrupted, that wrote a part, or that the system asks to be made again is
//! made again.

use super::system_call::{SystemCall, admit};
use std::fs::File;
use std::io;
use std::time::Duration;

/// How often, and how long apart, a call is made again that the system refuses for the moment:
/// it has no memory left, or asks for another try.
const BUSY_ATTEMPTS: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// Fills `buf` from `offset` on.
pub(super) fn read_exact(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    let (mut at, mut rest) = (offset, buf);
    while !rest.is_empty() {
        let read = again_while_busy(|| {
            let len = admit(SystemCall::Pread, rest.len())?;
            read_at(file, rest.get_mut(..len).unwrap_or_default(), at)
        })?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rest = rest.get_mut(read..).unwrap_or_default();
        at += read as u64;
    }
    Ok(())
}

/// Writes all of `data` at `offset`.
pub(super) fn write_all(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    write_in_parts(SystemCall::Pwrite, offset, data, |at, part| write_at(file, part, at))
}

/// Writes all of `data` at `offset` durably, with one system call if the system takes all of it.
/// [`is_refused`] says whether the system or the filesystem has no such call.
pub(super) fn write_all_durable(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    write_in_parts(SystemCall::Pwritev2, offset, data, |at, part| write_at_durable(file, part, at))
}

fn write_in_parts(
    call: SystemCall,
    mut offset: u64,
    mut data: &[u8],
    write: impl Fn(u64, &[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    while !data.is_empty() {
        let written = again_while_busy(|| {
            let len = admit(call, data.len())?;
            write(offset, data.get(..len).unwrap_or_default())
        })?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        data = data.get(written..).unwrap_or_default();
        offset += written as u64;
    }
    Ok(())
}

/// Makes a call again for as long as a signal interrupts it, and a few times when the system asks
/// for that. Nothing has happened then.
fn again_while_busy(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let mut attempts = 0;
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error)
                if attempts < BUSY_ATTEMPTS
                    && matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory
                    ) =>
            {
                attempts += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Whether the system, the filesystem or a filter of system calls has no such call. `InvalidInput`
/// also stands for flags that are unknown, and `PermissionDenied` for the answer of filters that do
/// not know a call.
pub(super) fn is_refused(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied
    )
}

#[cfg(unix)]
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}

#[cfg(unix)]
fn write_at(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, data, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}

#[cfg(windows)]
fn write_at(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, data, offset)
}

/// Writes these bytes durably with one system call.
#[cfg(target_os = "linux")]
fn write_at_durable(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    use rustix::io::{ReadWriteFlags, pwritev2};
    Ok(pwritev2(file, &[io::IoSlice::new(data)], offset, ReadWriteFlags::DSYNC)?)
}

/// This system has no such call.
#[cfg(not(target_os = "linux"))]
fn write_at_durable(_file: &File, _data: &[u8], _offset: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}
