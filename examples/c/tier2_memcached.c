/* See tier2_memcached.h.
 *
 * memcached has no scripts: to compare and replace, the item is read with its CAS number, and
 * stored under that number. A request that was given up may be executed late, by a server that was
 * stopped. So a PUT adds a placeholder first, and replaces what is then there: late, it finds
 * another number.
 */
#define _GNU_SOURCE
#include "tier2_memcached.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    SERVERS_MAX = 256,
    LINE_MAX_LEN = 2048,      /* of a reply */
    VALUE_MAX = 64 << 20,     /* what a reply may claim to have */
    ITEM_MAX = (1 << 20) - (2 << 10), /* a server's default is 1 MiB with the key and the frame */
    BATCH_MAX = 64,           /* commands in one packet */
    PACKET_MAX = 32 << 10,    /* bytes that end a packet: sockets' buffers hold them */
    ROUNDS = 8,               /* attempts to replace an item that others replace, too */
    HEAD = 24,                /* of a frame */
    STAMP = 4, STAMP_LEN = 16, SOFT_END = 24, VALUE_FRAME_MIN = 54,
    LEASE = 3,                /* the kind of a frame that is a placeholder */
    PLACEHOLDER_MS = 1500,
    MONTH = 30 * 24 * 3600,   /* seconds: more would be taken for a date */
};

typedef struct {
    char *name, *host, *port; /* a path: host is NULL, and name is the path */
} server;

typedef struct {
    uint32_t count;
    server servers[SERVERS_MAX];
    const char *names[SERVERS_MAX];
} servers;

typedef struct {
    int fd;
    bool broken;
    uint64_t server_ms, asked_ms; /* the server's clock, and this one's at that instant */
    char *in;                     /* received bytes: those from begin to end are not read yet */
    size_t begin, end, size;
} connection;

typedef struct {
    char *data;
    size_t len, size;
    bool failed;
} packet;

typedef struct {
    enum { DONE, PRESENT, ABSENT, NOT_STORED, NO_MEMORY, REFUSED, STRANGE } what;
    const char *data; /* valid until the next reply is read */
    size_t len;
    uint64_t cas;
    int64_t ttl;
} response;

/* A command in progress. */
typedef struct {
    const hotset_tier2_command *command;
    hotset_tier2_answer *answer;
    bool ended, conditional; /* conditional: `cas` was read, and is sent next */
    int rounds;
    uint64_t cas, expires;
    char *patched; /* the whole frame, with the new head: of EXPIRE and TOUCH */
    size_t patched_len;
} operation;

/* --- Time. */

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Returns the seconds until an item expires that must live for `px` milliseconds, or a date. */
static uint64_t expiration(const connection *c, uint64_t px) {
    /* An item of n seconds lives for more than n - 1. */
    uint64_t seconds = px / 1000 + (px % 1000 != 0) + 1;
    if (seconds <= MONTH) return seconds;
    seconds += (c->server_ms + now_ms() - c->asked_ms) / 1000;
    return seconds < INT32_MAX ? seconds : INT32_MAX;
}

/* --- Sockets. */

static bool wait_for(int fd, short events, uint64_t deadline) {
    for (;;) {
        uint64_t now = now_ms();
        if (now >= deadline) return false;
        struct pollfd waited = {.fd = fd, .events = events};
        uint64_t left = deadline - now < 60000 ? deadline - now : 60000;
        int ready = poll(&waited, 1, (int)left);
        if (ready > 0) return true;
        if (ready < 0 && errno != EINTR) return false;
    }
}

static bool send_all(connection *c, const char *data, size_t len, uint64_t deadline) {
    while (len > 0) {
        ssize_t sent = send(c->fd, data, len, MSG_NOSIGNAL);
        if (sent > 0) {
            data += sent;
            len -= (size_t)sent;
        } else if (sent < 0 && errno == EAGAIN) {
            if (!wait_for(c->fd, POLLOUT, deadline)) return false;
        } else if (sent == 0 || errno != EINTR) {
            return false;
        }
    }
    return true;
}

