/* What failures cost a long run, and how often to save: the formulas of Young and of Daly, and a simulation of failures one by one.
 *
 * Failures come as a Poisson process over the whole job; each ends it, and it goes on `restart` seconds later from the last save that was
 * complete. Seconds everywhere. Local, all. */
#ifndef ESPL_PLAN_FAILURES_H
#define ESPL_PLAN_FAILURES_H

#include <stdint.h>

typedef struct espl_failures {
    double mtbf;    /* of the job: a host's divided by the hosts */
    double hold;    /* that a save holds training up */
    double write;   /* until a save is complete and counts, the hold included */
    double restart; /* until training goes on */
} espl_failures;

/* Work between saves: sqrt(2 hold mtbf) (Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974). */
double espl_interval_young(const espl_failures *failures);

/* The same to higher order: sqrt(2 d M) (1 + 1/3 sqrt(d / 2M) + 1/9 (d / 2M)) - d for d < 2M, else M, of hold d and mtbf M (Daly, "A higher
 * order estimate of the optimum checkpoint interval for restart dumps", FGCS 22, 2006, equation 37). */
double espl_interval_daly(const espl_failures *failures);

/* Share of the time that is kept work where a save comes every `interval` of work: interval / (M e^(R/M) (e^((interval + d)/M) - 1)), of
 * restart R (ibid., equation 20), for saves that are complete when they end to hold training up. */
double espl_failures_goodput(const espl_failures *failures, double interval);

typedef struct espl_failure_costs {
    double kept;               /* work that no failure undid */
    double saving, lost, down; /* held up by saves; work done in vain; restarting */
    int64_t failures;
} espl_failure_costs;

/* A run of `work` seconds of kept work, simulated; the four add up to how long it took. At most `most` failures are gone through, then the
 * simulation ends with what was kept so far. */
espl_failure_costs espl_failures_simulate(const espl_failures *failures, double interval, double work, uint64_t seed, int64_t most);

#endif
