//! Threads that wait for each other: with real-time priorities, and while the lock holder is
//! suspended.
#![cfg(target_os = "linux")]

use hotset::Cache;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// After this time a hang is reported. No test's result depends on it otherwise.
const WATCHDOG: Duration = Duration::from_secs(120);

/// Restricts the calling thread to one processor.
fn stay_on(processor: usize) -> bool {
    // SAFETY: an all-zero set is an empty one, the processor is one of its bits, and the size is
    // that of the set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set) == 0
    }
}

/// A processor that this process may use.
fn a_processor() -> usize {
    // SAFETY: an all-zero set is an empty one, which the call fills; bits are read only within its
    // size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &mut set), 0);
        (0..libc::CPU_SETSIZE as usize)
            .find(|&processor| libc::CPU_ISSET(processor, &set))
            .expect("it runs on one")
    }
}

/// Gives the calling thread the lowest real-time priority, which is above all ordinary threads.
fn become_real_time() -> bool {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is the calling thread, and the parameters outlive the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) == 0 }
}

/// A real-time writer that preempts the lock holder on their only processor must let it finish.
#[test]
fn real_time_writer_beside_ordinary_one_finishes() {
    // The first cache applies each change immediately, the second only in batches, the third grows
    // its table repeatedly.
    for (capacity, rounds) in [(50, 20_000), (100_000, 2_000), (usize::MAX, 2_000)] {
        let (done, is_done) = channel();
        let body = move || {
            let cache: Cache<u64, u64> = Cache::new(capacity);
            let stop = AtomicBool::new(false);
            let processor = a_processor();
            thread::scope(|scope| {
                scope.spawn(|| {
                    assert!(stay_on(processor));
                    for key in (1 << 32).. {
                        if stop.load(Relaxed) {
                            break;
                        }
                        cache.insert(key, key);
                    }
                });
                let (cache, processor) = (&cache, &processor);
                let real_time = scope.spawn(move || {
                    let ready = stay_on(*processor) && become_real_time();
                    for round in 0..if ready { rounds } else { 0 } {
                        // The ordinary thread runs only while this one sleeps, and may be preempted
                        // anywhere.
                        thread::sleep(Duration::from_micros(20));
                        (0..100).for_each(|key| cache.insert(round * 100 + key, key));
                    }
                    ready
                });
                let ready = real_time.join();
                stop.store(true, Relaxed);
                let ready = ready.unwrap();
                if !ready {
                    println!("skipped: real-time scheduling is not permitted here");
                }
            });
            cache.run_pending();
            cache.validate();
            done.send(()).unwrap();
        };
        let test = thread::spawn(body);
        match is_done.recv_timeout(WATCHDOG) {
            Ok(()) => test.join().unwrap(),
            Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(test.join().unwrap_err()),
            // Its threads cannot be stopped, and may occupy the processor.
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("capacity {capacity}: the real-time writer hangs");
                std::process::exit(1);
            }
        }
    }
}
