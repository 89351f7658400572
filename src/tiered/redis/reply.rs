//! What replies and errors of a server mean.

use crate::tiered::transport::Failure;
use redis::{ErrorKind, RedisError, ServerError, Value};
use std::collections::HashMap;

/// Returns the kind of an error of a connection before a command of the caller's was sent.
pub(super) fn failure_of_connecting(error: &RedisError) -> Failure {
    match error.kind() {
        ErrorKind::AuthenticationFailed => Failure::NoPermission,
        ErrorKind::Server(_) | ErrorKind::Extension => failure_of_code(error.code().unwrap_or_default(), ""),
        _ => Failure::Refused,
    }
}

fn failure_of_code(code: &str, details: &str) -> Failure {
    let known = |code: &str| {
        Some(match code {
            "OOM" => Failure::OutOfMemory,
            "READONLY" => Failure::ReadOnly,
            "NOSCRIPT" => Failure::NoScript,
            "NOPERM" | "NOAUTH" | "WRONGPASS" => Failure::NoPermission,
            "LOADING" | "MASTERDOWN" => Failure::Loading,
            "CLUSTERDOWN" => Failure::ClusterDown,
            "MOVED" | "ASK" => Failure::Moved,
            _ => return None,
        })
    };
    // Before Redis 7, the error of a command inside a script is quoted.
    let mut quoted = details.split([' ', '-', ':']).filter_map(known);
    known(code).or_else(|| quoted.next()).unwrap_or(Failure::Other)
}

pub(super) fn failure_of(error: &ServerError) -> Failure {
    failure_of_code(error.code(), error.details().unwrap_or_default())
}

pub(super) fn bytes_of(reply: Value) -> Result<Option<Vec<u8>>, Failure> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::ServerError(error) => Err(failure_of(&error)),
        _ => Err(Failure::Other),
    }
}

pub(super) fn flag_of(reply: &Value) -> Result<bool, Failure> {
    match reply {
        Value::Nil => Ok(false),
        Value::Okay => Ok(true),
        Value::Int(number) => Ok(*number != 0),
        Value::ServerError(error) => Err(failure_of(error)),
        _ => Err(Failure::Other),
    }
}

/// Returns the fields of a reply to INFO.
pub(super) fn fields(reply: &Value) -> HashMap<&str, &str> {
    let text = match reply {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        Value::VerbatimString { text, .. } => text,
        _ => "",
    };
    text.split("\r\n").filter_map(|line| line.split_once(':')).collect()
}

/// Returns the milliseconds since 1970 of a reply to TIME; 0 if it is none.
pub(super) fn millis(reply: &Value) -> u64 {
    let Value::Array(parts) = reply else {
        return 0;
    };
    let [seconds, micros] = &**parts else {
        return 0;
    };
    let millis = number(seconds).unwrap_or(0).saturating_mul(1_000);
    millis.saturating_add(number(micros).unwrap_or(0) / 1_000)
}

pub(super) fn number(reply: &Value) -> Option<u64> {
    match reply {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        Value::Int(number) => (*number).try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_any_digits_is_a_number() {
        let time = |seconds: &str| {
            let parts = [seconds, "2500"].map(|digits| Value::BulkString(digits.into()));
            millis(&Value::Array(parts.into()))
        };
        assert_eq!(time("7"), 7_002);
        assert_eq!(time("x"), 2);
        assert_eq!(time("18446744073709551615"), u64::MAX);
        assert_eq!(millis(&Value::Nil), 0);
    }
}
