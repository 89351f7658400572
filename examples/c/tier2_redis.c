/* See tier2_redis.h. A connection is a hiredis context; replies are awaited by poll, so that a
 * timeout holds for the whole reply. What a command is in those of Redis is in `add`, and what its
 * replies mean in `answer`. */
#include "tier2_redis.h"

#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

typedef struct {
    char host[256], user[128], password[128];
    int port, db;
} server;

/* ---- Time */

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int left_ms(uint64_t end) {
    uint64_t now = now_ms();
    return now >= end ? 0 : (int)(end - now);
}

/* ---- Replies */

/* Waits until the socket is ready, or returns 0. */
static int ready(redisContext *c, short events, uint64_t end) {
    struct pollfd fd = {c->fd, events, 0};
    int count;
    do count = poll(&fd, 1, left_ms(end));
    while (count < 0 && errno == EINTR);
    return count == 1;
}

/* Sends what was appended. */
static int flush(redisContext *c, uint64_t end) {
    int done = 0;
    while (!done)
        if (!ready(c, POLLOUT, end) || redisBufferWrite(c, &done) != REDIS_OK) return -1;
    return 0;
}

/* Awaits the next reply, or returns NULL. */
static redisReply *next_reply(redisContext *c, uint64_t end) {
    for (;;) {
        void *reply = NULL;
        if (redisGetReplyFromReader(c, &reply) != REDIS_OK) return NULL;
        if (reply) return reply;
        if (!ready(c, POLLIN, end) || redisBufferRead(c) != REDIS_OK) return NULL;
    }
}

static hotset_tier2_failure failure_of(const redisReply *reply) {
    static const struct {
        const char *code;
        hotset_tier2_failure failure;
    } codes[] = {
        {"OOM", HOTSET_TIER2_OUT_OF_MEMORY},     {"READONLY", HOTSET_TIER2_READ_ONLY},
        {"NOPERM", HOTSET_TIER2_NO_PERMISSION},  {"NOAUTH", HOTSET_TIER2_NO_PERMISSION},
        {"WRONGPASS", HOTSET_TIER2_NO_PERMISSION}, {"LOADING", HOTSET_TIER2_LOADING},
        {"MASTERDOWN", HOTSET_TIER2_LOADING},
    };
    if (reply->type != REDIS_REPLY_ERROR) return HOTSET_TIER2_OK;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (strstr(reply->str, codes[i].code)) return codes[i].failure; /* quoted in the error of a script, too */
    return HOTSET_TIER2_OTHER;
}

/* ---- Commands */

#define SET_HEAD "redis.call('SETRANGE',KEYS[1],4,ARGV[1]) redis.call('SETRANGE',KEYS[1],24,ARGV[2])"
#define ANNOUNCE "if redis.call('UNLINK',KEYS[1])==0 then redis.pcall('SET',KEYS[1],'') redis.call('UNLINK',KEYS[1]) end return 1"
#define IF_BEGINS(argument) "if redis.call('GETRANGE',KEYS[1],0,23)~=ARGV[" argument "] then return 0 end "

static const char SWAP[] = IF_BEGINS("1") "redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) return 1";
static const char RELEASE[] = IF_BEGINS("1") "redis.call('UNLINK',KEYS[1]) return 1";
static const char REMOVE[] = ANNOUNCE;
static const char EXPIRE[] = "if redis.call('GETRANGE',KEYS[1],0,3)=='\\241h\\1\\1' and redis.call('STRLEN',KEYS[1])>=54 then " SET_HEAD
                             " return 1 end " ANNOUNCE;
static const char TOUCH[] = IF_BEGINS("4") SET_HEAD " redis.call('PEXPIRE',KEYS[1],ARGV[3]) return 1";
static const char PUT[] = "local t=redis.call('TIME') if t[1]*1000+math.floor(t[2]/1000)>tonumber(ARGV[3]) then return 0 end "
                          "redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) return 1";

typedef struct {
    const char *parts[10];
    size_t lens[10];
    int count;
} words;

static void word(words *w, const void *data, size_t len) {
    w->parts[w->count] = len ? data : "";
    w->lens[w->count++] = len;
}
#define TEXT(w, text) word(w, text, strlen(text))
#define SLICE(w, slice) word(w, (slice).data, (slice).len)

static int append(redisContext *c, const words *w) {
    return redisAppendCommandArgv(c, w->count, (const char **)w->parts, w->lens);
}

static void script(words *w, const char *text, hotset_slice key) {
    TEXT(w, "EVAL"), TEXT(w, text), TEXT(w, "1"), SLICE(w, key);
}

