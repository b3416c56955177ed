#include "src/report/report_events.h"

#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LINES = 50 }; /* of a run */

static double number(const json_t *line, const char *name) {
    const json_t *value = json_object_get(line, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static const char *text(const json_t *line, const char *name) {
    const char *value = json_string_value(json_object_get(line, name));
    return value != NULL ? value : "?";
}

/* The caller frees. */
static char *describe(const char *event, const json_t *line) {
    if (strcmp(event, "spike") == 0)
        return espl_format("spike: %s %.4g, above %.4g (train.on_spike: %s)", text(line, "of"), number(line, "value"),
                           number(line, "limit"), text(line, "done"));
    if (strcmp(event, "rollback") == 0)
        return espl_format("rollback to this step from step %.0f, whose loss was %.4g; the data between were left out", number(line, "bad"),
                           number(line, "loss"));
    if (strcmp(event, "straggler") == 0)
        return espl_format("slow: rank %.0f on %s, %.1f times the median for %.0f steps", number(line, "rank"), text(line, "host"),
                           number(line, "ratio"), number(line, "steps"));
    if (strcmp(event, "no_checkpoint") == 0)
        return espl_format("no checkpoint: %s", text(line, "why"));
    return espl_strdup(event);
}

static void add_run(const espl_run_files *run, bool several, espl_table *t) {
    size_t n = json_array_size(run->events);
    for (size_t i = n > MOST_LINES ? n - MOST_LINES : 0; i < n; i++) {
        const json_t *line = json_array_get(run->events, i);
        char *what = describe(text(line, "event"), line);
        if (several)
            espl_table_text(t, run->name);
        espl_table_number(t, number(line, "step"));
        espl_table_text(t, what);
        free(what);
    }
}

void espl__report_events(const espl_page_format *page, const espl_run_files *runs, int64_t n, espl_buffer *out) {
    size_t all = 0, most = 0;
    for (int64_t i = 0; i < n; i++) {
        size_t own = json_array_size(runs[i].events);
        all += own;
        most = own > most ? own : most;
    }
    if (all == 0)
        return;
    espl_table t = espl_table_make(n > 1 ? 3 : 2);
    if (n > 1)
        espl_table_text(&t, "run");
    espl_table_text(&t, "step");
    espl_table_text(&t, "what happened");
    for (int64_t i = 0; i < n; i++)
        add_run(&runs[i], n > 1, &t);
    page->heading(out, 2, "Events");
    if (most > MOST_LINES)
        page->paragraph(out, "Of each run the latest; metrics.jsonl has all of them.");
    page->table(out, &t);
    espl_table_free(&t);
}
