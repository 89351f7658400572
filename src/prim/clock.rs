//! A monotonic clock for durations. A reading costs next to nothing.
//!
//! A reading is the processor's time stamp counter if the kernel itself keeps time by it (Linux on
//! x86-64): then the counter runs evenly, and is the same on all cores. Elsewhere a reading is an
//! `Instant`. Ticks are converted to time only on request, from what has passed on both clocks
//! since the process's first reading. So nothing is calibrated in advance.
//!
//! [`now`] and [`duration`] measure, [`to_nanos`] converts often. [`nanos`] is the clock of
//! expiration, and [`coarse_nanos`] a bound of it that costs a hit next to nothing.

#[cfg(not(loom))]
use super::sync::Padded;
use super::sync::{AtomicU64, Ordering};
use std::ptr;
use std::time::{Duration, Instant};

/// Whether the platform has a clock. Where it has none, `Instant::now` traps.
pub(crate) const EXISTS: bool = !cfg!(all(target_family = "wasm", target_os = "unknown"));

/// The first reading of the process.
struct Origin {
    ticks: u64,
    instant: Instant,
    /// Whether ticks are those of the processor's counter. Otherwise they are nanoseconds.
    counter: bool,
    /// The kernel's monotonic clock at `instant` or a little later, in nanoseconds. `u64::MAX` if
    /// `coarse_nanos` is not worth its call.
    coarse_base: u64,
}

/// Null until the first reading. No thread waits for another's first reading, since the child of a
/// fork would wait forever for a thread that it does not have.
static ORIGIN: std::sync::atomic::AtomicPtr<Origin> = std::sync::atomic::AtomicPtr::new(ptr::null_mut());

#[inline]
fn origin() -> &'static Origin {
    // Acquire pairs with the Release in `first_reading`: the fields are seen.
    // SAFETY: the pointer's target was leaked by `first_reading`, and never changes.
    unsafe { ORIGIN.load(Ordering::Acquire).as_ref() }.unwrap_or_else(first_reading)
}

#[cold]
#[inline(never)]
fn first_reading() -> &'static Origin {
    let counter = counter_is_trusted();
    let (ticks, instant) = if counter { both() } else { (0, Instant::now()) };
    let new = Box::into_raw(Box::new(Origin {
        ticks,
        instant,
        counter,
        coarse_base: coarse::base(counter),
    }));
    // Release publishes the fields. Acquire pairs with the Release of the thread that was faster.
    match ORIGIN.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: it is leaked from here on.
        Ok(_) => unsafe { &*new },
        Err(first) => {
            // SAFETY: no other thread knows `new`; `first` was leaked by the thread that was
            // faster.
            unsafe {
                drop(Box::from_raw(new));
                &*first
            }
        }
    }
}

/// Returns the current time in ticks; always 0 where no clock exists. Only differences are
/// meaningful. Those of two threads may be off by the counters' skew, so subtract with saturation.
#[inline]
pub(crate) fn now() -> u64 {
    if !EXISTS {
        return 0;
    }
    let origin = origin();
    if origin.counter {
        counter()
    } else {
        origin.instant.elapsed().as_nanos() as u64
    }
}

/// The last reading of the real clock, and the ticks at that time. 0 ticks if the counter is not
/// trusted.
struct LastReading {
    ticks: AtomicU64,
    nanos: AtomicU64,
}

// Loom's atomics cannot be in a static: models of other protocols read the real clock every time.
#[cfg(not(loom))]
static LAST: Padded<LastReading> = Padded(LastReading {
    ticks: AtomicU64::new(0),
    nanos: AtomicU64::new(1),
});

/// A reading counts as the current time for this many ticks: at most a millisecond, as no counter
/// is slower than 1 GHz.
const MAX_AGE: u64 = 1 << 20;

impl LastReading {
    /// Returns the last reading, if it counts as the current time.
    #[inline(always)]
    fn fresh(&self, counter: impl FnOnce() -> u64) -> Option<u64> {
        // Acquire pairs with the Release in `record`: the time is at least as new as its ticks say.
        // If the counters of two processors disagree by more than that, the difference is huge in
        // either direction. `ticks` stays 0 until a thread has found that the counter is trusted.
        let seen = self.ticks.load(Ordering::Acquire);
        let fresh = seen != 0 && counter().wrapping_sub(seen) < MAX_AGE;
        fresh.then(|| self.nanos.load(Ordering::Relaxed))
    }

    /// Records a reading of the real clock, made after the ticks were read. Returns the current
    /// time.
    fn record(&self, ticks: u64, now: u64) -> u64 {
        let seen = self.nanos.fetch_max(now, Ordering::Relaxed);
        self.ticks.store(ticks, Ordering::Release); // Release pairs with the Acquire in `fresh`
        now.max(seen)
    }
}

