/* What the readers' files share: unpacked bytes, and lines out of them. */
#ifndef ESPL_IO_READERS_INTERNAL_H
#define ESPL_IO_READERS_INTERNAL_H

#include "io/readers.h"
#include "src/core/buffer.h"

/* ---- Bytes of a file, unpacked. */

typedef struct espl_stream espl_stream;

/* Local. Opens a file at byte `begin` (0 unless plain). Errors: io. */
espl_status espl__stream_open(const espl_input *input, int64_t begin, espl_stream **stream);

/* Local. Up to n > 0 bytes; *got is 0 only at the end. Errors: io; data, when packed bytes are damaged or cut short. */
espl_status espl__stream_read(espl_stream *stream, char *to, size_t n, size_t *got);

/* Local. Takes the address, nulls it, accepts NULL. */
void espl__stream_close(espl_stream **stream);

/* ---- A stretch of those bytes in memory. */

typedef struct espl_stretch {
    espl_stream *stream;
    char *data; /* [capacity]; bytes [at, end) are read and not yet used */
    size_t at, end, capacity;
    int64_t offset; /* of data[at] in the unpacked file */
    int64_t line;   /* of data[at], from 1; counted from where the stretch was opened */
} espl_stretch;

/* Local. Opens at byte `begin`; at 0 a byte order mark is dropped. */
espl_status espl__stretch_open(const espl_input *input, int64_t begin, espl_stretch *stretch);

/* Local. Reads more behind `end`, moving what is unused to the front; *more false at the end of the file. */
espl_status espl__stretch_more(espl_stretch *stretch, bool *more);

/* Local. Uses n bytes, counting their lines. */
void espl__stretch_use(espl_stretch *stretch, size_t n);

/* Local. Uses the next line; text is without its LF or CR LF and stands until the next call. *found false at the end. */
espl_status espl__stretch_line(espl_stretch *stretch, const char **text, size_t *size, bool *found);

/* Local. Closes and zeroes. */
void espl__stretch_close(espl_stretch *stretch);

/* Local. Whether there is nothing but white space. */
bool espl__is_blank(const char *text, size_t size);

/* ---- JSON. */

/* Local. The text of one record, an object with a string under text_field: `text` is replaced by it. On failure
 * `text` says what is wrong, without file and line, and false is returned. */
bool espl__json_text(const char *record, size_t size, const char *text_field, espl_buffer *text);

/* Local. Uses white space and commas, then says how long the element of an array is that begins at stretch->at. *found false at the
 * array's closing bracket. *closed false when the file ends first. */
espl_status espl__json_element(espl_stretch *stretch, size_t *size, bool *found, bool *closed);

/* Local. Whether a stretch at the begin of a file holds an array of records instead of lines. */
espl_status espl__json_is_array(espl_stretch *stretch, bool *array);

#endif
