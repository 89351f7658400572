//! One process's part of a second tier: connections, the commands that are sent on them, threads.

use super::background;
use super::clock::now;
use super::transport::{Answer, Command, Connection, Failure, Greeting, Tier2};
use super::waiters::{LoadLimit, Waiters};
use crate::prim::sync::{Mutex, MutexGuard};
use crate::tier2::{Action, Operation, Probe, Reply, Tier};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A connection that was idle for longer is checked before it is used.
const MAX_UNCHECKED: Duration = Duration::from_secs(1);

/// The most idle connections to a server.
const MAX_IDLE: usize = 64;

/// Locks for short steps, in which no code of the caller's runs, so that nothing is half changed
/// when a lock is poisoned.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection, and the epoch of the server when it was opened.
struct Pooled {
    connection: Box<dyn Connection>,
    server: u32,
    epoch: u32,
    number: u64,
    /// When it was given back.
    used: Instant,
}

/// What a change on a server means for the first tier.
pub(super) trait Local: Send + Sync {
    /// Removes the entry with this name, and invalidates its load.
    fn remove(&self, name: &[u8]);
    /// Removes all entries, and invalidates all loads.
    fn clear(&self);
    /// Invalidates all loads.
    fn invalidate_loads(&self);
}

pub(super) struct Session {
    pub(super) tier: Tier,
    pub(super) transport: Arc<dyn Tier2>,
    pub(super) local: Box<dyn Local>,
    pub(super) waiters: Waiters,
    pub(super) loads: LoadLimit,
    pub(super) settings: SessionSettings,
    pub(super) stopped: AtomicBool,
    /// The process that built the cache. Changed by a test only.
    pub(super) pid: AtomicU32,
    /// Idle connections, by server.
    idle: Mutex<Vec<Vec<Pooled>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The number of servers that have a thread.
    listened: Mutex<u32>,
    #[cfg(feature = "async")]
    pub(super) pool: super::pool::Pool,
    /// Whether each server that is known has keys.
    known: Mutex<Vec<bool>>,
}

/// Settings of a [`Session`].
pub(super) struct SessionSettings {
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) max_loads: usize,
    /// What the keys of the cache begin with, those of its generations, and those of canaries.
    pub(super) prefixes: [Vec<u8>; 3],
    /// The keys of the cache's generations: those of tags continue with a colon.
    pub(super) generations: Vec<Vec<u8>>,
}

impl Session {
    pub(super) fn new(tier: Tier, transport: Arc<dyn Tier2>, local: Box<dyn Local>, settings: SessionSettings) -> Self {
        Self {
            tier,
            transport,
            local,
            waiters: Waiters::default(),
            loads: LoadLimit::new(settings.max_loads),
            settings,
            stopped: AtomicBool::new(false),
            pid: AtomicU32::new(std::process::id()),
            idle: Mutex::new(Vec::new()),
            threads: Mutex::new(Vec::new()),
            listened: Mutex::new(0),
            #[cfg(feature = "async")]
            pool: super::pool::Pool::default(),
            known: Mutex::new(Vec::new()),
        }
    }

    /// Returns whether this is the process that built the cache. Locks and connections of a parent
    /// are of no use in its child.
    pub(super) fn is_own(&self) -> bool {
        // Relaxed: nothing is published with it.
        self.pid.load(Ordering::Relaxed) == std::process::id()
    }

    // --- Threads.

    /// Starts a thread for each server that has none.
    pub(super) fn start_threads(self: &Arc<Self>) -> io::Result<()> {
        let servers = self.transport.servers().max(1);
        let mut listened = lock(&self.listened);
        while *listened < servers {
            let server = *listened;
            self.start_thread(move |session| background::run(session, server))?;
            *listened += 1;
        }
        Ok(())
    }

