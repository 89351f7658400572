//! Tests of caches with a second tier in memory, which two caches share as two processes would.

use super::session::lock;
use super::*;
use crate::tier2::HEAD;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[cfg(feature = "async")]
mod futures;
mod hostile;
mod many;
mod race;

#[derive(Default)]
struct State {
    data: HashMap<Vec<u8>, Vec<u8>>,
    buses: Vec<(Vec<Vec<u8>>, Sender<Message>)>,
    down: bool,
    /// Commands that are executed, and not answered.
    unanswered: usize,
}

impl State {
    fn announce(&self, key: &[u8]) {
        for (prefixes, bus) in &self.buses {
            if prefixes.iter().any(|prefix| key.starts_with(prefix)) {
                _ = bus.send(Message::Changed(vec![key.to_vec()]));
            }
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.data.insert(key.to_vec(), value.to_vec());
        self.announce(key);
    }

    fn remove(&mut self, key: &[u8]) {
        self.data.remove(key);
        self.announce(key);
    }

    fn flush(&mut self) {
        self.data.clear();
        for (_, bus) in &self.buses {
            _ = bus.send(Message::Flushed);
        }
    }

    fn begins(&self, key: &[u8], expected: &[u8]) -> bool {
        let value = self.data.get(key).map_or(&[][..], |value| value);
        &value[..value.len().min(HEAD)] == expected
    }

    fn execute(&mut self, command: &Command<'_>) -> Answer {
        match *command {
            Command::Get { key } => Answer::Value(self.data.get(key).cloned()),
            Command::Acquire { key, frame, .. } => {
                let old = self.data.get(key).cloned();
                if old.is_none() {
                    self.set(key, frame);
                }
                Answer::Value(old)
            }
            Command::Swap {
                key, expected, frame, ..
            } => {
                let held = self.begins(key, expected);
                if held {
                    self.set(key, frame);
                }
                Answer::Flag(held)
            }
            Command::Put { key, frame, .. } => {
                self.set(key, frame);
                Answer::Flag(true)
            }
            Command::Release { key, expected } => {
                let held = self.begins(key, expected);
                if held {
                    self.remove(key);
                }
                Answer::Flag(held)
            }
            Command::Remove { key } => {
                self.remove(key);
                Answer::Flag(true)
            }
            Command::Expire { key, stamp, soft_end } => {
                match self.data.get_mut(key) {
                    Some(frame) if frame.starts_with(b"\xf1h\x01\x01") => {
                        frame[4..20].copy_from_slice(stamp);
                        frame[24..32].copy_from_slice(&soft_end.to_le_bytes());
                        self.announce(key);
                    }
                    _ => self.remove(key),
                }
                Answer::Flag(true)
            }
            Command::Touch {
                key,
                expected,
                stamp,
                soft_end,
                ..
            } => {
                let held = self.begins(key, expected);
                if held && let Some(frame) = self.data.get_mut(key) {
                    frame[4..20].copy_from_slice(stamp);
                    frame[24..32].copy_from_slice(&soft_end.to_le_bytes());
                    self.announce(key);
                }
                Answer::Flag(held)
            }
            Command::Bump { key, stamp } => {
                self.set(key, stamp);
                Answer::Flag(true)
            }
            Command::Claim { claim, stamp, key, .. } => {
                let won = !self.data.contains_key(claim);
                if won {
                    self.set(claim, stamp);
                }
                Answer::Claim(won, self.data.get(key).cloned())
            }
            Command::Fence { .. } => Answer::Flag(true),
            Command::Canary { key, .. } => {
                self.set(key, b"");
                Answer::Flag(true)
            }
        }
    }
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<State>>);

struct MemoryBus(Sender<Message>, Receiver<Message>);

impl Tier2 for Memory {
    fn connect(&self, _: u32, _: Instant) -> Result<(Box<dyn Connection>, Greeting), Failure> {
        if lock(&self.0).down {
            return Err(Failure::Refused);
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let greeting = Greeting {
            identity: b"memory".to_vec(),
            server_ms: since_1970.as_millis() as u64,
            connection: 1,
            can_fence: true,
        };
        Ok((Box::new(self.clone()), greeting))
    }

    fn subscribe(&self, _: u32, prefixes: &[&[u8]], _: Instant) -> Result<Box<dyn Bus>, Failure> {
        let mut state = lock(&self.0);
        if state.down {
            return Err(Failure::Refused);
        }
        let (sender, receiver) = channel();
        let prefixes = prefixes.iter().map(|prefix| prefix.to_vec()).collect();
        state.buses.push((prefixes, sender.clone()));
        Ok(Box::new(MemoryBus(sender, receiver)))
    }
}

impl Connection for Memory {
    fn ping(&mut self, _: Instant) -> Result<(), Failure> {
        if lock(&self.0).down {
            Err(Failure::Timeout)
        } else {
            Ok(())
        }
    }

