//! Schedules of a cluster whose slots move, and of leases and generations whose outcome is unknown.

use super::process::Step::{Clear, Expire, Invalidate, Read, Set};
use super::process::{State, key_text};
use super::script::{Off, ms, needs, needs_for, options};
use super::world::{Duty, Options, World};
use crate::tier2::{Rule, slot};

const A: usize = 0;
const B: usize = 1;

fn read(key: usize) -> [super::process::Step; 1] {
    [Read(key, true)]
}

/// An even key of the first node; with `claims_elsewhere`, one whose name with ":r" is on the
/// second node.
fn key_on_first(world: &World, claims_elsewhere: bool) -> usize {
    let on_first = |text: &[u8]| world.place(slot(text)).node == 0;
    let mut even = (0..16).step_by(2);
    let fits = |key: &usize| {
        let text = key_text(*key);
        on_first(&text) && on_first(&[&text[..], b":r"].concat()) != claims_elsewhere
    };
    even.find(fits).expect("half of all names are")
}

// Unknown outcomes.

#[test]
fn lease_of_unknown_outcome_is_recognized() {
    needs_for(&[Off::Rule(Rule::OwnLeaseRecognized)], |options| {
        let mut world = World::armed(options, 2);
        let fiber = world.start(A, read(0));
        world.hold_answer(A, fiber, "SETNX k0");
        world.pass(300);
        world.last(A, fiber) == Some((Some(1), "loaded")) && world.loads[0] == 1
    });
}

#[test]
fn lease_of_unknown_outcome_gets_another_stamp() {
    // The first request arrives after the second one's lease was voided.
    needs(&[Off::Rule(Rule::FreshStamp)], "G4", |options| {
        let mut world = World::armed(options, 2);
        world.go_for(B, 20, read(2));
        world.go_for(A, 20, read(2));
        let fiber = world.start(A, read(0));
        world.processes[A].fibers[fiber].load_ms = 500;
        let late = world.hold_sent(A, fiber, "SETNX k0");
        world.pass(110);
        assert!(matches!(world.processes[A].fibers[fiber].state, State::Loading { .. }));
        world.go(B, [Invalidate(0)]);
        world.release(late);
        world.pass(1_000);
        world
    });
}

#[test]
fn generation_before_the_bus_armed_is_not_remembered() {
    needs(&[Off::Rule(Rule::GenerationWhenSent)], "G5", |options| {
        let mut world = World::armed(options, 2);
        world.go_for(B, 20, read(0));
        let fiber = world.start(A, read(0));
        let held = world.hold_answer(A, fiber, "SETNX g0");
        let tracking = world.tracking(A);
        world.kill_connection(tracking);
        let bus = world.hold_sent(A, 0, "TRACK");
        world.go(B, [Clear(vec![0, 2])]);
        world.release(bus);
        world.pass(60);
        world.release(held);
        for _ in 0..10 {
            world.pass(400);
            world.go(A, [Read(0, false)]);
        }
        world
    });
}

// Slots that move.

#[test]
fn lease_that_moved_is_filled() {
    let mut world = World::cluster(options(&[]), 2);
    let key = key_on_first(&world, false);
    let leader = world.start(A, read(key));
    world.processes[A].fibers[leader].load_ms = 4_000;
    world.run_through(A, leader);
    let waiting = world.start(B, read(key));
    world.pass(100);
    world.begin_move(&key_text(key), 1);
    world.migrate(&key_text(key));
    world.pass(1_000);
    world.end_move(slot(&key_text(key)));
    world.pass(4_000);
    assert_eq!(world.oracle.violation, None);
    assert_eq!(world.loads[key], 1);
    assert!(world.is_done(A, leader) && world.is_done(B, waiting));
}

#[test]
fn lease_that_moved_is_voided() {
    needs(&[Off::Duty(Duty::ConditionalFill)], "G4", |options| {
        let mut world = World::cluster(options, 2);
        let key = key_on_first(&world, false);
        let leader = world.start(A, read(key));
        world.processes[A].fibers[leader].load_ms = 300;
        world.run_through(A, leader);
        world.begin_move(&key_text(key), 1);
        world.migrate(&key_text(key));
        // Asked of the new node: the old one has still the slot.
        world.go(B, [Invalidate(key)]);
        world.end_move(slot(&key_text(key)));
        world.pass(400);
        world
    });
}

