//! Options of a cache with a second tier. The comments of the types are the header's.

use crate::blob::Blob;
use crate::memory;
use crate::ticker::SignalsBlocked;
use crate::tier2::hotset_tier2;
use crate::tier2_transport::Transport;
use crate::tiered::{Engine, Key, hotset_tiered};
use crate::types::{Status, hotset_status};
use crate::{fork, thread};
use engine::Cache;
use engine::tiered::{Codec, Schema, Tiered, TieredError};
use libc::c_char;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the keys of a cache with a second tier are.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)] // Compared as numbers.
pub enum hotset_tiered_keys {
    /// Bytes: `bytes` of Python, `[u8]` of Rust.
    HOTSET_KEYS_BYTES = 0,
    /// Text in UTF-8: `str` of Python and of Rust.
    HOTSET_KEYS_TEXT = 1,
    /// As they are written on the server: 7 for a number, ("tea",7) for a tuple of a text and a
    /// number. Printable ASCII without blanks and braces; other bytes of a text are
    /// percent-encoded.
    HOTSET_KEYS_WRITTEN = 2,
}

/// The schema of a cache without one.
pub const HOTSET_SCHEMA_NONE: u64 = u64::MAX;

/// Options of a cache with a second tier. Initialize it with hotset_tiered_options_init, then set
/// `prefix` and `name`, and change other fields.
///
/// hotset_tiered_open copies it. Times are in milliseconds.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_tiered_options {
    /// The size of this struct, set by hotset_tiered_options_init.
    pub size: usize,
    /// With what all keys begin of all caches that share a server. UTF-8, not empty.
    pub prefix: *const c_char,
    /// Distinguishes this cache from others on the server. UTF-8, not empty. Programs that share
    /// the entries have the same prefix, name, codec and schema.
    pub name: *const c_char,
    /// The name of what values are: letters, digits and _. The values of other programs are read as
    /// they are. NULL: "bytes", which Python and Rust read as bytes or text. "json": the program
    /// gives and receives JSON.
    pub codec: *const c_char,
    /// The version of what values look like. HOTSET_SCHEMA_NONE: none.
    pub schema: u64,
    /// A hotset_tiered_keys.
    pub keys: u32,
    /// 1: announcements of the server are not used, though there is a bus.
    pub no_bus: u32,
    /// Capacity of tier 1 in entries. Set this or max_bytes; with neither, max_bytes is 64 MiB.
    pub max_entries: u64,
    /// Capacity of tier 1 in bytes, counted as in hotset_options.
    pub max_bytes: u64,
    /// How long a value is fresh. 0: 5 minutes.
    pub ttl_ms: u64,
    /// How long a value stays in tier 1 at most without a new answer of the server: the bound of
    /// its age while the server does not answer. 0: a minute where the server announces changes,
    /// otherwise 5 s.
    pub local_ttl_ms: u64,
    /// The same for the time in which the server answers, but does not announce changes. 0: 1 s.
    pub unsynced_ttl_ms: u64,
    /// For how long after its ttl a value may be returned while one caller loads it anew.
    pub stale_while_revalidate_ms: u64,
    /// For how long after its ttl a value may be returned if its load fails.
    pub stale_if_error_ms: u64,
    /// After which time another process loads a key if the one that was loading it has died. 0: 1.5
    /// s.
    pub lease_ms: u64,
    /// After which time a caller that waits for another process's load loads for itself, and stores
    /// the value nowhere. 0: it waits.
    pub lease_wait_ms: u64,
    /// After which time a load no longer makes other callers wait. 0: a minute.
    pub load_timeout_ms: u64,
    /// How long one request may take, at most a minute. 0: 100 ms.
    pub timeout_ms: u64,
    /// How long connecting may take, at most a minute. 0: 100 ms.
    pub connect_timeout_ms: u64,
    /// The greatest number of concurrent loads while the server does not answer. 0: 64.
    pub max_loads: u64,
    /// Above how many bytes a value stays in tier 1. 0: 16 MiB, or what the servers take.
    pub max_value: u64,
    /// One caller may reload a value before it expires, the more likely the longer loading takes: 1
    /// is usual. 0: never.
    pub early_reload: f64,
}

