/* T5's relative position bias (Raffel et al. 2020, section 2.1): the score of a query and a key gets a number that depends on the head and
 * on a bucket of how far the key lies from the query. Half of the buckets of a direction hold one distance each, the rest grow as powers up
 * to rel_distance, and the last has all that is farther. Causal queries have one direction, others two.
 *
 * Fast kernels do not look buckets up score by score: they fill a table of a head over offsets key - query first, which goes far enough
 * beyond rel_distance for a block of scores that lies there to be moved to its edge. */
#ifndef ESPL_KERNELS_RELATIVE_BIAS_H
#define ESPL_KERNELS_RELATIVE_BIAS_H

#include "kernels/kernels.h"

#include <math.h>

enum {
    ESPL_REL_BUCKETS = 256, /* most of one direction */
    ESPL_REL_MARGIN = 128,  /* entries of a table beyond rel_distance on either side: queries and keys of a block together */
};

typedef struct espl__rel_buckets {
    int32_t n;                       /* of one direction */
    int32_t after;                   /* first bucket of keys behind the query; 0: they are not seen */
    int32_t begin[ESPL_REL_BUCKETS]; /* least distance of a bucket */
} espl__rel_buckets;

/* Local. The buckets of a row of the tape. Bucket n / 2 + k begins at e (rel_distance / e)^(k / (n - e)), e = n / 2, rounded up; where that
 * is a whole number, rounding in pow() must not make it the next. */
static inline espl__rel_buckets espl__rel_buckets_of(const espl_attrs *attrs, bool causal) {
    espl__rel_buckets buckets;
    buckets.n = causal ? attrs->rel_buckets : attrs->rel_buckets / 2;
    int32_t exact = buckets.n / 2;
    buckets.after = causal ? 0 : buckets.n;
    for (int32_t i = 0; i < buckets.n; i++) {
        double power = pow((double)attrs->rel_distance / exact, (double)(i - exact) / (buckets.n - exact));
        buckets.begin[i] = i < exact ? i : (int32_t)ceil(exact * power * (1 - 1e-9));
    }
    return buckets;
}

/* Local. The bucket of a key `offset` tokens behind the query (negative: before it). */
static inline ESPL_ANYWHERE int32_t espl__rel_bucket(const espl__rel_buckets *buckets, int32_t offset) {
    int32_t distance = offset < 0 ? -offset : buckets->after > 0 ? offset : 0, i = buckets->n - 1;
    while (buckets->begin[i] > distance)
        i--;
    return offset > 0 ? i + buckets->after : i;
}

/* Local. Entries of a head's table, and the entry of offset 0; entries go up with the offset. */
static inline int64_t espl__rel_entries(const espl_attrs *attrs) {
    return attrs->rel_buckets > 0 ? 2 * ((int64_t)attrs->rel_distance + ESPL_REL_MARGIN) : 0;
}
static inline int64_t espl__rel_middle(const espl_attrs *attrs) { return (int64_t)attrs->rel_distance + ESPL_REL_MARGIN; }

#endif
