//! Opens an engine with `hotset_options`.

use crate::blob::{Blob, Destructor, Engine};
use crate::cache::hotset_cache;
use crate::callback::UserCallback;
use crate::memory::try_box;
use crate::thread::{CancelDisabled, Errno};
use crate::ticker::Ticker;
use crate::types::{Policy, Status, hotset_cause, hotset_options, hotset_policy, hotset_status};
use crate::{callback, fork, memory};
use engine::{BuildError, Cache, Cause, Clock};
use libc::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The default capacity.
pub(crate) const DEFAULT_BYTES: u64 = 64 << 20;

/// The bytes that engine and malloc take for an entry besides its blob; and how many more where
/// entries expire, and where hits extend deadlines. `tests/memory.c` compares them with malloc's
/// figures, which vary by a tenth: tables grow by doubling.
pub(crate) const PER_ENTRY: u64 = 100;
pub(crate) const PER_DEADLINE: u64 = 24;
const PER_MOVING_DEADLINE: u64 = 40;

/// The size of the options in their first version; they only grow.
const FIRST_SIZE: usize = size_of::<hotset_options>();

impl hotset_options {
    pub(crate) const DEFAULT: Self = Self {
        size: size_of::<Self>(),
        max_entries: 0,
        max_bytes: 0,
        policy: Policy(hotset_policy::HOTSET_POLICY_WTINYLFU as i32),
        profile: 0,
        autosize_low: 0,
        autosize_high: 0,
        autosize_target: 0.0,
        ttl_ms: 0,
        tti_ms: 0,
        jitter: 0.0,
        ticker_ms: 0,
        on_removal: None,
        on_removal_arg: ptr::null_mut(),
        destructor: None,
        destructor_arg: ptr::null_mut(),
        clock: None,
        clock_arg: ptr::null_mut(),
    };

