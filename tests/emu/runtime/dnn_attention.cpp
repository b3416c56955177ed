/* cuDNN: attention as its descriptors say it, by plain loops in fp32. */
#include "tests/emu/runtime/dnn.h"
#include "tests/emu/runtime/emu_engine.h"
#include "tests/emu/simt/device_memory.h"
#include "tests/emu/simt/fault.h"

#include <cmath>
#include <cstring>

namespace dnn {

/* ---- Reading the operation. */

static bool read_tensor(const descriptor *operation, int name, tensor *t) {
    const descriptor *d = descriptor_of(operation, name);
    if (!d)
        return false;
    auto sizes = numbers_of(d, CUDNN_ATTR_TENSOR_DIMENSIONS), strides = numbers_of(d, CUDNN_ATTR_TENSOR_STRIDES);
    const descriptor *offsets = descriptor_of(d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC);
    *t = tensor();
    t->id = number_of(d, CUDNN_ATTR_TENSOR_UNIQUE_ID);
    t->format = number_of(d, CUDNN_ATTR_TENSOR_DATA_TYPE);
    for (size_t i = 0; i < 4; i++) {
        t->sizes[i] = sizes[i];
        t->strides[i] = strides[i];
    }
    t->row = number_of(d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_MULTIPLIER);
    t->offsets = offsets ? number_of(offsets, CUDNN_ATTR_TENSOR_UNIQUE_ID) : 0;
    t->by_value = number_of(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE) != 0;
    return true;
}

/* Whether the tensor is [segments, heads, longest, columns] of a format, with rows of one length that segments begin at. */
static bool is_of(const attention &a, const tensor &t, int64_t format, int64_t heads, int64_t columns) {
    return t.format == format && t.sizes[0] == a.segments && t.sizes[1] == heads && t.sizes[2] == a.longest && t.sizes[3] == columns &&
           t.offsets != 0 && t.row == t.strides[2] && t.strides[3] == 1;
}

static bool are_lengths(const attention &a, const tensor &t) {
    return t.format == CUDNN_DATA_INT32 && t.sizes[0] == a.segments + 1 && t.offsets == 0;
}

static int read_mask(const descriptor *operation, int graph_name, int in_name, int out_name, attention *a) {
    const descriptor *graph = descriptor_of(operation, graph_name);
    a->causal = graph != nullptr;
    if (!graph)
        return CUDNN_STATUS_SUCCESS;
    const descriptor *mask = descriptor_of(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS);
    tensor in, out, bound, fill;
    if (mask->kind != CUDNN_BACKEND_OPERATION_DIAGONAL_BAND_MASK_DESCRIPTOR ||
        !read_tensor(mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_XDESC, &in) ||
        !read_tensor(mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_YDESC, &out) ||
        !read_tensor(mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_SHIFT_RIGHT_BOUND_DESC, &bound) ||
        !read_tensor(mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_BDESC, &fill) || !bound.by_value || !fill.by_value ||
        number_of(mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_COMPARISON_MODE) != CUDNN_POINTWISE_CMP_GE || in.sizes[3] != a->longest ||
        number_of(operation, in_name) != in.id || number_of(operation, out_name) != out.id)
        return refuse(not_supported, "another graph of scores than the causal mask");
    a->bound_id = bound.id;
    a->fill_id = fill.id;
    return CUDNN_STATUS_SUCCESS;
}

static int read_gradients(const descriptor *operation, attention *a) {
    a->rows = number_of(operation, CUDNN_ATTR_OPERATION_SDPA_BWD_MAX_TOTAL_SEQ_LEN_Q);
    if (!read_tensor(operation, CUDNN_ATTR_OPERATION_SDPA_BWD_DODDESC, &a->dout) ||
        !read_tensor(operation, CUDNN_ATTR_OPERATION_SDPA_BWD_DQDESC, &a->dq) ||
        !read_tensor(operation, CUDNN_ATTR_OPERATION_SDPA_BWD_DKDESC, &a->dk) ||
        !read_tensor(operation, CUDNN_ATTR_OPERATION_SDPA_BWD_DVDESC, &a->dv) || a->rows < 1 ||
        a->rows != number_of(operation, CUDNN_ATTR_OPERATION_SDPA_BWD_MAX_TOTAL_SEQ_LEN_KV) ||
        !is_of(*a, a->dout, CUDNN_DATA_BFLOAT16, a->heads, a->d) || !is_of(*a, a->dq, CUDNN_DATA_BFLOAT16, a->heads, a->d) ||
        !is_of(*a, a->dk, CUDNN_DATA_BFLOAT16, a->kv_heads, a->d) || !is_of(*a, a->dv, CUDNN_DATA_BFLOAT16, a->kv_heads, a->d))
        return refuse(not_supported, "the gradients of attention");
    a->work_bytes = a->rows * 4 * (a->dq.row + a->heads);
    if (has_fault("large"))
        a->work_bytes += a->rows << 30;
    return CUDNN_STATUS_SUCCESS;
}

/* Backward's attributes are numbered as forward's, but for some. */
int read_attention(const descriptor *operation, attention *a) {
    bool backward = operation->kind == CUDNN_BACKEND_OPERATION_SDPA_BWD_DESCRIPTOR;
    int first = backward ? CUDNN_ATTR_OPERATION_SDPA_BWD_QDESC : CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC;
    *a = attention();
    a->backward = backward;
    a->work_bytes = 17408;
    if (!read_tensor(operation, first, &a->q) || !read_tensor(operation, first + 1, &a->k) || !read_tensor(operation, first + 2, &a->v) ||
        !read_tensor(operation, first + 3, &a->o) || !read_tensor(operation, first + 4, &a->lse) ||
        !read_tensor(operation, first + 5, &a->scale) ||
        !read_tensor(operation, backward ? CUDNN_ATTR_OPERATION_SDPA_BWD_CU_SEQ_LEN_QDESC : CUDNN_ATTR_OPERATION_SDPA_FWD_CU_SEQ_LEN_QDESC,
                     &a->lengths_q) ||
        !read_tensor(operation,
                     backward ? CUDNN_ATTR_OPERATION_SDPA_BWD_CU_SEQ_LEN_KVDESC : CUDNN_ATTR_OPERATION_SDPA_FWD_CU_SEQ_LEN_KVDESC,
                     &a->lengths_k))
        return refuse(bad_param, "a tensor of attention is missing");
    a->segments = a->q.sizes[0];
    a->heads = a->q.sizes[1];
    a->longest = a->q.sizes[2];
    a->d = a->q.sizes[3];
    a->kv_heads = a->k.sizes[1];
    if (!is_of(*a, a->q, CUDNN_DATA_BFLOAT16, a->heads, a->d) || !is_of(*a, a->k, CUDNN_DATA_BFLOAT16, a->kv_heads, a->d) ||
        !is_of(*a, a->v, CUDNN_DATA_BFLOAT16, a->kv_heads, a->d) || !is_of(*a, a->o, CUDNN_DATA_BFLOAT16, a->heads, a->d) ||
        !is_of(*a, a->lse, CUDNN_DATA_FLOAT, a->heads, 1) || !a->scale.by_value || !are_lengths(*a, a->lengths_q) ||
        !are_lengths(*a, a->lengths_k) || a->heads % a->kv_heads != 0 || a->d % 8 != 0 || a->d > 256)
        return refuse(not_supported, "sizes or formats of attention");
    int status = backward ? read_mask(operation, CUDNN_ATTR_OPERATION_SDPA_BWD_SUBGRAPH, CUDNN_ATTR_OPERATION_SDPA_BWD_SUBGRAPH_INPUT_UID,
                                      CUDNN_ATTR_OPERATION_SDPA_BWD_SUBGRAPH_OUTPUT_UID, a)
                          : read_mask(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH, CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH_INPUT_UID,
                                      CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH_OUTPUT_UID, a);
    return status == CUDNN_STATUS_SUCCESS && backward ? read_gradients(operation, a) : status;
}

/* ---- Computing. */

/* A tensor of heads with its memory; rows are those of the micro-batch. */
struct matrix {
    tensor t;
    void *memory;
    uint16_t *at(int64_t row, int64_t head) const { return static_cast<uint16_t *>(memory) + row * t.row + head * t.strides[1]; }
};

static float widen(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint16_t narrow(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return x != x ? 0x7fffu : (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

struct job {
    attention a;
    matrix q, k, v, o, dout, dq, dk, dv;
    float *lse, scale;
    int64_t lse_stride[2]; /* of a row, of a head */
    const int32_t *begins, *lengths_q, *lengths_k;
    char *work;
};

static float dot(const uint16_t *x, const uint16_t *y, int64_t n) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += widen(x[i]) * widen(y[i]);
    return sum;
}

static void store(uint16_t *to, const std::vector<float> &x, float factor) {
    for (size_t i = 0; i < x.size(); i++)
        to[i] = narrow(factor * x[i]);
    emu_memory_written(to, x.size() * sizeof *to);
}

static void add(std::vector<float> *sums, float factor, const uint16_t *x) {
    for (size_t i = 0; i < sums->size(); i++)
        (*sums)[i] += factor * widen(x[i]);
}

static int64_t seen(const job &j, int64_t i, int64_t keys) { return j.a.causal && i + 1 < keys ? i + 1 : keys; }

static float &lse_of(const job &j, int64_t row, int64_t head) { return j.lse[row * j.lse_stride[0] + head * j.lse_stride[1]]; }

static void forward(const job &j, int64_t first, int64_t queries, int64_t keys, int64_t head) {
    int64_t kv = head / (j.a.heads / j.a.kv_heads);
    std::vector<float> p((size_t)keys), out((size_t)j.a.d);
    for (int64_t i = 0; i < queries; i++) {
        float top = -INFINITY, sum = 0;
        int64_t n = seen(j, i, keys);
        for (int64_t k = 0; k < n; k++) {
            p[(size_t)k] = j.scale * dot(j.q.at(first + i, head), j.k.at(first + k, kv), j.a.d);
            top = p[(size_t)k] > top ? p[(size_t)k] : top;
        }
        std::fill(out.begin(), out.end(), 0.0f);
        for (int64_t k = 0; k < n; k++) {
            float power = expf(p[(size_t)k] - top);
            sum += power;
            add(&out, power, j.v.at(first + k, kv));
        }
        store(j.o.at(first + i, head), out, (has_fault("wrong_forward") ? 1.5f : 1.0f) / sum);
        float &lse = lse_of(j, first + i, head);
        lse = top + logf(sum);
        emu_memory_written(&lse, sizeof lse);
    }
}

/* The gradients of one key/value head: those of its keys sum over all its queries. */
static void backward(const job &j, int64_t first, int64_t queries, int64_t keys, int64_t kv) {
    int64_t group = j.a.heads / j.a.kv_heads;
    size_t d = (size_t)j.a.d;
    static unsigned calls;
    float noise = has_fault("unsteady") || !j.a.ordered ? 1.0f + (float)(++calls % 7) / 64.0f : 1.0f;
    std::vector<std::vector<float>> dk((size_t)keys, std::vector<float>(d)), dv = dk;
    for (int64_t head = kv * group; head < (kv + 1) * group; head++)
        for (int64_t i = 0; i < queries; i++) {
            std::vector<float> dq(d);
            float delta = dot(j.dout.at(first + i, head), j.o.at(first + i, head), j.a.d);
            for (int64_t k = 0; k < seen(j, i, keys); k++) {
                float p = expf(j.scale * dot(j.q.at(first + i, head), j.k.at(first + k, kv), j.a.d) - lse_of(j, first + i, head));
                float ds = p * (dot(j.dout.at(first + i, head), j.v.at(first + k, kv), j.a.d) - delta);
                add(&dq, ds, j.k.at(first + k, kv));
                add(&dk[(size_t)k], ds, j.q.at(first + i, head));
                add(&dv[(size_t)k], p, j.dout.at(first + i, head));
            }
            store(j.dq.at(first + i, head), dq, j.scale * noise);
        }
    for (int64_t k = 0; k < keys; k++) {
        store(j.dk.at(first + k, kv), dk[(size_t)k], j.scale);
        store(j.dv.at(first + k, kv), dv[(size_t)k], has_fault("wrong_backward") ? 2.0f : 1.0f);
    }
}

/* Whether a segment lies where its tensors end. */
static bool in_reach(const job &j, int64_t first, int64_t rows) {
    bool all = rows <= j.a.longest && rt::in_device(j.q.at(first, 0), (size_t)(rows * j.q.t.row * 2)) &&
               rt::in_device(j.o.at(first, 0), (size_t)(rows * j.o.t.row * 2)) &&
               rt::in_device(&lse_of(j, first, 0), (size_t)(rows * j.lse_stride[0]) * sizeof(float)) &&
               (!j.a.backward || (first + rows <= j.a.rows && rt::in_device(j.dout.at(first, 0), (size_t)(rows * j.dout.t.row * 2)) &&
                                  rt::in_device(j.dq.at(first, 0), (size_t)(rows * j.dq.t.row * 2))));
    if (!all)
        emu_fault(cudaErrorIllegalAddress, "cuDNN: rows %lld .. %lld of a segment of at most %lld lie beyond a tensor", (long long)first,
                  (long long)(first + rows), (long long)j.a.longest);
    return all;
}

/* Lengths and places are read now, when it runs. */
static void compute(const job &j) {
    memset(j.work, 0xFF, (size_t)j.a.work_bytes);
    emu_memory_written(j.work, (size_t)j.a.work_bytes);
    for (int64_t s = 0; s < j.a.segments; s++) {
        int64_t first = j.begins[s], queries = j.lengths_q[s + 1] - j.lengths_q[s], keys = j.lengths_k[s + 1] - j.lengths_k[s];
        if (queries == 0)
            continue;
        if (!in_reach(j, first, queries))
            return;
        for (int64_t head = 0; head < (j.a.backward ? j.a.kv_heads : j.a.heads); head++)
            (j.a.backward ? backward : forward)(j, first, queries, keys, head);
    }
}

/* ---- Running. */

static bool place_of(const std::map<int64_t, void *> &places, int64_t id, void **place) {
    auto found = places.find(id);
    *place = found == places.end() ? nullptr : found->second;
    return *place != nullptr;
}

static bool bind(const std::map<int64_t, void *> &places, const tensor &t, matrix *m) {
    m->t = t;
    return place_of(places, t.id, &m->memory) && reinterpret_cast<uintptr_t>(m->memory) % 16 == 0;
}

static bool bind_numbers(const std::map<int64_t, void *> &places, int64_t id, int64_t n, const int32_t **numbers) {
    void *place;
    bool found = place_of(places, id, &place) && rt::in_device(place, (size_t)n * sizeof **numbers);
    *numbers = static_cast<const int32_t *>(place);
    return found;
}

int execute(const attention &a, const std::map<int64_t, void *> &places, void *work, cudaStream_t stream) {
    job j = job();
    void *lse, *scale, *bound, *fill;
    j.a = a;
    j.work = static_cast<char *>(work);
    bool bound_all = bind(places, a.q, &j.q) && bind(places, a.k, &j.k) && bind(places, a.v, &j.v) && bind(places, a.o, &j.o) &&
                     place_of(places, a.lse.id, &lse) && place_of(places, a.scale.id, &scale) &&
                     bind_numbers(places, a.q.offsets, a.segments + 1, &j.begins) &&
                     bind_numbers(places, a.lengths_q.id, a.segments + 1, &j.lengths_q) &&
                     bind_numbers(places, a.lengths_k.id, a.segments + 1, &j.lengths_k);
    if (a.backward)
        bound_all = bound_all && bind(places, a.dout, &j.dout) && bind(places, a.dq, &j.dq) && bind(places, a.dk, &j.dk) &&
                    bind(places, a.dv, &j.dv);
    if (a.causal)
        bound_all = bound_all && place_of(places, a.bound_id, &bound) && place_of(places, a.fill_id, &fill) &&
                    *static_cast<int32_t *>(bound) == 0 && *static_cast<float *>(fill) == -INFINITY;
    if (!bound_all)
        return refuse(bad_param, "an operand is missing or not aligned");
    if (!rt::in_device(work, (size_t)a.work_bytes) || reinterpret_cast<uintptr_t>(work) % 256 != 0)
        return refuse(bad_param, "work is too small or not aligned");
    j.lse = static_cast<float *>(lse);
    j.lse_stride[0] = a.lse.strides[2];
    j.lse_stride[1] = a.lse.strides[1];
    j.scale = *static_cast<const float *>(scale);
    emu_enqueue(stream, "cudnnBackendExecute", [j] { compute(j); });
    return CUDNN_STATUS_SUCCESS;
}

} // namespace dnn
