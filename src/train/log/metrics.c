#include "src/train/log/metrics.h"

#include "io/fsio.h"
#include "src/core/buffer.h"
#include "src/core/clock.h"
#include "src/core/log.h"
#include "src/train/log/energy.h"
#include "src/train/log/metrics_lines.h"
#include "src/train/log/progress.h"
#include "src/train/log/runinfo.h"
#include "src/train/log/tensorboard.h"

#include <math.h>
#include <stdlib.h>

enum { WHOLE = true, REAL = false };

static const espl__metric step_columns[] = {
#define STEP_METRIC(name, kind, tag, help) {#name, tag, help, kind},
#include "src/train/log/metrics.def"
};

static const espl__metric eval_columns[] = {
#define EVAL_METRIC(name, kind, tag, help) {#name, tag, help, kind},
#include "src/train/log/metrics.def"
};

typedef struct step_row {
#define STEP_METRIC(name, kind, tag, help) double name;
#include "src/train/log/metrics.def"
} step_row;

typedef struct eval_row {
#define EVAL_METRIC(name, kind, tag, help) double name;
#include "src/train/log/metrics.def"
} eval_row;

enum { N_STEP = sizeof step_columns / sizeof *step_columns, N_EVAL = sizeof eval_columns / sizeof *eval_columns };

_Static_assert((int)N_STEP <= (int)ESPL_TENSORBOARD_SCALARS && (int)N_EVAL <= (int)ESPL_TENSORBOARD_SCALARS &&
                   sizeof(step_row) == N_STEP * sizeof(double),
               "one double a column");

/* Sums over the steps since the last line. */
typedef struct window {
    int64_t steps, tokens;
    double step_seconds, data_seconds, compute_seconds, communication_seconds, optimizer_seconds;
} window;

struct espl_metrics {
    espl__lines lines;
    espl_tensorboard *board; /* NULL: not wanted */
    espl__energy energy;
    espl_metrics_start start;
    int64_t every;
    int64_t step, tokens, skipped_steps; /* so far, earlier processes included */
    double stalled;                      /* by saves, as the last line counted it */
    int64_t made, made_tokens;           /* steps of this process and their tokens, those that were rolled back included */
    char *run_dir;
    int64_t lost;     /* reports that could not be written, since one could */
    double opened_at; /* of espl_now */
    window window;
};

static double ratio(double part, double whole) { return whole > 0 ? part / whole : NAN; }

static espl_status open_files(espl_metrics *metrics, const espl_config *config) {
    espl_status status = ESPL_OK;
    char *path = espl_format("%s/metrics.jsonl", metrics->run_dir);
    json_t *about = json_pack("{s:I, s:f, s:f}", "total_steps", (json_int_t)metrics->start.total_steps, "rate_low", metrics->start.rate_low,
                              "rate_high", metrics->start.rate_high);
    if (metrics->start.about != NULL)
        json_object_set(about, "about", metrics->start.about);
    ESPL_TRY_DONE(espl__lines_open(&metrics->lines, path, metrics->start.resume_step));
    ESPL_TRY_DONE(espl__lines_write_object(&metrics->lines, "start", metrics->start.resume_step, about));
    if (config->log_tensorboard)
        ESPL_TRY_DONE(espl_tensorboard_open(&metrics->board, metrics->run_dir, metrics->start.resume_step + 1));
done:
    json_decref(about);
    free(path);
    return status;
}

espl_status espl_metrics_open(espl_metrics **metrics, const espl_config *config, const char *run_dir, const espl_metrics_start *start) {
    espl_metrics *m = *metrics = espl_calloc(1, sizeof *m);
    m->lines.fd = -1;
    m->run_dir = espl_strdup(run_dir);
    m->start = *start;
    m->every = config->log_every;
    m->step = start->resume_step;
    m->tokens = start->tokens;
    m->skipped_steps = start->skipped_steps;
    m->opened_at = espl_now();
    espl__energy_open(&m->energy, "/sys/class/powercap");
    espl_status status = open_files(m, config);
    m->start.about = NULL;
    if (status != ESPL_OK)
        espl_metrics_close(metrics);
    else
        espl_progress_open(config->log_progress);
    return status;
}

