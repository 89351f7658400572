/* A cache server in front of a slow backend, for any memcached client, on loopback only.
 *
 *   cc proxy.c $(pkg-config --cflags --libs hotset) -lpthread -lm -o proxy
 *   ./proxy [--port N] [--bytes N] [--no-cache]     serve until SIGINT or SIGTERM
 *   ./proxy --demo                                  serve, drive it, and print the gain
 */
#define _GNU_SOURCE
#include "service.h"
#include "demo.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>

enum { CONNECTIONS_MAX = 256 };

typedef struct {
    service service;
    int listener;
    uint16_t port;
    pthread_t acceptor;
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t left;
    int fds[CONNECTIONS_MAX]; /* -1: free */
    int open;
    bool stopping;
} server;

typedef struct {
    server *server;
    int slot;
    wire wire;
} connection;

static void *serve_connection(void *arg) {
    connection *c = arg;
    server *s = c->server;
    while (serve_one(&s->service, &c->wire)) {}
    (void)wire_flush(&c->wire);
    pthread_mutex_lock(&s->lock);
    close(c->wire.fd);
    s->fds[c->slot] = -1;
    s->open--;
    pthread_cond_signal(&s->left);
    pthread_mutex_unlock(&s->lock);
    free(c);
    return NULL;
}

static int claim(server *s, int fd) {
    int slot = -1;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < CONNECTIONS_MAX && !s->stopping; i++)
        if (s->fds[i] < 0) {
            s->fds[slot = i] = fd;
            s->open++;
            break;
        }
    pthread_mutex_unlock(&s->lock);
    return slot;
}

static void *accept_connections(void *arg) {
    server *s = arg;
    for (;;) {
        int fd = accept(s->listener, NULL, NULL);
        if (fd < 0) {
            pthread_mutex_lock(&s->lock);
            bool stopping = s->stopping;
            pthread_mutex_unlock(&s->lock);
            if (stopping) return NULL;
            /* Out of descriptors, say: it passes when a connection ends. */
            struct timespec pause = {.tv_sec = 0, .tv_nsec = 10000000};
            if (errno != EINTR && errno != ECONNABORTED) nanosleep(&pause, NULL);
            continue;
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        int slot = claim(s, fd);
        connection *c = slot < 0 ? NULL : malloc(sizeof *c);
        pthread_t thread;
        if (c) {
            c->server = s;
            c->slot = slot;
            c->wire.fd = fd;
            c->wire.head = c->wire.tail = c->wire.queued = 0;
        }
        if (!c || pthread_create(&thread, NULL, serve_connection, c) != 0) {
            (void)wire_send_all(fd, "SERVER_ERROR too many connections\r\n", 35);
            pthread_mutex_lock(&s->lock);
            close(fd);
            if (slot >= 0) {
                s->fds[slot] = -1;
                s->open--;
            }
            pthread_mutex_unlock(&s->lock);
            free(c);
            continue;
        }
        pthread_detach(thread);
    }
}

static bool server_start(server *s, uint16_t port, uint64_t max_bytes) {
    memset(s, 0, sizeof *s);
    for (int i = 0; i < CONNECTIONS_MAX; i++) s->fds[i] = -1;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->left, NULL);
    if (max_bytes > 0) {
        hotset_options options;
        hotset_options_init(&options, sizeof options);
        options.max_bytes = max_bytes;
        hotset_status status = hotset_open(&options, &s->service.cache);
        if (status != HOTSET_OK) {
            fprintf(stderr, "proxy: cache: %s\n", hotset_strerror(status));
            return false;
        }
    }
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int on = 1;
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (s->listener >= 0) setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (s->listener < 0 || bind(s->listener, (struct sockaddr *)&at, len) != 0 || listen(s->listener, 128) != 0 ||
        getsockname(s->listener, (struct sockaddr *)&at, &len) != 0 ||
        (errno = pthread_create(&s->acceptor, NULL, accept_connections, s)) != 0) {
        perror("proxy: cannot serve");
        if (s->listener >= 0) close(s->listener);
        hotset_close(s->service.cache);
        return false;
    }
    s->port = ntohs(at.sin_port);
    return true;
}

/* Ends every connection and waits for its thread: after that no thread uses the cache, and it can
 * be closed. */
static void server_stop(server *s) {
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    for (int i = 0; i < CONNECTIONS_MAX; i++)
        if (s->fds[i] >= 0) shutdown(s->fds[i], SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->acceptor, NULL);
    close(s->listener);
    pthread_mutex_lock(&s->lock);
    while (s->open > 0) pthread_cond_wait(&s->left, &s->lock);
    pthread_mutex_unlock(&s->lock);
    pthread_cond_destroy(&s->left);
    pthread_mutex_destroy(&s->lock);
    hotset_close(s->service.cache);
}

static int run_demo(uint64_t max_bytes) {
    static server cached, bare;
    printf("a backend of %d ms per row, %d rows; clients ask over loopback, keys zipf 0.99\n\n",
           BACKEND_LATENCY_NS / 1000000, BACKEND_KEYS);
    if (!server_start(&bare, 0, 0)) return 1;
    bool good = demo_run("without cache", bare.port, 400, false);
    server_stop(&bare);
    if (!server_start(&cached, 0, max_bytes)) return 1;
    good = good && demo_stampede(cached.port);
    good = good && demo_run("cold cache", cached.port, 2500, true) && demo_run("warm cache", cached.port, 20000, true);
    server_stop(&cached);
    return good ? 0 : 1;
}

static int usage(void) {
    fprintf(stderr, "usage: proxy [--port N] [--bytes N] [--no-cache] | proxy --demo [--bytes N]\n");
    return 2;
}

int main(int argc, char **argv) {
    uint64_t port = 11311, bytes = 64 << 20;
    bool demo = false;
    for (int i = 1; i < argc; i++) {
        bool number = strcmp(argv[i], "--port") == 0 || strcmp(argv[i], "--bytes") == 0;
        if (number && i + 1 < argc) {
            bool is_port = argv[i][2] == 'p';
            i++;
            if (!parse_number(argv[i], strlen(argv[i]), is_port ? &port : &bytes) || port > 65535 || bytes == 0)
                return usage();
        } else if (strcmp(argv[i], "--no-cache") == 0) bytes = 0;
        else if (strcmp(argv[i], "--demo") == 0) demo = true;
        else return usage();
    }
    if (demo) return bytes == 0 ? usage() : run_demo(bytes);

    /* Blocked before any thread is there, so that all inherit it and only sigwait below sees the
     * signals. */
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    static server s;
    if (!server_start(&s, (uint16_t)port, bytes)) return 1;
    printf("listening on 127.0.0.1:%u\n", (unsigned)s.port);
    fflush(stdout);
    int got;
    sigwait(&signals, &got);
    server_stop(&s);
    return 0;
}
