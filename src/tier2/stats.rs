//! Counters, and a histogram of how long the server took.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$doc])* pub $field: Counter,)*
        }

        impl $name {
            /// Calls `each` with the name and the count of every counter.
            pub fn for_each(&self, mut each: impl FnMut(&'static str, u64)) {
                $(each(stringify!($field), self.$field.get());)*
            }
        }
    };
}

/// A count that threads share.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        // Relaxed: a count publishes nothing else.
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// Returns the count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

counters! {
    /// Outcomes of the operations of one namespace.
    NamespaceStats {
        /// Reads answered by a value in tier 2.
        hits,
        /// Reads answered by "there is none" in tier 2.
        negative_hits,
        /// Reads that found nothing usable in tier 2.
        misses,
        /// Reads of frames that are expired, served for `stale_while_revalidate`.
        stale_while_revalidate,
        /// Failed loads for which an expired value was served.
        stale_if_error,
        /// Loads that returned.
        loads,
        /// Loads that failed.
        load_failures,
        /// Microseconds of all loads.
        load_micros,
        /// Loads without a lease: tier 2 down, key journalled, waiting exhausted, marker.
        unleased_loads,
        /// Leases won.
        leases,
        /// Leases won after another process's lease was seen to vanish.
        leases_taken_over,
        /// Reads that waited for another process's load.
        waits,
        /// Reads that stopped waiting, and loaded for themselves.
        waits_given_up,
        /// Fills that tier 2 confirmed.
        fills,
        /// Fills that tier 2 refused, or did not confirm.
        fills_refused,
        /// Values kept in tier 1 alone: too large, or not encodable.
        local_values,
        /// Frames of a generation that was bumped.
        outdated,
        /// Replies that were no frame of this version.
        malformed,
        /// Payloads that the caller could not use: codec, signature.
        rejected,
        /// Writes that tier 2 confirmed.
        writes,
        /// Removals, soft expirations and bumps that tier 2 confirmed.
        removals,
        /// Writes, removals, expirations and bumps that tier 2 did not confirm.
        unconfirmed,
    }
}

counters! {
    /// What happened between this process and its tier 2.
    TierStats {
        /// Outcomes that are unknown: no answer within the time.
        timeouts,
        /// Connections that were refused or broke.
        refused,
        /// Errors: out of memory.
        oom,
        /// Errors: a replica, or a master that was demoted.
        readonly,
        /// Errors: the script is not known.
        noscript,
        /// Errors: not permitted.
        noperm,
        /// Errors: the server loads its data, or its cluster is down.
        loading,
        /// Redirections to another node.
        moved,
        /// Other errors.
        other_errors,
        /// Answers of a previous epoch.
        outdated_replies,
        /// The breaker opened.
        breaker_opened,
        /// The breaker closed.
        breaker_closed,
        /// A node's identity changed: a failover or a restart.
        epochs,
        /// Invalidations that the bus delivered.
        messages,
        /// Canaries that came back.
        canaries,
        /// The bus armed.
        bus_armed,
        /// The bus was lost.
        bus_lost,
        /// Tier 1 was cleared because the bus armed, or was not to be had.
        clears,
        /// The server's data was flushed.
        flushes,
        /// Keys that entered the journal.
        journalled,
        /// Journalled keys whose replay was confirmed.
        replayed,
        /// The journal overflowed.
        journal_overflows,
        /// Connections that were fenced.
        fences,
        /// Renewals of leases.
        renewals,
        /// Leases that did not exist any more at their renewal.
        leases_lost,
    }
}

/// How many answers took less than 2^n microseconds, for n from 5.
#[derive(Debug, Default)]
pub struct Latency([Counter; 20]);

impl Latency {
    pub(crate) fn record(&self, nanos: u64) {
        let micros = nanos / 1_000;
        let bucket = (u64::BITS - micros.leading_zeros()).saturating_sub(5) as usize;
        self.0[bucket.min(self.0.len() - 1)].one();
    }

    /// Returns the counts; bucket `n` is of answers below 2^(n+5) microseconds, the last one of all
    /// others.
    pub fn counts(&self) -> [u64; 20] {
        std::array::from_fn(|bucket| self.0[bucket].get())
    }
}
