//! Loaders that are futures: shared with other futures and with threads, and dropped, leaked or
//! moved.

use hotset::{Cache, LoadError, ManualClock, Ttl};
use std::future::{Future, pending, poll_fn, ready};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

type Numbers = Cache<u64, u64>;
type Task<'t, T> = Pin<Box<dyn Future<Output = T> + Send + 't>>;

fn settled<K, V, S>(cache: &Cache<K, V, S>) {
    cache.run_pending();
    cache.validate();
}

fn panics<R>(call: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

/// Long enough that other threads are most likely waiting by then. No verdict depends on it, only
/// what the test covers.
fn a_moment() {
    thread::sleep(Duration::from_millis(20));
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// Counts how often it is woken; its copies are counted by the `Arc`.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Counter {
    fn woken(&self) -> usize {
        self.0.load(SeqCst)
    }
}

fn poll_by<F: Future + ?Sized>(waker: &Waker, future: &mut Pin<Box<F>>) -> Option<F::Output> {
    match future.as_mut().poll(&mut Context::from_waker(waker)) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
    poll_by(Waker::noop(), future)
}

/// A future that is ready once it has been given a value.
struct Gate<T>(Arc<Mutex<(Option<T>, Option<Waker>)>>);

impl<T> Clone for Gate<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Gate<T> {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((None, None))))
    }

    fn open(&self, value: T) {
        let waker = {
            let mut gate = self.0.lock().unwrap();
            gate.0 = Some(value);
            gate.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Future for Gate<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut gate = self.0.lock().unwrap();
        gate.1 = Some(cx.waker().clone());
        gate.0.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Yields to other tasks once.
async fn yields() {
    let mut yielded = false;
    poll_fn(|cx| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Begins a load of the key that completes when the gate opens.
fn leads(cache: &Numbers, key: u64) -> (Task<'_, u64>, Gate<u64>) {
    let gate = Gate::new();
    let mut task: Task<'_, u64> = Box::pin(cache.get_or_insert_async(key, gate.clone()));
    assert_eq!(poll(&mut task), None);
    (task, gate)
}

/// A task that waits for the key. If it becomes the leader, it loads `own`.
fn waits(cache: &Numbers, key: u64, own: u64) -> Task<'_, u64> {
    let mut task: Task<'_, u64> = Box::pin(cache.get_or_insert_async(key, ready(own)));
    assert_eq!(poll(&mut task), None);
    task
}

fn ask(cache: &Numbers, key: u64) -> Result<u64, LoadError<&'static str>> {
    cache.try_get_or_insert_with(key, || Ok(0))
}

#[test]
fn load_futures_are_send() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let cache: Cache<String, String> = Cache::new(10);
    let loaded = block_on(sent(cache.get_or_insert_async("a", async { "b".into() })));
    assert_eq!(loaded, "b");
    let failing = async { Err::<(String, Ttl), _>("no".to_owned()) };
    let failed = block_on(sent(cache.try_get_or_insert_async_ttl("c", failing)));
    assert!(matches!(failed, Err(LoadError::Failed(why)) if *why == "no"));
    // A future that is not sent need not be `Send`.
    let local = std::rc::Rc::new(5);
    let numbers = Numbers::new(10);
    assert_eq!(
        block_on(numbers.get_or_insert_async(1, async { (yields().await, *local).1 })),
        5
    );
    // The loader is not wrapped repeatedly: its size counts twice, the cost of an argument of an
    // `async fn`.
    let large = [0u8; 4000];
    let load = async move {
        yields().await;
        u64::from(large[17])
    };
    let size = size_of_val(&load);
    assert!(size >= 4000, "the loader holds the array: {size} bytes");
    let whole = size_of_val(&numbers.get_or_insert_async(2, load));
    assert!(whole < 2 * size + 480, "{whole} bytes for a loader of {size}");
}

#[test]
fn load_by_a_hundred_tasks_runs_once() {
    let cache = Numbers::new(1000);
    let loads = AtomicUsize::new(0);
    let task = |key| {
        let (cache, loads) = (&cache, &loads);
        async move {
            let load = async {
                loads.fetch_add(1, SeqCst);
                for _ in 0..10 {
                    yields().await;
                }
                key * 2
            };
            assert_eq!(cache.get_or_insert_async(key, load).await, key * 2);
        }
    };
    // On one thread.
    let mut tasks: Vec<Task<'_, ()>> = (0..100).map(|_| Box::pin(task(1)) as _).collect();
    while !tasks.is_empty() {
        tasks.retain_mut(|task| poll(task).is_none());
    }
    assert_eq!(
        (loads.load(SeqCst), cache.stats().loads, cache.stats().waits),
        (1, 1, 99)
    );
    // On several threads, between which tasks move; and threads that load beside them.
    for key in 2..22 {
        let queue: Mutex<Vec<Task<'_, ()>>> = Mutex::new((0..100).map(|_| Box::pin(task(key)) as _).collect());
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let Some(mut task) = queue.lock().unwrap().pop() else {
                            break;
                        };
                        if poll(&mut task).is_none() {
                            queue.lock().unwrap().insert(0, task);
                        }
                    }
                });
            }
            scope.spawn(|| {
                let load = || (loads.fetch_add(1, SeqCst), key * 2).1;
                assert_eq!(cache.get_or_insert_with(key, load), key * 2);
            });
        });
    }
    assert_eq!((loads.load(SeqCst), cache.stats().loads), (21, 21));
    assert_eq!(cache.stats().load_failures, 0);
    settled(&cache);
}

