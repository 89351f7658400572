//! Calls with many keys.

use super::*;

#[test]
fn many_values_are_set_read_and_removed() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    let entries = [("tea", "3".to_owned()), ("coffee", "4".into()), ("milk", "1".into())];
    assert!(one.set_many(&entries));
    let found = other.get_many(&["coffee", "none", "tea", "coffee"]);
    let texts: Vec<_> = found.iter().map(Option::as_deref).collect();
    assert_eq!(texts, [Some("4"), None, Some("3"), Some("4")]);
    assert!(one.remove_many(&["tea", "coffee", "tea"]));
    assert_eq!(one.get_many(&["tea", "coffee"]), [None, None]);
    assert_eq!(one.get("milk").as_deref(), Some("1"));
    assert!(one.get_many(&[]).is_empty());
    assert!(one.set_many(&[]) && one.remove_many(&[]));
}

#[test]
fn many_keys_are_loaded_by_one_call() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    assert!(other.set("tea", "3".into()));
    let mut calls = Vec::new();
    let found = one.get_or_load_many(&["tea", "coffee", "milk", "coffee"], |keys| {
        calls.push(keys.to_vec());
        Ok::<_, ()>(keys.iter().map(|key| format!("{key}!")).collect())
    });
    assert_eq!(found.unwrap(), ["3", "coffee!", "milk!", "coffee!"]);
    assert_eq!(calls, [["coffee", "milk"]]);
    // Stored in both tiers.
    assert_eq!(other.get_many(&["milk", "coffee"]), one.get_many(&["milk", "coffee"]));
    assert!(other.get("milk").is_some());
}

#[test]
fn failures_of_a_load_of_many_keys_are_errors() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    let failed = one.get_or_load_many(&["tea", "coffee"], |_| Err("no tea"));
    assert!(matches!(failed, Err(LoadError::Failed(error)) if *error == "no tea"));
    let short = one.get_or_load_many(&["tea", "coffee"], |_| Ok::<_, ()>(vec!["3".into()]));
    assert!(matches!(short, Err(LoadError::WrongLength { asked: 2, returned: 1 })));
    let panics = || one.get_or_load_many(&["tea", "coffee"], |_| -> Result<_, ()> { panic!("spilled") });
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"spilled"));
    let inside = one.get_or_load_many(&["tea", "coffee"], |keys| {
        let inner = one.get_or_load_many(&["coffee"], |_| Ok::<_, ()>(vec!["4".into()]));
        assert!(matches!(inner, Err(LoadError::Reentrant)));
        assert_eq!(one.get_many(&["coffee"]), [None]);
        Ok::<_, ()>(keys.iter().map(|key| (*key).to_owned()).collect())
    });
    assert_eq!(inside.unwrap(), ["tea", "coffee"]);
    // No caller holds a lease: the others load, or read, immediately.
    assert_eq!(load(&other, "coffee", "4"), "coffee");
}

#[test]
fn callers_whose_keys_overlap_load_each_key_once() {
    let memory = Memory::default();
    let caches: Vec<_> = (0..4).map(|_| cache(&memory)).collect();
    let loads = AtomicUsize::new(0);
    let keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
    std::thread::scope(|scope| {
        for (nth, cache) in caches.iter().cycle().take(8).enumerate() {
            let (keys, loads) = (&keys, &loads);
            scope.spawn(move || {
                let mut asked: Vec<&str> = keys.iter().map(|key| &**key).collect();
                if nth % 2 == 1 {
                    asked.reverse();
                }
                asked.rotate_left(nth);
                let found = cache.get_or_load_many(&asked, |missing| {
                    loads.fetch_add(missing.len(), Ordering::Relaxed);
                    std::thread::yield_now();
                    Ok::<_, ()>(missing.iter().map(|key| (*key).to_owned()).collect())
                });
                assert_eq!(found.unwrap(), asked);
            });
        }
    });
    assert_eq!(loads.into_inner(), 20);
}

#[test]
fn many_keys_are_loaded_while_the_server_is_down() {
    let memory = Memory::default();
    lock(&memory.0).down = true;
    let one = cache(&memory);
    assert_eq!(one.get_many(&["tea", "milk"]), [None, None]);
    let found = one.get_or_load_many(&["tea", "milk"], |keys| Ok::<_, ()>(vec!["3".into(); keys.len()]));
    assert_eq!(found.unwrap(), ["3", "3"]);
    assert!(!one.set_many(&[("tea", "4".into())]));
    assert!(!one.remove_many(&["milk"]));
    assert_eq!(one.stats().unconfirmed, 2);
    lock(&memory.0).down = false;
    until(|| one.stats().unconfirmed == 0);
}

#[test]
fn values_that_are_too_large_stay_in_tier_1_also_of_many() {
    let memory = Memory::default();
    let one: Texts = Tiered::builder("shop", "prices", memory.clone(), Bytes)
        .max_entries(100)
        .max_value(2)
        .build()
        .unwrap();
    let found = one.get_or_load_many(&["tea", "milk"], |_| Ok::<_, ()>(vec!["333".into(), "1".into()]));
    assert_eq!(found.unwrap(), ["333", "1"]);
    let other = cache(&memory).get_many(&["tea", "milk"]);
    assert_eq!(other, [None, Some("1".into())]);
    assert!(!one.set_many(&[("tea", "444".into()), ("milk", "2".into())]));
    assert_eq!(cache(&memory).get_many(&["tea", "milk"]), [None, Some("2".into())]);
}
