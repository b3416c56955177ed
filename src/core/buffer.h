/* Growable byte buffers, for text whose length is not known beforehand. Not for the training loop. */
#ifndef ESPL_CORE_BUFFER_H
#define ESPL_CORE_BUFFER_H

#include <stddef.h>

typedef struct espl_buffer {
    char *data; /* NUL-terminated whenever not NULL; the NUL is not counted */
    size_t size, capacity;
} espl_buffer;

/* Local. Makes room for `more` bytes after size; aborts when memory is out. */
void espl_buffer_reserve(espl_buffer *buffer, size_t more);

/* Local. Appends bytes. */
void espl_buffer_append(espl_buffer *buffer, const void *bytes, size_t n);

/* Local. Appends formatted text. */
void espl_buffer_printf(espl_buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Local. Frees and zeroes. */
void espl_buffer_free(espl_buffer *buffer);

/* Local. malloc, realloc and strdup that never return NULL: out of host memory outside the arenas ends the job with a message. */
void *espl_malloc(size_t bytes);
void *espl_calloc(size_t n, size_t bytes);
void *espl_realloc(void *old, size_t bytes);
char *espl_strdup(const char *text);

/* Local. printf into a fresh string; the caller frees it. */
char *espl_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Local. Gives the system back what was freed: what a process then has is what it holds, not what passed through it. Where the C library
 * cannot, nothing. */
void espl_memory_return(void);

#endif
