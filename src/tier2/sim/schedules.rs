//! A schedule for each rule: how data would become stale, or a caller be stuck, without it.

use super::process::State;
use super::process::Step::{Clear, Expire, Invalidate, Many, Read, Set};
use super::script::{Off, ms, needs, needs_for};
use super::world::{Duty, Event, Options, World};
use crate::tier2::Rule;

const A: usize = 0;
const B: usize = 1;

fn read(key: usize) -> [super::process::Step; 1] {
    [Read(key, true)]
}

// Ordinary operation.

/// A SET that was given up arrives after a newer one was confirmed.
fn late_set(options: Options, fences: bool) -> World {
    let mut world = World::new(options, 1);
    world.servers[0].fences = fences;
    world.spawn();
    world.spawn();
    world.pass(200);
    let first = world.start(A, [Set(4)]);
    let held = world.hold_sent(A, first, "SET k4");
    world.pass(600);
    assert!(world.is_done(A, first));
    world.go_for(A, 50, [Set(4)]);
    world.release(held);
    world.go(B, read(4));
    world.go(A, read(4));
    world
}

#[test]
fn late_write_is_fenced() {
    needs(&[Off::Rule(Rule::Fence)], "G4", |options| late_set(options, true));
}

#[test]
fn unfenceable_late_write_is_refused_by_the_server() {
    let world = late_set(super::script::options(&[]), false);
    assert_eq!(world.oracle.violation, None, "{}", world.log.join("\n"));
}

/// A's breaker opens briefly, with its bus whole. What A loads then is not in tier 2.
fn short_outage(options: Options) -> World {
    let mut world = World::armed(options, 2);
    let one = world.start(A, read(0));
    let held = [world.hold_sent(A, one, "GET k0"), {
        let two = world.start(A, read(2));
        world.hold_sent(A, two, "GET k2")
    }];
    world.pass(110);
    assert_eq!(world.link(A).0, "down");
    // Once more, now that it is known to be down: kept.
    world.go_for(A, 20, read(0));
    held.iter().for_each(|connection| world.release(*connection));
    world.pass(400);
    assert_eq!(world.link(A).0, "up");
    world.go(B, [Invalidate(0)]);
    for _ in 0..8 {
        world.pass(400);
        world.go(A, [Read(0, false)]);
    }
    world
}

#[test]
fn removal_after_outage_is_announced_or_clears_tier1() {
    needs(
        &[Off::Duty(Duty::Announce), Off::Rule(Rule::ClearOnBreaker)],
        "G5",
        short_outage,
    );
    for one in [Off::Duty(Duty::Announce), Off::Rule(Rule::ClearOnBreaker)] {
        assert_eq!(
            short_outage(super::script::options(&[one])).oracle.violation,
            None,
            "{one:?}"
        );
    }
}

/// One timeout does not open the breaker, and the key is not what the invalidation left.
fn unconfirmed_then_read(options: Options) -> World {
    let mut world = World::armed(options, 2);
    world.go_for(B, 20, read(0));
    let fiber = world.start(A, [Invalidate(0)]);
    world.hold_sent(A, fiber, "REMOVE k0");
    while !world.is_done(A, fiber) {
        let next = world.next_timer().unwrap();
        world.pass_until(next);
        world.run_ready(A, fiber);
    }
    world.go(A, read(0));
    world
}

#[test]
fn journalled_key_is_not_read() {
    needs(&[Off::Rule(Rule::JournalBlocks)], "G2", unconfirmed_then_read);
}

#[test]
fn unconfirmed_removal_is_journalled_and_replayed() {
    needs(&[Off::Rule(Rule::JournalReplays)], "G2", unconfirmed_then_read);
}

#[test]
fn tier1_drops_the_key_before_and_after_the_command() {
    needs(&[Off::Duty(Duty::DropTwice)], "G2", |options| {
        let mut world = World::armed(options, 2);
        world.go_for(B, 20, read(0));
        let tracking = world.tracking(A);
        world.connections[tracking].hold_down = true;
        let fiber = world.start(A, [Invalidate(0)]);
        let held = world.hold_sent(A, fiber, "REMOVE k0");
        world.go(A, read(0));
        world.release(held);
        assert!(world.is_done(A, fiber));
        world.go(A, read(0));
        world
    });
}

#[test]
fn voided_mark_keeps_the_value_out() {
    needs(&[Off::Duty(Duty::MarkChecked)], "G3", |options| {
        let mut world = World::armed(options, 2);
        world.go_for(B, 20, read(0));
        world.go(A, read(2));
        let fiber = world.start(A, read(0));
        let held = world.hold_answer(A, fiber, "GET k0");
        world.go(B, [Invalidate(0)]);
        world.release(held);
        world.go(A, read(0));
        world
    });
}

