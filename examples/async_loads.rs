//! Loads in async code, on tokio: a hundred tasks request one absent key, and its loader, a future,
//! runs once. A task that is dropped during its load hands it over to a waiting task.
//!
//!     cargo run --release --example async_loads --features async

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hotset::Cache;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

/// A service whose pages are slow to render. Clones share the cache and the counter.
#[derive(Clone)]
struct Pages {
    cache: Cache<String, Arc<str>>,
    rendered: Arc<AtomicUsize>,
}

impl Pages {
    fn new() -> Self {
        Self {
            cache: Cache::new(1_000),
            rendered: Arc::default(),
        }
    }

    /// Returns the page, rendering it if the cache does not hold it.
    async fn page(&self, path: &str) -> Arc<str> {
        let render = async {
            sleep(Duration::from_millis(50)).await; // a query to a database, say
            self.rendered.fetch_add(1, Relaxed);
            format!("<h1>{path}</h1>").into()
        };
        self.cache.get_or_insert_async(path.to_owned(), render).await
    }

    /// Returns the page, or the error of its source. An error is not cached.
    async fn fallible_page(&self, path: &str, source_works: bool) -> Result<Arc<str>, String> {
        let render = async {
            sleep(Duration::from_millis(5)).await;
            if source_works {
                Ok(format!("<h1>{path}</h1>").into())
            } else {
                Err("the database is down".to_owned())
            }
        };
        let loaded = self.cache.try_get_or_insert_async(path.to_owned(), render).await;
        loaded.map_err(|error| error.to_string())
    }
}

/// Prints a line, and returns whether `holds`.
fn shows(what: &str, holds: bool) -> bool {
    println!("{what}: {}", if holds { "yes" } else { "NO" });
    holds
}

async fn run() -> bool {
    let pages = Pages::new();
    let mut ok = true;

    let requests: Vec<_> = (0..100)
        .map(|_| {
            let pages = pages.clone();
            tokio::spawn(async move { pages.page("/index").await })
        })
        .collect();
    let mut right = 0;
    for request in requests {
        right += usize::from(request.await.is_ok_and(|page| *page == *"<h1>/index</h1>"));
    }
    let rendered = pages.rendered.load(Relaxed);
    ok &= shows("a hundred tasks got the page", right == 100);
    ok &= shows("it was rendered once", rendered == 1);

    // The first task leads the load. Aborting it drops its future, and the second one takes over.
    let (leader, waiter) = (pages.clone(), pages.clone());
    let leader = tokio::spawn(async move { leader.page("/about").await });
    sleep(Duration::from_millis(10)).await;
    let waiter = tokio::spawn(async move { waiter.page("/about").await });
    sleep(Duration::from_millis(10)).await;
    leader.abort();
    let page = waiter.await.ok();
    ok &= shows(
        "the waiter got its page though the leader was aborted",
        page.as_deref() == Some("<h1>/about</h1>"),
    );

    let failed = pages.fallible_page("/news", false).await;
    ok &= shows("a failing source is reported", failed.is_err());
    let loaded = pages.fallible_page("/news", true).await;
    ok & shows("and requested again by the next call", loaded.is_ok())
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).enable_time().build()
}

fn main() -> ExitCode {
    match runtime() {
        Ok(runtime) if runtime.block_on(run()) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("async_loads: {error}");
            ExitCode::FAILURE
        }
    }
}

#[test]
fn tasks_share_one_load() {
    assert!(runtime().unwrap().block_on(run()));
}
