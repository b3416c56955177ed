#include "io/readers/readers_internal.h"

#include <stdlib.h>
#include <string.h>

/* RFC 4180: fields end at the delimiter, records at a newline; a field that begins with a quote ends at the next single one, and holds
 * delimiters, newlines and doubled quotes. A quote elsewhere is a character like others. */

typedef struct csv_scan {
    size_t at;
    bool in_field, quoted, left, ended; /* a field has begun; within quotes; just behind them; at a record's end */
} csv_scan;

static void scan_bytes(csv_scan *scan, const char *text, size_t n, char delimiter) {
    for (; scan->at < n && !scan->ended; scan->at++) {
        char c = text[scan->at];
        bool opens = c == '"' && (!scan->in_field || scan->left); /* the second of a doubled quote opens again */
        scan->left = scan->quoted && c == '"';
        if (scan->quoted)
            scan->quoted = c != '"';
        else if (opens)
            scan->quoted = scan->in_field = true;
        else if (c == '\n')
            scan->ended = true;
        else
            scan->in_field = c != delimiter;
    }
}

espl_status espl__csv_next(espl_stretch *stretch, char delimiter, size_t *size, bool *found, bool *closed) {
    csv_scan scan = {0};
    bool more = true;
    while (more && !scan.ended) {
        scan_bytes(&scan, stretch->data + stretch->at, stretch->end - stretch->at, delimiter);
        if (!scan.ended)
            ESPL_TRY(espl__stretch_more(stretch, &more));
    }
    *size = scan.at;
    *found = scan.at > 0;
    *closed = !scan.quoted;
    return ESPL_OK;
}

static void end_field(espl_csv_row *row) {
    if (row->n == row->capacity) {
        row->capacity = 2 * row->capacity + 16;
        row->ends = espl_realloc(row->ends, (size_t)row->capacity * sizeof *row->ends);
    }
    row->ends[row->n++] = row->bytes.size;
}

/* Appends what stands between quotes, from behind the first one; returns where it goes on behind the last one. */
static size_t take_quoted(const char *text, size_t size, size_t at, espl_buffer *bytes) {
    while (at < size) {
        const char *quote = memchr(text + at, '"', size - at);
        size_t end = quote != NULL ? (size_t)(quote - text) : size;
        bool doubled = end + 1 < size && text[end + 1] == '"';
        espl_buffer_append(bytes, text + at, end - at + doubled);
        at = end + 1 + doubled;
        if (!doubled)
            break;
    }
    return at < size ? at : size;
}

static size_t take_plain(const char *text, size_t size, size_t at, char delimiter, espl_buffer *bytes) {
    const char *end = memchr(text + at, delimiter, size - at);
    size_t n = end != NULL ? (size_t)(end - text) - at : size - at;
    espl_buffer_append(bytes, text + at, n);
    return at + n;
}

bool espl__csv_split(const char *text, size_t size, char delimiter, espl_csv_row *row) {
    size -= size > 0 && text[size - 1] == '\n';
    size -= size > 0 && text[size - 1] == '\r';
    row->bytes.size = 0;
    row->n = 0;
    for (size_t at = 0; at <= size; at++) { /* at the begin of a field, then at the delimiter behind it */
        if (at < size && text[at] == '"')
            at = take_quoted(text, size, at + 1, &row->bytes);
        else
            at = take_plain(text, size, at, delimiter, &row->bytes);
        end_field(row);
        if (at < size && text[at] != delimiter) {
            row->bytes.size = 0;
            espl_buffer_printf(&row->bytes,
                               "field %lld goes on behind its closing quote, expected a delimiter or the line's end there "
                               "and quotes within quotes doubled",
                               (long long)row->n);
            return false;
        }
    }
    return true;
}

void espl__csv_row_free(espl_csv_row *row) {
    espl_buffer_free(&row->bytes);
    free(row->ends);
}

static const char *field_at(const espl_csv_row *row, int64_t i, size_t *size) {
    size_t begin = i > 0 ? row->ends[i - 1] : 0;
    *size = row->ends[i] - begin;
    return *size > 0 ? row->bytes.data + begin : "";
}

static int64_t find_column(const espl_csv_row *header, const char *name) {
    for (int64_t i = 0; i < header->n && name != NULL; i++) {
        size_t size;
        const char *text = field_at(header, i, &size);
        if (size == strlen(name) && memcmp(text, name, size) == 0)
            return i;
    }
    return -1;
}

static char *missing_column(const espl_csv_row *header, const espl_field *field) {
    espl_buffer problem = {0};
    espl_buffer_printf(&problem, "there is no column '%s'; the first line names the columns", field->names[0]);
    for (int64_t i = 0; i < header->n; i++) {
        size_t size;
        const char *text = field_at(header, i, &size);
        espl_buffer_printf(&problem, "%s %.*s", i > 0 ? "," : "", (int)(size < 64 ? size : 64), text);
    }
    espl_buffer_printf(&problem, "; %s says which to take", field->key);
    return problem.data;
}

bool espl__csv_columns(const espl_csv_row *header, const espl_field fields[ESPL_FIELDS], int64_t column[ESPL_FIELDS], char **problem) {
    for (int f = 0; f < ESPL_FIELDS; f++) {
        column[f] = find_column(header, fields[f].names[0]);
        if (column[f] < 0)
            column[f] = find_column(header, fields[f].names[1]);
        if (column[f] < 0 && fields[f].needed) {
            *problem = missing_column(header, &fields[f]);
            return false;
        }
    }
    return true;
}

void espl__csv_record(const espl_csv_row *row, const int64_t column[ESPL_FIELDS], espl_record *record) {
    espl__record_clear(record);
    for (int f = 0; f < ESPL_FIELDS; f++) {
        size_t size;
        record->has[f] = column[f] >= 0;
        if (!record->has[f])
            continue;
        const char *text = field_at(row, column[f], &size);
        espl_buffer_append(&record->fields[f], text, size);
    }
}
