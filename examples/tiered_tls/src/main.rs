//! Two caches in front of one Redis or Valkey server that speaks TLS, whose certificate a private
//! authority signed: `tiered_tls rediss://HOST:PORT/0 CA-FILE`.

use hotset::tiered::{Bytes, Redis, Tiered};
use redis::{Client, TlsCertificates};
use std::error::Error;
use std::time::{Duration, Instant};

fn open(redis: &Redis) -> Result<Tiered<str, String>, Box<dyn Error>> {
    // Reading the system's certificates may take longer than a request.
    let builder = Tiered::builder("shop", "pages", redis.clone(), Bytes).connect_timeout(Duration::from_secs(2));
    Ok(builder.max_entries(1_000).ttl(Duration::from_secs(60)).build()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(authority)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tiered_tls rediss://HOST:PORT/0 CA-FILE".into());
    };
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(std::fs::read(authority)?),
    };
    let client = Client::build_with_tls(address, certificates)?;
    // The cache connects in the background, too: its error would be in no result.
    client.get_connection()?;
    let redis = Redis::open(client.get_connection_info().clone())?;

    let (one, other) = (open(&redis)?, open(&redis)?);
    let load = || Ok::<_, std::io::Error>("hot".to_owned());
    println!("loaded: {}", one.get_or_load("tea", load)?);
    println!("in the other cache: {:?}", other.get("tea"));
    if !one.set("tea", "cold".to_owned()) {
        return Err("the server did not confirm the change".into());
    }
    let begun = Instant::now();
    while other.get("tea").as_deref() != Some("cold") {
        if begun.elapsed() > Duration::from_secs(30) {
            return Err(format!("no announcement came: {:?}", other.stats()).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("changed in both");
    Ok(())
}
