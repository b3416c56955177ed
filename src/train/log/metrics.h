/* What a run tells about itself: metrics.jsonl, TensorBoard events, progress on stderr, a summary at the end.
 *
 * Rank 0 opens it; on the other ranks the handle is NULL and every function does nothing. The loop reports every step;
 * a line is written for multiples of log.every and for the last step. metrics.jsonl holds one JSON object a line with
 * "event" (start, step, eval, probe, spike, rollback, straggler, no_checkpoint, memory_copy, summary), "step" and "time" (seconds since
 * 1970), then the columns of metrics.def; what is unknown or not finite is null. After a resume the file goes on where the checkpoint was:
 * lines of later steps are removed first, so it holds each step once. Reporting a step takes no memory. One thread reports. */
#ifndef ESPL_TRAIN_METRICS_H
#define ESPL_TRAIN_METRICS_H

#include "src/config/config.h"

#include <jansson.h>

typedef struct espl_metrics espl_metrics;

typedef struct espl_metrics_start {
    int64_t resume_step; /* steps that are done: the checkpoint's step, 0 for a new run (its older lines are removed) */
    int64_t total_steps; /* last step of the run */
    int64_t tokens;      /* counters as the checkpoint had them */
    int64_t skipped_steps;
    double flops_per_token;     /* as espl_metrics_work would say */
    double peak_flops;          /* flops a second that all ranks together could do; 0: unknown */
    const char *peak_name;      /* how mfu is called on the terminal: "MFU", "of peak"; borrowed */
    size_t planned_bytes;       /* of rank 0 */
    size_t device_bytes;        /* of them, on a device that is not the host */
    size_t process_bytes;       /* resident before they were taken */
    double rate_low, rate_high; /* by which the learning rates of parameters are multiplied, at least and at most */
    int n_nodes;
    json_t *about; /* borrowed; stands in the start line under "about" (espl_runinfo_make); or NULL */
} espl_metrics_start;

typedef struct espl_step_report {
    int64_t step; /* 1-based */
    double epoch; /* passes over the data so far */
    double loss, lr, grad_norm;
    int64_t tokens; /* of this step, over all ranks */
    double step_seconds, data_seconds, compute_seconds, communication_seconds, optimizer_seconds;
    double stall_seconds;               /* that saves have held the run up, since it was opened */
    double slowest_rank, slowest_ratio; /* of several ranks the slowest, and its time over the median; else NAN */
    bool skipped;                       /* the update was skipped */
} espl_step_report;

typedef struct espl_eval_report {
    int64_t step;   /* steps done when it was made */
    double loss;    /* nats a target token */
    int64_t tokens; /* target tokens */
    int64_t bytes;  /* of the text they stand for; 0: unknown */
    double seconds;
    bool classifier; /* targets are texts, and these scores are there */
    double accuracy, precision, recall, f1, matthews, roc_auc;
    bool texts; /* texts were generated, and these scores are there */
    double rouge1, rouge2, rougeL, rougeLsum, bleu, chrf, exact_match, json_valid, json_keys; /* the last two NAN where they are not told */
} espl_eval_report;

typedef struct espl_probe_report {
    int64_t step;      /* steps done when it was made */
    const char *name;  /* of the set */
    const char *tag;   /* of its loss in TensorBoard; the address tells tags apart, and it must last as long as the metrics */
    double loss, rise; /* nats a target; rise: since before the first step */
    int64_t tokens;    /* target tokens */
    double seconds;
} espl_probe_report;

/* Local. Opens metrics.jsonl in `run_dir` and, by log.tensorboard and log.progress, the rest. Errors: io. */
espl_status espl_metrics_open(espl_metrics **metrics, const espl_config *config, const char *run_dir, const espl_metrics_start *start);

/* Local. From now on a token takes so many flops of the model, forward and backward; 0: unknown. */
void espl_metrics_work(espl_metrics *metrics, double flops_per_token);

/* Local. Reports a finished step; steps come in order, each once. Here and below: what cannot be written is lost, with a warning when that
 * begins and when it ends; no training ends for it. */
void espl_metrics_step(espl_metrics *metrics, const espl_step_report *report);

/* Local. Reports an evaluation. */
void espl_metrics_eval(espl_metrics *metrics, const espl_eval_report *report);

/* Local. Reports the evaluation of one set of data.probe, as a line "probe". */
void espl_metrics_probe(espl_metrics *metrics, const espl_probe_report *report);

/* Local. Writes a line of another event ("spike", "rollback") with what `more` holds, which is borrowed. */
void espl_metrics_event(espl_metrics *metrics, const char *event, int64_t step, json_t *more);

/* Local. The run goes back to `step`, with what was counted by then; lines and TensorBoard's events of later steps are removed, as for a
 * resume. */
void espl_metrics_rewind(espl_metrics *metrics, int64_t step, int64_t tokens, int64_t skipped_steps);

/* Local. Shows on the bar what the run is at ("evaluating 3/20"); NULL: steps again. Free to call often. */
void espl_metrics_note(espl_metrics *metrics, const char *text);

/* Local. Writes the summary (tokens, wall time, tokens a second, node-hours, peak memory, energy) to the log and as the last
 * line of metrics.jsonl. `ended` says why the run ends: "done", "stopped by SIGUSR1", or how it failed. */
void espl_metrics_summary(espl_metrics *metrics, const char *ended);

/* Local. Closes; takes the address, nulls it, accepts NULL. */
void espl_metrics_close(espl_metrics **metrics);

#endif
