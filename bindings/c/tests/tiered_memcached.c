/* examples/c/tier2_memcached.c with real memcached servers, which this starts on free ports, and
 * with a server that answers nonsense: `make test-tiered-c-memcached`. */
#define _GNU_SOURCE
#include "../../../examples/c/tier2_memcached.h"
#include "check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SERVERS = 3, CHILDREN = 8 };

typedef struct {
    pid_t pid;
    int port;
} memcached;

static memcached nodes[SERVERS];
static char addresses[128];

static int listener(int *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 8) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void pause_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void start(memcached *node) {
    char port[16];
    snprintf(port, sizeof port, "%d", node->port);
    node->pid = fork();
    CHECK(node->pid >= 0);
    if (node->pid == 0) {
        execlp("memcached", "memcached", "-l", "127.0.0.1", "-p", port, "-U", "0", "-u", "nobody", (char *)NULL);
        _exit(127);
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)node->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int connected = connect(fd, (struct sockaddr *)&address, sizeof address);
        close(fd);
        if (connected == 0) return;
        CHECK(waitpid(node->pid, NULL, WNOHANG) == 0); /* `make tools-memcached` installs it */
        pause_ms(1);
    }
}

static void stop(memcached *node) {
    CHECK(kill(node->pid, SIGKILL) == 0 && waitpid(node->pid, NULL, 0) == node->pid);
}

/* Stops a server, and waits until its threads have stopped. */
static void suspend(memcached *node) {
    int status;
    CHECK(kill(node->pid, SIGSTOP) == 0 && waitpid(node->pid, &status, WUNTRACED) == node->pid && WIFSTOPPED(status));
}

static hotset_tiered_options usual(void) {
    hotset_tiered_options options;
    OK(hotset_tiered_options_init(&options, sizeof options));
    options.prefix = "shop";
    options.name = "pages";
    options.keys = HOTSET_KEYS_TEXT;
    options.ttl_ms = 600000;
    options.stale_while_revalidate_ms = 600000;
    /* 100 ms are too short on a busy machine. */
    options.timeout_ms = options.connect_timeout_ms = 2000;
    options.lease_ms = 20000;
    return options;
}

static hotset_tiered *cache_with(const char *servers, hotset_tiered_options options) {
    hotset_tier2 tier2;
    hotset_tiered *cache;
    CHECK(tier2_memcached(&tier2, servers) == 0);
    OK(hotset_tiered_open(&tier2, &options, &cache));
    return cache;
}

static hotset_tiered *cache_here(void) { return cache_with(addresses, usual()); }

static bool finds(hotset_tiered *cache, const char *key, const char *expected) {
    hotset_value *value;
    const void *data;
    size_t len;
    hotset_status status = hotset_tiered_get(cache, key, strlen(key), &value);
    if (status == HOTSET_NOT_FOUND) return expected == NULL;
    OK(status);
    OK(hotset_value_data(value, &data, &len));
    bool equal = expected && len == strlen(expected) && !memcmp(data, expected, len);
    OK(hotset_release(value));
    return equal;
}

typedef struct {
    const char *text;
    int loads;
    long ms;
} source;

static hotset_status load(void *arg, const void *key, size_t key_len, hotset_reply *reply) {
    source *from = arg;
    (void)key, (void)key_len;
    __atomic_fetch_add(&from->loads, 1, __ATOMIC_RELAXED);
    if (from->ms) pause_ms(from->ms);
    return hotset_reply_set(reply, from->text, strlen(from->text), HOTSET_TTL_DEFAULT);
}

static void load_is(hotset_tiered *cache, const char *key, const char *tag, source *from, const char *expected) {
    hotset_value *value;
    const void *data;
    size_t len;
    OK(hotset_tiered_get_or_load(cache, key, strlen(key), tag ? &tag : NULL, tag != NULL, load, from, &value));
    OK(hotset_value_data(value, &data, &len));
    CHECK(len == strlen(expected) && !memcmp(data, expected, len));
    OK(hotset_release(value));
}

static hotset_status put(hotset_tiered *cache, const char *key, const char *value) {
    return hotset_tiered_put(cache, key, strlen(key), value, strlen(value), HOTSET_TTL_DEFAULT, NULL, 0);
}

