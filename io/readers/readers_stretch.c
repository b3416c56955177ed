#include "io/readers/readers_internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { READ_BYTES = 128 << 10 };

static espl_status drop_mark(espl_stretch *stretch) {
    bool more = true;
    while (more && stretch->end - stretch->at < 3)
        ESPL_TRY(espl__stretch_more(stretch, &more));
    if (stretch->end - stretch->at >= 3 && memcmp(stretch->data + stretch->at, "\xEF\xBB\xBF", 3) == 0)
        espl__stretch_use(stretch, 3);
    return ESPL_OK;
}

espl_status espl__stretch_open(const espl_input *input, int64_t begin, espl_stretch *stretch) {
    *stretch = (espl_stretch){.offset = begin, .line = 1};
    ESPL_TRY(espl__stream_open(input, begin, &stretch->stream));
    if (begin == 0)
        ESPL_TRY(drop_mark(stretch));
    return ESPL_OK;
}

void espl__stretch_close(espl_stretch *stretch) {
    espl__stream_close(&stretch->stream);
    free(stretch->data);
    *stretch = (espl_stretch){0};
}

static void make_room(espl_stretch *stretch) {
    size_t held = stretch->end - stretch->at;
    if (stretch->at > 0)
        memmove(stretch->data, stretch->data + stretch->at, held);
    stretch->at = 0;
    stretch->end = held;
    if (stretch->capacity - held < READ_BYTES) {
        stretch->capacity = 2 * stretch->capacity + READ_BYTES;
        stretch->data = espl_realloc(stretch->data, stretch->capacity);
    }
}

espl_status espl__stretch_more(espl_stretch *stretch, bool *more) {
    size_t got;
    make_room(stretch);
    ESPL_TRY(espl__stream_read(stretch->stream, stretch->data + stretch->end, READ_BYTES, &got));
    stretch->end += got;
    *more = got > 0;
    return ESPL_OK;
}

void espl__stretch_use(espl_stretch *stretch, size_t n) {
    const char *at = stretch->data + stretch->at, *end = at + n;
    while (n > 0 && (at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        stretch->line++;
        at++;
    }
    stretch->at += n;
    stretch->offset += (int64_t)n;
}

espl_status espl__stretch_line(espl_stretch *stretch, const char **text, size_t *size, bool *found) {
    size_t searched = 0;
    const char *newline = NULL;
    bool more = true;
    while (more) {
        size_t held = stretch->end - stretch->at;
        newline = held > searched ? memchr(stretch->data + stretch->at + searched, '\n', held - searched) : NULL;
        if (newline != NULL)
            break;
        searched = held;
        ESPL_TRY(espl__stretch_more(stretch, &more));
    }
    *text = stretch->data + stretch->at;
    *size = newline != NULL ? (size_t)(newline - *text) : stretch->end - stretch->at;
    *found = newline != NULL || *size > 0;
    espl__stretch_use(stretch, *size + (newline != NULL));
    if (newline != NULL && *size > 0 && (*text)[*size - 1] == '\r')
        --*size;
    return ESPL_OK;
}

bool espl__is_blank(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (!isspace((unsigned char)text[i]))
            return false;
    return true;
}