static void add_to_window(window *sum, const espl_step_report *report) {
    sum->steps++;
    sum->tokens += report->tokens;
    sum->step_seconds += report->step_seconds;
    sum->data_seconds += report->data_seconds;
    sum->compute_seconds += report->compute_seconds;
    sum->communication_seconds += report->communication_seconds;
    sum->optimizer_seconds += report->optimizer_seconds;
}

static step_row make_row(const espl_metrics *metrics, const espl_step_report *report) {
    const window *sum = &metrics->window;
    double steps = (double)sum->steps, tokens_per_second = ratio((double)sum->tokens, sum->step_seconds);
    return (step_row){
        .epoch = report->epoch,
        .loss = report->loss,
        .lr = report->lr,
        .grad_norm = report->grad_norm,
        .tokens = (double)metrics->tokens,
        .skipped_steps = (double)metrics->skipped_steps,
        .tokens_per_second = tokens_per_second,
        .mfu =
            metrics->start.flops_per_token > 0 ? ratio(tokens_per_second * metrics->start.flops_per_token, metrics->start.peak_flops) : NAN,
        .step_seconds = sum->step_seconds / steps,
        .data_seconds = sum->data_seconds / steps,
        .compute_seconds = sum->compute_seconds / steps,
        .communication_seconds = sum->communication_seconds / steps,
        .optimizer_seconds = sum->optimizer_seconds / steps,
        .save_seconds = (report->stall_seconds - metrics->stalled) / steps,
        .slowest_rank = report->slowest_rank,
        .slowest_ratio = report->slowest_ratio,
        .rss_bytes = (double)espl_runinfo_rss(),
        .planned_bytes = (double)metrics->start.planned_bytes,
    };
}

static void keep(espl_metrics *metrics, espl_status status) {
    if (status != ESPL_OK) {
        if (metrics->lost++ == 0)
            ESPL_WARN("%s; training goes on, what cannot be written is lost", espl_status_message());
        espl_status_clear();
    } else if (metrics->lost > 0) {
        ESPL_WARN("%s: can be written again; reports lost: %lld", metrics->lines.path, (long long)metrics->lost);
        metrics->lost = 0;
    }
}

static espl_status write_row(espl_metrics *metrics, const char *event, int64_t step, const espl__metric *columns, const double *values,
                             size_t n) {
    espl_scalar scalars[ESPL_TENSORBOARD_SCALARS];
    size_t n_scalars = 0;
    ESPL_TRY(espl__lines_write(&metrics->lines, event, step, columns, values, n));
    if (metrics->board == NULL)
        return ESPL_OK;
    for (size_t i = 0; i < n; i++)
        if (columns[i].tag != NULL)
            scalars[n_scalars++] = (espl_scalar){columns[i].tag, columns[i].help, values[i]};
    return espl_tensorboard_write(metrics->board, step, scalars, n_scalars);
}

/* Evaluations and saves take their share of the time left: it is judged by the clock, not by the seconds of steps. */
static double seconds_left(const espl_metrics *metrics) {
    return (espl_now() - metrics->opened_at) / (double)metrics->made * (double)(metrics->start.total_steps - metrics->step);
}

static void show(const espl_metrics *metrics, const espl_step_report *report, const step_row *row, bool line) {
    espl_progress_state state = {
        .step = report->step,
        .total = metrics->start.total_steps,
        .loss = report->loss,
        .lr = report->lr,
        .grad_norm = report->grad_norm,
        .tokens_per_second = row->tokens_per_second,
        .utilisation = row->mfu,
        .utilisation_name = metrics->start.peak_name,
        .memory = (size_t)row->rss_bytes,
        .seconds_left = seconds_left(metrics),
    };
    espl_progress_step(&state, line);
}

void espl_metrics_work(espl_metrics *metrics, double flops_per_token) {
    if (metrics != NULL)
        metrics->start.flops_per_token = flops_per_token;
}

void espl_metrics_step(espl_metrics *metrics, const espl_step_report *report) {
    if (metrics == NULL)
        return;
    ESPL_ASSERT(report->step == metrics->step + 1, "step %lld reported after step %lld", (long long)report->step, (long long)metrics->step);
    metrics->step = report->step;
    metrics->tokens += report->tokens;
    metrics->made++;
    metrics->made_tokens += report->tokens;
    metrics->skipped_steps += report->skipped;
    add_to_window(&metrics->window, report);
    step_row row = make_row(metrics, report);
    bool line = report->step % metrics->every == 0 || report->step == metrics->start.total_steps;
    show(metrics, report, &row, line);
    if (!line)
        return;
    metrics->window = (window){0};
    metrics->stalled = report->stall_seconds;
    espl__energy_sample(&metrics->energy);
    keep(metrics, write_row(metrics, "step", report->step, step_columns, (const double *)&row, N_STEP));
}

