// fuzz: libs=io,core runs=20000
/* Any bytes as CSV or TSV: a status, whatever they are. And any bytes as fields: written as RFC 4180 has it, they are read back as they
 * were. The first byte says which, the delimiter, and what a bad record does. */
#include "io/readers/readers.h"

#include "src/core/buffer.h"
#include "src/core/log.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { ROUND_TRIP = 1, TABS = 2, SKIP = 4, END_OF_FIELD = 0xFF };

static void put_field(espl_buffer *file, const uint8_t *field, size_t n) {
    espl_buffer_append(file, "\"", 1);
    for (size_t i = 0; i < n; i++)
        espl_buffer_append(file, field[i] == '"' ? "\"\"" : (const char *)&field[i], field[i] == '"' ? 2 : 1);
    espl_buffer_append(file, "\"", 1);
}

static bool is_blank(const uint8_t *field, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isspace(field[i]))
            return false;
    return true;
}

/* Pairs of fields that end in END_OF_FIELD, one record each with a label behind; `plain` gets what the reader has to give. */
static void write_records(const uint8_t *bytes, size_t size, char delimiter, espl_buffer *file, espl_buffer *plain) {
    espl_buffer_printf(file, "label%ctext%ctext_pair\r\n", delimiter, delimiter);
    while (size > 0) {
        const uint8_t *fields[2];
        size_t n[2];
        for (int f = 0; f < 2; f++) {
            const uint8_t *end = memchr(bytes, END_OF_FIELD, size);
            fields[f] = bytes;
            n[f] = end != NULL ? (size_t)(end - bytes) : size;
            size_t used = n[f] + (end != NULL);
            bytes += used;
            size -= used;
        }
        if (is_blank(fields[0], n[0]) || is_blank(fields[1], n[1]))
            continue;
        espl_buffer_printf(file, "x%c", delimiter);
        put_field(file, fields[0], n[0]);
        espl_buffer_append(file, &delimiter, 1);
        put_field(file, fields[1], n[1]);
        espl_buffer_printf(file, "\r\n");
        for (int f = 0; f < 2; f++) {
            espl_buffer_append(plain, fields[f], n[f]);
            espl_buffer_append(plain, "\xFF", 1);
        }
    }
}

static espl_status read_all(const espl_inputs *inputs, const espl_reader_options *options, espl_buffer *all) {
    const espl_share share = {.end = inputs->items[0].bytes};
    espl_reader *reader;
    espl_document document;
    bool found = true;
    ESPL_TRY(espl_reader_open(inputs, &share, options, &reader));
    espl_status status = ESPL_OK;
    while (status == ESPL_OK && found) {
        status = espl_reader_next(reader, &document, &found);
        if (status != ESPL_OK || !found)
            break;
        espl_buffer_append(all, document.text, document.size);
        espl_buffer_append(all, "\xFF", 1);
        if (document.second != NULL)
            espl_buffer_append(all, document.second, document.second_size);
        espl_buffer_append(all, "\xFF", 1);
        ESPL_ASSERT(document.label != NULL && document.label_size > 0, "a record without a label");
    }
    ESPL_ASSERT(espl_reader_line(reader) >= 1, "a line below the first");
    espl_reader_close(&reader);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    if (size < 1)
        return 0;
    espl_log_set(0, ESPL_LOG_ERROR, NULL);
    bool tabs = (bytes[0] & TABS) != 0, round_trip = (bytes[0] & ROUND_TRIP) != 0;
    espl_buffer file = {0}, plain = {0}, all = {0};
    espl_buffer_append(&all, "", 0);
    if (round_trip)
        write_records(bytes + 1, size - 1, tabs ? '\t' : ',', &file, &plain);
    else
        espl_buffer_append(&file, bytes + 1, size - 1);
    int fd = memfd_create("input", MFD_CLOEXEC);
    if (fd < 0 || (file.size > 0 && write(fd, file.data, file.size) != (ssize_t)file.size))
        abort();
    char *path = espl_format("/proc/self/fd/%d", fd);
    espl_input input = {.path = path, .bytes = (int64_t)file.size, .format = tabs ? ESPL_READ_TSV : ESPL_READ_CSV};
    espl_inputs inputs = {.items = &input, .n = 1};
    espl_reader_options options = {.kind = ESPL_READ_LABELLED, .skip_bad = (bytes[0] & SKIP) != 0};
    espl_status status = read_all(&inputs, &options, &all);
    if (round_trip)
        ESPL_ASSERT(status == ESPL_OK && all.size == plain.size && (all.size == 0 || memcmp(all.data, plain.data, all.size) == 0),
                    "fields are not read as they were written: %s", espl_status_message());
    espl_status_clear();
    espl_buffer_free(&file);
    espl_buffer_free(&plain);
    espl_buffer_free(&all);
    free(path);
    close(fd);
    return 0;
}