/* Receives more bytes: pointers into the buffer are void then. */
static bool receive(connection *c, uint64_t deadline) {
    if (c->begin > 0) {
        memmove(c->in, c->in + c->begin, c->end - c->begin);
        c->end -= c->begin;
        c->begin = 0;
    }
    if (c->end == c->size) {
        size_t size = c->size ? c->size * 2 : 16384;
        char *in = realloc(c->in, size);
        if (!in) return false;
        c->in = in;
        c->size = size;
    }
    for (;;) {
        ssize_t got = recv(c->fd, c->in + c->end, c->size - c->end, 0);
        if (got > 0) {
            c->end += (size_t)got;
            return true;
        }
        if (got == 0 || (errno != EINTR && errno != EAGAIN)) return false;
        if (errno == EAGAIN && !wait_for(c->fd, POLLIN, deadline)) return false;
    }
}

/* Reads a line: a string, until the next call that reads. NULL: the connection is of no use. */
static char *read_line(connection *c, uint64_t deadline) {
    for (;;) {
        size_t len = c->end - c->begin;
        char *begin = len ? c->in + c->begin : NULL;
        char *end = len ? memchr(begin, '\n', len) : NULL;
        if (end) {
            if (end == begin || end[-1] != '\r' || end - begin > LINE_MAX_LEN) return NULL;
            end[-1] = 0;
            c->begin += (size_t)(end - begin) + 1;
            return begin;
        }
        if (len > LINE_MAX_LEN || !receive(c, deadline)) return NULL;
    }
}

/* Reads the response to one command. False: the connection is of no further use. */
static bool read_response(connection *c, response *r, uint64_t deadline) {
    static const struct {
        const char *word;
        int what;
    } words[] = {{"HD", DONE}, {"EN", ABSENT}, {"NF", ABSENT}, {"NS", NOT_STORED}, {"EX", NOT_STORED}};
    *r = (response){.what = STRANGE, .ttl = -1};
    char *line = read_line(c, deadline);
    if (!line) return false;
    char *rest = NULL, *word = strtok_r(line, " ", &rest);
    if (!word) return false;
    if (!strcmp(word, "SERVER_ERROR")) {
        /* "object too large for cache" or "out of memory storing object" */
        if (strstr(rest, "too large") || strstr(rest, "memory")) r->what = NO_MEMORY;
        return true;
    }
    if (!strcmp(word, "CLIENT_ERROR")) {
        if (strstr(rest, "unauthenticated")) r->what = REFUSED;
        return true;
    }
    uint64_t len = 0;
    if (!strcmp(word, "VA")) {
        char *digits = strtok_r(NULL, " ", &rest), *end = digits;
        len = digits && *digits >= '0' && *digits <= '9' ? strtoull(digits, &end, 10) : UINT64_MAX;
        if (len > VALUE_MAX || *end) return false;
        r->what = PRESENT;
    } else {
        size_t i = 0;
        while (i < sizeof words / sizeof *words && strcmp(word, words[i].word)) i++;
        if (i == sizeof words / sizeof *words) return false; /* no reply of memcached */
        r->what = words[i].what;
    }
    while ((word = strtok_r(NULL, " ", &rest))) {
        if (*word == 'c') r->cas = strtoull(word + 1, NULL, 10);
        if (*word == 't') r->ttl = strtoll(word + 1, NULL, 10);
    }
    if (r->what != PRESENT) return true;
    while (c->end - c->begin < len + 2)
        if (!receive(c, deadline)) return false;
    r->data = c->in + c->begin;
    r->len = len;
    c->begin += len + 2;
    return !memcmp(r->data + len, "\r\n", 2);
}

/* --- Requests. */

static void append(packet *p, const void *data, size_t len) {
    if (p->failed || len == 0) return;
    if (len > p->size - p->len) {
        size_t size = p->len + len + 1024;
        char *grown = realloc(p->data, size);
        if (!grown) {
            p->failed = true;
            return;
        }
        p->data = grown;
        p->size = size;
    }
    memcpy(p->data + p->len, data, len);
    p->len += len;
}

static void request(packet *p, const char *command, hotset_slice key, const char *rest) {
    append(p, command, 3);
    append(p, key.data, key.len);
    append(p, rest, strlen(rest));
    append(p, "\r\n", 2);
}

/* An `ms`: with mode "ME" only if there is no item, with "C.." only if it has that number. */
static void store(packet *p, hotset_slice key, const void *value, size_t len, uint64_t expires, const char *mode) {
    char rest[96];
    snprintf(rest, sizeof rest, " %zu T%" PRIu64 " %s", len, expires, mode);
    request(p, "ms ", key, rest);
    append(p, value, len);
    append(p, "\r\n", 2);
}

