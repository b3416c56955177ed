#include "comm/sharding.h"

int64_t espl_shard_pad(int64_t n, int size) {
    int64_t unit = (int64_t)ESPL_SHARD_UNIT * size;
    return (n + unit - 1) / unit * unit;
}

void espl_shard_range(const espl_bucket *bucket, int rank, int size, int64_t *begin, int64_t *end) {
    int64_t shard = bucket->n / size;
    *begin = bucket->offset + rank * shard;
    *end = *begin + shard;
}

int64_t espl_shard_extent(const espl_bucket *buckets, int64_t n_buckets) {
    int64_t extent = 0;
    for (int64_t i = 0; i < n_buckets; i++)
        if (buckets[i].offset + buckets[i].n > extent)
            extent = buckets[i].offset + buckets[i].n;
    return extent;
}
