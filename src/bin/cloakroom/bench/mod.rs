//! Benchmarks that end in a check.

pub mod backlog;
pub mod backup;
pub mod bulk;
pub mod churn;
pub mod consume;
mod disk;
mod report;
mod target;
pub mod year;

use std::time::Duration;

/// The start of the manual clocks of benchmarks, in milliseconds since the Unix epoch: 1 January
/// 2027.
pub const BEGIN_MS: u64 = 1_798_761_600_000;

/// The resident memory of this process in bytes, where the system reports it.
pub fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// The quantile of `permille` thousandths. Sorts the values.
pub fn quantile(latencies: &mut [Duration], permille: usize) -> Duration {
    latencies.sort_unstable();
    let index = (latencies.len() * permille / 1_000).min(latencies.len().saturating_sub(1));
    latencies.get(index).copied().unwrap_or_default()
}

/// Milliseconds, with their fraction.
pub fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// A distinct key that looks like a keyed hash.
pub fn key(random: &mut fastrand::Rng, number: u64) -> String {
    format!("{:016x}{:016x}{number:016x}", random.u64(..), random.u64(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let mut values: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut values, 500), Duration::from_millis(51));
        assert_eq!(quantile(&mut values, 1_000), Duration::from_millis(100));
        assert_eq!(quantile(&mut [], 500), Duration::ZERO);
        assert!((ms(Duration::from_micros(1_500)) - 1.5).abs() < 1e-9);
    }
}
