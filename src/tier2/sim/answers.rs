//! Answers, timers, and the ends of operations.

use super::oracle::Key;
use super::process::{Entry, State, Wanted, payload};
use super::server::Answer;
use super::world::{Duty, MS, World};
use crate::tier2::memcached::Outcome;
use crate::tier2::memcached::Step::{Again, End};
use crate::tier2::{Action, Failure, Probe, Reply, slot};

impl World {
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

    pub(super) fn answered(
        &mut self,
        process: usize,
        number: usize,
        connection: usize,
        wanted: Wanted,
        answer: Answer,
    ) {
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
                let exchange = call.exchange.take();
                let answer = match (exchange, answer) {
                    (Some(mut exchange), Answer::Memcached(replies)) => {
                        let puts = operation.action() == Action::Put && replies.len() == 1;
                        let replies: Vec<&[u8]> = replies.iter().map(|reply| &**reply).collect();
                        match exchange.replies(&replies, &self.processes[process].numbers) {
                            // Of the control that puts without a comparison.
                            _ if puts && !self.has(Duty::PutUnderCas) => Answer::Flag(true),
                            Again => {
                                self.processes[process].fibers[number].calls[at].exchange = Some(exchange);
                                let node = self.operation(process, number, at).node();
                                if !self.send_command(process, number, at, node) {
                                    self.continue_calls(process, number);
                                }
                                return;
                            }
                            End(Outcome::Value(value)) => Answer::Value(value),
                            End(Outcome::Flag(done)) => Answer::Flag(done),
                            End(Outcome::Claim(won, value)) => Answer::Claim(won, value),
                            End(Outcome::Failed(failure)) => Answer::Error(failure),
                        }
                    }
                    (_, answer) => answer,
                };
                let fiber = &mut self.processes[process].fibers[number];
                let call = &mut fiber.calls[at];
                let operation = call.operation.as_mut().expect("driven");
                let epoch = self.connections[connection].epoch;
                let action = operation.action();
                let mut told = None;
                let valued = matches!(action, Action::Get | Action::Acquire | Action::Claim);
                match &answer {
                    Answer::Value(value) => _ = operation.reply(now, epoch, Reply::Value(value.as_deref())),
                    Answer::Claim(won, value) => _ = operation.reply(now, epoch, Reply::Claim(*won, value.as_deref())),
                    Answer::Flag(done) => _ = operation.reply(now, epoch, Reply::Flag(*done)),
                    Answer::Error(failure) => _ = operation.failed(now, *failure),
                    Answer::Moved(to) | Answer::Ask(to) => {
                        let named = slot(operation.target());
                        operation.set_node(*to);
                        call.asking = operation.failed(now, Failure::Moved) == action;
                        call.asking &= matches!(answer, Answer::Ask(_));
                        told = matches!(answer, Answer::Moved(_)).then_some((named, *to));
                    }
                    _ => _ = operation.failed(now, Failure::Timeout),
                }
                if valued && let Answer::Value(value) | Answer::Claim(_, value) = answer {
                    // What the operation's offset refers to.
                    call.answer = value.unwrap_or_default();
                }
                self.processes[process].slots.extend(told);
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
    pub(super) fn serve_stale(&mut self, process: usize, number: usize, at: usize) {
        let call = &self.processes[process].fibers[number].calls[at];
        let operation = call.operation.as_ref().expect("driven");
        if operation.action() != Action::Load || !operation.serves_stale() {
            return;
        }
        let Some(value) = payload(call.answer.get(operation.offset()..).unwrap_or_default()) else {
            return;
        };
        let (key, begun) = (call.key, call.begun.clone());
        self.processes[process].fibers[number]
            .results
            .push((key, Some(value.0), "stale"));
        let (longest, now) = (self.longest(true), self.now);
        self.oracle.read(process, key, &begun, value, longest, now);
    }

    /// A new connection read the node's identity.
    pub(super) fn greeted(&mut self, process: usize, number: usize, connection: usize, answer: Option<Answer>) {
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

    pub(super) fn not_greeted(&mut self, process: usize, number: usize, node: u32, failure: Failure) {
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
                fiber.calls[at].exchange = None;
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

    pub(super) fn end(&mut self, process: usize, number: usize, at: usize) {
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
            let longest = if action == Action::Deliver {
                u64::MAX
            } else {
                self.longest(action == Action::Stale)
            };
            self.oracle.read(process, key, &begun, value, longest, now);
        }
        self.give(process, key, waiters, value, action == Action::Stale);
    }

    /// Threads that joined get the value, or try again.
    pub(super) fn give(
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
}
