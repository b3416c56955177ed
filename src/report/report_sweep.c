#include "src/report/report_sweep.h"

#include "io/fsio.h"
#include "src/report/run_files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CURVES = 8 }; /* as many as there are colours */

/* ---- Reading. */

static double best_of(const espl_series *s, bool higher) {
    double best = NAN;
    for (int64_t i = 0; i < s->n; i++)
        if (isnan(best) || (higher ? s->y[i] > best : s->y[i] < best))
            best = s->y[i];
    return best;
}

static void take(espl_sweep_row *row, const espl_run_files *run, const char *score, bool higher) {
    static const char *const states[] = {
        [ESPL_RUN_GOING] = "running, or ended without a word", [ESPL_RUN_DONE] = "done", [ESPL_RUN_ENDED] = "stopped"};
    double steps = espl_last_of(run->steps, "step");
    if (row->state[0] == '\0' || run->state == ESPL_RUN_DONE)
        snprintf(row->state, sizeof row->state, "%s", states[run->state]);
    row->steps = isnan(steps) ? 0 : (int64_t)steps;
    row->loss = espl_last_of(run->steps, "loss");
    row->curve = espl_series_of(run->evals, score);
    row->best = best_of(&row->curve, higher);
    row->last = row->curve.n > 0 ? row->curve.y[row->curve.n - 1] : NAN;
    row->losses = espl_series_of(run->steps, "loss");
}

static espl_status read_row(const espl_sweep_result *result, espl_sweep_row *row) {
    espl_run_files run;
    char *metrics = espl_format("%s/metrics.jsonl", row->folder);
    bool there = espl_fs_is_file(metrics);
    free(metrics);
    row->best = row->last = row->loss = NAN;
    if (!there) {
        snprintf(row->state, sizeof row->state, "%s", row->state[0] != '\0' ? row->state : "waiting");
        return ESPL_OK;
    }
    ESPL_TRY(espl_run_files_read(row->folder, &run));
    take(row, &run, result->score, result->higher);
    espl_run_files_free(&run);
    return ESPL_OK;
}

/* Without a score of any run the training loss at the end is what tells them apart; its noise makes a best one meaningless. */
static void fall_back(espl_sweep_result *result) {
    for (int64_t i = 0; i < result->n; i++)
        if (!isnan(result->rows[i].best))
            return;
    result->score = "loss";
    result->higher = false;
    for (int64_t i = 0; i < result->n; i++)
        result->rows[i].best = result->rows[i].last = result->rows[i].loss;
}

static int compare_rows(const void *a, const void *b, void *context) {
    const espl_sweep_row *x = a, *y = b;
    const espl_sweep_result *result = context;
    if (isnan(x->best) || isnan(y->best) || x->best == y->best)
        return isnan(x->best) != isnan(y->best) ? (isnan(x->best) ? 1 : -1) : strcmp(x->name, y->name);
    return (x->best < y->best) == result->higher ? 1 : -1;
}

espl_status espl_sweep_result_read(espl_sweep_result *result) {
    for (int64_t i = 0; i < result->n; i++)
        ESPL_TRY(read_row(result, &result->rows[i]));
    fall_back(result);
    qsort_r(result->rows, (size_t)result->n, sizeof *result->rows, compare_rows, result);
    return ESPL_OK;
}

/* ---- Writing. */

static espl_table table_of(const espl_sweep_result *result) {
    espl_table t = espl_table_make((int)result->n_keys + 6);
    char *best = espl_format("best %s", result->score), *last = espl_format("last %s", result->score);
    const char *const heads[] = {"state", "steps", best, last, "training loss"};
    espl_table_text(&t, "run");
    for (int64_t k = 0; k < result->n_keys; k++)
        espl_table_text(&t, result->keys[k]);
    for (size_t h = 0; h < sizeof heads / sizeof heads[0]; h++)
        espl_table_text(&t, heads[h]);
    free(best);
    free(last);
    for (int64_t i = 0; i < result->n; i++) {
        const espl_sweep_row *row = &result->rows[i];
        espl_table_text(&t, row->name);
        for (int64_t k = 0; k < result->n_keys; k++)
            espl_table_text(&t, row->values[k]);
        espl_table_text(&t, row->state);
        espl_table_number(&t, (double)row->steps);
        espl_table_number(&t, row->best);
        espl_table_number(&t, row->last);
        espl_table_number(&t, row->loss);
    }
    return t;
}

/* The scores of the best over their steps, or, where runs were evaluated but once, their training losses. */
static bool draw_curves(const espl_sweep_result *result, bool losses, const espl_page_format *page, espl_buffer *out) {
    espl_curve curves[CURVES];
    espl_chart chart = {.title = result->n > CURVES ? "The best eight" : "Curves",
                        .unit = losses ? "training loss, nats a target token" : result->score,
                        .curves = curves};
    for (int64_t i = 0; i < result->n && i < CURVES; i++)
        curves[chart.n++] = (espl_curve){.name = result->rows[i].name,
                                         .points = losses ? result->rows[i].losses : result->rows[i].curve,
                                         .colour = (int)i,
                                         .stroke = losses ? ESPL_STROKE_LINE : ESPL_STROKE_MARKED};
    bool drawable = espl_chart_drawable(&chart);
    if (drawable)
        page->chart(out, &chart);
    return drawable;
}

void espl_sweep_result_table(const espl_sweep_result *result, const espl_page_format *page, espl_buffer *out) {
    espl_table t = table_of(result);
    page->table(out, &t);
    espl_table_free(&t);
}

void espl_sweep_result_page(const espl_sweep_result *result, const espl_page_format *page, espl_buffer *out) {
    page->begin(out, result->title);
    espl_sweep_result_table(result, page, out);
    if (!draw_curves(result, false, page, out))
        draw_curves(result, true, page, out);
    page->end(out);
}

/* RFC 4180. */
static void print_cell(espl_buffer *out, const char *text) {
    if (strpbrk(text, ",\"\n") == NULL) {
        espl_buffer_printf(out, "%s", text);
        return;
    }
    espl_buffer_printf(out, "\"");
    for (; *text != '\0'; text++)
        espl_buffer_printf(out, *text == '"' ? "\"\"" : "%c", *text);
    espl_buffer_printf(out, "\"");
}

static void print_number(espl_buffer *out, double value) { espl_buffer_printf(out, isnan(value) ? "," : ",%.9g", value); }

void espl_sweep_result_csv(const espl_sweep_result *result, espl_buffer *out) {
    espl_buffer_printf(out, "run");
    for (int64_t k = 0; k < result->n_keys; k++)
        espl_buffer_printf(out, ",%s", result->keys[k]);
    espl_buffer_printf(out, ",state,steps,best_%s,last_%s,training_loss\n", result->score, result->score);
    for (int64_t i = 0; i < result->n; i++) {
        const espl_sweep_row *row = &result->rows[i];
        print_cell(out, row->name);
        for (int64_t k = 0; k < result->n_keys; k++) {
            espl_buffer_printf(out, ",");
            print_cell(out, row->values[k]);
        }
        espl_buffer_printf(out, ",");
        print_cell(out, row->state);
        espl_buffer_printf(out, ",%lld", (long long)row->steps);
        print_number(out, row->best);
        print_number(out, row->last);
        print_number(out, row->loss);
        espl_buffer_printf(out, "\n");
    }
}

void espl_sweep_result_free(espl_sweep_result *result) {
    for (int64_t i = 0; i < result->n; i++) {
        espl_series_free(&result->rows[i].curve);
        espl_series_free(&result->rows[i].losses);
    }
}
