#include "comm/alike.h"

#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

/* ~x has the opposite order, so that one maximum finds the largest and the smallest. */
espl_status espl_comm_alike(espl_comm *comm, const uint64_t *numbers, size_t n, bool *alike) {
    int64_t *words = espl_malloc(2 * n * sizeof *words);
    for (size_t i = 0; i < n; i++) {
        words[2 * i] = (int64_t)numbers[i];
        words[2 * i + 1] = ~(int64_t)numbers[i];
    }
    espl_status status = espl_comm_allreduce_i64(comm, words, 2 * n, ESPL_MAX);
    for (size_t i = 0; i < n; i++)
        alike[i] = words[2 * i] == ~words[2 * i + 1];
    free(words);
    return status;
}

typedef struct held {
    uint64_t number;
    char host[64];
} held;

/* The first of those whose number more than half of all have (Boyer and Moore's vote); -1: there is none. */
static int find_majority(const held *all, int size) {
    int votes = 0, count = 0, most = 0, lowest = -1;
    for (int r = 0; r < size; r++) {
        if (votes == 0)
            most = r;
        votes += all[r].number == all[most].number ? 1 : -1;
    }
    for (int r = size - 1; r >= 0; r--)
        if (all[r].number == all[most].number) {
            count++;
            lowest = r;
        }
    return 2 * count > size ? lowest : -1;
}

/* As many as there is room for. */
static void list_odd(const held *all, int size, espl_odd *odd) {
    size_t used = 0;
    int left_out = 0;
    for (int r = 0; r < size; r++) {
        char one[128];
        if (odd->majority && all[r].number == all[odd->most].number)
            continue;
        int n = snprintf(one, sizeof one, "%srank %d on %s", used > 0 ? ", " : "", r, all[r].host);
        if (left_out > 0 || used + (size_t)n + 32 > sizeof odd->text) {
            left_out++;
            continue;
        }
        memcpy(odd->text + used, one, (size_t)n + 1);
        used += (size_t)n;
    }
    if (left_out > 0)
        snprintf(odd->text + used, sizeof odd->text - used, " and %d more", left_out);
}

espl_status espl_comm_odd_ones(espl_comm *comm, uint64_t number, espl_odd *odd) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    held mine = {.number = number}, *all = espl_calloc((size_t)ranks->size, sizeof *all);
    memcpy(mine.host, ranks->host, sizeof mine.host);
    *odd = (espl_odd){0};
    espl_status status = espl_comm_allgather(comm, &mine, sizeof mine, all);
    int most = find_majority(all, ranks->size);
    odd->majority = most >= 0;
    odd->most = most >= 0 ? most : 0;
    while (odd->first < ranks->size - 1 && all[odd->first].number == all[odd->most].number)
        odd->first++;
    list_odd(all, ranks->size, odd);
    free(all);
    return status;
}
