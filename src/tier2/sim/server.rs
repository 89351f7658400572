//! A model of Redis: keys, expirations, scripts, tracking messages, eviction, failover. Where `cas`
//! is set, it is a memcached.

use super::memcached::{self, Cas};
use crate::tier2::{Failure, HEAD, Kind, Parsed, SOFT_END, parse};
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Debug)]
pub(in crate::tier2) struct Item {
    pub(in crate::tier2) value: Vec<u8>,
    pub(in crate::tier2) expires: Option<u64>,
}

pub(in crate::tier2) type Data = BTreeMap<Vec<u8>, Item>;

#[derive(Clone, Debug)]
pub(super) enum Command {
    Hello,
    Subscribe,
    Ping(u64),
    Canary(Vec<u8>),
    Get(Vec<u8>),
    SetNxGet {
        key: Vec<u8>,
        value: Vec<u8>,
        px: Option<u64>,
    },
    Swap {
        key: Vec<u8>,
        expected: Vec<u8>,
        value: Vec<u8>,
        px: u64,
    },
    Set {
        key: Vec<u8>,
        value: Vec<u8>,
        px: Option<u64>,
        not_after: u64,
    },
    Release {
        key: Vec<u8>,
        expected: Vec<u8>,
    },
    Remove(Vec<u8>),
    Expire {
        key: Vec<u8>,
        stamp: Vec<u8>,
        soft_end: u64,
    },
    Touch {
        key: Vec<u8>,
        expected: Vec<u8>,
        stamp: Vec<u8>,
        soft_end: u64,
        px: u64,
    },
    Claim {
        target: Vec<u8>,
        token: Vec<u8>,
        px: u64,
        key: Vec<u8>,
    },
    Kill(usize),
    /// What an exchange sends in one packet.
    Memcached(Vec<Vec<u8>>),
}

impl Command {
    /// The keys that decide which node executes it, in the order of its parts.
    pub(super) fn keys(&self) -> Vec<&[u8]> {
        match self {
            Self::Hello | Self::Subscribe | Self::Ping(_) | Self::Canary(_) | Self::Kill(_) | Self::Memcached(_) => {
                Vec::new()
            }
            Self::Claim { target, key, .. } => vec![target, key],
            Self::Get(key)
            | Self::SetNxGet { key, .. }
            | Self::Swap { key, .. }
            | Self::Set { key, .. }
            | Self::Release { key, .. }
            | Self::Remove(key)
            | Self::Expire { key, .. }
            | Self::Touch { key, .. } => vec![key],
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Answer {
    Hello {
        identity: Vec<u8>,
        server_ms: u64,
    },
    Value(Option<Vec<u8>>),
    Flag(bool),
    Claim(bool, Option<Vec<u8>>),
    Error(Failure),
    /// An invalidation, and which versions of the source it is about, as far as the simulation
    /// knows.
    Push(Vec<u8>, Vec<(usize, u64)>),
    Flushed,
    /// The key's slot is on another node.
    Moved(u32),
    /// The key's slot is on its way to another node, and the key is not here.
    Ask(u32),
    Pong(u64),
    /// Whole replies of memcached.
    Memcached(Vec<Vec<u8>>),
    Reset,
}

/// Switches of the model, and of what a transport sends: what a mend forbids.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) oom: bool,
    pub(super) refuses_bus: bool,
    /// UNLINK alone: an absent key is not announced.
    pub(super) silent_remove: bool,
    /// The soft expiration leaves leases alone.
    pub(super) expire_spares_leases: bool,
    /// Canaries are refused (no memory, no permission).
    pub(super) refuses_canary: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) alive: bool,
    pub(super) stopped: bool,
    pub(super) replica: bool,
    pub(super) identity: Vec<u8>,
    pub(super) data: Data,
    pub(super) trackers: Vec<usize>,
    /// What replicas may have: the newest is last.
    pub(super) past: VecDeque<Data>,
    pub(super) faults: Faults,
    /// Wall clock less true time, milliseconds.
    pub(super) clock: i64,
    pub(super) executed: u64,
    pub(super) fences: bool,
    /// It is a memcached, whose items have these CAS numbers.
    pub(super) cas: Option<Cas>,
}

impl Server {
    pub(super) fn new(identity: &str) -> Self {
        Self {
            alive: true,
            stopped: false,
            replica: false,
            identity: identity.into(),
            data: Data::new(),
            trackers: Vec::new(),
            past: VecDeque::new(),
            faults: Faults::default(),
            clock: 1_000_000,
            executed: 0,
            fences: true,
            cas: None,
        }
    }

    pub(super) fn wall_ms(&self, now: u64) -> u64 {
        u64::try_from((now / 1_000_000) as i64 + self.clock).unwrap()
    }

    /// Deletes what has expired, as the server does now and then: that is announced, late.
    pub(super) fn expire(&mut self, now: u64, pushes: &mut Vec<Vec<u8>>) {
        let wall = self.wall_ms(now);
        self.data.retain(|key, item| {
            let expired = item.expires.is_some_and(|at| at <= wall);
            if expired {
                pushes.push(key.clone());
            }
            !expired
        });
    }

    fn write(&mut self, key: &[u8], value: Vec<u8>, expires: Option<u64>, pushes: &mut Vec<Vec<u8>>) {
        self.data.insert(key.to_vec(), Item { value, expires });
        pushes.push(key.to_vec());
    }

