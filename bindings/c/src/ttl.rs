//! The TTLs of the header.

use engine::Ttl;
use std::time::Duration;

// (The header defines these by hand, since C wants a suffix on such numbers.)
pub(crate) const HOTSET_TTL_DEFAULT: u64 = 0;
pub(crate) const HOTSET_TTL_NONE: u64 = u64::MAX - 1;
pub(crate) const HOTSET_TTL_KEEP: u64 = u64::MAX;

/// A TTL in milliseconds from C, or one of the constants.
pub(crate) fn ttl(ms: u64) -> Ttl {
    match ms {
        HOTSET_TTL_DEFAULT => Ttl::Default,
        HOTSET_TTL_NONE => Ttl::Never,
        HOTSET_TTL_KEEP => Ttl::Keep,
        ms => Ttl::After(Duration::from_millis(ms)),
    }
}
