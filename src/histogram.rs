//! Histograms: counts of values in fixed buckets on a logarithmic scale.
//!
//! A value below 4 has its own bucket. Above, each power of two is divided into four buckets of
//! equal width, so that the width of a bucket is at most a quarter of its values, whatever the
//! unit. The bounds never change, so histograms of different times and files can be added and
//! compared.

use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each power of two has this many buckets.
const STEPS: usize = 4;
const STEP_BITS: u32 = STEPS.ilog2();

/// Buckets for every `u64`.
const BUCKETS: usize = STEPS * (64 - STEP_BITS as usize + 1);

/// The bucket of a value.
fn bucket_of(value: u64) -> usize {
    let Some(exponent) = value.checked_ilog2().filter(|exponent| *exponent >= STEP_BITS) else {
        return usize::try_from(value).unwrap_or_default();
    };
    let shift = exponent - STEP_BITS;
    // The bits after the leading one: less than STEPS.
    let step = usize::try_from((value >> shift) & (STEPS as u64 - 1)).unwrap_or_default();
    (shift as usize + 1) * STEPS + step
}

/// The greatest value of a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let Some(octave) = (bucket / STEPS).checked_sub(1) else { return bucket as u64 };
    let first = ((STEPS + bucket % STEPS) as u64) << octave;
    first + ((1 << octave) - 1)
}

/// Records values from many threads: one addition to a bucket and one to the sum, without a lock.
#[derive(Debug)]
pub(crate) struct HistogramRecorder {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for HistogramRecorder {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

impl HistogramRecorder {
    pub(crate) fn record(&self, value: u64) {
        if let Some(count) = self.counts.get(bucket_of(value)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
        // A new maximum is rare, so this is nearly always a load only.
        if value > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(value, Ordering::Relaxed);
        }
    }