/* Appends the requests of a command, and returns how many replies they have; 0 if it is unknown. */
static int add(redisContext *c, const hotset_tier2_command *command) {
    char px[24], number[24], soft_end[8];
    words w = {{0}, {0}, 0}, then = {{0}, {0}, 0};
    snprintf(px, sizeof px, "%" PRIu64, command->px);
    for (int i = 0; i < 8; i++) soft_end[i] = (char)(command->soft_end >> (8 * i));
    switch ((hotset_tier2_kind)command->kind) {
    case HOTSET_TIER2_GET: TEXT(&w, "GET"), SLICE(&w, command->key); break;
    case HOTSET_TIER2_ACQUIRE: /* SET NX GET is of Redis 7 */
        TEXT(&w, "SET"), SLICE(&w, command->key), SLICE(&w, command->value), TEXT(&w, "NX");
        if (command->px) TEXT(&w, "PX"), TEXT(&w, px);
        TEXT(&then, "GET"), SLICE(&then, command->key);
        break;
    case HOTSET_TIER2_CLAIM:
        TEXT(&w, "SET"), SLICE(&w, command->claim), SLICE(&w, command->value), TEXT(&w, "NX"), TEXT(&w, "PX"), TEXT(&w, px);
        TEXT(&then, "GET"), SLICE(&then, command->key);
        break;
    case HOTSET_TIER2_SWAP:
        script(&w, SWAP, command->key), SLICE(&w, command->expected), SLICE(&w, command->value), TEXT(&w, px);
        break;
    case HOTSET_TIER2_PUT:
        if (command->not_after) {
            snprintf(number, sizeof number, "%" PRIu64, command->not_after);
            script(&w, PUT, command->key), SLICE(&w, command->value), TEXT(&w, px), TEXT(&w, number);
        } else {
            TEXT(&w, "SET"), SLICE(&w, command->key), SLICE(&w, command->value), TEXT(&w, "PX"), TEXT(&w, px);
        }
        break;
    case HOTSET_TIER2_RELEASE: script(&w, RELEASE, command->key), SLICE(&w, command->expected); break;
    case HOTSET_TIER2_REMOVE: script(&w, REMOVE, command->key); break;
    case HOTSET_TIER2_EXPIRE: script(&w, EXPIRE, command->key), SLICE(&w, command->value), word(&w, soft_end, 8); break;
    case HOTSET_TIER2_TOUCH:
        script(&w, TOUCH, command->key), SLICE(&w, command->value), word(&w, soft_end, 8), TEXT(&w, px), SLICE(&w, command->expected);
        break;
    case HOTSET_TIER2_BUMP: TEXT(&w, "SET"), SLICE(&w, command->key), SLICE(&w, command->value); break;
    case HOTSET_TIER2_CANARY: TEXT(&w, "SET"), SLICE(&w, command->key), TEXT(&w, ""), TEXT(&w, "PX"), TEXT(&w, px); break;
    case HOTSET_TIER2_FENCE:
        snprintf(number, sizeof number, "%" PRIu64, command->connection);
        TEXT(&w, "CLIENT"), TEXT(&w, "KILL"), TEXT(&w, "ID"), TEXT(&w, number);
        break;
    }
    if (w.count == 0 || append(c, &w) != REDIS_OK) return 0;
    if (then.count == 0) return 1;
    return append(c, &then) == REDIS_OK ? 2 : 0;
}

static void answer_value(hotset_tier2_answer *to, const redisReply *reply) {
    if (reply->type == REDIS_REPLY_STRING) hotset_tier2_answer_value(to, reply->str, reply->len);
    else if (reply->type == REDIS_REPLY_NIL) hotset_tier2_answer_nothing(to);
}

static int is_done(const redisReply *reply) {
    return reply->type == REDIS_REPLY_STATUS || (reply->type == REDIS_REPLY_INTEGER && reply->integer != 0);
}

