//! Threads as a transport has to be: they drive operations, and open marks in tier 1.

use super::oracle::Key;
use super::process::{Call, State, Step, Wanted, encoded, key_of, key_text, payload};
use super::server::Command;
use super::world::{Duty, MS, TIMEOUT, World};
use crate::tier2::memcached::{Exchange, Protocol};
use crate::tier2::{Action, Failure, Operation, Parsed, parse, slot};

impl World {
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
        let node_of = |world: &Self, key: Key| world.node_of(process, &key_text(key));
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
                calls
                    .map(|(at, &key)| self.read(process, number, at, key, true))
                    .collect()
            }
            Step::Invalidate(key) => {
                let mut call = change(self, &[key]);
                call.operation = Some(namespace.remove(&key_text(key), node_of(self, key), now));
                vec![call]
            }
            Step::Expire(key) => {
                // With a grace, the old value may be served on.
                let graceful = self.longest(true) > self.longest(false);
                let mut call = if graceful {
                    self.begin_call(process, key)
                } else {
                    change(self, &[key])
                };
                call.operation = Some(namespace.expire(&key_text(key), node_of(self, key), now));
                vec![call]
            }
            Step::Touch(key) => {
                let mut call = self.begin_call(process, key);
                let ttl = self.options.namespace.ttl;
                call.operation = Some(namespace.touch(&key_text(key), node_of(self, key), now, ttl));
                self.oracle.touched(key, now);
                vec![call]
            }
            Step::Set(key) => {
                let mut call = change(self, &[key]);
                call.value = Some((call.about[0].1, now));
                call.operation = Some(namespace.write(&key_text(key), node_of(self, key), now, 0, &tags(key)));
                vec![call]
            }
            Step::Clear(keys) => self.bumps(process, &keys, None),
            Step::Tag(keys) => self.bumps(process, &keys, Some(b"odd")),
        };
        let fiber = &mut self.processes[process].fibers[number];
        fiber.calls = calls;
        fiber.at = 0;
        if fiber.calls.is_empty() {
            return;
        }
        self.continue_calls(process, number);
    }

    /// Commits new versions of the keys, and bumps each generation that their values carry.
    fn bumps(&mut self, process: usize, keys: &[Key], tag: Option<&[u8]>) -> Vec<Call> {
        let now = self.now;
        let namespace = self.processes[process].namespace.clone();
        let about: Vec<(Key, u64)> = keys.iter().map(|&key| (key, self.oracle.commit(key, now))).collect();
        let names = self.generations.clone();
        let mut calls = Vec::new();
        for (group, name) in names.iter().enumerate() {
            let mine = about.iter().filter(|(key, _)| self.group_of(*key) == group);
            let mut call = self.begin_call(process, keys[0]);
            call.about = mine.copied().collect();
            let node = self.node_of(process, name);
            call.operation = Some(namespace.bump(tag, group as u32, node, now));
            calls.push(call);
        }
        calls
    }

    /// A read: from tier 1, from another thread's load, or by an operation.
    pub(super) fn read(&mut self, process: usize, number: usize, at: usize, key: Key, load: bool) -> Call {
        let mut call = self.begin_call(process, key);
        let (now, node) = (self.now, self.node_of(process, &key_text(key)));
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

    pub(super) fn longest(&self, stale: bool) -> u64 {
        let namespace = &self.options.namespace;
        let grace = if stale {
            namespace.stale_while_revalidate.max(namespace.stale_if_error)
        } else {
            0
        };
        namespace.ttl + grace + 500 * MS
    }

    /// Drives what is left of a thread's calls: never waits while it leads.
    pub(super) fn continue_calls(&mut self, process: usize, number: usize) {
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
    pub(super) fn drive(&mut self, process: usize, number: usize, at: usize) -> bool {
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

    pub(super) fn operation(&mut self, process: usize, number: usize, at: usize) -> &mut Operation {
        self.processes[process].fibers[number].calls[at]
            .operation
            .as_mut()
            .expect("driven")
    }

    pub(super) fn mark(&mut self, process: usize, number: usize, at: usize, action: Action) {
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

    pub(super) fn wait_for(
        &mut self,
        process: usize,
        number: usize,
        connection: usize,
        request: u64,
        wanted: Wanted,
    ) -> bool {
        let deadline = self.now + TIMEOUT;
        self.processes[process].fibers[number].state = State::Waiting {
            connection,
            request,
            deadline,
            wanted,
        };
        true
    }

    /// Takes a connection of the current epoch, or opens one.
    pub(super) fn take(&mut self, process: usize, node: u32) -> Option<(usize, bool)> {
        let epoch = self.processes[process].tier.epoch(node);
        while let Some(connection) = self.processes[process].idle.entry(node).or_default().pop() {
            let one = &mut self.connections[connection];
            // A client sees that a connection was closed when it uses it next.
            if one.epoch == epoch && !one.closed && (!one.dead || one.hold_down) {
                return Some((connection, true));
            }
            one.closed = true;
        }
        self.connect(process, node).map(|connection| (connection, false))
    }

    pub(super) fn send_command(&mut self, process: usize, number: usize, at: usize, node: u32) -> bool {
        let now = self.now;
        let Some((connection, known)) = self.take(process, node) else {
            self.processes[process].fibers[number].calls[at].exchange = None;
            self.operation(process, number, at).failed(now, Failure::Refused);
            return false;
        };
        if !known {
            let request = self.send(connection, Command::Hello, Vec::new());
            return self.wait_for(process, number, connection, request, Wanted::Hello);
        }
        self.send_on(process, number, at, connection)
    }

    /// Sends the next commands of the action in progress on memcached.
    fn send_exchange(&mut self, process: usize, number: usize, at: usize, connection: usize) -> bool {
        let (puts_under_cas, by_connection) = (self.has(Duty::PutUnderCas), self.has(Duty::CasOfConnection));
        let one = &mut self.processes[process];
        let call = &mut one.fibers[number].calls[at];
        let about = call.about.clone();
        let operation = call.operation.as_ref().expect("driven");
        let value = || [operation.head(0, 0), encoded(call.value.expect("loaded"))].concat();
        let value = matches!(operation.action(), Action::Fill | Action::Put).then(value);
        let exchange = call
            .exchange
            .get_or_insert_with(|| Exchange::new(operation, operation.target(), operation.key(), value.as_deref()));
        // Connections are numbered in the order in which they were opened.
        let serial = if by_connection { connection as u64 } else { 0 };
        let mut commands = exchange.requests(Protocol::Meta, serial, &one.numbers);
        if operation.action() == Action::Put && !puts_under_cas {
            let value = value.expect("of a write");
            let line = format!(
                "ms {} {} T9\r\n",
                String::from_utf8_lossy(operation.target()),
                value.len()
            );
            commands = vec![[line.as_bytes(), &value, b"\r\n"].concat()];
        }
        let request = self.send(connection, Command::Memcached(commands), about);
        self.wait_for(process, number, connection, request, Wanted::Answer)
    }

    pub(super) fn send_on(&mut self, process: usize, number: usize, at: usize, connection: usize) -> bool {
        if self.options.memcached {
            return self.send_exchange(process, number, at, connection);
        }
        let call = &mut self.processes[process].fibers[number].calls[at];
        let value = call.value;
        let about = call.about.clone();
        let asking = std::mem::take(&mut call.asking);
        let operation = call.operation.as_mut().expect("driven");
        if operation.action() == Action::Put {
            operation.sending(connection as u64 + 1);
        }
        let mut command = command(operation, value);
        if operation.action() == Action::Fill
            && self.options.duties_off.contains(&Duty::ConditionalFill)
            && let Command::Swap { key, value, px, .. } = command
        {
            command = Command::Set {
                key,
                value,
                px: Some(px),
                not_after: 0,
            };
        }
        let request = self.send_asking(connection, command, about, asking);
        self.wait_for(process, number, connection, request, Wanted::Answer)
    }
}

fn tags(key: Key) -> Vec<&'static [u8]> {
    if key % 2 == 1 { vec![b"odd"] } else { Vec::new() }
}

pub(super) fn command(operation: &Operation, value: Option<(u64, u64)>) -> Command {
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
            let mut held = Vec::new();
            for (text, item) in &server.data {
                let Some(key) = key_of(text) else {
                    continue;
                };
                // What is left of a slot that was given away is read by no process.
                if self.place(slot(text)).node != node as u32 {
                    continue;
                }
                let Parsed::Frame(frame) = parse(&item.value) else {
                    continue;
                };
                let name = &self.generations[self.group_of(key)];
                let generation = |key: &[u8]| {
                    let place = self.place(slot(key));
                    let held = |node: u32| self.servers[self.masters[node as usize]].data.get(key);
                    held(place.node)
                        .or(place.to.and_then(held))
                        .map(|item| item.value.clone())
                };
                let graceful = self.longest(true) > self.longest(false);
                let expired = !graceful && frame.soft_end <= server.wall_ms(self.now);
                let live = !expired
                    && generation(name).as_deref() == Some(&frame.generation)
                    && frame
                        .tags()
                        .all(|(tag, stamp)| generation(&[name, &b":"[..], tag].concat()).as_deref() == Some(&stamp));
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
