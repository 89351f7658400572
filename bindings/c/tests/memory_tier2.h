/* A second tier in memory, which several caches share as processes would; and how it misbehaves. */
#ifndef MEMORY_TIER2_H
#define MEMORY_TIER2_H

#include "check.h"
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#define ITEMS 256
#define BUSES 8
#define QUEUED 4096

typedef struct {
    char *key, *value; /* key NULL: free */
    size_t key_len, value_len;
} item;

typedef struct {
    int used, flushed, pongs;
    char *changed[QUEUED]; /* NUL-terminated keys */
    int count;
    char *prefixes[8];
    int prefix_count;
} memory_bus;

/* What it does wrong. */
typedef enum {
    WELL,
    NO_ANSWER,       /* OK without an answer */
    TWO_ANSWERS,     /* another answer first, which the last one replaces */
    WRONG_KIND,      /* a flag for a value, and the other way round */
    UNKNOWN_FAILURE, /* a number that is none */
    WRONG_FRAMES,    /* values that are no frames */
    NO_GREETING,
    BUS_BREAKS,
    BUS_SPINS,       /* returns immediately, with nothing */
} misbehavior;

typedef struct {
    pthread_mutex_t lock;
    item items[ITEMS];
    memory_bus buses[BUSES];
    int released, connections, commands, packets;
    /* What a test sets while the cache's threads read it. */
    _Atomic int down, unanswered;
    _Atomic misbehavior how;
    hotset_tiered *_Atomic within; /* called by execute, if it is set */
} memory;

static memory *new_memory(void) {
    memory *m = calloc(1, sizeof *m);
    CHECK(m && pthread_mutex_init(&m->lock, NULL) == 0);
    return m;
}