/// Returns nanoseconds since the process's first reading: at most about a millisecond late, never
/// 0, never going back.
#[inline(always)]
pub(crate) fn nanos() -> u64 {
    #[cfg(not(loom))]
    if let Some(fresh) = LAST.0.fresh(counter) {
        return fresh;
    }
    read_slow()
}

/// No coarse reading is this much earlier than the time at which it was made, in nanoseconds. The
/// kernel updates its coarse clock with each timer interrupt: after 10 milliseconds at most, unless
/// a hypervisor stopped the machine just before.
pub(crate) const COARSE_LAG: u64 = 1 << 27;

/// Returns a time that is not later than [`nanos`], never 0, and less than [`COARSE_LAG`] earlier.
/// `None` where [`nanos`] is as cheap.
///
/// For hits whose entries do not expire soon. Reading the counter waits for all earlier loads on
/// Intel's processors, so consecutive lookups would no longer overlap their cache misses.
#[inline(always)]
pub(crate) fn coarse_nanos() -> Option<u64> {
    let base = origin().coarse_base;
    (base != u64::MAX).then(|| coarse::read(COARSE).saturating_sub(base).max(1))
}

use coarse::COARSE;

/// The kernel's own clock, as of the last timer interrupt.
#[cfg(all(
    target_os = "linux",
    any(feature = "huge-pages", feature = "snapshot"),
    not(any(loom, miri))
))]
mod coarse {
    pub(super) const COARSE: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;

    /// Returns a clock of the kernel in nanoseconds.
    #[inline(always)]
    pub(super) fn read(clock: libc::clockid_t) -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a `timespec`. Linux has both clocks, so the call succeeds.
        unsafe { libc::clock_gettime(clock, &mut time) };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    /// Returns [`Origin::coarse_base`](super::Origin). `counter`: the processor's counter is
    /// trusted.
    pub(super) fn base(counter: bool) -> u64 {
        if counter && !counter_waits_for_loads() {
            return u64::MAX;
        }
        read(libc::CLOCK_MONOTONIC)
    }

    /// Returns whether reading the counter waits for earlier loads. A hit with a time to live took
    /// 2.6 to 5.7 times one without on an Intel processor. On AMD's, the counter was the faster
    /// clock.
    fn counter_waits_for_loads() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            // The vendor, in this order of registers: "GenuineIntel".
            // SAFETY: every x86_64 processor has the instruction. (In later Rust the function is
            // safe.)
            #[allow(unused_unsafe)]
            let leaf = unsafe { std::arch::x86_64::__cpuid(0) };
            [leaf.ebx, leaf.edx, leaf.ecx] == [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes)
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

#[cfg(not(all(
    target_os = "linux",
    any(feature = "huge-pages", feature = "snapshot"),
    not(any(loom, miri))
)))]
mod coarse {
    pub(super) const COARSE: () = ();

    pub(super) fn read((): ()) -> u64 {
        unreachable!("there is no coarse clock here")
    }

    pub(super) fn base(_: bool) -> u64 {
        u64::MAX
    }
}

#[cfg(not(loom))]
#[cold]
#[inline(never)]
fn read_slow() -> u64 {
    if !EXISTS {
        panic!("this platform has no clock: set one by Builder::clock");
    }
    let origin = origin();
    let ticks = if origin.counter { counter() } else { 0 };
    LAST.0.record(ticks, origin.instant.elapsed().as_nanos() as u64)
}

#[cfg(loom)]
fn read_slow() -> u64 {
    (origin().instant.elapsed().as_nanos() as u64).max(1)
}

/// Converts ticks to time. The longer ago the first reading, the more precise: a pair of readings
/// is off by less than a microsecond.
pub(crate) fn duration(ticks: u64) -> Duration {
    if !EXISTS {
        return Duration::ZERO;
    }
    let origin = origin();
    if !origin.counter {
        return Duration::from_nanos(ticks);
    }
    let (now, instant) = both();
    let passed = instant.duration_since(origin.instant).as_nanos();
    // At least 1: no time may have passed yet, or a suspended machine may have lost the count.
    let counted = u128::from(now.saturating_sub(origin.ticks).max(1));
    Duration::from_nanos((u128::from(ticks) * passed / counted) as u64)
}

/// Nanoseconds per tick in units of 2^-32; 0 until they are known precisely.
static RATE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// The unit of [`RATE`].
const ONE: u64 = 1 << 32;

/// From this age of the first reading on, the rate is precise to a ten thousandth: a pair of
/// readings is off by less than a microsecond.
const PRECISE: u128 = 10_000_000;

/// Converts ticks to nanoseconds, as [`duration`] does, by a multiplication.
#[inline]
pub(crate) fn to_nanos(ticks: u64) -> u64 {
    // Relaxed: the rate stands for itself, and any thread computes nearly the same one.
    let rate = RATE.load(Ordering::Relaxed);
    if rate == 0 {
        return to_nanos_slow(ticks);
    }
    ((u128::from(ticks) * u128::from(rate)) >> 32) as u64
}