    fn execute(&mut self, command: &Command<'_>, _: Instant) -> Result<Answer, Failure> {
        let mut state = lock(&self.0);
        if state.down {
            return Err(Failure::Timeout);
        }
        let answer = state.execute(command);
        if state.unanswered > 0 {
            state.unanswered -= 1;
            return Err(Failure::Timeout);
        }
        Ok(answer)
    }
}

impl Bus for MemoryBus {
    fn next(&mut self, deadline: Instant) -> Result<Message, Failure> {
        match self.1.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(message) => Ok(message),
            Err(RecvTimeoutError::Timeout) => Ok(Message::Nothing),
            Err(RecvTimeoutError::Disconnected) => Err(Failure::Refused),
        }
    }

    fn ping(&mut self, _: Instant) -> Result<(), Failure> {
        _ = self.0.send(Message::Pong);
        Ok(())
    }
}

type Texts = Tiered<str, String>;

fn cache(memory: &Memory) -> Texts {
    let builder = Tiered::builder("shop", "prices", memory.clone(), Bytes);
    builder.max_entries(1_000).build().unwrap()
}

fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        std::thread::yield_now();
    }
}

fn armed(cache: &Texts) {
    until(|| cache.stats().bus == "armed");
}

fn load(cache: &Texts, key: &str, value: &str) -> String {
    cache.get_or_load(key, || Ok::<_, ()>(value.to_owned())).unwrap()
}

#[test]
fn a_value_that_one_cache_sets_is_read_by_the_other() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    assert_eq!(one.get("tea"), None);
    assert!(one.set("tea", "3".into()));
    assert_eq!(other.get("tea").as_deref(), Some("3"));
    assert_eq!(load(&other, "tea", "4"), "3");
}

#[test]
fn a_hit_in_tier_1_asks_no_server() {
    let memory = Memory::default();
    let one = cache(&memory);
    armed(&one);
    load(&one, "tea", "3");
    // The announcement of the fill may remove the entry once, at any time.
    until(|| {
        let reads = one.stats().counter("hits");
        assert_eq!(one.get("tea").as_deref(), Some("3"));
        one.stats().counter("hits") == reads
    });
}

#[test]
fn removals_and_writes_reach_the_other_cache() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    armed(&one);
    armed(&other);
    assert_eq!(load(&other, "tea", "3"), "3");
    assert!(one.set("tea", "4".into()));
    assert_eq!(one.get("tea").as_deref(), Some("4"));
    until(|| other.get("tea").as_deref() == Some("4"));
    assert!(one.remove("tea"));
    assert_eq!(one.get("tea"), None);
    until(|| other.get("tea").is_none());
}

#[test]
fn a_cold_key_is_loaded_once_by_all_threads_of_all_caches() {
    let memory = Memory::default();
    let caches: Vec<_> = (0..4).map(|_| cache(&memory)).collect();
    let loads = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for cache in caches.iter().cycle().take(16) {
            scope.spawn(|| {
                let value = cache.get_or_load("tea", || {
                    std::thread::yield_now();
                    Ok::<_, ()>(loads.fetch_add(1, Ordering::Relaxed).to_string())
                });
                assert_eq!(value.unwrap(), "0");
            });
        }
    });
    assert_eq!(loads.into_inner(), 1);
}

#[test]
fn a_failed_load_ends_its_lease() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    let failed = one.get_or_load("tea", || Err("no tea"));
    assert!(matches!(failed, Err(LoadError::Failed(error)) if *error == "no tea"));
    assert_eq!(load(&other, "tea", "3"), "3");
}