const FIRST_SIZE: usize = size_of::<hotset_tiered_options>();

/// The most bytes of prefix, name and codec.
const LONGEST_NAME: usize = 255;

/// Bytes as they are, under a name of the program's.
struct Named(String);

impl Codec<Blob> for Named {
    fn name(&self) -> &str {
        &self.0
    }

    fn encode(&self, value: &Blob) -> Option<Vec<u8>> {
        let mut copy = Vec::new();
        // Without memory it stays in tier 1.
        copy.try_reserve_exact(value.value().len()).ok()?;
        copy.extend_from_slice(value.value());
        Some(copy)
    }

    fn decode(&self, bytes: &[u8]) -> Option<Blob> {
        Blob::new(&[], bytes, None).ok()
    }
}

impl hotset_tiered_options {
    const DEFAULT: Self = Self {
        size: size_of::<Self>(),
        prefix: ptr::null(),
        name: ptr::null(),
        codec: ptr::null(),
        schema: HOTSET_SCHEMA_NONE,
        keys: 0,
        no_bus: 0,
        max_entries: 0,
        max_bytes: 0,
        ttl_ms: 0,
        local_ttl_ms: 0,
        unsynced_ttl_ms: 0,
        stale_while_revalidate_ms: 0,
        stale_if_error_ms: 0,
        lease_ms: 0,
        lease_wait_ms: 0,
        load_timeout_ms: 0,
        timeout_ms: 0,
        connect_timeout_ms: 0,
        max_loads: 0,
        max_value: 0,
        early_reload: 0.0,
    };

