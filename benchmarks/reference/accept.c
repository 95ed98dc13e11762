/* The reference for the accept path: what one thread of plain C costs for the same promise.
 *
 * Same checks as `headwater collect`: strict request head, caps and deadlines, key (constant time), origin,
 * quota, content length, whole body scanned as JSON and UTF-8, types of the five top-level fields. Same
 * promise: the reply leaves after fdatasync of the block that holds the event (--memory: before the write). Blocks are
 * written with O_DIRECT, which took less CPU for large blocks (--buffered: through the page cache).
 * Same bytes: protocol.md section 2 blocks, 64-byte header with xxh3, stamps, body as received, 4 KiB
 * padding, pre-zeroed 64 MiB segments prepared ahead and recycled. Window 0: the next commit starts when the
 * one before is back. Left out: TLS, compression, chunked bodies, proxies, other dialects, reload.
 *
 * Threads: `main` (epoll, parsing, replies), `commit` (hash, pwrite, fdatasync), `prepare` (next segment).
 * cc -O2 -march=native -pthread accept.c -o accept                                                        */
#define _GNU_SOURCE
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "json.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, BLOCK_MAX = 4 << 20, SEGMENT = 64 << 20, RECORDS_MAX = 16384, CONNECTIONS_MAX = 1024,
       HEAD_MAX = 16 << 10, BODY_MAX = 1 << 20, KEYS_MAX = 64, KEY_SLOTS = 256, IDLE_S = 60, BODY_S = 10 };
