/* Snapshots: saved, loaded, refused. `snapshot write FILE` and `snapshot read FILE` exchange one
 * with another program. */
#include "check.h"
#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COUNT 1000

static char folder[] = "/tmp/hotset-snapshot-XXXXXX";

static const char *in_folder(const char *name) {
    static char paths[2][512];
    static int next;
    next = !next;
    snprintf(paths[next], sizeof paths[next], "%s/%s", folder, name);
    return paths[next];
}

static hotset_snapshot_options how(void) {
    hotset_snapshot_options options;
    OK(hotset_snapshot_options_init(&options, sizeof options));
    return options;
}

/* Key and value of a number: of all lengths, with bytes of all kinds. */
static size_t key_of(unsigned n, char *key) { return (size_t)sprintf(key, "key %u", n); }

static size_t value_of(unsigned n, unsigned char *value) {
    size_t len = n % 50, at;
    for (at = 0; at < len; at++) value[at] = (unsigned char)(n * 31 + at * 7);
    return len;
}

static hotset_cache *filled(void) {
    hotset_cache *cache = cache_of(2 * COUNT);
    char key[16];
    unsigned char value[50];
    unsigned n;
    for (n = 0; n < COUNT; n++) {
        size_t key_len = key_of(n, key);
        OK(hotset_put_ttl(cache, key, key_len, value, value_of(n, value), n % 3 ? HOTSET_TTL_DEFAULT : 3600000));
    }
    OK(hotset_put(cache, NULL, 0, S("of the empty key")));
    return cache;
}

static void holds_all(hotset_cache *cache) {
    char key[16];
    unsigned char value[50], copy[50];
    size_t len;
    unsigned n;
    for (n = 0; n < COUNT; n++) {
        OK(hotset_get_copy(cache, key, key_of(n, key), copy, sizeof copy, &len));
        CHECK(len == value_of(n, value) && memcmp(copy, value, len) == 0);
    }
    CHECK(has(cache, "", "of the empty key"));
    IS(HOTSET_NOT_FOUND, hotset_contains(cache, S("key")));
}

struct seen {
    hotset_cache *cache;
    uint64_t calls, done, total;
};

static void progress(void *arg, uint64_t done, uint64_t total) {
    struct seen *seen = arg;
    IS(HOTSET_REENTRANT, hotset_close(seen->cache));
    CHECK(has(seen->cache, "", "of the empty key"));
    CHECK(done >= seen->done && done <= total);
    seen->calls++, seen->done = done, seen->total = total;
}

static void saved_and_loaded(void) {
    hotset_snapshot_options options = how();
    hotset_cache *cache = filled();
    struct seen seen = {cache, 0, 0, 0};
    uint64_t entries, corrupt;
    options.schema = 7, options.progress = progress, options.progress_arg = &seen;
    OK(hotset_save(cache, in_folder("saved"), &options, &entries));
    CHECK(entries == COUNT + 1 && seen.calls > 0 && seen.done == entries && seen.total == entries);
    OK(hotset_close(cache));

    cache = cache_of(2 * COUNT);
    OK(hotset_load(cache, in_folder("saved"), &options, &entries));
    CHECK(entries == COUNT + 1);
    OK(hotset_len(cache, &entries));
    CHECK(entries == 0);
    holds_all(cache);
    OK(hotset_put(cache, S("key 1"), S("another")));
    OK(hotset_warm(cache, &entries, &corrupt));
    CHECK(entries == 0 && corrupt == 0);
    CHECK(has(cache, "key 1", "another"));
    OK(hotset_close(cache));

    /* All in one call; into a cache that counts bytes, and one that is too small. */
    options.eager = 1;
    OK(hotset_open(NULL, &cache));
    OK(hotset_load(cache, in_folder("saved"), &options, &entries));
    OK(hotset_len(cache, &entries));
    CHECK(entries == COUNT + 1);
    holds_all(cache);
    OK(hotset_close(cache));
    options.eager = 0;
    cache = cache_of(100);
    OK(hotset_load(cache, in_folder("saved"), &options, &entries));
    OK(hotset_warm(cache, &entries, &corrupt));
    CHECK(entries == 100 && corrupt == 0);
    OK(hotset_run_pending(cache));
    OK(hotset_len(cache, &entries));
    CHECK(entries == 100);
    OK(hotset_close(cache));
}

