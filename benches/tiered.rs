//! The second tier in Rust beside the bare client, redis-rs, and what a stopped server costs.
//!
//! `make bench-tiered`, with a redis-server of its own. The contenders take turns; on a machine
//! with other work trust the ratios, not the times. `ARGS="hit in tier 2"` runs those with this
//! name.

use hotset::tiered::{Bytes, Redis, Tiered};
use redis_server::Server;
use std::hint::black_box;
use std::time::{Duration, Instant};

#[path = "../tests/common/redis_server.rs"]
mod redis_server;

const ROUNDS: usize = 60;
const CALLS: usize = 300;
const VALUE: &[u8] = br#"{"id":12345,"name":"tea","price":3.2,"tags":["drinks","menu"]}"#;

type Blobs = Tiered<str, Vec<u8>>;

fn cache(server: &Server) -> Blobs {
    let redis = Redis::open(server.url()).expect("a valid URL");
    let builder = Tiered::builder("bench", "prices", redis, Bytes);
    let cache = builder.max_entries(100_000).ttl(Duration::from_secs(3_600));
    let cache = cache.build().expect("valid settings");
    while cache.stats().bus != "armed" {
        std::thread::sleep(Duration::from_millis(1));
    }
    cache
}

fn middle(all: &mut [f64], share: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    all[((all.len() - 1) as f64 * share) as usize]
}

/// Prints the median times of two contenders, and the median and quartiles of their ratios.
fn in_turns(name: &str, base_name: &str, bound: &str, mut call: impl FnMut(), mut base: impl FnMut()) {
    if !is_chosen(name) {
        return;
    }
    let time = |call: &mut dyn FnMut()| {
        let begun = Instant::now();
        (0..CALLS).for_each(|_| call());
        begun.elapsed().as_secs_f64() / CALLS as f64 * 1e6
    };
    let (mut times, mut base_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Either may profit from the other before it.
        let (one, other) = if round % 2 == 0 {
            let one = time(&mut call);
            (one, time(&mut base))
        } else {
            let other = time(&mut base);
            (time(&mut call), other)
        };
        times.push(one);
        base_times.push(other);
        ratios.push(one / other);
    }
    println!(
        "{name:28} {:9.3} us   {base_name:24} {:9.3} us   ratio {:.2} ({:.2} .. {:.2}){bound}",
        middle(&mut times, 0.5),
        middle(&mut base_times, 0.5),
        middle(&mut ratios, 0.5),
        middle(&mut ratios, 0.25),
        middle(&mut ratios, 0.75),
    );
}

/// Hits, writes and calls with many keys beside the commands that a program would send itself.
fn beside_redis_rs(server: &Server) {
    let cache = cache(server);
    let mut client = server.connection();
    assert!(cache.set("tea", VALUE.to_vec()));
    () = redis::cmd("SET").arg("tea").arg(VALUE).query(&mut client).unwrap();
    let mut get = || -> Vec<u8> { redis::cmd("GET").arg("tea").query(&mut client).unwrap() };
    if is_chosen("hit in tier 2") {
        // Each key is read once, so that tier 1 has none of them.
        let keys: Vec<String> = (0..ROUNDS * CALLS).map(|key| format!("cold {key}")).collect();
        for some in keys.chunks(1_000) {
            let entries: Vec<_> = some.iter().map(|key| (key.as_str(), VALUE.to_vec())).collect();
            assert!(cache.set_many(&entries));
        }
        let cold = self::cache(server);
        let mut next = keys.iter();
        in_turns(
            "hit in tier 2",
            "redis-rs: GET",
            "  (at most 1.15)",
            || assert!(cold.get(next.next().expect("a key per call")).is_some()),
            || _ = black_box(get()),
        );
    }
    in_turns(
        "hit in tier 1",
        "redis-rs: GET",
        "",
        || _ = black_box(cache.get("tea")),
        || _ = black_box(get()),
    );
    let mut client = server.connection();
    in_turns(
        "set",
        "redis-rs: SET PX",
        "",
        || assert!(cache.set("milk", VALUE.to_vec())),
        || {
            let mut set = redis::cmd("SET");
            () = set
                .arg("milk")
                .arg(VALUE)
                .arg("PX")
                .arg(3_600_000)
                .query(&mut client)
                .unwrap();
        },
    );
    let keys: Vec<String> = (0..100).map(|key| format!("key {key}")).collect();
    let borrowed: Vec<&str> = keys.iter().map(String::as_str).collect();
    let entries: Vec<_> = borrowed.iter().map(|key| (*key, VALUE.to_vec())).collect();
    assert!(cache.set_many(&entries));
    let names: Vec<_> = borrowed.iter().map(|key| cache.name(key)).collect();
    for key in &keys {
        () = redis::cmd("SET").arg(key).arg(VALUE).query(&mut client).unwrap();
    }
    in_turns(
        "hits of 100 keys in tier 2",
        "redis-rs: 100 GET in one",
        "",
        || {
            names.iter().for_each(|name| cache.changed(name.as_bytes()));
            assert!(cache.get_many(&borrowed).iter().all(Option::is_some));
        },
        || {
            let mut packet = redis::pipe();
            keys.iter().for_each(|key| _ = packet.get(key));
            let found: Vec<Vec<u8>> = packet.query(&mut client).unwrap();
            assert_eq!(found.len(), 100);
        },
    );
}

/// What requests take while the server is stopped: the first ones wait for it, later ones do not.
fn while_stopped(server: &Server) {
    let cache = cache(server);
    let load = |key: usize| {
        let begun = Instant::now();
        let value = cache.get_or_load(&format!("cold {key}"), || Ok::<_, ()>(VALUE.to_vec()));
        assert_eq!(value.unwrap(), VALUE);
        begun.elapsed().as_secs_f64() * 1e3
    };
    (0..100).for_each(|key| _ = load(key));
    server.signal(libc::SIGSTOP);
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < Duration::from_secs(3) {
        times.push(load(100 + times.len()));
    }
    server.signal(libc::SIGCONT);
    let waited = times.iter().filter(|time| **time > 1.0).count();
    let total: f64 = times.iter().filter(|time| **time > 1.0).sum();
    let count = times.len();
    println!(
        "server stopped for 3 s: {count} loads of cold keys; {waited} took more than 1 ms, {total:.0} ms in all \
         (250 ms once); median {:.4} ms, 99.9% {:.3} ms, longest {:.1} ms",
        middle(&mut times, 0.5),
        middle(&mut times, 0.999),
        middle(&mut times, 1.0),
    );
}

fn is_chosen(name: &str) -> bool {
    let mut chosen = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    chosen.next().is_none_or(|chosen| name.contains(&chosen))
}

fn main() {
    let server = Server::start();
    beside_redis_rs(&server);
    if is_chosen("stopped") {
        while_stopped(&server);
    }
}
