//! The engine under a cache, on one thread: what users cannot see.

use crate::Cache;

#[test]
fn the_table_grows_when_seven_tenths_of_it_are_filled() {
    let cache: Cache<u32, ()> = Cache::builder().max_weight(1 << 40).weigher(|_, _| 1).build().unwrap();
    let slots = || cache.0.engine.map().slots(&cache.0.engine.pin());
    let (mut before, mut growths) = (slots(), 0);
    for entries in 1..20_000 {
        cache.insert(entries as u32, ());
        cache.run_pending();
        let now = slots();
        if now != before {
            // It began at seven tenths, and more came in while it went on.
            let filled = before / 10 * 7..before * 3 / 4;
            assert!(filled.contains(&entries), "{entries} entries in {before} slots");
            (before, growths) = (now, growths + 1);
        }
    }
    assert!(growths >= 5);
}

#[test]
fn threads_that_ended_leave_no_ring() {
    let cache: Cache<u64, u64> = Cache::new(100_000);
    let rings = || {
        let mut rings = 0;
        cache.0.engine.locals().each(|_| rings += 1);
        rings
    };
    cache.insert(0, 0);
    let together = std::sync::Barrier::new(100);
    std::thread::scope(|scope| {
        for thread in 1..=100 {
            let (cache, together) = (&cache, &together);
            scope.spawn(move || {
                cache.get(&0);
                // Half of them only read.
                if thread % 2 == 0 {
                    cache.insert(thread, thread);
                }
                together.wait();
            });
        }
    });
    assert_eq!((rings(), cache.stats().hits), (51, 100));
    // Few are looked at per batch, so it takes a few batches.
    for key in 1000..20_000 {
        cache.insert(key, key);
    }
    assert_eq!((rings(), cache.stats().hits), (1, 100), "and no hit was lost");
    cache.run_pending();
    cache.validate();
    assert_eq!(cache.len(), 1 + 50 + 19_000);
}