/* Writes the requests of a command's next step; returns how many replies they have. */
static int write_requests(connection *c, operation *op, packet *p) {
    const hotset_tier2_command *command = op->command;
    const char *value = command->value.data;
    size_t len = command->value.len;
    if (op->conditional) {
        char mode[32];
        snprintf(mode, sizeof mode, "C%" PRIu64, op->cas);
        if (command->kind == HOTSET_TIER2_RELEASE) {
            char rest[40];
            snprintf(rest, sizeof rest, " %s", mode);
            request(p, "md ", command->key, rest);
        } else if (op->patched) {
            store(p, command->key, op->patched, op->patched_len, op->expires, mode);
        } else {
            store(p, command->key, value, len, expiration(c, command->px), mode);
        }
        return 1;
    }
    switch (command->kind) {
    case HOTSET_TIER2_GET:
        request(p, "mg ", command->key, " v");
        return 1;
    case HOTSET_TIER2_ACQUIRE:
        store(p, command->key, value, len, command->px ? expiration(c, command->px) : 0, "ME");
        request(p, "mg ", command->key, " v");
        return 2;
    case HOTSET_TIER2_CLAIM:
        store(p, command->claim, value, len, expiration(c, command->px), "ME");
        request(p, "mg ", command->key, " v");
        return 2;
    case HOTSET_TIER2_PUT: {
        char placeholder[HEAD] = {0};
        memcpy(placeholder, value, HEAD - 4);
        placeholder[3] = LEASE;
        store(p, command->key, placeholder, HEAD, expiration(c, PLACEHOLDER_MS), "ME");
        request(p, "mg ", command->key, " c");
        return 2;
    }
    case HOTSET_TIER2_BUMP:
        store(p, command->key, value, len, 0, "");
        return 1;
    case HOTSET_TIER2_SWAP:
    case HOTSET_TIER2_RELEASE:
    case HOTSET_TIER2_TOUCH:
    case HOTSET_TIER2_EXPIRE:
        if (op->rounds < ROUNDS) {
            request(p, "mg ", command->key, " v c t");
            return 1;
        } /* fall through */
    default: /* REMOVE, and an EXPIRE that ends in it */
        request(p, "md ", command->key, "");
        return 1;
    }
}

/* --- What the responses mean. */

static void fail(operation *op, hotset_tier2_failure failure) {
    hotset_tier2_answer_failure(op->answer, failure);
    op->ended = true;
}

static void answer_flag(operation *op, bool flag) {
    if (hotset_tier2_answer_flag(op->answer, flag) != HOTSET_OK) fail(op, HOTSET_TIER2_OTHER);
    op->ended = true;
}

static void answer_value(operation *op, const response *r) {
    hotset_status status = r && r->what == PRESENT ? hotset_tier2_answer_value(op->answer, r->data, r->len)
                                                   : hotset_tier2_answer_nothing(op->answer);
    if (status != HOTSET_OK) fail(op, HOTSET_TIER2_OTHER);
    op->ended = true;
}

static void try_again(operation *op) {
    op->conditional = false;
    if (++op->rounds < ROUNDS || op->command->kind == HOTSET_TIER2_EXPIRE) return;
    bool compares = op->command->kind != HOTSET_TIER2_PUT && op->command->kind != HOTSET_TIER2_ACQUIRE;
    if (compares) answer_flag(op, false);
    else fail(op, HOTSET_TIER2_OTHER);
}

/* An item was read: is it as expected? */
static void compare(operation *op, const response *r) {
    const hotset_tier2_command *command = op->command;
    bool expires = command->kind == HOTSET_TIER2_EXPIRE, patches = expires || command->kind == HOTSET_TIER2_TOUCH;
    size_t head = r->len < HEAD ? r->len : HEAD;
    bool is_value = r->len >= VALUE_FRAME_MIN && !memcmp(r->data, "\xf1h\x01\x01", 4);
    if (expires && !is_value) {
        op->rounds = ROUNDS; /* a lease, or what is no frame: removed */
        return;
    }
    if (!expires && (head != command->expected.len || (head && memcmp(r->data, command->expected.data, head)) || (patches && !is_value))) {
        answer_flag(op, false);
        return;
    }
    if (patches) {
        free(op->patched);
        op->patched_len = r->len;
        op->patched = malloc(r->len);
        if (!op->patched) {
            fail(op, HOTSET_TIER2_OTHER);
            return;
        }
        memcpy(op->patched, r->data, r->len);
        memcpy(op->patched + STAMP, command->value.data, STAMP_LEN);
        for (int i = 0; i < 8; i++) op->patched[SOFT_END + i] = (char)(command->soft_end >> (8 * i));
        if (expires) op->expires = r->ttl < 0 ? 0 : r->ttl == 0 ? 1 : r->ttl < MONTH ? (uint64_t)r->ttl : MONTH;
    }
    op->cas = r->cas;
    op->conditional = true;
}

