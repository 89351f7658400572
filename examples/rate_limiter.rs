//! Limits how often each client may call, in two ways, each one atomic `compute_with_ttl` per
//! request.
//!
//! - Fixed window: at most `limit` requests per window. Two words per client, but a burst of twice
//!   `limit` at a window's edge.
//! - Token bucket: a burst of at most `size`, then a steady `rate`.
//!
//! Inactive clients expire, and the least interesting ones are evicted if there are too many:
//! memory is bounded, whatever the traffic.
//!
//!     cargo run --release --example rate_limiter

use hotset::{BuildError, Cache, Clock, ManualClock, Ttl};
use std::process::ExitCode;
use std::time::Duration;

/// At most `limit` requests in each window, which begins with a client's first request.
struct FixedWindow {
    counts: Cache<String, u32>,
    limit: u32,
    window: Duration,
}

impl FixedWindow {
    fn new(limit: u32, window: Duration, clients: usize, clock: impl Clock + 'static) -> Result<Self, BuildError> {
        Ok(Self {
            counts: Cache::builder().max_entries(clients).clock(clock).build()?,
            limit,
            window,
        })
    }

    fn allow(&self, client: &str) -> bool {
        let count = self.counts.compute_with_ttl(client.to_owned(), |count| match count {
            // The window begins; when it ends, the count expires.
            None => Some((1, Ttl::After(self.window))),
            Some(count) => Some((count.saturating_add(1), Ttl::Keep)),
        });
        count.is_some_and(|count| count <= self.limit)
    }
}

/// The tokens that a client has left, as of its last request.
#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

/// A bucket of `size` tokens per client, filled at `rate` tokens per second; a request takes one.
struct TokenBucket<C> {
    buckets: Cache<String, Bucket>,
    size: f64,
    rate: f64,
    clock: C,
}

impl<C: Clock + Clone + 'static> TokenBucket<C> {
    fn new(size: u32, rate: f64, clients: usize, clock: C) -> Result<Self, BuildError> {
        Ok(Self {
            buckets: Cache::builder().max_entries(clients).clock(clock.clone()).build()?,
            size: f64::from(size),
            rate,
            clock,
        })
    }

    fn allow(&self, client: &str) -> bool {
        let mut allowed = false;
        self.buckets.compute_with_ttl(client.to_owned(), |bucket| {
            let now = self.clock.now();
            let tokens = bucket.map_or(self.size, |bucket| {
                let passed = now.saturating_sub(bucket.at).as_secs_f64();
                (bucket.tokens + passed * self.rate).min(self.size)
            });
            // The closure may run again if another thread was faster: it must set `allowed` every
            // time.
            allowed = tokens >= 1.0;
            let tokens = if allowed { tokens - 1.0 } else { tokens };
            // A full bucket is equivalent to none: it expires once it is full.
            let full = Duration::from_secs_f64((self.size - tokens) / self.rate);
            Some((Bucket { tokens, at: now }, Ttl::After(full)))
        });
        allowed
    }
}

/// Returns how many of `requests` are allowed, made by four threads concurrently.
fn burst(requests: usize, allow: impl Fn() -> bool + Sync) -> usize {
    let some = || (0..requests / 4).filter(|_| allow()).count();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(some)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// Prints a line, and returns whether `allowed` is as expected.
fn shows(what: &str, allowed: usize, expected: usize) -> bool {
    let verdict = if allowed == expected { "as it should" } else { "WRONG" };
    println!("{what:<58} {allowed:>3} allowed: {verdict}");
    allowed == expected
}

fn run() -> Result<bool, BuildError> {
    // A program leaves the clock out of the window's cache, and gives the bucket a clock that reads
    // `Instant`.
    let clock = ManualClock::new();
    let mut ok = true;

    let window = FixedWindow::new(100, Duration::from_secs(60), 10_000, clock.clone())?;
    let ann = || window.allow("ann");
    ok &= shows(
        "fixed window, 100 a minute: ann sends a burst of 400",
        burst(400, ann),
        100,
    );
    ok &= shows("bob is not ann: 40", burst(40, || window.allow("bob")), 40);
    clock.advance(Duration::from_secs(59));
    ok &= shows("a second before the window ends, ann sends 40", burst(40, ann), 0);
    clock.advance(Duration::from_secs(1));
    ok &= shows("a second later, 400", burst(400, ann), 100);

    let bucket = TokenBucket::new(20, 4.0, 10_000, clock.clone())?;
    let ann = || bucket.allow("ann");
    ok &= shows(
        "token bucket, 20 and 4 a second: ann sends a burst of 400",
        burst(400, ann),
        20,
    );
    clock.advance(Duration::from_millis(2500));
    ok &= shows("after 2.5 seconds, 40", burst(40, ann), 10);
    clock.advance(Duration::from_secs(3600));
    ok &= shows(
        "after an hour, 40: the bucket holds no more than 20",
        burst(40, ann),
        20,
    );

    clock.advance(Duration::from_secs(3600));
    println!(
        "clients remembered an hour later: {} and {}",
        window.counts.len(),
        bucket.buckets.len()
    );
    Ok(ok && window.counts.is_empty() && bucket.buckets.is_empty())
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rate_limiter: {error}");
            ExitCode::FAILURE
        }
    }
}

#[test]
fn both_limit() {
    assert!(run().unwrap());
}
