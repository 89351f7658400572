//! The clock of the second tier: it counts the time for which the machine is suspended, where the
//! system has such a clock, and not under Miri, which has none.

/// Returns the current time, in nanoseconds since an instant of the system's choice.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
pub(super) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of this frame, which the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// Returns the current time, in nanoseconds since the first call.
#[cfg(any(miri, not(any(target_os = "linux", target_os = "android"))))]
pub(super) fn now() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static BASE: OnceLock<Instant> = OnceLock::new();
    // Not 0, which stands for "never".
    BASE.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1_000_000_000
}