/* A handle that was read of a snapshot stays, whatever becomes of the file. */
static void handles_stay(void) {
    hotset_cache *cache = filled();
    hotset_value *value;
    uint64_t entries;
    OK(hotset_save(cache, in_folder("saved"), NULL, &entries));
    OK(hotset_close(cache));
    cache = cache_of(2 * COUNT);
    OK(hotset_load(cache, in_folder("saved"), NULL, &entries));
    OK(hotset_get(cache, NULL, 0, &value));
    CHECK(unlink(in_folder("saved")) == 0);
    OK(hotset_clear(cache));
    IS(HOTSET_NOT_FOUND, hotset_contains(cache, S("key 1")));
    OK(hotset_close(cache));
    CHECK(holds(value, "of the empty key"));
}

/* A copy outlives what is done to the file; and it is checked as a whole. */
static void copied(void) {
    hotset_snapshot_options options = how();
    hotset_cache *cache = filled();
    uint64_t entries;
    options.copy = 1;
    OK(hotset_save(cache, in_folder("saved"), NULL, &entries));
    OK(hotset_close(cache));
    for (options.eager = 0; options.eager < 2; options.eager++) {
        cache = cache_of(2 * COUNT);
        CHECK(link(in_folder("saved"), in_folder("changed")) == 0);
        OK(hotset_load(cache, in_folder("changed"), &options, &entries));
        CHECK(entries == COUNT + 1);
        CHECK(truncate(in_folder("changed"), 0) == 0);
        holds_all(cache);
        /* It is whole again: saving replaces the file. */
        OK(hotset_save(cache, in_folder("saved"), NULL, &entries));
        CHECK(unlink(in_folder("changed")) == 0);
        OK(hotset_close(cache));
    }
}

/* Names as long as the system allows, and of any bytes. */
static void any_name(void) {
    static const char bytes[] = "\xff\xfe not UTF-8 \x80";
    hotset_cache *cache = filled(), *other;
    char name[256];
    const char *names[2];
    uint64_t entries;
    int at;
    memset(name, 'n', 255), name[255] = 0;
    names[0] = name, names[1] = bytes;
    for (at = 0; at < 2; at++) {
        OK(hotset_save(cache, in_folder(names[at]), NULL, &entries));
        OK(hotset_save(cache, in_folder(names[at]), NULL, &entries));
        other = cache_of(2 * COUNT);
        OK(hotset_load(other, in_folder(names[at]), NULL, &entries));
        holds_all(other);
        OK(hotset_close(other));
        CHECK(unlink(in_folder(names[at])) == 0);
    }
    OK(hotset_close(cache));
}

/* A link is followed, and what it leads to keeps its mode. */
static void links_and_modes(void) {
    hotset_cache *cache = filled();
    struct stat about;
    uint64_t entries;
    CHECK(symlink("target", in_folder("link")) == 0);
    OK(hotset_save(cache, in_folder("link"), NULL, &entries));
    CHECK(lstat(in_folder("target"), &about) == 0 && S_ISREG(about.st_mode) && (about.st_mode & 07777) == 0600);
    CHECK(chmod(in_folder("target"), 0640) == 0);
    OK(hotset_save(cache, in_folder("link"), NULL, &entries));
    CHECK(lstat(in_folder("target"), &about) == 0 && (about.st_mode & 07777) == 0640);
    CHECK(lstat(in_folder("link"), &about) == 0 && S_ISLNK(about.st_mode));
    CHECK(unlink(in_folder("target")) == 0 && unlink(in_folder("link")) == 0);
    OK(hotset_close(cache));
}

