//! Random schedules.

use super::process::{State, Step, key_text};
use super::server::Faults;
use super::world::{Duty, Event, MS, Options, World};
use crate::tier2::{Rule, slot};
use std::collections::BTreeSet;

/// splitmix64.
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What a run may do.
#[derive(Clone, Copy, Debug)]
struct Profile {
    processes: usize,
    threads: usize,
    steps: usize,
    /// One fault per this number of events; 0: none.
    faults: usize,
    failovers: bool,
    nodes: usize,
    bus: bool,
    /// Slots move between nodes.
    reshards: bool,
    /// The servers are memcached.
    memcached: bool,
}

/// Keys 0 to 3 are invalidated by all threads; 4 and 5 are set by one thread of process 0 alone;
/// odd ones have the tag. With a second node the same from 8 on.
fn step(random: &mut Random, profile: &Profile, sets: bool) -> Step {
    let base = if profile.nodes > 1 && random.one_in(2) { 8 } else { 0 };
    if sets {
        let key = base + 4 + random.below(2);
        return match random.below(6) {
            0 | 1 => Step::Set(key),
            2 => Step::Invalidate(key),
            3 => Step::Sleep(random.below(400) as u64),
            _ => Step::Read(key, true),
        };
    }
    let key = base + random.below(6);
    let mine = base + random.below(4);
    match random.below(24) {
        0..=9 => Step::Read(key, true),
        10 => Step::Read(key, false),
        11 => Step::Many(vec![base + random.below(3), base + 3]),
        12..=15 => Step::Invalidate(mine),
        16 => Step::Expire(mine),
        17 if random.one_in(3) => Step::Clear(mine_all(profile)),
        18 => Step::Tag(mine_all(profile).into_iter().filter(|key| key % 2 == 1).collect()),
        19 => Step::Touch(mine),
        20 => Step::Sleep(random.below(6_000) as u64),
        _ => Step::Sleep(random.below(300) as u64),
    }
}

/// The keys that all threads invalidate.
fn mine_all(profile: &Profile) -> Vec<usize> {
    keys(profile).into_iter().filter(|key| key % 8 < 4).collect()
}

fn fault(world: &mut World, random: &mut Random, profile: &Profile) {
    let node = random.below(profile.nodes);
    let server = world.masters[node];
    let open: Vec<usize> = (0..world.connections.len())
        .filter(|at| !world.connections[*at].dead)
        .collect();
    let process = random.below(world.processes.len());
    match random.below(if profile.reshards { 28 } else { 20 }) {
        0..=3 if !open.is_empty() => {
            let connection = open[random.below(open.len())];
            world.note(|| format!("c{connection} is cut"));
            world.kill_connection(connection);
        }
        4 | 5 if !open.is_empty() => {
            // Half open: nothing comes, until it is released.
            let connection = open[random.below(open.len())];
            let (up, down) = (random.one_in(2), random.one_in(2));
            world.note(|| format!("c{connection} stalls: up {up}, down {down}"));
            world.connections[connection].hold_up |= up;
            world.connections[connection].hold_down |= down;
        }
        6 => world
            .connections
            .iter_mut()
            .for_each(|one| (one.hold_up, one.hold_down) = (false, false)),
        7 => world.servers[server].stopped = !world.servers[server].stopped,
        8 => {
            let to = !world.processes[process].stopped;
            world.note(|| format!("p{process} stopped: {to}"));
            world.processes[process].stopped = to;
        }
        9 if world.processes.len() < 5 => {
            let child = world.fork(process);
            let steps: Vec<Step> = (0..profile.steps / 2).map(|_| step(random, profile, false)).collect();
            world.start(child, steps);
        }
        10 if process != 0 && random.one_in(2) => world.kill(process),
        11 | 12 => {
            let keys: Vec<Vec<u8>> = world.servers[server].data.keys().cloned().collect();
            if !keys.is_empty() {
                world.evict(node, &keys[random.below(keys.len())].clone());
            }
        }
        13 if random.one_in(3) => world.flush(node),
        14 => {
            let faults = world.servers[server].faults;
            let toggled = match random.below(3) {
                0 => Faults {
                    oom: !faults.oom,
                    ..faults
                },
                1 => Faults {
                    refuses_bus: !faults.refuses_bus,
                    ..faults
                },
                _ => Faults {
                    refuses_canary: !faults.refuses_canary,
                    ..faults
                },
            };
            world.note(|| format!("server {server}: {toggled:?}"));
            world.servers[server].faults = toggled;
        }
        15 | 16 if profile.failovers => {
            let (lost, cut) = (random.below(4), random.one_in(2));
            world.fail_over(node, lost, cut);
        }
        20..=27 if profile.reshards => reshard(world, random, profile),
        17 if profile.failovers || profile.memcached => {
            world.kill_server(server);
            if random.one_in(2) {
                world.restart_server(server);
            }
        }
        18 if !world.servers[server].alive => world.restart_server(server),
        19 => {
            let ms = random.below(5_000) as u64;
            world.note(|| format!("{ms} ms in which nothing runs"));
            world.jump(ms);
        }
        _ => {}
    }
}

