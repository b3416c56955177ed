#include "src/report/report.h"

#include "src/report/report_evaluation.h"
#include "src/report/report_events.h"
#include "src/report/report_probes.h"
#include "src/report/run_files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct report {
    const espl_page_format *page;
    espl_buffer *out;
    espl_run_files *runs;
    int64_t n;
} report;

/* ---- What each run came to, a row a fact, a column a run. */

static const char *state_text(espl_run_state state) {
    return state == ESPL_RUN_DONE ? "done" : state == ESPL_RUN_ENDED ? "stopped" : "running, or ended without a word";
}

typedef struct fact {
    const char *name;
    enum { LAST_STEP, LAST_EVAL, SUMMARY } source;
    const char *column;
    double scale; /* of the unit in the name; 0: 1 */
} fact;

static const fact facts[] = {
    {"steps", LAST_STEP, "step", 0},
    {"epochs", LAST_STEP, "epoch", 0},
    {"training loss", LAST_STEP, "loss", 0},
    {"validation loss", LAST_EVAL, "valid_loss", 0},
    {"perplexity", LAST_EVAL, "perplexity", 0},
    {"bits a byte", LAST_EVAL, "bits_per_byte", 0},
    {"accuracy", LAST_EVAL, "accuracy", 0},
    {"F1", LAST_EVAL, "f1", 0},
    {"ROUGE-L", LAST_EVAL, "rougeL", 0},
    {"BLEU", LAST_EVAL, "bleu", 0},
    {"chrF", LAST_EVAL, "chrf", 0},
    {"tokens", LAST_STEP, "tokens", 0},
    {"steps skipped", LAST_STEP, "skipped_steps", 0},
    {"tokens a second", LAST_STEP, "tokens_per_second", 0},
    {"seconds a step", LAST_STEP, "step_seconds", 0},
    {"share of peak", LAST_STEP, "mfu", 0},
    {"planned MiB (rank 0)", LAST_STEP, "planned_bytes", 1.0 / 1048576},
    {"wall seconds (last process)", SUMMARY, "seconds", 0},
    {"node-hours (last process)", SUMMARY, "node_hours", 0},
    {"joules (last process)", SUMMARY, "joules", 0},
};

static double value_of(const espl_run_files *run, const fact *f) {
    const json_t *value = json_object_get(run->summary, f->column);
    double plain = f->source == LAST_STEP   ? espl_last_of(run->steps, f->column)
                   : f->source == LAST_EVAL ? espl_last_of(run->evals, f->column)
                   : json_is_number(value)  ? json_number_value(value)
                                            : NAN;
    return f->scale > 0.0 ? f->scale * plain : plain;
}

static void fact_row(const report *r, const fact *f, espl_table *t) {
    bool known = false;
    for (int64_t i = 0; i < r->n; i++)
        known |= !isnan(value_of(&r->runs[i], f));
    if (!known)
        return;
    espl_table_text(t, f->name);
    for (int64_t i = 0; i < r->n; i++)
        espl_table_number(t, value_of(&r->runs[i], f));
}

static void overview(const report *r) {
    espl_table t = espl_table_make((int)r->n + 1);
    espl_table_text(&t, "");
    for (int64_t i = 0; i < r->n; i++)
        espl_table_text(&t, r->runs[i].name);
    espl_table_text(&t, "state");
    for (int64_t i = 0; i < r->n; i++)
        espl_table_text(&t, state_text(r->runs[i].state));
    for (size_t f = 0; f < sizeof facts / sizeof facts[0]; f++)
        fact_row(r, &facts[f], &t);
    r->page->table(r->out, &t);
    espl_table_free(&t);
}

/* ---- Curves. */

typedef struct plot {
    const char *title, *unit, *column; /* column of the steps, or NULL */
    const char *valid;                 /* column of the evaluations that goes into the same chart, or NULL */
    bool smooth;                       /* a mean over the noise of single steps */
} plot;

static const plot plots[] = {
    {"Loss", "nats a target token", "loss", "valid_loss", true},
    {"Accuracy", "of the validation texts", NULL, "accuracy", false},
    {"F1", "of the validation texts", NULL, "f1", false},
    {"ROUGE-L", "of the texts that were generated", NULL, "rougeL", false},
    {"chrF", "of the texts that were generated", NULL, "chrf", false},
    {"Learning rate", "", "lr", NULL, false},
    {"Gradient norm before clipping", "", "grad_norm", NULL, true},
    {"Throughput", "tokens a second", "tokens_per_second", NULL, true},
};