/* Ends the command, or prepares its next step. `first` is the response to the `ms` before, if there
 * was one. */
static void take_responses(operation *op, const response *first, const response *last) {
    const response *both[] = {first, last};
    for (int i = 0; i < 2; i++) {
        if (both[i] && both[i]->what == NO_MEMORY) { fail(op, HOTSET_TIER2_OUT_OF_MEMORY); return; }
        if (both[i] && both[i]->what == REFUSED) { fail(op, HOTSET_TIER2_NO_PERMISSION); return; }
        if (both[i] && both[i]->what == STRANGE) { fail(op, HOTSET_TIER2_OTHER); return; }
    }
    if (op->conditional) {
        if (last->what == DONE) answer_flag(op, true);
        else try_again(op);
        return;
    }
    switch (op->command->kind) {
    case HOTSET_TIER2_GET:
        answer_value(op, last);
        return;
    case HOTSET_TIER2_ACQUIRE:
        if (first->what == DONE) answer_value(op, NULL);
        else if (last->what == PRESENT) answer_value(op, last);
        else try_again(op); /* removed in between */
        return;
    case HOTSET_TIER2_CLAIM:
        answer_value(op, last);
        if (hotset_tier2_answer_flag(op->answer, first->what == DONE) != HOTSET_OK) fail(op, HOTSET_TIER2_OTHER);
        return;
    case HOTSET_TIER2_PUT:
        if (last->what != DONE) { try_again(op); return; }
        op->cas = last->cas;
        op->conditional = true;
        break;
    case HOTSET_TIER2_SWAP:
    case HOTSET_TIER2_RELEASE:
    case HOTSET_TIER2_TOUCH:
    case HOTSET_TIER2_EXPIRE:
        if (op->rounds < ROUNDS) {
            if (last->what == PRESENT) compare(op, last);
            else answer_flag(op, op->command->kind == HOTSET_TIER2_EXPIRE);
            break;
        } /* fall through */
    default: /* BUMP, REMOVE */
        answer_flag(op, true);
        return;
    }
    /* Without numbers (memcached -C), a comparison would not be one. */
    if (op->conditional && op->cas == 0) fail(op, HOTSET_TIER2_NO_PERMISSION);
}

/* --- Batches. */

static bool has_key(const operation *op, hotset_slice key) {
    const hotset_slice *keys[] = {&op->command->key, &op->command->claim};
    for (int i = 0; i < 2; i++)
        if (key.len && keys[i]->len == key.len && !memcmp(keys[i]->data, key.data, key.len)) return true;
    return false;
}

/* Executes commands with different keys. */
static void execute_batch(connection *c, operation *ops, size_t count, uint64_t deadline) {
    packet p = {0};
    bool any = true;
    while (any && !c->broken) {
        int replies[BATCH_MAX] = {0};
        any = false;
        p.len = 0;
        for (size_t i = 0; i < count; i++) {
            if (ops[i].ended) continue;
            if (ops[i].command->kind == HOTSET_TIER2_TOUCH) ops[i].expires = expiration(c, ops[i].command->px);
            replies[i] = write_requests(c, &ops[i], &p);
            any = true;
        }
        if (p.failed || (p.len && !send_all(c, p.data, p.len, deadline))) c->broken = true;
        for (size_t i = 0; i < count && !c->broken; i++) {
            response first, last;
            if (replies[i] == 0) continue;
            if ((replies[i] == 2 && !read_response(c, &first, deadline)) || !read_response(c, &last, deadline)) c->broken = true;
            else take_responses(&ops[i], replies[i] == 2 ? &first : NULL, &last);
        }
    }
    for (size_t i = 0; i < count; i++) free(ops[i].patched);
    free(p.data);
}

