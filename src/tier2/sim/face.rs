//! A process as a transport has to be: tier 1 with its marks, threads that drive operations, and the background thread.

use super::oracle::{Begun, Key};
use super::server::{Answer, Command};
use super::world::{Duty, MS, TIMEOUT, World};
use crate::tier2::{Action, Failure, Namespace, Operation, Parsed, Probe, Reply, Task, Tier, parse};
use std::collections::{BTreeMap, VecDeque};

/// What a user's thread does next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// get or get_or_load.
    Read(Key, bool),
    /// get_or_load_many.
    Many(Vec<Key>),
    /// Commits a new version to the source, then invalidates.
    Invalidate(Key),
    /// Commits a new version to the source, then sets it.
    Set(Key),
    Expire(Key),
    /// Commits new versions of all these keys, then clears the namespace, or the tag.
    Clear(Vec<Key>),
    Tag(Vec<Key>),
    Touch(Key),
    Sleep(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Hello,
    Answer,
    Tracking,
    Canary(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Waiting {
        connection: usize,
        request: u64,
        deadline: u64,
        wanted: Wanted,
    },
    Loading {
        until: u64,
    },
    Sleeping {
        until: u64,
        key: Option<Key>,
    },
    /// Another thread's load is awaited.
    Joined,
    Done,
}

impl State {
    pub(super) fn deadline(&self) -> Option<u64> {
        match *self {
            Self::Waiting { deadline, .. } => Some(deadline),
            Self::Loading { until } | Self::Sleeping { until, .. } => Some(until),
            _ => None,
        }
    }
}

/// One operation as its thread sees it.
pub(super) struct Call {
    pub(super) key: Key,
    pub(super) operation: Option<Operation>,
    pub(super) begun: Begun,
    /// What a change is about: versions of keys.
    pub(super) about: Vec<(Key, u64)>,
    failovers: u64,
    flights: Vec<u64>,
    pub(super) value: Option<(u64, u64)>,
    answer: Vec<u8>,
    joined: bool,
    slept: bool,
    drops: u32,
    pub(super) ended: bool,
}

pub(super) struct Fiber {
    /// The background thread of a node.
    pub(super) background: Option<u32>,
    pub(super) state: State,
    pub(super) steps: VecDeque<Step>,
    pub(super) calls: Vec<Call>,
    at: usize,
    pub(super) load_ms: u64,
    pub(super) load_fails: bool,
    /// Values that reads returned, and how.
    pub(super) results: Vec<(Key, Option<u64>, &'static str)>,
}

impl Fiber {
    pub(super) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            background: None,
            state: State::Ready,
            steps: steps.into_iter().collect(),
            calls: Vec::new(),
            at: 0,
            load_ms: 1,
            load_fails: false,
            results: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) version: u64,
    pub(super) loaded: u64,
    pub(super) until: u64,
}

#[derive(Clone, Debug)]
struct Flight {
    id: u64,
    key: Key,
    whole: bool,
    /// Those who join get the value only if tier 2 confirmed it.
    confirmed_only: bool,
    waiters: Vec<(usize, usize)>,
}

pub(super) struct Process {
    pub(super) alive: bool,
    pub(super) stopped: bool,
    pub(super) tier: Tier,
    pub(super) namespace: Namespace,
    pub(super) entries: BTreeMap<Key, Entry>,
    flights: Vec<Flight>,
    next_flight: u64,
    pub(super) fibers: Vec<Fiber>,
    idle: BTreeMap<u32, Vec<usize>>,
    pub(super) tracking: BTreeMap<u32, usize>,
    /// For the controls: what a thread last knew.
    trusted: bool,
    wrote_at: BTreeMap<Key, u64>,
}

/// Keys of the simulation; those from 8 on lie on the second node, if there is one, and odd ones have the tag.
pub(super) fn key_text(key: Key) -> Vec<u8> {
    format!("k{key}").into_bytes()
}

/// Which key it is; none for generations, claims and canaries.
pub(super) fn key_of(text: &[u8]) -> Option<Key> {
    std::str::from_utf8(text.strip_prefix(b"k")?).ok()?.parse().ok()
}

pub(super) fn payload(bytes: &[u8]) -> Option<(u64, u64)> {
    let (version, loaded) = (bytes.first_chunk::<8>()?, bytes.get(8..)?.first_chunk::<8>()?);
    Some((u64::from_le_bytes(*version), u64::from_le_bytes(*loaded)))
}

fn encoded(value: (u64, u64)) -> Vec<u8> {
    [value.0.to_le_bytes(), value.1.to_le_bytes()].concat()
}

impl Process {
    pub(super) fn runs(&self) -> bool {
        self.alive && !self.stopped
    }

    /// Whether a thread of the process is there to take what comes through the connection.
    pub(super) fn receives(&self, connection: usize) -> bool {
        if let Some((node, _)) = self.tracking.iter().find(|(_, tracking)| **tracking == connection) {
            let bus = self.fibers.iter().find(|fiber| fiber.background == Some(*node));
            return bus.is_some_and(|bus| matches!(bus.state, State::Sleeping { .. }));
        }
        true
    }

    fn drop_key(&mut self, key: Key) {
        self.entries.remove(&key);
        self.void(key, None);
    }

    fn void(&mut self, key: Key, but: Option<u64>) {
        for flight in self
            .flights
            .iter_mut()
            .filter(|flight| flight.key == key && Some(flight.id) != but)
        {
            flight.whole = false;
        }
    }

    fn void_all(&mut self) {
        self.flights.iter_mut().for_each(|flight| flight.whole = false);
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.void_all();
    }

    fn open(&mut self, key: Key, confirmed_only: bool) -> u64 {
        self.void(key, None);
        self.next_flight += 1;
        let id = self.next_flight;
        self.flights.push(Flight {
            id,
            key,
            whole: true,
            confirmed_only,
            waiters: Vec::new(),
        });
        id
    }

    fn is_whole(&self, flight: Option<&u64>) -> bool {
        flight.is_some_and(|id| self.flights.iter().any(|flight| flight.id == *id && flight.whole))
    }

    fn wake(&mut self, key: Key) {
        for fiber in &mut self.fibers {
            if matches!(fiber.state, State::Sleeping { key: Some(awaited), .. } if awaited == key) {
                fiber.state = State::Ready;
            }
        }
    }
}

impl World {
    pub(super) fn node_of(&self, key: Key) -> u32 {
        if key >= 8 && self.masters.len() > 1 { 1 } else { 0 }
    }

    /// Adds a process with its background threads.
    pub(super) fn spawn(&mut self) -> usize {
        let seed = 0xA000 + self.processes.len() as u64;
        let tier = Tier::new(seed, self.options.settings);
        self.add_process(tier)
    }

    pub(super) fn add_process(&mut self, tier: Tier) -> usize {
        tier.0.lock().controls.turn_off(&self.options.mends_off);
        let namespace = Namespace::new(&tier, self.options.namespace);
        let fibers = (0..self.masters.len() as u32).map(|node| {
            namespace.set_generation(node, format!("g{node}").as_bytes());
            let mut fiber = Fiber::new([]);
            fiber.background = Some(node);
            fiber
        });
        let fibers = fibers.collect();
        self.processes.push(Process {
            alive: true,
            stopped: false,
            tier,
            namespace,
            entries: BTreeMap::new(),
            flights: Vec::new(),
            next_flight: 0,
            fibers,
            idle: BTreeMap::new(),
            tracking: BTreeMap::new(),
            trusted: true,
            wrote_at: BTreeMap::new(),
        });
        self.processes.len() - 1
    }

    /// Starts a thread in a process.
    pub(super) fn start(&mut self, process: usize, steps: impl IntoIterator<Item = Step>) -> usize {
        self.processes[process].fibers.push(Fiber::new(steps));
        self.processes[process].fibers.len() - 1
    }

    /// The child of a fork: what tier 1 held is there, threads are not.
    pub(super) fn fork(&mut self, parent: usize) -> usize {
        let tier = if self.has(Duty::TierPerProcess) {
            Tier::new(0xA000 + self.processes.len() as u64, self.options.settings)
        } else {
            self.processes[parent].tier.duplicate()
        };
        let child = self.add_process(tier);
        self.processes[child].entries = self.processes[parent].entries.clone();
        // What the parent's changes promise, they promise to the parent: it has the journal.
        self.note(|| format!("p{parent} forks p{child}"));
        child
    }

    pub(super) fn kill(&mut self, process: usize) {
        self.note(|| format!("p{process} dies"));
        self.processes[process].alive = false;
        for connection in &mut self.connections {
            if connection.process == process {
                connection.closed = true;
            }
        }
    }

    fn bound(&self, process: usize, node: u32) -> u64 {
        let (settings, namespace) = (self.options.settings, self.options.namespace);
        let slack = 250 * MS;
        let report = self.processes[process].tier.nodes(self.now).get(node as usize).copied();
        let Some(report) = report else {
            return settings.max_lag + slack;
        };
        slack
            + match (report.link, report.bus) {
                (_, "none") => namespace.local_ttl,
                ("down", _) => namespace.local_ttl + settings.max_lag,
                (_, "unsynced" | "lost") => namespace.unsynced_ttl.max(settings.max_lag),
                _ => settings.max_lag,
            }
    }

    fn begin_call(&self, process: usize, key: Key) -> Call {
        let bound = self.bound(process, self.node_of(key));
        Call {
            key,
            operation: None,
            begun: self.oracle.begin(process, key, bound, self.now),
            about: Vec::new(),
            failovers: self.oracle.failovers,
            flights: Vec::new(),
            value: None,
            answer: Vec::new(),
            joined: false,
            slept: false,
            drops: 0,
            ended: false,
        }
    }

    // Threads.

    pub(super) fn run_fiber(&mut self, process: usize, number: usize) {
        let fiber = &mut self.processes[process].fibers[number];
        if fiber.calls.iter().any(|call| !call.ended) {
            return self.continue_calls(process, number);
        }
        fiber.calls.clear();
        if let Some(node) = fiber.background {
            return self.run_background(process, number, node);
        }
        let Some(step) = fiber.steps.pop_front() else {
            fiber.state = State::Done;
            return;
        };
        self.note(|| format!("p{process}.{number} {step:?}"));
        let now = self.now;
        let namespace = self.processes[process].namespace.clone();
        let change = |world: &mut Self, keys: &[Key]| {
            let mut call = world.begin_call(process, keys[0]);
            call.about = keys.iter().map(|&key| (key, world.oracle.commit(key, now))).collect();
            call
        };
        let calls = match step {
            Step::Sleep(ms) => {
                let until = now + ms * MS;
                self.processes[process].fibers[number].state = State::Sleeping { until, key: None };
                return;
            }
            Step::Read(key, load) => vec![self.read(process, number, 0, key, load)],
            Step::Many(keys) => {
                let calls = keys.iter().enumerate();
                calls.map(|(at, &key)| self.read(process, number, at, key, true)).collect()
            }
            Step::Invalidate(key) => {
                let mut call = change(self, &[key]);
                call.operation = Some(namespace.remove(&key_text(key), self.node_of(key), now));
                vec![call]
            }
            Step::Expire(key) => {
                // With a grace, the old value may be served on.
                let graceful = self.longest(true) > self.longest(false);
                let mut call = if graceful { self.begin_call(process, key) } else { change(self, &[key]) };
                call.operation = Some(namespace.expire(&key_text(key), self.node_of(key), now));
                vec![call]
            }
            Step::Touch(key) => {
                let mut call = self.begin_call(process, key);
                let ttl = self.options.namespace.ttl;
                call.operation = Some(namespace.touch(&key_text(key), self.node_of(key), now, ttl));
                self.oracle.touched(key, now);
                vec![call]
            }
            Step::Set(key) => {
                let mut call = change(self, &[key]);
                call.value = Some((call.about[0].1, now));
                call.operation = Some(namespace.write(&key_text(key), self.node_of(key), now, 0, &tags(key)));
                vec![call]
            }
            Step::Clear(keys) => {
                let mut call = change(self, &keys);
                call.operation = Some(namespace.bump(None, self.node_of(keys[0]), now));
                vec![call]
            }
            Step::Tag(keys) => {
                let mut call = change(self, &keys);
                call.operation = Some(namespace.bump(Some(b"odd"), self.node_of(keys[0]), now));
                vec![call]
            }
        };
        let fiber = &mut self.processes[process].fibers[number];
        fiber.calls = calls;
        fiber.at = 0;
        if fiber.calls.is_empty() {
            return;
        }
        self.continue_calls(process, number);
    }

    /// A read: from tier 1, from another thread's load, or by an operation.
    fn read(&mut self, process: usize, number: usize, at: usize, key: Key, load: bool) -> Call {
        let mut call = self.begin_call(process, key);
        let (now, node) = (self.now, self.node_of(key));
        let canaries = self.has(Duty::Canary);
        let (by_clock, join_by_clock) = (self.has(Duty::TrustByClock), self.has(Duty::JoinByClock));
        let one = &mut self.processes[process];
        let trusted = match (by_clock, canaries) {
            (_, false) => !one.tracking.is_empty(),
            (true, _) => now <= one.tier.trust().hits_until(),
            (false, _) => one.trusted,
        };
        if let Some(entry) = one.entries.get(&key).filter(|entry| trusted && now < entry.until) {
            let value = (entry.version, entry.loaded);
            one.fibers[number].results.push((key, Some(value.0), "tier 1"));
            let longest = self.longest(false);
            self.note(|| format!("p{process}.{number} k{key} v{} from tier 1", value.0));
            self.oracle.read(process, key, &call.begun, value, longest, now);
            call.ended = true;
            return call;
        }
        let joins = !join_by_clock || now <= one.tier.trust().joins_until();
        if let Some(flight) = one
            .flights
            .iter_mut()
            .find(|flight| joins && flight.key == key && flight.whole)
        {
            flight.waiters.push((number, at));
            call.joined = true;
            return call;
        }
        call.flights.push(one.open(key, false));
        call.operation = Some(one.namespace.read(&key_text(key), node, now, load, &tags(key)));
        call
    }

    fn longest(&self, stale: bool) -> u64 {
        let namespace = &self.options.namespace;
        let grace = if stale {
            namespace.stale_while_revalidate.max(namespace.stale_if_error)
        } else {
            0
        };
        namespace.ttl + grace + 500 * MS
    }

    /// Drives what is left of a thread's calls: never waits while it leads.
    fn continue_calls(&mut self, process: usize, number: usize) {
        loop {
            let careful = self.has(Duty::NeverWaitWhileLeading);
            let now = self.now;
            let fiber = &mut self.processes[process].fibers[number];
            let Some(_) = fiber.calls.iter().find(|call| !call.ended) else {
                fiber.state = State::Ready;
                return;
            };
            let waits =
                |call: &Call| call.joined || call.operation.as_ref().is_some_and(|one| one.action() == Action::Wait);
            let loads = |call: &Call| call.operation.as_ref().is_some_and(|one| one.action() == Action::Load);
            let open = |call: &&Call| !call.ended;
            let find = |is: &dyn Fn(&Call) -> bool| fiber.calls.iter().position(|call| open(&call) && is(call));
            let runs = find(&|call| !waits(call) && !loads(call));
            let next = match (runs, careful) {
                (Some(at), _) => at,
                (None, true) => find(&loads).or(find(&waits)).expect("one is left"),
                (None, false) => find(&waits).or(find(&loads)).expect("one is left"),
            };
            fiber.at = next;
            let call = &mut fiber.calls[next];
            if call.joined {
                fiber.state = State::Joined;
                return;
            }
            if let Some(one) = call.operation.as_mut().filter(|one| one.action() == Action::Wait) {
                let key = call.key;
                if now < one.until() && !call.slept {
                    call.slept = true;
                    fiber.state = State::Sleeping {
                        until: one.until(),
                        key: Some(key),
                    };
                    return;
                }
                call.slept = false;
                one.step(now);
                continue;
            }
            if self.drive(process, number, next) {
                return;
            }
        }
    }

    /// Performs one action. Returns whether the thread has to wait now.
    fn drive(&mut self, process: usize, number: usize, at: usize) -> bool {
        let now = self.now;
        let call = &mut self.processes[process].fibers[number].calls[at];
        let key = call.key;
        let operation = call.operation.as_mut().expect("driven");
        let (action, node) = (operation.action(), operation.node());
        match action {
            Action::DropLocal => {
                let all = operation.key().starts_with(b"g");
                operation.step(now);
                call.drops += 1;
                if call.drops == 1 || self.has(Duty::DropTwice) {
                    let one = &mut self.processes[process];
                    if all { one.clear() } else { one.drop_key(key) }
                }
                false
            }
            Action::Load => {
                call.value = Some((self.oracle.version(key), 0));
                self.loads[key] += 1;
                let fiber = &mut self.processes[process].fibers[number];
                fiber.state = State::Loading {
                    until: now + fiber.load_ms * MS,
                };
                self.note(|| format!("p{process}.{number} loads k{key}"));
                true
            }
            Action::Probe => match self.connect(process, node) {
                Some(connection) => {
                    let request = self.send(connection, Command::Hello, Vec::new());
                    self.wait_for(process, number, connection, request, Wanted::Hello)
                }
                None => {
                    self.processes[process].tier.probe_failed(node, Failure::Refused, now);
                    self.operation(process, number, at).step(now);
                    false
                }
            },
            _ if action.is_command() => {
                if action.is_marked() {
                    self.mark(process, number, at, action);
                }
                self.send_command(process, number, at, node)
            }
            _ => {
                self.end(process, number, at);
                false
            }
        }
    }

    fn operation(&mut self, process: usize, number: usize, at: usize) -> &mut Operation {
        self.processes[process].fibers[number].calls[at]
            .operation
            .as_mut()
            .expect("driven")
    }

    fn mark(&mut self, process: usize, number: usize, at: usize, action: Action) {
        let renews = self.has(Duty::MarkPerRequest);
        let one = &mut self.processes[process];
        let call = &one.fibers[number].calls[at];
        let key = call.key;
        if one.is_whole(call.flights.last()) || !(renews || call.flights.is_empty()) {
            return;
        }
        let flight = one.open(key, matches!(action, Action::Fill | Action::Put));
        one.fibers[number].calls[at].flights.push(flight);
    }

    fn wait_for(&mut self, process: usize, number: usize, connection: usize, request: u64, wanted: Wanted) -> bool {
        let deadline = self.now + TIMEOUT;
        self.processes[process].fibers[number].state = State::Waiting {
            connection,
            request,
            deadline,
            wanted,
        };
        true
    }

    /// Takes a connection of the present epoch, or opens one.
    fn take(&mut self, process: usize, node: u32) -> Option<(usize, bool)> {
        let epoch = self.processes[process].tier.epoch(node);
        while let Some(connection) = self.processes[process].idle.entry(node).or_default().pop() {
            let one = &mut self.connections[connection];
            // A client sees that a connection was closed when it uses it next.
            if one.epoch == epoch && !one.closed && !(one.dead && !one.hold_down) {
                return Some((connection, true));
            }
            one.closed = true;
        }
        self.connect(process, node).map(|connection| (connection, false))
    }

    fn send_command(&mut self, process: usize, number: usize, at: usize, node: u32) -> bool {
        let now = self.now;
        let Some((connection, known)) = self.take(process, node) else {
            self.operation(process, number, at).failed(now, Failure::Refused);
            return false;
        };
        if !known {
            let request = self.send(connection, Command::Hello, Vec::new());
            return self.wait_for(process, number, connection, request, Wanted::Hello);
        }
        self.send_on(process, number, at, connection)
    }

    fn send_on(&mut self, process: usize, number: usize, at: usize, connection: usize) -> bool {
        let call = &mut self.processes[process].fibers[number].calls[at];
        let value = call.value;
        let about = call.about.clone();
        let operation = call.operation.as_mut().expect("driven");
        if operation.action() == Action::Put {
            operation.sending(connection as u64 + 1);
        }
        let mut command = command(operation, value);
        if operation.action() == Action::Fill && self.options.duties_off.contains(&Duty::ConditionalFill)
            && let Command::Swap { key, value, px, .. } = command
        {
            command = Command::Set { key, value, px: Some(px), not_after: 0 };
        }
        let request = self.send(connection, command, about);
        self.wait_for(process, number, connection, request, Wanted::Answer)
    }

    // Answers.

    pub(super) fn received(&mut self, connection: usize, request: u64, answer: Answer) {
        let process = self.connections[connection].process;
        let tracks = self.processes[process]
            .tracking
            .values()
            .any(|tracking| *tracking == connection);
        if tracks && (request == 0 || matches!(answer, Answer::Pong(_))) {
            return self.pushed(process, connection, answer);
        }
        let awaiting = |state: &State| matches!(state, State::Waiting { connection: c, request: r, .. } if *c == connection && (*r == request || request == 0));
        let number = self.processes[process]
            .fibers
            .iter()
            .position(|fiber| awaiting(&fiber.state));
        if matches!(answer, Answer::Reset) {
            self.connections[connection].closed = true;
        }
        let Some(number) = number else { return };
        let State::Waiting { wanted, .. } = self.processes[process].fibers[number].state else {
            unreachable!()
        };
        self.processes[process].fibers[number].state = State::Ready;
        self.answered(process, number, connection, wanted, answer);
    }

    fn answered(&mut self, process: usize, number: usize, connection: usize, wanted: Wanted, answer: Answer) {
        let now = self.now;
        let node = self.connections[connection].node;
        let broken = matches!(answer, Answer::Reset);
        if !broken && wanted != Wanted::Tracking {
            let idle = self.processes[process].idle.entry(node).or_default();
            if wanted != Wanted::Hello {
                idle.push(connection);
            }
        }
        match wanted {
            Wanted::Hello => self.greeted(process, number, connection, (!broken).then_some(answer)),
            Wanted::Answer => {
                let fiber = &mut self.processes[process].fibers[number];
                let at = fiber.at;
                let call = &mut fiber.calls[at];
                let operation = call.operation.as_mut().expect("driven");
                let epoch = self.connections[connection].epoch;
                let valued = matches!(operation.action(), Action::Get | Action::Acquire | Action::Claim);
                match &answer {
                    Answer::Value(value) => _ = operation.reply(now, epoch, Reply::Value(value.as_deref())),
                    Answer::Claim(won, value) => _ = operation.reply(now, epoch, Reply::Claim(*won, value.as_deref())),
                    Answer::Flag(done) => _ = operation.reply(now, epoch, Reply::Flag(*done)),
                    Answer::Error(failure) => _ = operation.failed(now, *failure),
                    _ => _ = operation.failed(now, Failure::Timeout),
                }
                if valued && let Answer::Value(value) | Answer::Claim(_, value) = answer {
                    // What the operation's offset refers to.
                    call.answer = value.unwrap_or_default();
                }
                self.serve_stale(process, number, at);
                self.continue_calls(process, number);
            }
            Wanted::Tracking => {
                if let Answer::Flag(true) = answer {
                    self.processes[process].tracking.insert(node, connection);
                    if !self.has(Duty::ClearAfterCanary) {
                        self.processes[process].clear();
                    }
                    self.processes[process].tier.connected(node, now);
                } else {
                    self.connections[connection].closed = true;
                    self.processes[process].tier.disconnected(node, now);
                }
            }
            Wanted::Canary(canary) => {
                let epoch = self.connections[connection].epoch;
                let tier = &self.processes[process].tier;
                match answer {
                    Answer::Flag(_) => tier.canary_written(node, canary, epoch, now),
                    Answer::Error(failure) => tier.canary_failed(node, canary, failure, now),
                    _ => tier.canary_failed(node, canary, Failure::Timeout, now),
                }
            }
        }
    }

    /// An expired value is served as soon as the load may begin.
    fn serve_stale(&mut self, process: usize, number: usize, at: usize) {
        let call = &self.processes[process].fibers[number].calls[at];
        let operation = call.operation.as_ref().expect("driven");
        if operation.action() != Action::Load || !operation.serves_stale() {
            return;
        }
        let Some(value) = payload(call.answer.get(operation.offset()..).unwrap_or_default()) else { return };
        let (key, begun) = (call.key, call.begun.clone());
        self.processes[process].fibers[number].results.push((key, Some(value.0), "stale"));
        let (longest, now) = (self.longest(true), self.now);
        self.oracle.read(process, key, &begun, value, longest, now);
    }

    /// A new connection knows who the node is.
    fn greeted(&mut self, process: usize, number: usize, connection: usize, answer: Option<Answer>) {
        let now = self.now;
        let node = self.connections[connection].node;
        let sent = self.connections[connection].opened;
        let Some(Answer::Hello { identity, server_ms }) = answer else {
            self.connections[connection].closed = true;
            return self.not_greeted(process, number, node, Failure::Refused);
        };
        let can_fence = self.servers[self.connections[connection].server].fences;
        let prefix = format!("!can:{process}:");
        let probe = Probe {
            identity: &identity,
            server_ms,
            sent,
            can_fence,
            canary_prefix: prefix.as_bytes(),
        };
        let epoch = self.processes[process].tier.probed(node, &probe, now);
        self.connections[connection].epoch = epoch;
        let fiber = &mut self.processes[process].fibers[number];
        let at = fiber.at;
        if fiber.calls.get(at).is_some_and(|call| !call.ended) {
            let operation = fiber.calls[at].operation.as_mut().expect("driven");
            if operation.action() == Action::Probe {
                operation.step(now);
                self.processes[process].idle.entry(node).or_default().push(connection);
                return self.continue_calls(process, number);
            }
            self.send_on(process, number, at, connection);
            return;
        }
        self.processes[process].idle.entry(node).or_default().push(connection);
    }

    fn not_greeted(&mut self, process: usize, number: usize, node: u32, failure: Failure) {
        let now = self.now;
        let fiber = &mut self.processes[process].fibers[number];
        let at = fiber.at;
        if fiber.calls.get(at).is_some_and(|call| !call.ended) {
            let operation = fiber.calls[at].operation.as_mut().expect("driven");
            if operation.action() == Action::Probe {
                self.processes[process].tier.probe_failed(node, failure, now);
                self.operation(process, number, at).step(now);
            } else {
                operation.failed(now, failure);
            }
            return self.continue_calls(process, number);
        }
        self.processes[process].tier.probe_failed(node, failure, now);
    }

    pub(super) fn expire_timer(&mut self, process: usize, number: usize) {
        let now = self.now;
        match self.processes[process].fibers[number].state {
            State::Waiting { connection, wanted, .. } => {
                self.connections[connection].closed = true;
                self.processes[process].fibers[number].state = State::Ready;
                self.note(|| format!("p{process}.{number} times out on c{connection}"));
                match wanted {
                    Wanted::Hello => {
                        let node = self.connections[connection].node;
                        self.not_greeted(process, number, node, Failure::Refused);
                    }
                    _ => self.answered(process, number, connection, wanted, Answer::Reset),
                }
            }
            State::Loading { .. } => {
                let fiber = &mut self.processes[process].fibers[number];
                fiber.state = State::Ready;
                let (at, fails) = (fiber.at, fiber.load_fails);
                let call = &mut fiber.calls[at];
                let operation = call.operation.as_mut().expect("driven");
                if fails {
                    call.value = None;
                    operation.load_failed(now);
                } else {
                    call.value = call.value.map(|(version, _)| (version, now));
                    operation.loaded(now, 0, crate::tier2::Kind::Value);
                }
            }
            State::Sleeping { .. } => self.processes[process].fibers[number].state = State::Ready,
            _ => {}
        }
    }

    // The end of an operation.

    fn end(&mut self, process: usize, number: usize, at: usize) {
        let (now, failovers) = (self.now, self.oracle.failovers);
        let one = &mut self.processes[process];
        let call = &mut one.fibers[number].calls[at];
        call.ended = true;
        let operation = call.operation.take().expect("driven");
        let (key, action) = (call.key, operation.action());
        let flights = std::mem::take(&mut call.flights);
        let (keep, stored) = (operation.keep_until(), operation.is_stored());
        let about = std::mem::take(&mut call.about);
        let answered = payload(call.answer.get(operation.offset()..).unwrap_or_default());
        let value = match action {
            Action::Hit | Action::Stale => answered,
            Action::Deliver | Action::Done => call.value,
            _ => None,
        };
        let (begun, since) = (call.begun.clone(), call.failovers);
        let is_replay = one.fibers[number].background.is_some();
        if operation.frame().len() == 16 && !is_replay && action == Action::Done {
            self.oracle.touched(key, now);
        }
        let is_change = !about.is_empty() || matches!(action, Action::Done | Action::Unconfirmed);
        // Tier 1, in one step with the check of the mark.
        let whole = one.is_whole(flights.last()) || self.options.duties_off.contains(&Duty::MarkChecked);
        if let Some((version, loaded)) = value {
            if action == Action::Done {
                one.void(key, flights.last().copied());
                one.entries.remove(&key);
            }
            if keep > now && whole {
                one.entries.insert(
                    key,
                    Entry {
                        version,
                        loaded,
                        until: keep,
                    },
                );
                one.wrote_at.insert(key, now);
            } else if action == Action::Done {
                one.drop_key(key);
            }
        }
        let mut waiters = Vec::new();
        for id in &flights {
            if let Some(position) = one.flights.iter().position(|flight| flight.id == *id) {
                let flight = one.flights.swap_remove(position);
                let serves = !flight.confirmed_only || stored;
                waiters.extend(flight.waiters.into_iter().map(|waiter| (waiter, serves)));
            }
        }
        one.wake(key);
        self.note(|| {
            format!(
                "p{process}.{number} k{key} {action:?} {value:?} keep {}",
                keep.saturating_sub(now) / MS
            )
        });
        if is_replay {
            if action == Action::Done && since == failovers {
                for (key, version) in about {
                    self.oracle.confirmed(key, version);
                }
            }
            return;
        }
        if is_change {
            for (key, version) in about {
                self.oracle.returned(process, key, version);
                if action == Action::Done && stored && since == failovers {
                    self.oracle.confirmed(key, version);
                }
            }
            self.give(process, key, waiters, value, false);
            return;
        }
        let how = match action {
            Action::Hit => "tier 2",
            Action::Deliver => "loaded",
            Action::Stale => "stale",
            Action::Failed => "failed",
            _ => "none",
        };
        let fiber = &mut self.processes[process].fibers[number];
        fiber.results.push((key, value.map(|(version, _)| version), how));
        if let Some(value) = value {
            // A thread that was stopped between the load and its return is its own affair.
            let longest = if action == Action::Deliver { u64::MAX } else { self.longest(action == Action::Stale) };
            self.oracle.read(process, key, &begun, value, longest, now);
        }
        self.give(process, key, waiters, value, action == Action::Stale);
    }

    /// Those who joined get the value, or try again.
    fn give(
        &mut self,
        process: usize,
        key: Key,
        waiters: Vec<((usize, usize), bool)>,
        value: Option<(u64, u64)>,
        stale: bool,
    ) {
        let now = self.now;
        let longest = if stale { self.longest(true) } else { u64::MAX };
        for ((number, at), serves) in waiters {
            let fiber = &mut self.processes[process].fibers[number];
            let Some(call) = fiber.calls.get_mut(at).filter(|call| call.joined && !call.ended) else {
                continue;
            };
            call.joined = false;
            let begun = call.begun.clone();
            if fiber.state == State::Joined {
                fiber.state = State::Ready;
            }
            if serves && let Some(value) = value {
                call.ended = true;
                fiber.results.push((key, Some(value.0), "joined"));
                self.oracle.read(process, key, &begun, value, longest, now);
                continue;
            }
            // Again, as a read that began when it did.
            let mut again = self.read(process, number, at, key, true);
            again.begun = begun;
            self.processes[process].fibers[number].calls[at] = again;
        }
    }

    // The background thread.

    /// What comes through the tracking connection.
    fn pushed(&mut self, process: usize, connection: usize, answer: Answer) {
        let (now, node) = (self.now, self.connections[connection].node);
        // What a master said before a failover may be about writes that are lost.
        let is_master = self.masters[node as usize] == self.connections[connection].server;
        let all_count = self.has(Duty::EveryMessageRemoves);
        let one = &mut self.processes[process];
        match answer {
            Answer::Push(text, about) => {
                let armed = one.tier.nodes(now)[node as usize].bus == "armed";
                let tier = one.tier.clone();
                tier.messages(node, [&*text], |text| {
                    if text.starts_with(b"g") {
                        one.clear();
                        return;
                    }
                    let Some(key) = key_of(text) else {
                        return;
                    };
                    let own = one.wrote_at.get(&key).is_some_and(|at| now < at + 100 * MS);
                    if all_count || !own {
                        one.drop_key(key);
                    }
                    one.wake(key);
                });
                if armed && is_master {
                    about
                        .iter()
                        .for_each(|&(key, version)| self.oracle.handled(process, key, version));
                }
            }
            Answer::Pong(number) => one.tier.pong(node, number, now),
            Answer::Flushed => one.tier.flushed(node, now),
            _ => {
                one.tracking.remove(&node);
                self.connections[connection].closed = true;
                one.tier.disconnected(node, now);
            }
        }
        let bus = self.processes[process]
            .fibers
            .iter_mut()
            .find(|fiber| fiber.background == Some(node));
        if let Some(bus) = bus
            && matches!(bus.state, State::Sleeping { .. })
        {
            bus.state = State::Ready;
        }
    }

    fn run_background(&mut self, process: usize, number: usize, node: u32) {
        let now = self.now;
        let tier = self.processes[process].tier.clone();
        let task = tier.background(node, now);
        self.processes[process].trusted = now <= tier.trust().hits_until();
        let sleep = |world: &mut Self, until| {
            world.processes[process].fibers[number].state = State::Sleeping { until, key: None };
        };
        match task {
            Task::Sleep(until) => sleep(self, until.max(now + 1)),
            Task::Probe | Task::Connect => match self.connect(process, node) {
                Some(connection) => {
                    let (command, wanted) = match task {
                        Task::Probe => (Command::Hello, Wanted::Hello),
                        _ => (Command::Subscribe, Wanted::Tracking),
                    };
                    let request = self.send(connection, command, Vec::new());
                    self.wait_for(process, number, connection, request, wanted);
                }
                None if task == Task::Probe => tier.probe_failed(node, Failure::Refused, now),
                None => tier.disconnected(node, now),
            },
            Task::Close => {
                if let Some(connection) = self.processes[process].tracking.remove(&node) {
                    self.connections[connection].closed = true;
                }
                tier.disconnected(node, now);
            }
            Task::Canary(canary) => match self.take(process, node) {
                Some((connection, true)) => {
                    let key = tier.canary_key(node);
                    let request = self.send(connection, Command::Canary(key), Vec::new());
                    self.wait_for(process, number, connection, request, Wanted::Canary(canary));
                }
                Some((connection, false)) => {
                    // The probe first; the canary is then asked for again.
                    tier.canary_failed(node, canary, Failure::NotSent, now);
                    let request = self.send(connection, Command::Hello, Vec::new());
                    self.wait_for(process, number, connection, request, Wanted::Hello);
                }
                None => tier.canary_failed(node, canary, Failure::Refused, now),
            },
            Task::Ping(ping) => {
                if let Some(&connection) = self.processes[process].tracking.get(&node) {
                    self.send(connection, Command::Ping(ping), Vec::new());
                }
            }
            Task::Clear => {
                if !self.has(Duty::ClearVoidsLoads) {
                    self.processes[process].entries.clear();
                } else if self.has(Duty::ClearAfterCanary) {
                    self.processes[process].clear();
                }
                tier.cleared(node, now);
            }
            Task::DropLoads => {
                if self.has(Duty::ClearVoidsLoads) {
                    self.processes[process].void_all();
                }
                tier.loads_dropped(node, now);
            }
            Task::Operate => {
                let operation = tier.background_operation(node, now);
                if let Some(operation) = operation {
                    let mut call = self.begin_call(process, 0);
                    if operation.expected().is_empty() {
                        // A replay is about all changes of the process that have returned.
                        let (all, tagged) = (operation.key().len() == 2, operation.key().ends_with(b":odd"));
                        let concerns = |key: &Key| {
                            key_text(*key) == operation.key() || tagged && key % 2 == 1 || all && operation.key()[0] == b'g'
                        };
                        let keys = (0..self.loads.len()).filter(|key| self.node_of(*key) == node && concerns(key));
                        call.about = keys.map(|key| (key, self.oracle.floor(process, key))).collect();
                    }
                    call.operation = Some(operation);
                    let fiber = &mut self.processes[process].fibers[number];
                    fiber.calls = vec![call];
                    fiber.at = 0;
                    self.continue_calls(process, number);
                } else {
                    sleep(self, now + MS);
                }
            }
        }
    }
}

fn tags(key: Key) -> Vec<&'static [u8]> {
    if key % 2 == 1 { vec![b"odd"] } else { Vec::new() }
}

