/* A service in front of a Redis, Valkey or memcached: it reads a command per line, such as "get
 * tea", "set tea 3" and "remove tea", and answers it. Several of them on one server are coherent,
 * also with examples/tiered.rs and examples/python/tiered.py.
 *
 * make demo-tier2-all, or: cc tiered.c tier2_redis.c tier2_memcached.c $(pkg-config --cflags
 * --libs hotset hiredis) */
#include "tier2_memcached.h"
#include "tier2_redis.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Stands for a database. */
static hotset_status load(void *arg, const void *key, size_t key_len, hotset_reply *reply) {
    char text[24];
    (void)arg;
    printf("(loading %.*s)\n", (int)key_len, (const char *)key);
    return hotset_reply_set(reply, text, (size_t)snprintf(text, sizeof text, "%zu", key_len), HOTSET_TTL_DEFAULT);
}

static void get(hotset_tiered *prices, const char *key) {
    hotset_value *value;
    const void *data;
    size_t len;
    hotset_status status = hotset_tiered_get_or_load(prices, key, strlen(key), NULL, 0, load, NULL, &value);
    if (status != HOTSET_OK) {
        printf("%s\n", hotset_strerror(status));
        return;
    }
    hotset_value_data(value, &data, &len);
    printf("%.*s\n", (int)len, (const char *)data);
    hotset_release(value);
}

static void show(void *arg, const char *name, uint64_t count) {
    (void)arg;
    if (count) printf("%s %llu\n", name, (unsigned long long)count);
}

static void stats(hotset_tiered *prices) {
    hotset_tiered_state state;
    hotset_tiered_stats(prices, &state, show, NULL);
    printf("link %s, bus %s, %llu unconfirmed\n", state.link, state.bus, (unsigned long long)state.unconfirmed);
}

/* "done", or what the status means. */
static void report(hotset_status status) {
    puts(status == HOTSET_OK ? "done" : status == HOTSET_UNCONFIRMED ? "done here, and on the server once it answers" : hotset_strerror(status));
}

int main(int argc, char **argv) {
    const char *address = argc > 1 ? argv[1] : "redis://localhost:6379/0";
    hotset_tier2 tier2;
    hotset_tiered_options options;
    hotset_tiered *prices;
    hotset_status status;
    char line[1024];
    int failed = strncmp(address, "memcached://", 12) ? tier2_redis(&tier2, address) : tier2_memcached(&tier2, address);
    signal(SIGPIPE, SIG_IGN); /* a server may close a connection at any time */
    if (failed) {
        fprintf(stderr, "%s: not an address of a Redis or of memcached servers\n", address);
        return 2;
    }
    hotset_tiered_options_init(&options, sizeof options);
    options.prefix = "demo", options.name = "prices";
    options.keys = HOTSET_KEYS_TEXT;
    options.max_entries = 10000;
    if ((status = hotset_tiered_open(&tier2, &options, &prices)) != HOTSET_OK) {
        fprintf(stderr, "hotset_tiered_open: %s\n", hotset_strerror(status));
        tier2.release(tier2.user); /* still ours */
        return 1;
    }
    while (fgets(line, sizeof line, stdin)) {
        const char *command = strtok(line, " \n"), *key = strtok(NULL, " \n"), *value = strtok(NULL, " \n");
        if (!command) continue;
        if (!strcmp(command, "get") && key) get(prices, key);
        else if (!strcmp(command, "set") && key && value)
            report(hotset_tiered_put(prices, key, strlen(key), value, strlen(value), HOTSET_TTL_DEFAULT, NULL, 0));
        else if (!strcmp(command, "remove") && key) report(hotset_tiered_invalidate(prices, key, strlen(key)));
        else if (!strcmp(command, "stats")) stats(prices);
        else puts("get KEY | set KEY VALUE | remove KEY | stats");
        fflush(stdout);
    }
    return hotset_tiered_close(prices) != HOTSET_OK;
}
