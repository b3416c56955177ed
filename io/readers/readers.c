#include "io/readers/readers.h"

#include "io/fsio.h"
#include "io/readers/readers_internal.h"
#include "src/core/log.h"

#include <stdlib.h>
#include <string.h>

enum { WARNINGS = 3 }; /* bad records that a reader names one by one; the rest is counted */

typedef espl_status next_function(espl_reader *reader, espl_document *document, bool *found);

struct espl_reader {
    const espl_input *input;
    espl_share share;
    espl_reader_options options;
    next_function *next;
    espl_stretch stretch;
    espl_buffer text; /* a paragraph */
    espl_field fields[ESPL_FIELDS];
    espl_record record;
    espl_csv_row row;
    int64_t n_columns, column[ESPL_FIELDS]; /* CSV; 0: the header has not been read */
    int64_t offset, line;                   /* where the last record begins; line counted from share.begin */
    int64_t n_skipped;
    bool owned; /* paragraphs: the next one begins in this share */
    bool finished;
};

int64_t espl_reader_skipped(const espl_reader *reader) { return reader->n_skipped; }

static espl_status count_newlines(const espl_input *input, int64_t end, int64_t *lines) {
    espl_stretch stretch;
    bool more = true;
    espl_status status = espl__stretch_open(input, 0, &stretch);
    while (status == ESPL_OK && more && stretch.offset < end) {
        size_t held = stretch.end - stretch.at;
        int64_t left = end - stretch.offset;
        espl__stretch_use(&stretch, (int64_t)held < left ? held : (size_t)left);
        status = espl__stretch_more(&stretch, &more);
    }
    *lines = stretch.line - 1;
    espl__stretch_close(&stretch);
    return status;
}

/* Only messages ask for it, so counting again from the file's begin is cheap enough. */
int64_t espl_reader_line(espl_reader *reader) {
    int64_t before = 0;
    if (reader->share.begin > 0 && count_newlines(reader->input, reader->share.begin - 1, &before) != ESPL_OK)
        espl_status_clear();
    return before + reader->line;
}

/* A bad record: an error, or a warning where they are to be skipped. */
espl_status espl_reader_reject(espl_reader *reader, const char *problem) {
    const char *path = reader->input->path;
    if (!reader->options.skip_bad)
        ESPL_FAIL(ESPL_ERR_DATA, "%s:%lld: %s", path, (long long)espl_reader_line(reader), problem);
    if (reader->n_skipped++ < WARNINGS && !reader->options.silent)
        ESPL_WARN("%s:%lld: %s; skipped", path, (long long)espl_reader_line(reader), problem);
    return ESPL_OK;
}

static void give(espl_reader *reader, const char *text, size_t size, espl_document *document, bool *found) {
    *document = (espl_document){.text = text, .size = size, .path = reader->input->path, .offset = reader->offset};
    *found = true;
}

static void mark_record(espl_reader *reader) {
    reader->offset = reader->stretch.offset;
    reader->line = reader->stretch.line;
}

/* The next line that begins in the share and is not blank. */
static espl_status next_line(espl_reader *reader, const char **text, size_t *size, bool *found) {
    do {
        mark_record(reader);
        *found = false;
        if (reader->offset >= reader->share.end)
            return ESPL_OK;
        ESPL_TRY(espl__stretch_line(&reader->stretch, text, size, found));
    } while (*found && espl__is_blank(*text, *size));
    return ESPL_OK;
}

static espl_status next_text_line(espl_reader *reader, espl_document *document, bool *found) {
    const char *text;
    size_t size;
    ESPL_TRY(next_line(reader, &text, &size, found));
    if (*found)
        give(reader, text, size, document, found);
    return ESPL_OK;
}

/* The first field that is blank where a task needs all of them, -1: none. */
static int blank_field(const espl_reader *reader) {
    for (int f = 0; f < ESPL_FIELDS && reader->options.kind != ESPL_READ_PLAIN; f++)
        if (reader->record.has[f] && espl__is_blank(reader->record.fields[f].data, reader->record.fields[f].size))
            return f;
    return -1;
}

