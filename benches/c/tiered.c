/* A hit in the second tier, by the transport of examples/c/tier2_redis.c, beside hiredis' own GET
 * of the same bytes: rounds of both alternate, in one process. `make bench-tiered-c`.
 *
 * tiered ADDRESS HOST PORT [ROUNDS] */
#include "../../examples/c/tier2_redis.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KEYS 100

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void must(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "tiered: %s\n", what);
    exit(1);
}

int main(int argc, char **argv) {
    int rounds = argc > 4 ? atoi(argv[4]) : 201;
    double *ours, *bare;
    char names[KEYS][128], value[100], key[16];
    size_t lens[KEYS];
    hotset_tier2 tier2;
    hotset_tiered_options options;
    hotset_tiered *cache;
    redisContext *c;
    must(argc > 3 && rounds > 0, "usage: tiered ADDRESS HOST PORT [ROUNDS]");
    ours = calloc((size_t)rounds, sizeof *ours), bare = calloc((size_t)rounds, sizeof *bare);
    c = redisConnect(argv[2], atoi(argv[3]));
    must(ours && bare && c && !c->err, "no server");
    must(tier2_redis(&tier2, argv[1]) == 0, "no address");
    hotset_tiered_options_init(&options, sizeof options);
    options.prefix = "bench", options.name = "c", options.keys = HOTSET_KEYS_TEXT;
    options.max_entries = 1, options.timeout_ms = 10000; /* tier 1 holds none of the next keys */
    must(hotset_tiered_open(&tier2, &options, &cache) == HOTSET_OK, "not opened");
    memset(value, 'v', sizeof value);
    for (int k = 0; k < KEYS; k++) {
        size_t len = (size_t)snprintf(key, sizeof key, "key%d", k);
        must(hotset_tiered_put(cache, key, len, value, sizeof value, HOTSET_TTL_NONE, NULL, 0) == HOTSET_OK, "not stored");
        must(hotset_tiered_name(cache, key, len, names[k], sizeof names[k], &lens[k]) == HOTSET_OK, "no name");
    }
    for (int round = 0; round < rounds; round++) {
        double began = now();
        for (int k = 0; k < KEYS; k++) {
            hotset_value *found;
            size_t len = (size_t)snprintf(key, sizeof key, "key%d", k);
            must(hotset_tiered_get(cache, key, len, &found) == HOTSET_OK, "not found");
            hotset_release(found);
        }
        ours[round] = (now() - began) / KEYS;
        began = now();
        for (int k = 0; k < KEYS; k++) {
            redisReply *reply = redisCommand(c, "GET %b", names[k], lens[k]);
            must(reply && reply->type == REDIS_REPLY_STRING, "no value");
            freeReplyObject(reply);
        }
        bare[round] = (now() - began) / KEYS;
    }
    qsort(ours, (size_t)rounds, sizeof *ours, compare), qsort(bare, (size_t)rounds, sizeof *bare, compare);
    printf("hit in tier 2: %.1f us, hiredis GET: %.1f us, %.2f times (medians of %d rounds of %d)\n", ours[rounds / 2], bare[rounds / 2],
           ours[rounds / 2] / bare[rounds / 2], rounds, KEYS);
    redisFree(c);
    free(ours), free(bare);
    return hotset_tiered_close(cache) != HOTSET_OK;
}
