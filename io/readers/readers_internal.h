/* What the readers' files share: unpacked bytes, and lines out of them. */
#ifndef ESPL_IO_READERS_INTERNAL_H
#define ESPL_IO_READERS_INTERNAL_H

#include "io/readers/readers.h"
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

/* ---- Records. */

enum { ESPL_FIELD_TEXT, ESPL_FIELD_SECOND, ESPL_FIELD_LABEL, ESPL_FIELDS };

/* One field of a record: what it may be called, and whether a record must have it. */
typedef struct espl_field {
    const char *names[2]; /* the first that is there is taken; NULL: none */
    const char *key;      /* the config key that names it */
    bool needed;
} espl_field;

/* What one record holds. On failure `text` says what is wrong, without file and line. */
typedef struct espl_record {
    espl_buffer fields[ESPL_FIELDS];
    bool has[ESPL_FIELDS];
} espl_record;

/* Local. The fields of records under these options. */
void espl__fields_of(const espl_reader_options *options, espl_field fields[ESPL_FIELDS]);

/* Local. Empties a record, and frees one. */
void espl__record_clear(espl_record *record);
void espl__record_free(espl_record *record);

/* ---- JSON. */

/* Local. Takes the fields of one object; false when it is none, or lacks some. */
bool espl__json_record(const char *text, size_t size, const espl_field fields[ESPL_FIELDS], espl_record *record);

/* Local. Uses white space and commas, then says how long the element of an array is that begins at stretch->at. *found false at the
 * array's closing bracket. *closed false when the file ends first. */
espl_status espl__json_element(espl_stretch *stretch, size_t *size, bool *found, bool *closed);

/* ---- CSV. */

/* Local. The bytes of the next record, without using them; *found false at the end; *closed false when the file ends within quotes. */
espl_status espl__csv_next(espl_stretch *stretch, char delimiter, size_t *size, bool *found, bool *closed);

/* The fields of one record, quotes taken off. */
typedef struct espl_csv_row {
    espl_buffer bytes;
    size_t *ends; /* [n] of each field in bytes */
    int64_t n, capacity;
} espl_csv_row;

/* Local. Cuts a record into its fields; false, with what is wrong in row->bytes, when a quoted field goes on behind its quotes. */
bool espl__csv_split(const char *text, size_t size, char delimiter, espl_csv_row *row);
void espl__csv_row_free(espl_csv_row *row);

/* Local. Which column each field stands in, -1: none. On failure *problem says what is missing and what is there; the caller frees it. */
bool espl__csv_columns(const espl_csv_row *header, const espl_field fields[ESPL_FIELDS], int64_t column[ESPL_FIELDS], char **problem);

/* Local. Takes the fields of one row. */
void espl__csv_record(const espl_csv_row *row, const int64_t column[ESPL_FIELDS], espl_record *record);

/* ---- JSON arrays. */

/* Local. Whether a stretch at the begin of a file holds an array of records instead of lines. */
espl_status espl__json_is_array(espl_stretch *stretch, bool *array);

#endif
