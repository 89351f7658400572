//! A monotonic clock for durations whose reading costs next to nothing.
//!
//! A reading is the processor's time stamp counter where the kernel itself keeps time by it (Linux on x86-64): then it runs
//! evenly, and alike on all cores. Elsewhere a reading is an `Instant`. Ticks become time only when somebody asks, by what
//! has passed on both clocks since the process's first reading, so nothing is calibrated up front.

use super::sync::Padded;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The first reading of the process.
struct Origin {
    ticks: u64,
    instant: Instant,
    /// Whether ticks are those of the processor's counter; else they are nanoseconds.
    counter: bool,
}

static ORIGIN: OnceLock<Origin> = OnceLock::new();

fn origin() -> &'static Origin {
    ORIGIN.get_or_init(|| {
        let counter = counter_is_trusted();
        let (ticks, instant) = if counter { both() } else { (0, Instant::now()) };
        Origin {
            ticks,
            instant,
            counter,
        }
    })
}

/// Now, in ticks. Only differences mean something, and those of two threads may be off by the counters' skew: subtract with
/// saturation.
#[inline]
pub(crate) fn now() -> u64 {
    let origin = origin();
    if origin.counter {
        counter()
    } else {
        origin.instant.elapsed().as_nanos() as u64
    }
}

/// The last time that somebody read the real clock, and what it said. 0 ticks where the counter is not trusted.
struct Seen {
    ticks: AtomicU64,
    nanos: AtomicU64,
}

static SEEN: Padded<Seen> = Padded(Seen {
    ticks: AtomicU64::new(0),
    nanos: AtomicU64::new(1),
});

/// For so many ticks, what was seen counts as the present: a millisecond at most, as no counter is slower than 1 GHz.
const FRESH: u64 = 1 << 20;

/// Now, in nanoseconds since the process's first reading: about a millisecond late at most, never 0, never going back.
#[inline(always)]
pub(crate) fn nanos() -> u64 {
    // Acquire pairs with the Release in `look`: what was seen is at least as new as its ticks say. If the counters of two
    // processors disagree by more than that, the difference is huge, one way or the other. Nothing is seen before somebody
    // has found out that the counter is trusted.
    let seen = SEEN.0.ticks.load(Ordering::Acquire);
    if seen != 0 && counter().wrapping_sub(seen) < FRESH {
        SEEN.0.nanos.load(Ordering::Relaxed)
    } else {
        look()
    }
}

#[cold]
#[inline(never)]
fn look() -> u64 {
    let origin = origin();
    let ticks = if origin.counter { counter() } else { 0 };
    let now = origin.instant.elapsed().as_nanos() as u64;
    let seen = SEEN.0.nanos.fetch_max(now, Ordering::Relaxed);
    SEEN.0.ticks.store(ticks, Ordering::Release);
    now.max(seen)
}

/// The time that a number of ticks took. As precise as what passed since the process's first reading is long: a pair of
/// readings is off by less than a microsecond.
pub(crate) fn duration(ticks: u64) -> Duration {
    let origin = origin();
    if !origin.counter {
        return Duration::from_nanos(ticks);
    }
    let (now, instant) = both();
    let passed = instant.duration_since(origin.instant).as_nanos();
    // At least 1: nothing may have passed yet, or a suspended machine may have lost the count.
    let counted = u128::from(now.saturating_sub(origin.ticks).max(1));
    Duration::from_nanos((u128::from(ticks) * passed / counted) as u64)
}

/// Both clocks at the same moment: the closest of a few pairs, since the thread may be interrupted within one.
fn both() -> (u64, Instant) {
    let pairs = [(); 3].map(|()| {
        let before = counter();
        let instant = Instant::now();
        let gap = counter().saturating_sub(before);
        (gap, before + gap / 2, instant)
    });
    let (_, ticks, instant) = pairs.into_iter().min_by_key(|(gap, ..)| *gap).expect("there are some");
    (ticks, instant)
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
fn counter_is_trusted() -> bool {
    // The kernel checks what a feature bit cannot tell: that the counters of all cores and sockets agree.
    std::fs::read("/sys/devices/system/clocksource/clocksource0/current_clocksource").is_ok_and(|name| name == b"tsc\n")
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
#[inline(always)]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and the kernel that keeps time by it for `Instant` lets processes
    // read it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
fn counter_is_trusted() -> bool {
    false
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
fn counter() -> u64 {
    unreachable!("no counter is trusted here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_time() {
        let (start, instant) = (now(), Instant::now());
        std::thread::sleep(Duration::from_millis(30));
        let (inner, end) = (instant.elapsed(), now());
        let outer = instant.elapsed() + Duration::from_millis(1);
        let measured = duration(end.saturating_sub(start));
        assert!(
            measured + Duration::from_millis(1) >= inner && measured <= outer + Duration::from_millis(5),
            "{inner:?} <= {measured:?} <= {outer:?}"
        );
        assert_eq!(duration(0), Duration::ZERO);
        assert!((0..1000).map(|_| now()).is_sorted());
    }

    #[test]
    fn nanoseconds_pass() {
        let (start, instant) = (nanos(), Instant::now());
        assert!(start > 0 && (0..1000).map(|_| nanos()).is_sorted());
        std::thread::sleep(Duration::from_millis(20));
        let (passed, real) = (nanos() - start, instant.elapsed().as_nanos() as u64);
        assert!(passed >= 18_000_000 && passed <= real + 2_000_000, "{passed} of {real}");
    }
}
