#include "src/report/run_files.h"

#include "io/fsio.h"
#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT = 1 << 30 }; /* bytes of a file that is read */

static espl_status read_text(const char *folder, const char *file, espl_buffer *text) {
    char *path = espl_format("%s/%s", folder, file);
    espl_status status = espl_fs_is_file(path) ? espl_fs_read_file(path, LIMIT, text) : ESPL_OK;
    free(path);
    return status;
}

/* ---- metrics.jsonl. */

static void file_line(espl_run_files *run, json_t *line) {
    const char *event = json_string_value(json_object_get(line, "event"));
    json_t **newest = NULL;
    if (event == NULL)
        return;
    if (strcmp(event, "step") == 0)
        json_array_append(run->steps, line);
    else if (strcmp(event, "eval") == 0)
        json_array_append(run->evals, line);
    else if (strcmp(event, "probe") == 0)
        json_array_append(run->probes, line);
    else if (strcmp(event, "start") == 0)
        newest = &run->start;
    else if (strcmp(event, "summary") == 0)
        newest = &run->summary;
    else if (strcmp(event, "memory_copy") == 0)
        newest = &run->copy;
    else
        json_array_append(run->events, line);
    if (newest != NULL) {
        json_decref(*newest);
        *newest = json_incref(line);
    }
    if (newest == &run->start) { /* what an earlier process summed up is not this one's */
        json_decref(run->summary);
        run->summary = NULL;
    }
}

static void read_lines(espl_run_files *run, const espl_buffer *text) {
    for (size_t at = 0; at < text->size;) {
        const char *line = text->data + at, *end = memchr(line, '\n', text->size - at);
        if (end == NULL)
            break;
        json_t *object = json_loadb(line, (size_t)(end - line), 0, NULL);
        file_line(run, object);
        json_decref(object);
        at += (size_t)(end - line) + 1;
    }
}

/* ---- evaluations/NAME/evaluation.json. */

static espl_status read_evaluations(espl_run_files *run) {
    espl_status status = ESPL_OK;
    char *folder = espl_format("%s/evaluations", run->folder), **names = NULL;
    size_t n = 0;
    if (!espl_fs_is_folder(folder))
        goto done;
    ESPL_TRY_DONE(espl_fs_list(folder, &names, &n));
    for (size_t i = 0; i < n; i++) {
        espl_buffer text = {0};
        char *file = espl_format("%s/evaluation.json", names[i]);
        status = read_text(folder, file, &text);
        json_t *evaluation = text.size > 0 ? json_loadb(text.data, text.size, 0, NULL) : NULL;
        if (json_is_object(evaluation)) {
            json_object_set_new(evaluation, "name", json_string(names[i]));
            json_array_append(run->evaluations, evaluation);
        }
        json_decref(evaluation);
        espl_buffer_free(&text);
        free(file);
        ESPL_TRY_DONE(status);
    }
done:
    espl_fs_free_names(names, n);
    free(folder);
    return status;
}

/* ---- The run. */

static char *last_part(const char *folder) {
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    size_t begin = n;
    while (begin > 0 && folder[begin - 1] != '/')
        begin--;
    return espl_format("%.*s", (int)(n - begin), folder + begin);
}

static espl_status find_state(espl_run_files *run) {
    bool done;
    char *path = espl_format("%s/done", run->folder);
    espl_status status = espl_fs_present(path, &done);
    free(path);
    run->state = status == ESPL_OK && done ? ESPL_RUN_DONE : run->summary != NULL ? ESPL_RUN_ENDED : ESPL_RUN_GOING;
    return status;
}

espl_status espl_run_files_read(const char *folder, espl_run_files *run) {
    espl_buffer metrics = {0}, config = {0};
    espl_status status = ESPL_OK;
    *run = (espl_run_files){.folder = espl_strdup(folder),
                            .name = last_part(folder),
                            .steps = json_array(),
                            .evals = json_array(),
                            .probes = json_array(),
                            .events = json_array(),
                            .evaluations = json_array()};
    ESPL_TRY_DONE(read_text(folder, "metrics.jsonl", &metrics));
    ESPL_TRY_DONE(read_text(folder, "config.yaml", &config));
    ESPL_TRY_DONE(read_evaluations(run));
    if (metrics.size == 0 && json_array_size(run->evaluations) == 0)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: neither metrics.jsonl nor evaluations/ is there; expected the folder of a run (run.dir)",
                       folder);
    read_lines(run, &metrics);
    run->config = config.size > 0 ? espl_strdup(config.data) : NULL;
    ESPL_TRY_DONE(find_state(run));
done:
    espl_buffer_free(&metrics);
    espl_buffer_free(&config);
    if (status != ESPL_OK)
        espl_run_files_free(run);
    return status;
}

void espl_run_files_free(espl_run_files *run) {
    free(run->folder);
    free(run->name);
    free(run->config);
    json_decref(run->start);
    json_decref(run->copy);
    json_decref(run->summary);
    json_decref(run->steps);
    json_decref(run->evals);
    json_decref(run->probes);
    json_decref(run->events);
    json_decref(run->evaluations);
    *run = (espl_run_files){0};
}

/* ---- Columns. */

espl_series espl_series_of(const json_t *lines, const char *column) {
    size_t n = json_array_size(lines), i;
    espl_series s = {espl_malloc((n + 1) * sizeof *s.x), espl_malloc((n + 1) * sizeof *s.y), 0};
    json_t *line;
    json_array_foreach(lines, i, line) {
        json_t *y = json_object_get(line, column);
        if (!json_is_number(y))
            continue;
        s.x[s.n] = json_number_value(json_object_get(line, "step"));
        s.y[s.n++] = json_number_value(y);
    }
    return s;
}

void espl_series_free(espl_series *s) {
    free(s->x);
    free(s->y);
    *s = (espl_series){0};
}

double espl_last_of(const json_t *lines, const char *column) {
    for (size_t i = json_array_size(lines); i-- > 0;) {
        json_t *value = json_object_get(json_array_get(lines, i), column);
        if (json_is_number(value))
            return json_number_value(value);
    }
    return NAN;
}
