/* The stats file: names, the directory, and that rewriting it disturbs no call.
 *
 * Without arguments: a child does the work, and its parent looks at what it leaves behind. With
 * "alone": the same without a fork of a process that has caches, since the child leaks what it
 * inherits. With "serve": names a cache, prints a line and waits for the end of its input, for a
 * reader of another language. */
#include "check.h"
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char directory[] = "/tmp/hotset-stats-XXXXXX";

static hotset_cache *open_cache(void) {
    hotset_options options;
    hotset_cache *cache;
    CHECK(hotset_options_init(&options, sizeof options) == HOTSET_OK);
    options.max_entries = 100;
    CHECK(hotset_open(&options, &cache) == HOTSET_OK);
    return cache;
}

/* The number of files in the directory; the last one's path. */
static int files(char path[512]) {
    int count = 0;
    DIR *open = opendir(directory);
    struct dirent *entry;
    CHECK(open != NULL);
    while ((entry = readdir(open)) != NULL)
        if (entry->d_name[0] != '.') {
            snprintf(path, 512, "%s/%s", directory, entry->d_name);
            count++;
        }
    closedir(open);
    return count;
}

/* The sequence of the newest slot. */
static unsigned long long sequence(const char *path) {
    unsigned long long newest = 0, found;
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    for (long slot = 0; slot < 2; slot++)
        if (fseek(file, 4096 + slot * (128 + 256 * 2048) + 8, SEEK_SET) == 0 && fread(&found, 8, 1, file) == 1 && found > newest)
            newest = found;
    fclose(file);
    return newest;
}

/* Reads in a loop, with a request to cancel the thread pending, until the file is rewritten. */
static void *reads(void *arg) {
    hotset_cache *cache = arg;
    char path[512], copy[8];
    size_t len;
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    CHECK(files(path) == 1);
    unsigned long long old = sequence(path);
    while (sequence(path) < old + 2) {
        pthread_setcancelstate(before, NULL);
        pthread_cancel(pthread_self());
        errno = 1234;
        for (int n = 0; n < 1000; n++) CHECK(hotset_get_copy(cache, "key", 3, copy, sizeof copy, &len) == HOTSET_OK);
        CHECK(errno == 1234);
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    }
    pthread_setcancelstate(before, NULL);
    pthread_testcancel();
    return NULL; /* not reached */
}

static void child_of_a_fork(hotset_cache *cache) {
    /* A child opens caches of its own, which are in a file of its own. */
    char path[512];
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(hotset_set_name(cache, "inherited") == HOTSET_FORKED);
        hotset_cache *own = open_cache();
        CHECK(hotset_set_name(own, "own") == HOTSET_OK);
        CHECK(hotset_put(own, "key", 3, "value", 5) == HOTSET_OK);
        while (files(path) < 2) CHECK(hotset_put(own, "key", 3, "value", 5) == HOTSET_OK);
        CHECK(hotset_close(own) == HOTSET_OK);
        exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(files(path) == 1); /* the child has removed its own */
}

static void work(int alone) {
    char path[512], missing[600];
    struct stat found;
    void *result;
    pthread_t thread;
    hotset_cache *cache = open_cache();
    hotset_cache *other = open_cache();

    CHECK(hotset_set_name(NULL, "name") == HOTSET_INVALID);
    CHECK(hotset_set_name(cache, "\xff") == HOTSET_INVALID);
    CHECK(hotset_set_name(cache, NULL) == HOTSET_OK);
    CHECK(hotset_set_name(cache, "name") == HOTSET_OK);
    CHECK(hotset_set_name(cache, "another name") == HOTSET_OK);

    CHECK(hotset_stats_file(NULL) == HOTSET_INVALID);
    snprintf(missing, sizeof missing, "%s/missing", directory);
    errno = 0;
    CHECK(hotset_stats_file(missing) == HOTSET_IO && errno == ENOENT);
    CHECK(files(path) == 0);
    CHECK(hotset_stats_file(directory) == HOTSET_OK);
    CHECK(hotset_stats_file(directory) == HOTSET_OK);
    CHECK(hotset_stats_file("/") == HOTSET_INVALID);
    CHECK(files(path) == 1);
    CHECK(stat(path, &found) == 0 && (found.st_mode & 0777) == 0600);

    CHECK(hotset_set_name(other, "other") == HOTSET_OK);
    CHECK(hotset_put(cache, "key", 3, "value", 5) == HOTSET_OK);
    CHECK(pthread_create(&thread, NULL, reads, cache) == 0);
    CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);

    CHECK(hotset_close(other) == HOTSET_OK);
    CHECK(hotset_set_name(other, "closed") == HOTSET_CLOSED);

    if (!alone) child_of_a_fork(cache);
    CHECK(hotset_close(cache) == HOTSET_OK);
}

int main(int argc, char **argv) {
    char path[512];
    int status;
    if (argc > 1 && strcmp(argv[1], "serve") == 0) {
        hotset_cache *cache = open_cache();
        CHECK(hotset_set_name(cache, "from C") == HOTSET_OK);
        printf("ready\n");
        fflush(stdout);
        while (getchar() != EOF) {}
        CHECK(hotset_close(cache) == HOTSET_OK);
        return 0;
    }
    unsetenv("HOTSET_STATS");
    CHECK(mkdtemp(directory) != NULL);
    pid_t pid = fork();
    if (pid == 0) {
        work(argc > 1);
        exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(files(path) == 0);
    CHECK(rmdir(directory) == 0);
    return 0;
}