static const char *field_text(const espl_record *record, int f) {
    return !record->has[f] ? NULL : record->fields[f].size > 0 ? record->fields[f].data : "";
}

/* A record whose fields are at hand: a document, unless it is blank; that is a bad record where it should have more than a text. */
static espl_status give_record(espl_reader *reader, espl_document *document, bool *found) {
    espl_record *record = &reader->record;
    int blank = blank_field(reader);
    if (blank >= 0) {
        char problem[256];
        snprintf(problem, sizeof problem, "'%s' is empty, expected text in it", reader->fields[blank].names[0]);
        return espl_reader_reject(reader, problem);
    }
    const espl_buffer *text = &record->fields[ESPL_FIELD_TEXT];
    if (espl__is_blank(text->data, text->size))
        return ESPL_OK;
    give(reader, text->data, text->size, document, found);
    document->second = field_text(record, ESPL_FIELD_SECOND);
    document->second_size = record->fields[ESPL_FIELD_SECOND].size;
    document->label = field_text(record, ESPL_FIELD_LABEL);
    document->label_size = record->fields[ESPL_FIELD_LABEL].size;
    return ESPL_OK;
}

/* Whether a record gave a document; when not, it is skipped or the status says why. */
static espl_status take_record(espl_reader *reader, const char *record, size_t size, espl_document *document, bool *found) {
    *found = false;
    if (reader->options.kind == ESPL_READ_RECORD) {
        give(reader, record, size, document, found);
        return ESPL_OK;
    }
    if (!espl__json_record(record, size, reader->fields, &reader->record))
        return espl_reader_reject(reader, reader->record.fields[ESPL_FIELD_TEXT].data);
    return give_record(reader, document, found);
}

static espl_status next_json_line(espl_reader *reader, espl_document *document, bool *found) {
    const char *record;
    size_t size;
    for (*found = false; !*found;) {
        bool line;
        ESPL_TRY(next_line(reader, &record, &size, &line));
        if (!line)
            return ESPL_OK;
        ESPL_TRY(take_record(reader, record, size, document, found));
    }
    return ESPL_OK;
}

static espl_status finish_array(espl_reader *reader) {
    const char *text;
    size_t size;
    bool line = true;
    reader->finished = true;
    espl__stretch_use(&reader->stretch, 1);
    while (line) {
        mark_record(reader);
        ESPL_TRY(espl__stretch_line(&reader->stretch, &text, &size, &line));
        if (line && !espl__is_blank(text, size))
            return espl_reader_reject(reader, "something stands behind the closing bracket of the array, expected the end of the file");
    }
    return ESPL_OK;
}

static espl_status next_element(espl_reader *reader, espl_document *document, bool *found) {
    for (*found = false; !*found && !reader->finished;) {
        size_t size;
        bool element, closed;
        ESPL_TRY(espl__json_element(&reader->stretch, &size, &element, &closed));
        mark_record(reader);
        if (!element)
            return finish_array(reader);
        if (!closed) {
            reader->finished = true;
            return espl_reader_reject(reader, "the file ends within the array, expected its closing bracket");
        }
        ESPL_TRY(take_record(reader, reader->stretch.data + reader->stretch.at, size, document, found));
        espl__stretch_use(&reader->stretch, size);
    }
    return ESPL_OK;
}

/* A file is an array or lines; the first byte that is no white space tells. */
static espl_status next_json(espl_reader *reader, espl_document *document, bool *found) {
    bool array = false;
    if (reader->share.begin == 0)
        ESPL_TRY(espl__json_is_array(&reader->stretch, &array));
    if (array) {
        while (reader->stretch.data[reader->stretch.at] != '[')
            espl__stretch_use(&reader->stretch, 1);
        espl__stretch_use(&reader->stretch, 1);
    }
    reader->next = array ? next_element : next_json_line;
    return reader->next(reader, document, found);
}

