//! Panics at every place where the cache runs user code, and at each of its calls there, in a mixed
//! workload.

use crate::POLICIES;
use crate::traps::{self, Key, PLACES, Place, Value, key, trap, value};
use hotset::{Cache, Change, ManualClock, Policy, Ttl};
use std::hash::{Hash, Hasher};
use std::time::Duration;

type Subject = Cache<Key, Value>;

/// One call, and the most keys and values that it returns.
struct Step {
    returns: isize,
    call: Box<dyn Fn(&Subject)>,
}

fn step(returns: isize, call: impl Fn(&Subject) + 'static) -> Step {
    Step {
        returns,
        call: Box::new(call),
    }
}

fn load(v: u64) -> Value {
    trap(Place::Load);
    value(v)
}

fn fail<T>() -> Result<T, u32> {
    trap(Place::Load);
    Err(7)
}

fn change<T>(to: T) -> T {
    trap(Place::Change);
    to
}

/// Every kind of call, on keys that are live, absent, expired, or due for a reload.
fn workload(clock: Option<&ManualClock>) -> Vec<Step> {
    let mut steps: Vec<Step> = (0..9)
        .map(|k| step(0, move |cache| cache.insert(key(k), value(k))))
        .collect();
    steps.extend([
        step(1, |cache| drop(cache.get(&key(3)))),
        step(0, |cache| _ = cache.get_with(&key(4), Value::weight)),
        step(4, |cache| drop(cache.get_many(&[key(1), key(70), key(2), key(3)]))),
        step(0, |cache| _ = cache.contains_key(&key(3))),
        step(0, |cache| _ = cache.remaining(&key(3))),
        step(0, |cache| _ = cache.reader().get(&key(5)).map(Value::weight)),
        step(0, |cache| cache.insert(key(3), value(30))),
        step(0, |cache| {
            cache.insert_with_ttl(key(4), value(5), Duration::from_secs(2))
        }),
        step(1, |cache| drop(cache.remove(&key(3)))),
        step(1, |cache| drop(cache.remove(&key(90)))),
        step(1, |cache| {
            drop(cache.remove_if(&key(5), |_, _| (trap(Place::Condition), true).1))
        }),
        step(1, |cache| {
            drop(cache.remove_if(&key(6), |_, _| (trap(Place::Condition), false).1))
        }),
        step(1, |cache| drop(cache.compute(key(6), |_| change(Some(value(1)))))),
        step(1, |cache| drop(cache.compute(key(60), |_| change(Some(value(1)))))),
        step(1, |cache| drop(cache.compute(key(60), |_| change(None)))),
        step(1, |cache| {
            drop(cache.compute_with_ttl(key(6), |old| change(old.map(|old| (old, Ttl::Keep)))))
        }),
        step(0, |cache| cache.change(&key(7), |_| change(Change::Keep))),
        step(0, |cache| {
            cache.change(&key(7), |_| change(Change::Set(key(7), value(8), Ttl::Never)))
        }),
        step(0, |cache| cache.change(&key(7), |_| change(Change::Remove))),
        step(1, |cache| drop(cache.get_or_insert_with(key(80), || load(2)))),
        step(1, |cache| drop(cache.get_or_insert_with(key(80), || load(2)))),
        step(1, |cache| drop(cache.try_get_or_insert_with(key(81), fail))),
        step(1, |cache| {
            // The failure is cached, if that is set.
            drop(cache.try_get_or_insert_with(key(81), || Ok::<_, u32>(load(3))))
        }),
        step(4, |cache| {
            let keys = [key(1), key(82), key(83), key(82)];
            drop(cache.get_many_or_insert_with(keys, |missing| missing.iter().map(|_| load(4)).collect()))
        }),
        step(1, |cache| {
            // Invalidated by its own loader.
            drop(cache.get_or_insert_with(key(84), || {
                cache.insert(key(84), value(1));
                cache.remove(&key(84));
                load(5)
            }))
        }),
        step(12, |cache| _ = cache.iter().count()),
    ]);
    #[cfg(feature = "async")]
    steps.extend(tasks::steps());
    if let Some(clock) = clock {
        let clock = clock.clone();
        let advance = move |seconds| {
            let clock = clock.clone();
            step(0, move |_| clock.advance(Duration::from_secs(seconds)))
        };
        steps.extend([
            advance(4),
            step(1, |cache| drop(cache.get_or_insert_with(key(1), || load(1)))),
            step(1, |cache| drop(cache.get_or_refresh_with(key(2), || load(2)))),
            step(1, |cache| drop(cache.try_get_or_insert_with(key(8), fail))),
            step(1, |cache| drop(cache.get(&key(6)))),
            advance(8),
            step(1, |cache| drop(cache.get(&key(1)))),
            step(1, |cache| drop(cache.get_or_insert_with(key(8), || load(1)))),
            step(1, |cache| drop(cache.compute(key(6), |_| change(Some(value(2)))))),
            advance(60),
            step(0, |cache| _ = cache.contains_key(&key(1))),
        ]);
    }
    steps.extend([
        step(0, |cache| cache.set_capacity(6)),
        step(0, |cache| cache.set_capacity(24)),
        step(0, |cache| (40..60).for_each(|k| cache.insert(key(k), value(k)))),
        step(0, |cache| cache.run_pending()),
        step(0, |cache| cache.clear()),
        step(0, |cache| cache.insert(key(1), value(1))),
    ]);
    steps
}