/// Moves a slot a step further, of a key or of a generation.
fn reshard(world: &mut World, random: &mut Random, profile: &Profile) {
    let mut names = world.generations.clone();
    names.extend(keys(profile).into_iter().map(key_text));
    let name = names[random.below(names.len())].clone();
    let place = world.place(slot(&name));
    match (place.to, random.below(4)) {
        (None, _) => world.begin_move(&name, random.below(profile.nodes) as u32),
        (Some(_), 0 | 1) => {
            let inside = world.keys_of(world.masters[place.node as usize], slot(&name));
            if !inside.is_empty() {
                world.migrate(&inside[random.below(inside.len())]);
            }
        }
        (Some(_), _) => world.end_move(slot(&name)),
    }
}

/// Ends all faults, and has everything come to rest. What is read then is the newest.
fn heal(world: &mut World) {
    for server in 0..world.servers.len() {
        let one = &mut world.servers[server];
        one.stopped = false;
        one.faults = Faults {
            silent_remove: one.faults.silent_remove,
            expire_spares_leases: one.faults.expire_spares_leases,
            ..Faults::default()
        };
        if !one.alive && world.masters.contains(&server) {
            world.restart_server(server);
        }
    }
    for process in &mut world.processes {
        process.stopped = false;
    }
    world
        .connections
        .iter_mut()
        .for_each(|one| (one.hold_up, one.hold_down) = (false, false));
    world.end_moves();
    world.note(|| "healed".into());
}

fn keys(profile: &Profile) -> Vec<usize> {
    let mut keys: Vec<usize> = (0..6).collect();
    if profile.nodes > 1 {
        keys.extend(8..14);
    }
    keys
}

/// Runs one seed. Returns the violation, and the world for its log.
fn run(seed: u64, profile: &Profile, mends: &[Rule], duties: &[Duty]) -> (Option<String>, World) {
    let mut random = Random(seed);
    let mut options = Options {
        mends_off: mends.iter().copied().collect::<BTreeSet<_>>(),
        duties_off: duties.iter().copied().collect(),
        ..Options::default()
    };
    options.settings.bus = profile.bus;
    if profile.memcached {
        options = on_memcached(options);
    }
    if random.one_in(3) {
        options.settings.journal = 3;
    }
    if random.one_in(3) {
        options.namespace.stale_while_revalidate = 2_000 * MS;
    } else if random.one_in(3) {
        options.namespace.stale_if_error = 2_000 * MS;
    }
    if random.one_in(3) {
        (options.namespace.ttl, options.namespace.local_ttl) = (3_000 * MS, 3_000 * MS);
    }
    if random.one_in(4) {
        options.namespace.lease_wait = 300 * MS;
    }
    let mut world = World::new(options, profile.nodes);
    if random.one_in(4) {
        world.servers.iter_mut().for_each(|server| server.fences = false);
    }
    for process in 0..profile.processes {
        world.spawn();
        for thread in 0..profile.threads {
            let sets = process == 0 && thread == 0;
            let steps: Vec<Step> = (0..profile.steps).map(|_| step(&mut random, profile, sets)).collect();
            let fiber = world.start(process, steps);
            let loads = [1, 1, 5, 40, 300, 2_000];
            world.processes[process].fibers[fiber].load_ms = loads[random.below(loads.len())];
            world.processes[process].fibers[fiber].load_fails = random.one_in(12);
        }
    }
    let busy = |world: &World| {
        let mut fibers = world
            .processes
            .iter()
            .filter(|process| process.alive)
            .flat_map(|process| &process.fibers);
        fibers.any(|fiber| fiber.background.is_none() && fiber.state != State::Done)
    };
    for _ in 0..profile.steps * profile.processes * profile.threads * 60 {
        if world.oracle.violation.is_some() || !busy(&world) {
            break;
        }
        if profile.faults != 0 && random.one_in(profile.faults) {
            fault(&mut world, &mut random, profile);
        }
        let events = world.events();
        if events.is_empty() {
            heal(&mut world);
            continue;
        }
        // Time passes mostly when there is nothing else to do.
        let timers = random.one_in(25) || events.len() == 1;
        let others: Vec<Event> = events
            .iter()
            .copied()
            .filter(|event| *event != Event::Timer || timers)
            .collect();
        let event = others[random.below(others.len())];
        world.perform(event);
    }
    heal(&mut world);
    converge(&mut world, profile);
    (world.oracle.violation.take(), world)
}