#[test]
fn late_write_is_fenced_where_it_was_sent() {
    needs(&[Off::Rule(Rule::LateWriteByNode)], "G4", |options| {
        let mut world = World::cluster(options, 2);
        let key = key_on_first(&world, false);
        let slot = slot(&key_text(key));
        let first = world.start(A, [Set(key)]);
        let late = world.hold_sent(A, first, "SET k");
        while !world.is_done(A, first) {
            let next = world.next_timer().unwrap();
            world.pass_until(next);
            world.run_ready(A, first);
        }
        // Before the replay, which would begin with the kill.
        world.processes[A].fibers[0].state = State::Joined;
        world.reassign(slot, 1);
        world.processes[A].slots.insert(slot, 1);
        world.go(A, [Set(key)]);
        world.processes[A].fibers[0].state = State::Ready;
        world.reassign(slot, 0);
        world.go_for(A, 50, [Set(key)]);
        world.release(late);
        world.go(B, read(key));
        world
    });
}

#[test]
fn journalled_key_is_replayed_where_its_slot_is() {
    needs_for(&[Off::Rule(Rule::JournalFollows)], |options| {
        let mut world = World::cluster(options, 1);
        let key = key_on_first(&world, false);
        world.kill_server(0);
        world.go_for(A, 400, [Invalidate(key)]);
        world.reassign(slot(&key_text(key)), 1);
        world.processes[A].slots.insert(slot(&key_text(key)), 1);
        world.go_for(A, 400, read(key));
        world.processes[A].tier.journal_len() == 0
    });
}

#[test]
fn journal_of_a_server_that_left_is_replayed_without_another_call() {
    needs_for(&[Off::Rule(Rule::JournalFollows)], |options| {
        let mut world = World::cluster(options, 1);
        let key = key_on_first(&world, false);
        world.kill_server(0);
        world.go_for(A, 400, [Invalidate(key)]);
        world.reassign(slot(&key_text(key)), 1);
        // As the transport learns it, which looks at the slots now and then.
        world.processes[A].slots.insert(slot(&key_text(key)), 1);
        world.processes[A].tier.set_serving(0, false, world.now);
        world.pass(2_000);
        world.processes[A].tier.journal_len() == 0
    });
}

#[test]
fn generation_of_a_server_that_left_is_read_where_its_slot_is() {
    needs_for(&[Off::Rule(Rule::GenerationFollows)], |options| {
        let mut world = World::cluster(options, 1);
        let key = key_on_first(&world, false);
        // The generation's slot alone is elsewhere, as a redirection states.
        world.reassign(0, 1);
        world.go_for(A, 50, read(key));
        world.kill_server(1);
        world.reassign(0, 0);
        world.processes[A].tier.set_serving(1, false, world.now);
        // Longer than a generation is known.
        world.pass(15_000);
        let unconfirmed = |world: &World| {
            let mut count = 0;
            let stats = world.processes[A].namespace.stats();
            stats.for_each(|name, number| count += if name == "unconfirmed" { number } else { 0 });
            count
        };
        let before = unconfirmed(&world);
        world.go_for(A, 400, [Set(key)]);
        unconfirmed(&world) == before
    });
}

#[test]
fn claim_is_in_the_slot_of_its_key() {
    needs_for(&[Off::Rule(Rule::ClaimInSlot)], |mut options| {
        options.namespace.stale_while_revalidate = ms(5_000);
        let mut world = World::cluster(options, 2);
        let key = key_on_first(&world, true);
        world.go_for(A, 20, read(key));
        world.pass(20_500);
        world.go_for(B, 50, read(key));
        let fiber = world.go_for(A, 50, [Read(key, false)]);
        world.loads[key] == 2
            && world
                .last(A, fiber)
                .is_some_and(|(value, how)| value.is_some() && how != "stale")
    });
}

fn cleared_after_a_move(options: Options) -> World {
    let mut world = World::cluster(options, 1);
    let key = key_on_first(&world, false);
    world.go_for(A, 20, read(key));
    // The first slot of the first node, where its generation is.
    world.reassign(0, 1);
    world.spawn();
    world.pass(300);
    world.go_for(B, 20, read(key));
    world.go_for(A, 20, [Clear(vec![key])]);
    for _ in 0..10 {
        world.pass(400);
        world.go(B, [Read(key, false)]);
    }
    world
}

#[test]
fn generation_belongs_to_slots() {
    needs(&[Off::Duty(Duty::GenerationBySlots)], "G", cleared_after_a_move);
}

#[test]
fn soft_end_is_by_the_clock_of_the_new_server() {
    needs(&[Off::Rule(Rule::TimesByNode)], "G4", |options| {
        let mut world = World::cluster(options, 0);
        // Behind the first one.
        world.servers[1].clock -= 5_000;
        world.spawn();
        world.pass(200);
        let key = key_on_first(&world, false);
        world.go_for(A, 20, read(key));
        world.begin_move(&key_text(key), 1);
        world.end_move(slot(&key_text(key)));
        world.go_for(A, 50, [Expire(key), Read(key, false)]);
        world
    });
}
