#include "src/train/machine/stragglers.h"

#include "src/core/buffer.h"
#include "src/core/median.h"

#include <math.h>
#include <stdlib.h>

void espl_stragglers_open(espl_stragglers *s, double factor, int64_t steps, int size) {
    *s = (espl_stragglers){.factor = factor,
                           .steps = steps,
                           .size = size,
                           .ranks = espl_calloc((size_t)size, sizeof *s->ranks),
                           .scratch = espl_calloc((size_t)size, sizeof *s->scratch),
                           .ratio = NAN};
}

void espl_stragglers_add(espl_stragglers *s, const int64_t *times) {
    for (int r = 0; r < s->size; r++)
        s->scratch[r] = (double)times[r];
    double median = espl_median(s->scratch, (size_t)s->size);
    s->slowest = 0;
    for (int r = 0; r < s->size; r++) {
        struct espl_straggler *rank = &s->ranks[r];
        bool slow = (double)times[r] > s->factor * median;
        rank->ratios = slow ? rank->ratios + (double)times[r] / median : 0.0;
        rank->in_row = slow ? rank->in_row + 1 : 0;
        if (times[r] > times[s->slowest])
            s->slowest = r;
    }
    s->ratio = (double)times[s->slowest] / median;
}

/* Whether n is `steps` times a power of two. */
static bool is_told_at(int64_t n, int64_t steps) {
    int64_t times = n / steps;
    return n > 0 && n % steps == 0 && (times & (times - 1)) == 0;
}

espl_straggling espl_stragglers_ask(espl_stragglers *s, int r, double *ratio, int64_t *steps) {
    struct espl_straggler *rank = &s->ranks[r];
    *steps = rank->in_row;
    *ratio = rank->in_row > 0 ? rank->ratios / (double)rank->in_row : NAN;
    if (rank->told && rank->in_row == 0) {
        rank->told = false;
        return ESPL_STRAGGLING_ENDS;
    }
    if (!is_told_at(rank->in_row, s->steps))
        return ESPL_STRAGGLING_NOT;
    rank->told = true;
    return ESPL_STRAGGLING_BEGINS;
}

void espl_stragglers_free(espl_stragglers *s) {
    free(s->ranks);
    free(s->scratch);
    *s = (espl_stragglers){0};
}
