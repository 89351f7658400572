//! Tests of the policy against the naive one, of restored entries, and of memory.

use super::*;
use crate::policy::testing::{Naive, Store, XorShift};

#[test]
fn tinylfu_decides_as_the_naive_policy() {
    for (cap, keys) in [(1, 9), (2, 9), (7, 30), (50, 200), (333, 1000), (800, 3000)] {
        let mut rng = XorShift(cap as u32);
        let mut store = Store::default();
        let mut policy = TinyLfu::new(cap as u64, false);
        let mut oracle = Naive::new(cap);
        let mut map = std::collections::HashMap::new();
        let mut out = Vec::new();
        for step in 0..6000 + 4 * keys {
            // Skewed uses, with a scan through the keys now and then.
            let skewed = rng.below(keys) * rng.below(keys) / keys;
            let key = if step / 500 % 4 == 3 { step % keys } else { skewed };
            let hash = key.wrapping_mul(0x9E37_79B9) ^ key << 7;
            if let Some(&handle) = map.get(&hash) {
                store.touch(handle, 1);
                oracle.marks.insert(handle);
                continue;
            }
            let handle = store.add(hash, 1);
            map.insert(hash, handle);
            policy.insert(&store, handle, &mut out);
            oracle.insert(&store, handle);
            assert!(
                out.iter().map(|&(handle, _)| handle).eq(oracle.out.drain(..)),
                "cap {cap}, step {step}"
            );
            for (gone, _) in out.drain(..) {
                map.remove(&store.hash(gone));
                oracle.marks.remove(&gone);
            }
            assert_eq!(policy.window_max, oracle.w as u64);
        }
        assert!(
            policy
                .chunks
                .iter(&policy.protected)
                .eq(oracle.protected.iter().copied())
        );
        assert!(
            policy
                .chunks
                .iter(&policy.probation)
                .eq(oracle.probation.iter().copied())
        );
        Policy::<Store>::validate(&policy, &store);
    }
}

/// Restored candidates carry no count of their own, so the sketch decides about each of them.
#[test]
fn restored_candidates_are_compared_by_the_sketch() {
    let mut store = Store::default();
    let mut policy = TinyLfu::new(100, false);
    let mut out = Vec::new();
    let mut restore = |policy: &mut TinyLfu<_>, store: &mut Store, n: u32, queue, uses| {
        let handle = store.add(n.wrapping_mul(0x9E37_79B9), 1);
        let marked = false;
        policy.restore(store, handle, Rank { uses, queue, marked }, &mut out);
        handle
    };
    for n in 0..95 {
        restore(&mut policy, &mut store, n, PROBATION as u8, 1);
    }
    let hot: Vec<_> = (95..100)
        .map(|n| restore(&mut policy, &mut store, n, WINDOW as u8, 9))
        .collect();
    for n in 100..110u32 {
        let handle = store.add(n.wrapping_mul(0x9E37_79B9), 1);
        policy.insert(&store, handle, &mut out);
    }
    let lost: Vec<_> = out
        .iter()
        .map(|&(handle, _)| handle)
        .filter(|handle| hot.contains(handle))
        .collect();
    assert_eq!(lost, [], "a restored entry with nine uses beats victims with one");
}

#[test]
fn tinylfu_memory_is_small_and_allocated_late() {
    let mut store = Store::default();
    let mut out = Vec::new();
    for (capacity, needless, full) in [(100, 3, 11 << 10), (40_000, 40_000, 40_000 * 20)] {
        let mut policy = TinyLfu::new(capacity, false);
        for n in 0..5 * capacity as u32 {
            let handle = store.add(n.wrapping_mul(0x9E37_79B9), 1);
            policy.insert(&store, handle, &mut out);
            if u64::from(n) + 1 == needless {
                assert_eq!(policy.sketch.bytes() + policy.ghost.bytes(), 0);
            }
        }
        let bytes = size_of_val(&policy) + policy.chunks.bytes() + policy.sketch.bytes() + policy.ghost.bytes();
        println!("{capacity}: {bytes}");
        assert!(bytes <= full, "{bytes}");
    }
}
