//! Any bytes that a server holds under a key: frames are read without a panic, and operations that
//! read them terminate.
#![no_main]

use hotset::tier2::{Action, Kind, Namespace, NamespaceSettings, Parsed, Probe, Reply, Settings, Tier, parse};
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_000_000_000_000;

fuzz_target!(|replies: Vec<Vec<u8>>| {
    for reply in &replies {
        if let Parsed::Frame(frame) = parse(reply) {
            assert!(frame.offset <= reply.len());
            frame.tags().for_each(|_| {});
        }
    }
    let tier = Tier::new(
        1,
        Settings {
            bus: false,
            ..Settings::default()
        },
    );
    let settings = NamespaceSettings {
        stale_while_revalidate: 1 << 40,
        stale_if_error: 1 << 41,
        early_reload: 1.0,
        ..NamespaceSettings::default()
    };
    let namespace = Namespace::new(&tier, settings);
    namespace.set_generations(&[b"g"]);
    let probe = Probe {
        identity: b"i",
        server_ms: 1,
        sent: NOW,
        can_fence: true,
        canary_prefix: b"c",
    };
    let epoch = tier.probed(0, &probe, NOW);
    let mut read = namespace.read(b"k", 0, NOW, true, &[b"tag"]);
    let mut answers = replies.iter().map(|reply| &reply[..]);
    for step in 0..replies.len() as u64 + 64 {
        let now = NOW + step * 10_000_000;
        match read.action() {
            Action::Get | Action::Acquire | Action::ReadGeneration => {
                _ = read.reply(now, epoch, Reply::Value(answers.next()))
            }
            Action::Claim => _ = read.reply(now, epoch, Reply::Claim(step % 2 == 0, answers.next())),
            action if action.is_command() => _ = read.reply(now, epoch, Reply::Flag(step % 3 != 0)),
            Action::Load => _ = read.loaded(now, 0, Kind::Value),
            Action::Hit | Action::NegativeHit | Action::Stale => {
                assert!(answers.next().is_none() || read.offset() <= replies.iter().map(Vec::len).max().unwrap_or(0));
                return;
            }
            action if action.is_end() => return,
            _ => _ = read.step(now),
        }
    }
    // It waits for a lease that is held: nothing else may take this long.
    assert!(
        read.action() == Action::Wait || read.action() == Action::Get,
        "{:?}",
        read.action()
    );
});