#[test]
fn load_is_shared_by_threads_and_tasks() {
    let cache = Numbers::new(100);
    let (mut leader, gate) = leads(&cache, 1);
    thread::scope(|scope| {
        let thread = scope.spawn(|| cache.get_or_insert_with(1, || unreachable!()));
        let task = scope.spawn(|| block_on(cache.get_or_insert_async(1, async { unreachable!() })));
        a_moment();
        gate.open(10);
        assert_eq!(poll(&mut leader), Some(10));
        assert_eq!((thread.join().unwrap(), task.join().unwrap()), (10, 10));
    });
    let (begun, wait) = mpsc::channel();
    let (go, went) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let cache = &cache;
        let leader = scope.spawn(move || {
            cache.get_or_insert_with(2, || {
                begun.send(()).unwrap();
                went.recv().unwrap();
                20
            })
        });
        wait.recv().unwrap();
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(counter.clone());
        let mut task: Task<'_, u64> = Box::pin(cache.get_or_insert_async(2, pending()));
        assert_eq!(poll_by(&waker, &mut task), None);
        go.send(()).unwrap();
        assert_eq!(leader.join().unwrap(), 20);
        assert_eq!((counter.woken(), poll_by(&waker, &mut task)), (1, Some(20)));
    });
    assert_eq!((cache.stats().loads, cache.stats().waits), (2, 3));
    settled(&cache);
}

#[test]
fn waiter_dropped_or_leaked_blocks_nothing() {
    let cache = Numbers::new(100);
    let (mut leader, gate) = leads(&cache, 1);
    let counters: [Arc<Counter>; 4] = Default::default();
    let mut tasks: Vec<Task<'_, u64>> = Vec::new();
    for counter in &counters {
        let mut task: Task<'_, u64> = Box::pin(cache.get_or_insert_async(1, pending()));
        assert_eq!(poll_by(&Waker::from(counter.clone()), &mut task), None);
        assert_eq!(Arc::strong_count(counter), 2, "its waker is kept");
        tasks.push(task);
    }
    drop(tasks.remove(1));
    assert_eq!(Arc::strong_count(&counters[1]), 1, "and goes with the task");
    mem::forget(tasks.remove(1));
    gate.open(10);
    assert_eq!(poll(&mut leader), Some(10));
    assert_eq!(counters.each_ref().map(|counter| counter.woken()), [1, 0, 1, 1]);
    assert!(counters.iter().all(|counter| Arc::strong_count(counter) == 1));
    assert!(tasks.iter_mut().all(|task| poll(task) == Some(10)));
    settled(&cache);
}