    /// Writes the defaults into the first `size` bytes at `to`, and zeros behind them.
    ///
    /// # Safety
    /// If `to` is not NULL, `size` bytes can be written there.
    pub(crate) unsafe fn init(to: *mut Self, size: usize) -> Result<(), Status> {
        if to.is_null() || !(FIRST_SIZE..=1 << 16).contains(&size) {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        let defaults = Self { size, ..Self::DEFAULT };
        // SAFETY: the caller's promise.
        unsafe {
            ptr::write_bytes(to.cast::<u8>(), 0, size);
            ptr::copy_nonoverlapping(ptr::from_ref(&defaults).cast::<u8>(), to.cast(), FIRST_SIZE);
        }
        Ok(())
    }

    /// # Safety
    /// `from` is NULL, or points to as many bytes as its field `size` states.
    pub(crate) unsafe fn read(from: *const Self) -> Result<Self, Status> {
        let invalid = || Status::from(hotset_status::HOTSET_INVALID);
        if from.is_null() {
            return Err(invalid());
        }
        // SAFETY: the caller's promise; `size` is the first field.
        let size = unsafe { from.cast::<usize>().read() };
        if !(FIRST_SIZE..=1 << 16).contains(&size) {
            return Err(invalid());
        }
        // SAFETY: the caller's promise. Every bit pattern is valid in every field.
        let (options, unknown) = unsafe {
            let unknown = std::slice::from_raw_parts(from.cast::<u8>().add(FIRST_SIZE), size - FIRST_SIZE);
            (from.read_unaligned(), unknown)
        };
        let is_known = options.keys <= hotset_tiered_keys::HOTSET_KEYS_WRITTEN as u32 && options.no_bus <= 1;
        if unknown.iter().any(|byte| *byte != 0) || !is_known {
            return Err(invalid());
        }
        Ok(options)
    }

    /// Opens the cache.
    ///
    /// # Safety
    /// The texts are NULL or strings; `tier2` is as [`Transport::new`] requires.
    pub(crate) unsafe fn open(&self, tier2: *const hotset_tier2) -> Result<Box<hotset_tiered>, Status> {
        // Above the numbers of caches: `callback` has both.
        static NEXT: AtomicU64 = AtomicU64::new(1 << 63);
        memory::ready()?;
        fork::watch()?;
        engine::raw::start_clock();
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        let (prefix, name, codec) = unsafe { (text(self.prefix)?, text(self.name)?, text(self.codec)?) };
        let codec = if self.codec.is_null() { "bytes".into() } else { codec };
        // SAFETY: the caller's promise.
        let transport = unsafe { Transport::new(tier2, id) }?;
        let opening = transport.opening();
        let engine = self.engine(prefix, name, codec, transport)?;
        let opened = memory::try_box(hotset_tiered::new(engine, self.keys, id))?;
        opening.done();
        Ok(opened)
    }

    fn engine(&self, prefix: String, name: String, codec: String, transport: Transport) -> Result<Engine, Status> {
        let or = |ms: u64, usual: u64| Duration::from_millis(if ms == 0 { usual } else { ms });
        let size = |count: u64, usual: usize| match count {
            0 => usual,
            count => usize::try_from(count).unwrap_or(usize::MAX),
        };
        let tier1 = match (self.max_entries, self.max_bytes) {
            (0, bytes) => {
                let overhead = crate::options::PER_ENTRY + crate::options::PER_DEADLINE;
                let capacity = if bytes == 0 {
                    crate::options::DEFAULT_BYTES
                } else {
                    bytes
                };
                Cache::builder()
                    .max_weight(capacity)
                    .weigher(move |name: &engine::tiered::Name, value: &Blob| {
                        let name = name.as_bytes().len() as u64 + 16;
                        value.weight().saturating_add(name).saturating_add(overhead)
                    })
            }
            (entries, 0) => Cache::builder().max_entries(usize::try_from(entries).unwrap_or(usize::MAX)),
            _ => return Err(hotset_status::HOTSET_INVALID.into()),
        };
        let mut builder = Tiered::<Key, Blob>::builder(prefix, name, transport, Named(codec))
            .tier1(tier1)
            .ttl(or(self.ttl_ms, 300_000))
            .unsynced_ttl(or(self.unsynced_ttl_ms, 1_000))
            .stale_while_revalidate(Duration::from_millis(self.stale_while_revalidate_ms))
            .stale_if_error(Duration::from_millis(self.stale_if_error_ms))
            .lease(or(self.lease_ms, 1_500))
            .load_timeout(or(self.load_timeout_ms, 60_000))
            .timeout(or(self.timeout_ms, 100))
            .connect_timeout(or(self.connect_timeout_ms, 100))
            .max_loads(size(self.max_loads, 64))
            .max_value(size(self.max_value, 16 << 20))
            .early_reload(self.early_reload)
            .bus(self.no_bus == 0);
        if self.schema != HOTSET_SCHEMA_NONE {
            builder = builder.schema(Schema::Number(self.schema));
        }
        if self.local_ttl_ms != 0 {
            builder = builder.local_ttl(Duration::from_millis(self.local_ttl_ms));
        }
        if self.lease_wait_ms != 0 {
            builder = builder.lease_wait(Duration::from_millis(self.lease_wait_ms));
        }
        // The threads inherit the mask.
        let _blocked = SignalsBlocked::new();
        builder.build().map_err(|error| match error {
            TieredError::Thread(error) => {
                thread::Errno::of(error.raw_os_error().unwrap_or(libc::EAGAIN)).restore();
                hotset_status::HOTSET_IO.into()
            }
            TieredError::Cache(engine::BuildError::NoMemory) => hotset_status::HOTSET_NO_MEMORY.into(),
            _ => hotset_status::HOTSET_INVALID.into(),
        })
    }
}

/// # Safety
/// The pointer is NULL, or to a string.
unsafe fn text(from: *const c_char) -> Result<String, Status> {
    if from.is_null() {
        return Ok(String::new());
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(from) }.to_str();
    let text = text.map_err(|_| hotset_status::HOTSET_INVALID)?;
    if text.len() > LONGEST_NAME {
        return Err(hotset_status::HOTSET_INVALID.into());
    }
    Ok(text.to_owned())
}
