#include "src/core/buffer.h"

#include "src/core/status.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void *espl_realloc(void *old, size_t bytes) {
    void *p = realloc(old, bytes > 0 ? bytes : 1);
    ESPL_ASSERT(p != NULL, "out of host memory: %zu bytes", bytes);
    return p;
}

void *espl_malloc(size_t bytes) { return espl_realloc(NULL, bytes); }

void *espl_calloc(size_t n, size_t bytes) {
    void *p = calloc(n > 0 ? n : 1, bytes > 0 ? bytes : 1);
    ESPL_ASSERT(p != NULL, "out of host memory: %zu times %zu bytes", n, bytes);
    return p;
}

char *espl_strdup(const char *text) {
    size_t n = strlen(text) + 1;
    return memcpy(espl_malloc(n), text, n);
}

void espl_buffer_reserve(espl_buffer *buffer, size_t more) {
    size_t need = buffer->size + more + 1;
    if (need <= buffer->capacity)
        return;
    size_t capacity = buffer->capacity * 2 > need ? buffer->capacity * 2 : need;
    buffer->data = espl_realloc(buffer->data, capacity);
    buffer->capacity = capacity;
    buffer->data[buffer->size] = '\0';
}

void espl_buffer_append(espl_buffer *buffer, const void *bytes, size_t n) {
    espl_buffer_reserve(buffer, n);
    if (n > 0)
        memcpy(buffer->data + buffer->size, bytes, n);
    buffer->size += n;
    buffer->data[buffer->size] = '\0';
}

static void append_formatted(espl_buffer *buffer, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    ESPL_ASSERT(n >= 0, "format \"%s\" cannot be printed", format);
    espl_buffer_reserve(buffer, (size_t)n);
    vsnprintf(buffer->data + buffer->size, (size_t)n + 1, format, again);
    buffer->size += (size_t)n;
    va_end(again);
}

void espl_buffer_printf(espl_buffer *buffer, const char *format, ...) {
    va_list args;
    va_start(args, format);
    append_formatted(buffer, format, args);
    va_end(args);
}

char *espl_format(const char *format, ...) {
    espl_buffer buffer = {0};
    va_list args;
    va_start(args, format);
    append_formatted(&buffer, format, args);
    va_end(args);
    return buffer.data;
}

void espl_buffer_free(espl_buffer *buffer) {
    free(buffer->data);
    *buffer = (espl_buffer){0};
}

void espl_memory_return(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