#[test]
fn own_echo_is_not_distinguished() {
    // B's removal is announced within the time in which A takes messages of the key for its own.
    needs(&[Off::Duty(Duty::EveryMessageRemoves)], "G3", |options| {
        let mut world = World::armed(options, 2);
        world.go_for(A, 20, [Read(0, true), Read(0, true), Read(0, true)]);
        world.go(B, [Invalidate(0)]);
        world.go(A, read(0));
        world
    });
}

#[test]
fn soft_expiration_ends_a_load() {
    needs(&[Off::Duty(Duty::ExpireRemovesLeases)], "G4", |options| {
        let mut world = World::armed(options, 2);
        let fiber = world.go(B, read(0));
        assert!(matches!(world.processes[B].fibers[fiber].state, State::Loading { .. }));
        world.go(A, [Expire(0)]);
        world.pass(20);
        world
    });
}

#[test]
fn fill_is_conditional() {
    needs(&[Off::Duty(Duty::ConditionalFill)], "G4", |options| {
        let mut world = World::armed(options, 2);
        world.go(B, read(0));
        world.go(A, [Invalidate(0)]);
        world.pass(20);
        world
    });
}

#[test]
fn unusable_frame_is_replaced() {
    needs_for(&[Off::Rule(Rule::LeadOverDead)], |options| {
        let mut world = World::armed(options, 2);
        world.put(b"k0", b"another program's value, which is no frame");
        world.go_for(A, 20, read(0));
        world.go_for(B, 20, read(0));
        world.loads[0] == 1
    });
}

#[test]
fn generation_does_not_come_back() {
    needs(&[Off::Rule(Rule::UniqueGenerations)], "G4", |options| {
        let mut world = World::armed(options, 1);
        world.go_for(A, 20, read(0));
        world.go_for(A, 20, [Clear(vec![0, 2])]);
        world.go_for(A, 20, read(2));
        world.evict(0, b"g0");
        world.run_until_quiet();
        world.go_for(A, 20, read(0));
        world.go_for(A, 20, [Clear(vec![0, 2])]);
        world
    });
}

#[test]
fn generation_during_its_bump_is_not_remembered() {
    needs(&[Off::Rule(Rule::BumpTwice)], "G2", |options| {
        let mut world = World::armed(options, 2);
        world.go_for(B, 20, read(0));
        let tracking = world.tracking(A);
        world.connections[tracking].hold_down = true;
        let fiber = world.start(A, [Clear(vec![0, 2])]);
        let held = world.hold_sent(A, fiber, "SET g0");
        // The generation before the bump.
        world.go(A, read(0));
        world.release(held);
        world.go(A, read(0));
        world
    });
}

// The bus.

/// Old messages of canaries pass for the newest, while the queue grows.
fn backlog(options: Options) -> World {
    let mut world = World::armed(options, 2);
    world.go_for(A, 50, [Read(0, true), Read(0, true)]);
    world.go_for(A, 50, [Read(0, true), Read(0, true)]);
    let tracking = world.tracking(A);
    // Ten canaries' worth of messages that come late.
    world.connections[tracking].hold_down = true;
    let canaries: Vec<Vec<u8>> = world.servers[0]
        .data
        .keys()
        .filter(|key| key.starts_with(b"!can:0"))
        .cloned()
        .collect();
    for _ in 0..20 {
        for canary in &canaries {
            world.put(canary, b"");
        }
    }
    world.go(B, [Invalidate(0)]);
    for _ in 0..16 {
        world.pass(250);
        // A message in a while.
        world.connections[tracking].hold_down = false;
        if world.events().contains(&Event::Down(tracking)) {
            world.perform(Event::Down(tracking));
        }
        world.connections[tracking].hold_down = true;
        let fiber = world.start(A, [Read(0, false)]);
        world.run_alone(A, fiber);
    }
    world
}

#[test]
fn canary_is_numbered_or_followed_by_a_ping() {
    needs(
        &[Off::Rule(Rule::NumberedCanaries), Off::Rule(Rule::PingBehindCanary)],
        "G5",
        backlog,
    );
    for one in [Off::Rule(Rule::NumberedCanaries), Off::Rule(Rule::PingBehindCanary)] {
        assert_eq!(
            backlog(super::script::options(&[one])).oracle.violation,
            None,
            "{one:?}"
        );
    }
}

