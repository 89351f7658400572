//! Schedules on memcached: how values would become stale without what its commands compare.

use super::process::Step::{Read, Set};
use super::random::on_memcached;
use super::script::{Off, needs, needs_for};
use super::world::{Duty, Event, Options, World};

const A: usize = 0;
const B: usize = 1;

fn world(options: Options) -> World {
    let mut world = World::new(on_memcached(options), 1);
    world.spawn();
    world.spawn();
    world.pass(200);
    world
}

/// A write that was given up is executed after a newer one was confirmed: its first packet, or its
/// second one.
fn late_put(options: Options, packet: usize) -> World {
    let mut world = world(options);
    let first = world.start(A, [Set(4)]);
    let mut held = world.hold_sent(A, first, "ms k4");
    for _ in 1..packet {
        world.connections[held].hold_up = false;
        world.perform(Event::Up(held));
        held = world.hold_sent(A, first, "ms k4");
    }
    world.pass(600);
    assert!(world.is_done(A, first));
    world.go_for(A, 50, [Set(4)]);
    world.release(held);
    world.go(B, [Read(4, true)]);
    world.go(A, [Read(4, true)]);
    world
}

#[test]
fn late_put_on_memcached_finds_another_number() {
    needs(&[Off::Duty(Duty::PutUnderCas)], "G4", |options| late_put(options, 1));
}

#[test]
fn late_second_packet_of_a_put_is_refused() {
    needs(&[Off::Duty(Duty::CasCompared)], "G4", |options| late_put(options, 2));
}

/// The server is started again during A's load. Then another item has the number of A's lease, and
/// must not be replaced. (A reader would not take the replacement: its generation was lost, too.)
#[test]
fn cas_number_is_that_of_an_older_connection() {
    needs_for(&[Off::Duty(Duty::CasOfConnection)], |options| {
        let mut world = world(options);
        world.go_for(A, 50, [Read(2, true)]);
        let led = world.start(A, [Read(0, true)]);
        world.processes[A].fibers[led].load_ms = 400;
        world.run_through(A, led);
        let number = |world: &World| world.servers[0].cas.as_ref().map_or(0, |cas| cas.number(b"k0"));
        let leased = number(&world);
        world.kill_server(0);
        world.restart_server(0);
        while number(&world) != leased {
            world.go_for(B, 10, [Set(0)]);
        }
        let stored = world.servers[0].data[&b"k0"[..]].value.clone();
        world.pass(1_000);
        assert_eq!(world.oracle.violation, None);
        world.servers[0].data[&b"k0"[..]].value == stored
    });
}
