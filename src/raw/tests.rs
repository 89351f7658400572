use super::*;
use crate::ManualClock;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn stored_key_is_made_from_the_loaded_value() {
    // Equal keys that differ in a part that is not compared.
    #[derive(Clone)]
    struct Key(&'static str, u32);
    impl Borrow<str> for Key {
        fn borrow(&self) -> &str {
            self.0
        }
    }
    impl Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }
    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    impl Eq for Key {}

    let cache: Cache<Key, u32> = Cache::new(10);
    let get = |value| {
        let owned = || Ok::<_, &str>(Key("a", 1));
        try_get_or_insert(&cache, "a", owned, || value, |value| Key("a", *value))
    };
    assert!(matches!(get(Err("no")), Err(LoadError::Failed(error)) if *error == "no"));
    assert!(matches!(get(Ok((7, Ttl::Default))), Ok(7)));
    assert!(matches!(get(Err("not asked")), Ok(7)));
    assert_eq!(
        cache.iter().map(|(key, value)| (key.1, value)).collect::<Vec<_>>(),
        [(7, 7)]
    );
    let refused = || Err("no memory");
    let missing = try_get_or_insert(&cache, "b", refused, || Ok((0, Ttl::Default)), |_| Key("b", 0));
    assert!(matches!(missing, Err(LoadError::Failed(error)) if *error == "no memory"));
}

#[test]
fn insert_by_borrowed_key_is_found_and_visited() {
    let cache: Cache<String, u32> = Cache::new(100);
    let insert = |key: &str, ttl, value: Result<u32, &'static str>| {
        insert(&cache, key, ttl, || value.map(|value| (key.to_owned(), value)))
    };
    assert_eq!(insert("a", Ttl::Default, Ok(1)), Ok(()));
    assert_eq!(insert("a", Ttl::Default, Ok(2)), Ok(()));
    assert_eq!(insert("a", Ttl::Default, Err("no memory")), Err("no memory"));
    assert_eq!(insert("b", Ttl::After(Duration::from_secs(60)), Ok(3)), Ok(()));
    assert_eq!((cache.get("a"), cache.get("b"), cache.len()), (Some(2), Some(3), 2));
    assert!(cache.remaining("b").flatten().is_some());
    let mut seen = Vec::new();
    visit(&cache, |key, value| seen.push((key.clone(), *value)));
    seen.sort();
    assert_eq!(seen, [("a".to_owned(), 2), ("b".to_owned(), 3)]);
    retain(&cache, |key, _| key == "b");
    assert_eq!((cache.get("a"), cache.get("b"), cache.len()), (None, Some(3), 1));
}

