// fuzz: libs=io,core runs=20000
/* Any bytes as a file for the readers; the first two say how it is read. What a plain file gives must not depend on how it is cut. */
#include "io/readers/readers.h"

#include "src/core/buffer.h"
#include "src/core/log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static espl_status read_share(const espl_inputs *inputs, const espl_share *share, const espl_reader_options *options, espl_buffer *all) {
    espl_reader *reader;
    espl_document document;
    bool found = true;
    ESPL_TRY(espl_reader_open(inputs, share, options, &reader));
    espl_status status = ESPL_OK;
    while (status == ESPL_OK && found) {
        status = espl_reader_next(reader, &document, &found);
        if (status != ESPL_OK || !found)
            break;
        espl_buffer_append(all, document.text, document.size);
        espl_buffer_append(all, "|", 1);
    }
    ESPL_ASSERT(espl_reader_line(reader) >= 0, "a line below the first");
    espl_reader_close(&reader);
    return status;
}

static espl_status read_cut(const espl_inputs *inputs, const espl_reader_options *options, int64_t block, espl_buffer *all) {
    espl_share *shares;
    int64_t n;
    ESPL_TRY(espl_inputs_cut(inputs, options->unit, block, &shares, &n));
    espl_status status = ESPL_OK;
    for (int64_t i = 0; i < n && status == ESPL_OK; i++)
        status = read_share(inputs, &shares[i], options, all);
    free(shares);
    return status;
}

static void compare(const espl_inputs *inputs, const espl_reader_options *options, int64_t block) {
    espl_buffer whole = {0}, cut = {0};
    espl_status one = read_cut(inputs, options, INT64_MAX, &whole), many = read_cut(inputs, options, block, &cut);
    ESPL_ASSERT(one == many, "whole: status %d; cut: %d", (int)one, (int)many);
    ESPL_ASSERT(whole.size == cut.size && (whole.size == 0 || memcmp(whole.data, cut.data, whole.size) == 0), "cut, it reads differently");
    espl_buffer_free(&whole);
    espl_buffer_free(&cut);
    espl_status_clear();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    if (size < 2)
        return 0;
    espl_log_set(0, ESPL_LOG_ERROR, NULL);
    int fd = memfd_create("input", MFD_CLOEXEC);
    if (fd < 0 || write(fd, bytes + 2, size - 2) != (ssize_t)(size - 2))
        abort();
    char *path = espl_format("/proc/self/fd/%d", fd);
    espl_input input = {.path = path, .bytes = (int64_t)size - 2, .packing = (espl_packing)(bytes[0] / 16 % 3)};
    input.format = bytes[0] % 2 != 0 ? ESPL_READ_JSONL : ESPL_READ_TEXT;
    espl_inputs inputs = {.items = &input, .n = 1};
    espl_reader_options options = {.text_field = "", .unit = (espl_read_unit)(bytes[0] / 2 % 3), .skip_bad = bytes[0] / 8 % 2 != 0};
    compare(&inputs, &options, 1 + bytes[1]);
    free(path);
    close(fd);
    return 0;
}
