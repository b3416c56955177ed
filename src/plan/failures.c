#include "src/plan/failures.h"

#include "src/core/rng.h"
#include "src/core/status.h"

#include <math.h>

enum { DRAW_FAILURE = 2 };

double espl_interval_young(const espl_failures *f) { return sqrt(2.0 * f->hold * f->mtbf); }

double espl_interval_daly(const espl_failures *f) {
    double ratio = f->hold / (2.0 * f->mtbf);
    if (f->hold >= 2.0 * f->mtbf)
        return f->mtbf;
    return espl_interval_young(f) * (1.0 + sqrt(ratio) / 3.0 + ratio / 9.0) - f->hold;
}

double espl_failures_goodput(const espl_failures *f, double interval) {
    return interval / (f->mtbf * exp(f->restart / f->mtbf) * expm1((interval + f->hold) / f->mtbf));
}

/* Exponentially distributed; 48 bits, so that long times between failures occur, too. */
static double draw(const espl_failures *f, uint64_t seed, int64_t number) {
    const espl_rng_key key = {.seed = seed, .purpose = ESPL_RNG_SIMULATE, .op = DRAW_FAILURE};
    const espl_rng4 bits = espl_rng_block(&key, (uint64_t)number);
    double uniform = ((double)bits.v[0] * 0x1p16 + (double)(bits.v[1] >> 16) + 0.5) * 0x1p-48;
    return -f->mtbf * log(uniform);
}

/* One life, from a start to the failure `until` seconds later or to the end of the work. A save begins every `interval` of work and is
 * complete `write` seconds after its begin; the work until its begin is then kept. */
static void live(const espl_failures *f, double interval, double until, double left, espl_failure_costs *costs) {
    double now = 0.0, done = 0.0, kept = 0.0;
    while (now < until) {
        double piece = fmin(interval, left - done), end = now + piece;
        if (end >= until || done + piece >= left) { /* the rest is short, or ends the run */
            done += fmin(piece, until - now);
            break;
        }
        done += piece;
        double saved = fmin(end + f->hold, until);
        costs->saving += saved - end;
        now = saved;
        if (end + fmax(f->write, f->hold) <= until)
            kept = done;
    }
    if (done >= left)
        kept = left;
    costs->kept += kept;
    costs->lost += done - kept;
}

espl_failure_costs espl_failures_simulate(const espl_failures *f, double interval, double work, uint64_t seed, int64_t most) {
    espl_failure_costs costs = {0};
    ESPL_ASSERT(interval > 0.0 && f->mtbf > 0.0, "an interval of %g s, %g s between failures", interval, f->mtbf);
    for (int64_t i = 0; costs.kept < work && i < most; i++) {
        double gap = draw(f, seed, i), down = i > 0 ? fmin(f->restart, gap) : 0.0;
        costs.down += down;
        if (down < gap)
            live(f, interval, gap - down, work - costs.kept, &costs);
        costs.failures += costs.kept < work;
    }
    return costs;
}
