#include "src/train/log/metrics_lines.h"

#include "io/fsio.h"
#include "src/core/clock.h"
#include "src/core/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Whether a line (without its newline) belongs to the steps that are done; a line that is not ours does not. */
static bool line_stays(const char *line, size_t n, int64_t resume_step) {
    json_t *object = json_loadb(line, n, 0, NULL), *step = json_object_get(object, "step");
    bool stays = json_is_integer(step) && json_integer_value(step) <= resume_step;
    json_decref(object);
    return stays;
}

/* Moves the lines that stay to the front and returns how many go; what follows the last newline was torn by a crash. */
static int64_t keep_lines(espl_buffer *text, int64_t resume_step) {
    size_t kept = 0, at = 0;
    int64_t gone = 0;
    while (at < text->size) {
        char *line = text->data + at, *end = memchr(line, '\n', text->size - at);
        size_t n = end != NULL ? (size_t)(end - line) + 1 : text->size - at;
        if (end != NULL && line_stays(line, n - 1, resume_step)) {
            memmove(text->data + kept, line, n);
            kept += n;
        } else {
            gone++;
        }
        at += n;
    }
    text->size = kept;
    return gone;
}

static espl_status cut_after(const char *path, int64_t resume_step) {
    espl_status status = ESPL_OK;
    espl_buffer text = {0};
    ESPL_TRY_DONE(espl_fs_read_file(path, (size_t)1 << 34, &text));
    int64_t gone = keep_lines(&text, resume_step);
    if (gone > 0) {
        ESPL_INFO("%s: %lld lines after step %lld removed", path, (long long)gone, (long long)resume_step);
        ESPL_TRY_DONE(espl_fs_write_file(path, text.data, text.size));
    }
done:
    espl_buffer_free(&text);
    return status;
}

espl_status espl__lines_open(espl__lines *lines, const char *path, int64_t resume_step) {
    *lines = (espl__lines){.path = espl_strdup(path), .fd = -1};
    if (resume_step == 0 || !espl_fs_is_file(path))
        return espl_fs_open_write(path, &lines->fd);
    ESPL_TRY(cut_after(path, resume_step));
    ESPL_TRY(espl_fs_open_update(path, &lines->fd));
    return espl_fs_size(lines->fd, &lines->size, path);
}

static espl_status append(espl__lines *lines, const char *text, size_t n) {
    ESPL_TRY(espl_fs_write(lines->fd, text, n, lines->size, lines->path));
    lines->size += (int64_t)n;
    return ESPL_OK;
}

/* The shortest text that reads back to the same bits. */
static int print_real(char *to, size_t room, double value) {
    int n = 0;
    for (int digits = 6; digits <= 17; digits++) {
        n = snprintf(to, room, "%.*g", digits, value);
        if (strtod(to, NULL) == value)
            break;
    }
    return n;
}

static int print_value(char *to, size_t room, double value, bool whole) {
    if (!isfinite(value))
        return snprintf(to, room, "null");
    return whole ? snprintf(to, room, "%.0f", value) : print_real(to, room, value);
}

espl_status espl__lines_write(espl__lines *lines, const char *event, int64_t step, const espl__metric *columns, const double *values,
                              size_t n) {
    char *text = lines->text;
    const size_t room = sizeof lines->text;
    size_t used =
        (size_t)snprintf(text, room, "{\"event\": \"%s\", \"step\": %lld, \"time\": %.3f", event, (long long)step, espl_wall_clock());
    for (size_t i = 0; i < n; i++) {
        used += (size_t)snprintf(text + used, room - used, ", \"%s\": ", columns[i].name);
        used += (size_t)print_value(text + used, room - used, values[i], columns[i].whole);
        ESPL_ASSERT(used + 64 < room, "a metrics line of more than %zu bytes", room);
    }
    used += (size_t)snprintf(text + used, room - used, "}\n");
    return append(lines, text, used);
}

espl_status espl__lines_write_object(espl__lines *lines, const char *event, int64_t step, json_t *more) {
    json_t *object = json_pack("{s:s, s:I, s:f}", "event", event, "step", (json_int_t)step, "time", espl_wall_clock());
    ESPL_ASSERT(object != NULL && json_object_update(object, more) == 0, "the %s line of metrics.jsonl cannot be made", event);
    char *text = json_dumps(object, JSON_REAL_PRECISION(15));
    espl_buffer line = {0};
    espl_buffer_printf(&line, "%s\n", text);
    espl_status status = append(lines, line.data, line.size);
    espl_buffer_free(&line);
    free(text);
    json_decref(object);
    return status;
}

void espl__lines_close(espl__lines *lines) {
    espl_fs_close(&lines->fd, lines->path);
    free(lines->path);
    *lines = (espl__lines){.fd = -1};
}
