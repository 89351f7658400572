//! One process's part of a second tier: connections, waiters, and the limit of loads.

use super::clock::now;
use super::transport::{Answer, Command, Connection, Failure, Greeting, Tier2};
use crate::tier2::{Action, Operation, Probe, Reply, Tier};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The only server: clusters have more.
pub(super) const NODE: u32 = 0;

/// The number of groups, by key, of callers that wait for other processes' loads.
const SHARDS: usize = 16;

/// A connection that was idle for longer is checked before it is used.
const MAX_UNCHECKED: Duration = Duration::from_secs(1);

/// The most idle connections.
const MAX_IDLE: usize = 64;

/// Locks for short steps, in which no code of the caller's runs, so that nothing is half changed
/// when a lock is poisoned.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection, and the epoch of the server when it was opened.
struct Pooled {
    connection: Box<dyn Connection>,
    epoch: u32,
    number: u64,
    /// When it was given back.
    used: Instant,
}

/// What a change on the server means for the first tier.
pub(super) trait Local: Send + Sync {
    /// Removes the entry with this name, and invalidates its load.
    fn remove(&self, name: &[u8]);
    /// Removes all entries, and invalidates all loads.
    fn clear(&self);
    /// Invalidates all loads.
    fn invalidate_loads(&self);
}

/// Callers that wait for another process's load.
#[derive(Default)]
struct Waiters {
    /// How many changes woke them.
    changes: Mutex<u64>,
    changed: Condvar,
}

pub(super) struct Session {
    pub(super) tier: Tier,
    pub(super) transport: Arc<dyn Tier2>,
    pub(super) local: Box<dyn Local>,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) prefixes: [Vec<u8>; 3],
    /// How the key of the cache's generation begins: it is that, or continues with a colon.
    pub(super) generation: Vec<u8>,
    pub(super) stopped: AtomicBool,
    pid: u32,
    idle: Mutex<Vec<Pooled>>,
    waiters: [Waiters; SHARDS],
    /// Loads without a lease that may begin.
    loads: Mutex<usize>,
    load_ended: Condvar,
}

/// Settings of a [`Session`].
pub(super) struct SessionSettings {
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) max_loads: usize,
    /// What the keys of the cache begin with, those of its generations, and those of canaries.
    pub(super) prefixes: [Vec<u8>; 3],
}

impl Session {
    pub(super) fn new(tier: Tier, transport: Arc<dyn Tier2>, local: Box<dyn Local>, settings: SessionSettings) -> Self {
        Self {
            tier,
            transport,
            local,
            timeout: settings.timeout,
            connect_timeout: settings.connect_timeout,
            generation: settings.prefixes[1].clone(),
            prefixes: settings.prefixes,
            stopped: AtomicBool::new(false),
            pid: std::process::id(),
            idle: Mutex::new(Vec::new()),
            waiters: Default::default(),
            loads: Mutex::new(settings.max_loads),
            load_ended: Condvar::new(),
        }
    }

    /// Returns whether this is the process that built the cache. Locks and connections of a parent
    /// are of no use in its child.
    pub(super) fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    /// How the keys of this process's canaries begin.
    fn canary_prefix(&self) -> &[u8] {
        &self.prefixes[2]
    }

    fn greeted(&self, greeting: &Greeting, sent: u64) -> u32 {
        let probe = Probe {
            identity: &greeting.identity,
            server_ms: greeting.server_ms,
            sent,
            can_fence: greeting.can_fence,
            canary_prefix: self.canary_prefix(),
        };
        self.tier.probed(NODE, &probe, now())
    }

    fn connect(&self) -> Result<Pooled, Failure> {
        let sent = now();
        let deadline = Instant::now() + self.connect_timeout;
        let (connection, greeting) = self.transport.connect(deadline)?;
        let epoch = self.greeted(&greeting, sent);
        Ok(Pooled {
            connection,
            epoch,
            number: greeting.connection,
            used: Instant::now(),
        })
    }

    /// Connects to learn the server's identity, and reports the outcome to the core.
    pub(super) fn probe(&self) {
        // Idle connections may be of an older epoch, and a server may allow only a few.
        self.close_idle();
        match self.connect() {
            Ok(pooled) => self.give_back(pooled),
            Err(failure) => self.tier.probe_failed(NODE, failure, now()),
        }
    }

    fn take(&self) -> Result<Pooled, Failure> {
        loop {
            let idle = lock(&self.idle).pop();
            let mut pooled = match idle {
                Some(pooled) => pooled,
                None => self.connect()?,
            };
            if pooled.epoch != self.tier.epoch(NODE) {
                continue;
            }
            // A command on a connection that was closed in between would have an unknown outcome.
            if pooled.used.elapsed() < MAX_UNCHECKED || pooled.connection.ping(Instant::now() + self.timeout).is_ok() {
                return Ok(pooled);
            }
            // The others were idle for longer.
            self.close_idle();
        }
    }

    fn give_back(&self, mut pooled: Pooled) {
        pooled.used = Instant::now();
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE && !self.stopped.load(Ordering::Relaxed) {
            idle.push(pooled);
        } else {
            drop(idle);
            drop(pooled);
        }
    }

    pub(super) fn close_idle(&self) {
        let idle = std::mem::take(&mut *lock(&self.idle));
        drop(idle);
    }

