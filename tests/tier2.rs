//! The second tier's core through its public interface: frames, and operations step by step.

use hotset::tier2::{
    Action, Failure, HEAD, Kind, MAX_TAGS, Namespace, NamespaceSettings, Operation, Parsed, Probe, Reply, Settings,
    Task, Tier, parse,
};
use proptest::prelude::*;

const NOW: u64 = 1_000_000_000_000;
const MS: u64 = 1_000_000;

fn probe(tier: &Tier, identity: &[u8], now: u64) -> u32 {
    let probe = Probe {
        identity,
        server_ms: 5_000_000,
        sent: now,
        can_fence: true,
        canary_prefix: b"!can:",
    };
    tier.probed(0, &probe, now)
}

/// Builds a tier without a bus, with a node that is up.
fn up(settings: NamespaceSettings) -> (Tier, Namespace) {
    let tier = Tier::new(
        7,
        Settings {
            bus: false,
            ..Settings::default()
        },
    );
    let namespace = Namespace::new(&tier, settings);
    namespace.set_generations(&[b"g"]);
    assert_eq!(probe(&tier, b"one", NOW), 1);
    (tier, namespace)
}

/// Drives a read of an absent key until it fills. Returns the operation and its head.
fn filling(namespace: &Namespace, tags: &[&[u8]]) -> (Operation, Vec<u8>) {
    let mut read = namespace.read(b"k", 0, NOW, true, tags);
    assert_eq!(read.reply(NOW, 1, Reply::Value(None)), Action::Acquire);
    let mut action = read.reply(NOW, 1, Reply::Value(None));
    while action == Action::ReadGeneration {
        action = read.reply(NOW, 1, Reply::Value(None));
    }
    assert_eq!(action, Action::Load);
    assert_eq!(read.loaded(NOW + MS, 0, Kind::Value), Action::Fill);
    let head = read.head(3, 9);
    (read, head)
}

#[test]
fn frame_round_trip_keeps_all_fields() {
    let (_, namespace) = up(NamespaceSettings::default());
    let (mut read, head) = filling(&namespace, &[b"menu", b"tea"]);
    let bytes = [&head[..], b"payload"].concat();
    let Parsed::Frame(frame) = parse(&bytes) else {
        panic!("a frame")
    };
    assert_eq!((frame.kind, frame.flags, frame.codec), (Kind::Value, 3, 9));
    assert_eq!(&bytes[frame.offset..], b"payload");
    assert_eq!(frame.load_micros, 1_000);
    assert_eq!(
        frame.tags().map(|(tag, _)| tag).collect::<Vec<_>>(),
        [&b"menu"[..], b"tea"]
    );
    assert_eq!(read.reply(NOW + MS, 1, Reply::Flag(true)), Action::Deliver);
    assert!(read.is_stored() && read.keep_until() > NOW);
    // Another reader, which knows no tags.
    let mut again = namespace.read(b"k", 0, NOW + 2 * MS, false, &[]);
    assert_eq!(again.reply(NOW + 2 * MS, 1, Reply::Value(Some(&bytes))), Action::Hit);
    assert_eq!((again.offset(), again.flags(), again.codec()), (frame.offset, 3, 9));
    assert_eq!(namespace.stats().hits.get(), 1);
}

#[test]
fn frame_of_another_generation_is_a_miss() {
    let (tier, namespace) = up(NamespaceSettings::default());
    let (mut read, head) = filling(&namespace, &[]);
    read.reply(NOW + MS, 1, Reply::Flag(true));
    let mut bump = namespace.bump(None, 0, 0, NOW);
    assert_eq!(bump.action(), Action::DropLocal);
    assert_eq!(bump.step(NOW), Action::Bump);
    let generation = bump.frame().to_vec();
    assert_eq!(bump.reply(NOW, 1, Reply::Flag(true)), Action::DropLocal);
    assert_eq!(bump.step(NOW), Action::Done);
    let mut read = namespace.read(b"k", 0, NOW, true, &[]);
    assert_eq!(read.reply(NOW, 1, Reply::Value(Some(&head))), Action::ReadGeneration);
    assert_eq!(read.reply(NOW, 1, Reply::Value(Some(&generation))), Action::Swap);
    assert_eq!(read.expected(), &head[..HEAD]);
    assert_eq!(tier.journal_len(), 0);
}

