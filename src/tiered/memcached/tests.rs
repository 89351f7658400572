//! Connections to servers that misbehave. `tests/tiered_memcached.rs` has the real ones.

use super::client::wire_key;
use super::*;
use crate::tier2::HEAD;
use crate::tiered::{Answer, Command};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

/// A server for one connection, which sends these replies: one for each line that it reads.
struct Fake {
    address: String,
    thread: JoinHandle<Vec<String>>,
}

const GREETING: [&str; 2] = [
    "VERSION 1.6.18\r\n",
    "STAT pid 7\r\nSTAT uptime 5\r\nSTAT time 1005\r\nEND\r\n",
];

impl Fake {
    fn start(replies: &[&str]) -> Self {
        let replies: Vec<String> = replies.iter().map(|&reply| reply.to_owned()).collect();
        Self::run(move |mut stream| {
            let (mut reader, mut lines) = (BufReader::new(stream.try_clone().expect("a copy")), Vec::new());
            for reply in replies {
                let mut line = String::new();
                if reader.read_line(&mut line).is_err() || line.is_empty() {
                    break;
                }
                lines.push(line.trim_end().to_owned());
                _ = stream.write_all(reply.as_bytes());
            }
            // Until the client has gone.
            _ = stream.shutdown(Shutdown::Write);
            _ = reader.read_to_end(&mut Vec::new());
            lines
        })
    }

    fn run(serve: impl FnOnce(TcpStream) -> Vec<String> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let thread = std::thread::spawn(move || serve(listener.accept().expect("a connection").0));
        Self { address, thread }
    }

    fn connect(&self) -> Result<(Box<dyn Connection>, Greeting), Failure> {
        let servers = Memcached::open([&self.address]).expect("an address");
        servers.connect(0, later())
    }

    fn lines(self) -> Vec<String> {
        self.thread.join().expect("it has ended")
    }
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn greeted(replies: &[&str]) -> (Fake, Box<dyn Connection>) {
    let server = Fake::start(&[&GREETING, replies].concat());
    let (connection, _) = server.connect().expect("it greets");
    (server, connection)
}

#[test]
fn greeting_has_identity_and_time() {
    let server = Fake::start(&GREETING);
    let (_, greeting) = server.connect().expect("it greets");
    assert_eq!(greeting.identity, b"7/1000");
    assert_eq!(greeting.server_ms, 1_005_000);
    assert!(!greeting.can_fence && greeting.connection > 0);
}

#[test]
fn greeting_of_another_server_is_refused() {
    let statistics = GREETING[1];
    let greetings = [
        ["ERROR\r\n", statistics],
        ["-ERR unknown command\r\n", statistics],
        ["STORED\r\n", statistics],
        ["VERSION 1.6.18\r\n", "STAT uptime 5\r\nEND\r\n"],
        ["VERSION 1.6.18\r\n", "STAT time x\r\nEND\r\n"],
        ["VERSION 1.6.18\r\n", "HTTP/1.1 400 Bad Request\r\n"],
        ["", ""],
    ];
    for greeting in greetings {
        let server = Fake::start(&greeting);
        assert_eq!(server.connect().err(), Some(Failure::Refused), "{greeting:?}");
    }
    let server = Fake::start(&["CLIENT_ERROR unauthenticated\r\n", statistics]);
    assert_eq!(server.connect().err(), Some(Failure::NoPermission));
}

#[test]
fn older_server_is_sent_classic_commands() {
    for (version, command) in [("1.6.12", "gets k"), ("1.6.13", "mg k v c t"), ("1.10", "mg k v c t")] {
        let version = format!("VERSION {version}\r\n");
        let server = Fake::start(&[&version, GREETING[1], "END\r\n"]);
        let servers = Memcached::open([&server.address]).expect("an address");
        let (mut connection, _) = servers.connect(0, later()).expect("it greets");
        let is_classic = command.starts_with("gets");
        assert_eq!(servers.counters(), [("classic_servers", u64::from(is_classic))]);
        let release = Command::Release {
            key: b"k",
            expected: &[0; HEAD],
        };
        assert_eq!(connection.execute(&release, later()), Ok(Answer::Flag(false)));
        drop(connection);
        assert_eq!(server.lines()[2], command, "{version}");
    }
}

#[test]
fn malformed_reply_ends_the_connection() {
    let replies = [
        "nonsense\r\n",
        "VALUE k 0 -1\r\n",
        "VALUE k 0 3\r\nabcd\r\nEND\r\n",
        "VALUE k 0 99999999999999999999\r\n",
        "ERROR\r\n",
        "\r\n",
        "",
    ];
    for reply in replies {
        let (_server, mut connection) = greeted(&[reply]);
        let get = Command::Get { key: b"k" };
        assert_eq!(connection.execute(&get, later()), Err(Failure::Timeout), "{reply:?}");
        assert_eq!(connection.execute(&get, later()), Err(Failure::Refused));
        assert_eq!(connection.ping(later()), Err(Failure::Refused));
    }
}

#[test]
fn more_replies_than_requests_end_the_connection() {
    let (_server, mut connection) = greeted(&["VALUE k 0 1\r\na\r\nEND\r\nVALUE k 0 1\r\nb\r\nEND\r\n"]);
    let get = Command::Get { key: b"k" };
    assert_eq!(
        connection.execute(&get, later()),
        Ok(Answer::Value(Some(b"a".to_vec())))
    );
    assert_eq!(connection.execute(&get, later()), Err(Failure::Refused));
}

#[test]
fn error_reply_is_an_answer() {
    let (_server, mut connection) = greeted(&["SERVER_ERROR out of memory\r\n", "END\r\n", "VERSION 1.6.18\r\n"]);
    let get = Command::Get { key: b"k" };
    assert_eq!(connection.execute(&get, later()), Err(Failure::OutOfMemory));
    assert_eq!(connection.execute(&get, later()), Ok(Answer::Value(None)));
    assert_eq!(connection.ping(later()), Ok(()));
}

#[test]
fn slow_reply_does_not_move_the_deadline() {
    let server = Fake::run(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
        for reply in GREETING {
            reader.read_line(&mut String::new()).expect("a line");
            stream.write_all(reply.as_bytes()).expect("sent");
        }
        reader.read_line(&mut String::new()).expect("a line");
        stream.write_all(b"VALUE k 0 1000000\r\n").expect("sent");
        // A byte at a time, for as long as there is a client.
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Vec::new()
    });
    let (mut connection, _) = server.connect().expect("it greets");
    let deadline = Instant::now() + Duration::from_millis(30);
    let answer = connection.execute(&Command::Get { key: b"k" }, deadline);
    // All of the value would take a quarter of an hour.
    assert_eq!(answer, Err(Failure::Timeout));
    drop(connection);
    server.lines();
}