static hotset_tier2_failure execute_many(void *user, void *to, const hotset_tier2_command *const *commands, size_t count,
                                         uint64_t timeout_ms, hotset_tier2_answer *const *answers) {
    (void)user;
    connection *c = to;
    uint64_t deadline = now_ms() + timeout_ms;
    if (c->broken) return HOTSET_TIER2_REFUSED;
    for (size_t at = 0; at < count;) {
        operation ops[BATCH_MAX];
        size_t n = 0, bytes = 0;
        /* Some commands take several requests, so no two of one key are in one batch. */
        for (; n < BATCH_MAX && at < count && bytes < PACKET_MAX; at++, n++) {
            const hotset_tier2_command *command = commands[at];
            bool shared = false;
            for (size_t i = 0; i < n && !shared; i++) shared = has_key(&ops[i], command->key) || has_key(&ops[i], command->claim);
            if (shared) break;
            ops[n] = (operation){.command = command, .answer = answers[at]};
            bytes += command->key.len + command->value.len + 64;
            bool known = command->kind >= HOTSET_TIER2_GET && command->kind <= HOTSET_TIER2_CLAIM;
            bool whole = command->kind != HOTSET_TIER2_PUT || command->value.len >= HEAD;
            bool stamped = (command->kind != HOTSET_TIER2_EXPIRE && command->kind != HOTSET_TIER2_TOUCH) || command->value.len == STAMP_LEN;
            /* FENCE and CANARY: it announces nothing, and ends no connections. */
            if (!known || !whole || !stamped) fail(&ops[n], HOTSET_TIER2_OTHER);
        }
        if (c->broken)
            for (size_t i = 0; i < n; i++) fail(&ops[i], HOTSET_TIER2_NOT_SENT);
        else
            execute_batch(c, ops, n, deadline);
    }
    if (c->begin != c->end) c->broken = true; /* more than was requested */
    return c->broken ? HOTSET_TIER2_TIMEOUT : HOTSET_TIER2_OK;
}

static hotset_tier2_failure execute(void *user, void *to, const hotset_tier2_command *command, uint64_t timeout_ms,
                                    hotset_tier2_answer *answer) {
    return execute_many(user, to, &command, 1, timeout_ms, &answer);
}

/* --- Connections. */

static void disconnect_from(void *user, void *to) {
    (void)user;
    connection *c = to;
    if (!c) return;
    if (c->fd >= 0) close(c->fd);
    free(c->in);
    free(c);
}

static bool connect_socket(connection *c, const struct sockaddr *address, socklen_t len, int family, uint64_t deadline) {
    c->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0) return false;
    int error = 0, yes = 1;
    socklen_t size = sizeof error;
    if (family != AF_UNIX) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(c->fd, address, len) == 0) return true;
    if (errno == EINPROGRESS && wait_for(c->fd, POLLOUT, deadline) &&
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0)
        return true;
    close(c->fd);
    c->fd = -1;
    return false;
}