    fn unlink(&mut self, key: &[u8], pushes: &mut Vec<Vec<u8>>) -> bool {
        let was = self.data.remove(key).is_some();
        if was {
            pushes.push(key.to_vec());
        }
        was
    }

    fn announce_removal(&mut self, key: &[u8], pushes: &mut Vec<Vec<u8>>) {
        if !self.unlink(key, pushes) && !self.faults.silent_remove {
            pushes.push(key.to_vec());
        }
    }

    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.data.get(key).map(|item| item.value.clone())
    }

    fn matches(&self, key: &[u8], expected: &[u8]) -> bool {
        self.data
            .get(key)
            .is_some_and(|item| item.value[..item.value.len().min(HEAD)] == *expected)
    }

    /// Executes one command. `pushes` are keys that are announced.
    pub(super) fn execute(
        &mut self,
        connection: usize,
        command: &Command,
        now: u64,
        pushes: &mut Vec<Vec<u8>>,
    ) -> Answer {
        self.expire(now, pushes);
        self.executed += 1;
        let wall = self.wall_ms(now);
        let reads = matches!(
            command,
            Command::Hello | Command::Subscribe | Command::Ping(_) | Command::Get(_) | Command::Kill(_)
        );
        if self.replica && !reads {
            return Answer::Error(Failure::ReadOnly);
        }
        let grows = matches!(
            command,
            Command::SetNxGet { .. }
                | Command::Swap { .. }
                | Command::Set { .. }
                | Command::Canary(_)
                | Command::Claim { .. }
        );
        if self.faults.oom && grows || self.faults.refuses_canary && matches!(command, Command::Canary(_)) {
            return Answer::Error(Failure::OutOfMemory);
        }
        if !reads {
            self.past.push_back(self.data.clone());
            if self.past.len() > 4 {
                self.past.pop_front();
            }
        }
        let expires = |px: u64| Some(wall + px.max(1));
        match command {
            Command::Hello => Answer::Hello {
                identity: self.identity.clone(),
                // memcached has whole seconds.
                server_ms: if self.cas.is_some() { wall / 1_000 * 1_000 } else { wall },
            },
            Command::Memcached(commands) => {
                let cas = self.cas.as_mut().expect("sent to a memcached");
                let full = self.faults.oom;
                let replies = commands.iter().map(|command| {
                    if full && command.starts_with(b"ms ") {
                        memcached::refuse(&mut self.data, command)
                    } else {
                        memcached::execute(&mut self.data, cas, command, wall)
                    }
                });
                Answer::Memcached(replies.collect())
            }
            Command::Subscribe if self.faults.refuses_bus => Answer::Error(Failure::NoPermission),
            Command::Subscribe => {
                self.trackers.push(connection);
                Answer::Flag(true)
            }
            Command::Ping(number) => Answer::Pong(*number),
            Command::Canary(key) => {
                self.write(key, Vec::new(), expires(30_000), pushes);
                Answer::Flag(true)
            }
            Command::Get(key) => Answer::Value(self.value(key)),
            Command::SetNxGet { key, value, px } => {
                let old = self.value(key);
                if old.is_none() {
                    self.write(key, value.clone(), px.and_then(expires), pushes);
                }
                Answer::Value(old)
            }
            Command::Swap {
                key,
                expected,
                value,
                px,
            } => {
                let swaps = self.matches(key, expected);
                if swaps {
                    self.write(key, value.clone(), expires(*px), pushes);
                }
                Answer::Flag(swaps)
            }
            Command::Set { not_after, .. } if *not_after != 0 && wall > *not_after => Answer::Flag(false),
            Command::Set { key, value, px, .. } => {
                self.write(key, value.clone(), px.and_then(expires), pushes);
                Answer::Flag(true)
            }
            Command::Release { key, expected } => {
                let is_it = self.data.get(key).is_some_and(|item| item.value == *expected);
                Answer::Flag(is_it && self.unlink(key, pushes))
            }
            Command::Remove(key) => {
                self.announce_removal(key, pushes);
                Answer::Flag(true)
            }
            Command::Expire { key, stamp, soft_end } => {
                let value = self.value(key);
                match value.as_deref().map(parse) {
                    Some(Parsed::Frame(frame)) if frame.kind == Kind::Value => {
                        let mut value = self.value(key).unwrap();
                        value[4..20].copy_from_slice(stamp);
                        value[SOFT_END..SOFT_END + 8].copy_from_slice(&soft_end.to_le_bytes());
                        let expires = self.data[key].expires;
                        self.write(key, value, expires, pushes);
                    }
                    Some(_) if self.faults.expire_spares_leases => {}
                    None if self.faults.expire_spares_leases => {}
                    _ => self.announce_removal(key, pushes),
                }
                Answer::Flag(true)
            }
            Command::Touch {
                key,
                expected,
                stamp,
                soft_end,
                px,
            } => {
                let is_it = self.matches(key, expected);
                if is_it {
                    let mut value = self.value(key).unwrap();
                    value[4..20].copy_from_slice(stamp);
                    value[SOFT_END..SOFT_END + 8].copy_from_slice(&soft_end.to_le_bytes());
                    self.write(key, value, expires(*px), pushes);
                }
                Answer::Flag(is_it)
            }
            Command::Claim { target, token, px, key } => {
                let won = !self.data.contains_key(target);
                if won {
                    self.write(target, token.clone(), expires(*px), pushes);
                }
                Answer::Claim(won, self.value(key))
            }
            Command::Kill(_) => Answer::Flag(self.fences),
        }
    }
}