static eval_row make_eval_row(const espl_eval_report *report) {
    const double none = NAN;
    bool classifier = report->classifier, texts = report->texts;
    return (eval_row){
        .valid_loss = report->loss,
        .perplexity = classifier ? none : exp(report->loss),
        .bits_per_byte = classifier ? none : ratio(report->loss * (double)report->tokens / M_LN2, (double)report->bytes),
        .accuracy = classifier ? report->accuracy : none,
        .precision = classifier ? report->precision : none,
        .recall = classifier ? report->recall : none,
        .f1 = classifier ? report->f1 : none,
        .matthews = classifier ? report->matthews : none,
        .roc_auc = classifier ? report->roc_auc : none,
        .rouge1 = texts ? report->rouge1 : none,
        .rouge2 = texts ? report->rouge2 : none,
        .rougeL = texts ? report->rougeL : none,
        .rougeLsum = texts ? report->rougeLsum : none,
        .bleu = texts ? report->bleu : none,
        .chrf = texts ? report->chrf : none,
        .exact_match = texts ? report->exact_match : none,
        .json_valid = texts ? report->json_valid : none,
        .json_keys = texts ? report->json_keys : none,
        .valid_tokens = (double)report->tokens,
        .eval_seconds = report->seconds,
    };
}

void espl_metrics_eval(espl_metrics *metrics, const espl_eval_report *report) {
    if (metrics == NULL)
        return;
    eval_row row = make_eval_row(report);
    if (report->classifier)
        ESPL_INFO("step %lld: validation loss %.4f, accuracy %.4f, F1 %.4f, %lld texts in %.1f s", (long long)report->step, row.valid_loss,
                  row.accuracy, row.f1, (long long)report->tokens, report->seconds);
    else if (report->texts)
        ESPL_INFO("step %lld: validation loss %.4f, ROUGE-L %.4f, BLEU %.2f, chrF %.2f, %lld tokens in %.1f s", (long long)report->step,
                  row.valid_loss, row.rougeL, row.bleu, row.chrf, (long long)report->tokens, report->seconds);
    else
        ESPL_INFO("step %lld: validation loss %.4f, perplexity %.4g, %lld tokens in %.1f s", (long long)report->step, row.valid_loss,
                  row.perplexity, (long long)report->tokens, report->seconds);
    keep(metrics, write_row(metrics, "eval", report->step, eval_columns, (const double *)&row, N_EVAL));
}

static espl_status write_probe(espl_metrics *metrics, const espl_probe_report *report) {
    const espl_scalar scalar = {report->tag, "Mean negative log-likelihood of a base-domain set's targets, in nats", report->loss};
    json_t *loss = isfinite(report->loss) ? json_real(report->loss) : json_null(),
           *rise = isfinite(report->rise) ? json_real(report->rise) : json_null();
    json_t *line = json_pack("{s:s, s:o, s:o, s:I, s:f}", "name", report->name, "probe_loss", loss, "rise", rise, "probe_tokens",
                             (json_int_t)report->tokens, "eval_seconds", report->seconds);
    espl_status status = espl__lines_write_object(&metrics->lines, "probe", report->step, line);
    json_decref(line);
    ESPL_TRY(status);
    return metrics->board != NULL ? espl_tensorboard_write(metrics->board, report->step, &scalar, 1) : ESPL_OK;
}

void espl_metrics_probe(espl_metrics *metrics, const espl_probe_report *report) {
    if (metrics == NULL)
        return;
    ESPL_INFO("step %lld: probe %s: loss %.4f, perplexity %.4g, %+.4f since before the first step, %lld tokens in %.1f s",
              (long long)report->step, report->name, report->loss, exp(report->loss), report->rise, (long long)report->tokens,
              report->seconds);
    keep(metrics, write_probe(metrics, report));
}

void espl_metrics_event(espl_metrics *metrics, const char *event, int64_t step, json_t *more) {
    if (metrics != NULL)
        keep(metrics, espl__lines_write_object(&metrics->lines, event, step, more));
}