static bool connect_server(connection *c, const server *s, uint64_t deadline) {
    if (!s->host) {
        struct sockaddr_un path = {.sun_family = AF_UNIX};
        memcpy(path.sun_path, s->name, strlen(s->name)); /* its length was checked */
        return connect_socket(c, (struct sockaddr *)&path, sizeof path, AF_UNIX, deadline);
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all = NULL;
    if (getaddrinfo(s->host, s->port, &hints, &all) != 0) return false; /* not bound by the deadline */
    for (struct addrinfo *one = all; one && c->fd < 0; one = one->ai_next)
        connect_socket(c, one->ai_addr, one->ai_addrlen, one->ai_family, deadline);
    freeaddrinfo(all);
    return c->fd >= 0;
}

/* Requests the server's identity: its process and its start. And its clock. */
static bool greet(connection *c, hotset_tier2_greeting *greeting, uint64_t deadline) {
    static const char question[] = "version\r\nstats\r\n";
    c->asked_ms = now_ms();
    if (!send_all(c, question, sizeof question - 1, deadline)) return false;
    unsigned major, minor, patch;
    char *line = read_line(c, deadline);
    if (!line || sscanf(line, "VERSION %u.%u.%u", &major, &minor, &patch) != 3) return false;
    if (major < 1 || (major == 1 && (minor < 6 || (minor == 6 && patch < 13)))) return false; /* no meta commands */
    uint64_t pid = 0, uptime = 0, seconds = 0;
    while ((line = read_line(c, deadline)) && strcmp(line, "END")) {
        if (strncmp(line, "STAT ", 5)) return false;
        sscanf(line, "STAT pid %" SCNu64, &pid);
        sscanf(line, "STAT uptime %" SCNu64, &uptime);
        sscanf(line, "STAT time %" SCNu64, &seconds);
    }
    if (!line || seconds == 0 || seconds > INT32_MAX) return false;
    c->server_ms = seconds * 1000;
    char identity[64];
    int len = snprintf(identity, sizeof identity, "%" PRIu64 "/%" PRIu64, pid, seconds - uptime);
    return c->begin == c->end && hotset_tier2_greet(greeting, identity, (size_t)len, c->server_ms, 0, 0) == HOTSET_OK;
}

static hotset_tier2_failure connect_to(void *user, uint32_t number, uint64_t timeout_ms, hotset_tier2_greeting *greeting, void **to) {
    const servers *all = user;
    uint64_t deadline = now_ms() + timeout_ms;
    connection *c = calloc(1, sizeof *c);
    if (!c) return HOTSET_TIER2_NOT_SENT;
    c->fd = -1;
    if (!connect_server(c, &all->servers[number], deadline) || !greet(c, greeting, deadline)) {
        disconnect_from(user, c);
        return HOTSET_TIER2_REFUSED;
    }
    *to = c;
    return HOTSET_TIER2_OK;
}

static hotset_tier2_failure ping_server(void *user, void *to, uint64_t timeout_ms) {
    (void)user;
    connection *c = to;
    uint64_t deadline = now_ms() + timeout_ms;
    char *line = !c->broken && send_all(c, "mn\r\n", 4, deadline) ? read_line(c, deadline) : NULL;
    c->broken = !line || strcmp(line, "MN") || c->begin != c->end;
    return c->broken ? HOTSET_TIER2_REFUSED : HOTSET_TIER2_OK;
}

/* --- Servers. */

static void release_servers(void *user) {
    servers *all = user;
    for (uint32_t i = 0; i < all->count; i++) {
        free(all->servers[i].name);
        free(all->servers[i].host);
        free(all->servers[i].port);
    }
    free(all);
}

/* Reads an address: `host`, `host:port`, `[::1]:port`, `/path` or `unix:/path`. */
static bool read_server(server *s, const char *text, size_t len) {
    if (len > 5 && !strncmp(text, "unix:", 5)) text += 5, len -= 5;
    if (len > 0 && *text == '/') {
        if (len >= sizeof((struct sockaddr_un *)0)->sun_path) return false;
        s->name = strndup(text, len);
        return s->name != NULL;
    }
    const char *end = text + len, *host = text, *host_end;
    if (len > 0 && *text == '[') {
        host_end = memchr(++host, ']', len - 1);
        text = host_end ? host_end + 1 : end;
    } else {
        host_end = memchr(host, ':', len);
        if (!host_end) host_end = end;
        text = host_end;
    }
    const char *port = "11211";
    size_t port_len = 5;
    if (text < end && *text == ':') {
        port = text + 1;
        port_len = (size_t)(end - port);
        text = end;
    }
    long number = port_len > 0 && port_len <= 5 ? strtol(port, NULL, 10) : 0;
    if (!host_end || host_end == host || text != end || strspn(port, "0123456789") < port_len || number < 1 || number > 65535) return false;
    s->host = strndup(host, (size_t)(host_end - host));
    s->port = strndup(port, port_len);
    return s->host && s->port && asprintf(&s->name, "%s:%ld", s->host, number) > 0;
}

int tier2_memcached(hotset_tier2 *tier2, const char *addresses) {
    servers *all = calloc(1, sizeof *all);
    if (!all) return -1;
    if (!strncmp(addresses, "memcached://", 12)) addresses += 12;
    for (;;) {
        size_t len = strcspn(addresses, ",");
        errno = 0;
        bool read = all->count < SERVERS_MAX && read_server(&all->servers[all->count], addresses, len);
        all->count += all->count < SERVERS_MAX;
        if (!read) {
            int error = errno == ENOMEM ? ENOMEM : EINVAL;
            release_servers(all);
            errno = error;
            return -1;
        }
        all->names[all->count - 1] = all->servers[all->count - 1].name;
        if (addresses[len] == 0) break;
        addresses += len + 1;
    }
    *tier2 = (hotset_tier2){
        .size = sizeof *tier2,
        .user = all,
        .server_names = all->names,
        .server_count = all->count,
        .longest_key = 250,
        .clock_resolution_ms = 1000,
        .max_value = ITEM_MAX,
        .connect = connect_to,
        .execute = execute,
        .execute_many = execute_many,
        .ping = ping_server,
        .disconnect = disconnect_from,
        .release = release_servers,
    };
    return 0;
}