static void free_memory(memory *m) {
    for (int i = 0; i < ITEMS; i++) free(m->items[i].key), free(m->items[i].value);
    for (int i = 0; i < BUSES; i++) {
        CHECK(!m->buses[i].used);
    }
    CHECK(m->connections == 0);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static item *find(memory *m, hotset_slice key) {
    for (int i = 0; i < ITEMS; i++)
        if (m->items[i].key && m->items[i].key_len == key.len && !memcmp(m->items[i].key, key.data, key.len)) return &m->items[i];
    return NULL;
}

static void announce(memory *m, hotset_slice key) {
    for (int i = 0; i < BUSES; i++) {
        memory_bus *bus = &m->buses[i];
        int wanted = 0;
        for (int p = 0; bus->used && p < bus->prefix_count; p++)
            wanted |= strlen(bus->prefixes[p]) <= key.len && !memcmp(bus->prefixes[p], key.data, strlen(bus->prefixes[p]));
        if (!wanted) continue;
        CHECK(bus->count < QUEUED);
        bus->changed[bus->count++] = strndup(key.data, key.len);
    }
}

static void drop_item(memory *m, hotset_slice key) {
    item *found = find(m, key);
    if (found) {
        free(found->key), free(found->value);
        memset(found, 0, sizeof *found);
    }
    announce(m, key);
}

static void set_item(memory *m, hotset_slice key, hotset_slice value) {
    item *at = find(m, key);
    for (int i = 0; !at && i < ITEMS; i++)
        if (!m->items[i].key) at = &m->items[i];
    CHECK(at);
    if (!at->key) at->key = memcpy(malloc(key.len + 1), key.data, key.len), at->key_len = key.len;
    free(at->value);
    at->value = malloc(value.len + 1), at->value_len = value.len;
    if (value.len) memcpy(at->value, value.data, value.len);
    announce(m, key);
}

static int begins(memory *m, const hotset_tier2_command *c) {
    item *found = find(m, c->key);
    size_t len = found ? found->value_len : 0;
    if (len > 24) len = 24;
    return c->expected.len == len && (len == 0 || !memcmp(found->value, c->expected.data, len));
}

static void overwrite(memory *m, item *found, const hotset_tier2_command *c) {
    memcpy(found->value + 4, c->value.data, 16);
    for (int i = 0; i < 8; i++) found->value[24 + i] = (char)(c->soft_end >> (8 * i));
    announce(m, c->key);
}

static void answer_value(memory *m, hotset_slice key, hotset_tier2_answer *answer) {
    item *found = find(m, key);
    if (m->how == WRONG_FRAMES) {
        OK(hotset_tier2_answer_value(answer, "\xf1h\x01\x01short", 9));
        return;
    }
    if (found) OK(hotset_tier2_answer_value(answer, found->value, found->value_len));
    else OK(hotset_tier2_answer_nothing(answer));
}

static void perform(memory *m, const hotset_tier2_command *c, hotset_tier2_answer *answer) {
    int flag = 1;
    item *found;
    m->commands++;
    CHECK(c->size >= sizeof *c && c->reserved == 0);
    switch ((hotset_tier2_kind)c->kind) {
    case HOTSET_TIER2_GET: answer_value(m, c->key, answer); return;
    case HOTSET_TIER2_ACQUIRE:
        answer_value(m, c->key, answer);
        if (!find(m, c->key)) set_item(m, c->key, c->value);
        return;
    case HOTSET_TIER2_CLAIM:
        flag = !find(m, c->claim);
        if (flag) set_item(m, c->claim, c->value);
        answer_value(m, c->key, answer);
        break;
    case HOTSET_TIER2_SWAP:
        flag = begins(m, c);
        if (flag) set_item(m, c->key, c->value);
        break;
    case HOTSET_TIER2_RELEASE:
        flag = begins(m, c);
        if (flag) drop_item(m, c->key);
        break;
    case HOTSET_TIER2_PUT:
    case HOTSET_TIER2_BUMP: set_item(m, c->key, c->value); break;
    case HOTSET_TIER2_CANARY: announce(m, c->key); break; /* it is not read */
    case HOTSET_TIER2_EXPIRE:
        found = find(m, c->key);
        if (found && found->value_len >= 54 && !memcmp(found->value, "\xf1h\x01\x01", 4)) {
            overwrite(m, found, c);
            break;
        }
        /* fallthrough */
    case HOTSET_TIER2_REMOVE: drop_item(m, c->key); break;
    case HOTSET_TIER2_TOUCH:
        flag = begins(m, c);
        if (flag) overwrite(m, find(m, c->key), c);
        break;
    case HOTSET_TIER2_FENCE: break;
    }
    OK(hotset_tier2_answer_flag(answer, flag));
}

static hotset_tier2_failure memory_connect(void *user, uint32_t server, uint64_t timeout_ms, hotset_tier2_greeting *greeting,
                                           void **connection) {
    memory *m = user;
    struct timespec now;
    CHECK(server == 0 && timeout_ms > 0);
    pthread_mutex_lock(&m->lock);
    int down = m->down;
    m->connections += !down;
    pthread_mutex_unlock(&m->lock);
    if (down) return HOTSET_TIER2_REFUSED;
    clock_gettime(CLOCK_REALTIME, &now);
    *connection = m;
    if (m->how != NO_GREETING)
        OK(hotset_tier2_greet(greeting, "memory", 6, (uint64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, 1, 1));
    return HOTSET_TIER2_OK;
}

static void memory_disconnect(void *user, void *connection) {
    memory *m = user;
    CHECK(connection == m);
    pthread_mutex_lock(&m->lock);
    m->connections--;
    pthread_mutex_unlock(&m->lock);
}

static hotset_tier2_failure memory_ping(void *user, void *connection, uint64_t timeout_ms) {
    (void)connection, (void)timeout_ms;
    return ((memory *)user)->down ? HOTSET_TIER2_TIMEOUT : HOTSET_TIER2_OK;
}

static hotset_tier2_failure memory_execute(void *user, void *connection, const hotset_tier2_command *command, uint64_t timeout_ms,
                                           hotset_tier2_answer *answer) {
    memory *m = user;
    hotset_tier2_failure failure = HOTSET_TIER2_OK;
    CHECK(connection == m && timeout_ms > 0);
    if (m->within) {
        /* A callback may use the cache that called it, but not close it. */
        hotset_tiered *within = m->within;
        hotset_value *value;
        m->within = NULL;
        IS(HOTSET_REENTRANT, hotset_tiered_close(within));
        IS(HOTSET_NOT_FOUND, hotset_tiered_get(within, S("another"), &value));
    }
    pthread_mutex_lock(&m->lock);
    if (m->down) failure = HOTSET_TIER2_TIMEOUT;
    else if (m->how == UNKNOWN_FAILURE) failure = (hotset_tier2_failure)-12345;
    else if (m->how == WRONG_KIND) {
        if (command->kind == HOTSET_TIER2_GET || command->kind == HOTSET_TIER2_ACQUIRE) OK(hotset_tier2_answer_flag(answer, 1));
        else OK(hotset_tier2_answer_value(answer, "v", 1));
    } else if (m->how != NO_ANSWER) {
        if (m->how == TWO_ANSWERS) {
            OK(hotset_tier2_answer_value(answer, "first", 5));
            OK(hotset_tier2_answer_flag(answer, 0));
        }
        perform(m, command, answer);
    }
    if (m->unanswered) {
        m->unanswered--;
        failure = HOTSET_TIER2_TIMEOUT;
    }
    pthread_mutex_unlock(&m->lock);
    return failure;
}

static hotset_tier2_failure memory_execute_many(void *user, void *connection, const hotset_tier2_command *const *commands,
                                                size_t count, uint64_t timeout_ms, hotset_tier2_answer *const *answers) {
    memory *m = user;
    (void)connection, (void)timeout_ms;
    pthread_mutex_lock(&m->lock);
    m->packets++;
    for (size_t i = 0; i < count && !m->down; i++) perform(m, commands[i], answers[i]);
    if (m->how == UNKNOWN_FAILURE) OK(hotset_tier2_answer_failure(answers[0], (hotset_tier2_failure)99));
    pthread_mutex_unlock(&m->lock);
    return m->down ? HOTSET_TIER2_TIMEOUT : HOTSET_TIER2_OK;
}

static hotset_tier2_failure memory_subscribe(void *user, uint32_t server, const hotset_slice *prefixes, size_t count,
                                             uint64_t timeout_ms, void **bus) {
    memory *m = user;
    (void)timeout_ms;
    CHECK(server == 0 && count <= 8);
    if (m->down) return HOTSET_TIER2_REFUSED;
    pthread_mutex_lock(&m->lock);
    memory_bus *at = NULL;
    for (int i = 0; !at && i < BUSES; i++)
        if (!m->buses[i].used) at = &m->buses[i];
    CHECK(at);
    memset(at, 0, sizeof *at);
    at->used = 1, at->prefix_count = (int)count;
    for (size_t i = 0; i < count; i++) at->prefixes[i] = strndup(prefixes[i].data, prefixes[i].len);
    pthread_mutex_unlock(&m->lock);
    *bus = at;
    return HOTSET_TIER2_OK;
}

static void memory_unsubscribe(void *user, void *bus) {
    memory *m = user;
    memory_bus *at = bus;
    pthread_mutex_lock(&m->lock);
    for (int i = 0; i < at->count; i++) free(at->changed[i]);
    for (int i = 0; i < at->prefix_count; i++) free(at->prefixes[i]);
    at->used = 0;
    pthread_mutex_unlock(&m->lock);
}

static hotset_tier2_failure memory_bus_next(void *user, void *bus, uint64_t timeout_ms, hotset_tier2_message *message) {
    memory *m = user;
    memory_bus *at = bus;
    hotset_tier2_failure failure = HOTSET_TIER2_OK;
    for (uint64_t waited = 0; waited < timeout_ms; waited++) {
        int some;
        pthread_mutex_lock(&m->lock);
        some = at->count + at->flushed + at->pongs;
        if (m->how == BUS_BREAKS) failure = HOTSET_TIER2_REFUSED;
        else if (at->flushed) {
            OK(hotset_tier2_message_flushed(message));
            IS(HOTSET_INVALID, hotset_tier2_message_pong(message));
            at->flushed = 0;
        } else if (at->count) {
            for (int i = 0; i < at->count; i++) {
                OK(hotset_tier2_message_changed(message, at->changed[i], strlen(at->changed[i])));
                free(at->changed[i]);
            }
            at->count = 0;
        } else if (at->pongs) {
            OK(hotset_tier2_message_pong(message));
            at->pongs--;
        }
        pthread_mutex_unlock(&m->lock);
        if (some || failure || m->how == BUS_SPINS) break;
        usleep(1000);
    }
    return failure;
}

static hotset_tier2_failure memory_bus_ping(void *user, void *bus, uint64_t timeout_ms) {
    memory *m = user;
    (void)timeout_ms;
    pthread_mutex_lock(&m->lock);
    ((memory_bus *)bus)->pongs++;
    pthread_mutex_unlock(&m->lock);
    return HOTSET_TIER2_OK;
}

static void memory_release(void *user) { ((memory *)user)->released++; }

static hotset_tier2 tier2_of(memory *m) {
    hotset_tier2 tier2;
    memset(&tier2, 0, sizeof tier2);
    tier2.size = sizeof tier2;
    tier2.user = m;
    tier2.connect = memory_connect;
    tier2.execute = memory_execute;
    tier2.execute_many = memory_execute_many;
    tier2.ping = memory_ping;
    tier2.disconnect = memory_disconnect;
    tier2.subscribe = memory_subscribe;
    tier2.bus_next = memory_bus_next;
    tier2.bus_ping = memory_bus_ping;
    tier2.unsubscribe = memory_unsubscribe;
    tier2.release = memory_release;
    return tier2;
}

#endif