    /// Starts a thread that ends when the cache does.
    pub(super) fn start_thread(self: &Arc<Self>, run: impl FnOnce(Arc<Self>) + Send + 'static) -> io::Result<()> {
        let session = self.clone();
        let mut threads = lock(&self.threads);
        if !self.stopped.load(Ordering::Relaxed) {
            let thread = std::thread::Builder::new().name("hotset-tier2".into());
            threads.push(thread.spawn(move || run(session))?);
        }
        Ok(())
    }

    /// Ends the threads, each of which replays what is left to its server.
    pub(super) fn stop_threads(&self) {
        // Release pairs with the Acquire of the background threads: they see the journal.
        self.stopped.store(true, Ordering::Release);
        #[cfg(feature = "async")]
        self.pool.stop();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A thread itself drops the last handle if a listener of it had that one.
            if thread.thread().id() != std::thread::current().id() {
                _ = thread.join();
            }
        }
    }

    /// Follows what the transport has learnt of its servers.
    pub(super) fn follow(&self) {
        // The transport may be the program's own code, which runs outside the lock.
        let servers = 0..self.transport.servers().max(1);
        let serving: Vec<_> = servers.map(|server| self.transport.is_serving(server)).collect();
        let mut known = lock(&self.known);
        for (server, serving) in serving.into_iter().enumerate() {
            if server == known.len() {
                if server > 0 {
                    self.tier.joined(server as u32, now());
                }
                known.push(true);
            }
            if known[server] != serving {
                known[server] = serving;
                self.tier.set_serving(server as u32, serving, now());
            }
        }
    }

    /// Returns the server that has the key.
    pub(super) fn server_of(&self, key: &[u8]) -> u32 {
        // Others would be unknown to the core.
        self.transport
            .server_of(key)
            .min(self.transport.servers().saturating_sub(1))
    }

    // --- Connections.

    fn greeted(&self, server: u32, greeting: &Greeting, sent: u64) -> u32 {
        let canary_prefix = [&*self.settings.prefixes[2], &self.transport.tag_of(server)].concat();
        let probe = Probe {
            identity: &greeting.identity,
            server_ms: greeting.server_ms,
            sent,
            can_fence: greeting.can_fence,
            canary_prefix: &canary_prefix,
        };
        self.tier.probed(server, &probe, now())
    }

    fn connect(&self, server: u32) -> Result<Pooled, Failure> {
        let sent = now();
        let deadline = Instant::now() + self.settings.connect_timeout;
        let (connection, greeting) = self.transport.connect(server, deadline)?;
        let epoch = self.greeted(server, &greeting, sent);
        Ok(Pooled {
            connection,
            server,
            epoch,
            number: greeting.connection,
            used: Instant::now(),
        })
    }

    /// Connects to learn the server's identity, and reports the outcome to the core.
    pub(super) fn probe(&self, server: u32) {
        // Idle connections may be of an older epoch, and a server may allow only a few.
        self.close_idle(server);
        match self.connect(server) {
            Ok(pooled) => self.give_back(pooled),
            Err(failure) => self.tier.probe_failed(server, failure, now()),
        }
    }

    fn take(&self, server: u32) -> Result<Pooled, Failure> {
        loop {
            let idle = lock(&self.idle).get_mut(server as usize).and_then(Vec::pop);
            let mut pooled = match idle {
                Some(pooled) => pooled,
                None => self.connect(server)?,
            };
            if pooled.epoch != self.tier.epoch(server) {
                continue;
            }
            // A command on a connection that was closed in between would have an unknown outcome.
            let deadline = Instant::now() + self.settings.timeout;
            if pooled.used.elapsed() < MAX_UNCHECKED || pooled.connection.ping(deadline).is_ok() {
                return Ok(pooled);
            }
            // The others were idle for longer.
            self.close_idle(server);
        }
    }

    fn give_back(&self, mut pooled: Pooled) {
        pooled.used = Instant::now();
        let mut idle = lock(&self.idle);
        let at = pooled.server as usize;
        if idle.len() <= at {
            idle.resize_with(at + 1, Vec::new);
        }
        if idle[at].len() < MAX_IDLE && !self.stopped.load(Ordering::Relaxed) {
            idle[at].push(pooled);
        } else {
            drop(idle);
            drop(pooled);
        }
    }

    pub(super) fn close_idle(&self, server: u32) {
        let idle = lock(&self.idle).get_mut(server as usize).map(std::mem::take);
        drop(idle);
    }

    /// Keeps or closes a connection, after a command on it failed or did not.
    fn after_use(&self, pooled: Pooled, failure: Option<Failure>) {
        match failure {
            // The rest of a late answer would be taken for that of the next command.
            Some(Failure::Timeout) => drop(pooled),
            Some(Failure::ReadOnly | Failure::Refused) => {
                let server = pooled.server;
                drop(pooled);
                self.close_idle(server);
            }
            _ => self.give_back(pooled),
        }
    }

    /// Takes a connection of the current epoch.
    fn connection(&self, server: u32) -> Result<Pooled, Failure> {
        if !self.is_own() {
            // A loader that forks may return in the child: the parent reads from the connections.
            return Err(Failure::Refused);
        }
        self.take(server).map_err(|failure| match failure {
            // Nothing was sent that counts, whatever the greeting's outcome was.
            Failure::Timeout => Failure::Refused,
            failure => failure,
        })
    }

    /// Executes a command on a connection of the current epoch. Returns that epoch, and the answer
    /// or the failure.
    pub(super) fn execute(&self, server: u32, command: &Command<'_>) -> (u32, Result<Answer, Failure>) {
        let mut pooled = match self.connection(server) {
            Ok(pooled) => pooled,
            Err(failure) => return (0, Err(failure)),
        };
        let epoch = pooled.epoch;
        let answer = pooled
            .connection
            .execute(command, Instant::now() + self.settings.timeout);
        self.after_use(pooled, answer.as_ref().err().copied());
        (epoch, answer)
    }

    // --- Commands of operations.

    /// Performs the command of an operation, and reports its outcome.
    pub(super) fn command(&self, request: &mut Request) {
        let server = request.operation.node();
        let mut pooled = match self.connection(server) {
            Ok(pooled) => pooled,
            Err(failure) => return self.report(request, 0, Err(failure)),
        };
        request.operation.sending(pooled.number);
        let deadline = Instant::now() + self.settings.timeout;
        let answer = pooled.connection.execute(&request.command(), deadline);
        let epoch = pooled.epoch;
        self.after_use(pooled, answer.as_ref().err().copied());
        self.report(request, epoch, answer);
    }

    /// Performs the commands of operations on one server in one packet, and reports their outcomes.
    pub(super) fn commands(&self, server: u32, requests: &mut [&mut Request]) {
        let mut pooled = match self.connection(server) {
            Ok(pooled) => pooled,
            Err(failure) => return requests.iter_mut().for_each(|one| self.report(one, 0, Err(failure))),
        };
        for request in &mut *requests {
            request.operation.sending(pooled.number);
        }
        let commands: Vec<_> = requests.iter().map(|request| request.command()).collect();
        let deadline = Instant::now() + self.settings.timeout;
        let mut answers = pooled.connection.execute_many(&commands, deadline);
        // A transport of the program's may return too few.
        answers.resize(commands.len(), Err(Failure::Timeout));
        let unusable = |failure: &Failure| matches!(failure, Failure::Timeout | Failure::ReadOnly | Failure::Refused);
        let mut failures = answers.iter().filter_map(|answer| answer.as_ref().err());
        let failure = failures.find(|failure| unusable(failure)).copied();
        let epoch = pooled.epoch;
        self.after_use(pooled, failure);
        for (request, answer) in requests.iter_mut().zip(answers) {
            self.report(request, epoch, answer);
        }
    }

    fn report(&self, request: &mut Request, epoch: u32, answer: Result<Answer, Failure>) {
        let operation = &mut request.operation;
        let action = operation.action();
        match answer {
            Err(failure) => {
                if failure == Failure::Moved {
                    self.follow();
                    operation.set_node(self.server_of(operation.target()));
                }
                operation.failed(now(), failure);
            }
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
                    request.reply = value;
                }
            }
        }
    }

    // --- Changes.

    /// Applies a change of a key to the first tier, and wakes the callers that wait for it.
    pub(super) fn apply(&self, key: &[u8]) {
        let is_generation = |name: &Vec<u8>| matches!(key.strip_prefix(&**name), Some([] | [b':', ..]));
        let may_be = key.starts_with(&self.settings.prefixes[1]);
        if may_be && self.settings.generations.iter().any(is_generation) {
            self.local.clear();
        } else {
            self.local.remove(key);
        }
        self.waiters.wake(key);
    }

    /// Applies a change that the program learned by other means than the bus.
    pub(super) fn changed(&self, name: &[u8]) {
        if name.starts_with(&self.settings.prefixes[2]) {
            // Only the bus proves by canaries what has arrived.
            return;
        }
        let server = self.server_of(name);
        // The core forgets a generation, and names the other keys.
        let mut changed = Vec::new();
        self.tier.messages(server, [name], |key| changed.push(key));
        changed.into_iter().for_each(|key| self.apply(key));
    }

    /// The same of all keys.
    pub(super) fn all_changed(&self) {
        for generation in &self.settings.generations {
            self.changed(generation);
        }
        self.local.clear();
        self.waiters.wake_all();
    }

    /// Drives an operation to its end that has no caller: a renewal, or a replay of the journal.
    pub(super) fn maintain(&self, operation: Operation) {
        let mut request = Request::new(operation);
        loop {
            match request.operation.action() {
                action if action.is_command() => self.command(&mut request),
                action if action.is_end() => return,
                Action::Probe => {
                    self.probe(request.operation.node());
                    request.operation.step(now());
                }
                Action::Wait => {
                    self.waiters.wait(request.operation.key(), request.operation.until());
                    request.operation.step(now());
                }
                _ => {
                    self.apply(request.operation.key());
                    request.operation.step(now());
                }
            }
        }
    }
}