/// With all faults ended, every thread ends, the journal empties, buses arm, and reads see the
/// newest versions.
fn converge(world: &mut World, profile: &Profile) {
    for _ in 0..400 {
        if world.oracle.violation.is_some() {
            return;
        }
        world.pass(250);
        let done = world.processes.iter().filter(|process| process.alive).all(|process| {
            let fibers = process
                .fibers
                .iter()
                .all(|fiber| fiber.background.is_some() || fiber.state == State::Done);
            let nodes = process.tier.nodes(world.now);
            let armed = nodes
                .iter()
                .all(|node| node.link == "up" && (node.bus == "armed" || node.bus == "none"));
            fibers && armed && process.tier.journal_len() == 0
        });
        if done {
            break;
        }
    }
    for (number, process) in world.processes.iter().enumerate().filter(|(_, process)| process.alive) {
        for (at, fiber) in process.fibers.iter().enumerate() {
            if fiber.background.is_none() && fiber.state != State::Done {
                let what = format!(
                    "p{number}.{at} never ends: {:?} {:?}",
                    fiber.state,
                    fiber
                        .calls
                        .iter()
                        .map(|call| (call.key, call.ended, call.operation.as_ref().map(|one| one.action())))
                        .collect::<Vec<_>>()
                );
                world.oracle.violate(what);
                return;
            }
        }
        let nodes = process.tier.nodes(world.now);
        if process.tier.journal_len() != 0
            || nodes
                .iter()
                .any(|node| node.link != "up" || node.bus != "armed" && node.bus != "none")
        {
            let what = format!(
                "p{number} never comes to rest: journal {}, {nodes:?}",
                process.tier.journal_len()
            );
            world.oracle.violate(what);
            return;
        }
    }
    // What died with its journal, or without a bus, ends with its ttl.
    world.pass(world.options.namespace.ttl / MS + 3_000);
    let versions: Vec<(usize, u64)> = keys(profile)
        .into_iter()
        .map(|key| (key, world.oracle.version(key)))
        .collect();
    let alive: Vec<usize> = (0..world.processes.len())
        .filter(|at| world.processes[*at].alive)
        .collect();
    for &process in &alive {
        for &(key, version) in &versions {
            // The first may find that the server is another one, or that the value is stale; an own
            // echo removes once.
            let read = || Step::Read(key, true);
            let steps = [
                read(),
                Step::Sleep(600),
                read(),
                Step::Sleep(20),
                read(),
                Step::Sleep(20),
                read(),
            ];
            let fiber = world.start(process, steps);
            world.pass(800);
            let results = world.processes[process].fibers[fiber].results.clone();
            if results.len() < 4 || results.iter().any(|(_, value, _)| *value != Some(version)) {
                world.oracle.violate(format!(
                    "at the end p{process} reads {results:?} of k{key}, newest v{version}"
                ));
            } else if !kept(&results, profile) {
                world
                    .oracle
                    .violate(format!("at the end p{process} keeps k{key} not: {results:?}"));
            }
        }
    }
}

