#include "kernels/matmul.h"

#include "src/core/status.h"

#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* What a primitive was made for. */
typedef struct shape {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t trans_a, trans_b, add, c_dtype;
    float alpha;
    int32_t padding;
} shape;

typedef struct entry {
    shape shape;
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[3];
} entry;

enum { MAX_ENTRIES = 256, MAX_THREADS = 4096 };

/* Each thread has its own: no locks, and its memory objects can be pointed elsewhere. oneDNN shares the compiled code. Threads are known
 * by their number in the team, so that what one made serves the next team too. */
typedef struct cache {
    entry entries[MAX_ENTRIES];
    int n_entries;
    dnnl_stream_t stream;
} cache;

static cache *caches[MAX_THREADS];
static dnnl_engine_t engine;

static void must(dnnl_status_t status, const char *what) {
    ESPL_ASSERT(status == dnnl_success, "oneDNN: %s failed with status %d", what, (int)status);
}

static void matrix(dnnl_memory_desc_t *md, int64_t rows, int64_t columns, dnnl_data_type_t type, int64_t ld, bool trans) {
    dnnl_dims_t dims = {rows, columns}, strides = {trans ? 1 : ld, trans ? ld : 1};
    must(dnnl_memory_desc_init_by_strides(md, 2, dims, type, strides), "a matrix");
}

static cache *cache_of_thread(void) {
    int thread = omp_get_thread_num();
    ESPL_ASSERT(thread < MAX_THREADS, "thread %d of at most %d", thread, MAX_THREADS);
    if (caches[thread] != NULL)
        return caches[thread];
#pragma omp critical(espl_onednn)
    if (!engine)
        must(dnnl_engine_create(&engine, dnnl_cpu, 0), "the CPU engine");
    cache *c = calloc(1, sizeof *c);
    ESPL_ASSERT(c != NULL, "out of memory");
    must(dnnl_stream_create(&c->stream, engine, dnnl_stream_default_flags), "a stream");
    return caches[thread] = c;
}

static dnnl_primitive_attr_t attributes(const shape *s) {
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t sum;
    must(dnnl_primitive_attr_create(&attr), "attributes");
    if (s->alpha != 1.0f)
        must(dnnl_primitive_attr_set_output_scales(attr, 1, 0, &s->alpha), "a scale");
    if (s->add) {
        must(dnnl_post_ops_create(&sum), "post-ops");
        must(dnnl_post_ops_append_sum(sum, 1.0f), "a sum");
        must(dnnl_primitive_attr_set_post_ops(attr, sum), "post-ops");
        dnnl_post_ops_destroy(sum);
    }
    return attr;
}

static void make(entry *e) {
    const shape *s = &e->shape;
    dnnl_memory_desc_t md[3];
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_desc_t desc;
    matrix(&md[0], s->m, s->k, dnnl_bf16, s->lda, s->trans_a);
    matrix(&md[1], s->k, s->n, dnnl_bf16, s->ldb, s->trans_b);
    matrix(&md[2], s->m, s->n, s->c_dtype == ESPL_F32 ? dnnl_f32 : dnnl_bf16, s->ldc, false);
    must(dnnl_matmul_desc_init(&matmul, &md[0], &md[1], NULL, &md[2]), "a product");
    dnnl_primitive_attr_t attr = attributes(s);
    must(dnnl_primitive_desc_create(&desc, &matmul, attr, engine, NULL), "a product");
    must(dnnl_primitive_create(&e->primitive, desc), "a primitive");
    for (int i = 0; i < 3; i++)
        must(dnnl_memory_create(&e->memory[i], &md[i], engine, DNNL_MEMORY_NONE), "memory");
    dnnl_primitive_desc_destroy(desc);
    dnnl_primitive_attr_destroy(attr);
}

static void unmake(entry *e) {
    for (int i = 0; i < 3; i++)
        dnnl_memory_destroy(e->memory[i]);
    dnnl_primitive_destroy(e->primitive);
}

static entry *find(cache *c, const shape *s) {
    for (int i = 0; i < c->n_entries; i++)
        if (memcmp(&c->entries[i].shape, s, sizeof *s) == 0)
            return &c->entries[i];
    if (c->n_entries == MAX_ENTRIES) { /* a program of very many shapes (generation): start again */
        for (int i = 0; i < c->n_entries; i++)
            unmake(&c->entries[i]);
        c->n_entries = 0;
    }
    entry *e = &c->entries[c->n_entries++];
    e->shape = *s;
    make(e);
    return e;
}

void espl__matmul_onednn(const espl_matmul *t) {
    cache *c = cache_of_thread();
    shape s = {.m = t->m,
               .n = t->n,
               .k = t->k,
               .lda = t->lda,
               .ldb = t->ldb,
               .ldc = t->ldc,
               .trans_a = t->trans_a,
               .trans_b = t->trans_b,
               .add = t->add,
               .c_dtype = (int32_t)t->c_dtype,
               .alpha = t->alpha};
    entry *e = find(c, &s);
    must(dnnl_memory_set_data_handle(e->memory[0], (void *)(uintptr_t)t->a), "an address");
    must(dnnl_memory_set_data_handle(e->memory[1], (void *)(uintptr_t)t->b), "an address");
    must(dnnl_memory_set_data_handle(e->memory[2], t->c), "an address");
    dnnl_exec_arg_t run[3] = {{DNNL_ARG_SRC, e->memory[0]}, {DNNL_ARG_WEIGHTS, e->memory[1]}, {DNNL_ARG_DST, e->memory[2]}};
    must(dnnl_primitive_execute(e->primitive, c->stream, 3, run), "a product");
}