/* The next record that is not an empty line, cut into its fields; a bad one is skipped or the status says why. */
static espl_status next_row(espl_reader *reader, char delimiter, bool *found) {
    for (;;) {
        size_t size;
        bool closed;
        mark_record(reader);
        ESPL_TRY(espl__csv_next(&reader->stretch, delimiter, &size, found, &closed));
        if (!*found)
            return ESPL_OK;
        const char *text = reader->stretch.data + reader->stretch.at;
        bool blank = espl__is_blank(text, size) && memchr(text, delimiter, size) == NULL;
        bool good = closed && espl__csv_split(text, size, delimiter, &reader->row);
        espl__stretch_use(&reader->stretch, size);
        if (!closed)
            ESPL_TRY(espl_reader_reject(
                reader, "the file ends within quotes that open here, expected a closing one; quotes within quotes are doubled"));
        else if (!good)
            ESPL_TRY(espl_reader_reject(reader, reader->row.bytes.data));
        else if (!blank)
            return ESPL_OK;
    }
}

static espl_status read_header(espl_reader *reader, char delimiter, bool *found) {
    char *problem = NULL;
    ESPL_TRY(next_row(reader, delimiter, found));
    if (!*found)
        return ESPL_OK;
    reader->n_columns = reader->row.n;
    if (espl__csv_columns(&reader->row, reader->fields, reader->column, &problem))
        return ESPL_OK;
    espl_status status = espl_status_fail(ESPL_ERR_DATA, __FILE__, __LINE__, "%s:%lld: %s", reader->input->path,
                                          (long long)espl_reader_line(reader), problem);
    free(problem);
    return status;
}

static espl_status next_csv(espl_reader *reader, espl_document *document, bool *found) {
    const char delimiter = reader->input->format == ESPL_READ_TSV ? '\t' : ',';
    bool row = true;
    *found = false;
    if (reader->n_columns == 0)
        ESPL_TRY(read_header(reader, delimiter, &row));
    while (row && !*found) {
        ESPL_TRY(next_row(reader, delimiter, &row));
        if (!row)
            return ESPL_OK;
        if (reader->row.n == reader->n_columns) {
            espl__csv_record(&reader->row, reader->column, &reader->record);
            ESPL_TRY(give_record(reader, document, found));
        } else {
            char problem[128];
            snprintf(problem, sizeof problem, "has %lld fields, expected %lld as in the first line", (long long)reader->row.n,
                     (long long)reader->n_columns);
            ESPL_TRY(espl_reader_reject(reader, problem));
        }
    }
    return ESPL_OK;
}

/* A paragraph belongs to the share in which the last blank line before it begins (the file's first one to the first share). */
static espl_status next_paragraph(espl_reader *reader, espl_document *document, bool *found) {
    *found = false;
    reader->text.size = 0;
    while (!reader->finished && !*found) {
        const char *text;
        size_t size;
        bool line;
        int64_t offset = reader->stretch.offset;
        if (reader->text.size == 0)
            mark_record(reader);
        ESPL_TRY(espl__stretch_line(&reader->stretch, &text, &size, &line));
        bool blank = !line || espl__is_blank(text, size);
        if (!blank && reader->owned) {
            if (reader->text.size > 0)
                espl_buffer_append(&reader->text, "\n", 1);
            espl_buffer_append(&reader->text, text, size);
        } else if (blank) {
            reader->owned = offset < reader->share.end;
            reader->finished = !line || !reader->owned;
            if (reader->text.size > 0)
                give(reader, reader->text.data, reader->text.size, document, found);
        }
    }
    return ESPL_OK;
}

static espl_status next_file(espl_reader *reader, espl_document *document, bool *found) {
    espl_stretch *stretch = &reader->stretch;
    bool more = !reader->finished;
    reader->finished = true;
    *found = false;
    mark_record(reader);
    while (more)
        ESPL_TRY(espl__stretch_more(stretch, &more));
    size_t size = stretch->end - stretch->at;
    if (size > 0 && !espl__is_blank(stretch->data + stretch->at, size))
        give(reader, stretch->data + stretch->at, size, document, found);
    stretch->at = stretch->end;
    return ESPL_OK;
}