#[test]
fn deaf_bus_is_noticed() {
    needs(&[Off::Duty(Duty::Canary)], "G5", |options| {
        let mut world = World::armed(options, 2);
        world.go_for(A, 50, [Read(0, true), Read(0, true)]);
        world.go_for(A, 50, read(0));
        let tracking = world.tracking(A);
        world.connections[tracking].hold_down = true;
        world.go(B, [Invalidate(0)]);
        for _ in 0..10 {
            world.pass(300);
            world.go(A, [Read(0, false)]);
        }
        world
    });
}

#[test]
fn tier1_is_cleared_after_the_canary() {
    needs(&[Off::Duty(Duty::ClearAfterCanary)], "G5", |options| {
        let mut world = World::armed(options, 2);
        world.go_for(A, 50, [Read(0, true), Read(0, true)]);
        world.go_for(A, 50, read(0));
        // The bus breaks, and its connection comes back: what is announced in between is lost, and
        // so is what is announced before the connection is known to track.
        let tracking = world.tracking(A);
        world.kill_connection(tracking);
        let bus = 0;
        let held = world.hold_sent(A, bus, "TRACK");
        if world.has(Duty::ClearAfterCanary) {
            world.go(B, [Invalidate(0)]);
        } else {
            // Clear, then subscribe: between the two a reader is given the old value.
            world.processes[A].entries.insert(
                0,
                super::process::Entry {
                    version: 1,
                    loaded: world.now,
                    until: world.now + ms(9_000),
                },
            );
            world.go(B, [Invalidate(0)]);
            let entries = world.processes[A].entries.clone();
            world.release(held);
            world.processes[A].entries = entries;
        }
        world.release(held);
        for _ in 0..10 {
            world.pass(300);
            world.go(A, [Read(0, false)]);
        }
        world
    });
}

#[test]
fn hit_compares_with_the_clock() {
    needs(&[Off::Duty(Duty::TrustByClock)], "G5", |options| {
        let mut world = World::armed(options, 2);
        world.go_for(A, 50, [Read(0, true), Read(0, true)]);
        world.go_for(A, 50, read(0));
        world.processes[A].stopped = true;
        world.go(B, [Invalidate(0)]);
        world.pass(5_000);
        world.processes[A].stopped = false;
        let fiber = world.start(A, read(0));
        world.run_alone(A, fiber);
        world.pass(100);
        world
    });
}

#[test]
fn join_compares_with_the_clock() {
    needs(&[Off::Duty(Duty::JoinByClock)], "G5", |mut options| {
        options.settings.bus = false;
        options.namespace.local_ttl = ms(1_000);
        let mut world = World::armed(options, 2);
        let slow = world.start(A, read(0));
        world.processes[A].fibers[slow].load_ms = 6_000;
        world.pass(500);
        world.processes[A].stopped = true;
        world.go(B, [Invalidate(0)]);
        world.pass(4_000);
        world.processes[A].stopped = false;
        let fiber = world.start(A, read(0));
        world.run_alone(A, fiber);
        world.pass(7_000);
        world
    });
}

/// A value that was requested before the bus armed arrives after that.
fn requested_before_armed(options: Options) -> World {
    let mut world = World::armed(options, 2);
    world.go_for(B, 20, read(0));
    let tracking = world.tracking(A);
    world.kill_connection(tracking);
    let bus = world.hold_sent(A, 0, "TRACK");
    world.go(A, read(2));
    let fiber = world.start(A, read(0));
    let held = world.hold_answer(A, fiber, "GET k0");
    world.go(B, [Invalidate(0)]);
    world.release(bus);
    world.pass(60);
    world.release(held);
    for _ in 0..10 {
        world.pass(300);
        world.go(A, [Read(0, false)]);
    }
    world
}

#[test]
fn value_requested_before_the_bus_armed_is_not_kept() {
    let both = [Off::Rule(Rule::ArmedWhenSent), Off::Duty(Duty::ClearVoidsLoads)];
    needs(&both, "G5", requested_before_armed);
    for one in both {
        assert_eq!(
            requested_before_armed(super::script::options(&[one])).oracle.violation,
            None,
            "{one:?}"
        );
    }
}

#[test]
fn node_that_refuses_canaries_is_not_down() {
    needs_for(&[Off::Rule(Rule::UnsyncedByWrite)], |options| {
        let mut world = World::armed(options, 2);
        world.go_for(A, 50, [Read(0, true), Read(0, true)]);
        world.go_for(A, 50, read(0));
        world.servers[0].faults.refuses_bus = true;
        world.servers[0].faults.refuses_canary = true;
        let tracking = world.tracking(A);
        world.kill_connection(tracking);
        world.pass(4_000);
        world.go(B, [Invalidate(0)]);
        world.pass(1_500);
        let fiber = world.go_for(A, 50, read(0));
        world.link(A) == ("up", "unsynced") && world.last(A, fiber).is_some_and(|last| last.0 == Some(2))
    });
}

