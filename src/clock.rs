//! Clocks for caches whose entries expire: [`Clock`], [`ManualClock`], and the cache's own
//! [`TimeSource`].

use crate::prim::clock;
pub(crate) use crate::prim::clock::COARSE_LAG;
use crate::prim::sync::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// A source of time, for [`Builder::clock`](crate::Builder::clock).
///
/// # The system's clock
///
/// Without a clock of its own, a cache uses the monotonic clock of the operating system, read at
/// most about a millisecond ago. Setting the wall clock does not change it. While a machine is
/// suspended, the clock stops on Linux and continues on Windows and macOS, as
/// [`Instant`](std::time::Instant) does. So on a laptop that slept for an hour, an entry with ten
/// minutes left may still be alive. To prevent that, implement a clock that counts suspended time
/// (`CLOCK_BOOTTIME`).
///
/// `wasm32-unknown-unknown` has no clock. There, building a cache with expiration settings and
/// without a clock of its own fails ([`BuildError::NoClock`](crate::BuildError::NoClock)), an
/// insertion with a TTL of its own panics, and [`Stats::load_time`](crate::Stats::load_time) stays
/// zero.
///
/// # Clocks that jump
///
/// A jump ahead expires all entries whose deadlines it skips. Going back is not allowed, but breaks
/// nothing: entries live longer by the same time.
pub trait Clock: Send + Sync {
    /// Returns the time since a fixed instant.
    ///
    /// # Concurrency
    ///
    /// Called by any thread, often more than once per operation, while no lock is held.
    fn now(&self) -> Duration;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }
}

/// A clock that advances only by [`advance`](Self::advance): for tests. A clone is a handle to the
/// same clock.
///
/// ```
/// use hotset::{Cache, ManualClock};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), hotset::BuildError> {
/// let clock = ManualClock::new();
/// let cache: Cache<&str, u32> = Cache::builder()
///     .max_entries(100)
///     .time_to_live(Duration::from_secs(60))
///     .clock(clock.clone())
///     .build()?;
/// cache.insert("a", 1);
/// clock.advance(Duration::from_secs(59));
/// assert_eq!(cache.get("a"), Some(1));
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(cache.get("a"), None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Returns a clock that shows zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Advances the clock. It stops at 2^64 nanoseconds, 584 years.
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        let mut seen = self.0.load(Ordering::Relaxed);
        // Release pairs with the Acquire in `now`: a thread that sees the new time sees what was
        // done before.
        while let Err(now) =
            self.0
                .compare_exchange_weak(seen, seen.saturating_add(by), Ordering::Release, Ordering::Relaxed)
        {
            seen = now;
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Acquire))
    }
}

/// Returns the duration in nanoseconds, at most 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock of a cache: the system's, or the user's.
#[derive(Clone)]
pub(crate) enum TimeSource {
    System,
    Custom(Arc<dyn Clock>),
}

impl TimeSource {
    /// Returns whether there is a clock. Not every platform has one.
    pub(crate) fn is_available(&self) -> bool {
        clock::EXISTS || matches!(self, Self::Custom(_))
    }

    /// Returns the time in nanoseconds since a fixed instant; never 0, and less than `u64::MAX`.
    // Always inlined: a lookup in a cache with a TTL reads the system's clock in a few
    // instructions.
    #[inline(always)]
    pub(crate) fn now(&self) -> u64 {
        match self {
            Self::System => clock::nanos(),
            Self::Custom(clock) => read(&**clock),
        }
    }
}

impl TimeSource {
    /// Returns a time that is not later than [`now`](Self::now), and less than [`COARSE_LAG`]
    /// earlier; `None` where there is none that is cheaper.
    #[inline(always)]
    pub(crate) fn coarse_now(&self) -> Option<u64> {
        match self {
            Self::System => clock::coarse_nanos(),
            Self::Custom(_) => None,
        }
    }
}

/// Reads a user's clock for [`TimeSource::now`]. Out of line, so that only the system's clock is
/// inlined.
#[inline(never)]
fn read(clock: &dyn Clock) -> u64 {
    nanos(clock.now()).saturating_add(1).min(u64::MAX - 1)
}
