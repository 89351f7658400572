/* A buffered socket: lines and blocks in, bytes out. Every call returns false once the peer is
 * gone. */
#ifndef WIRE_H
#define WIRE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WIRE_BUFFER = 16384 };

typedef struct {
    int fd;
    size_t head, tail; /* what was received and not yet taken: in[head..tail] */
    size_t queued;     /* bytes to send: out[..queued] */
    char in[WIRE_BUFFER];
    char out[WIRE_BUFFER];
} wire;

static inline bool wire_send_all(int fd, const char *data, size_t len) {
    while (len > 0) {
        ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        data += sent;
        len -= (size_t)sent;
    }
    return true;
}

static inline bool wire_flush(wire *w) {
    size_t len = w->queued;
    w->queued = 0;
    return wire_send_all(w->fd, w->out, len);
}

static inline bool wire_write(wire *w, const void *data, size_t len) {
    if (len > WIRE_BUFFER - w->queued && !wire_flush(w)) return false;
    if (len > WIRE_BUFFER) return wire_send_all(w->fd, data, len);
    memcpy(w->out + w->queued, data, len);
    w->queued += len;
    return true;
}

static inline bool wire_puts(wire *w, const char *text) { return wire_write(w, text, strlen(text)); }

/* Receives more. Answers go out first, for the peer may be waiting for them: but only when there is
 * nothing left to do, so that a pipelining peer's answers share a packet. */
static inline bool wire_fill(wire *w) {
    if (!wire_flush(w)) return false;
    if (w->head > 0) {
        memmove(w->in, w->in + w->head, w->tail - w->head);
        w->tail -= w->head;
        w->head = 0;
    }
    if (w->tail == WIRE_BUFFER) return false;
    for (;;) {
        ssize_t got = recv(w->fd, w->in + w->tail, WIRE_BUFFER - w->tail, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        w->tail += (size_t)got;
        return true;
    }
}

/* The next line without its end, in place until the next call; a line longer than the buffer ends
 * the connection. */
static inline bool wire_line(wire *w, char **line, size_t *len) {
    size_t seen = 0;
    for (;;) {
        char *start = w->in + w->head;
        char *end = memchr(start + seen, '\n', w->tail - w->head - seen);
        if (end) {
            w->head += (size_t)(end - start) + 1;
            if (end > start && end[-1] == '\r') end--;
            *line = start;
            *len = (size_t)(end - start);
            return true;
        }
        seen = w->tail - w->head;
        if (!wire_fill(w)) return false;
    }
}

/* The next `len` bytes, into `to`, or nowhere where `to` is NULL. */
static inline bool wire_block(wire *w, char *to, size_t len) {
    while (len > 0) {
        if (w->head == w->tail && !wire_fill(w)) return false;
        size_t part = w->tail - w->head < len ? w->tail - w->head : len;
        if (to) {
            memcpy(to, w->in + w->head, part);
            to += part;
        }
        w->head += part;
        len -= part;
    }
    return true;
}

#endif
