/* Spreading updated weights, and bringing those together that are cut over ranks, bucket by bucket. */
#include "comm/reducer.h"

#include "src/core/buffer.h"

#include <stdlib.h>

struct espl_gather {
    espl_comm *comm;
    const espl_bucket *buckets;
    int64_t n_buckets;
    char *weights;
    size_t element;
    espl_request *requests; /* [n_buckets]; -1: nothing under way */
};

void espl_gather_make(espl_comm *comm, const espl_bucket *buckets, int64_t n_buckets, void *weights, size_t element, espl_gather **made) {
    ESPL_ASSERT(n_buckets <= ESPL_MAX_REQUESTS, "%lld buckets", (long long)n_buckets);
    espl_gather *gather = espl_malloc(sizeof *gather);
    *gather = (espl_gather){.comm = comm, .buckets = buckets, .n_buckets = n_buckets, .weights = weights, .element = element};
    gather->requests = espl_malloc((size_t)n_buckets * sizeof *gather->requests);
    for (int64_t i = 0; i < n_buckets; i++)
        gather->requests[i] = -1;
    *made = gather;
}

espl_status espl_gather_start(espl_gather *gather, int64_t b) {
    const espl_bucket *bucket = &gather->buckets[b];
    ESPL_ASSERT(gather->requests[b] == -1, "bucket %lld is being gathered", (long long)b);
    return espl_comm_allgather_start(gather->comm, gather->weights + (size_t)bucket->offset * gather->element,
                                     (size_t)bucket->n * gather->element, &gather->requests[b]);
}

espl_status espl_gather_wait(espl_gather *gather, int64_t b) {
    espl_request request = gather->requests[b];
    if (request < 0)
        return ESPL_OK;
    gather->requests[b] = -1;
    espl_comm_point(gather->comm, "gathering weights");
    return espl_comm_wait(gather->comm, request);
}

espl_status espl_gather_finish(espl_gather *gather) {
    for (int64_t b = 0; b < gather->n_buckets; b++)
        ESPL_TRY(espl_gather_wait(gather, b));
    return ESPL_OK;
}

void espl_gather_free(espl_gather **address) {
    espl_gather *gather = *address;
    *address = NULL;
    if (gather == NULL)
        return;
    free(gather->requests);
    free(gather);
}

struct espl_fetcher {
    espl_comm *comm;
    espl_fetcher_plan plan;
    espl_request *requests; /* [n_buckets]; -1: nothing under way */
};

void espl_fetcher_make(espl_comm *comm, const espl_fetcher_plan *plan, espl_fetcher **made) {
    espl_fetcher *fetcher = espl_malloc(sizeof *fetcher);
    *fetcher = (espl_fetcher){.comm = comm, .plan = *plan, .requests = espl_malloc((size_t)plan->n_buckets * sizeof *fetcher->requests)};
    for (int64_t i = 0; i < plan->n_buckets; i++)
        fetcher->requests[i] = -1;
    *made = fetcher;
}

espl_status espl_fetcher_start(espl_fetcher *fetcher, int64_t b, void *to) {
    const espl_ranks *ranks = espl_comm_ranks(fetcher->comm);
    const espl_bucket *bucket = &fetcher->plan.buckets[b];
    const size_t shard = (size_t)(bucket->n / ranks->group_size) * fetcher->plan.element;
    const char *own = (const char *)fetcher->plan.shards + (size_t)(bucket->offset / ranks->group_size) * fetcher->plan.element;
    ESPL_ASSERT(fetcher->requests[b] == -1, "bucket %lld is being fetched", (long long)b);
    fetcher->plan.copy((char *)to + (size_t)ranks->place * shard, own, shard);
    return espl_comm_allgather_start(fetcher->comm, to, (size_t)ranks->group_size * shard, &fetcher->requests[b]);
}

espl_status espl_fetcher_wait(espl_fetcher *fetcher, int64_t b) {
    espl_request request = fetcher->requests[b];
    fetcher->requests[b] = -1;
    return espl_comm_wait(fetcher->comm, request);
}

void espl_fetcher_free(espl_fetcher **address) {
    espl_fetcher *fetcher = *address;
    *address = NULL;
    if (fetcher == NULL)
        return;
    free(fetcher->requests);
    free(fetcher);
}
