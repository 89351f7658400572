//! A service in front of a Redis: it reads a command per line, such as `get tea`, `set tea 3` and
//! `remove tea`, and answers it. Several of them on one Redis are coherent.
//!
//! `cargo run --features redis --example tiered -- redis://localhost:6379/0`

use hotset::tiered::{Bytes, Redis, Tiered};
use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or("redis://localhost:6379/0".into());
    let prices: Tiered<str, String> = Tiered::builder("demo", "prices", Redis::open(url)?, Bytes)
        .max_entries(10_000)
        .ttl(Duration::from_secs(300))
        .build()?;
    for line in std::io::stdin().lines() {
        let line = line?;
        match *line.split_whitespace().collect::<Vec<_>>() {
            ["get", key] => {
                let price = prices.get_or_load(key, || Ok::<_, Infallible>(source(key)))?;
                println!("{price}");
            }
            ["set", key, value] => println!("{}", confirmed(prices.set(key, value.into()))),
            ["remove", key] => println!("{}", confirmed(prices.remove(key))),
            ["stats"] => println!("{:#?}", prices.stats()),
            _ => println!("get KEY | set KEY VALUE | remove KEY | stats"),
        }
    }
    Ok(())
}

/// Stands for a database.
fn source(key: &str) -> String {
    println!("(loading {key})");
    key.len().to_string()
}

fn confirmed(confirmed: bool) -> &'static str {
    if confirmed {
        "done"
    } else {
        "done here, and on the server once it answers"
    }
}