/* Another cache, as another process would have it, which has nothing in its first tier. */
static bool others_have(const char *key, const char *expected) {
    hotset_tiered *cache = cache_here();
    bool equal = finds(cache, key, expected);
    OK(hotset_tiered_close(cache));
    return equal;
}

static void values_are_shared(void) {
    hotset_tiered *cache = cache_here();
    source first = {"first", 0, 0}, second = {"second", 0, 0}, menu = {"menu", 0, 0};
    char key[64], long_key[301];
    memset(long_key, 'k', 300);
    long_key[300] = 0;

    CHECK(finds(cache, "tea", NULL));
    load_is(cache, "tea", NULL, &first, "first");
    CHECK(first.loads == 1 && others_have("tea", "first"));
    OK(put(cache, "tea", "set"));
    CHECK(finds(cache, "tea", "set") && others_have("tea", "set"));
    OK(put(cache, "tea", "")); /* an empty value */
    CHECK(finds(cache, "tea", "") && others_have("tea", ""));
    OK(hotset_tiered_invalidate(cache, S("tea")));
    CHECK(finds(cache, "tea", NULL) && others_have("tea", NULL));
    OK(hotset_tiered_invalidate(cache, S("tea")));
    load_is(cache, "tea", NULL, &second, "second");

    OK(hotset_tiered_touch(cache, S("tea"), 500000));
    CHECK(others_have("tea", "second"));
    IS(HOTSET_NOT_FOUND, hotset_tiered_touch(cache, S("nothing"), 500000));

    /* Expired: one caller loads, and has the new value everywhere. */
    OK(hotset_tiered_expire(cache, S("tea")));
    CHECK(others_have("tea", NULL));
    OK(hotset_tiered_expire(cache, S("nothing")));
    source third = {"third", 0, 0};
    load_is(cache, "tea", NULL, &third, "third");
    CHECK(third.loads == 1 && others_have("tea", "third"));

    OK(put(cache, long_key, "long"));
    CHECK(others_have(long_key, "long"));
    OK(put(cache, "gr\xc3\xbc\xc3\x9f {e}", "text"));
    CHECK(others_have("gr\xc3\xbc\xc3\x9f {e}", "text"));

    /* Too large for memcached: here alone. */
    char *large = calloc(1, 2 << 20);
    CHECK(large);
    memset(large, 'x', (2 << 20) - 1);
    put(cache, "large", large);
    CHECK(finds(cache, "large", large) && others_have("large", NULL));
    free(large);

    load_is(cache, "dinner", "menu", &menu, "menu");
    CHECK(others_have("dinner", "menu"));
    OK(hotset_tiered_invalidate_tag(cache, "menu"));
    CHECK(finds(cache, "dinner", NULL) && others_have("dinner", NULL) && others_have("tea", "third"));
    OK(hotset_tiered_clear(cache));
    CHECK(finds(cache, "tea", NULL) && others_have("tea", NULL));

    /* Many keys, over all servers and several packets. */
    enum { KEYS = 300 };
    static char texts[KEYS][16];
    hotset_slice keys[KEYS];
    hotset_value *values[KEYS];
    for (int i = 0; i < KEYS; i++) {
        keys[i] = (hotset_slice){texts[i], (size_t)snprintf(texts[i], sizeof texts[i], "key %d", i)};
        if (i % 3 == 0) OK(put(cache, texts[i], texts[i]));
    }
    OK(hotset_tiered_close(cache));
    cache = cache_here();
    size_t found;
    OK(hotset_tiered_get_many(cache, keys, KEYS, values, &found));
    CHECK(found == KEYS / 3);
    for (int i = 0; i < KEYS; i++) {
        CHECK((values[i] != NULL) == (i % 3 == 0));
        if (!values[i]) continue;
        const void *data;
        size_t len;
        OK(hotset_value_data(values[i], &data, &len));
        CHECK(len == keys[i].len && !memcmp(data, keys[i].data, len));
        OK(hotset_release(values[i]));
    }
    snprintf(key, sizeof key, "key 1");
    CHECK(finds(cache, key, NULL));
    OK(hotset_tiered_close(cache));
    puts("shared: ok");
}

