/* Caches with a second tier: all calls, callbacks that misbehave, a fork. */
#include "memory_tier2.h"
#include <sys/wait.h>

#define MINE ((hotset_status)1234)

static hotset_tiered_options named(void) {
    hotset_tiered_options options;
    OK(hotset_tiered_options_init(&options, sizeof options));
    options.prefix = "shop", options.name = "prices";
    options.keys = HOTSET_KEYS_TEXT;
    options.max_entries = 100;
    return options;
}

static hotset_tiered *open_with(memory *m, const hotset_tiered_options *options) {
    hotset_tier2 tier2 = tier2_of(m);
    hotset_tiered *tiered;
    OK(hotset_tiered_open(&tier2, options, &tiered));
    return tiered;
}

static hotset_tiered *open_one(memory *m) {
    hotset_tiered_options options = named();
    return open_with(m, &options);
}

static hotset_tiered_state state_of(hotset_tiered *tiered) {
    hotset_tiered_state state;
    OK(hotset_tiered_stats(tiered, &state, NULL, NULL));
    return state;
}

static void until_armed(hotset_tiered *tiered) {
    while (strcmp(state_of(tiered).bus, "armed")) usleep(1000);
}

static void until_confirmed(hotset_tiered *tiered) {
    while (state_of(tiered).unconfirmed) usleep(1000);
}

static int found(hotset_tiered *tiered, const char *key, const char *text) {
    hotset_value *value;
    return hotset_tiered_get(tiered, key, strlen(key), &value) == HOTSET_OK && holds(value, text);
}

static int missing(hotset_tiered *tiered, const char *key) {
    hotset_value *value;
    hotset_status status = hotset_tiered_get(tiered, key, strlen(key), &value);
    if (status == HOTSET_OK) OK(hotset_release(value));
    return status == HOTSET_NOT_FOUND;
}

typedef struct {
    const char *value; /* NULL: none */
    hotset_status status;
    int calls;
    hotset_tiered *within; /* requested in the loader */
} source;

static hotset_status load(void *arg, const void *key, size_t key_len, hotset_reply *reply) {
    source *s = arg;
    hotset_value *value;
    __atomic_fetch_add(&s->calls, 1, __ATOMIC_SEQ_CST);
    if (s->within) {
        IS(HOTSET_REENTRANT, hotset_tiered_get_or_load(s->within, key, key_len, NULL, 0, load, s, &value));
        IS(HOTSET_REENTRANT, hotset_tiered_close(s->within));
    }
    if (s->value) OK(hotset_reply_set(reply, s->value, strlen(s->value), HOTSET_TTL_DEFAULT));
    return s->status;
}

static hotset_status load_text(hotset_tiered *tiered, const char *key, const char *text) {
    source s = {text, HOTSET_OK, 0, NULL};
    hotset_value *value;
    hotset_status status = hotset_tiered_get_or_load(tiered, key, strlen(key), NULL, 0, load, &s, &value);
    if (status == HOTSET_OK) OK(hotset_release(value));
    return status;
}

static hotset_status put(hotset_tiered *tiered, const char *key, const char *text) {
    return hotset_tiered_put(tiered, key, strlen(key), text, strlen(text), HOTSET_TTL_DEFAULT, NULL, 0);
}