    /// Records a duration in nanoseconds.
    pub(crate) fn record_time(&self, time: Duration) {
        self.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The sum of the values that were recorded.
    pub(crate) fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    /// What was recorded so far. A value that is recorded concurrently may be in one of the figures
    /// and not yet in another.
    pub(crate) fn snapshot(&self) -> Histogram {
        Histogram {
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum(),
            max: self.max.load(Ordering::Relaxed),
        }
    }
}

/// The distribution of recorded values. The field or method that returns it names their unit.
///
/// Values are counted in fixed buckets on a logarithmic scale, four for each power of two. So a
/// quantile is at most a quarter too great, and never too small. The count, the sum and the
/// greatest value are exact.
///
/// ```
/// # use cloakroom::Cloakroom;
/// # use cloakroom::handoff::HandoffStateStore;
/// let room = Cloakroom::builder().open_in_memory()?;
/// room.handoff().set("order-7", &Default::default(), 600).wait()?;
/// let stats = room.engine_stats()?;
/// assert_eq!(stats.group_frames.count(), 1);
/// println!("p99 of a flush: {} ns", stats.flush_ns.quantile(0.99));
/// # Ok::<(), cloakroom::Error>(())
/// ```
///
/// As JSON it is an object of `count`, `sum`, `mean`, `p50`, `p90`, `p99`, `p999`, `max`, and
/// `buckets`: a list of `[greatest value of the bucket, count]` for each bucket that is not empty,
/// in order.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64]>,
    sum: u64,
    max: u64,
}

/// A bucket of a [`Histogram`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistogramBucket {
    /// The greatest value of this bucket. The least is one above that of the previous bucket.
    pub upper_bound: u64,
    /// The number of values in it.
    pub count: u64,
}

impl Histogram {
    /// The number of recorded values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The greatest value, or zero when there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The mean of all values, or zero when there is none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum as f64 / count as f64,
        }
    }

    /// The value that a fraction `q` of all values does not exceed: 0.5 is the median, 0.99 the
    /// 99th percentile. It is the upper bound of a bucket, or the greatest value if that is less;
    /// zero when there is no value. `q` is clamped to the range 0 to 1.
    #[must_use]
    pub fn quantile(&self, q: f64) -> u64 {
        let wanted = q.clamp(0.0, 1.0) * self.count() as f64;
        let mut seen = 0;
        for bucket in self.buckets() {
            seen += bucket.count;
            if seen as f64 >= wanted {
                return bucket.upper_bound.min(self.max);
            }
        }
        self.max
    }

    /// The buckets that are not empty, from the least values to the greatest.
    pub fn buckets(&self) -> impl Iterator<Item = HistogramBucket> + '_ {
        let counts = self.counts.iter().enumerate();
        counts.filter(|(_, count)| **count > 0).map(|(bucket, count)| HistogramBucket {
            upper_bound: upper_bound(bucket),
            count: *count,
        })
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let buckets: Vec<_> =
            self.buckets().map(|bucket| (bucket.upper_bound, bucket.count)).collect();
        let mut fields = serializer.serialize_struct("Histogram", 9)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("sum", &self.sum)?;
        fields.serialize_field("mean", &self.mean())?;
        fields.serialize_field("p50", &self.quantile(0.5))?;
        fields.serialize_field("p90", &self.quantile(0.9))?;
        fields.serialize_field("p99", &self.quantile(0.99))?;
        fields.serialize_field("p999", &self.quantile(0.999))?;
        fields.serialize_field("max", &self.max)?;
        fields.serialize_field("buckets", &buckets)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let recorder = HistogramRecorder::default();
        values.into_iter().for_each(|value| recorder.record(value));
        recorder.snapshot()
    }

    #[test]
    fn the_buckets_are_frozen_and_cover_every_value() {
        let bounds: Vec<_> = (0..12).map(upper_bound).collect();
        assert_eq!(bounds, [0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 15]);
        assert_eq!((bucket_of(u64::MAX), upper_bound(BUCKETS - 1)), (BUCKETS - 1, u64::MAX));
        for bucket in 0..BUCKETS {
            let last = upper_bound(bucket);
            assert_eq!(bucket_of(last), bucket);
            assert!(last == u64::MAX || bucket_of(last + 1) == bucket + 1);
        }
    }

    #[test]
    fn an_empty_histogram_returns_zeros() {
        let empty = of([]);
        assert_eq!((empty.count(), empty.sum(), empty.max(), empty.quantile(0.5)), (0, 0, 0, 0));
        assert_eq!(empty.mean().to_bits(), 0.0_f64.to_bits());
        assert_eq!(empty.buckets().count(), 0);
    }

    #[test]
    fn count_sum_mean_and_max_are_exact() {
        let seven = of([1, 2, 3, 1_000]);
        assert_eq!((seven.count(), seven.sum(), seven.max()), (4, 1_006, 1_000));
        assert_eq!(seven.mean().to_bits(), 251.5_f64.to_bits());
        assert_eq!((seven.quantile(0.0), seven.quantile(0.5), seven.quantile(9.0)), (1, 2, 1_000));
    }

    #[test]
    fn the_json_is_frozen() {
        let json = serde_json::to_string(&of([1, 1, 2, 100])).unwrap();
        let expected = "{\"count\":4,\"sum\":104,\"mean\":26.0,\"p50\":1,\"p90\":100,\"p99\":100,\"p999\":100,\
                        \"max\":100,\"buckets\":[[1,2],[2,1],[111,1]]}";
        assert_eq!(json, expected);
    }

    #[test]
    fn values_from_many_threads_are_all_counted() {
        let recorder = HistogramRecorder::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let recorder = &recorder;
                scope.spawn(move || {
                    (0..1_000).for_each(|value| recorder.record(value * 4 + thread))
                });
            }
        });
        let all = recorder.snapshot();
        assert_eq!((all.count(), all.sum(), all.max()), (4_000, 3_999 * 4_000 / 2, 3_999));
    }

    proptest! {
        #[test]
        fn a_quantile_is_never_too_small_and_at_most_a_quarter_too_great(
            mut values in prop::collection::vec(any::<u64>().prop_map(|bits| bits >> (bits % 64)), 1..200),
            q in 0.0..=1.0,
        ) {
            values.iter_mut().for_each(|value| *value /= 256);
            let histogram = of(values.iter().copied());
            values.sort_unstable();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "less than 200")]
            let rank = (f64::ceil(q * values.len() as f64) as usize).max(1);
            let exact = values[rank - 1];
            let found = histogram.quantile(q);
            prop_assert!(found >= exact && found <= exact + exact / 4, "{found} for {exact}");
        }
    }
}
