/* Texts with their way back to the source, and the little of UTF-8 that the stages need. */
#include "io/tokenizer/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void *espl__grow(void *at, size_t size, size_t needed, size_t *capacity) {
    size_t room = *capacity + *capacity / 2;
    *capacity = room < needed ? needed + 16 : room;
    return espl_realloc(at, *capacity * size);
}

static bool between(unsigned char c, int low, int high) { return c >= low && c <= high; }

int espl__utf8_next(const char *s, size_t n) {
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80)
        return 1;
    int size = u[0] >= 0xF0 ? 4 : u[0] >= 0xE0 ? 3 : 2;
    if (!between(u[0], 0xC2, 0xF4))
        return -1;
    int low = u[0] == 0xE0 ? 0xA0 : u[0] == 0xF0 ? 0x90 : 0x80, high = u[0] == 0xED ? 0x9F : u[0] == 0xF4 ? 0x8F : 0xBF;
    if (n < 2 || !between(u[1], low, high))
        return -1;
    for (int i = 2; i < size; i++)
        if ((size_t)i >= n || !between(u[i], 0x80, 0xBF))
            return -i;
    return size;
}

int32_t espl__utf8_decode(const char *s, int *size) {
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80)
        return *size = 1, u[0];
    if (u[0] < 0xE0)
        return *size = 2, (u[0] & 0x1F) << 6 | (u[1] & 0x3F);
    if (u[0] < 0xF0)
        return *size = 3, (u[0] & 0x0F) << 12 | (u[1] & 0x3F) << 6 | (u[2] & 0x3F);
    return *size = 4, (u[0] & 0x07) << 18 | (u[1] & 0x3F) << 12 | (u[2] & 0x3F) << 6 | (u[3] & 0x3F);
}

int espl__utf8_encode(int32_t code, char out[4]) { return (int)utf8proc_encode_char(code, (utf8proc_uint8_t *)out); }

/* Bytes that print keep their code; the others (0x00-0x20, 0x7F-0xA0, 0xAD) get 256, 257, ... in order. */
int espl__byte_of(int32_t code) {
    if (code >= 256)
        return code <= 288 ? code - 256 : code <= 322 ? code - 289 + 0x7F : code == 323 ? 0xAD : -1;
    return code <= 0x20 || (code >= 0x7F && code <= 0xA0) || code == 0xAD ? -1 : code;
}

int espl__byte_char(unsigned char byte, char out[4]) {
    int32_t code = byte <= 0x20 ? byte + 256 : byte >= 0x7F && byte <= 0xA0 ? byte - 0x7F + 289 : byte == 0xAD ? 323 : byte;
    return espl__utf8_encode(code, out);
}

bool espl__is_space(int32_t code) {
    return (code >= 9 && code <= 13) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool espl__is_numeric(int32_t code) {
    int category = utf8proc_category(code);
    return (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) ||
           (category == 0 && (espl__unicode_newer('D', code) || espl__unicode_newer('N', code)));
}

void espl__text_clear(espl__text *text, bool tracked) {
    text->n = 0;
    if (tracked && !text->map && text->capacity)
        text->map = espl_malloc(text->capacity * sizeof *text->map);
    text->tracked = tracked;
}

void espl__text_free(espl__text *text) {
    free(text->data);
    free(text->map);
    *text = (espl__text){0};
}

static void text_reserve(espl__text *text, size_t more) {
    if (text->capacity - text->n >= more)
        return;
    text->data = espl__grow(text->data, 1, text->n + more, &text->capacity);
    if (text->tracked || text->map)
        text->map = espl_realloc(text->map, text->capacity * sizeof *text->map);
}

espl__slice espl__text_slice(const espl__text *text) {
    return (espl__slice){.data = text->data ? text->data : "", .n = text->n, .map = text->tracked ? text->map : NULL};
}

void espl__text_append(espl__text *text, espl__slice slice) {
    if (slice.n == 0)
        return;
    text_reserve(text, slice.n);
    memcpy(text->data + text->n, slice.data, slice.n);
    if (text->tracked)
        memcpy(text->map + text->n, slice.map, slice.n * sizeof *slice.map);
    text->n += slice.n;
}

void espl__text_fill(espl__text *text, const char *data, size_t n, espl__span span) {
    text_reserve(text, n);
    for (size_t i = 0; i < n; i++)
        text->data[text->n + i] = data[i];
    for (size_t i = 0; text->tracked && i < n; i++)
        text->map[text->n + i] = span;
    text->n += n;
}

espl__slice espl__slice_part(espl__slice slice, size_t begin, size_t end) {
    const espl__span *map = slice.map ? slice.map + begin : NULL;
    return (espl__slice){.data = slice.data + begin, .n = end - begin, .map = map, .shift = slice.shift};
}

espl__span espl__slice_span(const espl__slice *slice, ptrdiff_t i) {
    if (!slice->map || i < 0 || (size_t)i >= slice->n)
        return (espl__span){slice->shift, slice->shift};
    return slice->map[i];
}

void espl__text_byte_level(espl__text *text, espl__slice slice) {
    for (size_t i = 0; i < slice.n; i++) {
        char bytes[4];
        espl__text_fill(text, bytes, (size_t)espl__byte_char((unsigned char)slice.data[i], bytes), espl__slice_span(&slice, (ptrdiff_t)i));
    }
}

bool espl__bytes_of(const char *token, size_t n, espl_buffer *out) {
    size_t before = out->size;
    int size;
    for (size_t i = 0; i < n; i += (size_t)size) {
        int byte = espl__byte_of(espl__utf8_decode(token + i, &size));
        if (byte < 0) {
            out->size = before;
            return false;
        }
        espl_buffer_append(out, &(char){(char)byte}, 1);
    }
    return true;
}

espl__text *espl__scratch_next(espl__scratch *scratch) {
    espl__text *text = &scratch->texts[scratch->turn];
    espl__text_clear(text, scratch->tracked);
    return text;
}

void espl__scratch_turn(espl__scratch *scratch) {
    scratch->text = espl__text_slice(&scratch->texts[scratch->turn]);
    scratch->turn = !scratch->turn;
}

espl__slice espl__scratch_piece(const espl__scratch *scratch, const espl__piece *piece) {
    espl__slice slice = espl__slice_part(scratch->text, piece->begin, piece->end);
    slice.shift = piece->shift;
    return slice;
}

void espl__scratch_free(espl__scratch *scratch) {
    espl__text *texts[] = {&scratch->source, &scratch->texts[0], &scratch->texts[1], &scratch->chain[0], &scratch->chain[1]};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        espl__text_free(texts[i]);
    free(scratch->pieces.at);
    free(scratch->spare.at);
    free(scratch->matches.at);
    free(scratch->changes.at);
    free(scratch->composed.at);
    free(scratch->symbols.at);
    espl__regex_work_free(&scratch->regex);
    espl_encoding_free(&scratch->encoded[0]);
    espl_encoding_free(&scratch->encoded[1]);
}