/// Whether the last reads found the value in tier 1. The bounds of memcached's clock may end it
/// between two of them.
fn kept(results: &[(usize, Option<u64>, &'static str)], profile: &Profile) -> bool {
    let is_here = |result: &(usize, Option<u64>, &'static str)| result.2 == "tier 1";
    results.last().is_some_and(is_here) || profile.memcached && results.iter().any(is_here)
}

/// Settings of servers that are memcached.
pub(super) fn on_memcached(mut options: Options) -> Options {
    options.memcached = true;
    options.settings.bus = false;
    options.settings.generation_per_node = true;
    options.settings.clock_resolution = 1_000;
    options
}

fn seeds(default: u64) -> Vec<u64> {
    if let Some(seed) = std::env::var("HOTSET_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return vec![seed];
    }
    let factor = if cfg!(debug_assertions) { 40 } else { 1 };
    let count = std::env::var("HOTSET_SIM_SEEDS")
        .ok()
        .and_then(|count| count.parse().ok());
    (0..count.unwrap_or((default / factor).max(1))).collect()
}

fn all_hold(default: u64, profile: &Profile) {
    let (mut reads, mut steps) = (0, 0);
    for seed in seeds(default) {
        let (violation, world) = run(seed, profile, &[], &[]);
        reads += world.oracle.reads;
        steps += world.steps;
        if let Some(violation) = violation {
            for line in &world.log {
                println!("{line}");
            }
            panic!("seed {seed} ({profile:?}): {violation}\nHOTSET_SIM_SEED={seed} HOTSET_SIM_LOG=1 shows it");
        }
    }
    println!("{profile:?}: {reads} reads in {steps} steps");
}

const PROFILE: Profile = Profile {
    processes: 3,
    threads: 3,
    steps: 12,
    faults: 0,
    failovers: false,
    nodes: 1,
    bus: true,
    reshards: false,
    memcached: false,
};

#[test]
fn random_schedules_without_faults() {
    all_hold(1_000, &PROFILE);
}

#[test]
fn random_schedules_with_faults() {
    all_hold(4_000, &Profile { faults: 60, ..PROFILE });
}

#[test]
fn random_schedules_with_failovers() {
    all_hold(
        4_000,
        &Profile {
            faults: 80,
            failovers: true,
            ..PROFILE
        },
    );
}

#[test]
fn random_schedules_of_two_nodes() {
    all_hold(
        1_000,
        &Profile {
            faults: 80,
            failovers: true,
            nodes: 2,
            ..PROFILE
        },
    );
}

#[test]
fn random_schedules_without_a_bus() {
    all_hold(
        1_000,
        &Profile {
            faults: 80,
            failovers: true,
            bus: false,
            ..PROFILE
        },
    );
}

#[test]
fn random_schedules_of_a_cluster_that_reshards() {
    all_hold(
        2_000,
        &Profile {
            faults: 30,
            nodes: 2,
            reshards: true,
            ..PROFILE
        },
    );
}

#[test]
fn random_schedules_of_a_resharding_failing_cluster() {
    all_hold(
        2_000,
        &Profile {
            faults: 40,
            failovers: true,
            nodes: 2,
            reshards: true,
            ..PROFILE
        },
    );
}

const MEMCACHED: Profile = Profile {
    faults: 60,
    bus: false,
    memcached: true,
    ..PROFILE
};

#[test]
fn random_schedules_on_memcached_without_faults() {
    all_hold(1_000, &Profile { faults: 0, ..MEMCACHED });
}

#[test]
fn random_schedules_on_memcached() {
    all_hold(4_000, &MEMCACHED);
}

#[test]
fn random_schedules_on_two_memcached_servers() {
    all_hold(1_000, &Profile { nodes: 2, ..MEMCACHED });
}

/// Asserts that values become stale without a part of the protocol on memcached.
fn is_needed(duty: Duty) {
    let violations = (0..2_000).filter_map(|seed| run(seed, &MEMCACHED, &[], &[duty]).0);
    let found = violations.take(20).find(|violation| violation.starts_with("G4"));
    assert!(found.is_some(), "{duty:?} is of no use");
}

#[test]
fn comparison_of_memcached_is_needed() {
    is_needed(Duty::CasCompared);
}