/// An operation with the bytes that its commands carry and bring.
pub(super) struct Request {
    pub(super) operation: Operation,
    /// The whole new frame of a fill or a put.
    pub(super) frame: Vec<u8>,
    /// The value that was read last.
    pub(super) reply: Vec<u8>,
}

impl Request {
    pub(super) fn new(operation: Operation) -> Self {
        Self {
            operation,
            frame: Vec::new(),
            reply: Vec::new(),
        }
    }

    /// Returns the command of the operation's action.
    fn command(&self) -> Command<'_> {
        let Self { operation, frame, .. } = self;
        let (key, expected) = (operation.target(), operation.expected());
        let (stamp, px) = (operation.frame(), operation.px());
        match operation.action() {
            Action::Get => Command::Get { key },
            Action::Acquire => Command::Acquire { key, frame: stamp, px },
            Action::Swap => Command::Swap {
                key,
                expected,
                frame: stamp,
                px,
            },
            Action::Fill => Command::Swap {
                key,
                expected,
                frame,
                px,
            },
            Action::Put => Command::Put {
                key,
                frame,
                px,
                not_after: operation.not_after(),
            },
            Action::Release => Command::Release { key, expected },
            Action::Remove => Command::Remove { key },
            Action::Expire => Command::Expire {
                key,
                stamp,
                soft_end: operation.soft_end(),
            },
            Action::Touch => Command::Touch {
                key,
                expected,
                stamp,
                soft_end: operation.soft_end(),
                px,
            },
            Action::Bump => Command::Bump { key, stamp },
            Action::ReadGeneration => Command::Acquire {
                key,
                frame: stamp,
                px: 0,
            },
            Action::Claim => Command::Claim {
                claim: key,
                stamp,
                px,
                key: operation.key(),
            },
            Action::Fence => Command::Fence {
                connection: operation.connection(),
            },
            action => unreachable!("{action:?} is no command of a cache"),
        }
    }
}