#[test]
fn waker_changed_or_spurious_is_handled() {
    let cache = Numbers::new(100);
    let (mut leader, gate) = leads(&cache, 1);
    let (first, second) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
    let mut task: Task<'_, u64> = Box::pin(cache.get_or_insert_async(1, pending()));
    for _ in 0..3 {
        assert_eq!(poll_by(&Waker::from(first.clone()), &mut task), None);
        assert_eq!(Arc::strong_count(&first), 2, "kept once");
    }
    assert_eq!(poll_by(&Waker::from(second.clone()), &mut task), None);
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 2));
    gate.open(5);
    assert_eq!(poll(&mut leader), Some(5));
    assert_eq!((first.woken(), second.woken()), (0, 1));
    assert_eq!(poll(&mut task), Some(5));
}

#[test]
fn leader_dropped_hands_over() {
    let cache = Numbers::new(100);
    for key in 0..4 {
        let (leader, _gate) = leads(&cache, key);
        let mut tasks = vec![waits(&cache, key, 20), waits(&cache, key, 30)];
        match key {
            // The load passes to another task,
            0 => drop(leader),
            // to a thread,
            1 => thread::scope(|scope| {
                let thread = scope.spawn(|| cache.get_or_insert_with(key, || 20));
                a_moment();
                drop(leader);
                assert_eq!(thread.join().unwrap(), 20);
            }),
            // to a new caller, after the first task that was woken has been dropped;
            2 => {
                drop(leader);
                drop(tasks.remove(0));
                assert_eq!(cache.get_or_insert_with(key, || 20), 20);
            }
            // and once more after that.
            _ => {
                drop(leader);
                let (leader, _gate) = leads(&cache, key);
                assert_eq!(poll(&mut tasks[0]), None, "it waits for the next one");
                drop(leader);
            }
        }
        assert!(tasks.iter_mut().all(|task| poll(task) == Some(20)));
        assert_eq!(cache.get(&key), Some(20));
    }
    settled(&cache);
}

#[test]
fn leader_leaked_blocks_only_its_key() {
    let cache = Numbers::new(100);
    let (leader, _gate) = leads(&cache, 1);
    mem::forget(leader);
    let mut waiter = waits(&cache, 1, 20);
    assert_eq!(cache.get_or_insert_with(2, || 2), 2);
    cache.insert(1, 7);
    assert_eq!(
        (cache.get(&1), block_on(cache.get_or_insert_async(1, pending()))),
        (Some(7), 7)
    );
    assert_eq!(cache.remove(&1), Some(7));
    cache.clear();
    cache.insert(1, 8);
    assert_eq!(cache.get_or_insert_with(1, || unreachable!()), 8);
    assert_eq!(poll(&mut waiter), None);
    settled(&cache);
    drop(waiter);
    drop(cache);
}

#[test]
fn loader_that_panics_or_fails_inserts_nothing() {
    let cache = Numbers::new(100);
    let gate = Gate::<Result<u64, &str>>::new();
    let mut leader: Task<'_, _> = Box::pin(cache.try_get_or_insert_async(1, gate.clone()));
    assert!(poll(&mut leader).is_none());
    let mut same: Task<'_, _> = Box::pin(cache.try_get_or_insert_async(1, pending::<Result<u64, &str>>()));
    let mut other: Task<'_, _> = Box::pin(cache.try_get_or_insert_async(1, ready(Err::<u64, u8>(9))));
    assert!(poll(&mut same).is_none() && poll(&mut other).is_none());
    gate.open(Err("first"));
    assert!(matches!(poll(&mut leader), Some(Err(LoadError::Failed(why))) if *why == "first"));
    assert!(matches!(poll(&mut same), Some(Err(LoadError::Failed(why))) if *why == "first"));
    assert!(matches!(poll(&mut other), Some(Err(LoadError::Failed(why))) if *why == 9));
    assert!(!cache.contains_key(&1));
    assert_eq!((cache.stats().loads, cache.stats().load_failures), (0, 2));

    let gate = Gate::<Option<u64>>::new();
    let load = async { gate.clone().await.expect("as intended") };
    let mut leader: Task<'_, u64> = Box::pin(cache.get_or_insert_async(2, load));
    assert_eq!(poll(&mut leader), None);
    let mut waiter = waits(&cache, 2, 20);
    gate.open(None);
    assert!(panics(|| poll(&mut leader)));
    assert_eq!(poll(&mut waiter), Some(20));
    drop(leader);
    // A future that panics when it is dropped counts as a loader that panics.
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("as intended");
        }
    }
    let bad = Bad;
    let load = async { (pending::<()>().await, drop(bad)).0 };
    let mut leader: Task<'_, _> = Box::pin(cache.try_get_or_insert_async_ttl(3, async { (load.await, Err("no")).1 }));
    assert!(poll(&mut leader).is_none());
    let mut waiter = waits(&cache, 3, 30);
    assert!(panics(|| drop(leader)));
    assert_eq!(poll(&mut waiter), Some(30));
    settled(&cache);
}

