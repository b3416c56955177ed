#include "kernels/cuda/cudnn_plans.h"

#include "kernels/cuda/cudnn_api.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIGS = 8, KNOBS = 16, NOTES = 16, ORDERED_DQ = 4, DEVICE = 0, VIRTUAL = 1, BY_VALUE = 2, SCORES = 100, MASKED };

#define CUDNN_FUNCTION(result, name, parameters) result(*name) parameters;
static struct {
    void *library;
    bool tried;
    size_t version;
    cudnn_handle handle;
    CUDNN_FUNCTIONS(CUDNN_FUNCTION)
} dnn;
#undef CUDNN_FUNCTION

/* ---- The library. */

static bool find_functions(void) {
    bool all = true;
#define CUDNN_FUNCTION(result, name, parameters)                                                                                           \
    *(void **)&dnn.name = dlsym(dnn.library, #name);                                                                                       \
    all = all && dnn.name != NULL;
    CUDNN_FUNCTIONS(CUDNN_FUNCTION)
#undef CUDNN_FUNCTION
    return all;
}

size_t espl__cudnn_version(void) {
    if (dnn.tried)
        return dnn.version;
    dnn.tried = true;
    const char *named = getenv("ESPL_CUDNN_LIBRARY");
    dnn.library = dlopen(named != NULL ? named : ESPL_CUDNN_NAME, RTLD_NOW | RTLD_LOCAL);
    if (dnn.library != NULL && find_functions())
        dnn.version = dnn.cudnnGetVersion();
    return dnn.version;
}

/* Writes what went wrong, unless it was written before. */
static bool fail(char *why, size_t room, const char *what, int status) {
    char last[256] = "";
    dnn.cudnnGetLastErrorString(last, sizeof last);
    last[strcspn(last, "\n")] = '\0';
    snprintf(why, room, "cuDNN %zu.%zu.%zu: %s: %s%s%.160s", dnn.version / 10000, dnn.version / 100 % 100, dnn.version % 100, what,
             dnn.cudnnGetErrorString(status), last[0] != '\0' ? ", " : "", last);
    return false;
}

bool espl__cudnn_open(void *stream, char *why, size_t room) {
    size_t version = espl__cudnn_version();
    if (version == 0) {
        snprintf(why, room, "there is no cuDNN here (libcudnn.so.9; ESPL_CUDNN_LIBRARY names another place)");
        return false;
    }
    if (version < ESPL__CUDNN_LEAST) {
        snprintf(why, room, "cuDNN is %zu.%zu.%zu, and fused attention needs 9.28 or newer", version / 10000, version / 100 % 100,
                 version % 100);
        return false;
    }
    int status = dnn.cudnnCreate(&dnn.handle);
    if (status != CUDNN_STATUS_SUCCESS)
        return fail(why, room, "cudnnCreate", status);
    status = dnn.cudnnSetStream(dnn.handle, stream);
    return status == CUDNN_STATUS_SUCCESS || fail(why, room, "cudnnSetStream", status);
}

void espl__cudnn_shut(void) {
    if (dnn.handle != NULL)
        dnn.cudnnDestroy(dnn.handle);
    dnn.handle = NULL;
    dnn.tried = false; /* the library itself stays */
    dnn.version = 0;
}

/* ---- Descriptors. After the first failure nothing more happens. */

typedef struct builder {
    const espl__cudnn_shape *shape;
    espl__cudnn_plan *plan;
    cudnn_descriptor device; /* that is described; NULL: the open one */
    char *why;
    size_t room;
    bool failed;
} builder;

static bool good(builder *b, int status, const char *what) {
    if (!b->failed && status != CUDNN_STATUS_SUCCESS)
        b->failed = !fail(b->why, b->room, what, status);
    return !b->failed;
}

static cudnn_descriptor make(builder *b, int kind) {
    cudnn_descriptor made = NULL;
    if (b->failed || !good(b, dnn.cudnnBackendCreateDescriptor(kind, &made), "cudnnBackendCreateDescriptor"))
        return NULL;
    if (b->plan->n_made == (int)(sizeof b->plan->made / sizeof *b->plan->made)) {
        dnn.cudnnBackendDestroyDescriptor(made);
        b->failed = true;
        snprintf(b->why, b->room, "cuDNN: too many descriptors");
        return NULL;
    }
    b->plan->made[b->plan->n_made++] = made;
    return made;
}

static void set(builder *b, cudnn_descriptor d, int attribute, int type, int64_t count, const void *elements) {
    char what[48];
    snprintf(what, sizeof what, "attribute %d", attribute);
    if (!b->failed)
        good(b, dnn.cudnnBackendSetAttribute(d, attribute, type, count, elements), what);
}

static void set_number(builder *b, cudnn_descriptor d, int attribute, int64_t number) {
    set(b, d, attribute, CUDNN_TYPE_INT64, 1, &number);
}

static void set_descriptor(builder *b, cudnn_descriptor d, int attribute, cudnn_descriptor value) {
    set(b, d, attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static cudnn_descriptor finish(builder *b, cudnn_descriptor d, const char *what) {
    if (!b->failed)
        good(b, dnn.cudnnBackendFinalize(d), what);
    return d;
}

/* Where segments begin, in rows, and how many elements a row is. */
typedef struct offsets {
    cudnn_descriptor of;
    int64_t row;
} offsets;

static cudnn_descriptor tensor(builder *b, int64_t id, int format, const int64_t sizes[4], const int64_t strides[4], int kind,
                               offsets ragged) {
    cudnn_descriptor d = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    bool yes = true;
    set_number(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
    set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &format);
    set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, sizes);
    set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    set_number(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16);
    if (kind != DEVICE)
        set(b, d, kind == VIRTUAL ? CUDNN_ATTR_TENSOR_IS_VIRTUAL : CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes);
    if (ragged.of != NULL) {
        set_descriptor(b, d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, ragged.of);
        set_number(b, d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_MULTIPLIER, ragged.row);
    }
    return finish(b, d, "a tensor");
}

static cudnn_descriptor numbers(builder *b, int64_t id, int format, int64_t n, int kind) {
    return tensor(b, id, format, (int64_t[]){n, 1, 1, 1}, (int64_t[]){1, 1, 1, 1}, kind, (offsets){0});
}

/* Heads of d columns side by side in rows of `width`. */
static cudnn_descriptor heads(builder *b, int64_t id, int64_t n_heads, int64_t width, cudnn_descriptor segments) {
    const espl__cudnn_shape *s = b->shape;
    return tensor(b, id, CUDNN_DATA_BFLOAT16, (int64_t[]){s->segments, n_heads, s->longest, s->head_dim},
                  (int64_t[]){s->longest * width, s->head_dim, width, 1}, DEVICE, (offsets){segments, width});
}

static cudnn_descriptor graph_of(builder *b, cudnn_descriptor operation, bool handle) {
    cudnn_descriptor graph = make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set_descriptor(b, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
    if (handle && b->device == NULL)
        set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &dnn.handle);
    return finish(b, graph, "a graph");
}

/* Scores to scores: -inf where the key comes after the query. */
static cudnn_descriptor causal_mask(builder *b) {
    const espl__cudnn_shape *s = b->shape;
    int64_t sizes[4] = {s->segments, s->heads, s->longest, s->longest}, square = s->longest * s->longest;
    int64_t strides[4] = {s->heads * square, square, s->longest, 1};
    int keep = CUDNN_POINTWISE_CMP_GE;
    cudnn_descriptor mask = make(b, CUDNN_BACKEND_OPERATION_DIAGONAL_BAND_MASK_DESCRIPTOR);
    set_descriptor(b, mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_XDESC,
                   tensor(b, SCORES, CUDNN_DATA_FLOAT, sizes, strides, VIRTUAL, (offsets){0}));
    set_descriptor(b, mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_YDESC,
                   tensor(b, MASKED, CUDNN_DATA_FLOAT, sizes, strides, VIRTUAL, (offsets){0}));
    set_descriptor(b, mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_SHIFT_RIGHT_BOUND_DESC,
                   numbers(b, ESPL__CUDNN_BOUND, CUDNN_DATA_INT32, 1, BY_VALUE));
    set_descriptor(b, mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_BDESC, numbers(b, ESPL__CUDNN_FILL, CUDNN_DATA_FLOAT, 1, BY_VALUE));
    set(b, mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_COMPARISON_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &keep);
    return graph_of(b, finish(b, mask, "the causal mask"), false);
}

/* Both passes name the same things by numbers of their own. */
typedef struct names {
    int kind, q, k, v, o, lse, scale, lengths_q, lengths_k, mask, mask_in, mask_out;
} names;

static const names forward_names = {CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR,
                                    CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC,
                                    CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC,
                                    CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC,
                                    CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC,
                                    CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC,
                                    CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC,
                                    CUDNN_ATTR_OPERATION_SDPA_FWD_CU_SEQ_LEN_QDESC,
                                    CUDNN_ATTR_OPERATION_SDPA_FWD_CU_SEQ_LEN_KVDESC,
                                    CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH,
                                    CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH_INPUT_UID,
                                    CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH_OUTPUT_UID};
static const names backward_names = {CUDNN_BACKEND_OPERATION_SDPA_BWD_DESCRIPTOR,
                                     CUDNN_ATTR_OPERATION_SDPA_BWD_QDESC,
                                     CUDNN_ATTR_OPERATION_SDPA_BWD_KDESC,
                                     CUDNN_ATTR_OPERATION_SDPA_BWD_VDESC,
                                     CUDNN_ATTR_OPERATION_SDPA_BWD_ODESC,
                                     CUDNN_ATTR_OPERATION_SDPA_BWD_STATSDESC,
                                     CUDNN_ATTR_OPERATION_SDPA_BWD_SCALEDESC,
                                     CUDNN_ATTR_OPERATION_SDPA_BWD_CU_SEQ_LEN_QDESC,
                                     CUDNN_ATTR_OPERATION_SDPA_BWD_CU_SEQ_LEN_KVDESC,
                                     CUDNN_ATTR_OPERATION_SDPA_BWD_SUBGRAPH,
                                     CUDNN_ATTR_OPERATION_SDPA_BWD_SUBGRAPH_INPUT_UID,
                                     CUDNN_ATTR_OPERATION_SDPA_BWD_SUBGRAPH_OUTPUT_UID};

static void set_gradients(builder *b, cudnn_descriptor attention, int64_t width, cudnn_descriptor segments) {
    const espl__cudnn_shape *s = b->shape;
    set_descriptor(b, attention, CUDNN_ATTR_OPERATION_SDPA_BWD_DODDESC,
                   heads(b, ESPL__CUDNN_DO, s->heads, (int64_t)s->heads * s->head_dim, segments));
    set_descriptor(b, attention, CUDNN_ATTR_OPERATION_SDPA_BWD_DQDESC, heads(b, ESPL__CUDNN_DQ, s->heads, width, segments));
    set_descriptor(b, attention, CUDNN_ATTR_OPERATION_SDPA_BWD_DKDESC, heads(b, ESPL__CUDNN_DK, s->kv_heads, width, segments));
    set_descriptor(b, attention, CUDNN_ATTR_OPERATION_SDPA_BWD_DVDESC, heads(b, ESPL__CUDNN_DV, s->kv_heads, width, segments));
    set_number(b, attention, CUDNN_ATTR_OPERATION_SDPA_BWD_MAX_TOTAL_SEQ_LEN_Q, s->rows); /* scratch by rows, not by segments x longest */
    set_number(b, attention, CUDNN_ATTR_OPERATION_SDPA_BWD_MAX_TOTAL_SEQ_LEN_KV, s->rows);
}

static cudnn_descriptor attention_graph(builder *b, bool backward) {
    const espl__cudnn_shape *s = b->shape;
    const names *n = backward ? &backward_names : &forward_names;
    int64_t width = (int64_t)(s->heads + 2 * s->kv_heads) * s->head_dim, ends = s->segments + 1;
    cudnn_descriptor segments = numbers(b, ESPL__CUDNN_SEGMENTS, CUDNN_DATA_INT32, ends, DEVICE), attention = make(b, n->kind);
    set_descriptor(b, attention, n->q, heads(b, ESPL__CUDNN_Q, s->heads, width, segments));
    set_descriptor(b, attention, n->k, heads(b, ESPL__CUDNN_K, s->kv_heads, width, segments));
    set_descriptor(b, attention, n->v, heads(b, ESPL__CUDNN_V, s->kv_heads, width, segments));
    set_descriptor(b, attention, n->o, heads(b, ESPL__CUDNN_O, s->heads, (int64_t)s->heads * s->head_dim, segments));
    set_descriptor(b, attention, n->lse,
                   tensor(b, ESPL__CUDNN_LSE, CUDNN_DATA_FLOAT, (int64_t[]){s->segments, s->heads, s->longest, 1},
                          (int64_t[]){s->longest * s->heads, 1, s->heads, 1}, DEVICE, (offsets){segments, s->heads}));
    set_descriptor(b, attention, n->scale, numbers(b, ESPL__CUDNN_SCALE, CUDNN_DATA_FLOAT, 1, BY_VALUE));
    set_descriptor(b, attention, n->lengths_q, numbers(b, ESPL__CUDNN_LENGTHS_Q, CUDNN_DATA_INT32, ends, DEVICE));
    set_descriptor(b, attention, n->lengths_k, numbers(b, ESPL__CUDNN_LENGTHS_K, CUDNN_DATA_INT32, ends, DEVICE));
    if (s->causal) {
        set_descriptor(b, attention, n->mask, causal_mask(b));
        set_number(b, attention, n->mask_in, SCORES);
        set_number(b, attention, n->mask_out, MASKED);
    }
    if (backward)
        set_gradients(b, attention, width, segments);
    return graph_of(b, finish(b, attention, "the attention operation"), true);
}

/* ---- Plans. */

static int64_t get(cudnn_descriptor d, int attribute, int type, int64_t room, void *elements) {
    int64_t n = 0;
    return dnn.cudnnBackendGetAttribute(d, attribute, type, room, &n, elements) == CUDNN_STATUS_SUCCESS ? n : 0;
}

static bool is_deterministic(cudnn_descriptor engine) {
    int notes[NOTES];
    int64_t n = get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, NOTES, notes);
    for (int64_t i = 0; i < n && i < NOTES; i++)
        if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)
            return false;
    return true;
}

