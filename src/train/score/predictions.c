#include "src/train/score/predictions.h"

#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

espl_predictions espl_predictions_make(int classes) { return (espl_predictions){.classes = classes}; }

void espl_predictions_free(espl_predictions *p) {
    free(p->documents);
    free(p->gold);
    free(p->probabilities);
    *p = (espl_predictions){0};
}

static void reserve(espl_predictions *p, int64_t n) {
    if (n <= p->capacity)
        return;
    p->capacity = n > 2 * p->capacity ? n : 2 * p->capacity;
    p->documents = espl_realloc(p->documents, (size_t)p->capacity * sizeof *p->documents);
    p->gold = espl_realloc(p->gold, (size_t)p->capacity * sizeof *p->gold);
    p->probabilities = espl_realloc(p->probabilities, (size_t)(p->capacity * p->classes) * sizeof *p->probabilities);
}

/* The largest logit is taken off first, so nothing overflows. */
static void softmax(const float *logits, int classes, float *probabilities) {
    double largest = (double)logits[0], sum = 0.0;
    for (int k = 1; k < classes; k++)
        largest = fmax(largest, (double)logits[k]);
    for (int k = 0; k < classes; k++)
        sum += exp((double)logits[k] - largest);
    for (int k = 0; k < classes; k++)
        probabilities[k] = (float)(exp((double)logits[k] - largest) / sum);
}

static void add(espl_predictions *p, const espl_sample *s, const float *logits) {
    reserve(p, p->n + s->n_segments);
    for (int32_t i = 0; i < s->n_segments; i++) {
        if (s->labels[i] < 0)
            continue;
        p->documents[p->n] = s->documents[i];
        p->gold[p->n] = s->labels[i];
        softmax(logits + (int64_t)i * p->classes, p->classes, p->probabilities + p->n * p->classes);
        p->n++;
    }
}

espl_status espl_predictions_take(espl_predictions *p, const espl_engine *engine, const espl_tape *tape, const espl_sample *s) {
    espl_dtype real = engine->kernels->real;
    size_t n = (size_t)s->n_segments * (size_t)p->classes;
    void *found = espl_malloc((n + 1) * espl_dtype_size(real));
    float *logits = espl_malloc((n + 1) * sizeof *logits);
    espl_status status = engine->calls->read(engine->device, found, espl_tape_buffer(tape, tape->logits), n * espl_dtype_size(real));
    espl_dtype_convert(logits, ESPL_F32, found, real, n);
    if (status == ESPL_OK)
        add(p, s, logits);
    free(found);
    free(logits);
    return status;
}

/* ---- All ranks' rows. */

/* Gathers [n, width] of every rank, padded to the longest; the caller frees. */
static espl_status gather_column(espl_comm *comm, const void *mine, int64_t n, int64_t most, size_t width, char **all) {
    char *padded = espl_calloc((size_t)most + 1, width);
    memcpy(padded, mine, (size_t)n * width);
    *all = espl_malloc(((size_t)most + 1) * width * (size_t)espl_comm_ranks(comm)->size);
    espl_status status = espl_comm_allgather(comm, padded, ((size_t)most + 1) * width, *all);
    free(padded);
    return status;
}

typedef struct place {
    int64_t document, row;
} place;

static int compare_places(const void *a, const void *b) {
    int64_t x = ((const place *)a)->document, y = ((const place *)b)->document;
    return (x > y) - (x < y);
}

static void sort_rows(espl_predictions *p) {
    espl_predictions old = *p;
    place *places = espl_malloc((size_t)(p->n + 1) * sizeof *places);
    for (int64_t i = 0; i < p->n; i++)
        places[i] = (place){p->documents[i], i};
    qsort(places, (size_t)p->n, sizeof *places, compare_places);
    *p = espl_predictions_make(old.classes);
    reserve(p, old.n);
    for (p->n = 0; p->n < old.n; p->n++) {
        int64_t from = places[p->n].row;
        p->documents[p->n] = old.documents[from];
        p->gold[p->n] = old.gold[from];
        memcpy(p->probabilities + p->n * p->classes, old.probabilities + from * p->classes, (size_t)p->classes * sizeof(float));
    }
    espl_predictions_free(&old);
    free(places);
}

static void join(espl_predictions *p, const int64_t *counts, int ranks, int64_t most, char *const columns[3]) {
    const int64_t *documents = (const int64_t *)(const void *)columns[0];
    const int32_t *gold = (const int32_t *)(const void *)columns[1];
    const float *probabilities = (const float *)(const void *)columns[2];
    p->n = 0;
    for (int r = 0; r < ranks; r++) {
        int64_t from = r * (most + 1);
        reserve(p, p->n + counts[r]);
        memcpy(p->documents + p->n, documents + from, (size_t)counts[r] * sizeof *documents);
        memcpy(p->gold + p->n, gold + from, (size_t)counts[r] * sizeof *gold);
        memcpy(p->probabilities + p->n * p->classes, probabilities + from * p->classes, (size_t)(counts[r] * p->classes) * sizeof(float));
        p->n += counts[r];
    }
}

espl_status espl_predictions_gather(espl_comm *comm, espl_predictions *p) {
    const int ranks = espl_comm_ranks(comm)->size;
    int64_t *counts = espl_calloc((size_t)ranks, sizeof *counts), most = 0;
    char *columns[3] = {NULL, NULL, NULL};
    espl_status status = ESPL_OK;
    reserve(p, 1);
    ESPL_TRY_DONE(espl_comm_allgather(comm, &p->n, sizeof p->n, counts));
    for (int r = 0; r < ranks; r++)
        most = counts[r] > most ? counts[r] : most;
    ESPL_TRY_DONE(gather_column(comm, p->documents, p->n, most, sizeof *p->documents, &columns[0]));
    ESPL_TRY_DONE(gather_column(comm, p->gold, p->n, most, sizeof *p->gold, &columns[1]));
    ESPL_TRY_DONE(gather_column(comm, p->probabilities, p->n, most, (size_t)p->classes * sizeof(float), &columns[2]));
    join(p, counts, ranks, most, columns);
    sort_rows(p);
done:
    for (int i = 0; i < 3; i++)
        free(columns[i]);
    free(counts);
    return status;
}
