//! Asynchronous calls, on tokio's executor and by hand.

use super::*;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(future)
}

/// Polls once; a waker that does nothing suffices for a future that is then dropped.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

async fn load_async(cache: &Texts, key: &str, value: &str) -> String {
    let loaded = cache.get_or_load_async(key, async { Ok::<_, ()>(value.to_owned()) });
    loaded.await.unwrap()
}

#[test]
fn asynchronous_calls_do_what_the_others_do() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    block_on(async {
        assert_eq!(one.get_async("tea").await, None);
        assert!(one.set_async("tea", "3".into()).await);
        assert_eq!(other.get_async("tea").await.as_deref(), Some("3"));
        assert!(one.remove_async("tea").await);
        assert_eq!(one.get_async("tea").await, None);
        assert_eq!(load_async(&one, "tea", "4").await, "4");
        assert!(one.expire_async("tea").await);
        assert_eq!(load_async(&one, "tea", "5").await, "5");
        let ttl = Ttl::After(Duration::from_secs(60));
        assert!(one.set_tagged_async("milk", "1".into(), ttl, &["menu"]).await);
        assert_eq!(other.get_async("milk").await.as_deref(), Some("1"));
        assert!(one.invalidate_tag("menu"));
        assert_eq!(one.get_async("milk").await, None);
    });
}

#[test]
fn futures_are_send_if_their_loader_is() {
    fn check<T: Send>(future: T) -> T {
        future
    }
    let one = cache(&Memory::default());
    drop(check(one.get_async("tea")));
    drop(check(
        one.get_or_load_async("tea", async { Ok::<_, ()>(String::new()) }),
    ));
    drop(check(one.set_async("tea", String::new())));
    drop(check(one.remove_async("tea")));
}

#[test]
fn a_cold_key_is_loaded_once_by_all_tasks_and_threads() {
    let memory = Memory::default();
    let caches: Vec<_> = (0..4).map(|_| cache(&memory)).collect();
    let loads = Arc::new(AtomicUsize::new(0));
    block_on(async {
        let mut tasks = Vec::new();
        for cache in caches.iter().cycle().take(400) {
            let (cache, loads) = (cache.clone(), loads.clone());
            tasks.push(tokio::spawn(async move {
                let value = cache.get_or_load_async("tea", async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok::<_, ()>(loads.fetch_add(1, Ordering::Relaxed).to_string())
                });
                assert_eq!(value.await.unwrap(), "0");
            }));
        }
        let (cache, loaded) = (caches[0].clone(), loads.clone());
        let thread = tokio::task::spawn_blocking(move || {
            let load = || Ok::<_, ()>(loaded.fetch_add(1, Ordering::Relaxed).to_string());
            cache.get_or_load("tea", load).unwrap()
        });
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(thread.await.unwrap(), "0");
    });
    assert_eq!(loads.load(Ordering::Relaxed), 1);
}

#[test]
fn a_thousand_keys_are_loaded_by_tasks_of_two_processes_once_each() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    let loads = Arc::new(AtomicUsize::new(0));
    block_on(async {
        let mut tasks = Vec::new();
        for number in 0..2_000 {
            let cache = if number % 2 == 0 { one.clone() } else { other.clone() };
            let loads = loads.clone();
            let key = (number / 2).to_string();
            tasks.push(tokio::spawn(async move {
                let loading = async {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    loads.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, ()>(key.clone())
                };
                assert_eq!(cache.get_or_load_async(&*key, loading).await.unwrap(), key);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(loads.load(Ordering::Relaxed), 1_000);
}

#[test]
fn a_dropped_load_is_given_up_at_once() {
    let memory = Memory::default();
    // Its lease would last for a minute.
    let slow = || -> Texts {
        let builder = Tiered::builder("shop", "prices", memory.clone(), Bytes);
        builder.max_entries(10).lease(Duration::from_secs(60)).build().unwrap()
    };
    let (one, other) = (slow(), slow());
    let name = one.name_of("tea").0;
    {
        let mut never = pin!(one.get_or_load_async("tea", std::future::pending::<Result<String, ()>>()));
        until(|| {
            assert!(poll_once(never.as_mut()).is_pending());
            lock(&memory.0).data.contains_key(name.as_bytes())
        });
        // Whatever step it is at.
    }
    assert_eq!(load(&other, "tea", "3"), "3");
    assert_eq!(block_on(load_async(&one, "tea", "4")), "3");
}

#[test]
fn a_write_that_is_dropped_leaves_no_old_value() {
    let memory = Memory::default();
    for polls in 0..20 {
        let (one, other) = (cache(&memory), cache(&memory));
        assert!(one.set("tea", "old".into()));
        {
            let mut write = pin!(one.set_async("tea", "new".into()));
            for _ in 0..polls {
                if poll_once(write.as_mut()).is_ready() {
                    break;
                }
                std::thread::yield_now();
            }
        }
        // The command may be on its way: its outcome decides, and then neither has the old value.
        let is_old = |cache: &Texts| cache.get("tea").as_deref() == Some("old");
        if polls > 0 {
            until(|| !is_old(&one) && !is_old(&other) && one.stats().unconfirmed == 0);
        }
    }
}

#[test]
fn a_failed_or_panicking_future_ends_its_lease() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    block_on(async {
        let failed = one.get_or_load_async("tea", async { Err("no tea") }).await;
        assert!(matches!(failed, Err(LoadError::Failed(error)) if *error == "no tea"));
        let task = one.clone();
        let panics = tokio::spawn(async move {
            let panics = async { panic!("spilled") };
            task.get_or_load_async::<()>("tea", panics).await
        });
        assert!(panics.await.unwrap_err().is_panic());
        assert_eq!(load_async(&other, "tea", "3").await, "3");
    });
}

#[test]
fn a_key_inside_its_own_future_is_an_error() {
    let one = cache(&Memory::default());
    let outer = block_on(one.get_or_load_async("tea", async {
        let inner = one.get_or_load_async("tea", async { Ok::<_, ()>("inner".into()) });
        assert!(matches!(inner.await, Err(LoadError::Reentrant)));
        assert!(one.remove_async("tea").await);
        let inner = one.get_or_load_async("tea", async { Ok::<_, ()>("inner".into()) });
        assert!(matches!(inner.await, Err(LoadError::Reentrant)));
        Ok::<_, ()>("outer".into())
    }));
    assert_eq!(outer.unwrap(), "outer");
}

#[test]
fn tasks_load_while_the_server_is_down_and_not_too_many_at_once() {
    let one = cut_off(3);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    block_on(async {
        let mut tasks = Vec::new();
        for number in 0..50 {
            let (cache, now, most) = (one.clone(), now.clone(), most.clone());
            tasks.push(tokio::spawn(async move {
                let key = number.to_string();
                let loading = async {
                    most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    now.fetch_sub(1, Ordering::Relaxed);
                    Ok::<_, ()>(key.clone())
                };
                assert_eq!(cache.get_or_load_async(&*key, loading).await.unwrap(), key);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(most.load(Ordering::Relaxed), 3);
}

#[test]
fn a_future_loads_other_keys_while_the_server_is_down() {
    let one = cut_off(1);
    let menu = block_on(one.get_or_load_async("menu", async {
        let tea = load_async(&one, "tea", "3").await;
        Ok::<_, ()>(tea + "!")
    }));
    assert_eq!(menu.unwrap(), "3!");
}
