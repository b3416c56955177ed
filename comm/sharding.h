/* Who owns which elements of a flat array: rank r of `size` has elements [r n/size, (r+1) n/size) of each bucket.
 *
 * A bucket is a stretch of the flat arrays of gradients, weights and moments that is reduced, updated and gathered as one. Its length
 * is padded to a multiple of ESPL_SHARD_UNIT elements a rank, so any parameter shards over any number of ranks and every shard starts
 * on a cache line. Pure arithmetic on two integers: a plan for 512 ranks is made on a laptop. */
#ifndef ESPL_COMM_SHARDING_H
#define ESPL_COMM_SHARDING_H

#include <stdint.h>

enum { ESPL_SHARD_UNIT = 256 };

typedef struct espl_bucket {
    int64_t offset, n; /* elements; n a multiple of ESPL_SHARD_UNIT * ranks */
} espl_bucket;

/* Local. n rounded up to a multiple of ESPL_SHARD_UNIT * size. */
int64_t espl_shard_pad(int64_t n, int size);

/* Local. Elements [*begin, *end) of the flat array that `rank` owns of a bucket. */
void espl_shard_range(const espl_bucket *bucket, int rank, int size, int64_t *begin, int64_t *end);

/* Local. Elements that the buckets span: the end of the last one. */
int64_t espl_shard_extent(const espl_bucket *buckets, int64_t n_buckets);

#endif