#[test]
fn write_without_a_reply_is_journaled_and_fenced() {
    let (tier, namespace) = up(NamespaceSettings::default());
    let mut write = namespace.write(b"k", 0, NOW, 0, &[]);
    assert_eq!(write.step(NOW), Action::ReadGeneration);
    assert_eq!(write.reply(NOW, 1, Reply::Value(None)), Action::Put);
    write.sending(42);
    drop(write);
    assert_eq!(tier.journal_len(), 1);
    let mut read = namespace.read(b"k", 0, NOW, true, &[]);
    assert_eq!((read.action(), read.is_limited()), (Action::Load, true));
    assert_eq!(read.loaded(NOW, 0, Kind::Value), Action::Deliver);
    assert_eq!(read.keep_until(), 0);
    assert_eq!(tier.background(0, NOW), Task::Operate);
    let mut replay = tier.background_operation(0, NOW).expect("a replay");
    assert_eq!((replay.action(), replay.connection()), (Action::Fence, 42));
    assert_eq!(replay.reply(NOW, 1, Reply::Flag(true)), Action::Remove);
    assert_eq!(replay.reply(NOW, 1, Reply::Flag(true)), Action::Done);
    assert_eq!(tier.journal_len(), 0);
}

#[test]
fn write_that_was_not_sent_needs_no_fence() {
    let (tier, namespace) = up(NamespaceSettings::default());
    let mut write = namespace.write(b"k", 0, NOW, 0, &[]);
    write.step(NOW);
    assert_eq!(write.reply(NOW, 1, Reply::Value(None)), Action::Put);
    assert_eq!(write.failed(NOW, Failure::Timeout), Action::DropLocal);
    assert_eq!(write.step(NOW), Action::Unconfirmed);
    assert_eq!(
        tier.background_operation(0, NOW).expect("a replay").action(),
        Action::Remove
    );
}

#[test]
fn write_refused_for_memory_removes_the_old_value() {
    let (tier, namespace) = up(NamespaceSettings::default());
    let mut write = namespace.write(b"k", 0, NOW, 0, &[]);
    write.step(NOW);
    write.reply(NOW, 1, Reply::Value(None));
    write.sending(42);
    assert_eq!(write.failed(NOW, Failure::OutOfMemory), Action::Remove);
    assert_eq!(write.reply(NOW, 1, Reply::Flag(true)), Action::DropLocal);
    assert_eq!(write.step(NOW), Action::Done);
    assert!(!write.is_stored());
    assert_eq!(tier.journal_len(), 0);
}

#[test]
fn journal_overflow_bumps_the_namespace() {
    let tier = Tier::new(
        7,
        Settings {
            bus: false,
            journal: 3,
            ..Settings::default()
        },
    );
    let namespace = Namespace::new(&tier, NamespaceSettings::default());
    namespace.set_generations(&[b"g"]);
    probe(&tier, b"one", NOW);
    for key in 0..5u8 {
        let mut remove = namespace.remove(&[key], 0, NOW);
        remove.step(NOW);
        remove.failed(NOW, Failure::NotSent);
    }
    assert_eq!(tier.stats().journal_overflows.get(), 1);
    // Entries after the overflow are in the journal, too.
    assert!(tier.journal_len() <= 4);
    let first = tier.background_operation(0, NOW).expect("a replay");
    assert_eq!((first.action(), first.target()), (Action::Bump, &b"g"[..]));
}

#[test]
fn absent_value_is_a_negative_hit() {
    let (_, namespace) = up(NamespaceSettings::default());
    let mut read = namespace.read(b"k", 0, NOW, true, &[]);
    read.reply(NOW, 1, Reply::Value(None));
    read.reply(NOW, 1, Reply::Value(None));
    assert_eq!(read.reply(NOW, 1, Reply::Value(None)), Action::Load);
    assert_eq!(read.loaded(NOW, 1_000 * MS, Kind::Negative), Action::Fill);
    let frame = read.head(0, 0);
    read.reply(NOW, 1, Reply::Flag(true));
    let mut again = namespace.read(b"k", 0, NOW, false, &[]);
    assert_eq!(again.reply(NOW, 1, Reply::Value(Some(&frame))), Action::NegativeHit);
}

