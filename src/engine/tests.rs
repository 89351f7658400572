//! The engine under a cache, on one thread: what users cannot see.

use super::entry::TAG;
use crate::map::reclaim::pin;
use crate::{BuildError, Cache};

#[test]
fn the_table_grows_when_seven_tenths_of_it_are_filled() {
    let cache: Cache<u32, ()> = Cache::builder().max_weight(1 << 40).weigher(|_, _| 1).build().unwrap();
    let slots = || cache.0.engine.map().slots(&pin());
    let (mut before, mut growths) = (slots(), 0);
    for entries in 1..if cfg!(miri) { 400 } else { 20_000 } {
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
    assert!(growths >= if cfg!(miri) { 2 } else { 5 });
}

#[cfg(target_pointer_width = "64")]
#[test]
fn tagged_pointers_are_refused_when_building() {
    let build = || Cache::<u64, u64>::builder().max_entries(100).build();
    for tag in [0xb4 << 56, 1 << 56, 1 << 48, 0x7fff << 48] {
        TAG.set(tag);
        let refused = build().unwrap_err();
        TAG.set(0);
        assert_eq!(refused, BuildError::TaggedPointers);
        assert!(refused.to_string().contains("tag"));
    }
    let cache = build().unwrap();
    cache.insert(1, 1);
    // An allocator that begins to tag later: nothing is inserted, and nothing is broken.
    TAG.set(1 << 60);
    let insert = std::panic::AssertUnwindSafe(|| (2..1000).for_each(|key| cache.insert(key, key)));
    let panicked = std::panic::catch_unwind(insert).is_err();
    TAG.set(0);
    assert!(panicked);
    cache.run_pending();
    cache.validate();
    assert_eq!((cache.len(), cache.get(&1)), (1, Some(1)));
}
