//! Exchanges over the model of memcached, and what a transport uses beside them.

use super::super::sim::memcached::{Cas, execute};
use super::super::{Action, HEAD, Kind, Namespace, NamespaceSettings, Operation, Probe, Reply, Settings, Tier};
use super::{CasNumbers, Exchange, Outcome, Protocol, Step, expiration, node_of, reply_length, value_of};
use std::collections::BTreeMap;

const SECOND: u64 = 1_000_000_000;

/// A server, and what one process knows of it.
#[derive(Default)]
struct Rig {
    data: BTreeMap<Vec<u8>, super::super::sim::Item>,
    cas: Cas,
    numbers: CasNumbers,
    serial: u64,
    commands: Vec<String>,
}

impl Rig {
    fn send(&mut self, exchange: &mut Exchange) -> Step {
        let commands = exchange.requests(Protocol::Meta, self.serial, &self.numbers);
        self.execute(exchange, &commands)
    }

    fn execute(&mut self, exchange: &mut Exchange, commands: &[Vec<u8>]) -> Step {
        let mut replies = Vec::new();
        for command in commands {
            self.commands
                .push(String::from_utf8_lossy(&command[..command.len().min(30)]).into_owned());
            replies.push(execute(&mut self.data, &mut self.cas, command, 5_000));
        }
        for reply in &replies {
            assert_eq!(
                reply_length(reply),
                Ok(Some(reply.len())),
                "{:?}",
                String::from_utf8_lossy(reply)
            );
        }
        let replies: Vec<&[u8]> = replies.iter().map(|reply| &**reply).collect();
        exchange.replies(&replies, &self.numbers)
    }

    /// Performs the action that an operation is at.
    fn perform(&mut self, operation: &mut Operation) -> Action {
        let mut exchange = begin(operation);
        let outcome = loop {
            if let Step::End(outcome) = self.send(&mut exchange) {
                break outcome;
            }
        };
        report(operation, outcome)
    }

    /// Drives an operation to the action, or to its end.
    fn drive_to(&mut self, operation: &mut Operation, wanted: Action) {
        for _ in 0..100 {
            let action = operation.action();
            if action == wanted || action.is_end() {
                return;
            }
            match action {
                Action::DropLocal => _ = operation.step(SECOND),
                Action::Load => _ = operation.loaded(SECOND, 0, Kind::Value),
                action if action.is_command() => _ = self.perform(operation),
                other => panic!("{other:?}"),
            }
        }
        panic!("no end");
    }
}

fn begin(operation: &Operation) -> Exchange {
    let value = matches!(operation.action(), Action::Fill | Action::Put).then(|| {
        let mut value = operation.head(0, 0);
        value.extend(b"payload");
        value
    });
    Exchange::new(operation, operation.target(), operation.key(), value.as_deref())
}

fn report(operation: &mut Operation, outcome: Outcome) -> Action {
    match outcome {
        Outcome::Value(value) => operation.reply(SECOND, 1, Reply::Value(value.as_deref())),
        Outcome::Flag(done) => operation.reply(SECOND, 1, Reply::Flag(done)),
        Outcome::Claim(won, value) => operation.reply(SECOND, 1, Reply::Claim(won, value.as_deref())),
        Outcome::Failed(failure) => operation.failed(SECOND, failure),
    }
}

fn namespace() -> Namespace {
    namespace_with(60 * SECOND)
}

fn namespace_with(stale_while_revalidate: u64) -> Namespace {
    let settings = Settings {
        bus: false,
        generation_per_node: true,
        clock_resolution: 1_000,
        ..Settings::default()
    };
    let tier = Tier::new(7, settings);
    let probe = Probe {
        identity: b"1/1",
        server_ms: 1_000_000,
        sent: SECOND,
        can_fence: false,
        canary_prefix: b"",
    };
    tier.probed(0, &probe, SECOND);
    let grace = NamespaceSettings {
        stale_while_revalidate,
        ..NamespaceSettings::default()
    };
    let namespace = Namespace::new(&tier, grace);
    namespace.set_generations(&[b"g{a}:n"]);
    namespace
}

#[test]
fn load_takes_a_lease_and_fills_it_under_its_number() {
    let (namespace, mut rig) = (namespace(), Rig::default());
    let mut read = namespace.read(b"k", 0, SECOND, true, &[]);
    rig.drive_to(&mut read, Action::Deliver);
    assert_eq!(read.action(), Action::Deliver);
    assert!(read.is_stored());
    // Read, lease and read in one packet, generation, fill.
    let words: Vec<_> = rig.commands.iter().map(|line| &line[..2]).collect();
    assert_eq!(words, ["ge", "ms", "mg", "ms", "mg", "ms"]);
    assert!(rig.commands[5].contains(" C1 c"), "{}", rig.commands[5]);
}