#[test]
fn marker_makes_each_process_load_and_keep() {
    let (_, namespace) = up(NamespaceSettings::default());
    let mut read = namespace.read(b"k", 0, NOW, true, &[]);
    read.reply(NOW, 1, Reply::Value(None));
    read.reply(NOW, 1, Reply::Value(None));
    read.reply(NOW, 1, Reply::Value(None));
    assert_eq!(read.loaded(NOW, 0, Kind::Local), Action::Fill);
    let marker = read.head(0, 0);
    read.reply(NOW, 1, Reply::Flag(true));
    assert!(read.keep_until() > NOW);
    let mut again = namespace.read(b"k", 0, NOW, true, &[]);
    assert_eq!(again.reply(NOW, 1, Reply::Value(Some(&marker))), Action::Load);
    assert_eq!(again.loaded(NOW, 0, Kind::Value), Action::Deliver);
    assert!(again.keep_until() > NOW);
    let mut get = namespace.read(b"k", 0, NOW, false, &[]);
    assert_eq!(get.reply(NOW, 1, Reply::Value(Some(&marker))), Action::Miss);
}

#[test]
fn rejected_payload_is_loaded_again() {
    let (_, namespace) = up(NamespaceSettings::default());
    let (mut read, head) = filling(&namespace, &[]);
    read.reply(NOW, 1, Reply::Flag(true));
    let mut again = namespace.read(b"k", 0, NOW, true, &[]);
    assert_eq!(again.reply(NOW, 1, Reply::Value(Some(&head))), Action::Hit);
    assert_eq!(again.reject(NOW), Action::Swap);
    assert_eq!(again.reply(NOW, 1, Reply::Flag(true)), Action::Load);
    assert_eq!(namespace.stats().rejected.get(), 1);
}

#[test]
fn moved_command_is_sent_again_to_the_other_node() {
    let (tier, namespace) = up(NamespaceSettings::default());
    let mut read = namespace.read(b"k", 0, NOW, true, &[]);
    read.set_node(1);
    assert_eq!(read.failed(NOW, Failure::Moved), Action::Probe);
    let other = Probe {
        identity: b"two",
        server_ms: 1,
        sent: NOW,
        can_fence: true,
        canary_prefix: b"!",
    };
    let epoch = tier.probed(1, &other, NOW);
    assert_eq!((read.step(NOW), read.node()), (Action::Get, 1));
    assert_eq!(read.reply(NOW, epoch, Reply::Value(None)), Action::Acquire);
}

#[test]
fn reply_that_does_not_match_is_an_error() {
    let (_, namespace) = up(NamespaceSettings::default());
    let mut read = namespace.read(b"k", 0, NOW, true, &[]);
    assert_eq!(read.reply(NOW, 1, Reply::Flag(true)), Action::Load);
    assert!(read.is_limited());
    let mut get = namespace.read(b"k", 0, NOW, false, &[]);
    assert_eq!(get.reply(NOW, 1, Reply::Claim(true, None)), Action::Miss);
}

#[test]
fn early_reload_claims_more_often_near_expiry() {
    let settings = NamespaceSettings {
        early_reload: 1.0,
        ttl: 10_000 * MS,
        ..NamespaceSettings::default()
    };
    let claims = |at: u64| {
        let (_, namespace) = up(settings);
        let mut read = namespace.read(b"k", 0, NOW, true, &[]);
        read.reply(NOW, 1, Reply::Value(None));
        read.reply(NOW, 1, Reply::Value(None));
        read.reply(NOW, 1, Reply::Value(None));
        // A load that takes a second.
        read.loaded(NOW + 1_000 * MS, 0, Kind::Value);
        let head = read.head(0, 0);
        let now = NOW + at * MS;
        let claimed = (0..200).filter(|_| {
            let mut read = namespace.read(b"k", 0, now, true, &[]);
            let mut action = read.reply(now, 1, Reply::Value(Some(&head)));
            if action == Action::ReadGeneration {
                let Parsed::Frame(frame) = parse(&head) else {
                    unreachable!()
                };
                action = read.reply(now, 1, Reply::Value(Some(&frame.generation)));
            }
            action == Action::Claim
        });
        claimed.count()
    };
    let (far, near) = (claims(1_100), claims(10_500));
    assert!(far < 5 && near > 60, "{far} far from the end, {near} near it");
}

