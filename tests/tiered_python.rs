//! Caches in Rust and in Python on one redis-server: `make test-tiered-python`.
//!
//! `HOTSET_PYTHON` is an interpreter that has the Python package and redis-py.
#![cfg(unix)]

use hotset::tiered::{Bytes, Codec, Json, Redis, Schema, Tiered, Ttl, Value, Values};
use redis_server::Server;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

#[path = "common/redis_server.rs"]
mod redis_server;

/// A Python process that evaluates expressions.
struct Python {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Python {
    /// Starts a process whose announcements arrive.
    fn start(server: &Server) -> Self {
        let python = std::env::var("HOTSET_PYTHON").expect("HOTSET_PYTHON is set (`make test-tiered-python`)");
        let peer = concat!(env!("CARGO_MANIFEST_DIR"), "/bindings/python/tests/rust_peer.py");
        let mut command = Command::new(python);
        command.args(["-I", "-B", peer, &server.url()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut python = Self { child, answers };
        python.yields("peer.armed()", "True");
        python
    }

    /// Returns the `repr` of what an expression evaluates to.
    fn run(&mut self, expression: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{expression}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert!(!answer.is_empty(), "Python ended at {expression}");
        answer.trim_end().to_owned()
    }

    #[track_caller]
    fn yields(&mut self, expression: &str, expected: &str) {
        assert_eq!(self.run(expression), expected, "{expression}");
    }

    /// Waits until a change of Rust's has arrived.
    #[track_caller]
    fn until(&mut self, condition: &str) {
        self.yields(&format!("peer.until(lambda: {condition})"), "True");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn until(holds: impl Fn() -> bool) {
    while !holds() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn cache<V: Clone + Send + Sync + 'static>(server: &Server, codec: impl Codec<V>, schema: Schema) -> Tiered<str, V> {
    let redis = Redis::open(&*server.url()).unwrap();
    let builder = Tiered::builder("shop", "prices", redis, codec);
    let cache = builder.max_entries(1_000).ttl(Duration::from_secs(600)).schema(schema);
    let cache: Tiered<str, V> = cache.build().unwrap();
    until(|| cache.stats().bus == "armed");
    cache
}

fn texts(server: &Server) -> Tiered<str, String> {
    cache(server, Bytes, Schema::None)
}

/// The text of a Python string.
fn quoted(text: &str) -> String {
    let mut all = String::from("\"");
    text.chars()
        .for_each(|one| all += &format!("\\U{:08x}", u32::from(one)));
    all + "\""
}

#[test]
fn bytes_are_exchanged() {
    let server = Server::start();
    let (here, mut python) = (texts(&server), Python::start(&server));
    for key in ["tea", "a{b}%\u{e9}:;", &"x".repeat(300)] {
        let quoted = quoted(key);
        python.yields(&format!("cache().set({quoted}, b'python')"), "True");
        assert_eq!(here.get(key).as_deref(), Some("python"), "{key}");
        assert!(here.set(key, "rust".into()));
        python.until(&format!("cache().get({quoted}) == b'rust'"));
    }
}

#[test]
fn keys_of_other_types_are_exchanged() {
    let server = Server::start();
    let mut python = Python::start(&server);
    let redis = || Redis::open(&*server.url()).unwrap();
    let pairs: Tiered<(u32, Option<String>), String> = Tiered::builder("shop", "prices", redis(), Bytes)
        .max_entries(10)
        .build()
        .unwrap();
    python.yields("cache().set((7, None), b'a')", "True");
    python.yields("cache().set((-0, 'tea'), b'b')", "True");
    assert_eq!(pairs.get(&(7, None)).as_deref(), Some("a"));
    assert_eq!(pairs.get(&(0, Some("tea".into()))).as_deref(), Some("b"));
    let blobs: Tiered<[u8], String> = Tiered::builder("shop", "prices", redis(), Bytes)
        .max_entries(10)
        .build()
        .unwrap();
    assert!(blobs.set(b"\0\xFF", "c".into()));
    python.yields(r"cache().get(b'\0\xff')", "b'c'");
}

#[test]
fn json_is_exchanged() {
    let server = Server::start();
    let here = cache::<serde_json::Value>(&server, Json, Schema::None);
    let mut python = Python::start(&server);
    let value = r#"{"name": "te\u00e9", "price": 3.25, "of": [None, True, -7, []], "deep": {"a": {}}}"#;
    python.yields(&format!("cache('json').set('tea', {value})"), "True");
    let found = here.get("tea").unwrap();
    assert_eq!(found["name"], "te\u{e9}");
    assert_eq!(found["price"], 3.25);
    assert_eq!(found["of"].to_string(), "[null,true,-7,[]]");
    assert!(here.set("coffee", found));
    python.yields(&format!("cache('json').get('coffee') == {value}"), "True");

    type Prices = BTreeMap<String, (u64, f64)>;
    let typed = cache::<Prices>(&server, Json, Schema::None);
    let prices = Prices::from([("a".into(), (1 << 60, 0.5))]);
    assert!(typed.set("typed", prices.clone()));
    python.yields("cache('json').get('typed')", "{'a': [1152921504606846976, 0.5]}");
    // A value of another type is a miss, and is loaded.
    assert_eq!(typed.get("tea"), None);
    let loaded = typed.get_or_load("tea", || Ok::<_, ()>(prices.clone()));
    assert_eq!(loaded.unwrap(), prices);
}

#[test]
fn values_are_exchanged() {
    let server = Server::start();
    let here = cache::<Value>(&server, Values, Schema::None);
    let mut python = Python::start(&server);
    let int = Value::Int;
    let samples = [
        ("None", Value::None),
        ("True", true.into()),
        ("-7", int(-7)),
        ("2**63", int(1 << 63)),
        ("-2**63 - 1", int(-(1 << 63) - 1)),
        ("2**127 - 1", int(i128::MAX)),
        ("-2**127", int(i128::MIN)),
        ("0.5", 0.5.into()),
        ("complex(1, -0.5)", Value::Complex(1.0, -0.5)),
        ("'te\\u00e9'", "te\u{e9}".into()),
        ("b'\\0\\xff'", b"\0\xFF".to_vec().into()),
        (
            "(1, [2, ()])",
            Value::Tuple(vec![int(1), Value::List(vec![int(2), Value::Tuple(vec![])])]),
        ),
        (
            "{'a': 1, (2,): None}",
            Value::Dict(vec![("a".into(), int(1)), (Value::Tuple(vec![int(2)]), Value::None)]),
        ),
        ("{1}", Value::Set(vec![int(1)])),
        ("frozenset({1})", Value::FrozenSet(vec![int(1)])),
        ("decimal.Decimal('3.20')", Value::Decimal("3.20".into())),
        (
            "uuid.UUID('12345678-1234-5678-1234-567812345678')",
            Value::Uuid("12345678-1234-5678-1234-567812345678".into()),
        ),
    ];
    for (text, value) in samples {
        python.yields(&format!("cache('values').set('python', {text})"), "True");
        until(|| here.get("python").as_ref() == Some(&value));
        assert!(here.set("rust", value));
        python.until(&format!(
            "(lambda one: (type(one), one) == (type({text}), {text}))(cache('values').get('rust'))"
        ));
    }
    for text in ["datetime.date(2026, 1, 2)", "2**128", "'\\ud800'"] {
        python.yields(&format!("cache('values').set('python', {text})"), "True");
        until(|| here.get("python").is_none());
        python.yields(&format!("cache('values').get('python') == {text}"), "True");
    }
    // What Python cannot make an object of is a miss there.
    assert!(here.set("rust", Value::Decimal("tea".into())));
    python.until("cache('values').get('rust') is None");
}

#[test]
fn schemas_are_shared() {
    let server = Server::start();
    let mut python = Python::start(&server);
    let text = |text: &str| Schema::Text(text.into());
    let schemas = [
        ("None", Schema::None),
        ("2", Schema::Number(2)),
        ("'2'", text("2")),
        ("'v2'", text("v2")),
        ("\"it's\"", text("it's")),
        ("'\"it\\'s\"\\\\'", text("\"it's\"\\")),
        ("'\\t\\n\\r\\0\\x7f'", text("\t\n\r\0\x7F")),
    ];
    for (python_text, schema) in schemas {
        let here: Tiered<str, String> = cache(&server, Bytes, schema);
        assert_eq!(here.get("tea"), None, "{python_text}");
        let there = format!("cache(schema={python_text})");
        python.yields(&format!("{there}.set('tea', b'python')"), "True");
        until(|| here.get("tea").as_deref() == Some("python"));
        assert!(here.set("tea", "rust".into()));
        python.until(&format!("{there}.get('tea') == b'rust'"));
    }
}

#[test]
fn invalidations_are_seen_by_the_other() {
    let server = Server::start();
    let (here, mut python) = (texts(&server), Python::start(&server));
    let fill = |python: &mut Python| {
        assert!(here.set_tagged("tea", "old".into(), Ttl::Default, &["menu: %"]));
        python.until("cache().get('tea') == b'old'");
        python.yields("cache().set('milk', b'old', tags=['menu: %'])", "True");
        until(|| here.get("milk").as_deref() == Some("old"));
    };
    for (of_rust, of_python) in [
        ("remove", "delete_many(['tea', 'milk'])"),
        ("expire", "expire('tea') and cache().expire('milk')"),
        ("clear", "clear()"),
        ("tag", "invalidate_tag('menu: %')"),
    ] {
        fill(&mut python);
        assert!(match of_rust {
            "remove" => here.remove_many(&["tea", "milk"]),
            "expire" => here.expire("tea") && here.expire("milk"),
            "clear" => here.clear(),
            _ => here.invalidate_tag("menu: %"),
        });
        python.until("cache().get('tea') is None and cache().get('milk') is None");
        fill(&mut python);
        let done = python.run(&format!("cache().{of_python}"));
        assert!(!done.starts_with("raised") && done != "False", "{of_python}: {done}");
        until(|| here.get("tea").is_none() && here.get("milk").is_none());
    }
}

#[test]
fn ttls_and_touches_are_shared() {
    let server = Server::start();
    let (here, mut python) = (texts(&server), Python::start(&server));
    let shorter = Ttl::After(Duration::from_secs(60));
    let mut raw = server.connection();
    let mut pttl = || {
        let key = here.name("tea");
        let left: i64 = redis::cmd("PTTL").arg(key.as_bytes()).query(&mut raw).unwrap();
        left
    };
    python.yields("cache().set('tea', b'3')", "True");
    until(|| here.get("tea").is_some());
    assert!(pttl() > 500_000);
    assert!(here.touch("tea", shorter));
    assert!(pttl() <= 120_000);
    python.until("cache().get('tea') == b'3'");
    python.yields("cache().touch('tea', 600)", "True");
    assert!(pttl() > 500_000);
    until(|| here.get("tea").as_deref() == Some("3"));
}

#[test]
fn many_keys_are_shared() {
    let server = Server::start();
    let (here, mut python) = (texts(&server), Python::start(&server));
    assert!(here.set_many(&[("tea", "1".into()), ("milk", "2".into())]));
    python.yields(
        "cache().get_many(['tea', 'milk', 'none'])",
        "{'tea': b'1', 'milk': b'2'}",
    );
    python.yields("cache().set_many({'tea': b'3', 'milk': b'4'})", "True");
    until(|| here.get_many(&["tea", "milk", "none"]) == [Some("3".into()), Some("4".into()), None]);
}

#[test]
fn a_load_is_shared() {
    let server = Server::start();
    let (here, mut python) = (texts(&server), Python::start(&server));
    let load = "peer.start(lambda: cache().get_or_load('tea', lambda key: b'python'))";
    let value = here.get_or_load("tea", || {
        for _ in 0..3 {
            python.yields(load, "True");
        }
        // Time for these threads to find the lease.
        std::thread::sleep(Duration::from_millis(100));
        Ok::<_, ()>("rust".to_owned())
    });
    assert_eq!(value.unwrap(), "rust");
    python.yields("peer.join()", "[b'rust', b'rust', b'rust']");

    let load =
        "peer.start(lambda: cache().get_or_load('milk', lambda key: __import__('time').sleep(0.3) or b'python'))";
    python.yields(load, "True");
    let key = here.name("milk");
    until(|| {
        redis::cmd("EXISTS")
            .arg(key.as_bytes())
            .query(&mut server.connection())
            .unwrap()
    });
    let value = here.get_or_load("milk", || Ok::<_, ()>("rust".to_owned()));
    assert_eq!(value.unwrap(), "python");
    python.yields("peer.join()", "[b'python']");
}

#[test]
fn absence_is_shared() {
    let server = Server::start();
    let (here, mut python) = (texts(&server), Python::start(&server));
    let load = "cache().get_or_load('tea', lambda key: hotset.MISSING, 60, default='none')";
    python.yields(load, "'none'");
    let hits = || here.stats().counter("negative_hits");
    let before = hits();
    assert_eq!(here.get("tea"), None);
    assert_eq!(hits(), before + 1);
    // A loader of Rust's returns a value, so it is called.
    assert_eq!(here.get_or_load("tea", || Ok::<_, ()>("3".to_owned())).unwrap(), "3");
    python.until("cache().get('tea') == b'3'");
}

#[test]
fn compressed_and_signed_values_are_misses() {
    let server = Server::start();
    let (here, mut python) = (texts(&server), Python::start(&server));
    for settings in ["compress_over=10", "sign=b'0123456789abcdef'"] {
        let server = format!(
            "__import__('hotset.tier2').tier2.Redis({}, prefix='shop', {settings})",
            quoted(&server.url())
        );
        let set = format!("hotset.TieredCache({server}, 'prices', ttl=600, codec='bytes').set('tea', b'x' * 1000)");
        python.yields(&set, "True");
        until(|| here.get("tea").is_none());
        let before = here.stats().counter("rejected");
        assert_eq!(here.get("tea"), None);
        assert!(here.stats().counter("rejected") > before, "{:?}", here.stats());
    }
}
