//! Building blocks that know nothing of caches.

pub(crate) mod clock;
pub(crate) mod ghost;
pub(crate) mod list;
pub(crate) mod queue;
pub(crate) mod sketch;
pub(crate) mod sync;
