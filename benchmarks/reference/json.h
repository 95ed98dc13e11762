/* A validating JSON scanner for the reference server: the whole text is checked (grammar, UTF-8, depth), no tree is
 * built, and the five top-level fields of an event are found. Each function returns the place after what it read, or
 * NULL. A field name written with escapes is not recognised (no tracker writes one).                             */
#ifndef REFERENCE_JSON_H
#define REFERENCE_JSON_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { DEPTH_MAX = 256 };
typedef const uint8_t *text;
typedef struct { text at; size_t size; } slice;
enum kind { ABSENT, STRING, NUMBER, OTHER, NOTHING };
enum { TYPE, EVENT, MESSAGE_ID, ANONYMOUS_ID, USER_ID, FIELDS };
static const char *FIELD_NAME[FIELDS] = {"type", "event", "messageId", "anonymousId", "userId"};
typedef struct { enum kind kind[FIELDS]; slice field[FIELDS]; uint32_t events, refused; bool has_batch; } facts;
enum mode { NESTED, SINGLE, BATCH };

static int wrong_field(const facts *f) {      /* ids may be numbers, the other three are text; null is absent; -1: all fine */
    for (int i = 0; i < FIELDS; i++) if (f->kind[i] == OTHER || (i < ANONYMOUS_ID && f->kind[i] == NUMBER)) return i;
    return -1;
}

static text utf8(text p, text end) {          /* one sequence of 2 to 4 bytes, no overlongs, no surrogates */
    int more = *p >= 0xc2 && *p < 0xe0 ? 1 : (*p & 0xf0) == 0xe0 ? 2 : *p >= 0xf0 && *p < 0xf5 ? 3 : 0;
    if (!more || end - p <= more) return NULL;
    for (int i = 1; i <= more; i++) if ((p[i] & 0xc0) != 0x80) return NULL;
    if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f)) return NULL;
    return p + more + 1;
}
static text plain(text p, text end) {         /* skip bytes that are neither quote, backslash, control nor >= 0x80 */
#ifdef __SSE2__
    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);       /* signed compare: < 0x20 covers >= 0x80 too */
        __m128i stop = _mm_or_si128(_mm_cmplt_epi8(v, _mm_set1_epi8(0x20)),
            _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))));
        int mask = _mm_movemask_epi8(stop);
        if (mask) return p + __builtin_ctz(mask);
    }
#endif
    while (p < end && *p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\') p++;
    return p;
}
static bool is_hex(uint8_t c) { return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f'); }
static bool is_digit(text p, text end) { return p < end && *p >= '0' && *p <= '9'; }
static text string(text p, text end) {        /* p is after the opening quote */
    for (;;) {
        if ((p = plain(p, end)) >= end || *p < 0x20) return NULL;
        if (*p == '"') return p + 1;
        if (*p >= 0x80) { if (!(p = utf8(p, end))) return NULL; continue; }
        if (end - p < 2 || !p[1] || !strchr("\"\\/bfnrtu", p[1])) return NULL;
        if (p[1] == 'u') { for (int i = 2; i < 6; i++) if (end - p <= i || !is_hex(p[i])) return NULL; p += 4; }
        p += 2;
    }
}
static text number(text p, text end) {
    if (*p == '-') p++;
    if (!is_digit(p, end)) return NULL;
    if (*p == '0') p++; else while (is_digit(p, end)) p++;
    if (p < end && *p == '.') { if (!is_digit(++p, end)) return NULL; while (is_digit(p, end)) p++; }
    if (p < end && (*p | 32) == 'e') {
        if (++p < end && (*p == '+' || *p == '-')) p++;
        if (!is_digit(p, end)) return NULL;
        while (is_digit(p, end)) p++;
    }
    return p;
}
static text space(text p, text end) { while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++; return p; }
static text word(text p, text end, const char *w, size_t n) { return (size_t)(end - p) >= n && !memcmp(p, w, n) ? p + n : NULL; }
static text object(text p, text end, int depth, enum mode mode, facts *f);
static text value(text p, text end, int depth, enum mode mode, facts *f);

static text array(text p, text end, int depth, enum mode mode, facts *f) {      /* p is after the bracket */
    if (depth > DEPTH_MAX) return NULL;
    if ((p = space(p, end)) < end && *p == ']') return p + 1;
    for (;;) {
        if (mode == BATCH) {                   /* the elements of `batch` are events, each judged alone */
            facts e = {0};
            if ((p = space(p, end)) >= end) return NULL;
            bool bad = *p != '{';
            if (!(p = value(p, end, depth + 1, SINGLE, &e))) return NULL;
            if (bad || wrong_field(&e) >= 0) f->refused++; else f->events++;
        } else if (!(p = value(p, end, depth + 1, NESTED, NULL))) return NULL;
        if ((p = space(p, end)) >= end) return NULL;
        if (*p == ']') return p + 1;
        if (*p++ != ',') return NULL;
    }
}
static text value(text p, text end, int depth, enum mode mode, facts *f) {
    if ((p = space(p, end)) >= end) return NULL;
    switch (*p) {
    case '"': return string(p + 1, end);
    case '{': return object(p + 1, end, depth, mode, f);
    case '[': return array(p + 1, end, depth, mode == BATCH ? BATCH : NESTED, f);
    case 't': return word(p, end, "true", 4);
    case 'f': return word(p, end, "false", 5);
    case 'n': return word(p, end, "null", 4);
    default: return number(p, end);
    }
}
static text object(text p, text end, int depth, enum mode mode, facts *f) {     /* p is after the brace */
    if (depth > DEPTH_MAX) return NULL;
    if ((p = space(p, end)) < end && *p == '}') return p + 1;
    for (;;) {
        if ((p = space(p, end)) >= end || *p != '"') return NULL;
        text name = p + 1;
        if (!(p = string(name, end))) return NULL;
        size_t size = p - 1 - name;
        if ((p = space(p, end)) >= end || *p != ':') return NULL;
        if ((p = space(p + 1, end)) >= end) return NULL;
        text from = p;
        bool batch = mode == BATCH && size == 5 && !memcmp(name, "batch", 5);
        if (batch) { if (*p != '[') return NULL; f->has_batch = true; }
        if (!(p = value(p, end, depth + 1, batch ? BATCH : NESTED, f))) return NULL;
        if (mode == SINGLE && size <= 11)
            for (int i = 0; i < FIELDS; i++)
                if (size == strlen(FIELD_NAME[i]) && !memcmp(name, FIELD_NAME[i], size)) {
                    f->kind[i] = *from == '"' ? STRING : *from == 'n' ? NOTHING : *from == '-' || is_digit(from, end) ? NUMBER : OTHER;
                    f->field[i] = (slice){from, p - from};
                }
        if ((p = space(p, end)) >= end) return NULL;
        if (*p == '}') return p + 1;
        if (*p++ != ',') return NULL;
    }
}
#endif