#[test]
fn load_of_a_key_in_its_own_loader_fails() {
    let cache = Numbers::new(100);
    let reentrant = |asked: Result<u64, LoadError<&str>>| assert!(matches!(asked, Err(LoadError::Reentrant)));
    let value = block_on(cache.get_or_insert_async(1, async {
        yields().await;
        reentrant(cache.try_get_or_insert_async(1, ready(Ok(0))).await);
        reentrant(ask(&cache, 1));
        assert!(panics(|| cache.get_or_insert_with(1, || 0)));
        assert!(panics(|| block_on(cache.get_or_insert_async(1, ready(0)))));
        // Through another key, by a task and by the thread.
        let inner = cache.get_or_insert_async(2, async {
            reentrant(cache.try_get_or_insert_async(1, ready(Ok(0))).await);
            reentrant(ask(&cache, 1));
            yields().await;
            reentrant(ask(&cache, 2));
            cache.get_or_insert_with(3, || {
                reentrant(block_on(cache.try_get_or_insert_async(3, ready(Ok(0)))));
                reentrant(block_on(cache.try_get_or_insert_async(1, ready(Ok(0)))));
                3
            })
        });
        inner.await + cache.get_or_insert_async(4, ready(4)).await
    }));
    assert_eq!(value, 7);
    // Two loads polled side by side in one task are not nested.
    let gate = Gate::new();
    let mut first: Task<'_, u64> = Box::pin(cache.get_or_insert_async(5, gate.clone()));
    let mut second: Task<'_, u64> = Box::pin(cache.get_or_insert_async(5, pending()));
    let both = poll_fn(|cx| {
        let (one, two) = (first.as_mut().poll(cx), second.as_mut().poll(cx));
        gate.open(5);
        if one.is_ready() {
            Poll::Ready((one, two))
        } else {
            Poll::Pending
        }
    });
    assert_eq!(block_on(both), (Poll::Ready(5), Poll::Ready(5)));
    settled(&cache);
}

#[test]
fn wait_cycle_through_a_blocked_thread_fails() {
    let cache = Numbers::new(100);
    let (begun, wait) = mpsc::channel();
    let gate = Gate::<()>::new();
    let load = async {
        gate.clone().await;
        match cache.try_get_or_insert_async(2, ready(Ok::<_, String>(0))).await {
            Err(LoadError::Reentrant) => 7,
            other => panic!("{other:?}"),
        }
    };
    let mut task: Task<'_, u64> = Box::pin(cache.get_or_insert_async(1, load));
    assert_eq!(poll(&mut task), None);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            cache.get_or_insert_with(2, || {
                begun.send(()).unwrap();
                cache.get_or_insert_with(1, || unreachable!())
            })
        });
        wait.recv().unwrap();
        a_moment();
        gate.open(());
        assert_eq!(poll(&mut task), Some(7));
        assert_eq!(thread.join().unwrap(), 7);
    });
    // The same with both threads blocked: one of them gets the error.
    let barrier = std::sync::Barrier::new(2);
    let inner = |key| {
        barrier.wait();
        ask(&cache, key).unwrap_or(8)
    };
    thread::scope(|scope| {
        let task = scope.spawn(|| block_on(cache.get_or_insert_async(3, async { inner(4) })));
        assert_eq!(cache.get_or_insert_with(4, || inner(3)), 8);
        assert_eq!(task.join().unwrap(), 8);
    });
    settled(&cache);
}