enum { COLOURS = 8 };

static void add_curve(espl_chart *chart, char *name, espl_series points, int64_t colour, espl_stroke stroke) {
    chart->curves[chart->n++] = (espl_curve){name, points, (int)(colour % COLOURS), stroke};
}

static void add_steps(const report *r, const plot *p, int64_t i, espl_chart *chart) {
    const espl_run_files *run = &r->runs[i];
    espl_series raw = espl_series_of(run->steps, p->column);
    if (p->smooth) {
        espl_series mean = espl_series_smooth(&raw);
        if (r->n == 1)
            add_curve(chart, NULL, raw, i, ESPL_STROKE_FAINT);
        else
            espl_series_free(&raw);
        raw = mean;
    }
    add_curve(chart, espl_format(p->valid == NULL ? "%s" : "%s, training", run->name), raw, i, ESPL_STROKE_LINE);
}

/* One run: raw values pale under their mean, validation dashed. Several: the means and validations, a colour a run. */
static void add_run(const report *r, const plot *p, int64_t i, espl_chart *chart) {
    const espl_run_files *run = &r->runs[i];
    if (p->column != NULL)
        add_steps(r, p, i, chart);
    if (p->valid != NULL)
        add_curve(chart, espl_format("%s, validation", run->name), espl_series_of(run->evals, p->valid), r->n == 1 ? 1 : i,
                  ESPL_STROKE_MARKED);
}

static void draw_plot(const report *r, const plot *p) {
    espl_chart chart = {.title = p->title, .unit = p->unit, .curves = espl_calloc((size_t)r->n * 3, sizeof(espl_curve))};
    for (int64_t i = 0; i < r->n; i++)
        add_run(r, p, i, &chart);
    if (espl_chart_drawable(&chart))
        r->page->chart(r->out, &chart);
    for (int64_t k = 0; k < chart.n; k++) {
        free((char *)chart.curves[k].name);
        espl_series_free(&chart.curves[k].points);
    }
    free(chart.curves);
}

static void curves(const report *r) {
    bool any = false;
    for (int64_t i = 0; i < r->n; i++)
        any |= json_array_size(r->runs[i].steps) >= 2;
    if (!any)
        return;
    r->page->heading(r->out, 2, "Curves");
    for (size_t p = 0; p < sizeof plots / sizeof plots[0]; p++)
        draw_plot(r, &plots[p]);
}

/* ---- Where it comes from. */

static void provenance(const report *r) {
    r->page->heading(r->out, 2, "Config and provenance");
    for (int64_t i = 0; i < r->n; i++) {
        const espl_run_files *run = &r->runs[i];
        char *title = espl_format("%s: config.yaml", run->name);
        if (run->config != NULL)
            r->page->folded(r->out, title, run->config);
        free(title);
        const json_t *about = json_object_get(run->start, "about");
        char *text = json_is_object(about) ? json_dumps(about, JSON_INDENT(2)) : NULL;
        title = espl_format("%s: machine, job, libraries, command", run->name);
        if (text != NULL)
            r->page->folded(r->out, title, text);
        free(title);
        free(text);
    }
}

/* ---- The report. */

static void write_page(const report *r) {
    char *title = r->n == 1 ? espl_format("Run %s", r->runs[0].name) : espl_format("%lld runs compared", (long long)r->n);
    r->page->begin(r->out, title);
    overview(r);
    curves(r);
    espl__report_events(r->page, r->runs, r->n, r->out);
    espl__report_probes(r->page, r->runs, r->n, r->out);
    for (int64_t i = 0; i < r->n; i++)
        espl__report_evaluations(r->page, &r->runs[i], r->out);
    provenance(r);
    r->page->end(r->out);
    free(title);
}

espl_status espl_report_make(const char *const *folders, int64_t n, const espl_page_format *format, espl_buffer *out) {
    report r = {format, out, espl_calloc((size_t)n, sizeof *r.runs), 0};
    espl_status status = ESPL_OK;
    for (; r.n < n; r.n++)
        ESPL_TRY_DONE(espl_run_files_read(folders[r.n], &r.runs[r.n]));
    write_page(&r);
done:
    for (int64_t i = 0; i < r.n; i++)
        espl_run_files_free(&r.runs[i]);
    free(r.runs);
    return status;
}