#[test]
fn held_entries_are_visited_once() {
    for (policy, weighted, listened) in [
        (crate::Policy::WTinyLfu, false, false),
        (crate::Policy::WTinyLfu, true, true),
        (crate::Policy::Lru, false, true),
        (crate::Policy::Random, true, false),
    ] {
        let mut builder = Cache::<u32, (u32, Arc<()>)>::builder().policy(policy);
        builder = if weighted {
            builder.max_weight(300).weigher(|key, _| u64::from(key % 5))
        } else {
            builder.max_entries(100)
        };
        if listened {
            builder = builder.on_removal(|_, _, _| ());
        }
        let cache = builder.build().unwrap();
        let held = Arc::new(());
        let check = || {
            let mut seen = Vec::new();
            visit(&cache, |_, value| seen.push(value.0));
            visit_unlinked(&cache, |_, value| seen.push(value.0));
            let count = seen.len();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!((count, seen.len()), (Arc::strong_count(&held) - 1, count));
        };
        let fill = |round: u32, thread: u32| {
            for n in 0..500 {
                cache.insert(n * 7 % 200, ((round * 4 + thread) * 500 + n, held.clone()));
                if n % 3 == 0 {
                    cache.remove(&(n % 200));
                }
            }
        };
        for round in 0..10 {
            // In every second round a reader keeps unlinked entries from being freed.
            let reader = (round % 2 == 0).then(|| cache.reader());
            std::thread::scope(|scope| {
                let spawn = |thread| scope.spawn(move || fill(round, thread));
                (0..4).for_each(|thread| _ = spawn(thread));
            });
            check();
            drop(reader);
            check();
        }
        cache.clear();
        cache.run_pending();
        check();
        // On crossbeam-epoch, readers of other tests' caches keep this cache's entries, too.
        while cfg!(feature = "crossbeam") && Arc::strong_count(&held) > 1 {
            std::thread::yield_now();
            cache.run_pending();
        }
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

#[test]
fn exclusive_get_returns_what_get_returns() {
    // No other thread may use a cache during the test, so it runs in a process of its own.
    if std::env::var_os("HOTSET_EXCLUSIVE").is_none() {
        let name = "raw::tests::exclusive_get_returns_what_get_returns";
        let this = std::env::current_exe().unwrap();
        let status = std::process::Command::new(this)
            .args(["--exact", name])
            .env("HOTSET_EXCLUSIVE", "1")
            .status();
        return assert!(status.unwrap().success());
    }
    for (policy, timed) in [
        (crate::Policy::WTinyLfu, false),
        (crate::Policy::Lru, false),
        (crate::Policy::WTinyLfu, true),
        (crate::Policy::Lru, true),
    ] {
        let clock = ManualClock::new();
        let mut builder = Cache::<String, u32>::builder()
            .max_entries(50)
            .policy(policy)
            .clock(clock.clone());
        if timed {
            builder = builder.time_to_live(Duration::from_secs(10));
        }
        let cache = builder.build().unwrap();
        // SAFETY: this process has one thread that uses caches.
        let look = |key: &str| unsafe { get_exclusive(&cache, key, |value| *value) };
        for i in 0..200 {
            cache.insert(i.to_string(), i);
            cache.run_pending();
            for j in 0..=i {
                assert_eq!(
                    look(&j.to_string()),
                    cache.get(&*j.to_string()),
                    "{policy:?} {timed} {i} {j}"
                );
            }
        }
        clock.advance(Duration::from_secs(11));
        assert_eq!(look("199"), (!timed).then_some(199));
        let stats = cache.stats();
        assert!(stats.hits > 0 && stats.misses > 0);
    }
}

#[test]
fn pop_coldest_empties_every_policy() {
    for policy in [
        crate::Policy::WTinyLfu,
        crate::Policy::Lru,
        crate::Policy::Lfu,
        crate::Policy::Fifo,
        crate::Policy::Random,
    ] {
        let cache = Cache::<u32, u32>::builder()
            .max_entries(500)
            .policy(policy)
            .build()
            .unwrap();
        for n in 0..2000 {
            cache.insert(n, n + 1);
            cache.get(&(n / 3));
        }
        cache.run_pending();
        let count = cache.len();
        let coldest = {
            let reader = cache.reader();
            reader.hottest().last().map(|(key, _)| *key)
        };
        if matches!(policy, crate::Policy::Lru | crate::Policy::Fifo | crate::Policy::Random) {
            assert_eq!(pop_coldest(&cache, |key, _| *key), coldest);
            cache.insert(coldest.unwrap(), coldest.unwrap() + 1);
        }
        let mut popped: Vec<_> = std::iter::from_fn(|| pop_coldest(&cache, |key, value| (*key, *value))).collect();
        popped.sort_unstable();
        popped.dedup();
        assert_eq!((popped.len(), cache.len()), (count, 0), "{policy:?}");
        assert!(popped.iter().all(|(key, value)| key + 1 == *value));
        cache.validate();
    }
}

#[test]
fn expired_entries_are_removed_at_their_deadline() {
    let second = Duration::from_secs(1);
    // The wheel's next tick is in a bucket of a higher level for some of these, not for others.
    for offset in [0, 1, 255 << 20, (256 << 20) - 1, 65_535 << 20] {
        let clock = Arc::new(ManualClock::new());
        let builder = Cache::<u32, u32>::builder().max_entries(500).clock(clock.clone());
        let cache = builder.build().unwrap();
        clock.advance(Duration::from_nanos(offset));
        for n in 0..100 {
            cache.insert_with_ttl(
                n,
                n,
                if n % 2 == 0 {
                    second
                } else {
                    second + Duration::from_nanos(1)
                },
            );
        }
        clock.advance(second);
        cache.run_pending();
        assert_eq!((cache.len(), cache.stats().expirations), (50, 50), "{offset}");
        assert_eq!(take_expired(&cache, |key, _| *key), [0; 0]);
        clock.advance(Duration::from_nanos(1));
        let mut taken = take_expired(&cache, |key, _| *key);
        taken.sort_unstable();
        assert_eq!(taken, (0..50).map(|n| 2 * n + 1).collect::<Vec<_>>());
        cache.run_pending();
        assert_eq!((cache.len(), cache.stats().expirations), (0, 100));
        cache.validate();
    }
}

#[test]
fn due_value_is_reported_to_one_caller() {
    let clock = Arc::new(ManualClock::new());
    let cache: Cache<&str, u32> = Cache::builder()
        .max_entries(10)
        .time_to_live(Duration::from_secs(10))
        .refresh_after(Duration::from_secs(4))
        .stale_if_error(Duration::from_secs(30))
        .clock(clock.clone())
        .build()
        .unwrap();
    let look = || get_due(&cache, "a", |value, due| (*value, due));
    cache.insert("a", 1);
    assert_eq!(look(), Some((1, false)));
    clock.advance(Duration::from_secs(5));
    assert_eq!((look(), look()), (Some((1, true)), Some((1, false))));
    reload_failed(&cache, "a");
    clock.advance(Duration::from_secs(20)); // after its TTL, within the grace
    assert_eq!((look(), look()), (Some((1, true)), Some((1, false))));
    // A reload that was not tried is due again immediately.
    assert!(reload_abandoned(&cache, "a") && !reload_abandoned(&cache, "b"));
    assert_eq!((look(), look()), (Some((1, true)), Some((1, false))));
    insert(&cache, "a", Ttl::Default, || Ok::<_, ()>(("a", 2))).unwrap();
    assert_eq!(look(), Some((2, false)));
    clock.advance(Duration::from_secs(11));
    assert_eq!(look(), None);
}

#[test]
fn remaining_is_of_the_entry_read() {
    let clock = ManualClock::new();
    let cache: Cache<u32, u32> = Cache::builder()
        .max_entries(10)
        .time_to_live(Duration::from_secs(60))
        .time_to_idle(Duration::from_secs(20))
        .clock(clock.clone())
        .build()
        .unwrap();
    cache.insert(1, 10);
    cache.insert_with_ttl(2, 20, crate::Ttl::Never);
    clock.advance(Duration::from_secs(5));
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(peek_with_remaining(&cache, &1, |value| *value), Some((10, seconds(15))));
    assert_eq!(peek_with_remaining(&cache, &3, |value| *value), None);
    assert_eq!(cache.get(&1), Some(10));
    clock.advance(Duration::from_secs(1));
    let mut all = hottest_with_remaining(&cache, |&key, &value, left| Some((key, value, left.unused, left.used)));
    all.sort_unstable();
    assert_eq!(all[0], (1, 10, seconds(19), seconds(54)));
    assert_eq!((all.len(), all[1].3), (2, None));
    clock.advance(Duration::from_secs(19));
    assert_eq!(peek_with_remaining(&cache, &1, |value| *value), None);
    assert_eq!(
        hottest_with_remaining(&cache, |&key, _, left| (left.used.is_some()).then_some(key)),
        [0u32; 0]
    );
    assert_eq!((cache.stats().hits, cache.stats().misses), (1, 0));
}