static void every_call(void) {
    memory *m = new_memory();
    hotset_tiered *one = open_one(m), *other = open_one(m);
    hotset_value *value, *values[4];
    hotset_slice keys[4] = {{S("tea")}, {S("none")}, {S("milk")}, {S("tea")}};
    const char *tags[] = {"menu", "hot drinks"};
    char name[300];
    size_t len;
    source s = {"5", HOTSET_OK, 0, NULL};
    until_armed(one), until_armed(other);

    CHECK(missing(one, "tea"));
    OK(put(one, "tea", "3"));
    CHECK(found(one, "tea", "3") && found(other, "tea", "3"));
    OK(put(other, "tea", "4"));
    while (!found(one, "tea", "4")) usleep(1000);
    OK(hotset_tiered_invalidate(one, S("tea")));
    CHECK(missing(one, "tea"));
    while (!missing(other, "tea")) usleep(1000);

    OK(hotset_tiered_get_or_load(one, S("tea"), tags, 2, load, &s, &value));
    CHECK(holds(value, "5") && s.calls == 1);
    OK(hotset_tiered_get_or_load(other, S("tea"), NULL, 0, load, &s, &value));
    CHECK(holds(value, "5") && s.calls == 1);
    OK(hotset_tiered_put(one, S("milk"), S("1"), 60000, tags, 1));
    OK(hotset_tiered_touch(other, S("milk"), 120000));
    IS(HOTSET_NOT_FOUND, hotset_tiered_touch(other, S("none"), 1000));

    OK(hotset_tiered_get_many(other, keys, 4, values, &len));
    CHECK(len == 3 && values[1] == NULL);
    CHECK(holds(values[0], "5") && holds(values[2], "1") && holds(values[3], "5"));
    CHECK(m->packets > 0);
    OK(hotset_tiered_get_many(other, NULL, 0, NULL, NULL));

    OK(hotset_tiered_expire(one, S("milk")));
    s.value = "6";
    OK(hotset_tiered_get_or_load(one, S("milk"), NULL, 0, load, &s, &value));
    CHECK(holds(value, "6"));
    OK(put(one, "bill", "9"));
    OK(hotset_tiered_invalidate_tag(one, "hot drinks"));
    CHECK(missing(one, "tea") && found(one, "bill", "9"));
    OK(hotset_tiered_clear(one));
    CHECK(missing(one, "bill"));
    while (!missing(other, "bill")) usleep(1000);

    OK(hotset_tiered_name(one, S("a b"), name, sizeof name, &len));
    CHECK(len == strlen(name) && strstr(name, ":prices:[\"a%20b\"]") && !strncmp(name, "shop:1", 6));
    IS(HOTSET_BUFFER_TOO_SMALL, hotset_tiered_name(one, S("a b"), name, len, &len));
    OK(hotset_tiered_close(one));
    IS(HOTSET_CLOSED, hotset_tiered_close(one));
    IS(HOTSET_CLOSED, hotset_tiered_get(one, S("tea"), &value));
    OK(hotset_tiered_close(other));
    CHECK(m->released == 2);
    free_memory(m);
}

typedef struct {
    int count, canaries, armed;
} counters;

static void count(void *arg, const char *name, uint64_t number) {
    counters *c = arg;
    c->count++;
    if (!strcmp(name, "server_canaries")) c->canaries = (int)number;
    if (!strncmp(name, "tier1_", 6)) c->armed++;
}

static void statistics(void) {
    memory *m = new_memory();
    hotset_tiered *one = open_one(m);
    hotset_tiered_state state;
    counters c = {0, 0, 0};
    until_armed(one);
    OK(put(one, "tea", "3"));
    OK(hotset_tiered_stats(one, &state, count, &c));
    CHECK(c.count > 20 && c.canaries > 0 && c.armed == 6);
    CHECK(!strcmp(state.link, "up") && state.unconfirmed == 0);
    IS(HOTSET_INVALID, hotset_tiered_stats(one, NULL, count, &c));
    OK(hotset_tiered_close(one));
    free_memory(m);
}

/* Changes that the program announces itself, where the server does not. */
static void events(void) {
    memory *m = new_memory();
    hotset_tiered_options options = named();
    hotset_tier2 tier2 = tier2_of(m);
    hotset_tiered *one, *other;
    char name[300];
    size_t len;
    tier2.subscribe = NULL;
    OK(hotset_tiered_open(&tier2, &options, &one));
    OK(hotset_tiered_open(&tier2, &options, &other));
    OK(put(one, "tea", "3"));
    CHECK(found(other, "tea", "3"));
    OK(put(one, "tea", "4"));
    CHECK(found(other, "tea", "3")); /* it has not been informed */
    OK(hotset_tiered_name(one, S("tea"), name, sizeof name, &len));
    OK(hotset_tiered_event(other, name, len));
    CHECK(found(other, "tea", "4"));
    OK(put(one, "tea", "5"));
    OK(hotset_tiered_event(other, "unknown", 7));
    OK(hotset_tiered_event(other, "!hotset:shop:0123456789abcdef:1", 31));
    CHECK(found(other, "tea", "4"));
    OK(hotset_tiered_event(other, NULL, 0));
    CHECK(found(other, "tea", "5"));
    CHECK(!strcmp(state_of(one).bus, "none"));
    OK(hotset_tiered_close(one));
    OK(hotset_tiered_close(other));
    free_memory(m);
}