#[test]
fn invalidation_beats_a_load_in_flight() {
    type Act = fn(&Numbers);
    let acts: [(Act, Option<u64>); 5] = [
        (|cache| assert_eq!(cache.remove(&1), None), None),
        (|cache| cache.insert(1, 5), Some(5)),
        (|cache| cache.clear(), None),
        (|cache| assert_eq!(cache.compute(1, |_| Some(6)), Some(6)), Some(6)),
        (|cache| cache.insert(2, 5), Some(100)),
    ];
    for (act, expected) in acts {
        let cache = Numbers::new(10);
        let (mut leader, gate) = leads(&cache, 1);
        let mut early = waits(&cache, 1, 200);
        act(&cache);
        let mut late: Task<'_, u64> = Box::pin(cache.get_or_insert_async(1, ready(300)));
        let at_once = poll(&mut late);
        gate.open(100);
        assert_eq!((poll(&mut leader), poll(&mut early)), (Some(100), Some(100)));
        assert_eq!(cache.get(&1), expected);
        // A later call is not served by the invalidated load.
        let late = at_once.or_else(|| poll(&mut late));
        assert_eq!(late, expected.or(Some(300)));
        settled(&cache);
    }
}

#[test]
fn loader_sets_the_expiration() {
    let clock = ManualClock::new();
    let cache: Numbers = Cache::builder().max_entries(10).clock(clock.clone()).build().unwrap();
    let second = Ttl::After(Duration::from_secs(1));
    assert_eq!(block_on(cache.get_or_insert_async_ttl(1, ready((1, second)))), 1);
    let loaded = block_on(cache.try_get_or_insert_async_ttl(2, ready(Ok::<_, u8>((2, Ttl::Never)))));
    assert_eq!(loaded.unwrap(), 2);
    clock.advance(Duration::from_secs(2));
    assert_eq!((cache.get(&1), cache.get(&2)), (None, Some(2)));
    assert_eq!(block_on(cache.get_or_insert_async(1, ready(3))), 3);
    settled(&cache);
}

#[test]
fn reload_by_one_task_serves_others_the_old_value() {
    let clock = ManualClock::new();
    let seconds = Duration::from_secs;
    let builder = Cache::builder().max_entries(10).clock(clock.clone());
    let timed = builder.time_to_live(seconds(60)).refresh_after(seconds(10));
    let cache: Numbers = timed.negative_ttl(seconds(5)).build().unwrap();
    cache.insert(1, 1);
    clock.advance(seconds(10));
    let (mut reloader, gate) = leads(&cache, 1);
    assert_eq!(block_on(cache.get_or_insert_async(1, pending())), 1, "it is still good");
    gate.open(2);
    assert_eq!((poll(&mut reloader), cache.get(&1)), (Some(2), Some(2)));
    clock.advance(seconds(10));
    let (reloader, _gate) = leads(&cache, 1);
    drop(reloader);
    assert_eq!(block_on(cache.get_or_insert_async(1, pending())), 2, "not immediately");
    clock.advance(seconds(3));
    assert_eq!(
        block_on(cache.try_get_or_insert_async(1, ready(Err::<u64, _>("no")))).unwrap(),
        2
    );
    clock.advance(seconds(3));
    assert_eq!(block_on(cache.get_or_insert_async(1, ready(3))), 3);
    // The failure is cached.
    for why in ["no", "not run"] {
        let failed = block_on(cache.try_get_or_insert_async(2, ready(Err(why))));
        assert!(matches!(failed, Err(LoadError::Failed(why)) if *why == "no"));
    }
    clock.advance(seconds(6));
    assert_eq!(
        block_on(cache.try_get_or_insert_async(2, ready(Ok::<_, &str>(2)))).unwrap(),
        2
    );
    settled(&cache);
}

#[test]
fn load_time_is_measured() {
    let cache = Numbers::new(10);
    let (mut leader, gate) = leads(&cache, 1);
    let mut waiter = waits(&cache, 1, 0);
    a_moment();
    gate.open(1);
    assert_eq!((poll(&mut leader), poll(&mut waiter)), (Some(1), Some(1)));
    let (dropped, _gate) = leads(&cache, 2);
    a_moment();
    drop(dropped);
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures, stats.waits), (1, 1, 1));
    assert!(stats.load_time >= Duration::from_millis(39), "{:?}", stats.load_time);
    // Nothing is done for a future that is not polled.
    drop(cache.get_or_insert_async(3, async { unreachable!() }));
    assert_eq!((cache.stats().misses, cache.stats().loads), (3, 1));
}

