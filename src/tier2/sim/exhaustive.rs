//! All schedules of small scenarios that differ from the usual one in a few places.
//!
//! The usual schedule takes the first thing that can happen: ready threads, then what is under way,
//! timers last. A deviation takes another one: delivers something else first, lets a timer run out
//! before an answer, or has something fail. All schedules with at most `HOTSET_SIM_DEVIATIONS` (2)
//! of them are run, from the beginning each, since a world cannot be copied.

use super::process::State;
use super::process::Step::{self, Clear, Expire, Invalidate, Read, Set, Tag};
use super::script::options;
use super::world::{Event, World};

type Fault = fn(&mut World);

struct Scenario {
    name: &'static str,
    bus: bool,
    /// By process: what its threads do.
    threads: Vec<(usize, Vec<Step>)>,
    /// What may happen once, at any time.
    faults: Vec<Fault>,
}

fn cut(world: &mut World) {
    if let Some(connection) = (0..world.connections.len())
        .rev()
        .find(|at| !world.connections[*at].dead)
    {
        world.kill_connection(connection);
    }
}

fn lose_one_write(world: &mut World) {
    world.fail_over(0, 1, true);
}

fn stop_first(world: &mut World) {
    world.processes[0].stopped = true;
}

fn evict_all(world: &mut World) {
    let keys: Vec<Vec<u8>> = world.servers[world.masters[0]].data.keys().cloned().collect();
    keys.iter().for_each(|key| world.evict(0, key));
}

fn scenarios() -> Vec<Scenario> {
    let reads = |key| vec![Read(key, true), Read(key, true)];
    let all = |name, change: Step, key, faults: Vec<Fault>| Scenario {
        name,
        bus: true,
        threads: vec![(0, vec![change, Read(key, true)]), (0, reads(key)), (1, reads(key))],
        faults,
    };
    vec![
        all("invalidate", Invalidate(0), 0, vec![cut]),
        all("invalidate and fail over", Invalidate(0), 0, vec![lose_one_write]),
        all("set", Set(4), 4, vec![cut]),
        all("set and fail over", Set(4), 4, vec![lose_one_write]),
        all("set in a stopped process", Set(4), 4, vec![stop_first]),
        all("expire", Expire(0), 0, vec![evict_all]),
        all("clear", Clear(vec![0, 2]), 0, vec![evict_all]),
        all("tag", Tag(vec![1, 3]), 1, vec![cut]),
        Scenario {
            bus: false,
            ..all("invalidate without a bus", Invalidate(0), 0, vec![cut])
        },
    ]
}

/// Runs one schedule: `deviations` are steps and what is taken there. Returns how many ways there
/// were at each step.
fn run(scenario: &Scenario, deviations: &[(usize, usize)]) -> (Vec<usize>, World) {
    let mut options = options(&[]);
    options.settings.bus = scenario.bus;
    let mut world = World::armed(options, 2);
    world.go(1, [scenario.threads[0].1[1].clone()]);
    world.pass(20);
    let threads: Vec<_> = scenario
        .threads
        .iter()
        .map(|(process, steps)| (*process, world.start(*process, steps.clone())))
        .collect();
    let mut faults = scenario.faults.clone();
    let mut ways = Vec::new();
    let mut next = deviations.iter().peekable();
    for step in 0..400 {
        let done = threads
            .iter()
            .all(|(process, fiber)| world.processes[*process].fibers[*fiber].state == State::Done);
        if world.oracle.violation.is_some() || done {
            break;
        }
        let mut events = world.events();
        // Timers of background threads are no deviation: only those of threads that wait for an
        // answer.
        let waits = |(process, fiber): &(usize, usize)| {
            matches!(world.processes[*process].fibers[*fiber].state, State::Waiting { .. })
                && world.processes[*process].runs()
        };
        if events.len() > 1 && !threads.iter().any(waits) {
            events.retain(|event| *event != Event::Timer);
        }
        ways.push(events.len() + faults.len());
        let way = next.next_if(|(at, _)| *at == step).map_or(0, |(_, way)| *way);
        if let Some(&event) = events.get(way) {
            world.perform(event);
        } else if way < events.len() + faults.len() {
            faults.remove(way - events.len())(&mut world);
        } else {
            break;
        }
    }
    world.processes.iter_mut().for_each(|process| process.stopped = false);
    world.pass(4_000);
    for (process, fiber) in threads {
        let fiber = &world.processes[process].fibers[fiber];
        if fiber.state != State::Done && world.oracle.violation.is_none() {
            let what = format!("p{process} never ends: {:?}", fiber.state);
            world.oracle.violate(what);
        }
    }
    (ways, world)
}

fn explore(scenario: &Scenario, deviations: &mut Vec<(usize, usize)>, left: usize, runs: &mut u64) {
    let (ways, world) = run(scenario, deviations);
    *runs += 1;
    if let Some(violation) = &world.oracle.violation {
        println!("{}", world.log.join("\n"));
        panic!("{} with {deviations:?}: {violation}", scenario.name);
    }
    if left == 0 {
        return;
    }
    let from = deviations.last().map_or(0, |(at, _)| at + 1);
    for (at, &count) in ways.iter().enumerate().skip(from) {
        for way in 1..count {
            deviations.push((at, way));
            explore(scenario, deviations, left - 1, runs);
            deviations.pop();
        }
    }
}

#[test]
fn exhaustive_schedules_with_few_deviations() {
    let usual = if cfg!(debug_assertions) { 1 } else { 2 };
    let most = std::env::var("HOTSET_SIM_DEVIATIONS")
        .ok()
        .and_then(|most| most.parse().ok());
    for scenario in scenarios() {
        let mut runs = 0;
        explore(&scenario, &mut Vec::new(), most.unwrap_or(usual), &mut runs);
        println!("{}: {runs} schedules", scenario.name);
    }
}
