#include "src/train/health/replicas.h"

#include "comm/alike.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { PIECE = 4 << 20 };

/* ---- What is compared. */

static void add(espl_replicas *r, const char *kind, const espl_param *p, const void *data, size_t bytes) {
    r->items[r->n++] = (espl_replica){.kind = kind, .name = p->name, .bucket = p->frozen ? -1 : p->bucket, .data = data, .bytes = bytes};
}

/* Those that are cut over the ranks have no copy. */
static void add_weights(const espl_blueprint *b, const espl_memory *memory, espl_replicas *r) {
    espl_dtype real = b->kernels->real;
    for (int i = 0; i < b->model->n_params; i++)
        if (!b->owner.cut || b->model->params[i].frozen)
            add(r, "weights", &b->model->params[i], (const char *)memory->weights + espl_owner_weights_at(b->model, &b->owner, i, real),
                espl_model_param_bytes(b->model, i, real));
}

/* An array with an element for each of what is trained, or of what this rank keeps of it; that may be nothing of a tensor. */
static void add_array(const espl_blueprint *b, const char *kind, const void *array, size_t size, espl_replicas *r) {
    espl_segment *segments;
    espl_owner_updates(b->model, &b->owner, &segments);
    for (int i = 0; i < b->model->n_params; i++)
        if (!b->model->params[i].frozen)
            add(r, kind, &b->model->params[i], (const char *)array + (size_t)segments[i].state * size,
                (size_t)(segments[i].end - segments[i].begin) * size);
    free(segments);
}

static void add_optimizer(const espl_blueprint *b, const espl_memory *memory, espl_replicas *r) {
    const espl_rule_desc *rule = &espl_rules[b->rule];
    if (memory->master != NULL)
        add_array(b, "master weights", memory->master, sizeof(float), r);
    for (int k = 0; k < rule->n_states; k++)
        if (rule->states[k].block == 1)
            add_array(b, rule->states[k].name, memory->states[k], espl_dtype_size(rule->states[k].dtype), r);
}

void espl_replicas_open(const espl_blueprint *b, const espl_memory *memory, espl_replicas *r) {
    const espl_rule_desc *rule = &espl_rules[b->rule];
    const bool groups = b->owner.n_groups > 1;
    *r = (espl_replicas){.items = espl_calloc((size_t)b->model->n_params * (size_t)(2 + rule->n_states), sizeof *r->items), .checked = -1};
    add_weights(b, memory, r);
    if (b->owner.replicated)
        add_optimizer(b, memory, r);
    r->n_whole = r->n;
    if (groups && b->owner.cut)
        add_array(b, "weights", memory->weights, espl_dtype_size(b->kernels->real), r);
    if (groups && !b->owner.replicated)
        add_optimizer(b, memory, r);
    r->digests = espl_calloc((size_t)r->n, sizeof *r->digests);
    if (b->remote) {
        r->piece = espl_malloc(PIECE);
        r->hash = XXH3_createState();
    }
}

void espl_replicas_free(espl_replicas *r) {
    free(r->items);
    free(r->digests);
    free(r->piece);
    XXH3_freeState(r->hash);
    *r = (espl_replicas){0};
}

/* ---- Digests. */

static espl_status digest_remote(const espl_replicas *r, const espl_engine *engine, const espl_replica *item, uint64_t *digest) {
    XXH3_64bits_reset(r->hash);
    for (size_t at = 0; at < item->bytes; at += PIECE) {
        size_t n = item->bytes - at < PIECE ? item->bytes - at : PIECE;
        ESPL_TRY(engine->calls->read(engine->device, r->piece, (const char *)item->data + at, n));
        XXH3_64bits_update(r->hash, r->piece, n);
    }
    *digest = XXH3_64bits_digest(r->hash);
    return ESPL_OK;
}

static espl_status digest_all(espl_replicas *r, espl_comm *comm, const espl_engine *engine, int64_t step) {
    for (int64_t i = 0; i < r->n; i++) {
        espl_comm_beat(comm, step, "comparing replicas");
        if (r->piece != NULL)
            ESPL_TRY(digest_remote(r, engine, &r->items[i], &r->digests[i]));
        else
            r->digests[i] = XXH3_64bits(r->items[i].data, r->items[i].bytes);
    }
    return ESPL_OK;
}

/* ---- Who differs. */

/* Items that are compared over the same ranks. */
typedef struct part {
    const espl_replica *items;
    const uint64_t *digests;
    size_t n;
    int places;
} part;

/* The first tensor that differs, and how many do: all ranks find the same. */
static espl_status find_tensors(const part *p, espl_comm *comm, size_t *first, int64_t *count) {
    bool *alike = espl_malloc(p->n * sizeof *alike);
    espl_status status = espl_comm_alike(comm, p->digests, p->n, p->places, alike);
    *first = 0;
    *count = 0;
    for (size_t i = p->n; i-- > 0 && status == ESPL_OK;)
        if (!alike[i]) {
            *first = i;
            (*count)++;
        }
    free(alike);
    return status;
}

static espl_status name_them(const part *p, espl_comm *comm, uint64_t digest, int64_t step) {
    char more[48] = "", place[32] = "frozen";
    size_t item;
    int64_t count;
    espl_odd odd;
    ESPL_TRY(espl_comm_odd_ones(comm, digest, p->places, &odd));
    ESPL_TRY(find_tensors(p, comm, &item, &count));
    const espl_replica *t = &p->items[item];
    if (count > 1)
        snprintf(more, sizeof more, " and in %lld more tensors", (long long)count - 1);
    if (t->bucket >= 0)
        snprintf(place, sizeof place, "bucket %d", t->bucket);
    ESPL_FAIL(ESPL_ERR_NUMERIC, "step %lld: replicas differ: %s %s in the %s of %s (%s)%s", (long long)step, odd.text,
              odd.majority ? "has other bits than most ranks" : "do not hold the same bits, and which is right cannot be told,", t->kind,
              t->name, place, more);
}

static espl_status compare(const part *p, espl_comm *comm, int64_t step) {
    bool alike;
    if (p->n == 0)
        return ESPL_OK;
    uint64_t digest = XXH3_64bits(p->digests, p->n * sizeof *p->digests);
    ESPL_TRY(espl_comm_alike(comm, &digest, 1, p->places, &alike));
    return alike ? ESPL_OK : name_them(p, comm, digest, step);
}

espl_status espl_replicas_compare(espl_replicas *r, espl_comm *comm, const espl_engine *engine, int64_t step) {
    const size_t n_whole = (size_t)r->n_whole;
    const part whole = {r->items, r->digests, n_whole, 1};
    const part shards = {r->items + n_whole, r->digests + n_whole, (size_t)r->n - n_whole, espl_comm_ranks(comm)->group_size};
    if (r->n == 0)
        return ESPL_OK;
    ESPL_TRY(espl_comm_agree(comm, digest_all(r, comm, engine, step), "comparing replicas"));
    ESPL_TRY(compare(&whole, comm, step));
    return compare(&shards, comm, step);
}