/* Below, fsync of a directory fails with this, as it does where directories cannot be synced. */
static int refuse_directories;

int fsync(int fd) {
    struct stat about;
    if (refuse_directories && fstat(fd, &about) == 0 && S_ISDIR(about.st_mode)) {
        errno = refuse_directories;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

static void directory_not_synced(void) {
    static const int refusals[] = {EINVAL, EACCES, ENOTSUP, EIO};
    hotset_cache *cache = filled();
    uint64_t entries;
    size_t at;
    for (at = 0; at < sizeof refusals / sizeof *refusals; at++) {
        refuse_directories = refusals[at];
        OK(hotset_save(cache, in_folder("saved"), NULL, &entries));
        refuse_directories = 0;
        CHECK(entries == COUNT + 1);
    }
    OK(hotset_close(cache));
}

static void refused(hotset_status status, const char *path, const hotset_snapshot_options *options) {
    hotset_cache *cache = cache_of(COUNT);
    uint64_t entries = 77;
    errno = 0;
    IS(status, hotset_load(cache, path, options, &entries));
    CHECK(entries == 0 && (errno != 0) == (status == HOTSET_IO));
    OK(hotset_put(cache, S("k"), S("works")));
    CHECK(has(cache, "k", "works"));
    OK(hotset_len(cache, &entries));
    CHECK(entries == 1);
    OK(hotset_close(cache));
}

/* Writes the file anew, as it is, shorter, or with a byte changed. */
static const char *with(const unsigned char *bytes, size_t len, long changed) {
    const char *path = in_folder("changed");
    FILE *file;
    size_t at;
    unlink(path);
    CHECK((file = fopen(path, "wb")) != NULL);
    for (at = 0; at < len; at++) CHECK(fputc(bytes[at] ^ ((long)at == changed), file) != EOF);
    CHECK(fclose(file) == 0);
    return path;
}

static void bad_files(void) {
    hotset_snapshot_options options = how();
    hotset_cache *cache = filled();
    unsigned char *bytes = malloc(1 << 20);
    uint64_t entries, corrupt;
    size_t len;
    FILE *file;

    OK(hotset_save(cache, in_folder("saved"), NULL, &entries));
    OK(hotset_close(cache));
    CHECK((file = fopen(in_folder("saved"), "rb")) != NULL);
    len = fread(bytes, 1, 1 << 20, file);
    CHECK(fclose(file) == 0 && len > 50000);

    refused(HOTSET_IO, in_folder("none"), NULL);
    CHECK(mkdir(in_folder("directory"), 0700) == 0);
    refused(HOTSET_NOT_A_SNAPSHOT, in_folder("directory"), NULL);
    cache = filled();
    IS(HOTSET_NOT_A_SNAPSHOT, hotset_save(cache, in_folder("directory"), NULL, &entries));
    OK(hotset_close(cache));
    CHECK(mkfifo(in_folder("pipe"), 0600) == 0);
    refused(HOTSET_NOT_A_SNAPSHOT, in_folder("pipe"), NULL);
    refused(HOTSET_CORRUPT, with(bytes, 0, -1), NULL);
    refused(HOTSET_CORRUPT, with(bytes, len - 1, -1), NULL);
    refused(HOTSET_NOT_A_SNAPSHOT, with(bytes, len, 0), NULL);
    refused(HOTSET_INCOMPATIBLE, with(bytes, len, 8), NULL);
    refused(HOTSET_CORRUPT, with(bytes, len, 40), NULL);
    refused(HOTSET_CORRUPT, with(bytes, len, (long)len - 1), NULL);
    options.schema = 1;
    refused(HOTSET_INCOMPATIBLE, with(bytes, len, -1), &options);
    options.schema = 0, options.eager = 1;
    refused(HOTSET_CORRUPT, with(bytes, len, 40000), &options);

    /* Lazily, a corrupt record is a miss. */
    cache = cache_of(2 * COUNT);
    OK(hotset_load(cache, with(bytes, len, 40000), NULL, &entries));
    OK(hotset_warm(cache, &entries, &corrupt));
    CHECK(entries == COUNT && corrupt == 1);
    OK(hotset_close(cache));
    free(bytes);
}

static void destroy(void *arg, void *value, size_t len) { (void)arg, (void)value, (void)len; }

static void bad_arguments(void) {
    hotset_snapshot_options good = how(), bad;
    hotset_options objects = defaults();
    hotset_cache *cache = filled(), *other;
    const char *path = in_folder("bad");
    uint64_t entries = 7, corrupt = 7;

    IS(HOTSET_INVALID, hotset_snapshot_options_init(NULL, sizeof good));
    IS(HOTSET_INVALID, hotset_snapshot_options_init(&bad, 0));
    IS(HOTSET_INVALID, hotset_snapshot_options_init(&bad, sizeof bad + 8));
    IS(HOTSET_INVALID, hotset_save(NULL, path, &good, &entries));
    IS(HOTSET_INVALID, hotset_save(cache, NULL, &good, &entries));
    IS(HOTSET_INVALID, hotset_save(cache, path, &good, NULL));
    IS(HOTSET_INVALID, hotset_load(NULL, path, &good, &entries));
    IS(HOTSET_INVALID, hotset_load(cache, NULL, &good, &entries));
    IS(HOTSET_INVALID, hotset_load(cache, path, &good, NULL));
    IS(HOTSET_INVALID, hotset_warm(NULL, &entries, &corrupt));
    IS(HOTSET_INVALID, hotset_warm(cache, NULL, &corrupt));
    IS(HOTSET_INVALID, hotset_warm(cache, &entries, NULL));
    CHECK(entries == 0);
    bad = good, bad.size = 0;
    IS(HOTSET_INVALID, hotset_save(cache, path, &bad, &entries));
    IS(HOTSET_INVALID, hotset_load(cache, path, &bad, &entries));
    CHECK(access(path, F_OK) != 0);

    errno = 0;
    IS(HOTSET_IO, hotset_save(cache, in_folder("no folder/file"), NULL, &entries));
    CHECK(errno == ENOENT);
    IS(HOTSET_NOT_A_SNAPSHOT, hotset_save(cache, "", NULL, &entries));
    OK(hotset_warm(cache, &entries, &corrupt));
    CHECK(entries == 0 && corrupt == 0);

    objects.destructor = destroy;
    OK(hotset_open(&objects, &other));
    IS(HOTSET_INVALID, hotset_save(other, path, NULL, &entries));
    IS(HOTSET_INVALID, hotset_load(other, path, NULL, &entries));
    OK(hotset_close(other));

    OK(hotset_close(cache));
    IS(HOTSET_CLOSED, hotset_save(cache, path, NULL, &entries));
    IS(HOTSET_CLOSED, hotset_load(cache, path, NULL, &entries));
    IS(HOTSET_CLOSED, hotset_warm(cache, &entries, &corrupt));
}

int main(int argc, char **argv) {
    uint64_t entries;
    hotset_cache *cache;
    if (argc == 3 && strcmp(argv[1], "write") == 0) {
        cache = filled();
        OK(hotset_save(cache, argv[2], NULL, &entries));
        OK(hotset_close(cache));
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "read") == 0) {
        cache = cache_of(2 * COUNT);
        OK(hotset_load(cache, argv[2], NULL, &entries));
        CHECK(entries == COUNT + 1);
        holds_all(cache);
        OK(hotset_close(cache));
        return 0;
    }
    CHECK(mkdtemp(folder) != NULL);
    saved_and_loaded();
    handles_stay();
    copied();
    any_name();
    links_and_modes();
    directory_not_synced();
    bad_files();
    bad_arguments();
    unlink(in_folder("saved")), unlink(in_folder("changed")), unlink(in_folder("pipe"));
    rmdir(in_folder("directory"));
    CHECK(rmdir(folder) == 0); /* nothing else was left */
    puts("snapshot: ok");
    return 0;
}