/* Answers a command by its replies. Without an answer, its outcome is unknown. */
static void answer(hotset_tier2_answer *to, const hotset_tier2_command *command, redisReply **replies, int count) {
    for (int i = 0; i < count; i++) {
        hotset_tier2_failure failure = failure_of(replies[i]);
        if (failure == HOTSET_TIER2_OK) continue;
        hotset_tier2_answer_failure(to, failure);
        return;
    }
    switch ((hotset_tier2_kind)command->kind) {
    case HOTSET_TIER2_GET: answer_value(to, replies[0]); break;
    case HOTSET_TIER2_ACQUIRE:
        if (is_done(replies[0])) hotset_tier2_answer_nothing(to);
        else if (replies[1]->type == REDIS_REPLY_STRING) answer_value(to, replies[1]);
        else hotset_tier2_answer_failure(to, HOTSET_TIER2_OTHER); /* removed between the two */
        break;
    case HOTSET_TIER2_CLAIM:
        hotset_tier2_answer_flag(to, is_done(replies[0]));
        answer_value(to, replies[1]);
        break;
    case HOTSET_TIER2_FENCE: hotset_tier2_answer_flag(to, 1); break;
    default: hotset_tier2_answer_flag(to, is_done(replies[0]));
    }
}

/* Sends commands in one packet, and answers each. */
static hotset_tier2_failure exchange(redisContext *c, const hotset_tier2_command *const *commands, size_t count, uint64_t timeout_ms,
                                     hotset_tier2_answer *const *answers) {
    uint64_t end = now_ms() + timeout_ms;
    hotset_tier2_failure failure = HOTSET_TIER2_OK;
    int *replies = calloc(count, sizeof *replies);
    if (!replies) return HOTSET_TIER2_NOT_SENT;
    for (size_t i = 0; i < count; i++)
        if ((replies[i] = add(c, commands[i])) == 0) hotset_tier2_answer_failure(answers[i], HOTSET_TIER2_OTHER);
    if (c->err || flush(c, end) != 0) failure = HOTSET_TIER2_TIMEOUT;
    for (size_t i = 0; i < count && !failure; i++) {
        redisReply *both[2] = {NULL, NULL};
        for (int at = 0; at < replies[i] && !failure; at++)
            if (!(both[at] = next_reply(c, end))) failure = HOTSET_TIER2_TIMEOUT;
        if (!failure && replies[i]) answer(answers[i], commands[i], both, replies[i]);
        for (int at = 0; at < 2; at++)
            if (both[at]) freeReplyObject(both[at]);
    }
    free(replies);
    return failure;
}

/* ---- Connections */

/* A request of the transport's own. */
static redisReply *ask(redisContext *c, uint64_t end, const char *command) {
    if (redisAppendCommand(c, command) != REDIS_OK || flush(c, end) != 0) return NULL;
    return next_reply(c, end);
}

static int is_ok(redisContext *c, uint64_t end, const words *w) {
    redisReply *reply = append(c, w) == REDIS_OK && flush(c, end) == 0 ? next_reply(c, end) : NULL;
    int ok = reply && reply->type == REDIS_REPLY_STATUS;
    if (reply) freeReplyObject(reply);
    return ok;
}

static redisContext *open_context(const server *s, uint64_t end) {
    struct timeval left = {left_ms(end) / 1000, (left_ms(end) % 1000) * 1000 + 1};
    redisContext *c = redisConnectWithTimeout(s->host, s->port, left);
    if (c && !c->err) {
        words login = {{0}, {0}, 0}, select = {{0}, {0}, 0};
        char db[16];
        /* A blocking socket would take a large value in one call, however long that takes. */
        fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
        c->flags &= ~REDIS_BLOCK;
        TEXT(&login, "AUTH");
        if (s->user[0]) TEXT(&login, s->user);
        TEXT(&login, s->password);
        snprintf(db, sizeof db, "%d", s->db);
        TEXT(&select, "SELECT"), TEXT(&select, db);
        if ((!s->password[0] || is_ok(c, end, &login)) && (!s->db || is_ok(c, end, &select))) return c;
    }
    if (c) redisFree(c);
    return NULL;
}

/* Copies the value of a field of INFO. */
static void field(char *to, size_t size, const redisReply *info, const char *name) {
    const char *at = info->type == REDIS_REPLY_STRING ? strstr(info->str, name) : NULL;
    size_t len = at ? strcspn(at + strlen(name), "\r\n") : 0;
    snprintf(to, size, "%.*s", (int)len, at ? at + strlen(name) : "");
}

