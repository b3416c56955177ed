#include "src/optim/schedule.h"

#include <math.h>

typedef struct timeline {
    double t, warmup, total; /* finished updates, warm-up updates, all updates */
} timeline;

static double above_floor(double share, double floor) { return floor + (1.0 - floor) * share; }

static double half_cosine(double progress) { return 0.5 * (1.0 + cos(M_PI * progress)); }

/* Share of the way from `from` to `to`; a stretch without steps counts as one step long. */
static double progress_between(double t, double from, double to) { return (t - from) / fmax(1.0, to - from); }

static double constant(const espl_config *config, timeline at) {
    (void)config;
    return at.t < at.warmup ? at.t / at.warmup : 1.0;
}

static double linear(const espl_config *config, timeline at) {
    if (at.t < at.warmup)
        return at.t / at.warmup;
    return above_floor((at.total - at.t) / fmax(1.0, at.total - at.warmup), config->optim_min_lr_ratio);
}

static double cosine(const espl_config *config, timeline at) {
    if (at.t < at.warmup)
        return at.t / at.warmup;
    return above_floor(half_cosine(progress_between(at.t, at.warmup, at.total)), config->optim_min_lr_ratio);
}

static double inverse_sqrt(const espl_config *config, timeline at) {
    (void)config;
    if (at.t < at.warmup)
        return at.t / at.warmup;
    double scale = at.warmup > 0 ? at.warmup : 10000.0;
    return 1.0 / sqrt((at.t + scale - at.warmup) / scale);
}

static double wsd(const espl_config *config, timeline at) {
    double floor = config->optim_min_lr_ratio;
    if (at.t < at.warmup)
        return above_floor(at.t / at.warmup, floor);
    double decay_start = fmax(at.warmup, at.total - ceil(config->optim_decay_ratio * at.total));
    if (at.t < decay_start)
        return 1.0;
    return at.t < at.total ? above_floor(half_cosine(progress_between(at.t, decay_start, at.total)), floor) : floor;
}

static double slanted_triangular(const espl_config *config, timeline at) {
    double cut = floor(config->optim_cut_ratio * at.total);
    double share = at.t < cut ? at.t / cut : 1.0 - progress_between(at.t, cut, at.total);
    return above_floor(share, config->optim_min_lr_ratio);
}

static double (*const factors[])(const espl_config *, timeline) = {
    [ESPL_SCHEDULE_CONSTANT] = constant,         [ESPL_SCHEDULE_LINEAR] = linear, [ESPL_SCHEDULE_COSINE] = cosine,
    [ESPL_SCHEDULE_INVERSE_SQRT] = inverse_sqrt, [ESPL_SCHEDULE_WSD] = wsd,       [ESPL_SCHEDULE_SLANTED_TRIANGULAR] = slanted_triangular,
};

double espl_schedule_rate(const espl_config *config, int64_t step, int64_t total_steps) {
    ESPL_ASSERT(step >= 1 && total_steps >= 1, "step %lld of %lld", (long long)step, (long long)total_steps);
    double total = (double)total_steps;
    double warmup = config->optim_warmup_steps > 0 ? (double)config->optim_warmup_steps : ceil(config->optim_warmup_ratio * total);
    timeline at = {.t = fmin((double)(step - 1), total), .warmup = warmup, .total = total};
    return config->optim_lr * factors[config->optim_schedule](config, at);
}