static __attribute__((noreturn)) void die(const char *what) { perror(what); exit(1); }
static uint64_t clock_ns(clockid_t id) { struct timespec t; clock_gettime(id, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }

/* ---- Log: two buffers, one open and one being committed; a block is one commit. ---- */
struct connection;
typedef struct __attribute__((packed)) {
    char magic[4]; uint8_t version, flags; uint16_t header_bytes; uint32_t payload_bytes, records;
    uint64_t log_id, first_seq; uint32_t events, spare; uint64_t node_time_ns, boot_time_ns, hash;
} block_header;
typedef struct __attribute__((packed)) {      /* then: one u16 length for each stamped text, the texts, the body */
    uint32_t bytes, body_bytes; uint64_t node_time_ns, boot_time_ns; uint16_t key; uint8_t dialect, flags; uint32_t events; uint8_t address[16];
} stamp;
typedef struct __attribute__((packed)) { uint16_t slot; uint32_t end; } index_entry;
typedef struct {
    uint8_t *data; size_t size; uint32_t records, events; uint64_t first_seq, generation;
    index_entry index[RECORDS_MAX]; struct connection *waiters[CONNECTIONS_MAX]; int waiting;
} block;
static block blocks[2], *open_block = &blocks[0], *committing;
static uint64_t writer_id, log_id, next_seq, durable_generation;
static int segment_fd = -1, folder_fd, done_fd; static size_t segment_at = SEGMENT, keep_segments = 64;
static sem_t work, wanted, prepared; static bool preparing, direct = true;

static void *prepare_loop(void *unused) {     /* makes `next.seg`: the oldest one renamed, or a new zeroed one */
    (void)unused;
    static uint8_t zero[1 << 20] __attribute__((aligned(PAGE)));
    for (uint64_t made = 0;; made++) {
        sem_wait(&wanted);
        char oldest[64], next[64];
        snprintf(oldest, sizeof oldest, "%016lx-%06lu.seg", log_id, made - keep_segments);
        snprintf(next, sizeof next, "next.seg");
        if (made < keep_segments || renameat(folder_fd, oldest, folder_fd, next)) {
            int fd = openat(folder_fd, next, O_CREAT | O_WRONLY | O_TRUNC | O_DIRECT, 0600);    /* past the page cache: a fifth */
            if (fd < 0) fd = openat(folder_fd, next, O_CREAT | O_WRONLY | O_TRUNC, 0600);       /* of the CPU, or far less   */
            if (fd < 0) die("segment");
            for (int i = 0; i < SEGMENT >> 20; i++) if (write(fd, zero, sizeof zero) != sizeof zero) die("zero");
            if (fsync(fd)) die("fsync");
            close(fd);
        }
        if (fsync(folder_fd)) die("fsync folder");
        sem_post(&prepared);
    }
}
static void next_segment(void) {
    static uint64_t number; char name[64];
    if (!preparing) sem_post(&wanted);
    sem_wait(&prepared); preparing = false;
    if (segment_fd >= 0) close(segment_fd);
    snprintf(name, sizeof name, "%016lx-%06lu.seg", log_id, number++);
    if (renameat(folder_fd, "next.seg", folder_fd, name) || fsync(folder_fd)) die("rename");
    segment_fd = openat(folder_fd, name, O_WRONLY | (direct ? O_DIRECT : 0));
    if (segment_fd < 0 && (segment_fd = openat(folder_fd, name, O_WRONLY)) < 0) die("open segment");
    segment_at = 0;
}
static void *commit_loop(void *unused) {
    (void)unused;
    for (;;) {
        sem_wait(&work);
        block *b = committing;
        memcpy(b->data + b->size, b->index, b->records * sizeof *b->index);
        b->size += b->records * sizeof *b->index;
        size_t padded = (b->size + PAGE - 1) / PAGE * PAGE;
        memset(b->data + b->size, 0, padded - b->size);
        block_header *h = (block_header *)b->data;
        *h = (block_header){"HWB1", 1, 0, sizeof *h, b->size - sizeof *h, b->records, log_id, b->first_seq, b->events, 0,
                            clock_ns(CLOCK_REALTIME), clock_ns(CLOCK_BOOTTIME), 0};
        h->hash = XXH3_64bits(b->data, b->size);
        if (segment_at + padded > SEGMENT) next_segment();
        for (size_t done = 0; done < padded;) {
            ssize_t n = pwrite(segment_fd, b->data + done, padded - done, segment_at + done);
            if (n < 0) die("pwrite");
            done += n;
        }
        if (fdatasync(segment_fd)) die("fdatasync");
        segment_at += padded;
        if (segment_at > SEGMENT / 2 && !preparing) { preparing = true; sem_post(&wanted); }
        if (write(done_fd, &(uint64_t){1}, 8) != 8) die("eventfd");
    }
}
static void open_next(block *b) { b->size = sizeof(block_header); b->records = b->events = b->waiting = 0; b->first_seq = next_seq; }
static void start_commit(void) {              /* window 0: whenever the commit thread is free and there is something */
    if (committing || (!open_block->records && !open_block->waiting)) return;
    committing = open_block;
    open_block = &blocks[committing == &blocks[0]];
    open_block->generation = committing->generation + 1;
    open_next(open_block);
    sem_post(&work);
}

/* ---- HTTP ---- */
typedef struct connection {
    int fd; bool waiting, closing, gone; uint64_t waits_for, last_ns; size_t need;
    uint8_t *in, *out; size_t in_size, in_cap, out_size, out_sent, out_cap; uint8_t address[16];
} connection;
enum { CONTENT_TYPE, USER_AGENT, REFERER, LANGUAGE, CH_UA, CH_MOBILE, CH_PLATFORM, ORIGIN, DNT, GPC, STAMPED,
       AUTHORIZATION = STAMPED, WRITE_KEY, LENGTH, ENCODING, TRANSFER, CONNECTION, EXPECT, HOST, HEADERS };
static const char *HEADER[HEADERS] = {"content-type", "user-agent", "referer", "accept-language", "sec-ch-ua", "sec-ch-ua-mobile",
    "sec-ch-ua-platform", "origin", "dnt", "sec-gpc", "authorization", "x-write-key", "content-length", "content-encoding",
    "transfer-encoding", "connection", "expect", "host"};
static uint8_t header_by_size[32][4], token[256];      /* candidates per name length (index + 1); legal name bytes */
typedef struct { slice method, path, query, target, header[HEADERS], body; bool keep, minor0; } request;
typedef struct { slice secret; const char *origins; double tokens; uint64_t at_ns; } api_key;
static api_key keys[KEYS_MAX]; static int16_t key_slot[KEY_SLOTS]; static int key_count;
static bool memory_mode; static double quota = 1e7; static connection *by_fd[65536]; static int connections, epoll_fd;

static bool is(slice s, const char *w) { return s.size == strlen(w) && !memcmp(s.at, w, s.size); }
static bool is_caseless(slice s, const char *w) { return s.size == strlen(w) && !strncasecmp((const char *)s.at, w, s.size); }
static api_key *key_find(slice s) {            /* the hash finds the place; the compare takes the same time for every wrong key */
    for (size_t i = XXH3_64bits(s.at, s.size) % KEY_SLOTS; key_slot[i]; i = (i + 1) % KEY_SLOTS) {
        api_key *k = &keys[key_slot[i] - 1]; uint8_t differs = 0;
        if (k->secret.size != s.size) continue;
        for (size_t j = 0; j < s.size; j++) differs |= k->secret.at[j] ^ s.at[j];
        if (!differs) return k;
    }
    return NULL;
}
static void key_add(const char *secret, const char *origins) {
    if (key_count == KEYS_MAX) { fprintf(stderr, "too many keys\n"); exit(2); }
    keys[key_count++] = (api_key){{(text)secret, strlen(secret)}, origins, quota, 0};
    size_t i = XXH3_64bits(secret, strlen(secret)) % KEY_SLOTS;
    while (key_slot[i]) i = (i + 1) % KEY_SLOTS;
    key_slot[i] = key_count;
}
static slice basic_user(slice s, uint8_t *room, size_t most) {     /* "Basic base64(key:…)" -> key */
    static int8_t digit[256]; size_t n = 0; uint32_t bits = 0; int held = 0;
    if (!digit['B']) {
        memset(digit, -1, sizeof digit);
        for (int i = 0; i < 64; i++) digit[(uint8_t)"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[i]] = i;
    }
    if (s.size < 6 || strncasecmp((const char *)s.at, "basic ", 6)) return (slice){0};
    for (size_t i = 6; i < s.size && s.at[i] != '='; i++) {
        if (digit[s.at[i]] < 0 || n == most) return (slice){0};
        bits = bits << 6 | digit[s.at[i]];
        if ((held += 6) >= 8) { room[n] = bits >> (held -= 8); if (room[n] == ':') break; n++; }
    }
    return (slice){room, n};
}
static slice parameter(slice query, const char *name) {
    size_t n = strlen(name);
    for (text p = query.at, end = p + query.size; p && p < end;) {
        text next = memchr(p, '&', end - p); if (!next) next = end;
        if ((size_t)(next - p) > n && p[n] == '=' && !memcmp(p, name, n)) return (slice){p + n + 1, next - p - n - 1};
        p = next + 1;
    }
    return (slice){0};
}
static bool origin_allowed(const api_key *k, slice origin) {
    if (!strcmp(k->origins, "*")) return true;
    for (const char *p = k->origins; *p;) {
        size_t n = strcspn(p, ",");
        if (n == origin.size && !memcmp(p, origin.at, n)) return true;
        p += n + (p[n] == ',');
    }
    return false;
}
static int parse_head(text p, size_t size, request *r) {   /* bytes of the head; 0 = not complete; < 0 = minus the status */
    text start = p, end = p + size, line = memchr(p, '\n', size);
    if (!line) return size > HEAD_MAX ? -431 : 0;
    if (line == p || line[-1] != '\r') return -400;
    text a = memchr(p, ' ', line - p), b = a ? memchr(a + 1, ' ', line - a - 1) : NULL;
    if (!b || a == p || b == a + 1 || line - 1 - (b + 1) != 8 || memcmp(b + 1, "HTTP/1.", 7) || (b[8] != '1' && b[8] != '0')) return -400;
    for (text c = p; c < a; c++) if (!token[*c]) return -400;
    for (text c = a + 1; c < b; c++) if (*c <= 0x20 || *c >= 0x7f) return -400;
    r->method = (slice){p, a - p}; r->target = (slice){a + 1, b - a - 1}; r->minor0 = b[8] == '0';
    text q = memchr(a + 1, '?', b - a - 1);
    r->path = (slice){a + 1, (q ? q : b) - a - 1}; r->query = q ? (slice){q + 1, b - q - 1} : (slice){0};
    for (p = line + 1;; p = line + 1) {
        if (!(line = memchr(p, '\n', end - p))) return size > HEAD_MAX ? -431 : 0;
        if (line == p || line[-1] != '\r') return -400;
        if (line == p + 1) break;
        text name = p;
        while (token[*p]) p++;                            /* stops at ':' or at the line's end: neither is a token */
        size_t n = p - name;
        if (!n || *p != ':') return -400;
        text v = p + 1, ve = line - 1;
        while (v < ve && (*v == ' ' || *v == '\t')) v++;
        while (ve > v && (ve[-1] == ' ' || ve[-1] == '\t')) ve--;
        for (text c = v; (c = plain(c, ve)) < ve; c++) if ((*c < 0x20 && *c != '\t') || *c == 0x7f) return -400;
        if (n < 32) for (int k = 0; k < 4 && header_by_size[n][k]; k++) {
            int h = header_by_size[n][k] - 1;
            if (strncasecmp((const char *)name, HEADER[h], n)) continue;
            if ((h == LENGTH || h == HOST) && r->header[h].at) return -400;
            r->header[h] = (slice){v, ve - v};
        }
    }
    if (line + 1 - start > HEAD_MAX) return -431;
    if (!r->header[HOST].at && !r->minor0) return -400;
    r->keep = r->minor0 ? is_caseless(r->header[CONNECTION], "keep-alive") : !is_caseless(r->header[CONNECTION], "close");
    return line + 1 - start;
}
static void put(connection *c, const void *data, size_t size) {
    if (c->out_size + size > c->out_cap && !(c->out = realloc(c->out, c->out_cap = (c->out_size + size) * 2))) die("memory");
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
}
static void reply(connection *c, const request *r, const char *status, const char *type, const void *body, size_t size) {
    char head[512]; slice o = r->header[ORIGIN];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n", status, type, size);
    if (o.at && o.size < 200)
        n += snprintf(head + n, sizeof head - n, "Access-Control-Allow-Origin: %.*s\r\nVary: Origin\r\n", (int)o.size, (const char *)o.at);
    n += snprintf(head + n, sizeof head - n, r->keep ? "\r\n" : "Connection: close\r\n\r\n");
    put(c, head, n);
    if (!is(r->method, "HEAD")) put(c, body, size);
    if (!r->keep) c->closing = true;
}
static void refuse(connection *c, const request *r, const char *status, const char *why) {
    char body[256]; int n = snprintf(body, sizeof body, "{\"ok\":false,\"error\":\"%s\"}", why);
    reply(c, r, status, "application/json", body, n);
}
static void wait_for_open(connection *c) {
    if (c->waiting) return;
    c->waiting = true; c->waits_for = open_block->generation;
    open_block->waiters[open_block->waiting++] = c;
}
static void append(connection *c, const request *r, int key, int dialect, const facts *f) {
    block *b = open_block; uint8_t *start = b->data + b->size, *p = start + sizeof(stamp);
    const slice *texts[STAMPED + 1];
    for (int i = 0; i < STAMPED; i++) texts[i] = &r->header[i];
    texts[STAMPED] = &r->target;
    for (int i = 0; i <= STAMPED; i++) { uint16_t n = texts[i]->size; memcpy(p, &n, 2); p += 2; }
    for (int i = 0; i <= STAMPED; i++) if (texts[i]->size) { memcpy(p, texts[i]->at, texts[i]->size); p += texts[i]->size; }
    if (r->body.size) memcpy(p, r->body.at, r->body.size);
    p += r->body.size;
    stamp s = {p - start, r->body.size, c->last_ns, clock_ns(CLOCK_BOOTTIME), key, dialect, 0, f->events, {0}};
    memcpy(s.address, c->address, 16); memcpy(start, &s, sizeof s);
    slice visitor = f->field[ANONYMOUS_ID].at ? f->field[ANONYMOUS_ID] : f->field[USER_ID];
    b->size = p - b->data;
    b->index[b->records++] = (index_entry){visitor.at ? XXH3_64bits(visitor.at, visitor.size) % 4096 : 0, b->size};
    b->events += f->events; next_seq += f->events;
}
static bool handle(connection *c, request *r) {     /* false: the log has no room, try again after the next commit */
    static const uint8_t GIF[43] = "GIF89a\1\0\1\0\200\0\0\0\0\0\377\377\377!\371\4\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;";
    uint8_t room[256]; facts f = {0}; char body[256];
    bool get = is(r->method, "GET") || is(r->method, "HEAD"), pixel = is(r->path, "/pixel.gif"), batch = is(r->path, "/v1/batch");
    bool single = is(r->path, "/events") || is(r->path, "/v1/track") || is(r->path, "/v1/page") || is(r->path, "/v1/identify");
    if (is(r->path, "/ping")) { reply(c, r, "200 OK", "text/plain", "pong\n", 5); return true; }
    if (!pixel && !batch && !single) { refuse(c, r, "404 Not Found", "no such path"); return true; }
    if (is(r->method, "OPTIONS")) { reply(c, r, "204 No Content", "text/plain", "", 0); return true; }
    if (pixel ? !get : !is(r->method, "POST")) { refuse(c, r, "405 Method Not Allowed", "method"); return true; }
    if (open_block->size + r->body.size + HEAD_MAX + RECORDS_MAX * sizeof(index_entry) + PAGE > BLOCK_MAX || open_block->records == RECORDS_MAX) return false;
    slice given = r->header[AUTHORIZATION].at ? basic_user(r->header[AUTHORIZATION], room, sizeof room) : r->header[WRITE_KEY];
    if (!given.at) given = parameter(r->query, "key");
    api_key *k = given.at ? key_find(given) : NULL;
    if (!k) { refuse(c, r, "401 Unauthorized", "unknown or missing key"); return true; }
    if (r->header[ORIGIN].at && !origin_allowed(k, r->header[ORIGIN])) { refuse(c, r, "403 Forbidden", "origin not allowed for this key"); return true; }
    if (pixel) { if (!r->query.size) { refuse(c, r, "400 Bad Request", "empty query"); return true; } f.events = 1; }
    else {
        text end = r->body.at + r->body.size, p = space(r->body.at, end);
        if (r->header[ENCODING].at) { refuse(c, r, "415 Unsupported Media Type", "content-encoding"); return true; }
        if (p >= end || *p != '{' || !(p = object(p + 1, end, 1, batch ? BATCH : SINGLE, &f)) || space(p, end) != end || (batch && !f.has_batch)) {
            refuse(c, r, "400 Bad Request", "body: expected one JSON object"); return true;
        }
        int wrong = wrong_field(&f);
        if (wrong >= 0) { refuse(c, r, "400 Bad Request", FIELD_NAME[wrong]); return true; }
        if (single) f.events = 1;
        if (!f.events) { refuse(c, r, "400 Bad Request", "no acceptable event"); return true; }
    }
    k->tokens += (c->last_ns - k->at_ns) / 1e9 * quota; k->at_ns = c->last_ns;
    if (k->tokens > quota) k->tokens = quota;
    if (k->tokens < f.events) { refuse(c, r, "429 Too Many Requests", "quota"); return true; }
    k->tokens -= f.events;
    uint64_t seq = next_seq;
    append(c, r, k - keys, pixel ? 2 : batch, &f);
    if (pixel) reply(c, r, "200 OK", "image/gif", GIF, sizeof GIF);
    else {
        int n = snprintf(body, sizeof body, "{\"ok\":true,\"success\":true,\"accepted\":%u,\"ack\":\"%s\",\"receipt\":\"%016lx-%016lx-%lu\"",
                         f.events, memory_mode ? "memory" : "disk", writer_id, log_id, seq);
        n += f.refused ? snprintf(body + n, sizeof body - n, ",\"refused\":%u}", f.refused) : snprintf(body + n, sizeof body - n, "}");
        reply(c, r, "200 OK", "application/json", body, n);
    }
    if (!memory_mode) wait_for_open(c);
    return true;
}
static void close_connection(connection *c) {       /* one that waits for a commit is freed when that is back */
    if (!c->gone) { close(c->fd); by_fd[c->fd] = NULL; c->gone = true; }
    if (!c->waiting) { connections--; free(c->in); free(c->out); free(c); }
}
static void serve(connection *c) {                  /* answers everything complete in the buffer, in order */
    size_t at = 0;
    while (!c->closing && c->in_size > at && c->in_size - at >= c->need && (!c->waiting || c->waits_for == open_block->generation)) {
        request r = {.keep = true};
        int head = parse_head(c->in + at, c->in_size - at, &r);
        if (head == 0) break;
        if (head < 0) { r.keep = false; refuse(c, &r, head == -431 ? "431 Request Header Fields Too Large" : "400 Bad Request", "request head"); break; }
        size_t length = 0; slice l = r.header[LENGTH]; bool bad = (l.at && (!l.size || l.size > 10)) || r.header[TRANSFER].at;
        for (size_t i = 0; i < l.size && !bad; i++) { bad = !is_digit(l.at + i, l.at + l.size); length = length * 10 + l.at[i] - '0'; }
        if (bad) { r.keep = false; refuse(c, &r, r.header[TRANSFER].at && !l.at ? "411 Length Required" : "400 Bad Request", "content-length"); break; }
        if (length > BODY_MAX) { r.keep = false; refuse(c, &r, "413 Content Too Large", "body above 1 MiB"); break; }
        if (c->in_size - at < head + length) {
            if (is_caseless(r.header[EXPECT], "100-continue") && !c->need && !c->waiting) put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
            c->need = head + length; break;
        }
        r.body = (slice){c->in + at + head, length};
        if (!handle(c, &r)) { wait_for_open(c); break; }
        at += head + length; c->need = 0;
    }
    memmove(c->in, c->in + at, c->in_size -= at);
}
static void flush(connection *c) {                  /* may free c */
    while (!c->waiting && c->out_sent < c->out_size) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return;       /* EPOLLOUT comes (edge-triggered) */
        if (n < 0) { close_connection(c); return; }
        c->out_sent += n;
    }
    if (c->waiting) return;
    c->out_sent = c->out_size = 0;
    if (c->closing) close_connection(c);
}
static void readable(connection *c) {               /* edge-triggered: read until short, serve, flush */
    for (bool drained = false; !drained && !c->closing;) {
        if (c->in_size == c->in_cap) {
            if (c->in_cap >= HEAD_MAX + BODY_MAX) break;      /* full: read on after the commit it waits for */
            if (!(c->in = realloc(c->in, c->in_cap = c->in_cap ? c->in_cap * 2 : 8192))) die("memory");
        }
        ssize_t n = recv(c->fd, c->in + c->in_size, c->in_cap - c->in_size, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) { close_connection(c); return; }
        if (n < 0) break;
        drained = (size_t)n < c->in_cap - c->in_size; c->in_size += n;
        c->last_ns = clock_ns(CLOCK_REALTIME);
        if (c->in_size >= c->need) serve(c);
    }
    flush(c);
}
static void accept_all(int listener) {
    struct sockaddr_in a; socklen_t n = sizeof a;
    for (int fd; (fd = accept4(listener, (void *)&a, &n, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        if (connections == CONNECTIONS_MAX || fd >= 65536) { close(fd); continue; }
        connection *c = calloc(1, sizeof *c);
        if (!c) die("memory");
        c->fd = fd; c->last_ns = clock_ns(CLOCK_REALTIME); by_fd[fd] = c; connections++;
        memcpy(c->address, &a.sin_addr, 4);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        struct epoll_event e = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.fd = fd}};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
    }
}
static void committed(void) {                       /* the fdatasync is back: answer those who waited, go on with their input */
    uint64_t n; block *b = committing;
    if (read(done_fd, &n, 8) != 8) return;
    durable_generation = b->generation; committing = NULL;
    for (int i = 0; i < b->waiting; i++) {
        connection *c = b->waiters[i];
        c->waiting = false;
        if (c->gone) { close_connection(c); continue; }
        if (c->in_size >= c->need && c->in_size) { int fd = c->fd; flush(c); if (by_fd[fd] == c) { serve(c); readable(c); } }
        else flush(c);
    }
}
static void sweep(uint64_t now) {                   /* deadlines; a connection that waits for the disk is ours to answer */
    for (int fd = 0; fd < 65536; fd++) {
        connection *c = by_fd[fd];
        if (c && !c->waiting && now - c->last_ns > (c->in_size ? BODY_S : IDLE_S) * 1000000000ull) close_connection(c);
    }
}
int main(int argc, char **argv) {
    const char *folder = ".", *origins = "*"; int port = 8430; const char *secrets[KEYS_MAX]; int given = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--memory")) memory_mode = true;
        else if (!strcmp(argv[i], "--buffered")) direct = false;
        else if (i + 1 == argc) { fprintf(stderr, "usage: accept [--memory] [--buffered] [--port N] [--dir D] [--key SECRET]... [--origins LIST] [--quota EVENTS_PER_S] [--keep-mb N]\n"); return 2; }
        else if (!strcmp(argv[i], "--port")) port = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--dir")) folder = argv[++i];
        else if (!strcmp(argv[i], "--key") && given < KEYS_MAX) secrets[given++] = argv[++i];
        else if (!strcmp(argv[i], "--origins")) origins = argv[++i];
        else if (!strcmp(argv[i], "--quota")) quota = atof(argv[++i]);
        else if (!strcmp(argv[i], "--keep-mb")) keep_segments = atoi(argv[++i]) * 1048576l / SEGMENT;
        else { fprintf(stderr, "unknown option %s\n", argv[i]); return 2; }
    }
    if (keep_segments < 2) keep_segments = 2;
    for (int i = 0; i < given; i++) key_add(secrets[i], origins);
    for (const char *t = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"; *t; t++) token[(uint8_t)*t] = 1;
    for (int h = 0; h < HEADERS; h++) { uint8_t *s = header_by_size[strlen(HEADER[h])]; while (*s) s++; *s = h + 1; }
    mkdir(folder, 0700);
    if ((folder_fd = open(folder, O_RDONLY | O_DIRECTORY)) < 0) die(folder);
    writer_id = XXH3_64bits(folder, strlen(folder)); log_id = clock_ns(CLOCK_REALTIME) / 1000000 << 22;
    for (int i = 0; i < 2; i++) { if (!(blocks[i].data = aligned_alloc(PAGE, BLOCK_MAX))) die("memory"); memset(blocks[i].data, 0, BLOCK_MAX); open_next(&blocks[i]); }
    sem_init(&work, 0, 0); sem_init(&wanted, 0, 0); sem_init(&prepared, 0, 0);
    done_fd = eventfd(0, EFD_NONBLOCK); epoll_fd = epoll_create1(0);
    pthread_t t;
    if (pthread_create(&t, NULL, prepare_loop, NULL)) die("thread");
    next_segment();
    if (pthread_create(&t, NULL, commit_loop, NULL)) die("thread");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(listener, (void *)&a, sizeof a) || listen(listener, 1024)) die("listen");
    for (int i = 0; i < 2; i++) { struct epoll_event e = {EPOLLIN, {.fd = i ? done_fd : listener}}; epoll_ctl(epoll_fd, EPOLL_CTL_ADD, e.data.fd, &e); }
    printf("listening on %d\n", port); fflush(stdout);
    for (uint64_t swept = 0;;) {
        struct epoll_event events[256];
        int n = epoll_wait(epoll_fd, events, 256, 1000);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_all(listener);
            else if (fd == done_fd) committed();
            else if (by_fd[fd]) {
                if (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) readable(by_fd[fd]);
                else flush(by_fd[fd]);
            }
        }
        start_commit();
        uint64_t now = clock_ns(CLOCK_REALTIME);
        if (now - swept > 1000000000ull) { swept = now; sweep(now); }
    }
}
