#include "src/report/run_status.h"

#include "io/checkpoint/checkpoint_folder.h"
#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LATE_LINES = 20 };

/* A run is silent after this, and after several of its own intervals: evaluations and saves have lines of their own, but take their time.
 */
static const double silent_seconds = 120.0, silent_intervals = 5.0;

static double number(const json_t *line, const char *name) {
    const json_t *value = json_object_get(line, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void set_number(json_t *object, const char *name, double value) {
    if (isfinite(value))
        json_object_set_new(object, name, json_real(value));
}

static void set_whole(json_t *object, const char *name, double value) {
    if (isfinite(value))
        json_object_set_new(object, name, json_integer((json_int_t)value));
}

/* ---- Making. */

static double latest_time(const espl_run_files *run) {
    const json_t *const lines[] = {run->start, run->summary, json_array_get(run->steps, json_array_size(run->steps) - 1),
                                   json_array_get(run->evals, json_array_size(run->evals) - 1),
                                   json_array_get(run->probes, json_array_size(run->probes) - 1)};
    double latest = NAN;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        latest = fmax(latest, number(lines[i], "time"));
    return latest;
}

/* Seconds a step and a line over the latest lines of this process, evaluations and saves between them included. */
static void pace(const espl_run_files *run, double *step, double *line) {
    size_t n = json_array_size(run->steps);
    const json_t *last = json_array_get(run->steps, n - 1), *first = last;
    int lines = 0;
    for (; (size_t)lines + 1 < n && lines < LATE_LINES; lines++) {
        const json_t *earlier = json_array_get(run->steps, n - 2 - (size_t)lines);
        if (number(earlier, "time") < number(run->start, "time"))
            break;
        first = earlier;
    }
    double seconds = number(last, "time") - number(first, "time");
    *step = lines > 0 ? seconds / (number(last, "step") - number(first, "step")) : NAN;
    *line = lines > 0 ? seconds / lines : NAN;
}

static espl_status add_checkpoint(const espl_run_files *run, double now, json_t *status) {
    espl_committed *list = NULL;
    size_t n = 0;
    struct stat found;
    char *folder = espl_format("%s/checkpoints", run->folder);
    espl_status result = espl_checkpoint_list(folder, &list, &n);
    if (result == ESPL_OK && n > 0) {
        char *manifest = espl_format("%s/manifest.json", list[0].path);
        json_t *checkpoint = json_pack("{s:I, s:s}", "step", (json_int_t)list[0].step, "path", list[0].path);
        if (stat(manifest, &found) == 0)
            set_number(checkpoint, "age", now - (double)found.st_mtime);
        json_object_set_new(status, "checkpoint", checkpoint);
        free(manifest);
    }
    espl_checkpoint_list_free(list, n);
    free(folder);
    return result;
}

static void add_copy(const espl_run_files *run, double now, json_t *status) {
    const char *state = json_string_value(json_object_get(status, "state"));
    if (run->copy == NULL || strcmp(state, "done") == 0 || strcmp(state, "stopped") == 0)
        return;
    json_t *copy = json_object();
    set_whole(copy, "step", number(run->copy, "step"));
    set_number(copy, "age", now - number(run->copy, "time"));
    json_object_set_new(status, "memory_copy", copy);
}

static const char *state_of(const espl_run_files *run, const char *ended, double heard, double every) {
    if (run->state == ESPL_RUN_DONE)
        return "done";
    if (run->state == ESPL_RUN_ENDED)
        return ended != NULL && strncmp(ended, "stopped", 7) == 0 ? "stopped" : "failed";
    return heard > fmax(silent_seconds, isfinite(every) ? silent_intervals * every : 0.0) ? "silent" : "running";
}

static void add_numbers(const espl_run_files *run, double step_seconds, json_t *status) {
    const json_t *last = json_array_get(run->steps, json_array_size(run->steps) - 1);
    double step = number(last != NULL ? last : run->start, "step"), total = number(run->start, "total_steps");
    set_whole(status, "step", step);
    set_whole(status, "total_steps", total);
    set_number(status, "loss", number(last, "loss"));
    set_number(status, "valid_loss", espl_last_of(run->evals, "valid_loss"));
    set_number(status, "tokens_per_second", number(last, "tokens_per_second"));
    if (run->state == ESPL_RUN_GOING)
        set_number(status, "seconds_left", step_seconds * (total - step));
}

espl_status espl_run_status_make(const espl_run_files *run, double now, json_t **made) {
    double step_seconds, every, heard = now - latest_time(run);
    const char *ended = json_string_value(json_object_get(run->summary, "ended"));
    json_t *job = json_object_get(json_object_get(run->start, "about"), "job");
    json_t *status = json_pack("{s:s}", "run", run->folder);
    pace(run, &step_seconds, &every);
    json_object_set_new(status, "state", json_string(state_of(run, ended, heard, every)));
    if (ended != NULL)
        json_object_set_new(status, "ended", json_string(ended));
    add_numbers(run, step_seconds, status);
    set_number(status, "heard", heard);
    set_number(status, "every", every);
    if (job != NULL)
        json_object_set(status, "job", job);
    add_copy(run, now, status);
    espl_status result = add_checkpoint(run, now, status);
    if (result == ESPL_OK)
        *made = status;
    else
        json_decref(status);
    return result;
}

/* ---- Printing. */

static void print_span(double seconds, FILE *out) {
    int64_t s = (int64_t)fmax(seconds, 0.0);
    if (s >= 86400)
        fprintf(out, "%lld d %lld h", (long long)(s / 86400), (long long)(s / 3600 % 24));
    else if (s >= 3600)
        fprintf(out, "%lld h %lld min", (long long)(s / 3600), (long long)(s / 60 % 60));
    else if (s >= 60)
        fprintf(out, "%lld min %lld s", (long long)(s / 60), (long long)(s % 60));
    else
        fprintf(out, "%lld s", (long long)s);
}

static void print_state(const json_t *status, FILE *out) {
    const char *state = json_string_value(json_object_get(status, "state")), *ended = json_string_value(json_object_get(status, "ended"));
    bool silent = strcmp(state, "silent") == 0;
    fprintf(out, "%s: %s", json_string_value(json_object_get(status, "run")), state);
    if (ended != NULL && strcmp(ended, "done") != 0)
        fprintf(out, " (%s)", ended);
    if (silent)
        fprintf(out, ": it waits, saves, evaluates for long, or is dead; look at its job and at log.txt");
    fprintf(out, "\n");
    if (!isfinite(number(status, "heard")))
        return;
    fprintf(out, "  heard of     ");
    print_span(number(status, "heard"), out);
    fprintf(out, " ago");
    if (isfinite(number(status, "every")))
        fprintf(out, ", every %.3g s of late", number(status, "every"));
    fprintf(out, "\n");
}

static void print_step(const json_t *status, FILE *out) {
    double step = number(status, "step"), total = number(status, "total_steps"), left = number(status, "seconds_left");
    if (!isfinite(step))
        return;
    fprintf(out, "  step         %.0f", step);
    if (isfinite(total))
        fprintf(out, " of %.0f (%.1f %%)", total, 100.0 * step / total);
    if (isfinite(left)) {
        fprintf(out, ", ");
        print_span(left, out);
        fprintf(out, " left");
    }
    fprintf(out, "\n");
}

static void print_number(const json_t *status, const char *name, const char *label, const char *format, FILE *out) {
    if (!isfinite(number(status, name)))
        return;
    fprintf(out, "  %-12s ", label);
    fprintf(out, format, number(status, name));
    fprintf(out, "\n");
}

static void print_checkpoint(const json_t *status, FILE *out) {
    const json_t *checkpoint = json_object_get(status, "checkpoint");
    if (checkpoint == NULL) {
        fprintf(out, "  checkpoint   none yet\n");
        return;
    }
    fprintf(out, "  checkpoint   step %.0f, ", number(checkpoint, "step"));
    print_span(number(checkpoint, "age"), out);
    fprintf(out, " ago: %s\n", json_string_value(json_object_get(checkpoint, "path")));
}

static void print_copy(const json_t *status, FILE *out) {
    const json_t *copy = json_object_get(status, "memory_copy");
    if (copy == NULL)
        return;
    fprintf(out, "  memory copy  step %.0f, ", number(copy, "step"));
    print_span(number(copy, "age"), out);
    fprintf(out, " ago\n");
}

void espl_run_status_print(const json_t *status, FILE *out) {
    const char *name;
    json_t *value;
    print_state(status, out);
    print_step(status, out);
    print_number(status, "loss", "loss", "%.4f", out);
    print_number(status, "valid_loss", "validation", "%.4f", out);
    print_number(status, "tokens_per_second", "tokens/s", "%.0f", out);
    print_checkpoint(status, out);
    print_copy(status, out);
    if (json_object_get(status, "job") == NULL)
        return;
    fprintf(out, "  job         ");
    json_object_foreach(json_object_get(status, "job"), name, value) fprintf(out, " %s=%s", name, json_string_value(value));
    fprintf(out, "\n");
}
