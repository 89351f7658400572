//! Statistics of a cache, and the causes of removals.

use std::time::Duration;

/// The reason why an entry left the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The entry expired.
    Expired,
    /// The entry was evicted, or never admitted, to keep the cache within its capacity.
    Size,
    /// The entry was removed by `remove`, `remove_if`, `compute` or `clear`.
    Explicit,
    /// Another value was inserted for the key.
    Replaced,
}

/// A histogram of the durations of loads: how many took how long.
///
/// The bounds of the buckets are the same for all caches and in all versions of hotset's APIs: 1,
/// 2.5 and 5 in each power of ten from 10 microseconds to 100 seconds. They include the default
/// buckets of Prometheus' client libraries. A load is counted in the first bucket whose bound is
/// not shorter than the load.
///
/// # Examples
///
/// ```
/// let cache = hotset::Cache::<u64, u64>::new(100);
/// cache.get_or_insert_with(1, || 1);
/// let loads = cache.stats().load_buckets;
/// assert_eq!(loads.total(), 1);
/// for (bound, count) in loads.iter().filter(|(_, count)| *count > 0) {
///     println!("{count} loads took up to {bound:?}");
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadBuckets([u64; LoadBuckets::BOUNDS.len() + 1]);

impl LoadBuckets {
    /// The upper bounds of all buckets but the last, which has none.
    pub const BOUNDS: [Duration; 22] = {
        let mut bounds = [Duration::ZERO; 22];
        let mut n = 0;
        while n < bounds.len() {
            bounds[n] = Duration::from_nanos(BOUNDS[n]);
            n += 1;
        }
        bounds
    };

    /// Returns the number of loads in each bucket, and not in those below it; the last one is for
    /// loads that are longer than all bounds.
    pub fn counts(&self) -> &[u64; 23] {
        &self.0
    }

    /// Returns the upper bound and the count of each bucket. The bound of the last one is
    /// [`Duration::MAX`].
    pub fn iter(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let bounds = Self::BOUNDS.into_iter().chain([Duration::MAX]);
        bounds.zip(self.0.iter().copied())
    }

    /// Returns the number of all loads, failed ones included.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Counts a load.
    #[inline]
    pub(crate) fn count(&mut self, nanos: u64) {
        self.0[bucket(nanos)] += 1;
    }

    /// Adds the counts of another histogram.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }
}

impl Default for LoadBuckets {
    fn default() -> Self {
        Self([0; LoadBuckets::BOUNDS.len() + 1])
    }
}

/// [`LoadBuckets::BOUNDS`] in nanoseconds.
const BOUNDS: [u64; 22] = {
    let mut bounds = [0; 22];
    let (mut n, mut power) = (0, 10_000);
    while n < bounds.len() {
        bounds[n] = match n % 3 {
            0 => power,
            1 => power / 10 * 25,
            _ => power * 5,
        };
        if n % 3 == 2 {
            power *= 10;
        }
        n += 1;
    }
    bounds
};

/// Returns the index of the bucket of a load.
#[inline]
pub(crate) fn bucket(nanos: u64) -> usize {
    // Loads that are short themselves need no search.
    if nanos <= BOUNDS[0] {
        return 0;
    }
    BOUNDS.partition_point(|bound| *bound < nanos)
}

/// The counters of a cache since it was built. They may lag behind calls of other threads that are
/// in progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Number of lookups that found their key.
    pub hits: u64,
    /// Number of lookups that did not find their key.
    pub misses: u64,
    /// Number of entries inserted, replacements included.
    pub insertions: u64,
    /// Number of admitted entries that were evicted.
    pub evictions: u64,
    /// Number of entries that expired.
    pub expirations: u64,
    /// Number of new entries that were not admitted: they lost against a resident entry, or were
    /// heavier than the capacity.
    pub rejections: u64,
    /// Number of loaders that returned a value, or the values of several keys.
    pub loads: u64,
    /// Number of loaders that failed or panicked, and of futures dropped while loading.
    pub load_failures: u64,
    /// Number of calls that waited for another caller's load of the same key.
    pub waits: u64,
    /// Time spent in loaders; of a future, from its first poll until it is ready or dropped.
    pub load_time: Duration,
    /// The durations of the loads that `loads` and `load_failures` count.
    pub load_buckets: LoadBuckets,
    /// Number of hits of loading calls on values past their refresh age
    /// ([`refresh_after`](crate::Builder::refresh_after)): the call that reloads such a value, and
    /// those that get it while it is reloaded.
    pub stale_hits: u64,
    /// Weight of the evicted entries that `evictions` counts: their number in a cache without a
    /// weigher.
    pub evicted_weight: u64,
}

impl Stats {
    /// Returns the share of lookups that were hits, from 0 to 1; 0 if there were none.
    pub fn hit_ratio(&self) -> f64 {
        let lookups = self.hits + self.misses;
        if lookups == 0 {
            0.0
        } else {
            self.hits as f64 / lookups as f64
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn load_bounds_are_ascending_decimals() {
        let bounds = LoadBuckets::BOUNDS.map(|bound| bound.as_secs_f64());
        assert!(bounds.is_sorted_by(|a, b| a < b));
        for default in [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0] {
            assert!(
                bounds.contains(&default),
                "{default} is a default of Prometheus' clients"
            );
        }
        assert_eq!((bounds[0], bounds[21]), (0.000_01, 100.0));
    }

    #[test]
    fn bucket_bound_is_inclusive() {
        for (n, bound) in BOUNDS.into_iter().enumerate() {
            assert_eq!((bucket(bound - 1), bucket(bound), bucket(bound + 1)), (n, n, n + 1));
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BOUNDS.len()));
        let mut loads = LoadBuckets::default();
        loads.count(7_000_000);
        loads.count(u64::MAX);
        let counted: Vec<_> = loads.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(Duration::from_millis(10), 1), (Duration::MAX, 1)]);
        assert_eq!(loads.total(), 2);
    }
}
