//! A pulse: work of the process, once in an interval, done by whichever call finds it due.
//!
//! Engines compare the time of calls that read the clock anyway with [`next`]. The call that claims
//! the pulse ([`claim`]) runs the work afterwards ([`run`]), when it holds no lock and pins no
//! entry. Until the pulse is started, nothing is due.
//!
//! Atomics are std's under loom, too: no protocol of the engine depends on them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The interval in nanoseconds.
const INTERVAL: u64 = 1_000_000_000;
/// The pulse was not started.
const NEVER: u64 = u64::MAX;

/// The time at which the work is due, in nanoseconds of the system's clock.
static NEXT: AtomicU64 = AtomicU64::new(NEVER);
static WORK: OnceLock<fn()> = OnceLock::new();

/// Starts the pulse, or makes the work due immediately.
pub(crate) fn start(work: fn()) {
    _ = WORK.set(work);
    NEXT.store(0, Ordering::Relaxed);
}

/// Returns the time at which the work is due.
#[inline]
pub(crate) fn next() -> u64 {
    NEXT.load(Ordering::Relaxed)
}

/// Returns whether the work is due at `now`, and the caller must [`run`] it. Of the threads that
/// find it due, one gets `true`.
pub(crate) fn claim(now: u64) -> bool {
    let due = next();
    // Relaxed: the work is behind a lock of its own. A clock that was set back (none is known to
    // be) would delay the work, never repeat it.
    now >= due
        && NEXT
            .compare_exchange(due, now.saturating_add(INTERVAL), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
}

/// Does the work.
#[cold]
pub(crate) fn run() {
    if let Some(work) = WORK.get() {
        work();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn due_pulse_is_claimed_by_one_thread() {
        // Claimed for a time so far ahead that no other test's call finds it due.
        let far = 1 << 62;
        start(|| ());
        let claimed = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| claim(far))).collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().ok())
                .filter(|claimed| *claimed)
                .count()
        });
        assert_eq!((claimed, claim(far)), (1, false));
        assert!(claim(far + INTERVAL));
    }
}