    /// Executes a command on a connection of the current epoch. Returns that epoch, and the answer
    /// or the failure.
    pub(super) fn execute(&self, command: &Command<'_>, sending: impl FnOnce(u64)) -> (u32, Result<Answer, Failure>) {
        let mut pooled = match self.take() {
            Ok(pooled) => pooled,
            // Nothing was sent that counts, whatever the greeting's outcome was.
            Err(Failure::Timeout) => return (0, Err(Failure::Refused)),
            Err(failure) => return (0, Err(failure)),
        };
        sending(pooled.number);
        let epoch = pooled.epoch;
        let answer = pooled.connection.execute(command, Instant::now() + self.timeout);
        match answer {
            // The rest of a late answer would be taken for that of the next command.
            Err(Failure::Timeout) => drop(pooled),
            Err(Failure::ReadOnly | Failure::Refused) => {
                drop(pooled);
                self.close_idle();
            }
            _ => self.give_back(pooled),
        }
        (epoch, answer)
    }

    /// Performs the command of an operation, and reports its outcome. The bytes of a value that was
    /// read are left in `data`; `frame` is the whole new frame of a fill or a put.
    pub(super) fn command(&self, operation: &mut Operation, frame: &[u8], data: &mut Vec<u8>) {
        let action = operation.action();
        // Copies, so that the operation can note the connection while the command refers to them.
        let (target, expected) = (operation.target().to_vec(), operation.expected().to_vec());
        let (stamp, key) = (operation.frame().to_vec(), operation.key().to_vec());
        let (px, key) = (operation.px(), &*key);
        let command = match action {
            Action::Get => Command::Get { key: &target },
            Action::Acquire => Command::Acquire {
                key: &target,
                frame: &stamp,
                px,
            },
            Action::Swap => Command::Swap {
                key: &target,
                expected: &expected,
                frame: &stamp,
                px,
            },
            Action::Fill => Command::Swap {
                key: &target,
                expected: &expected,
                frame,
                px,
            },
            Action::Put => Command::Put {
                key: &target,
                frame,
                px,
                not_after: operation.not_after(),
            },
            Action::Release => Command::Release {
                key: &target,
                expected: &expected,
            },
            Action::Remove => Command::Remove { key: &target },
            Action::Expire => Command::Expire {
                key: &target,
                stamp: &stamp,
                soft_end: operation.soft_end(),
            },
            Action::Bump => Command::Bump {
                key: &target,
                stamp: &stamp,
            },
            Action::ReadGeneration => Command::Acquire {
                key: &target,
                frame: &stamp,
                px: 0,
            },
            Action::Claim => Command::Claim {
                claim: &target,
                stamp: &stamp,
                px,
                key,
            },
            Action::Fence => Command::Fence {
                connection: operation.connection(),
            },
            action => unreachable!("{action:?} is no command of a cache"),
        };
        let (epoch, answer) = self.execute(&command, |connection| operation.sending(connection));
        match answer {
            Err(failure) => _ = operation.failed(now(), failure),
            Ok(answer) => {
                let reply = match &answer {
                    Answer::Value(value) => Reply::Value(value.as_deref()),
                    Answer::Flag(done) => Reply::Flag(*done),
                    Answer::Claim(won, value) => Reply::Claim(*won, value.as_deref()),
                };
                operation.reply(now(), epoch, reply);
                if matches!(action, Action::Get | Action::Acquire | Action::Claim)
                    && let Answer::Value(Some(value)) | Answer::Claim(_, Some(value)) = answer
                {
                    *data = value;
                }
            }
        }
    }

    fn waiters(&self, key: &[u8]) -> &Waiters {
        let sum = key
            .iter()
            .fold(0usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        &self.waiters[sum % SHARDS]
    }

    /// Waits until then, or until a change that may be one of the key. (If it came before this
    /// call, the caller reads again at that time.)
    pub(super) fn wait(&self, key: &[u8], until: u64) {
        let waiters = self.waiters(key);
        let changes = lock(&waiters.changes);
        let before = *changes;
        let left = Duration::from_nanos(until.saturating_sub(now()));
        let unchanged = |changes: &mut u64| *changes == before;
        drop(waiters.changed.wait_timeout_while(changes, left, unchanged));
    }

    /// Wakes the callers that wait for another's load of the key.
    pub(super) fn wake(&self, key: &[u8]) {
        let waiters = self.waiters(key);
        *lock(&waiters.changes) += 1;
        waiters.changed.notify_all();
    }

    /// Wakes all callers that wait for another's load.
    pub(super) fn wake_all(&self) {
        for waiters in &self.waiters {
            *lock(&waiters.changes) += 1;
            waiters.changed.notify_all();
        }
    }

    /// Waits until one more load without a lease may begin.
    pub(super) fn begin_load(&self) -> LoadPermit<'_> {
        let mut free = lock(&self.loads);
        while *free == 0 {
            free = self.load_ended.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        LoadPermit(self)
    }

    /// Applies a change of a key to the first tier, and wakes the callers that wait for it.
    pub(super) fn apply(&self, key: &[u8]) {
        match key.strip_prefix(&*self.generation) {
            Some([] | [b':', ..]) => self.local.clear(),
            _ => self.local.remove(key),
        }
        self.wake(key);
    }

    /// Drives an operation that the core began by itself: a renewal, or a replay of the journal.
    pub(super) fn maintain(&self, mut operation: Operation) {
        let mut data = Vec::new();
        loop {
            match operation.action() {
                action if action.is_command() => self.command(&mut operation, &[], &mut data),
                action if action.is_end() => return,
                Action::Probe => {
                    self.probe();
                    operation.step(now());
                }
                Action::Wait => {
                    self.wait(operation.key(), operation.until());
                    operation.step(now());
                }
                _ => {
                    self.apply(operation.key());
                    operation.step(now());
                }
            }
        }
    }
}

/// The right to load without a lease.
pub(super) struct LoadPermit<'s>(&'s Session);

impl Drop for LoadPermit<'_> {
    fn drop(&mut self) {
        *lock(&self.0.loads) += 1;
        self.0.load_ended.notify_one();
    }
}