#[test]
#[should_panic(expected = "tags")]
fn too_many_tags_are_rejected() {
    let (_, namespace) = up(NamespaceSettings::default());
    let tags = vec![&b"tag"[..]; MAX_TAGS + 1];
    namespace.read(b"k", 0, NOW, true, &tags);
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        parse(&bytes);
    }

    /// Bytes with a valid head, so that the code behind the head is reached.
    #[test]
    fn corrupt_frames_are_dead_or_within_the_reply(
        kind in 0u8..8, stamp in any::<[u8; 16]>(), body in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..500,
    ) {
        let mut bytes = vec![0xF1, b'h', 1, kind];
        bytes.extend(stamp);
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.truncate(cut);
        match parse(&bytes) {
            Parsed::Frame(frame) => {
                prop_assert!(frame.offset <= bytes.len());
                prop_assert!(frame.tags().count() <= MAX_TAGS);
            }
            Parsed::Lease(_) | Parsed::Tombstone => prop_assert_eq!(bytes.len(), HEAD),
            Parsed::Dead => {}
        }
    }

    #[test]
    fn frames_round_trip(
        flags in any::<u16>(), codec in any::<u8>(), payload in prop::collection::vec(any::<u8>(), 0..100),
        tags in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..256), 0..=MAX_TAGS),
    ) {
        let (_, namespace) = up(NamespaceSettings::default());
        let names: Vec<&[u8]> = tags.iter().map(|tag| &tag[..]).collect();
        let (read, _) = filling(&namespace, &names);
        let bytes = [read.head(flags, codec), payload.clone()].concat();
        let Parsed::Frame(frame) = parse(&bytes) else { return Err(TestCaseError::fail("no frame")) };
        prop_assert_eq!((frame.flags, frame.codec), (flags, codec));
        prop_assert_eq!(&bytes[frame.offset..], &payload[..]);
        prop_assert_eq!(frame.tags().map(|(tag, _)| tag).collect::<Vec<_>>(), names);
        // A truncated frame is dead, or has a shorter payload.
        for cut in 0..frame.offset {
            prop_assert_eq!(parse(&bytes[..cut]), Parsed::Dead);
        }
    }

    /// With any replies of a server, an operation terminates, or waits for a lease that is held.
    #[test]
    fn operation_with_any_replies_terminates(
        replies in prop::collection::vec((0u8..8, prop::collection::vec(any::<u8>(), 0..80), any::<bool>()), 0..40),
        load in any::<bool>(),
    ) {
        let settings = NamespaceSettings {
            stale_while_revalidate: 1 << 40, stale_if_error: 1 << 41, early_reload: 1.0, ..NamespaceSettings::default()
        };
        let (_, namespace) = up(settings);
        let mut read = namespace.read(b"k", 0, NOW, load, &[b"tag"]);
        let mut answers = replies.iter().cycle().take(replies.len() * 4);
        for step in 0..400u64 {
            let now = NOW + step * MS;
            let (kind, body, flag) = answers.next().cloned().unwrap_or((9, Vec::new(), true));
            let framed = [&[0xF1, b'h', 1, kind][..], &[7; 16], &[0; 4], &body].concat();
            let value = (kind < 8).then_some(if flag { &framed[..] } else { &body[..] });
            match read.action() {
                Action::Get | Action::Acquire | Action::ReadGeneration => _ = read.reply(now, 1, Reply::Value(value)),
                Action::Claim => _ = read.reply(now, 1, Reply::Claim(flag, value)),
                Action::Load if flag => _ = read.loaded(now, 0, Kind::Value),
                Action::Load => _ = read.load_failed(now),
                action if action.is_command() => _ = read.reply(now, 1, Reply::Flag(flag)),
                action if action.is_end() => {
                    if matches!(action, Action::Hit | Action::NegativeHit) {
                        read.reject(now);
                        continue;
                    }
                    return Ok(());
                }
                _ => _ = read.step(now),
            }
        }
        prop_assert!(false, "{:?} after 400 steps", read.action());
    }
}

