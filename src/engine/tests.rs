//! The engine under a cache, on one thread: what users cannot see.

use crate::Cache;
use crate::map::reclaim::pin;

#[test]
fn the_table_grows_when_seven_tenths_of_it_are_filled() {
    let cache: Cache<u32, ()> = Cache::builder().max_weight(1 << 40).weigher(|_, _| 1).build().unwrap();
    let slots = || cache.0.engine.map().slots(&pin());
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
