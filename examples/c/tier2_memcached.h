/* memcached servers as the second tier of caches: a transport for hotset_tiered_open. It needs
 * memcached 1.6.13 or later, whose meta commands it sends. */
#ifndef TIER2_MEMCACHED_H
#define TIER2_MEMCACHED_H

#include <hotset.h>

/* Fills `tier2` with callbacks that reach the servers at `addresses`, which have commas between
 * them: "10.0.0.1:11211,[::1]:11211" or "/run/memcached.sock", after an optional "memcached://".
 * Connects to nothing yet. All programs that share values write the addresses alike: keys are
 * spread over the servers by these texts.
 *
 * What this allocates is freed by tier2->release(tier2->user): the library calls that when the
 * cache is closed, so each cache needs a call of its own; if hotset_tiered_open fails, or is never
 * called, the caller does.
 *
 * Returns 0, or -1 with errno: EINVAL for a malformed address, ENOMEM. */
int tier2_memcached(hotset_tier2 *tier2, const char *addresses);

#endif
