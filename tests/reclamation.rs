//! What `run_pending` promises to free. (One test, in a file of its own: a reader in another thread could hold any of it up.) On
//! crossbeam-epoch that may take more than one call.
#![cfg(not(feature = "crossbeam"))]

use hotset::{Cache, ManualClock, Policy};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn what_no_reader_holds_is_freed_by_the_next_housekeeping() {
    for policy in [Policy::WTinyLfu, Policy::Lru, Policy::Random] {
        for (removals, timed) in [(1, false), (1, true), (50, false), (1000, true)] {
            let clock = Arc::new(ManualClock::new());
            let mut builder = Cache::<u32, Arc<()>>::builder().max_entries(200).policy(policy);
            if timed {
                builder = builder.time_to_live(Duration::from_secs(10)).clock(clock.clone());
            }
            let cache = builder.build().unwrap();
            let held = Arc::new(());
            let check = || {
                cache.run_pending();
                let held = Arc::strong_count(&held) - 1;
                assert_eq!(held, cache.len(), "{policy:?}, {removals} at a time, timed: {timed}");
            };
            for key in 0..removals {
                cache.insert(key, held.clone()); // some evict others
            }
            check();
            for key in 0..removals / 2 {
                cache.insert(key, held.clone());
            }
            check();
            for key in 0..removals {
                cache.remove(&key);
            }
            check();
            cache.insert(0, held.clone());
            clock.advance(Duration::from_secs(11));
            check();
            assert_eq!(cache.len(), usize::from(!timed));
            cache.clear();
            check();
        }
    }
}