fn command(operation: &Operation, value: Option<(u64, u64)>) -> Command {
    let key = operation.target().to_vec();
    let (frame, expected, px) = (
        operation.frame().to_vec(),
        operation.expected().to_vec(),
        operation.px(),
    );
    let new = || [operation.head(0, 0), encoded(value.expect("loaded"))].concat();
    match operation.action() {
        Action::Get => Command::Get(key),
        Action::Acquire => Command::SetNxGet {
            key,
            value: frame,
            px: Some(px),
        },
        Action::Swap => Command::Swap {
            key,
            expected,
            value: frame,
            px,
        },
        Action::Fill => Command::Swap {
            key,
            expected,
            value: new(),
            px,
        },
        Action::Put => Command::Set {
            key,
            value: new(),
            px: Some(px),
            not_after: operation.not_after(),
        },
        Action::Release => Command::Release { key, expected },
        Action::Remove => Command::Remove(key),
        Action::Expire => Command::Expire {
            key,
            stamp: frame,
            soft_end: operation.soft_end(),
        },
        Action::Touch => Command::Touch {
            key,
            expected,
            stamp: frame,
            soft_end: operation.soft_end(),
            px,
        },
        Action::Bump => Command::Set {
            key,
            value: frame,
            px: None,
            not_after: 0,
        },
        Action::ReadGeneration => Command::SetNxGet {
            key,
            value: frame,
            px: None,
        },
        Action::Claim => Command::Claim {
            target: key,
            token: frame,
            px,
            key: operation.key().to_vec(),
        },
        Action::Fence => Command::Kill(operation.connection() as usize - 1),
        other => unreachable!("{other:?} is no command of the simulation"),
    }
}

impl World {
    /// What every server holds is checked after every step.
    pub(super) fn check_servers(&mut self) {
        for node in 0..self.masters.len() {
            let server = &self.servers[self.masters[node]];
            let generation = |key: &str| server.data.get(key.as_bytes()).map(|item| item.value.clone());
            let own = generation(&format!("g{node}"));
            let mut held = Vec::new();
            for (text, item) in &server.data {
                let Some(key) = key_of(text) else {
                    continue;
                };
                let Parsed::Frame(frame) = parse(&item.value) else {
                    continue;
                };
                let graceful = self.longest(true) > self.longest(false);
                let expired = !graceful && frame.soft_end <= server.wall_ms(self.now);
                let live = !expired
                    && own.as_deref() == Some(&frame.generation)
                    && frame.tags().all(|(tag, stamp)| {
                        generation(&format!("g{node}:{}", String::from_utf8_lossy(tag))).as_deref() == Some(&stamp)
                    });
                if live && let Some((version, _)) = payload(&item.value[frame.offset..]) {
                    held.push((key, version));
                }
            }
            for (key, version) in held {
                self.oracle.holds(key, version);
            }
        }
    }
}