static hotset_tier2_failure redis_connect(void *user, uint32_t number, uint64_t timeout_ms, hotset_tier2_greeting *greeting,
                                          void **connection) {
    static const char *const questions[] = {"CLIENT ID", "INFO server", "INFO replication", "TIME", "CLIENT KILL ID 9007199254740991"};
    uint64_t end = now_ms() + timeout_ms, server_ms = 0, id = 0;
    redisReply *replies[5] = {NULL};
    char run_id[64] = "", replid[64] = "", role[16] = "", identity[160];
    hotset_tier2_failure failure = HOTSET_TIER2_OK;
    redisContext *c = open_context(user, end);
    (void)number;
    if (!c) return HOTSET_TIER2_REFUSED;
    for (int i = 0; i < 5 && !failure; i++) {
        if (!(replies[i] = ask(c, end, questions[i]))) failure = HOTSET_TIER2_REFUSED;
        else if (replies[i]->type == REDIS_REPLY_ERROR && strstr(replies[i]->str, "LOADING")) failure = HOTSET_TIER2_LOADING;
        else if (replies[i]->type == REDIS_REPLY_ERROR && strstr(replies[i]->str, "NOAUTH")) failure = HOTSET_TIER2_NO_PERMISSION;
    }
    if (!failure) {
        field(run_id, sizeof run_id, replies[1], "run_id:");
        field(replid, sizeof replid, replies[2], "master_replid:");
        field(role, sizeof role, replies[2], "role:");
        if (role[0] && strcmp(role, "master")) failure = HOTSET_TIER2_REFUSED; /* reads and writes go to the master */
    }
    if (!failure) {
        if (replies[0]->type == REDIS_REPLY_INTEGER) id = (uint64_t)replies[0]->integer;
        if (replies[3]->type == REDIS_REPLY_ARRAY && replies[3]->elements == 2 && replies[3]->element[0]->type == REDIS_REPLY_STRING &&
            replies[3]->element[1]->type == REDIS_REPLY_STRING)
            server_ms = strtoull(replies[3]->element[0]->str, NULL, 10) * 1000 + strtoull(replies[3]->element[1]->str, NULL, 10) / 1000;
        snprintf(identity, sizeof identity, "%s:%s", run_id, replid);
        hotset_tier2_greet(greeting, identity, strlen(identity), server_ms, id, id && replies[4]->type == REDIS_REPLY_INTEGER);
    }
    for (int i = 0; i < 5; i++)
        if (replies[i]) freeReplyObject(replies[i]);
    if (failure) redisFree(c);
    else *connection = c;
    return failure;
}

static void redis_disconnect(void *user, void *connection) {
    (void)user;
    redisFree(connection);
}

static hotset_tier2_failure redis_execute(void *user, void *connection, const hotset_tier2_command *command, uint64_t timeout_ms,
                                          hotset_tier2_answer *to) {
    (void)user;
    return exchange(connection, &command, 1, timeout_ms, &to);
}

static hotset_tier2_failure redis_execute_many(void *user, void *connection, const hotset_tier2_command *const *commands, size_t count,
                                               uint64_t timeout_ms, hotset_tier2_answer *const *answers) {
    (void)user;
    return exchange(connection, commands, count, timeout_ms, answers);
}

static hotset_tier2_failure redis_ping(void *user, void *connection, uint64_t timeout_ms) {
    redisReply *reply = ask(connection, now_ms() + timeout_ms, "PING");
    int ok = reply && reply->type != REDIS_REPLY_ERROR;
    (void)user;
    if (reply) freeReplyObject(reply);
    return ok ? HOTSET_TIER2_OK : HOTSET_TIER2_TIMEOUT;
}

/* ---- The bus: a connection that tracks all keys with the prefixes, and is notified by itself */

static hotset_tier2_failure redis_subscribe(void *user, uint32_t number, const hotset_slice *prefixes, size_t count, uint64_t timeout_ms,
                                            void **bus) {
    uint64_t end = now_ms() + timeout_ms;
    char id[24] = "";
    redisReply *reply;
    redisContext *c = open_context(user, end);
    const char **parts;
    size_t *lens, at = 0;
    int tracks;
    (void)number;
    if (!c) return HOTSET_TIER2_REFUSED;
    reply = ask(c, end, "CLIENT ID");
    if (reply && reply->type == REDIS_REPLY_INTEGER) snprintf(id, sizeof id, "%lld", reply->integer);
    if (reply) freeReplyObject(reply);
    parts = calloc(6 + 2 * count, sizeof *parts), lens = calloc(6 + 2 * count, sizeof *lens);
    if (parts && lens) {
        const char *first[] = {"CLIENT", "TRACKING", "ON", "REDIRECT", id, "BCAST"};
        for (; at < 6; at++) parts[at] = first[at], lens[at] = strlen(first[at]);
        for (size_t i = 0; i < count; i++) {
            parts[at] = "PREFIX", lens[at++] = 6;
            parts[at] = prefixes[i].data, lens[at++] = prefixes[i].len;
        }
        redisAppendCommandArgv(c, (int)at, parts, lens);
    }
    free(parts), free(lens);
    reply = at && flush(c, end) == 0 ? next_reply(c, end) : NULL;
    tracks = reply && reply->type == REDIS_REPLY_STATUS;
    if (reply) freeReplyObject(reply);
    reply = tracks ? ask(c, end, "SUBSCRIBE __redis__:invalidate") : NULL;
    if (!reply || reply->type != REDIS_REPLY_ARRAY) tracks = 0;
    if (reply) freeReplyObject(reply);
    if (!tracks) {
        redisFree(c);
        return HOTSET_TIER2_OTHER;
    }
    *bus = c;
    return HOTSET_TIER2_OK;
}