static espl_status rewind_files(espl_metrics *metrics) {
    espl_status status = ESPL_OK;
    char *path = espl_strdup(metrics->lines.path);
    bool board = metrics->board != NULL;
    espl__lines_close(&metrics->lines);
    espl_tensorboard_close(&metrics->board);
    ESPL_TRY_DONE(espl__lines_open(&metrics->lines, path, metrics->step));
    if (board)
        ESPL_TRY_DONE(espl_tensorboard_open(&metrics->board, metrics->run_dir, metrics->step + 1));
done:
    free(path);
    return status;
}

void espl_metrics_rewind(espl_metrics *metrics, int64_t step, int64_t tokens, int64_t skipped_steps) {
    if (metrics == NULL)
        return;
    metrics->step = step;
    metrics->tokens = tokens;
    metrics->skipped_steps = skipped_steps;
    metrics->window = (window){0};
    keep(metrics, rewind_files(metrics));
}

void espl_metrics_note(espl_metrics *metrics, const char *text) {
    if (metrics != NULL)
        espl_progress_note(text);
}

/* What this process did. */
typedef struct totals {
    int64_t steps, tokens;
    double seconds, tokens_per_second, node_hours;
    size_t peak_rss;
} totals;

static totals sum_up(const espl_metrics *metrics) {
    totals sum = {.steps = metrics->made,
                  .tokens = metrics->made_tokens,
                  .seconds = espl_now() - metrics->opened_at,
                  .peak_rss = espl_runinfo_peak_rss()};
    sum.tokens_per_second = (double)sum.tokens / sum.seconds;
    sum.node_hours = sum.seconds / 3600.0 * metrics->start.n_nodes;
    return sum;
}

static void log_summary(const espl_metrics *metrics, const totals *sum) {
    ESPL_INFO("%lld steps, %lld tokens in %.1f s: %.0f tokens/s, %.3f node-hours, %lld steps skipped so far", (long long)sum->steps,
              (long long)sum->tokens, sum->seconds, sum->tokens_per_second, sum->node_hours, (long long)metrics->skipped_steps);
    size_t device = metrics->start.device_bytes;
    if (device > 0)
        ESPL_INFO("memory of rank 0: %.1f MiB on its GPU, as planned; %.1f MiB at most on the host", (double)device / 0x1p20,
                  (double)sum->peak_rss / 0x1p20);
    else
        ESPL_INFO("peak memory of rank 0: %.1f MiB (planned: %.1f MiB beside the %.1f MiB of program, libraries and lists of the data)",
                  (double)sum->peak_rss / 0x1p20, (double)metrics->start.planned_bytes / 0x1p20,
                  (double)metrics->start.process_bytes / 0x1p20);
    if (metrics->energy.n > 0)
        ESPL_INFO("energy of the CPU packages of rank 0's node: %.1f kJ", metrics->energy.joules / 1000.0);
    else
        ESPL_INFO("energy: not available (%s)", metrics->energy.reason);
}

void espl_metrics_summary(espl_metrics *metrics, const char *ended) {
    if (metrics == NULL)
        return;
    espl__energy_sample(&metrics->energy);
    totals sum = sum_up(metrics);
    log_summary(metrics, &sum);
    json_t *joules = metrics->energy.n > 0 ? json_real(metrics->energy.joules) : json_null();
    json_t *line =
        json_pack("{s:I, s:I, s:f, s:f, s:f, s:I, s:I, s:I, s:o, s:s}", "steps", (json_int_t)sum.steps, "tokens", (json_int_t)sum.tokens,
                  "seconds", sum.seconds, "tokens_per_second", sum.tokens_per_second, "node_hours", sum.node_hours, "skipped_steps",
                  (json_int_t)metrics->skipped_steps, "peak_rss_bytes", (json_int_t)sum.peak_rss, "process_bytes",
                  (json_int_t)metrics->start.process_bytes, "joules", joules, "ended", ended);
    espl_status status = espl__lines_write_object(&metrics->lines, "summary", metrics->step, line);
    json_decref(line);
    keep(metrics, status);
}

void espl_metrics_close(espl_metrics **metrics) {
    if (*metrics == NULL)
        return;
    espl_progress_close();
    espl_tensorboard_close(&(*metrics)->board);
    espl__lines_close(&(*metrics)->lines);
    espl__energy_close(&(*metrics)->energy);
    free((*metrics)->run_dir);
    free(*metrics);
    *metrics = NULL;
}
