#include "src/report/report_probes.h"

#include <stdlib.h>
#include <string.h>

/* The lines of one set, in the order of steps. */
typedef struct set {
    const espl_run_files *run;
    const char *name;
    json_t *lines;
} set;

typedef struct sets {
    set *items;
    int64_t n;
} sets;

static set *set_of(sets *all, const espl_run_files *run, const char *name) {
    for (int64_t i = 0; i < all->n; i++)
        if (all->items[i].run == run && strcmp(all->items[i].name, name) == 0)
            return &all->items[i];
    all->items = espl_realloc(all->items, (size_t)(all->n + 1) * sizeof *all->items);
    all->items[all->n] = (set){run, name, json_array()};
    return &all->items[all->n++];
}

static sets collect(const espl_run_files *runs, int64_t n) {
    sets all = {0};
    for (int64_t r = 0; r < n; r++) {
        size_t i;
        json_t *line;
        json_array_foreach(runs[r].probes, i, line) {
            const char *name = json_string_value(json_object_get(line, "name"));
            if (name != NULL)
                json_array_append(set_of(&all, &runs[r], name)->lines, line);
        }
    }
    return all;
}

/* The newest line has both what the loss is and how far it rose, so a resumed run's table needs no older ones. */
static void table(const espl_page_format *page, const sets *all, bool several, espl_buffer *out) {
    espl_table t = espl_table_make(4);
    espl_table_text(&t, "set");
    espl_table_text(&t, "loss before");
    espl_table_text(&t, "loss after");
    espl_table_text(&t, "difference");
    for (int64_t i = 0; i < all->n; i++) {
        const set *s = &all->items[i];
        double after = espl_last_of(s->lines, "probe_loss"), rise = espl_last_of(s->lines, "rise");
        char *name = several ? espl_format("%s, %s", s->run->name, s->name) : espl_strdup(s->name);
        espl_table_text(&t, name);
        espl_table_number(&t, after - rise);
        espl_table_number(&t, after);
        espl_table_number(&t, rise);
        free(name);
    }
    page->table(out, &t);
    espl_table_free(&t);
}

static void draw(const espl_page_format *page, const sets *all, bool several, espl_buffer *out) {
    espl_chart chart = {.title = "Loss on what was known before",
                        .unit = "nats a target token",
                        .curves = espl_calloc((size_t)all->n, sizeof(espl_curve)),
                        .n = all->n};
    for (int64_t i = 0; i < all->n; i++) {
        const set *s = &all->items[i];
        chart.curves[i] = (espl_curve){.name = several ? espl_format("%s, %s", s->run->name, s->name) : espl_strdup(s->name),
                                       .points = espl_series_of(s->lines, "probe_loss"),
                                       .colour = (int)(i % 8),
                                       .stroke = ESPL_STROKE_MARKED};
    }
    if (espl_chart_drawable(&chart))
        page->chart(out, &chart);
    for (int64_t i = 0; i < chart.n; i++) {
        free((char *)chart.curves[i].name);
        espl_series_free(&chart.curves[i].points);
    }
    free(chart.curves);
}

void espl__report_probes(const espl_page_format *page, const espl_run_files *runs, int64_t n, espl_buffer *out) {
    sets all = collect(runs, n);
    if (all.n > 0) {
        page->heading(out, 2, "Forgetting");
        table(page, &all, n > 1, out);
        draw(page, &all, n > 1, out);
    }
    for (int64_t i = 0; i < all.n; i++)
        json_decref(all.items[i].lines);
    free(all.items);
}
