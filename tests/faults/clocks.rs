//! Clocks that stand still, leap ahead by hours and centuries, go back, or reach the largest
//! timestamp.

use crate::POLICIES;
use hotset::{Cache, Clock, Policy};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const TTL: u64 = 10 * SECOND;

#[derive(Clone, Default)]
struct Any(Arc<AtomicU64>);

impl Clock for Any {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }
}

fn build(policy: Policy, clock: impl Clock + 'static) -> Cache<u64, u64> {
    let builder = Cache::builder().max_entries(1000).policy(policy).clock(clock);
    let ttl = Duration::from_nanos(TTL);
    builder.time_to_live(ttl).refresh_after(ttl / 2).build().unwrap()
}

#[test]
fn clock_that_stands_still_expires_nothing() {
    for policy in POLICIES {
        let clock = Any::default();
        clock.0.store(HOUR, Relaxed);
        let cache = build(policy, clock.clone());
        for round in 0..50 {
            (0..500).for_each(|key| cache.insert(key, key + round));
            cache.run_pending();
            (0..500).for_each(|key| assert_eq!(cache.get(&key), Some(key + round)));
        }
        cache.validate();
        assert_eq!((cache.len(), cache.stats().expirations), (500, 0));
    }
}

/// Leaps of every size, up to the largest timestamp: an entry is found exactly until its TTL has
/// elapsed.
#[test]
fn clock_leap_expires_exactly_what_it_skips() {
    let leaps = [
        0,
        1,
        SECOND / 1000,
        SECOND,
        TTL - 1,
        TTL,
        HOUR,
        1000 * HOUR,
        24 * 365 * HOUR,
        u64::MAX / 8,
    ];
    for policy in POLICIES {
        for first in leaps {
            let clock = Any::default();
            let cache = build(policy, clock.clone());
            let mut born = HashMap::new();
            let mut now = 0u64;
            for round in 0..40u64 {
                let leap = if round == 0 {
                    first
                } else {
                    leaps[(round * 7 + first) as usize % leaps.len()]
                };
                now = now.saturating_add(leap).min(u64::MAX - HOUR);
                clock.0.store(now, Relaxed);
                for key in 0..20 {
                    let found = cache.get(&key);
                    let alive = born.get(&key).filter(|at| now - **at < TTL);
                    assert_eq!(found, alive.copied(), "{policy:?} {round}");
                }
                for key in (round % 3..20).step_by(3) {
                    cache.insert(key, now);
                    born.insert(key, now);
                }
                cache.run_pending();
                cache.validate();
            }
        }
    }
}

/// Lifetimes are not guaranteed then; all other invariants hold.
#[test]
fn clock_that_goes_back_or_saturates_is_survived() {
    let shows = [
        0,
        u64::MAX,
        1,
        HOUR,
        u64::MAX - 1,
        u64::MAX - TTL,
        1 << 63,
        u64::MAX - HOUR,
    ];
    for policy in POLICIES {
        for from in shows {
            for to in shows {
                let clock = Any::default();
                let cache = build(policy, clock.clone());
                for now in [from, to, from] {
                    clock.0.store(now, Relaxed);
                    for key in 0..8 {
                        cache.insert(key, key);
                        cache.insert_with_ttl(key + 100, key, Duration::MAX);
                        cache.insert_with_ttl(key + 200, key, Duration::from_nanos(key));
                        assert_eq!(cache.get_or_insert_with(key, || key), key);
                        cache.compute(key + 300, |old| Some(old.unwrap_or_default() + 1));
                        cache.remaining(&(key + 100));
                    }
                    cache.run_pending();
                    cache.validate();
                }
                cache.clear();
                assert_eq!((cache.len(), cache.weight()), (0, 0));
                cache.validate();
            }
        }
    }
}

#[test]
fn clock_beyond_64_bits_is_accepted() {
    struct Beyond;
    impl Clock for Beyond {
        fn now(&self) -> Duration {
            Duration::MAX
        }
    }
    let cache = build(Policy::WTinyLfu, Beyond);
    cache.insert(1, 1);
    cache.insert_with_ttl(2, 2, Duration::ZERO);
    cache.run_pending();
    assert_eq!((cache.get(&1), cache.get(&2)), (Some(1), None));
    cache.validate();
}