    /// Writes the defaults into the first `size` bytes at `to`, and zeros behind the fields that
    /// this version knows.
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
            let known = size.min(size_of::<Self>());
            ptr::copy_nonoverlapping(ptr::from_ref(&defaults).cast::<u8>(), to.cast(), known);
        }
        Ok(())
    }

    /// Reads the options of a program that may know fewer or more fields than this version.
    ///
    /// # Safety
    /// `from` is NULL, or points to as many bytes as its field `size` states.
    pub(crate) unsafe fn read(from: *const Self) -> Result<Self, Status> {
        let mut options = Self::DEFAULT;
        if from.is_null() {
            return Ok(options);
        }
        // SAFETY: the caller's promise; `size` is the first field.
        let size = unsafe { from.cast::<usize>().read() };
        if !(FIRST_SIZE..=1 << 16).contains(&size) {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        let known = size.min(size_of::<Self>());
        // SAFETY: the caller's promise. Every bit pattern is valid in every field.
        let unknown = unsafe {
            ptr::copy_nonoverlapping(from.cast::<u8>(), ptr::from_mut(&mut options).cast(), known);
            std::slice::from_raw_parts(from.cast::<u8>().add(known), size - known)
        };
        // A newer program sets an option that this library does not know.
        if unknown.iter().any(|byte| *byte != 0) || options.profile > 1 {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        Ok(options)
    }

    pub(crate) fn open(&self) -> Result<Box<hotset_cache>, Status> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        memory::ready()?;
        fork::watch()?;
        // Otherwise a read might be the first call to need it.
        engine::raw::start_clock();
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let destructor = Destructor::new(self.destructor, self.destructor_arg, id);
        let engine = self.engine(id)?;
        let ticker = match self.ticker_ms {
            0 => None,
            ms => Some(Ticker::start(engine.clone(), Duration::from_millis(ms))?),
        };
        try_box(hotset_cache::new(engine, ticker, destructor, id))
    }

    fn engine(&self, id: u64) -> Result<Engine, Status> {
        let builder = engine::raw::prefetch_dropped(Cache::builder(), Blob::head_address);
        let mut builder = builder.policy(self.policy.engine()?).jitter(self.jitter);
        builder = match (self.max_entries, self.max_bytes) {
            (0, bytes) => {
                let capacity = if bytes == 0 { DEFAULT_BYTES } else { bytes };
                let overhead = match (self.ttl_ms, self.tti_ms) {
                    (0, 0) => PER_ENTRY,
                    (_, 0) => PER_ENTRY + PER_DEADLINE,
                    _ => PER_ENTRY + PER_MOVING_DEADLINE,
                };
                builder
                    .max_weight(capacity)
                    .weigher(move |_, value: &Blob| value.weight().saturating_add(overhead))
            }
            (entries, 0) => builder.max_entries(usize::try_from(entries).unwrap_or(usize::MAX)),
            _ => return Err(hotset_status::HOTSET_INVALID.into()),
        };
        if self.profile != 0 {
            builder = builder.profile();
        }
        if self.autosize_low != 0 || self.autosize_high != 0 || self.autosize_target != 0.0 {
            builder = builder.autosize(self.autosize_low..=self.autosize_high, self.autosize_target);
        }
        if self.ttl_ms != 0 {
            builder = builder.time_to_live(Duration::from_millis(self.ttl_ms));
        }
        if self.tti_ms != 0 {
            builder = builder.time_to_idle(Duration::from_millis(self.tti_ms));
        }
        if let Some(clock) = UserCallback::new(self.clock, self.clock_arg) {
            builder = builder.clock(clock);
        }
        if let Some(listener) = UserCallback::new(self.on_removal, self.on_removal_arg) {
            builder = builder.on_removal(move |_, entry, cause| {
                let (call, arg) = listener.parts();
                let (key, value) = (entry.key(), entry.value());
                // SAFETY: the user's function, with the promised arguments.
                callback::notify(id, || unsafe {
                    let (key, key_len, value_len) = (key.as_ptr().cast(), key.len(), value.len());
                    call(arg, key, key_len, value.as_ptr().cast(), value_len, cause_of(cause));
                });
            });
        }
        builder.build().map_err(|error| match error {
            BuildError::NoMemory => hotset_status::HOTSET_NO_MEMORY.into(),
            _ => hotset_status::HOTSET_INVALID.into(),
        })
    }
}

impl Policy {
    fn engine(self) -> Result<engine::Policy, Status> {
        use hotset_policy::*;
        const POLICIES: [(hotset_policy, engine::Policy); 5] = [
            (HOTSET_POLICY_WTINYLFU, engine::Policy::WTinyLfu),
            (HOTSET_POLICY_LRU, engine::Policy::Lru),
            (HOTSET_POLICY_LFU, engine::Policy::Lfu),
            (HOTSET_POLICY_FIFO, engine::Policy::Fifo),
            (HOTSET_POLICY_RANDOM, engine::Policy::Random),
        ];
        let found = POLICIES.into_iter().find(|(policy, _)| *policy as i32 == self.0);
        found
            .map(|(_, policy)| policy)
            .ok_or(hotset_status::HOTSET_INVALID.into())
    }
}

fn cause_of(cause: Cause) -> hotset_cause {
    match cause {
        Cause::Expired => hotset_cause::HOTSET_REMOVED_EXPIRED,
        Cause::Size => hotset_cause::HOTSET_REMOVED_SIZE,
        Cause::Replaced => hotset_cause::HOTSET_REMOVED_REPLACED,
        Cause::Explicit => hotset_cause::HOTSET_REMOVED_EXPLICIT,
        other => unreachable!("a cause without a name in C: {other:?}"),
    }
}

type ClockFn = unsafe extern "C" fn(*mut c_void) -> u64;

impl Clock for UserCallback<ClockFn> {
    fn now(&self) -> Duration {
        let (call, arg) = self.parts();
        let (_disabled, errno) = (CancelDisabled::new(), Errno::now());
        // SAFETY: the user's function, with the promised argument.
        let nanos = unsafe { call(arg) };
        errno.restore();
        Duration::from_nanos(nanos)
    }
}