/// Where loads are never joined, the background thread is idle.
#[test]
fn background_sleeps_where_loads_are_never_joined() {
    let tier = Tier::new(7, Settings::default());
    let settings = NamespaceSettings {
        unsynced_ttl: 0,
        local_ttl: 0,
        ..NamespaceSettings::default()
    };
    Namespace::new(&tier, settings).set_generations(&[b"g"]);
    probe(&tier, b"one", NOW);
    let mut now = NOW;
    for _ in 0..1_000 {
        match tier.background(0, now) {
            Task::Sleep(until) => now = until.max(now + 1),
            Task::Connect => tier.disconnected(0, now),
            Task::Canary(number) => tier.canary_written(0, number, 1, now),
            Task::Clear => tier.cleared(0, now),
            Task::DropLoads => tier.loads_dropped(0, now),
            Task::Probe => _ = probe(&tier, b"one", now),
            other => panic!("{other:?}"),
        }
        now += 1_000;
    }
    assert!(now > NOW + 10_000 * MS, "a thousand tasks in {} ms", (now - NOW) / MS);
    assert!(tier.trust().joins_until() < now);
}

/// Removes a key on the first of two nodes, which confirms it.
fn removed(tier: &Tier, namespace: &Namespace) {
    let mut remove = namespace.remove(b"k", 0, NOW);
    assert_eq!(remove.step(NOW), Action::Remove);
    assert_eq!(remove.reply(NOW, 1, Reply::Flag(true)), Action::DropLocal);
    assert_eq!((remove.step(NOW), tier.journal_len()), (Action::Done, 0));
}

#[test]
fn confirmed_removal_is_replayed_on_a_new_node() {
    let (tier, namespace) = up(NamespaceSettings::default());
    removed(&tier, &namespace);
    tier.joined(1, NOW + MS);
    let other = Probe {
        identity: b"two",
        server_ms: 1,
        sent: NOW,
        can_fence: true,
        canary_prefix: b"!",
    };
    let epoch = tier.probed(1, &other, NOW + MS);
    // It may replace the first node, and have the old value.
    let read = namespace.read(b"k", 1, NOW + MS, true, &[]);
    assert_eq!((read.action(), tier.journal_len()), (Action::Load, 1));
    assert_eq!(tier.background(1, NOW + MS), Task::Operate);
    let mut replay = tier.background_operation(1, NOW + MS).unwrap();
    assert_eq!((replay.action(), replay.target()), (Action::Remove, &b"k"[..]));
    assert_eq!(replay.reply(NOW + MS, epoch, Reply::Flag(true)), Action::Done);
    assert_eq!(tier.journal_len(), 0);
}

#[test]
fn node_without_slots_is_cleared_then_trusted() {
    let tier = Tier::new(7, Settings::default());
    Namespace::new(&tier, NamespaceSettings::default()).set_generations(&[b"g"]);
    probe(&tier, b"one", NOW);
    assert_eq!(tier.trust().hits_until(), 0);
    tier.set_serving(0, false, NOW);
    assert_eq!((tier.trust().hits_until(), tier.background(0, NOW)), (0, Task::Clear));
    tier.cleared(0, NOW);
    assert_eq!((tier.trust().hits_until(), tier.nodes(NOW)[0].link), (u64::MAX, "idle"));
    assert!(matches!(tier.background(0, NOW), Task::Sleep(_)));
    tier.set_serving(0, true, NOW);
    assert_eq!((tier.trust().hits_until(), tier.background(0, NOW)), (0, Task::Probe));
}

#[test]
fn redirected_canary_probes_the_node() {
    let tier = Tier::new(7, Settings::default());
    Namespace::new(&tier, NamespaceSettings::default()).set_generations(&[b"g"]);
    probe(&tier, b"one", NOW);
    tier.connected(0, NOW);
    assert_eq!(tier.background(0, NOW), Task::Canary(1));
    tier.canary_failed(0, 1, Failure::Moved, NOW);
    assert_eq!(tier.background(0, NOW), Task::Probe);
    // In another slot: the tracking connection uses another prefix.
    let other = Probe {
        identity: b"one",
        server_ms: 5_000_000,
        sent: NOW,
        can_fence: true,
        canary_prefix: b"!other:",
    };
    tier.probed(0, &other, NOW);
    assert_eq!(tier.background(0, NOW), Task::Close);
}
