//! What time it is, for caches whose entries expire.

use crate::prim::clock;
use crate::prim::sync::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// A source of time, for [`Builder::clock`](crate::Builder::clock).
///
/// # The system's clock
///
/// Without a clock of its own a cache uses the monotonic clock of the operating system, read at most about a millisecond
/// ago. Setting the wall clock does not change it. While a machine is suspended, it stands still on Linux and goes on on
/// Windows and macOS, as [`Instant`](std::time::Instant) does: a laptop that slept for an hour may find an entry with ten
/// minutes to live still alive. Who must not have that builds a clock on one that counts suspended time (`CLOCK_BOOTTIME`).
///
/// On `wasm32-unknown-unknown` there is none. There a cache with expiration settings is not built without a clock of its own
/// ([`BuildError::NoClock`](crate::BuildError::NoClock)), an insertion with a time to live of its own panics, and
/// [`Stats::load_time`](crate::Stats::load_time) stays zero.
///
/// # Clocks that jump
///
/// A jump ahead ends all lives that it skips. Going back is not allowed, but breaks nothing: entries live longer by as much.
pub trait Clock: Send + Sync {
    /// The time since a moment that never changes. Called by any thread, often more than once per operation, under no lock.
    fn now(&self) -> Duration;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }
}

/// A clock that stands still until it is told to go on: for tests. A clone is a handle to the same clock.
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
    /// A clock that shows zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the clock forward. It stops at 2^64 nanoseconds, 584 years.
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        let mut seen = self.0.load(Ordering::Relaxed);
        // Release pairs with the Acquire in `now`: who sees the new time sees what was done before it.
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

/// In nanoseconds, up to 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Where a cache gets its time from.
#[derive(Clone)]
pub(crate) enum TimeSource {
    System,
    Custom(Arc<dyn Clock>),
}

impl TimeSource {
    /// Whether it tells the time: the system's does not on every platform.
    pub(crate) fn is_available(&self) -> bool {
        clock::EXISTS || matches!(self, Self::Custom(_))
    }

    /// Returns the time in nanoseconds since some moment; never 0, and before the end of time.
    // Always inlined: a lookup of a cache with a time to live reads the system's clock in a few instructions.
    #[inline(always)]
    pub(crate) fn now(&self) -> u64 {
        match self {
            Self::System => clock::nanos(),
            Self::Custom(clock) => read(&**clock),
        }
    }
}

/// Reads a user's clock, as [`TimeSource::now`] says. Kept out of line, so that the system's clock is inlined alone.
#[inline(never)]
fn read(clock: &dyn Clock) -> u64 {
    nanos(clock.now()).saturating_add(1).min(u64::MAX - 1)
}