/// [`to_nanos`] until the rate is known.
#[cold]
#[inline(never)]
fn to_nanos_slow(ticks: u64) -> u64 {
    if !EXISTS {
        return 0;
    }
    let origin = origin();
    if !origin.counter {
        RATE.store(ONE, Ordering::Relaxed);
        return ticks;
    }
    let (now, instant) = both();
    let passed = instant.duration_since(origin.instant).as_nanos();
    let counted = u128::from(now.saturating_sub(origin.ticks).max(1));
    if passed >= PRECISE
        && let Ok(rate) = u64::try_from(passed * u128::from(ONE) / counted)
        // No trusted counter is slower than 1 GHz: another rate is that of a counter that leapt.
        && rate <= ONE
    {
        RATE.store(rate, Ordering::Relaxed);
    }
    (u128::from(ticks) * passed / counted) as u64
}

/// Reads both clocks at the same time: the closest of a few pairs, since the thread may be
/// interrupted within one.
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
    // The kernel checks what a feature bit cannot say: that the counters of all cores and sockets
    // agree.
    std::fs::read("/sys/devices/system/clocksource/clocksource0/current_clocksource").is_ok_and(|name| name == b"tsc\n")
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
#[inline(always)]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and a kernel that keeps time by it for
    // `Instant` lets processes read it.
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn clock_ticks_convert_to_time() {
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
    fn clock_rate_agrees_with_duration() {
        now();
        std::thread::sleep(Duration::from_millis(12));
        for ticks in [0, 1, 1_000, 1 << 20, 1 << 36] {
            let (fast, exact) = (to_nanos(ticks), duration(ticks).as_nanos() as u64);
            assert!(fast.abs_diff(exact) <= 1 + exact / 1_000, "{ticks}: {fast} {exact}");
        }
        assert_ne!(RATE.load(Ordering::Relaxed), 0, "12 ms suffice");
    }

    #[test]
    fn clock_nanoseconds_advance() {
        let (start, instant) = (nanos(), Instant::now());
        assert!(start > 0 && (0..1000).map(|_| nanos()).is_sorted());
        std::thread::sleep(Duration::from_millis(20));
        let (passed, real) = (nanos() - start, instant.elapsed().as_nanos() as u64);
        assert!(passed >= 18_000_000 && passed <= real + 2_000_000, "{passed} of {real}");
    }

    #[test]
    fn coarse_clock_bounds_the_clock_from_below() {
        nanos();
        for _ in 0..if cfg!(miri) { 2 } else { 1000 } {
            let before = nanos();
            let Some(coarse) = coarse_nanos() else { return };
            assert!(coarse <= nanos() + MAX_AGE && coarse + COARSE_LAG > before);
            std::thread::yield_now();
        }
    }
}

/// Loom models of the cell. The model's time is both the counter and the real clock, and advances
/// with each read.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use std::sync::Arc;

    struct Case {
        last: LastReading,
        time: AtomicU64,
        /// The last time that one thread returned, for the other to read.
        told: AtomicU64,
    }

    impl Case {
        /// Relaxed, so that it orders nothing; but sequential, as a counter is.
        fn counter(&self) -> u64 {
            self.time.fetch_add(MAX_AGE / 4, Ordering::Relaxed)
        }

        fn nanos(&self) -> u64 {
            let begun = self.counter();
            let fresh = self.last.fresh(|| self.counter());
            let now = fresh.unwrap_or_else(|| {
                let ticks = self.counter();
                self.last.record(ticks, self.counter())
            });
            assert!(
                now + MAX_AGE > begun,
                "the time is older than MAX_AGE: {now} at {begun}"
            );
            assert!(now <= self.counter(), "the time is in the future");
            now
        }
    }

    /// Runs two threads. The second reads a time that the first returned.
    fn model(before: fn(&Case)) {
        loom::model(move || {
            let case = Arc::new(Case {
                last: LastReading {
                    ticks: AtomicU64::new(0),
                    nanos: AtomicU64::new(1),
                },
                time: AtomicU64::new(8 * MAX_AGE),
                told: AtomicU64::new(0),
            });
            before(&case);
            let other = case.clone();
            let other = loom::thread::spawn(move || {
                let first = other.nanos();
                assert!(first <= other.nanos(), "time does not go back");
                other.told.store(other.nanos(), Ordering::Release);
            });
            let (first, told) = (case.nanos(), case.told.load(Ordering::Acquire));
            let second = case.nanos();
            assert!(
                first.max(told) <= second,
                "the time is no earlier than one that this thread knows of"
            );
            other.join().unwrap();
            assert!(second <= case.nanos());
        });
    }

    #[test]
    fn loom_clock_without_a_reading() {
        model(|_| ());
    }

    #[test]
    fn loom_clock_with_an_aging_reading() {
        model(|case| {
            let ticks = case.counter();
            case.last.record(ticks, case.counter());
        });
    }
}