/* Many processes, one load. (This one has no threads, so they may do anything.) */
static void herd_loads_once(void) {
    int go[2], done[2], total = 0;
    CHECK(pipe(go) == 0 && pipe(done) == 0);
    pid_t children[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0) {
            char byte;
            close(go[1]);
            hotset_tiered *cache = cache_here();
            CHECK(finds(cache, "cold", NULL)); /* connected */
            CHECK(write(done[1], "", 1) == 1 && read(go[0], &byte, 1) == 0);
            source from = {"once", 0, 200};
            load_is(cache, "cold", NULL, &from, "once");
            byte = (char)from.loads;
            CHECK(write(done[1], &byte, 1) == 1);
            OK(hotset_tiered_close(cache));
            _exit(0);
        }
    }
    char byte;
    for (int i = 0; i < CHILDREN; i++) CHECK(read(done[0], &byte, 1) == 1);
    close(go[0]);
    close(go[1]); /* all begin */
    for (int i = 0; i < CHILDREN; i++) {
        CHECK(read(done[0], &byte, 1) == 1);
        total += byte;
    }
    for (int i = 0; i < CHILDREN; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i] && status == 0);
    }
    close(done[0]);
    close(done[1]);
    if (total != 1) fprintf(stderr, "%d loads\n", total);
    CHECK(total == 1);
    printf("herd: ok, %d load in %d processes\n", total, CHILDREN);
}

static void servers_may_fail(void) {
    hotset_tiered *cache = cache_here();
    source from = {"loaded", 0, 0};
    OK(put(cache, "a", "before"));
    CHECK(finds(cache, "a", "before"));

    for (int i = 0; i < SERVERS; i++) stop(&nodes[i]);
    load_is(cache, "b", NULL, &from, "loaded");
    CHECK(from.loads == 1);
    IS(HOTSET_UNCONFIRMED, hotset_tiered_invalidate(cache, S("a")));
    CHECK(finds(cache, "a", NULL));
    for (int i = 0; i < SERVERS; i++) start(&nodes[i]);
    /* A removal that was not confirmed may be repeated behind a value that was. */
    while (hotset_tiered_invalidate(cache, S("a")) != HOTSET_OK || put(cache, "b", "after") != HOTSET_OK ||
           !finds(cache, "b", "after") || !others_have("b", "after"))
        pause_ms(5);

    /* A stopped server keeps its data: what was invalidated is gone once it continues. */
    OK(put(cache, "a", "old"));
    for (int i = 0; i < SERVERS; i++) suspend(&nodes[i]);
    IS(HOTSET_UNCONFIRMED, hotset_tiered_invalidate(cache, S("a")));
    source new = {"new", 0, 0};
    load_is(cache, "a", NULL, &new, "new");
    for (int i = 0; i < SERVERS; i++) CHECK(kill(nodes[i].pid, SIGCONT) == 0);
    hotset_tiered_state state = {.unconfirmed = 1};
    while (state.unconfirmed || strcmp(state.link, "up")) {
        OK(hotset_tiered_stats(cache, &state, NULL, NULL));
        pause_ms(5);
    }
    CHECK(!others_have("a", "old"));
    OK(hotset_tiered_close(cache));
    puts("failures: ok");
}

/* --- A server that answers nonsense. */

static const char *const nonsense[] = {
    "",
    "\r\n",
    "VERSION\r\n",
    "VERSION 1.6.18\r\nSTAT\r\nEND\r\n",
    "VERSION 1.5.0\r\nSTAT time 5\r\nEND\r\n",
    "VERSION 1.6.18\r\nSTAT time 99999999999999999999999\r\nEND\r\n",
    /* a greeting as it must be, and then: */
    "VERSION 1.6.18\r\nSTAT pid 1\r\nSTAT uptime 1\r\nSTAT time 5000\r\nEND\r\nVA 5\r\nhello\r\n",
    "*VA 99999999999\r\n",
    "*VA -1\r\n\r\n",
    "*VA\r\n",
    "*VA 5x\r\nhello\r\n",
    "*VA 3 c0\r\nabcde\r\n",
    "*VA 60000000\r\nshort",
    "*VA 9 c7 t-1\r\n\xf1h\x01\x01shor\r\n",
    "*HD\r\nHD\r\nHD\r\n",
    "*HD c0\r\nHD c0\r\n",
    "*EX\r\nNS\r\n",
    "*SERVER_ERROR out of memory storing object\r\n",
    "*CLIENT_ERROR unauthenticated\r\n",
    "*ERROR\r\n",
    "*     \r\n",
};

