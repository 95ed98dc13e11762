/* Sends requests at times that were set beforehand, whatever the server does, and says how long each took.
 *
 * Open loop: the schedule (Poisson arrivals, the same for the same seed) does not wait for answers. A request whose time
 * has come takes a free connection; while there is none it waits in a queue, and that wait counts: every latency is
 * from the scheduled time to the last byte of the answer. So a server that stalls is charged for everybody who came
 * meanwhile (no coordinated omission). --rate 0 is the closed loop: each connection sends again at once, or 20 ms after
 * it was refused; --count N ends it after so many good answers.
 *
 * The generator shares the machine with what it measures. It asks for SCHED_FIFO, so that nothing delays it, and tells
 * what it took itself: its CPU time, and `late`: how long after its time a request was sent although a connection was
 * free. Where that is not far below the latencies, they are the generator's.
 *
 * Input: --requests FILE of records, u32 length and bytes; each MARK in them becomes an id unique in the run.
 * Output: one JSON line per interval (--interval seconds), the last one with "end": what ended in it, as histograms
 * [[bucket, count], …]; a bucket is 1/64 of a power of two nanoseconds (openloop.py reads them).
 * cc -O2 -pthread openloop.c -lm                                                                             */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BUCKETS = 64 * 64, QUEUE = 1 << 22, REPLY_MAX = 16 << 10, MARKS_MAX = 1024, REQUESTS_MAX = 4096, ID_BYTES = 36 };
static const char MARK[] = "@ID@";
static __attribute__((noreturn)) void die(const char *what) { perror(what); exit(1); }
static uint64_t now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }

/* ---- Histograms ---- */
typedef struct { uint64_t count[BUCKETS]; } histogram;
static void add(histogram *h, uint64_t ns) {
    int shift = 57 - __builtin_clzll(ns | 64);
    h->count[shift * 64 + (ns >> shift)]++;        /* below 128 ns: the number itself */
}
static void print_and_clear(const char *name, histogram *h) {
    printf(", \"%s\": [", name);
    for (int i = 0, first = 1; i < BUCKETS; i++) if (h->count[i]) { printf(first ? "[%d,%lu]" : ",[%d,%lu]", i, h->count[i]); first = 0; }
    printf("]");
    memset(h, 0, sizeof *h);
}

/* ---- Requests: pieces between marks, put together in the connection's own buffer ---- */
typedef struct { uint8_t *text; size_t size; size_t marks[MARKS_MAX]; int mark_count; } request;
static request *requests[REQUESTS_MAX]; static int request_count; static size_t request_bytes_max;
static const char *nonce = "00000000"; static uint64_t ids;

static void load_requests(const char *path) {
    FILE *f = fopen(path, "rb"); uint32_t size;
    if (!f) die(path);
    while (request_count < REQUESTS_MAX && fread(&size, 4, 1, f) == 1) {
        request *r = calloc(1, sizeof *r); uint8_t *raw = malloc(size);
        if (!r || !raw || fread(raw, 1, size, f) != size) die("requests");
        r->text = malloc(size + (size_t)MARKS_MAX * ID_BYTES);
        for (uint8_t *p = raw, *end = raw + size; p < end;) {
            uint8_t *mark = memmem(p, end - p, MARK, sizeof MARK - 1), *stop = mark ? mark : end;
            memcpy(r->text + r->size, p, stop - p); r->size += stop - p; p = stop;
            if (mark) {
                if (r->mark_count == MARKS_MAX) { fprintf(stderr, "too many marks in a request\n"); exit(2); }
                r->marks[r->mark_count++] = r->size; r->size += ID_BYTES; p += sizeof MARK - 1;
            }
        }
        if (r->size > request_bytes_max) request_bytes_max = r->size;
        free(raw); requests[request_count++] = r;
    }
    fclose(f);
    if (!request_count) { fprintf(stderr, "no requests in %s\n", path); exit(2); }
}
static void write_id(uint8_t *at) {                /* 36 bytes, as load/common.lua makes them: nonce-000000000012-benchmark-load */
    char digits[13]; uint64_t n = ++ids;
    for (int i = 11; i >= 0; i--) { digits[i] = '0' + n % 10; n /= 10; }
    memcpy(at, nonce, 8); at[8] = '-'; memcpy(at + 9, digits, 12); memcpy(at + 21, "-benchmark-load", 15);
}

/* ---- Connections ---- */
typedef struct { int fd; bool busy, writing; uint64_t due; uint8_t *out; size_t out_size, out_sent; char in[REPLY_MAX]; size_t in_size; } connection;
static connection *all; static int connection_count = 64, epoll_fd, port, *free_ring, free_head, free_count;
static uint64_t *queue, queue_head, queue_count;
static histogram took, late;
static uint64_t done, refused, broken, waited, sent, dropped, busy_count, status_count[600];
static int next_request; static double rate; static bool closing;