#[test]
fn a_loader_that_panics_ends_its_lease() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    let panics = || one.get_or_load("tea", || -> Result<String, ()> { panic!("spilled") });
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"spilled"));
    assert_eq!(load(&other, "tea", "3"), "3");
    assert_eq!(load(&one, "tea", "4"), "3");
}

#[test]
fn a_key_inside_its_own_loader_is_an_error() {
    let one = cache(&Memory::default());
    let outer = one.get_or_load("tea", || {
        one.remove("tea");
        let inner = one.get_or_load("tea", || Ok::<_, ()>("inner".into()));
        assert!(matches!(inner, Err(LoadError::Reentrant)));
        Ok::<_, ()>("outer".into())
    });
    assert_eq!(outer.unwrap(), "outer");
}

#[test]
fn a_load_that_began_before_a_removal_is_not_stored() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    let old = one.get_or_load("tea", || {
        assert!(other.remove("tea"));
        Ok::<_, ()>("old".into())
    });
    assert_eq!(old.unwrap(), "old");
    assert_eq!(one.get("tea"), None);
    assert_eq!(other.get("tea"), None);
}

#[test]
fn values_are_loaded_while_the_server_is_down() {
    let memory = Memory::default();
    lock(&memory.0).down = true;
    let one = cache(&memory);
    assert_eq!(one.get("tea"), None);
    assert_eq!(load(&one, "tea", "3"), "3");
    assert!(!one.set("tea", "4".into()));
    assert_eq!(one.stats().link, "down");
}

/// Returns a cache whose server is down, with this many permits to load.
fn cut_off(max_loads: usize) -> Texts {
    let memory = Memory::default();
    lock(&memory.0).down = true;
    Tiered::builder("shop", "prices", memory, Bytes)
        .max_entries(1_000)
        .max_loads(max_loads)
        .build()
        .unwrap()
}

#[test]
fn a_loader_loads_other_keys_while_the_server_is_down() {
    // The outer load has the only permit.
    let one = cut_off(1);
    let menu = one.get_or_load("menu", || Ok::<_, ()>(load(&one, "tea", "3") + "!"));
    assert_eq!(menu.unwrap(), "3!");
    let menus = one.get_or_load_many(&["lunch"], |_| Ok::<_, ()>(vec![load(&one, "coffee", "4") + "!"]));
    assert_eq!(menus.unwrap(), ["4!"]);
}

#[test]
fn a_removal_while_the_server_is_down_is_replayed() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    assert!(one.set("tea", "old".into()));
    lock(&memory.0).down = true;
    assert!(!one.remove("tea"));
    assert_eq!(one.stats().unconfirmed, 1);
    lock(&memory.0).down = false;
    until(|| one.stats().unconfirmed == 0);
    until(|| other.get("tea").is_none());
    assert_eq!(load(&one, "tea", "new"), "new");
}

#[test]
fn a_removal_without_an_answer_blocks_its_key() {
    let memory = Memory::default();
    let one = cache(&memory);
    assert!(one.set("tea", "old".into()));
    lock(&memory.0).unanswered = 1;
    one.remove("tea");
    assert_eq!(one.get("tea"), None);
    until(|| one.stats().unconfirmed == 0);
}

#[test]
fn a_journal_is_replayed_when_the_cache_is_dropped() {
    let memory = Memory::default();
    let one = cache(&memory);
    assert!(one.set("tea", "old".into()));
    let name = one.name_of("tea").0;
    lock(&memory.0).unanswered = 1;
    one.remove("tea");
    drop(one);
    assert_eq!(lock(&memory.0).data.get(name.as_bytes()), None);
}

#[test]
fn bytes_that_are_no_frame_are_a_miss_and_are_replaced() {
    let memory = Memory::default();
    let one = cache(&memory);
    let name = one.name_of("tea").0;
    let frames: [&[u8]; 5] = [
        b"",
        b"x",
        &[0xff; 200],
        b"\xf1h\x01\x01",
        b"\xf1h\xff\x01................................................................",
    ];
    for frame in frames {
        lock(&memory.0).set(name.as_bytes(), frame);
        assert_eq!(one.get("tea"), None, "{frame:?}");
        assert_eq!(load(&one, "tea", "3"), "3");
        assert_eq!(cache(&memory).get("tea").as_deref(), Some("3"), "{frame:?}");
        assert!(one.remove("tea"));
    }
}