static void loaders(void) {
    memory *m = new_memory();
    hotset_tiered *one = open_one(m), *other = open_one(m);
    hotset_value *value;
    source s = {NULL, HOTSET_OK, 0, NULL};
    IS(HOTSET_NOT_FOUND, hotset_tiered_get_or_load(one, S("tea"), NULL, 0, load, &s, &value));
    CHECK(value == NULL);
    s.value = "3", s.status = MINE;
    IS(MINE, hotset_tiered_get_or_load(one, S("tea"), NULL, 0, load, &s, &value));
    s.status = HOTSET_OK, s.within = one;
    OK(hotset_tiered_get_or_load(one, S("tea"), NULL, 0, load, &s, &value));
    CHECK(holds(value, "3") && found(other, "tea", "3"));
    IS(HOTSET_INVALID, hotset_tiered_get_or_load(one, S("tea"), NULL, 0, NULL, &s, &value));
    OK(hotset_tiered_close(one));
    OK(hotset_tiered_close(other));
    free_memory(m);
}

static void *load_cold(void *arg) {
    void **args = arg;
    hotset_value *value;
    OK(hotset_tiered_get_or_load(args[0], S("cold"), NULL, 0, load, args[1], &value));
    CHECK(holds(value, "1"));
    return NULL;
}

