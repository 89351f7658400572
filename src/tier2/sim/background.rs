//! The background thread, and what comes through its tracking connection.

use super::oracle::Key;
use super::process::{State, Wanted, key_of, key_text};
use super::server::{Answer, Command};
use super::world::{Duty, MS, World};
use crate::tier2::{Failure, Task};

impl World {
    // The background thread.

    /// What comes through the tracking connection.
    pub(super) fn pushed(&mut self, process: usize, connection: usize, answer: Answer) {
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

    pub(super) fn run_background(&mut self, process: usize, number: usize, node: u32) {
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
                    // The probe first; the canary is then due again.
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
                        let base = operation.key().strip_suffix(b":odd").unwrap_or(operation.key());
                        let tagged = base.len() < operation.key().len();
                        let concerns = |key: &Key| {
                            let is_of_group = || *self.generations[self.group_of(*key)] == *base;
                            key_text(*key) == operation.key() || is_of_group() && (!tagged || key % 2 == 1)
                        };
                        let keys = (0..self.loads.len()).filter(concerns);
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
