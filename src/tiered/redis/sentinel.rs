//! Sentinels, which know the current master.

use super::connection::{command, exchange, left};
use super::reply::failure_of_connecting;
use crate::tiered::transport::Failure;
use redis::{Client, ConnectionAddr, ConnectionInfo, Value};
use std::time::Instant;

pub(super) struct Sentinels {
    pub(super) sentinels: Vec<Client>,
    /// The master's name.
    pub(super) master: String,
    /// Connections to it have these settings, but for the address.
    pub(super) like: ConnectionInfo,
}

impl Sentinels {
    /// Returns how to connect to the current master: asks the sentinels, until one knows it.
    pub(super) fn info(&self, deadline: Instant) -> Result<ConnectionInfo, Failure> {
        let mut failure = Failure::Refused;
        for sentinel in &self.sentinels {
            match self.ask(sentinel, deadline) {
                Ok((host, port)) => {
                    let address = match self.like.addr() {
                        ConnectionAddr::TcpTls {
                            insecure, tls_params, ..
                        } => ConnectionAddr::TcpTls {
                            host,
                            port,
                            insecure: *insecure,
                            tls_params: tls_params.clone(),
                        },
                        _ => ConnectionAddr::Tcp(host, port),
                    };
                    return Ok(self.like.clone().set_addr(address));
                }
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }

    fn ask(&self, sentinel: &Client, deadline: Instant) -> Result<(String, u16), Failure> {
        let connection = sentinel.get_connection_with_timeout(left(deadline));
        let mut connection = connection.map_err(|error| failure_of_connecting(&error))?;
        let question = command(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.master.as_bytes()]);
        let replies = exchange(&mut connection, &[question], deadline);
        let Some(Value::Array(parts)) = replies.map_err(|_| Failure::Refused)?.pop() else {
            return Err(Failure::Refused);
        };
        let [Value::BulkString(host), Value::BulkString(port)] = &parts[..] else {
            return Err(Failure::Refused);
        };
        let host = String::from_utf8(host.clone()).map_err(|_| Failure::Refused)?;
        let port = std::str::from_utf8(port).ok().and_then(|port| port.parse().ok());
        Ok((host, port.ok_or(Failure::Refused)?))
    }
}