#[test]
fn cache_dropped_with_loads_in_flight_is_freed() {
    #[derive(Clone)]
    struct Value(#[allow(dead_code)] Arc<()>);
    let living = Arc::new(());
    for leak in [false, true] {
        let cache: Cache<u64, Value> = Cache::new(10);
        cache.insert(0, Value(living.clone()));
        let task = |load: Task<'static, Value>| {
            let cache = cache.clone();
            Box::pin(async move { cache.get_or_insert_async(1, load).await })
        };
        let mut leader = task(Box::pin(pending()));
        assert!(poll(&mut leader).is_none());
        let mut waiters = [task(Box::pin(pending())), task(Box::pin(ready(Value(living.clone()))))];
        assert!(waiters.iter_mut().all(|waiter| poll(waiter).is_none()));
        drop(cache);
        if leak {
            mem::forget(leader);
            drop(waiters);
            assert!(Arc::strong_count(&living) > 1, "the leaked future holds the cache");
        } else {
            drop(leader);
            assert!(poll(&mut waiters[1]).is_some());
            drop(waiters);
            assert_eq!(Arc::strong_count(&living), 1);
        }
    }
    // Leaked inside a cache that is dropped.
    let cache = Numbers::new(10);
    mem::forget(leads(&cache, 1).0);
    mem::forget(waits(&cache, 1, 0));
    drop(cache);
}

/// A waker that breaks the rules of wakers.
struct Hostile(Mutex<Box<dyn FnMut() + Send>>);

impl Wake for Hostile {
    fn wake(self: Arc<Self>) {
        (self.0.lock().unwrap())();
    }
}

fn hostile(act: impl FnMut() + Send + 'static) -> Waker {
    Waker::from(Arc::new(Hostile(Mutex::new(Box::new(act)))))
}

#[test]
fn waker_that_panics_or_calls_back_is_survived() {
    let cache = Numbers::new(100);
    for ends in ["by its value", "by a panic", "by being dropped"] {
        cache.clear();
        let gate = Gate::<Option<u64>>::new();
        let load = async { gate.clone().await.expect("as intended") };
        let mut leader: Task<'_, u64> = Box::pin(cache.get_or_insert_async(1, load));
        assert_eq!(poll(&mut leader), None);
        let caller = cache.clone();
        let called = Arc::new(AtomicUsize::new(0));
        let calls = called.clone();
        let call_back = hostile(move || {
            // The same key: its load has completed, or the key may be loaded again.
            assert_eq!(caller.get_or_insert_with(1, || 10), 10);
            caller.insert(2, 2);
            caller.remove(&2);
            assert!(caller.stats().waits > 0);
            calls.fetch_add(1, SeqCst);
        });
        let polite = Arc::new(Counter::default());
        let wakers = [
            hostile(|| panic!("as intended")),
            call_back,
            Waker::from(polite.clone()),
        ];
        let mut waiters: Vec<Task<'_, u64>> = Vec::new();
        for waker in wakers {
            let mut waiter: Task<'_, u64> = Box::pin(cache.get_or_insert_async(1, ready(10)));
            assert_eq!(poll_by(&waker, &mut waiter), None);
            waiters.push(waiter);
        }
        thread::scope(|scope| {
            let thread = scope.spawn(|| cache.get_or_insert_with(1, || 10));
            a_moment();
            let panicked = match ends {
                "by its value" => (gate.open(Some(10)), panics(|| poll(&mut leader))).1,
                "by a panic" => (gate.open(None), panics(|| poll(&mut leader))).1,
                _ => panics(|| drop(leader)),
            };
            assert!(panicked, "the waker's panic resumes once all are woken");
            assert_eq!((called.load(SeqCst), polite.woken()), (1, 1), "{ends}");
            assert_eq!(thread.join().unwrap(), 10);
        });
        assert!(waiters.iter_mut().all(|waiter| poll(waiter) == Some(10)));
        settled(&cache);
    }
}
