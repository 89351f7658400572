//! What the named schedules are written in.

use super::process::{State, Step};
use super::server::Command;
use super::world::{Duty, Event, MS, Options, World, brief};
use crate::tier2::Rule;

/// A rule that can be turned off.
#[derive(Clone, Copy, Debug)]
pub(super) enum Off {
    Rule(Rule),
    Duty(Duty),
}

pub(super) fn options(off: &[Off]) -> Options {
    let mut options = Options::default();
    for one in off {
        match one {
            Off::Rule(rule) => _ = options.mends_off.insert(*rule),
            Off::Duty(duty) => _ = options.duties_off.insert(*duty),
        }
    }
    options
}

/// Runs a schedule with all rules, and with some turned off: the oracle accepts the first, and
/// rejects the second for `why`.
pub(super) fn needs(off: &[Off], why: &str, schedule: impl Fn(Options) -> World) {
    let with = schedule(options(&[]));
    assert_eq!(with.oracle.violation, None, "with all rules:\n{}", with.log.join("\n"));
    let without = schedule(options(off));
    let violation = without.oracle.violation.clone().unwrap_or_else(|| "none".into());
    assert!(
        violation.starts_with(why),
        "without {off:?} {why} should fail: {violation}\n{}",
        without.log.join("\n")
    );
}

/// The same for a schedule that returns whether it went well.
pub(super) fn needs_for(off: &[Off], schedule: impl Fn(Options) -> bool) {
    assert!(schedule(options(&[])), "with all rules");
    assert!(!schedule(options(off)), "without {off:?} it should fail");
}

impl World {
    /// Processes whose buses are armed, and servers.
    pub(super) fn armed(options: Options, processes: usize) -> Self {
        let mut world = Self::new(options, 1);
        for _ in 0..processes {
            world.spawn();
        }
        world.pass(200);
        world
    }

    /// The same in a cluster of two masters.
    pub(super) fn cluster(options: Options, processes: usize) -> Self {
        let mut world = Self::new(options, 2);
        for _ in 0..processes {
            world.spawn();
        }
        world.pass(200);
        world
    }

    /// Runs steps in a new thread of the process, to their end unless something holds them.
    pub(super) fn go(&mut self, process: usize, steps: impl IntoIterator<Item = Step>) -> usize {
        let fiber = self.start(process, steps);
        self.run_until_quiet();
        fiber
    }

    /// The same, with timers, for `ms`.
    pub(super) fn go_for(&mut self, process: usize, ms: u64, steps: impl IntoIterator<Item = Step>) -> usize {
        let fiber = self.go(process, steps);
        self.pass(ms);
        fiber
    }

    fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if is(self) {
                return;
            }
            let events = self.events();
            let next = events.iter().find(|event| **event != Event::Timer);
            let Some(&event) = next else {
                panic!("{what} never comes\n{}", self.log.join("\n"))
            };
            self.perform(event);
        }
        panic!("{what} never comes");
    }

    /// The connection on which the thread awaits an answer.
    pub(super) fn connection_of(&self, process: usize, fiber: usize) -> Option<usize> {
        match self.processes[process].fibers[fiber].state {
            State::Waiting { connection, .. } => Some(connection),
            _ => None,
        }
    }

    /// Performs events until the thread has sent a command that begins so, which does not arrive
    /// until it is released.
    pub(super) fn hold_sent(&mut self, process: usize, fiber: usize, command: &str) -> usize {
        let sent = |world: &Self| {
            let connection = world.connection_of(process, fiber)?;
            let packet = world.connections[connection].up.back()?;
            brief(&packet.command).starts_with(command).then_some(connection)
        };
        self.until(command, |world| sent(world).is_some());
        let connection = sent(self).expect("it was");
        self.connections[connection].hold_up = true;
        connection
    }

    /// The same, and has the server execute it: the answer does not arrive until it is released.
    pub(super) fn hold_answer(&mut self, process: usize, fiber: usize, command: &str) -> usize {
        let connection = self.hold_sent(process, fiber, command);
        self.connections[connection].hold_up = false;
        self.connections[connection].hold_down = true;
        self.perform(Event::Up(connection));
        connection
    }

    pub(super) fn release(&mut self, connection: usize) {
        self.connections[connection].hold_up = false;
        self.connections[connection].hold_down = false;
        self.run_until_quiet();
    }

    /// Runs nothing but this thread, until it waits for something.
    pub(super) fn run_alone(&mut self, process: usize, fiber: usize) {
        while self.processes[process].fibers[fiber].state == State::Ready {
            self.perform(Event::Run(process, fiber));
        }
    }

    /// Runs this thread alone if it is ready.
    pub(super) fn run_ready(&mut self, process: usize, fiber: usize) {
        if self.processes[process].fibers[fiber].state == State::Ready {
            self.run_alone(process, fiber);
        }
    }

    /// Performs events, without timers, until the thread loads.
    pub(super) fn run_through(&mut self, process: usize, fiber: usize) {
        self.until("the load", |world| {
            matches!(world.processes[process].fibers[fiber].state, State::Loading { .. })
        });
    }

    pub(super) fn tracking(&self, process: usize) -> usize {
        self.processes[process].tracking[&0]
    }

    pub(super) fn last(&self, process: usize, fiber: usize) -> Option<(Option<u64>, &'static str)> {
        self.processes[process].fibers[fiber]
            .results
            .last()
            .map(|(_, value, how)| (*value, *how))
    }

    pub(super) fn is_done(&self, process: usize, fiber: usize) -> bool {
        self.processes[process].fibers[fiber].state == State::Done
    }

    pub(super) fn link(&self, process: usize) -> (&'static str, &'static str) {
        let node = self.processes[process].tier.nodes(self.now)[0];
        (node.link, node.bus)
    }

    /// Puts bytes of another program under a key.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        let server = self.masters[0];
        let command = Command::Set {
            key: key.to_vec(),
            value: value.to_vec(),
            px: None,
            not_after: 0,
        };
        let mut pushes = Vec::new();
        let now = self.now;
        self.servers[server].execute(usize::MAX, &command, now, &mut pushes);
        self.push(server, pushes, &[]);
        self.run_until_quiet();
    }
}

pub(super) fn ms(ms: u64) -> u64 {
    ms * MS
}
