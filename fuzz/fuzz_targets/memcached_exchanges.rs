//! Any replies of memcached servers to any action: each exchange ends, with an outcome that belongs
//! to the action.
#![no_main]

use hotset::tier2::memcached::{CasNumbers, Exchange, Operands, Outcome, Protocol, Step};
use hotset::tier2::{Action, HEAD, Kind};
use libfuzzer_sys::fuzz_target;

const ACTIONS: [Action; 12] = [
    Action::Get,
    Action::Acquire,
    Action::Swap,
    Action::Fill,
    Action::Put,
    Action::Release,
    Action::Remove,
    Action::Expire,
    Action::Touch,
    Action::Bump,
    Action::ReadGeneration,
    Action::Claim,
];

/// The head of a frame that no other one has.
fn head(kind: Kind) -> [u8; HEAD] {
    let mut head = [7; HEAD];
    head[..4].copy_from_slice(&[0xf1, b'h', 1, kind as u8]);
    head
}

/// A reply: the bytes as they are, or a well-formed reply with these bytes in it.
fn reply(kind: u8, number: u64, bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len();
    let line = match kind % 12 {
        0 => return bytes.to_vec(),
        1 => return [format!("VA {length} c{number} t-1\r\n").as_bytes(), bytes, b"\r\n"].concat(),
        2 => {
            return [
                format!("VALUE k 0 {length} {number}\r\n").as_bytes(),
                bytes,
                b"\r\nEND\r\n",
            ]
            .concat();
        }
        3 => format!("HD c{number}\r\n"),
        4 => "NS\r\n".into(),
        5 => "EX\r\n".into(),
        6 => "NF\r\n".into(),
        7 => "EN\r\n".into(),
        8 => "STORED\r\n".into(),
        9 => "NOT_STORED\r\n".into(),
        10 => "END\r\n".into(),
        _ => "SERVER_ERROR out of memory\r\n".into(),
    };
    line.into_bytes()
}

fuzz_target!(|input: (bool, Vec<u8>, Vec<(u8, u8, u64, Vec<u8>)>)| {
    let (meta, actions, replies) = input;
    let protocol = if meta { Protocol::Meta } else { Protocol::Classic };
    let numbers = CasNumbers::default();
    let stamp = [7; 16];
    let lease = head(Kind::Lease);
    let value = [&head(Kind::Value)[..], &[0; 60]].concat();
    let mut rest = replies.iter().cycle();
    for action in actions
        .iter()
        .map(|&action| ACTIONS[usize::from(action) % ACTIONS.len()])
    {
        let frame = match action {
            Action::Fill | Action::Put => &value[..],
            Action::Acquire | Action::Swap => &lease[..],
            _ => &stamp[..],
        };
        let operands = Operands {
            target: b"k",
            key: b"other",
            expected: &lease[..HEAD],
            frame,
            soft_end: 5,
            expires: 3,
        };
        let mut exchange = Exchange::with_operands(action, operands);
        let mut outcome = None;
        for _ in 0..64 {
            // Frames of the exchange's own are replies, too.
            let (mut sent, mut serial) = (Vec::new(), 0);
            let mut next = |at: usize| match rest.next() {
                Some((connection, kind, number, bytes)) => {
                    serial = u64::from(*connection);
                    let bytes = match bytes.len() % 3 {
                        0 => &bytes[..],
                        1 => &lease[..],
                        _ => &value[..],
                    };
                    (serial, reply(*kind, *number, bytes))
                }
                None => (at as u64, b"EN\r\n".to_vec()),
            };
            let (first, answer) = next(0);
            sent.push(answer);
            let requests = exchange.requests(protocol, first, &numbers);
            assert!(matches!(requests.len(), 1 | 2));
            assert!(requests.iter().all(|request| request.ends_with(b"\r\n")));
            while sent.len() < requests.len() {
                sent.push(next(sent.len()).1);
            }
            let sent: Vec<&[u8]> = sent.iter().map(|reply| &reply[..]).collect();
            if let Step::End(end) = exchange.replies(&sent, &numbers) {
                outcome = Some(end);
                break;
            }
        }
        match outcome.expect("an exchange ends") {
            Outcome::Value(_) => assert!(matches!(action, Action::Get | Action::Acquire | Action::ReadGeneration)),
            Outcome::Claim(..) => assert_eq!(action, Action::Claim),
            Outcome::Flag(_) => assert!(!matches!(
                action,
                Action::Get | Action::Acquire | Action::ReadGeneration | Action::Claim
            )),
            Outcome::Failed(_) => {}
        }
    }
});
