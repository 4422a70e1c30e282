//! What an operation costs besides time: processor time and bytes to the device. Both hold on a
//! machine that others use, too, where operations a second do not.

use crate::disk::Device;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// The cost of one operation.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cost {
    /// Microseconds of processor time, of the user and of the system, of all threads of this
    /// process and of the server, if there is one.
    pub processor_us: f64,
    /// Bytes that the block device was given to write, where the system tells.
    pub bytes: Option<f64>,
}

/// Reads the counters that a cost is the difference of.
pub struct Meter {
    device: Device,
    server: Option<u32>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    processor: Duration,
    bytes: Option<u64>,
}

impl Meter {
    /// `server` is the number of a process that works for this one.
    pub fn new(dir: &Path, server: Option<u32>) -> Self {
        Self { device: Device::of(dir), server }
    }

    pub fn read(&self) -> Reading {
        // The same sum of all threads as `getrusage` has, in nanoseconds.
        let own = clock_gettime(ClockId::ProcessCPUTime);
        let own =
            Duration::new(own.tv_sec.cast_unsigned(), u32::try_from(own.tv_nsec).unwrap_or(0));
        let server = self.server.and_then(processor_time_of).unwrap_or_default();
        Reading { processor: own + server, bytes: self.device.bytes_written() }
    }
}

impl Reading {
    /// What each of `ops` operations has cost since then.
    pub fn since(self, before: Reading, ops: u32) -> Cost {
        let processor = self.processor.saturating_sub(before.processor);
        let bytes = self.bytes.zip(before.bytes).map(|(after, before)| after - before);
        Cost {
            processor_us: processor.as_secs_f64() * 1e6 / f64::from(ops),
            bytes: bytes.map(|bytes| bytes as f64 / f64::from(ops)),
        }
    }
}

/// The processor time of another process, in steps of a hundredth of a second.
fn processor_time_of(process: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may contain blanks. What follows it begins with the third column;
    // the time of the user is the fourteenth, that of the system the next.
    let mut columns = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = columns.next()?.parse().ok()?;
    let system: u64 = columns.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second();
    Some(Duration::from_millis((user + system) * 1000 / ticks))
}
