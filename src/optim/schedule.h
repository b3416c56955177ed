/* Learning rate as a pure function of the step: nothing to save in a checkpoint, nothing to advance.
 *
 * Updates are numbered 1..total. Update n uses the factor that the schedulers of the transformers
 * package apply in their n-th update (they read it before they step, so theirs is lambda(n - 1)): with
 * warm-up the first update has rate 0, and no update has the factor of t = total. With t = step - 1,
 * w = warm-up steps, m = optim.min_lr_ratio and T = total:
 *
 *   warm-up             t / w while t < w (all but slanted_triangular; wsd rises from m, not from 0)
 *   constant            1
 *   linear              m + (1 - m) (T - t) / (T - w)
 *   cosine              m + (1 - m) (1 + cos(pi (t - w) / (T - w))) / 2     Loshchilov & Hutter 2017, eq. 5
 *   inverse_sqrt        1 / sqrt((t + s - w) / s), s = w, or 10000 without warm-up
 *   wsd                 1, then over the last d = ceil(optim.decay_ratio T) steps m + (1 - m) (1 + cos(pi x)) / 2
 *   slanted_triangular  m + (1 - m) p, p = t / c while t < c = floor(optim.cut_ratio T), then (T - t) / (T - c):
 *                       Howard & Ruder 2018, eq. 3 (m is their 1 / ratio), ending at t = T also when c was rounded
 *
 * w is optim.warmup_steps, or ceil(optim.warmup_ratio T) when that is 0. */
#ifndef ESPL_OPTIM_SCHEDULE_H
#define ESPL_OPTIM_SCHEDULE_H

#include "src/config/config.h"

/* Local. The learning rate of update `step` (1-based) of `total_steps`; steps past the total keep the value that t = T has. */
double espl_schedule_rate(const espl_config *config, int64_t step, int64_t total_steps);

#endif
