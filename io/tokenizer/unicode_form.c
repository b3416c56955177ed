/* Unicode normalisation forms (UAX 15) that remember where each character came from.
 *
 * utf8proc normalises whole strings; here it serves one character at a time, so that every code point carries a change: 0 when it stands
 * for one character of the input, 1 when it came in addition (the tail of a decomposition), -k when it swallowed the k after it
 * (composition). Walking the result beside the input turns the changes into spans. */
#include "io/tokenizer/tokenizer_parts.h"

#include <utf8proc.h>

static int32_t order_of(int32_t code) {
    int32_t order = (int32_t)utf8proc_get_property(code)->combining_class;
    return order > 0 && espl__unicode_later('O', code) ? 0 : order;
}

static void decompose(espl__slice in, bool compatible, espl__changes *out) {
    int size;
    out->n = 0;
    for (size_t i = 0; i < in.n; i += (size_t)size) {
        int32_t code = espl__utf8_decode(in.data + i, &size), codes[32];
        int last_boundclass = 0;
        utf8proc_option_t options = UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
        utf8proc_ssize_t n = utf8proc_decompose_char(code, codes, 32, options, &last_boundclass);
        if (n > 0 && codes[0] != code && espl__unicode_later('D', code)) {
            codes[0] = code;
            n = 1;
        }
        for (utf8proc_ssize_t k = 0; k < n && k < 32; k++)
            ESPL__PUSH(out, (espl__change){codes[k], k > 0, order_of(codes[k])});
    }
}

/* Stable order by combining class within each run of marks (insertion would be quadratic on a long run: counting by class is not). */
static void order_run(espl__change *run, size_t n, espl__changes *spare) {
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++)
        at[run[i].order + 1]++;
    for (int c = 0; c < 256; c++)
        at[c + 1] += at[c];
    spare->n = 0;
    ESPL__RESERVE(spare, n);
    for (size_t i = 0; i < n; i++)
        spare->at[at[run[i].order]++] = run[i];
    for (size_t i = 0; i < n; i++)
        run[i] = spare->at[i];
}

static void order_marks(espl__changes *changes, espl__changes *spare) {
    for (size_t i = 0; i < changes->n;) {
        size_t end = i;
        bool sorted = true;
        while (end < changes->n && changes->at[end].order != 0) {
            sorted = sorted && (end == i || changes->at[end - 1].order <= changes->at[end].order);
            end++;
        }
        if (!sorted)
            order_run(changes->at + i, end - i, spare);
        i = end + 1;
    }
}

enum { L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11A7, S_BASE = 0xAC00, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = 11172 };

/* The character that a and b compose to, or -1. No composition has a second part below U+0300. */
static int32_t compose_pair(int32_t a, int32_t b) {
    if (b < 0x300)
        return -1;
    if (a >= L_BASE && a < L_BASE + L_COUNT && b >= V_BASE && b < V_BASE + V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a >= S_BASE && a < S_BASE + S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE && b < T_BASE + T_COUNT)
        return a + (b - T_BASE);
    utf8proc_int32_t pair[2] = {a, b};
    bool one = utf8proc_normalize_utf32(pair, 2, UTF8PROC_STABLE | UTF8PROC_COMPOSE) == 1;
    return one && !espl__unicode_later('D', pair[0]) ? pair[0] : -1;
}

/* UAX 15, canonical composition: a mark joins the last starter unless one of its own or a higher class stands between. */
static void compose(const espl__changes *in, espl__changes *out) {
    ptrdiff_t starter = -1;
    int32_t last_order = -1; /* of the marks kept since the starter; -1: none */
    out->n = 0;
    for (size_t i = 0; i < in->n; i++) {
        espl__change c = in->at[i];
        if (starter >= 0 && last_order < c.order) {
            int32_t composed = compose_pair(out->at[starter].code, c.code);
            if (composed >= 0) {
                out->at[starter].code = composed;
                out->at[starter].change += c.change - 1;
                continue;
            }
        }
        if (c.order == 0) {
            starter = (ptrdiff_t)out->n;
            last_order = -1;
        } else {
            last_order = c.order;
        }
        ESPL__PUSH(out, c);
    }
}

void espl__changes_write(const espl__changes *changes, espl__slice in, espl__text *out) {
    size_t at = 0;
    int size;
    for (size_t i = 0; i < changes->n; i++) {
        espl__change c = changes->at[i];
        char bytes[4];
        espl__span span = espl__slice_span(&in, (ptrdiff_t)at - (c.change > 0));
        espl__text_fill(out, bytes, (size_t)espl__utf8_encode(c.code, bytes), span);
        for (int32_t taken = c.change; taken <= 0 && at < in.n; taken++) {
            espl__utf8_decode(in.data + at, &size);
            at += (size_t)size;
        }
    }
}

void espl__unicode_form(espl__form form, espl__scratch *scratch, espl__slice in, espl__text *out) {
    espl__changes *changes = &scratch->changes, *composed = &scratch->composed;
    decompose(in, form == ESPL__NFKC || form == ESPL__NFKD, changes);
    order_marks(changes, composed);
    if (form == ESPL__NFC || form == ESPL__NFKC) {
        compose(changes, composed);
        changes = composed;
    }
    espl__changes_write(changes, in, out);
}
