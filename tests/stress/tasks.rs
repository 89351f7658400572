//! Tasks on a small executor, beside threads: a lost wake-up would hang this test.

use super::*;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Queue = Arc<Mutex<VecDeque<Arc<Task>>>>;

struct Task {
    work: Mutex<Option<Work>>,
    queue: Queue,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.queue.clone().lock().unwrap().push_back(self);
    }
}

/// Yields to other tasks a number of times.
async fn yields(mut times: u64) {
    poll_fn(|cx| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Drops `work` if it is not done after a number of polls, each of which requests the next.
async fn limited<T>(polls: u64, work: impl Future<Output = T>) -> Option<T> {
    let mut work = Box::pin(work);
    let mut left = polls;
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

async fn act(cache: Cache<Key, Value>, seed: u64, rounds: u64, live: Arc<AtomicIsize>) {
    let mut random = Random(seed);
    for round in 0..rounds {
        let k = random.below(6);
        let (slow, fails, polls) = (random.below(4), random.below(8) == 0, random.below(4));
        let load = async {
            yields(slow).await;
            if fails {
                Err("as intended")
            } else {
                Ok(Value::new(k, round, &live))
            }
        };
        let asked = cache.try_get_or_insert_async(key(k), load);
        let got = if random.below(3) == 0 {
            limited(polls, asked).await
        } else {
            Some(asked.await)
        };
        if let Some(Ok(value)) = got {
            value.check(k);
        }
        match random.below(16) {
            0..4 => drop(cache.remove(&k)),
            4 => cache.insert(key(k), Value::new(k, round, &live)),
            5 => cache.clear(),
            _ => {}
        }
    }
}

#[test]
fn stress_async_tasks() {
    let live = Arc::new(AtomicIsize::new(0));
    let cache: Cache<Key, Value> = Cache::new(100);
    let queue = Queue::default();
    let left = AtomicUsize::new(40);
    for seed in 1..=40 {
        let work: Work = Box::pin(act(cache.clone(), seed * 977, rounds(1500), live.clone()));
        let task = Task {
            work: Mutex::new(Some(work)),
            queue: queue.clone(),
        };
        queue.lock().unwrap().push_back(Arc::new(task));
    }
    thread::scope(|scope| {
        for _ in 0..THREADS - 1 {
            scope.spawn(|| {
                while left.load(SeqCst) > 0 {
                    let Some(task) = queue.lock().unwrap().pop_front() else {
                        thread::yield_now();
                        continue;
                    };
                    let waker = Waker::from(task.clone());
                    let mut work = task.work.lock().unwrap();
                    let polled = work
                        .as_mut()
                        .map(|work| work.as_mut().poll(&mut Context::from_waker(&waker)));
                    if polled.is_some_and(|polled| polled.is_ready()) {
                        *work = None;
                        left.fetch_sub(1, SeqCst);
                    }
                }
            });
        }
        // Threads that wait for tasks, and that lead loads for which tasks wait.
        let mut random = Random(5);
        while left.load(SeqCst) > 0 {
            let k = random.below(6);
            let many = [k, (k + 1) % 6].map(key);
            let values = cache.get_many_or_insert_with(many, |missing| {
                missing.iter().map(|key| Value::new(*key.0, 0, &live)).collect()
            });
            values[0].check(k);
            cache.remove(&k);
            thread::yield_now();
        }
    });
    cache.run_pending();
    cache.validate();
    // Spurious wake-ups; each waker has a handle to the queue.
    let woken = std::mem::take(&mut *queue.lock().unwrap());
    assert!(woken.iter().all(|task| task.work.lock().unwrap().is_none()));
    drop(woken);
    drop(cache);
    assert_eq!(live.load(Relaxed), 0);
}
