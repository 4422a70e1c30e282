//! Reads and writes at an offset, on each operating system.
//!
//! On Unix they use no file cursor. On Windows the system moves a cursor, which nothing here uses.

#[cfg(unix)]
pub(super) use unix::{read_exact, write_all, write_all_durable};
#[cfg(windows)]
pub(super) use windows::{read_exact, write_all, write_all_durable};

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    pub(in crate::storage) fn read_exact(
        file: &File,
        offset: u64,
        buf: &mut [u8],
    ) -> io::Result<()> {
        file.read_exact_at(buf, offset)
    }

    pub(in crate::storage) fn write_all(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        file.write_all_at(data, offset)
    }

    /// Writes these bytes durably with one system call. `Unsupported` or `InvalidInput` when the
    /// system or the filesystem has no such call.
    #[cfg(target_os = "linux")]
    pub(in crate::storage) fn write_all_durable(
        file: &File,
        mut offset: u64,
        mut data: &[u8],
    ) -> io::Result<()> {
        use rustix::io::{ReadWriteFlags, pwritev2, retry_on_intr};
        while !data.is_empty() {
            let written = retry_on_intr(|| {
                pwritev2(file, &[io::IoSlice::new(data)], offset, ReadWriteFlags::DSYNC)
            })?;
            data = data.get(written..).unwrap_or_default();
            offset += written as u64;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    pub(in crate::storage) fn write_all_durable(
        _file: &File,
        _offset: u64,
        _data: &[u8],
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(windows)]
mod windows {
    use std::fs::File;
    use std::io;
    use std::os::windows::fs::FileExt;

    pub(in crate::storage) fn read_exact(
        file: &File,
        mut offset: u64,
        mut buf: &mut [u8],
    ) -> io::Result<()> {
        while !buf.is_empty() {
            let read = file.seek_read(buf, offset)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf = buf.get_mut(read..).unwrap_or_default();
            offset += read as u64;
        }
        Ok(())
    }

    pub(in crate::storage) fn write_all(
        file: &File,
        mut offset: u64,
        mut data: &[u8],
    ) -> io::Result<()> {
        while !data.is_empty() {
            let written = file.seek_write(data, offset)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            data = data.get(written..).unwrap_or_default();
            offset += written as u64;
        }
        Ok(())
    }

    pub(in crate::storage) fn write_all_durable(
        _file: &File,
        _offset: u64,
        _data: &[u8],
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