#[test]
fn endless_statistics_are_refused() {
    let server = Fake::run(|mut stream| {
        _ = stream.write_all(b"VERSION 1.6.18\r\n");
        while stream.write_all(b"STAT a b\r\nSTAT c d\r\n").is_ok() {}
        Vec::new()
    });
    assert_eq!(server.connect().err(), Some(Failure::Refused));
    server.lines();
}

#[test]
fn failure_in_a_batch_keeps_the_answers_before_it() {
    let (server, mut connection) = greeted(&["VALUE a 0 1\r\n1\r\nEND\r\n", "nonsense\r\n", "END\r\n"]);
    let keys: [&[u8]; 4] = [b"a", b"b", b"c", b"a"];
    let commands = keys.map(|key| Command::Get { key });
    let answers = connection.execute_many(&commands, later());
    let timeout = || Err(Failure::Timeout);
    let value = Ok(Answer::Value(Some(b"1".to_vec())));
    // The last one has a key of an earlier one: it is not sent before that is answered.
    assert_eq!(answers, [value, timeout(), timeout(), Err(Failure::NotSent)]);
    drop(connection);
    assert_eq!(server.lines()[2..], ["get a", "get b", "get c"]);
}

#[test]
fn commands_of_other_servers_are_refused() {
    let (_server, mut connection) = greeted(&["END\r\n"]);
    let canary = Command::Canary { key: b"k", px: 1 };
    assert_eq!(connection.execute(&canary, later()), Err(Failure::Other));
    let short = Command::Expire {
        key: b"k",
        stamp: b"short",
        soft_end: 0,
    };
    assert_eq!(connection.execute(&short, later()), Err(Failure::Other));
    let fence = Command::Fence { connection: 1 };
    let answers = connection.execute_many(&[fence, Command::Get { key: b"k" }], later());
    assert_eq!(answers, [Err(Failure::Other), Ok(Answer::Value(None))]);
}

// What `hotset.tier2._keys.wire_key` returns.
#[test]
fn long_key_is_hashed_as_python_hashes_it() {
    assert_eq!(wire_key(&[b'x'; 250]), &[b'x'; 250][..]);
    let hashed = wire_key(&[b'x'; 251]).into_owned();
    assert_eq!(String::from_utf8_lossy(&hashed), LONG);
}

const LONG: &str = "#d664d9a28aaea51fa7b5023434434252";

#[test]
fn servers_are_checked() {
    let open = |servers: &[&str]| Memcached::open(servers).map(drop);
    assert!(open(&[]).is_err());
    assert!(open(&["a:1", "b:1", "a:1"]).is_err());
    assert!(open(&["a", "a:11211"]).is_err());
    assert!(open(&["a:1", "/a"]).is_ok());
    let servers = Memcached::open(["a:1", "b:2"]).expect("addresses");
    assert_eq!(servers.traits().max_value, (1 << 20) - 2_048);
    assert_eq!(servers.clone().item_size(1 << 23).traits().max_value, (1 << 23) - 2_048);
    assert_eq!(servers.generation_tags(), [b"{a%3A1}", b"{b%3A2}"]);
    assert_eq!(servers.connect(2, later()).err(), Some(Failure::Refused));
    assert_eq!(servers.subscribe(0, &[], later()).err(), Some(Failure::Refused));
}