// Failover and journal.

fn confirmed_then_lost(options: Options, change: super::process::Step, key: usize) -> World {
    let mut world = World::armed(options, 2);
    world.go_for(B, 20, read(key));
    world.go(A, [change]);
    world.fail_over(0, 1, true);
    world.go(A, [Read(key, false)]);
    world.go_for(A, 20, read(key));
    world
}

#[test]
fn confirmed_removal_is_replayed_after_a_failover() {
    needs(&[Off::Rule(Rule::ReplayOnNewEpoch)], "G2", |options| {
        confirmed_then_lost(options, Invalidate(0), 0)
    });
}

#[test]
fn confirmed_write_is_replayed_after_a_failover() {
    needs(&[Off::Rule(Rule::ReplayOnNewEpoch)], "G2", |options| {
        confirmed_then_lost(options, Set(4), 4)
    });
}

#[test]
fn confirmed_clear_is_replayed_after_a_failover() {
    needs(&[Off::Rule(Rule::ReplayOnNewEpoch)], "G2", |options| {
        confirmed_then_lost(options, Clear(vec![0, 2]), 0)
    });
}

#[test]
fn confirmation_of_an_older_epoch_is_ignored() {
    needs(&[Off::Rule(Rule::EpochOfReply)], "G2", |options| {
        let mut world = World::armed(options, 2);
        world.go_for(B, 20, read(0));
        let fiber = world.start(A, [Invalidate(0)]);
        let held = world.hold_answer(A, fiber, "REMOVE k0");
        world.fail_over(0, 1, false);
        world.go(A, [Read(2, false)]);
        world.pass(10);
        world.release(held);
        world.go(A, [Read(0, false)]);
        world
    });
}

#[test]
fn breaker_closes_under_a_stream_of_removals() {
    needs_for(&[Off::Rule(Rule::HalfOpen)], |options| {
        let mut world = World::armed(options, 1);
        world.servers[0].stopped = true;
        world.go_for(A, 400, [Invalidate(0), Invalidate(1), Invalidate(2)]);
        assert_eq!(world.link(A).0, "down");
        world.servers[0].stopped = false;
        let fiber = world.start(A, (0..4_000).map(|at| Invalidate(at % 4)));
        // The thread and everything else take turns.
        for turn in 0..4_000 {
            if world.link(A).0 == "up" {
                return !world.is_done(A, fiber);
            }
            let events = world.events();
            let own = Event::Run(A, fiber);
            let other = events
                .iter()
                .copied()
                .find(|event| *event != own && (*event != Event::Timer || turn < 20 || events.len() == 1));
            match other {
                Some(event) if turn % 4 == 0 || !events.contains(&own) => world.perform(event),
                _ => world.perform(own),
            }
        }
        false
    });
}

// Leases.

#[test]
fn cold_key_is_loaded_once_by_eight_processes() {
    let mut world = World::armed(super::script::options(&[]), 8);
    for process in 0..8 {
        for _ in 0..16 {
            let fiber = world.start(process, read(0));
            world.processes[process].fibers[fiber].load_ms = 700;
        }
    }
    world.pass(3_000);
    assert_eq!(world.loads[0], 1);
    assert!(
        world
            .processes
            .iter()
            .all(|process| process.fibers[1..].iter().all(|fiber| fiber.state == State::Done))
    );
    assert_eq!(world.oracle.violation, None);
}

#[test]
fn load_of_ten_seconds_is_not_taken_over() {
    let mut options = super::script::options(&[]);
    options.namespace.load_timeout = ms(60_000);
    let mut world = World::armed(options, 4);
    for process in 0..4 {
        let fiber = world.start(process, read(0));
        world.processes[process].fibers[fiber].load_ms = 10_000;
    }
    world.pass(12_000);
    assert_eq!(world.loads[0], 1);
}

#[test]
fn killed_leader_is_replaced_by_one() {
    let mut world = World::armed(super::script::options(&[]), 8);
    let leader = world.start(A, read(0));
    world.processes[A].fibers[leader].load_ms = 100_000;
    world.run_until_quiet();
    for process in 1..8 {
        world.start(process, read(0));
    }
    world.pass(100);
    world.kill(A);
    world.pass(2_000);
    assert_eq!(world.loads[0], 2);
    assert!(
        world.processes[1..]
            .iter()
            .all(|process| process.fibers[1].state == State::Done)
    );
}