typedef struct {
    int fd;
    const char *says;
} liar;

static void *lie(void *arg) {
    liar *server = arg;
    static const char greeting[] = "VERSION 1.6.18\r\nSTAT pid 1\r\nSTAT uptime 1\r\nSTAT time 5000\r\nEND\r\n";
    int fd;
    while ((fd = accept(server->fd, NULL, NULL)) >= 0) {
        char in[4096];
        const char *says = server->says;
        bool greets = *says == '*';
        while (recv(fd, in, sizeof in, 0) > 0) {
            const char *answer = greets ? greeting : says + (*says == '*');
            greets = false;
            if (send(fd, answer, strlen(answer), MSG_NOSIGNAL) < 0) break;
        }
        close(fd);
    }
    return NULL;
}

static void nonsense_is_a_miss(void) {
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        int port;
        liar server = {listener(&port), nonsense[i]};
        char address[64];
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, lie, &server) == 0);
        snprintf(address, sizeof address, "127.0.0.1:%d", port);
        hotset_tiered_options options = usual();
        options.timeout_ms = options.connect_timeout_ms = 20;
        options.lease_wait_ms = 20;
        hotset_tiered *cache = cache_with(address, options);
        source from = {"loaded", 0, 0};
        CHECK(finds(cache, "tea", NULL));
        load_is(cache, "tea", NULL, &from, "loaded");
        put(cache, "tea", "set");
        hotset_tiered_expire(cache, S("tea"));
        hotset_tiered_touch(cache, S("tea"), 1000);
        hotset_tiered_invalidate(cache, S("tea"));
        hotset_tiered_clear(cache);
        OK(hotset_tiered_close(cache));
        shutdown(server.fd, SHUT_RDWR);
        pthread_join(thread, NULL);
        close(server.fd);
    }
    puts("nonsense: ok");
}

static void addresses_are_checked(void) {
    static const char *const wrong[] = {"", ":1", "a:", "a:0", "a:65536", "a:-1", "a:+1", "::1", "[::1", "a,,b", "a,", "[]:1", "[::1]1"};
    static const char *const right[][2] = {{"10.0.0.1:11212", "10.0.0.1:11212"}, {"cache.example", "cache.example:11211"},
                                           {"[::1]:11213", "::1:11213"}, {"unix:/run/memcached.sock", "/run/memcached.sock"},
                                           {"memcached://a", "a:11211"}};
    hotset_tier2 tier2;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) CHECK(tier2_memcached(&tier2, wrong[i]) == -1);
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        CHECK(tier2_memcached(&tier2, right[i][0]) == 0);
        CHECK(tier2.server_count == 1 && !strcmp(tier2.server_names[0], right[i][1]));
        tier2.release(tier2.user);
    }
    puts("addresses: ok");
}

static void stop_all(void) {
    for (int i = 0; i < SERVERS; i++)
        if (nodes[i].pid > 0) kill(nodes[i].pid, SIGKILL);
}

static void on_abort(int number) {
    stop_all();
    signal(number, SIG_DFL);
    raise(number);
}

int main(void) {
    addresses_are_checked();
    signal(SIGABRT, on_abort);
    for (int i = 0; i < SERVERS; i++) {
        close(listener(&nodes[i].port));
        start(&nodes[i]);
        snprintf(addresses + strlen(addresses), sizeof addresses - strlen(addresses), "%s127.0.0.1:%d", i ? "," : "", nodes[i].port);
    }
    herd_loads_once();
    values_are_shared();
    servers_may_fail();
    nonsense_is_a_miss();
    for (int i = 0; i < SERVERS; i++) stop(&nodes[i]);
    return 0;
}