/* A class folder's file: its text, and the folder's name as its label. */
static espl_status next_labelled_file(espl_reader *reader, espl_document *document, bool *found) {
    ESPL_TRY(next_file(reader, document, found));
    if (*found) {
        document->label = reader->input->label;
        document->label_size = strlen(reader->input->label);
    }
    return ESPL_OK;
}

static next_function *choose_next(const espl_input *input, espl_read_unit unit) {
    static next_function *const of_unit[] = {
        [ESPL_READ_FILE] = next_file, [ESPL_READ_LINE] = next_text_line, [ESPL_READ_PARAGRAPH] = next_paragraph};
    static next_function *const of_format[] = {
        [ESPL_READ_JSONL] = next_json, [ESPL_READ_CSV] = next_csv, [ESPL_READ_TSV] = next_csv, [ESPL_READ_FOLDERS] = next_labelled_file};
    return input->format == ESPL_READ_TEXT ? of_unit[unit] : of_format[input->format];
}

/* In the middle of a file the line that began before is another share's. */
static espl_status open_share(espl_reader *reader) {
    const char *text;
    size_t size;
    bool found;
    int64_t begin = reader->share.begin;
    ESPL_TRY(espl__stretch_open(reader->input, begin > 0 ? begin - 1 : 0, &reader->stretch));
    if (begin > 0)
        ESPL_TRY(espl__stretch_line(&reader->stretch, &text, &size, &found));
    return ESPL_OK;
}

/* A plain text has neither label nor target. */
static espl_status check_kind(const espl_reader *reader) {
    static const char *const wanted[] = {[ESPL_READ_LABELLED] = "label", [ESPL_READ_PAIRED] = "target", [ESPL_READ_PROMPT] = "response"};
    espl_read_format format = reader->input->format;
    espl_read_kind kind = reader->options.kind;
    if (kind == ESPL_READ_RECORD && format != ESPL_READ_JSONL)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: conversations are read from jsonl or JSON arrays; data.format: jsonl, if the file is one",
                  reader->input->path);
    if (kind != ESPL_READ_PLAIN && (format == ESPL_READ_TEXT || (format == ESPL_READ_FOLDERS && kind != ESPL_READ_LABELLED)))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: a text file has no %s, expected jsonl, csv or tsv%s", reader->input->path, wanted[kind],
                  kind == ESPL_READ_LABELLED ? ", or data.format: folders, where each folder is a class" : "");
    return ESPL_OK;
}

espl_status espl_reader_open(const espl_inputs *inputs, const espl_share *share, const espl_reader_options *options, espl_reader **reader) {
    ESPL_ASSERT(inputs->items[share->input].format != ESPL_READ_TOKENS, "%s is a token store", inputs->items[share->input].path);
    espl_reader *made = espl_calloc(1, sizeof *made);
    made->input = &inputs->items[share->input];
    made->share = *share;
    made->options = *options;
    made->owned = share->begin == 0;
    if (made->input->packing != ESPL_PLAIN || share->end >= made->input->bytes)
        made->share.end = INT64_MAX;
    made->next = choose_next(made->input, options->unit);
    espl__fields_of(options, made->fields);
    espl_status status = check_kind(made);
    if (status == ESPL_OK)
        status = open_share(made);
    if (status != ESPL_OK)
        espl_reader_close(&made);
    *reader = made;
    return status;
}

espl_status espl_reader_next(espl_reader *reader, espl_document *document, bool *found) { return reader->next(reader, document, found); }

void espl_reader_close(espl_reader **reader) {
    if (*reader == NULL)
        return;
    espl__stretch_close(&(*reader)->stretch);
    espl_buffer_free(&(*reader)->text);
    espl__record_free(&(*reader)->record);
    espl__csv_row_free(&(*reader)->row);
    free(*reader);
    *reader = NULL;
}
