/* A second tier for hotset on a Redis or Valkey server, by hiredis. */
#ifndef TIER2_REDIS_H
#define TIER2_REDIS_H

#include <hotset.h>

/* Fills `tier2` with callbacks that reach the server at
 * "redis://[[user]:password@]host[:port][/db]", of Redis 6 or later. Connects to nothing yet. What
 * this allocates is freed by tier2->release(tier2->user): the library calls that when the cache is
 * closed; if hotset_tiered_open fails, or is never called, the caller does.
 *
 * hiredis writes to sockets that the server may have closed: the program must ignore SIGPIPE.
 *
 * Returns 0, or -1 if the address is malformed or there is no memory. */
int tier2_redis(hotset_tier2 *tier2, const char *address);

#endif