#[test]
fn a_value_of_another_key_with_the_same_hash_is_a_miss() {
    let memory = Memory::default();
    let one = cache(&memory);
    let (long, other) = ("x".repeat(300), "y".repeat(300));
    assert!(one.set(&long, "3".into()));
    assert_eq!(cache(&memory).get(&long).as_deref(), Some("3"));
    let frame = lock(&memory.0).data[one.name_of(&long).0.as_bytes()].clone();
    lock(&memory.0).set(one.name_of(&other).0.as_bytes(), &frame);
    assert_eq!(cache(&memory).get(&other), None);
}

#[test]
fn a_value_that_is_too_large_stays_in_tier_1() {
    let memory = Memory::default();
    let one: Texts = Tiered::builder("shop", "prices", memory.clone(), Bytes)
        .max_entries(100)
        .max_value(2)
        .build()
        .unwrap();
    assert_eq!(load(&one, "tea", "333"), "333");
    assert_eq!(cache(&memory).get("tea"), None);
    assert!(!one.set("tea", "444".into()));
    assert_eq!(cache(&memory).get("tea"), None);
}

#[test]
fn a_clear_and_a_tag_invalidate_what_they_concern() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    assert!(one.set_tagged("tea", "3".into(), Ttl::Default, &["menu"]));
    assert!(one.set("bill", "9".into()));
    assert_eq!(other.get("tea").as_deref(), Some("3"));
    assert!(one.invalidate_tag("menu"));
    assert_eq!(one.get("tea"), None);
    assert_eq!(one.get("bill").as_deref(), Some("9"));
    assert!(one.clear());
    assert_eq!(one.get("bill"), None);
    until(|| other.get("tea").is_none() && other.get("bill").is_none());
}

#[test]
fn an_expired_value_is_returned_if_its_load_fails() {
    let memory = Memory::default();
    let one: Texts = Tiered::builder("shop", "prices", memory, Bytes)
        .max_entries(100)
        .stale_if_error(Duration::from_secs(600))
        .build()
        .unwrap();
    assert!(one.set("tea", "3".into()));
    assert!(one.expire("tea"));
    assert_eq!(one.get_or_load("tea", || Err("no tea")).unwrap(), "3");
    assert_eq!(load(&one, "tea", "4"), "4");
}

#[test]
fn touch_gives_a_value_another_lifetime() {
    let memory = Memory::default();
    let (one, other) = (cache(&memory), cache(&memory));
    assert!(!one.touch("tea", Ttl::Default));
    assert!(one.set_tagged("tea", "3".into(), Ttl::After(Duration::from_secs(1_000)), &[]));
    let soft_end = |one: &Texts| {
        let name = one.name_of("tea").0;
        let frame = lock(&memory.0).data[name.as_bytes()].clone();
        u64::from_le_bytes(frame[24..32].try_into().unwrap())
    };
    let before = soft_end(&one);
    assert!(other.touch("tea", Ttl::After(Duration::from_secs(5_000))));
    assert!(soft_end(&one) > before + 3_000_000);
    assert_eq!(other.get("tea").as_deref(), Some("3"));
}

#[test]
fn settings_out_of_range_are_errors() {
    let build = |prefix: &str, timeout| {
        let builder: TieredBuilder<str, String> = Tiered::builder(prefix, "prices", Memory::default(), Bytes);
        builder.max_entries(10).timeout(timeout).build().err()
    };
    let second = Duration::from_secs(1);
    assert!(matches!(build("", second), Some(TieredError::Setting(_))));
    assert!(matches!(build("shop", Duration::ZERO), Some(TieredError::Setting(_))));
    assert!(build("shop", second).is_none());
    let unbounded: TieredBuilder<str, String> = Tiered::builder("shop", "prices", Memory::default(), Bytes);
    assert!(matches!(unbounded.build(), Err(TieredError::Cache(_))));
}