static void herd(void) {
    memory *m = new_memory();
    hotset_tiered *caches[4];
    source s = {"1", HOTSET_OK, 0, NULL};
    pthread_t threads[16];
    void *args[16][2];
    for (int i = 0; i < 4; i++) caches[i] = open_one(m);
    for (int i = 0; i < 16; i++) {
        args[i][0] = caches[i % 4], args[i][1] = &s;
        CHECK(pthread_create(&threads[i], NULL, load_cold, args[i]) == 0);
    }
    for (int i = 0; i < 16; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(s.calls == 1);
    for (int i = 0; i < 4; i++) OK(hotset_tiered_close(caches[i]));
    free_memory(m);
}

static void outages(void) {
    memory *m = new_memory();
    hotset_tiered *one = open_one(m), *other = open_one(m);
    OK(put(one, "tea", "old"));
    m->down = 1;
    IS(HOTSET_UNCONFIRMED, hotset_tiered_invalidate(one, S("tea")));
    CHECK(missing(one, "tea"));
    IS(HOTSET_UNCONFIRMED, put(one, "milk", "1"));
    OK(load_text(one, "coffee", "4"));
    IS(HOTSET_UNCONFIRMED, hotset_tiered_expire(one, S("tea")));
    IS(HOTSET_UNCONFIRMED, hotset_tiered_clear(one));
    IS(HOTSET_UNCONFIRMED, hotset_tiered_invalidate_tag(one, "menu"));
    CHECK(state_of(one).unconfirmed > 0);
    while (strcmp(state_of(one).link, "down")) usleep(1000);
    m->down = 0;
    until_confirmed(one);
    while (!missing(other, "tea")) usleep(1000);
    OK(load_text(one, "tea", "new"));
    while (!found(other, "tea", "new")) usleep(1000); /* which may have noticed the outage, too */
    m->unanswered = 1;
    IS(HOTSET_UNCONFIRMED, put(one, "tea", "perhaps"));
    OK(hotset_tiered_close(one)); /* replays it */
    while (!missing(other, "tea")) usleep(1000);
    OK(hotset_tiered_close(other));
    free_memory(m);
}

/* Whatever a callback does, a call ends with a status, and a value that is stored is right. */
static void misbehavior_of(misbehavior how) {
    memory *m = new_memory();
    hotset_tiered *one, *other;
    hotset_value *value;
    hotset_slice keys[2] = {{S("tea")}, {S("milk")}};
    hotset_value *values[2];
    m->how = how;
    one = open_one(m), other = open_one(m);
    for (int round = 0; round < 3; round++) {
        hotset_status status = put(one, "tea", "3");
        CHECK(status == HOTSET_OK || status == HOTSET_UNCONFIRMED);
        CHECK(how != TWO_ANSWERS || status == HOTSET_OK);
        status = hotset_tiered_get(one, S("tea"), &value);
        CHECK(status == HOTSET_NOT_FOUND || (status == HOTSET_OK && holds(value, "3")));
        OK(load_text(other, "milk", "1"));
        OK(hotset_tiered_get_many(one, keys, 2, values, NULL));
        for (int i = 0; i < 2; i++)
            if (values[i]) OK(hotset_release(values[i]));
        status = hotset_tiered_invalidate(other, S("tea"));
        CHECK(status == HOTSET_OK || status == HOTSET_UNCONFIRMED);
        CHECK(missing(other, "tea"));
    }
    usleep(how == BUS_BREAKS || how == BUS_SPINS ? 200000 : 1000);
    m->how = WELL;
    while (put(one, "tea", "4") != HOTSET_OK) usleep(1000);
    until_confirmed(one), until_confirmed(other);
    until_armed(one), until_armed(other);
    OK(put(one, "tea", "4")); /* the other's removal may have been repeated behind the first one */
    while (!found(other, "tea", "4")) usleep(1000);
    OK(hotset_tiered_close(one));
    OK(hotset_tiered_close(other));
    free_memory(m);
}

static void calls_from_callbacks(void) {
    memory *m = new_memory();
    hotset_tiered *one = open_one(m);
    until_armed(one);
    m->within = one;
    OK(put(one, "tea", "3"));
    CHECK(found(one, "tea", "3"));
    OK(hotset_tiered_close(one));
    free_memory(m);
}

static void keys(void) {
    memory *m = new_memory();
    hotset_tiered_options options = named();
    hotset_tiered *bytes, *text, *written;
    hotset_value *value;
    options.keys = HOTSET_KEYS_BYTES;
    bytes = open_with(m, &options);
    options.keys = HOTSET_KEYS_WRITTEN;
    written = open_with(m, &options);
    text = open_one(m);
    OK(hotset_tiered_put(bytes, S("t\xff\0a"), S("1"), HOTSET_TTL_NONE, NULL, 0));
    CHECK(found(written, "b\"t%FF%00a\"", "1"));
    OK(put(text, "caf\xc3\xa9", "2"));
    CHECK(found(written, "\"caf%C3%A9\"", "2"));
    OK(put(written, "(\"tea\",7)", "3"));
    CHECK(missing(text, "(\"tea\",7)"));
    IS(HOTSET_INVALID, put(text, "caf\xff", "2"));
    IS(HOTSET_INVALID, put(written, "a b", "2"));
    IS(HOTSET_INVALID, put(written, "", "2"));
    IS(HOTSET_INVALID, hotset_tiered_get(text, NULL, 1, &value));
    OK(hotset_tiered_put(bytes, NULL, 0, NULL, 0, HOTSET_TTL_DEFAULT, NULL, 0));
    OK(hotset_tiered_get(bytes, NULL, 0, &value));
    CHECK(holds(value, ""));
    OK(hotset_tiered_close(bytes));
    OK(hotset_tiered_close(text));
    OK(hotset_tiered_close(written));
    free_memory(m);
}

static hotset_status refused(const hotset_tier2 *tier2, const hotset_tiered_options *options) {
    hotset_tiered *tiered = (hotset_tiered *)1;
    hotset_status status = hotset_tiered_open(tier2, options, &tiered);
    CHECK(tiered == NULL);
    return status;
}

static void invalid_arguments(void) {
    memory *m = new_memory();
    hotset_tier2 tier2 = tier2_of(m);
    hotset_tiered_options options = named();
    hotset_tiered *one;
    hotset_value *value;
    const char *long_tag[] = {"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
                              "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
                              "01234567890123456789012345678901234567890123456789012345"};
    const char *many_tags[17];
    const char *names[] = {"a", NULL};
    for (int i = 0; i < 17; i++) many_tags[i] = "t";
    IS(HOTSET_INVALID, refused(NULL, &options));
    IS(HOTSET_INVALID, refused(&tier2, NULL));
    IS(HOTSET_INVALID, hotset_tiered_open(&tier2, &options, NULL));
    IS(HOTSET_INVALID, hotset_tiered_options_init(NULL, sizeof options));
    IS(HOTSET_INVALID, hotset_tiered_options_init(&options, 8));
#define WITHOUT(member)                                                                                                \
    tier2 = tier2_of(m), tier2.member = NULL;                                                                          \
    IS(HOTSET_INVALID, refused(&tier2, &options))
    WITHOUT(connect);
    WITHOUT(execute);
    WITHOUT(ping);
    WITHOUT(disconnect);
    WITHOUT(bus_next);
    WITHOUT(bus_ping);
    WITHOUT(unsubscribe);
    tier2 = tier2_of(m), tier2.size = 0;
    IS(HOTSET_INVALID, refused(&tier2, &options));
    tier2.size = (size_t)-1;
    IS(HOTSET_INVALID, refused(&tier2, &options));
    tier2 = tier2_of(m), tier2.server_count = 2;
    IS(HOTSET_INVALID, refused(&tier2, &options));
    tier2.server_names = names;
    IS(HOTSET_INVALID, refused(&tier2, &options));
    tier2 = tier2_of(m);
#define WITH(member, bad)                                                                                              \
    options = named(), options.member = bad;                                                                           \
    IS(HOTSET_INVALID, refused(&tier2, &options))
    CHECK(m->released == 0);
    WITH(size, 1);
    WITH(prefix, NULL);
    WITH(prefix, "");
    WITH(name, NULL);
    WITH(name, "\xff");
    WITH(codec, "two words");
    WITH(keys, 3);
    WITH(no_bus, 2);
    WITH(max_bytes, 1000);
    WITH(timeout_ms, 60001);
    WITH(early_reload, -1);
    CHECK(m->released == 0 && m->connections == 0); /* it is still the caller's */
    options = named();
    one = open_with(m, &options);
    IS(HOTSET_INVALID, hotset_tiered_get(NULL, S("tea"), &value));
    IS(HOTSET_INVALID, hotset_tiered_get(one, S("tea"), NULL));
    IS(HOTSET_INVALID, hotset_tiered_put(one, S("tea"), NULL, 1, 0, NULL, 0));
    IS(HOTSET_INVALID, hotset_tiered_put(one, S("tea"), S("3"), HOTSET_TTL_KEEP, NULL, 0));
    IS(HOTSET_INVALID, hotset_tiered_put(one, S("tea"), S("3"), 0, long_tag, 1));
    IS(HOTSET_INVALID, hotset_tiered_put(one, S("tea"), S("3"), 0, many_tags, 17));
    IS(HOTSET_INVALID, hotset_tiered_put(one, S("tea"), S("3"), 0, NULL, 1));
    IS(HOTSET_INVALID, hotset_tiered_invalidate_tag(one, NULL));
    IS(HOTSET_INVALID, hotset_tiered_invalidate_tag(one, long_tag[0]));
    IS(HOTSET_INVALID, hotset_tiered_get_many(one, NULL, 1, &value, NULL));
    IS(HOTSET_INVALID, hotset_tier2_answer_value(NULL, S("v")));
    IS(HOTSET_INVALID, hotset_tier2_answer_nothing(NULL));
    IS(HOTSET_INVALID, hotset_tier2_answer_flag(NULL, 1));
    IS(HOTSET_INVALID, hotset_tier2_answer_failure(NULL, HOTSET_TIER2_OTHER));
    IS(HOTSET_INVALID, hotset_tier2_greet(NULL, "", 0, 0, 0, 0));
    IS(HOTSET_INVALID, hotset_tier2_message_changed(NULL, "", 0));
    IS(HOTSET_INVALID, hotset_tier2_message_flushed(NULL));
    IS(HOTSET_INVALID, hotset_tier2_message_pong(NULL));
    OK(hotset_tiered_close(one));
    free_memory(m);
}

static void in_a_child(void) {
    memory *m = new_memory();
    hotset_tiered *one = open_one(m);
    hotset_value *value, *inherited;
    int status;
    pid_t child;
    OK(put(one, "tea", "3"));
    OK(hotset_tiered_get(one, S("tea"), &inherited));
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        memory *own = new_memory();
        IS(HOTSET_FORKED, hotset_tiered_get(one, S("tea"), &value));
        IS(HOTSET_FORKED, put(one, "tea", "4"));
        IS(HOTSET_FORKED, hotset_tiered_close(one));
        CHECK(holds(inherited, "3"));
        one = open_one(own);
        OK(load_text(one, "tea", "5"));
        until_armed(one);
        OK(hotset_tiered_close(one));
        free_memory(own);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(holds(inherited, "3") && found(one, "tea", "3"));
    OK(hotset_tiered_close(one));
    free_memory(m);
}

int main(int argc, char **argv) {
    (void)argv;
    every_call();
    statistics();
    events();
    loaders();
    herd();
    outages();
    for (misbehavior how = NO_ANSWER; how <= BUS_SPINS; how++) misbehavior_of(how);
    calls_from_callbacks();
    keys();
    invalid_arguments();
    if (argc == 1) in_a_child();
    puts("tiered: ok");
    return 0;
}