/* The configuration again, but for the order in which dQ is summed. */
static cudnn_descriptor ordered(builder *b, cudnn_descriptor config, cudnn_descriptor engine) {
    cudnn_descriptor knobs[KNOBS + 1], ordered_config = make(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    for (int i = 0; i <= KNOBS; i++)
        knobs[i] = make(b, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    if (b->failed)
        return NULL;
    int64_t n = get(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, KNOBS, knobs), kept = 0;
    int kind = CUDNN_KNOB_TYPE_STAGES;
    cudnn_descriptor stages = knobs[KNOBS];
    for (int64_t i = 0; i < n; i++) {
        int of = -1;
        get(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &of);
        if (of != kind)
            knobs[kept++] = knobs[i];
    }
    set(b, stages, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &kind);
    set_number(b, stages, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, ORDERED_DQ);
    knobs[kept++] = finish(b, stages, "a knob");
    set_descriptor(b, ordered_config, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    set(b, ordered_config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, kept, knobs);
    return finish(b, ordered_config, "backward with sums in a fixed order");
}

/* Whether the configuration makes a plan; what it fails with is the reason, should it be the last one. */
static bool try_config(builder *b, cudnn_descriptor config) {
    int64_t engine_number = -1, bytes = 0;
    cudnn_descriptor engine = make(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    if (b->failed)
        return false;
    get(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine);
    get(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &engine_number);
    if (!is_deterministic(engine)) {
        snprintf(b->why, b->room, "cuDNN: engine %lld does not give the same bits each time", (long long)engine_number);
        return false;
    }
    if (b->plan->backward)
        config = ordered(b, config, engine);
    cudnn_descriptor plan = make(b, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set_descriptor(b, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (b->device != NULL)
        set_descriptor(b, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, b->device);
    else
        set(b, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &dnn.handle);
    finish(b, plan, b->plan->backward ? "the plan of backward" : "the plan of forward");
    if (b->failed)
        return false;
    get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &bytes);
    b->plan->plan = plan;
    b->plan->work_bytes = bytes;
    b->plan->engine = engine_number;
    return true;
}

/* The first of cuDNN's own ranking that makes a plan. */
static void choose(builder *b, cudnn_descriptor graph) {
    int mode = CUDNN_HEUR_MODE_A;
    cudnn_descriptor configs[CONFIGS], ranking = make(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_descriptor(b, ranking, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(b, ranking, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (b->device != NULL)
        set_descriptor(b, ranking, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, b->device);
    finish(b, ranking, "the ranking of engines");
    for (int i = 0; i < CONFIGS; i++)
        configs[i] = make(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (b->failed)
        return;
    int64_t n = get(ranking, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, CONFIGS, configs);
    if (n == 0)
        snprintf(b->why, b->room, "cuDNN %zu.%zu.%zu has no engine for %s of this shape on this GPU", dnn.version / 10000,
                 dnn.version / 100 % 100, dnn.version % 100, b->plan->backward ? "backward" : "forward");
    for (int64_t i = 0; i < n && i < CONFIGS && b->plan->plan == NULL; i++) {
        b->failed = false;
        try_config(b, configs[i]);
    }
}

bool espl__cudnn_make_plan(const espl__cudnn_shape *shape, bool backward, const char *device, espl__cudnn_plan *plan, char *why,
                           size_t room) {
    builder b = {.shape = shape, .plan = plan, .why = why, .room = room};
    *plan = (espl__cudnn_plan){.backward = backward, .causal = shape->causal};
    if (device != NULL) {
        cudnn_descriptor described = make(&b, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
        set(&b, described, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(device), device);
        b.device = finish(&b, described, "the description of the GPU");
    }
    cudnn_descriptor graph = attention_graph(&b, backward);
    if (!b.failed)
        choose(&b, graph);
    if (plan->plan == NULL)
        espl__cudnn_free_plan(plan);
    return plan->plan != NULL;
}

void espl__cudnn_free_plan(espl__cudnn_plan *plan) {
    while (plan->n_made > 0)
        dnn.cudnnBackendDestroyDescriptor(plan->made[--plan->n_made]);
    *plan = (espl__cudnn_plan){0};
}

/* ---- Running. */

static bool takes(const espl__cudnn_plan *plan, int tensor) {
    if (tensor >= ESPL__CUDNN_DO && tensor <= ESPL__CUDNN_DV)
        return plan->backward;
    return plan->causal || (tensor != ESPL__CUDNN_BOUND && tensor != ESPL__CUDNN_FILL);
}

bool espl__cudnn_run(const espl__cudnn_plan *plan, void *const tensors[ESPL__CUDNN_TENSORS], void *work, char *why, size_t room) {
    static int32_t bound = 0;
    static float fill = -INFINITY;
    int64_t ids[ESPL__CUDNN_TENSORS], n = 0;
    void *places[ESPL__CUDNN_TENSORS];
    for (int t = ESPL__CUDNN_Q; t < ESPL__CUDNN_TENSORS; t++)
        if (takes(plan, t)) {
            places[n] = t == ESPL__CUDNN_BOUND ? (void *)&bound : t == ESPL__CUDNN_FILL ? (void *)&fill : tensors[t];
            ids[n++] = t;
        }
    cudnn_descriptor pack = NULL;
    int status = dnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (status == CUDNN_STATUS_SUCCESS)
        status = dnn.cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, ids);
    if (status == CUDNN_STATUS_SUCCESS)
        status = dnn.cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, places);
    if (status == CUDNN_STATUS_SUCCESS)
        status = dnn.cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &work);
    if (status == CUDNN_STATUS_SUCCESS)
        status = dnn.cudnnBackendFinalize(pack);
    if (status == CUDNN_STATUS_SUCCESS)
        status = dnn.cudnnBackendExecute(dnn.handle, plan->plan, pack);
    if (pack != NULL)
        dnn.cudnnBackendDestroyDescriptor(pack);
    return status == CUDNN_STATUS_SUCCESS || fail(why, room, "cudnnBackendExecute", status);
}
