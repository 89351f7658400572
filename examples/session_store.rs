//! Sessions that expire when they have not been used for half an hour, or after a day in any case,
//! with a notification when one ends.
//!
//!     cargo run --release --example session_store

use hotset::{BuildError, Cache, Cause, ManualClock};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug)]
struct Session {
    user: String,
    // Other data of the user: a cart, a language, ...
}

/// Sessions by their token. Values are in an `Arc`, so that a lookup copies a pointer.
type Sessions = Cache<String, Arc<Session>>;

const IDLE: Duration = Duration::from_secs(30 * 60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

/// Builds a store that calls `ended` with every session that ends, and the reason.
fn sessions(
    clock: ManualClock,
    ended: impl Fn(&Session, &str) + Send + Sync + 'static,
) -> Result<Sessions, BuildError> {
    Cache::builder()
        .max_entries(100_000)
        .time_to_idle(IDLE) // a lookup begins it anew
        .time_to_live(DAY) // nothing does that here
        .on_removal(move |_token: &String, session: &Arc<Session>, cause| {
            let why = match cause {
                Cause::Expired => "was not used for half an hour, or is a day old",
                Cause::Explicit => "logged out",
                Cause::Size => "had to make room",
                _ => "logged in again",
            };
            ended(session, why);
        })
        // For this demonstration. A program leaves it out, and may set
        // `.ticker(Duration::from_secs(1))` instead, so that notifications come without other
        // calls.
        .clock(clock)
        .build()
}

fn log_in(sessions: &Sessions, token: &str, user: &str) {
    let session = Session { user: user.to_owned() };
    sessions.insert(token.to_owned(), Arc::new(session));
}

fn run() -> Result<bool, BuildError> {
    let clock = ManualClock::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    let ends = log.clone();
    let sessions = sessions(clock.clone(), move |session, why| {
        println!("    {} {why}", session.user);
        ends.lock().unwrap().push(session.user.clone());
    })?;
    let mut ok = true;
    let mut shows = |what: &str, holds: bool| {
        println!("{what}: {}", if holds { "yes" } else { "NO" });
        ok &= holds;
    };
    let taken = || std::mem::take(&mut *log.lock().unwrap());

    log_in(&sessions, "t1", "ann");
    log_in(&sessions, "t2", "bob");
    log_in(&sessions, "t3", "cid");
    let user = sessions.get("t1").map(|session| session.user.clone());
    shows("a session is found by its token", user.as_deref() == Some("ann"));

    // Ann clicks every 20 minutes for three hours; Bob does nothing; Cid logs out.
    sessions.remove("t3");
    let mut seen = 0;
    for _ in 0..9 {
        clock.advance(20 * MINUTE);
        seen += usize::from(sessions.get("t1").is_some());
    }
    shows("ann's session was extended by its use", seen == 9);
    shows("bob's expired", !sessions.contains_key("t2"));
    shows("both ends were reported", taken() == ["cid", "bob"]);

    // The remaining time, without using the session.
    shows("half an hour is left", sessions.remaining("t1") == Some(Some(IDLE)));

    for _ in 0..70 {
        clock.advance(20 * MINUTE);
        sessions.get("t1");
    }
    shows(
        "after a day ann has to log in again, used or not",
        sessions.get("t1").is_none(),
    );
    shows("and that was reported", taken() == ["ann"]);
    Ok(ok)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("session_store: {error}");
            ExitCode::FAILURE
        }
    }
}

#[test]
fn sessions_end_when_they_should() {
    assert!(run().unwrap());
}
