#include "comm/alike.h"

#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

/* ~x has the opposite order, so that one maximum finds the largest and the smallest. */
espl_status espl_comm_alike(espl_comm *comm, const uint64_t *numbers, size_t n, int places, bool *alike) {
    const size_t place = (size_t)(espl_comm_ranks(comm)->rank % places), all = n * (size_t)places;
    int64_t *words = espl_malloc(2 * all * sizeof *words);
    for (size_t i = 0; i < 2 * all; i++)
        words[i] = INT64_MIN;
    for (size_t i = 0; i < n; i++) {
        words[2 * (place * n + i)] = (int64_t)numbers[i];
        words[2 * (place * n + i) + 1] = ~(int64_t)numbers[i];
    }
    espl_status status = espl_comm_allreduce_i64(comm, words, 2 * all, ESPL_MAX);
    for (size_t i = 0; i < n; i++)
        alike[i] = true;
    for (size_t i = 0; i < all; i++)
        alike[i % n] &= words[2 * i] == ~words[2 * i + 1];
    free(words);
    return status;
}

typedef struct held {
    uint64_t number;
    char host[64];
} held;

/* What all ranks hold, and who is odd. */
typedef struct table {
    held *all;
    bool *odd;
    int size, places;
} table;

/* The first of those in a place whose number more than half of them have (Boyer and Moore's vote); -1: there is none. */
static int find_majority(const table *t, int place) {
    int votes = 0, count = 0, most = place, lowest = -1;
    for (int r = place; r < t->size; r += t->places) {
        if (votes == 0)
            most = r;
        votes += t->all[r].number == t->all[most].number ? 1 : -1;
    }
    for (int r = t->size - 1; r >= 0; r--)
        if (r % t->places == place && t->all[r].number == t->all[most].number) {
            count++;
            lowest = r;
        }
    return 2 * count > (t->size - place + t->places - 1) / t->places ? lowest : -1;
}

/* Without a majority all are odd. Returns whether the ranks of the place differ. */
static bool look_at(table *t, int place, espl_odd *odd) {
    const int found = find_majority(t, place), most = found >= 0 ? found : place;
    int first = -1;
    for (int r = t->size - 1; r >= 0; r--)
        if (r % t->places == place && t->all[r].number != t->all[most].number)
            first = r;
    for (int r = place; r < t->size && first >= 0; r += t->places)
        t->odd[r] = found < 0 || t->all[r].number != t->all[most].number;
    if (first >= 0)
        *odd = (espl_odd){.majority = found >= 0, .most = most, .first = first};
    return first >= 0;
}

static void look_at_all(table *t, espl_odd *odd) {
    bool majority = true;
    espl_odd one;
    for (int place = t->places - 1; place >= 0; place--)
        if (look_at(t, place, &one)) {
            majority &= one.majority;
            *odd = one;
        }
    odd->majority = majority;
}

/* As many as there is room for. */
static void list_odd(const table *t, espl_odd *odd) {
    size_t used = 0;
    int left_out = 0;
    for (int r = 0; r < t->size; r++) {
        char one[128];
        if (!t->odd[r])
            continue;
        int n = snprintf(one, sizeof one, "%srank %d on %s", used > 0 ? ", " : "", r, t->all[r].host);
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

espl_status espl_comm_odd_ones(espl_comm *comm, uint64_t number, int places, espl_odd *odd) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    const size_t size = (size_t)ranks->size;
    held mine = {.number = number};
    table t = {.all = espl_calloc(size, sizeof *t.all), .odd = espl_calloc(size, sizeof *t.odd), .size = ranks->size, .places = places};
    memcpy(mine.host, ranks->host, sizeof mine.host);
    *odd = (espl_odd){0};
    espl_status status = espl_comm_allgather(comm, &mine, sizeof mine, t.all);
    look_at_all(&t, odd);
    list_odd(&t, odd);
    free(t.all);
    free(t.odd);
    return status;
}