/// Runs the workload with a panic at the `skip`th call at a place. Returns whether there was one.
fn run(policy: Policy, timed: bool, place: Place, skip: u32) -> bool {
    let context = || format!("{policy:?}, timed: {timed}, {place:?} {skip}");
    let clock = timed.then(ManualClock::new);
    let before = traps::live();
    traps::shown();
    let cache = traps::build(policy, clock.as_ref());
    let mut forgotten = 0;
    traps::arm(place, skip);
    for (at, step) in workload(clock.as_ref()).iter().enumerate() {
        let within = || assert!(cache.weight() <= 24 + 3, "{} step {at}", context());
        let armed = traps::is_armed();
        if traps::springs(|| {
            (step.call)(&cache);
            within();
        }) {
            traps::check(&cache);
        }
        // If the destructor of an argument or local panics, the compiler forgets the return value
        // (rust-lang/rust#47949); also in a task of the refresh executor, whose panics the call
        // catches.
        if armed && !traps::is_armed() && matches!(place, Place::DropKey | Place::DropValue) {
            forgotten = step.returns;
        }
    }
    let sprung = !traps::is_armed();
    traps::arm(Place::Nowhere, 0);
    traps::check(&cache);
    // The cache still works.
    cache.insert(key(3), value(33));
    assert!(
        cache
            .get(&key(3))
            .is_none_or(|found| found.weight() == value(33).weight())
    );
    drop(cache.get_or_insert_with(key(81), || value(2)));
    traps::check(&cache);
    let left = cache.len() as u64;
    assert_eq!(
        traps::shown() + left,
        cache.stats().insertions,
        "{}: every entry that left was shown",
        context()
    );
    drop(cache);
    let lost = traps::live() - before;
    assert!((0..=forgotten).contains(&lost), "{}: {lost} are left", context());
    sprung
}

/// Returns the number of panics.
fn everywhere(timed: bool) -> u32 {
    let mut sum = 0;
    for policy in POLICIES {
        for place in PLACES {
            let times = (0..).find(|skip| !run(policy, timed, *place, *skip));
            sum += times.expect("the workload ends");
        }
    }
    sum
}

#[test]
fn callback_panics_anywhere_are_survived() {
    let panics = everywhere(false);
    assert!(panics > 1500, "{panics}");
}

#[test]
fn callback_panics_with_expiration_are_survived() {
    let panics = everywhere(true);
    assert!(panics > 2500, "{panics}");
}

#[test]
fn destructor_that_panics_in_drop_frees_the_rest() {
    for place in [Place::DropKey, Place::DropValue] {
        for skip in 0..12 {
            let before = traps::live();
            let cache = traps::build(Policy::WTinyLfu, None);
            (0..12).for_each(|k| cache.insert(key(k), value(0)));
            traps::arm(place, skip);
            assert!(traps::springs(|| drop(cache)));
            assert_eq!(traps::live(), before, "{place:?} {skip}");
        }
    }
}

/// Work that the cache still does while a loader's panic unwinds must not abort the program,
/// although user code panics there, too.
#[test]
fn second_panic_while_unwinding_is_survived() {
    #[derive(Clone)]
    struct Rude(u64);
    impl Hash for Rude {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }
    impl PartialEq for Rude {
        fn eq(&self, other: &Self) -> bool {
            assert!(!std::thread::panicking(), "at a bad moment");
            self.0 == other.0
        }
    }
    impl Eq for Rude {}
    let clock = ManualClock::new();
    let built = Cache::builder().max_entries(100).refresh_after(Duration::from_secs(1));
    let cache: Cache<Rude, u64> = built.clock(clock.clone()).build().unwrap();
    cache.insert(Rude(1), 1);
    clock.advance(Duration::from_secs(2));
    for key in [1, 2] {
        assert!(traps::springs(|| _ = cache.get_or_insert_with(Rude(key), || load_of(7))));
    }
    assert_eq!(cache.get(&Rude(1)), Some(1));
    assert_eq!(cache.get_or_insert_with(Rude(2), || 2), 2);
    cache.run_pending();
    cache.validate();
}

fn load_of(value: u64) -> u64 {
    traps::arm(Place::Load, 0);
    trap(Place::Load);
    value
}

#[cfg(feature = "async")]
mod tasks {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};

    struct Rude;

    impl Wake for Rude {
        fn wake(self: Arc<Self>) {
            trap(Place::Wake);
        }
    }

    /// A loader that is ready at its second poll.
    fn slow(v: u64) -> impl Future<Output = Value> {
        let mut polls = 0;
        std::future::poll_fn(move |_| {
            trap(Place::Poll);
            polls += 1;
            if polls < 2 {
                Poll::Pending
            } else {
                Poll::Ready(value(v))
            }
        })
    }

    pub(super) fn steps() -> Vec<Step> {
        let waker = || Waker::from(Arc::new(Rude));
        vec![
            step(1, move |cache| {
                // One task leads, one waits, until the first is done or dropped.
                let (waker, other) = (waker(), waker());
                let mut context = Context::from_waker(&waker);
                let mut lead = pin!(cache.get_or_insert_async(key(85), slow(6)));
                let mut wait = pin!(cache.get_or_insert_async(key(85), slow(7)));
                assert!(lead.as_mut().poll(&mut context).is_pending());
                assert!(wait.as_mut().poll(&mut Context::from_waker(&other)).is_pending());
                assert!(lead.as_mut().poll(&mut context).is_ready());
                assert!(wait.as_mut().poll(&mut context).is_ready());
            }),
            step(1, move |cache| {
                // The leader is dropped: the waiter becomes the leader.
                let waker = waker();
                let mut context = Context::from_waker(&waker);
                let mut lead = Box::pin(cache.get_or_insert_async(key(86), slow(6)));
                let mut wait = pin!(cache.get_or_insert_async(key(86), slow(7)));
                assert!(lead.as_mut().poll(&mut context).is_pending());
                assert!(wait.as_mut().poll(&mut context).is_pending());
                drop(lead);
                while wait.as_mut().poll(&mut context).is_pending() {}
            }),
        ]
    }
}
