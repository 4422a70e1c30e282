//! The speed of the disk alone, as a reference for every durable write.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the reference is measured, and how often at most.
const MEASURE_FOR: Duration = Duration::from_millis(700);
const MAX_ROUNDS: usize = 5_000;

/// The median time of overwriting 4 KiB and flushing the data, by one thread, in a file in `dir`
/// that is deleted afterwards.
pub fn raw_flush_p50(dir: &Path) -> io::Result<Duration> {
    let path = dir.join(format!(".cloakroom-raw-flush-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let result = measure(file);
    std::fs::remove_file(&path)?;
    result
}

fn measure(mut file: File) -> io::Result<Duration> {
    let block = [0x5A_u8; 4096];
    file.write_all(&block)?;
    file.sync_all()?;
    let started = Instant::now();
    let mut times = Vec::new();
    while times.len() < MAX_ROUNDS && started.elapsed() < MEASURE_FOR {
        let round = Instant::now();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(round.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}