#[test]
fn fill_after_a_removal_is_refused() {
    let (namespace, mut rig) = (namespace(), Rig::default());
    let mut read = namespace.read(b"k", 0, SECOND, true, &[]);
    rig.drive_to(&mut read, Action::Fill);
    let mut remove = namespace.remove(b"k", 0, SECOND);
    rig.drive_to(&mut remove, Action::Done);
    rig.drive_to(&mut read, Action::Deliver);
    assert!(!read.is_stored());
    assert!(!rig.data.contains_key(&b"k"[..]));
}

#[test]
fn fill_on_a_younger_connection_compares_the_head() {
    let (namespace, mut rig) = (namespace(), Rig::default());
    let mut read = namespace.read(b"k", 0, SECOND, true, &[]);
    rig.drive_to(&mut read, Action::Fill);
    // The server was started again: another item has the number of the lease.
    rig.serial = 1;
    rig.cas = Cas::default();
    rig.data.clear();
    let mut other = namespace.write(b"k", 0, SECOND, 0, &[]);
    rig.drive_to(&mut other, Action::Done);
    let newer = rig.data[&b"k"[..]].value.clone();
    rig.commands.clear();
    rig.drive_to(&mut read, Action::Deliver);
    assert!(!read.is_stored());
    assert_eq!(rig.data[&b"k"[..]].value, newer);
    assert!(rig.commands[0].starts_with("mg k v c"), "{:?}", rig.commands);
}

#[test]
fn put_that_is_late_finds_another_number() {
    let (namespace, mut rig) = (namespace(), Rig::default());
    let mut late = namespace.write(b"k", 0, SECOND, 0, &[]);
    rig.drive_to(&mut late, Action::Put);
    let mut exchange = begin(&late);
    assert_eq!(rig.send(&mut exchange), Step::Again);
    // Sent, and not executed before the removal.
    let commands = exchange.requests(Protocol::Meta, 0, &rig.numbers);
    let mut remove = namespace.remove(b"k", 0, SECOND);
    rig.drive_to(&mut remove, Action::Done);
    rig.execute(&mut exchange, &commands);
    assert!(!rig.data.contains_key(&b"k"[..]));
    // The same over a newer value.
    let mut newer = namespace.write(b"k", 0, SECOND, 0, &[]);
    rig.drive_to(&mut newer, Action::Done);
    let value = rig.data[&b"k"[..]].value.clone();
    rig.execute(&mut exchange, &commands);
    assert_eq!(rig.data[&b"k"[..]].value, value);
}

#[test]
fn put_replaces_a_value_and_voids_a_lease() {
    let (namespace, mut rig) = (namespace(), Rig::default());
    let mut read = namespace.read(b"k", 0, SECOND, true, &[]);
    rig.drive_to(&mut read, Action::Fill);
    for _ in 0..2 {
        let mut write = namespace.write(b"k", 0, SECOND, 0, &[]);
        rig.drive_to(&mut write, Action::Done);
        assert!(write.is_stored());
    }
    let value = rig.data[&b"k"[..]].value.clone();
    rig.drive_to(&mut read, Action::Deliver);
    assert!(!read.is_stored());
    assert_eq!(rig.data[&b"k"[..]].value, value);
}

#[test]
fn expire_keeps_the_value_and_its_lifetime() {
    let (namespace, mut rig) = (namespace(), Rig::default());
    let mut write = namespace.write(b"k", 0, SECOND, 0, &[]);
    rig.drive_to(&mut write, Action::Done);
    let before = rig.data[&b"k"[..]].clone();
    let mut expire = namespace.expire(b"k", 0, SECOND);
    rig.drive_to(&mut expire, Action::Done);
    let after = &rig.data[&b"k"[..]];
    assert_eq!(after.expires, before.expires);
    assert_ne!(after.value[..HEAD], before.value[..HEAD]);
    assert!(after.value.ends_with(b"payload"));
}

#[test]
fn expired_value_stays_expired_when_the_clock_moves() {
    let (namespace, mut rig) = (namespace(), Rig::default());
    let mut write = namespace.write(b"k", 0, SECOND, 0, &[]);
    rig.drive_to(&mut write, Action::Done);
    let mut expire = namespace.expire(b"k", 0, SECOND);
    rig.drive_to(&mut expire, Action::Expire);
    // The probe read 1,000 s. After a stop, the clock of a server may be late.
    assert_eq!(expire.soft_end(), 1_000_000 - 10_000);
    let mut expire = namespace_with(0).expire(b"k", 0, SECOND);
    rig.drive_to(&mut expire, Action::Expire);
    assert_eq!(expire.soft_end(), 1, "no clock makes it fresh");
}