#[test]
fn failed_load_is_taken_over_without_delay() {
    let mut world = World::armed(super::script::options(&[]), 2);
    let first = world.start(A, read(0));
    world.processes[A].fibers[first].load_fails = true;
    world.run_until_quiet();
    let second = world.start(B, read(0));
    world.pass(20);
    assert_eq!(world.last(A, first), Some((None, "failed")));
    assert_eq!(world.last(B, second), Some((Some(1), "loaded")));
}

#[test]
fn claim_looks_at_the_key_again() {
    needs_for(&[Off::Rule(Rule::ClaimReadsAgain)], |mut options| {
        options.namespace.stale_while_revalidate = ms(5_000);
        let mut world = World::armed(options, 2);
        world.go_for(A, 20, read(0));
        world.pass(20_500);
        let late = world.start(B, read(0));
        let held = world.hold_sent(B, late, "CLAIM");
        world.go_for(A, 20, read(0));
        world.release(held);
        world.pass(20);
        world.loads[0] == 2
    });
}

#[test]
fn caller_leads_nothing_while_it_waits() {
    needs_for(&[Off::Duty(Duty::NeverWaitWhileLeading)], |options| {
        let mut world = World::armed(options, 2);
        // Each leads one of two keys, and wants the other.
        let (one, two) = (world.start(A, [Many(vec![0, 2])]), world.start(B, [Many(vec![2, 0])]));
        world.hold_answer(A, one, "SETNX k0");
        world.hold_answer(B, two, "SETNX k2");
        world
            .connections
            .iter_mut()
            .for_each(|connection| connection.hold_down = false);
        world.pass(2_000);
        world.is_done(A, one) && world.is_done(B, two)
    });
}

#[test]
fn caller_that_saw_two_leases_vanish_loads() {
    needs_for(&[Off::Rule(Rule::VoidedLeases)], |options| {
        let mut world = World::armed(options, 3);
        let waiting = world.start(B, read(0));
        let leader = world.start(A, read(0));
        world.processes[A].fibers[leader].load_ms = 60_000;
        world.hold_sent(B, waiting, "GET k0");
        world.run_through(A, leader);
        let held = world.connection_of(B, waiting).unwrap();
        world.release(held);
        for _ in 0..4 {
            // The lease is removed, and another one taken, before the waiting caller looks.
            let tracking = world.tracking(B);
            world.connections[tracking].hold_down = true;
            world.go(2, [Invalidate(0)]);
            let leader = world.start(A, read(0));
            world.processes[A].fibers[leader].load_ms = 60_000;
            world.run_until_quiet();
            world.connections[tracking].hold_down = false;
            world.pass(300);
        }
        world.is_done(B, waiting)
    });
}

#[test]
fn lease_is_as_long_as_loads_take() {
    needs_for(&[Off::Rule(Rule::LeaseByLoad)], |options| {
        let mut world = World::armed(options, 1);
        // The loader keeps the thread that renews from running.
        for _ in 0..2 {
            let fiber = world.start(A, read(0));
            world.processes[A].fibers[fiber].load_ms = 2_000;
            world.run_through(A, fiber);
            world.processes[A].fibers[0].state = State::Loading {
                until: world.now + ms(2_100),
            };
            world.pass(2_050);
            world.processes[A].fibers[0].state = State::Ready;
            world.pass(200);
        }
        let fiber = world.go_for(A, 20, [Read(0, false)]);
        world.last(A, fiber).is_some_and(|last| last.0.is_some())
    });
}

#[test]
fn child_has_a_tier_of_its_own() {
    needs(&[Off::Duty(Duty::TierPerProcess)], "G4", |options| {
        let mut world = World::armed(options, 2);
        let child = world.fork(A);
        world.pass(100);
        let late = world.start(child, read(0));
        world.processes[child].fibers[late].load_ms = 200;
        world.run_until_quiet();
        world.go(B, [Invalidate(0)]);
        let fiber = world.start(A, read(0));
        world.processes[A].fibers[fiber].load_ms = 500;
        world.pass(1_000);
        world
    });
}

#[test]
fn waiting_caller_keeps_the_value_read_after_the_fill() {
    // The placeholder's and the renewals' messages void the mark with which it began.
    needs_for(&[Off::Duty(Duty::MarkPerRequest)], |options| {
        let mut world = World::armed(options, 2);
        let leader = world.start(A, read(0));
        world.processes[A].fibers[leader].load_ms = 700;
        world.run_through(A, leader);
        let waiting = world.go_for(B, 1_000, read(0));
        world.is_done(B, waiting) && world.processes[B].entries.contains_key(&0)
    });
}