static hotset_tier2_failure redis_bus_next(void *user, void *bus, uint64_t timeout_ms, hotset_tier2_message *message) {
    redisContext *c = bus;
    redisReply *reply = next_reply(c, now_ms() + timeout_ms);
    hotset_tier2_failure failure = HOTSET_TIER2_OK;
    (void)user;
    if (!reply) return c->err ? HOTSET_TIER2_REFUSED : HOTSET_TIER2_OK;
    /* Of a PING: "pong" and a text; of a message: "message", the channel, and the keys, or nil for
     * all of them. */
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 2 || reply->element[0]->type != REDIS_REPLY_STRING) failure = HOTSET_TIER2_OTHER;
    else if (!strcasecmp(reply->element[0]->str, "pong")) hotset_tier2_message_pong(message);
    else if (reply->elements == 3 && !strcmp(reply->element[0]->str, "message")) {
        redisReply *keys = reply->element[2];
        if (keys->type != REDIS_REPLY_ARRAY) hotset_tier2_message_flushed(message);
        else
            for (size_t i = 0; i < keys->elements; i++)
                if (keys->element[i]->type != REDIS_REPLY_STRING ||
                    hotset_tier2_message_changed(message, keys->element[i]->str, keys->element[i]->len) != HOTSET_OK)
                    failure = HOTSET_TIER2_OTHER; /* it would be lost otherwise */
    }
    freeReplyObject(reply);
    return failure;
}

static hotset_tier2_failure redis_bus_ping(void *user, void *bus, uint64_t timeout_ms) {
    redisContext *c = bus;
    (void)user;
    return redisAppendCommand(c, "PING") == REDIS_OK && flush(c, now_ms() + timeout_ms) == 0 ? HOTSET_TIER2_OK : HOTSET_TIER2_REFUSED;
}

/* ---- The address */

static int parse(server *s, const char *address) {
    const char *at = address, *sign, *colon, *slash;
    char port[8] = "6379";
    if (strncmp(at, "redis://", 8)) return -1;
    at += 8;
    if ((sign = strchr(at, '@'))) {
        if (!(colon = memchr(at, ':', (size_t)(sign - at)))) return -1;
        if (colon - at >= (long)sizeof s->user || sign - colon > (long)sizeof s->password) return -1;
        snprintf(s->user, sizeof s->user, "%.*s", (int)(colon - at), at);
        snprintf(s->password, sizeof s->password, "%.*s", (int)(sign - colon - 1), colon + 1);
        at = sign + 1;
    }
    slash = at + strcspn(at, "/");
    colon = memchr(at, ':', (size_t)(slash - at));
    if (colon) snprintf(port, sizeof port, "%.*s", (int)(slash - colon - 1), colon + 1);
    if ((size_t)((colon ? colon : slash) - at) >= sizeof s->host || at == (colon ? colon : slash)) return -1;
    snprintf(s->host, sizeof s->host, "%.*s", (int)((colon ? colon : slash) - at), at);
    s->port = atoi(port), s->db = *slash ? atoi(slash + 1) : 0;
    return s->port > 0 && s->port < 65536 && s->db >= 0 ? 0 : -1;
}

int tier2_redis(hotset_tier2 *tier2, const char *address) {
    server *s = calloc(1, sizeof *s);
    if (!s || parse(s, address) != 0) {
        free(s);
        return -1;
    }
    memset(tier2, 0, sizeof *tier2);
    tier2->size = sizeof *tier2;
    tier2->user = s;
    tier2->connect = redis_connect;
    tier2->execute = redis_execute;
    tier2->execute_many = redis_execute_many;
    tier2->ping = redis_ping;
    tier2->disconnect = redis_disconnect;
    tier2->subscribe = redis_subscribe;
    tier2->bus_next = redis_bus_next;
    tier2->bus_ping = redis_bus_ping;
    tier2->unsubscribe = redis_disconnect;
    tier2->release = free;
    return 0;
}