#[test]
fn expire_removes_a_lease() {
    let (namespace, mut rig) = (namespace(), Rig::default());
    let mut read = namespace.read(b"k", 0, SECOND, true, &[]);
    rig.drive_to(&mut read, Action::Fill);
    let mut expire = namespace.expire(b"k", 0, SECOND);
    rig.drive_to(&mut expire, Action::Done);
    assert_eq!(expire.action(), Action::Done);
    assert!(!rig.data.contains_key(&b"k"[..]));
}

#[test]
fn server_without_cas_refuses_fills() {
    let (namespace, mut rig) = (namespace(), Rig::default());
    let mut read = namespace.read(b"k", 0, SECOND, true, &[]);
    rig.drive_to(&mut read, Action::Fill);
    let mut exchange = begin(&read);
    exchange.requests(Protocol::Meta, 9, &rig.numbers);
    let step = exchange.replies(&[b"VA 3 c0 t5\r\nabc\r\n"], &rig.numbers);
    assert_eq!(step, Step::End(Outcome::Failed(super::super::Failure::NoPermission)));
}

#[test]
fn expiration_lasts_at_least_as_long_and_becomes_a_date() {
    assert_eq!([1, 1_000, 1_001].map(|px| expiration(px, 0)), [2, 2, 3]);
    let month = 30 * 24 * 3_600;
    assert_eq!(expiration((month - 1) * 1_000, 7_000_000), month);
    assert_eq!(expiration(month * 1_000, 7_000_000), 7_000 + month + 1);
    assert_eq!(expiration(u64::MAX, u64::MAX), i32::MAX as u64);
}

#[test]
fn node_is_that_of_pymemcache() {
    // As `RendezvousHash(["a:1", "b:2", "c:3"]).get_node(key)` of pymemcache 4.0.0.
    let names: Vec<Box<[u8]>> = [&b"a:1"[..], b"b:2", b"c:3"].map(Into::into).into();
    let nodes = |keys: &[&str]| {
        keys.iter()
            .map(|key| node_of(&names, key.as_bytes()))
            .collect::<Vec<_>>()
    };
    let keys = [
        "",
        "k",
        "key",
        "shop:1:tea",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "[1]",
        "[\"tea\"]",
        "k1",
        "k2",
        "k3",
        "k4",
    ];
    assert_eq!(nodes(&keys), [2, 0, 2, 1, 1, 0, 2, 1, 0, 2, 2]);
}

#[test]
fn reply_is_incomplete_until_its_last_byte() {
    let replies: [&[u8]; 6] = [
        b"VALUE k 0 5\r\nab\r\nc\r\nEND\r\n",
        b"VA 2 c3 t-1\r\nxy\r\n",
        b"STAT a b\r\nSTAT c d\r\nEND\r\n",
        b"HD c12\r\n",
        b"12\r\n",
        b"SERVER_ERROR out of memory\r\n",
    ];
    for reply in replies {
        for end in 0..reply.len() {
            assert_eq!(reply_length(&reply[..end]), Ok(None), "{end}");
        }
        assert_eq!(reply_length(&[reply, b"EN\r\n"].concat()), Ok(Some(reply.len())));
    }
    assert_eq!(value_of(replies[0]), Some(Some(&b"ab\r\nc"[..])));
    assert_eq!(value_of(b"END\r\n"), Some(None));
    assert_eq!(value_of(b"SERVER_ERROR\r\n"), None);
}

#[test]
fn malformed_reply_is_an_error_and_never_a_panic() {
    let replies: [&[u8]; 8] = [
        b"ERROR\r\n",
        b"VA\r\n",
        b"VA -1\r\n",
        b"VA 99999999999999999999\r\n",
        b"VALUE k 0\r\n",
        b"\r\n",
        b"VA 1\r\nabcd",
        b"VALUE k 0 1\r\na\r\nEXT\r\n",
    ];
    for reply in replies {
        assert!(reply_length(reply).is_err(), "{:?}", String::from_utf8_lossy(reply));
    }
    // Any short sequence of the bytes that matter.
    let bytes = b"VA 1c-\r\nEND";
    for number in 0..bytes.len().pow(5) {
        let mut rest = number;
        let text: Vec<u8> = (0..5)
            .map(|_| {
                let byte = bytes[rest % bytes.len()];
                rest /= bytes.len();
                byte
            })
            .collect();
        let line = [&text[..], b"\r\n"].concat();
        if let Ok(Some(length)) = reply_length(&line) {
            _ = value_of(&line[..length]);
        }
    }
}
