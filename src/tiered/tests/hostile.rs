//! Code of the caller's that panics, runs when its thread ends, or runs in the child of a fork.

use super::*;
use crate::tiered::waiters::LoadLimit;
use std::cell::RefCell;

/// A codec that panics for one value.
struct Spills;

impl Codec<String> for Spills {
    fn name(&self) -> &str {
        "bytes"
    }

    fn encode(&self, value: &String) -> Option<Vec<u8>> {
        assert!(value != "spilled");
        Some(value.clone().into_bytes())
    }

    fn decode(&self, bytes: &[u8]) -> Option<String> {
        Bytes.decode(bytes)
    }
}

/// Its leases last for a minute.
fn spilling(memory: &Memory) -> Texts {
    let builder = Tiered::builder("shop", "prices", memory.clone(), Spills);
    builder.max_entries(10).lease(Duration::from_secs(60)).build().unwrap()
}

#[test]
fn codec_that_panics_after_load_ends_its_lease() {
    let memory = Memory::default();
    let one = spilling(&memory);
    let name = one.name_of("tea").0;
    let is_leased = || lock(&memory.0).data.contains_key(name.as_bytes());
    let panics = |call: &dyn Fn()| catch_unwind(AssertUnwindSafe(call)).is_err();
    assert!(panics(&|| _ = load(&one, "tea", "spilled")));
    assert!(!is_leased());
    let many = |keys: &[&str]| Ok::<_, ()>(keys.iter().map(|_| "spilled".to_owned()).collect());
    assert!(panics(&|| _ = one.get_or_load_many(&["coffee", "tea"], many)));
    assert!(!is_leased());
    assert_eq!(load(&spilling(&memory), "tea", "3"), "3");
}

#[test]
fn calls_in_thread_local_destructors_work() {
    struct AtExit(Texts, &'static str);
    impl Drop for AtExit {
        fn drop(&mut self) {
            let Self(cache, key) = self;
            let outer = cache.get_or_load(*key, || {
                let inner = cache.get_or_load(*key, || Ok::<_, ()>("inner".to_owned()));
                assert!(matches!(inner, Err(LoadError::Reentrant)));
                Ok::<_, ()>("3".to_owned())
            });
            assert_eq!(outer.unwrap(), "3");
            assert_eq!(cache.get(*key).as_deref(), Some("3"));
            assert!(cache.set(*key, "4".into()) && cache.remove(*key));
        }
    }
    thread_local! {
        static FIRST: RefCell<Option<AtExit>> = const { RefCell::new(None) };
        static LAST: RefCell<Option<AtExit>> = const { RefCell::new(None) };
    }
    let memory = Memory::default();
    let one = cache(&memory);
    let handle = one.clone();
    let thread = std::thread::spawn(move || {
        // Before the thread-locals of the cache are made, and behind them.
        FIRST.set(Some(AtExit(handle.clone(), "first")));
        assert_eq!(load(&handle, "tea", "3"), "3");
        LAST.set(Some(AtExit(handle, "last")));
    });
    thread.join().unwrap();
    assert_eq!(one.get("first"), None);
    assert_eq!(one.get("last"), None);
}

#[test]
fn connections_of_parent_are_not_used_in_child() {
    let memory = Memory::default();
    let one = cache(&memory);
    assert!(one.set("tea", "3".into()));
    let session = &one.0.session;
    let name = one.name_of("tea").0;
    let get = Command::Get { key: name.as_bytes() };
    assert!(matches!(session.execute(0, &get), (_, Ok(Answer::Value(Some(_))))));
    // What `is_own` compares in a child.
    let own = session.pid.swap(0, Ordering::Relaxed);
    assert_eq!(session.execute(0, &get), (0, Err(Failure::Refused)));
    session.pid.store(own, Ordering::Relaxed);
}

#[cfg(feature = "async")]
mod tasks {
    use super::*;
    use crate::tiered::waiters::Waiters;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Wake, Waker};

    /// Counts how often it is woken; panics if it has no counter.
    struct Woken(Option<AtomicUsize>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            let count = self.0.as_ref().expect("a waker that panics");
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counting() -> Arc<Woken> {
        Arc::new(Woken(Some(AtomicUsize::new(0))))
    }

    fn panicking() -> Arc<Woken> {
        Arc::new(Woken(None))
    }

    impl Woken {
        fn count(&self) -> usize {
            self.0.as_ref().unwrap().load(Ordering::Relaxed)
        }
    }

    fn poll<F: Future>(future: Pin<&mut F>, woken: &Arc<Woken>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(woken.clone())))
    }

    #[test]
    fn waker_that_panics_keeps_no_task_from_a_permit() {
        let limit = LoadLimit::new(1);
        let permit = limit.begin();
        let others = counting();
        let (mut first, mut last) = (pin!(limit.begin_async()), pin!(limit.begin_async()));
        assert!(poll(first.as_mut(), &panicking()).is_pending());
        assert!(poll(last.as_mut(), &others).is_pending());
        assert!(catch_unwind(AssertUnwindSafe(|| drop(permit))).is_err());
        assert_eq!(others.count(), 1);
        assert!(poll(last.as_mut(), &others).is_ready());
    }

    #[test]
    fn waker_that_panics_keeps_no_task_from_a_change() {
        let one = cache(&Memory::default());
        let (waiters, pool) = (Waiters::default(), &one.0.session.pool);
        let later = now() + nanos(Duration::from_secs(3_600));
        let wait = || waiters.wait_async(pool, b"tea", later);
        let others = counting();
        let (mut first, mut last) = (pin!(wait()), pin!(wait()));
        assert!(poll(first.as_mut(), &panicking()).is_pending());
        assert!(poll(last.as_mut(), &others).is_pending());
        assert!(catch_unwind(AssertUnwindSafe(|| waiters.wake(b"tea"))).is_err());
        assert_eq!(others.count(), 1);
        assert!(poll(last.as_mut(), &others).is_ready());
    }

    /// Of two timers of the same instant, one has a waker that panics.
    fn expect_timers(one: &Texts) {
        let (pool, others) = (&one.0.session.pool, counting());
        let soon = now() + nanos(Duration::from_millis(20));
        pool.set_timer(&mut None, soon, Waker::from(panicking()));
        pool.set_timer(&mut None, soon, Waker::from(others.clone()));
        until(|| others.count() == 1);
    }

    #[test]
    fn waker_that_panics_keeps_no_task_from_its_time() {
        let one = cache(&Memory::default());
        // Starts a thread of the pool.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(one.get_async("tea")), None);
        expect_timers(&one);
    }

    #[test]
    fn tasks_are_woken_where_the_pool_has_no_thread() {
        expect_timers(&cache(&Memory::default()));
    }
}