static void make_free(connection *c) { c->busy = false; free_ring[(free_head + free_count++) % connection_count] = c - all; }
static void open_connection(connection *c) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int tries = 0;; tries++) {
        if ((c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0) die("socket");
        if (!connect(c->fd, (void *)&a, sizeof a)) break;
        close(c->fd);
        if (tries == 500) die("connect");
        usleep(10000);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK)) die("fcntl");
    struct epoll_event e = {EPOLLIN, {.ptr = c}};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl");
    c->in_size = c->out_size = c->out_sent = 0; c->writing = false;
}
static void lose(connection *c) {                  /* the server closed it: what was on the way counts as broken */
    close(c->fd);
    if (c->busy) { broken++; busy_count--; }
    bool was_busy = c->busy;
    open_connection(c);
    if (was_busy) make_free(c);
}
static void push(connection *c) {
    while (c->out_sent < c->out_size) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) { lose(c); return; }
        c->out_sent += n;
    }
    bool writing = c->out_sent < c->out_size;
    if (writing != c->writing) {
        struct epoll_event e = {writing ? EPOLLIN | EPOLLOUT : EPOLLIN, {.ptr = c}};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
        c->writing = writing;
    }
}
static void begin(uint64_t due) {
    connection *c = &all[free_ring[free_head]]; free_head = (free_head + 1) % connection_count; free_count--;
    request *r = requests[next_request]; next_request = (next_request + 1) % request_count;
    memcpy(c->out, r->text, r->size); c->out_size = r->size; c->out_sent = 0;
    for (int i = 0; i < r->mark_count; i++) write_id(c->out + r->marks[i]);
    c->busy = true; c->due = due; sent++; busy_count++;
    push(c);
}
static bool answer(connection *c, uint64_t now) {  /* takes one whole answer from the buffer */
    char *end = memmem(c->in, c->in_size, "\r\n\r\n", 4);
    if (!end) return false;
    size_t length = 0;
    for (char *p = c->in; (p = memchr(p, '\n', end - p)) && p < end; )
        if (!strncasecmp(++p, "content-length:", 15)) { length = strtoul(p + 15, NULL, 10); break; }
    size_t whole = end + 4 - c->in + length;
    if (whole > REPLY_MAX) { fprintf(stderr, "answer too long\n"); exit(1); }
    if (c->in_size < whole) return false;
    int status = atoi(c->in + 9);
    if (status < 0 || status > 599) status = 0;
    status_count[status]++;
    if (status >= 200 && status < 300) { done++; add(&took, now - c->due); } else refused++;
    memmove(c->in, c->in + whole, c->in_size -= whole);
    busy_count--; make_free(c);
    return true;
}
static void readable(connection *c) {
    ssize_t n = recv(c->fd, c->in + c->in_size, REPLY_MAX - c->in_size, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { lose(c); return; }
    c->in_size += n;
    uint64_t good = done;
    if (c->busy && answer(c, now_ns()) && rate == 0 && !closing && done > good) begin(now_ns());
}

/* ---- The schedule ---- */
static uint64_t seed = 88172645463325252ull, next_due;
static double uniform(void) { seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17; return ((seed >> 11) + 0.5) / 9007199254740992.0; }
static void send_due(uint64_t end) {
    uint64_t now = now_ns();
    while (next_due <= now && next_due < end) {
        if (queue_count == QUEUE) dropped++;
        else queue[(queue_head + queue_count++) % QUEUE] = next_due;
        if (free_count >= (int64_t)queue_count) add(&late, now - next_due); else waited++;
        next_due += 1 + (uint64_t)(-log(uniform()) / rate * 1e9);
        while (queue_count && free_count) { uint64_t due = queue[queue_head]; queue_head = (queue_head + 1) % QUEUE; queue_count--; begin(due); }
        now = now_ns();
    }
    while (queue_count && free_count) { uint64_t due = queue[queue_head]; queue_head = (queue_head + 1) % QUEUE; queue_count--; begin(due); }
}
static double cpu_s(void) {
    struct rusage u; getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}
static void report(double at_s, const char *scheduling, bool end) {
    printf("{\"at_s\": %.3f, \"sent\": %lu, \"done\": %lu, \"refused\": %lu, \"broken\": %lu, \"waited\": %lu, \"dropped\": %lu, \"queued\": %lu, \"cpu_s\": %.4f",
           at_s, sent, done, refused, broken, waited, dropped, queue_count + busy_count, cpu_s());
    print_and_clear("took", &took); print_and_clear("late", &late);
    sent = done = refused = broken = waited = dropped = 0;
    if (end) {
        printf(", \"end\": true, \"scheduling\": \"%s\", \"status\": {", scheduling);
        for (int i = 0, first = 1; i < 600; i++) if (status_count[i]) { printf(first ? "\"%d\": %lu" : ", \"%d\": %lu", i, status_count[i]); first = 0; }
        printf("}");
    }
    printf("}\n"); fflush(stdout);
}
static volatile sig_atomic_t asked_to_end;
static void ask_to_end(int number) { (void)number; asked_to_end = 1; }
int main(int argc, char **argv) {
    double seconds = 5, interval_s = 1; uint64_t count_max = UINT64_MAX, counted = 0; const char *path = NULL; bool first_in_line = true;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--polite")) { first_in_line = false; continue; }
        if (i + 1 == argc) { fprintf(stderr, "usage: openloop --port N --requests FILE [--rate PER_S] [--seconds S] [--count N] [--connections N] [--interval S] [--nonce 8CHARS] [--seed N] [--polite]\n"); return 2; }
        const char *name = argv[i], *value = argv[++i];
        if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--requests")) path = value;
        else if (!strcmp(name, "--rate")) rate = atof(value);
        else if (!strcmp(name, "--seconds")) seconds = atof(value);
        else if (!strcmp(name, "--count")) count_max = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--connections")) connection_count = atoi(value);
        else if (!strcmp(name, "--interval")) interval_s = atof(value);
        else if (!strcmp(name, "--nonce") && strlen(value) == 8) nonce = value;
        else if (!strcmp(name, "--seed")) seed ^= strtoull(value, NULL, 10) * 0x9E3779B97F4A7C15ull;
        else { fprintf(stderr, "openloop: unknown or wrong: %s %s\n", name, value); return 2; }
    }
    if (!path || !port || connection_count < 1) { fprintf(stderr, "openloop: --port and --requests are needed\n"); return 2; }
    load_requests(path);
    signal(SIGTERM, ask_to_end);                   /* ends the schedule; what is on the way is still waited for */
    const char *scheduling = "normal";
    prctl(PR_SET_TIMERSLACK, 1);
    if (first_in_line) {
        if (!sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1})) scheduling = "fifo";
        else if (!setpriority(PRIO_PROCESS, 0, -10)) scheduling = "nice -10";
    }
    epoll_fd = epoll_create1(0);
    all = calloc(connection_count, sizeof *all); free_ring = calloc(connection_count, sizeof *free_ring); queue = malloc(QUEUE * sizeof *queue);
    if (!all || !free_ring || !queue) die("memory");
    for (int i = 0; i < connection_count; i++) { all[i].out = malloc(request_bytes_max); open_connection(&all[i]); make_free(&all[i]); }
    uint64_t begun = now_ns(), end = begun + (uint64_t)(seconds * 1e9), told = begun, step = (uint64_t)(interval_s * 1e9), grace = 5000000000ull, again = 0;
    next_due = begun + 1000000;
    for (;;) {
        uint64_t now = now_ns();
        if (now - told >= step && !closing) { told += step; counted += done; report((told - begun) / 1e9, scheduling, false); now = now_ns(); }
        if (!closing && (asked_to_end || now >= end || counted + done + busy_count >= count_max)) { closing = true; end = now < end ? now : end; }
        if (closing && ((!queue_count && !busy_count) || now > end + grace)) break;
        if (rate > 0) send_due(end);
        else if (now >= again) while (free_count && !closing) begin(now_ns());
        uint64_t until = closing ? now + 10000000 : told + step < end ? told + step : end;
        if (rate > 0 && !closing && next_due < until) until = next_due;
        if (rate == 0 && !closing && again <= now) again = now + 20000000;
        if (rate == 0 && !closing && again < until) until = again;
        now = now_ns();
        uint64_t wait = until > now ? until - now : 0;
        struct timespec pause = {wait / 1000000000, wait % 1000000000};
        struct epoll_event events[64];
        int n = epoll_pwait2(epoll_fd, events, 64, &pause, NULL);
        for (int i = 0; i < n; i++) {
            connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) push(c);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
            if (rate > 0) send_due(end);
        }
    }
    for (int i = 0; i < connection_count; i++) if (all[i].busy) { broken++; add(&took, now_ns() - all[i].due); }    /* never answered: counts with its age */
    while (queue_count) { add(&took, now_ns() - queue[queue_head]); queue_head = (queue_head + 1) % QUEUE; queue_count--; broken++; }
    busy_count = 0;
    report((now_ns() - begun) / 1e9, scheduling, true);
    return 0;
}
