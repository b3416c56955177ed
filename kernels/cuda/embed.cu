#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/key_sort.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda_rows_work.h"

template <class T> struct embed_tables {
    const T *tokens, *places, *types, *prompt; /* places of position 0 on; places, types, prompt NULL: none */
    const int32_t *ids, *positions, *token_types;
    T *out;
    const espl__batch *batch;
    dropout_row drop;
    float scale;
    int width, vocab;
    unsigned panels;
};

/* x += what lies there. */
template <class T, int N> __device__ __forceinline__ void add_stretch(const T *from, float (&x)[N]) {
    float there[N];
    load_stretch(from, there);
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] += there[i];
}

template <class T, int N> __global__ void __launch_bounds__(256) embed_rows(embed_tables<T> t) {
    int64_t row = blockIdx.x / t.panels, column = ((int64_t)(blockIdx.x % t.panels) * blockDim.x + threadIdx.x) * N;
    if (column >= t.width)
        return;
    float x[N];
    int id = t.ids[row];
    load_stretch((id < t.vocab ? t.tokens + (int64_t)id * t.width : t.prompt + (int64_t)(id - t.vocab) * t.width) + column, x);
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] *= t.scale;
    if (t.places)
        add_stretch(t.places + (int64_t)t.positions[row] * t.width + column, x);
    if (t.types)
        add_stretch(t.types + (int64_t)t.token_types[row] * t.width + column, x);
    int64_t element = row * t.width + column;
    dropout_apply(dropout_begin(t.drop, t.batch), (uint64_t)element, x);
    store_stretch(t.out + element, x);
}

template <class T> static void embed_forward(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const espl__rows *rows = espl__rows_of(args);
    const T *tokens = static_cast<const T *>(args->param[0]), *places = static_cast<const T *>(args->param[1]),
            *types = static_cast<const T *>(args->param[2]), *prompt = static_cast<const T *>(args->param[3]);
    T *out = static_cast<T *>(args->out[0]);
    if (places)
        places += (int64_t)attrs->position_offset * attrs->n_out;
    bool wide = whole_stretches<T>(attrs->n_out) && aligned16(tokens, places, types, prompt, out);
    panel_grid grid = panel_grid_of(wide ? attrs->n_out / reals<T>::vector : attrs->n_out, 256);
    embed_tables<T> t = {tokens,
                         places,
                         types,
                         prompt,
                         rows->ids,
                         rows->positions,
                         rows->types,
                         out,
                         rows->batch,
                         dropout_row_of(attrs),
                         attrs->scale,
                         (int)attrs->n_out,
                         (int)attrs->vocab,
                         grid.panels};
    unsigned blocks = (unsigned)rows->tokens * grid.panels;
    if (wide)
        ESPL_LAUNCH((embed_rows<T, reals<T>::vector>), dim3(blocks), dim3(grid.threads), 0, espl__cuda->compute, t);
    else
        ESPL_LAUNCH((embed_rows<T, 1>), dim3(blocks), dim3(grid.threads), 0, espl__cuda->compute, t);
    espl__cuda_note(cudaGetLastError(), "embed forward");
}

/* Backward: tokens are sorted by key (id, position or type; equal keys stay in token order) and cut into chunks of ESPL_EMBED_ROWS. A chunk
 * sums its runs of equal keys in order. A run that lies in one chunk is done with that; of a longer one each chunk leaves its part in
 * `partial` ([chunk][part of a run that began before | part of a run that goes on][width]), and the chunk in which it began adds them in
 * order. What is added in which order depends on nothing but the keys of real tokens: padding, and ids of another table, are sorted behind
 * them. */
template <class T> struct embed_sums {
    const T *dout;
    const int32_t *index, *keys; /* sorted */
    float *to, *partial;
    const espl__batch *batch;
    dropout_row drop;
    float scale;
    int width, rows, n_keys;
    unsigned panels;
    bool add;
};

enum { SUM_ROWS = ESPL_EMBED_ROWS, SUM_BATCH = 4 /* rows whose loads are under way together */ };

template <class T, int N> __device__ __forceinline__ void finish_sum(const embed_sums<T> &s, int key, int64_t column, float (&sum)[N]) {
    float *to = s.to + (int64_t)key * s.width + column, there[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] *= s.scale;
    if (s.add) {
        load_floats(to, there);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[i] += there[i];
    }
    store_floats(to, sum);
}

template <class T, int N> __global__ void __launch_bounds__(128) embed_sum_chunks(embed_sums<T> s) {
    ESPL_SHARED(int, shared_row, [SUM_ROWS]);
    ESPL_SHARED(int, shared_key, [SUM_ROWS + 2]); /* with the neighbours of the chunk */
    int chunk = (int)(blockIdx.x / s.panels), first = chunk * SUM_ROWS;
    int64_t column = ((int64_t)(blockIdx.x % s.panels) * blockDim.x + threadIdx.x) * N;
    for (int i = (int)threadIdx.x; i < SUM_ROWS + 2; i += (int)blockDim.x) {
        int at = first + i - 1;
        shared_key[i] = at < 0 ? -1 : at < s.rows ? s.keys[at] : s.n_keys;
        if (i < SUM_ROWS)
            shared_row[i] = first + i < s.rows ? s.index[first + i] : 0;
    }
    __syncthreads();
    if (column >= s.width)
        return;
    dropout drop = dropout_begin(s.drop, s.batch);
    float sum[N] = {}, g[SUM_BATCH][N];
    bool before = shared_key[0] == shared_key[1];
    for (int i = 0; i < SUM_ROWS && shared_key[i + 1] < s.n_keys; i += SUM_BATCH) {
#pragma unroll
        for (int b = 0; b < SUM_BATCH; b++)
            if (shared_key[i + b + 1] < s.n_keys)
                load_stretch(s.dout + (int64_t)shared_row[i + b] * s.width + column, g[b]);
#pragma unroll
        for (int b = 0; b < SUM_BATCH; b++) {
            int key = shared_key[i + b + 1], next = shared_key[i + b + 2];
            if (key >= s.n_keys)
                break;
            dropout_apply(drop, (uint64_t)((int64_t)shared_row[i + b] * s.width + column), g[b]);
#pragma unroll
            for (int e = 0; e < N; e++)
                sum[e] += g[b][e];
            bool last = i + b == SUM_ROWS - 1;
            if (next == key && !last)
                continue;
            if (before || next == key)
                store_floats(s.partial + ((int64_t)chunk * 2 + !before) * s.width + column, sum);
            else
                finish_sum(s, key, column, sum);
            before = false;
#pragma unroll
            for (int e = 0; e < N; e++)
                sum[e] = 0;
        }
    }
}

/* Position behind the last of `key`, searched from `at` on. */
__device__ __forceinline__ int end_of_run(const int32_t *keys, int rows, int at, int key) {
    int low = at, high = rows;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (keys[middle] <= key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The chunk in which a run over several chunks began adds their parts. */
template <class T, int N> __global__ void __launch_bounds__(128) embed_sum_runs(embed_sums<T> s) {
    int chunk = (int)(blockIdx.x / s.panels), first = chunk * SUM_ROWS, next = first + SUM_ROWS;
    int64_t column = ((int64_t)(blockIdx.x % s.panels) * blockDim.x + threadIdx.x) * N;
    if (next >= s.rows || column >= s.width)
        return;
    int key = s.keys[next - 1];
    bool goes_on = key < s.n_keys && s.keys[next] == key, began_before = s.keys[first] == key && first > 0 && s.keys[first - 1] == key;
    if (!goes_on || began_before)
        return;
    int last = (end_of_run(s.keys, s.rows, next, key) - 1) / SUM_ROWS;
    float sum[N], part[N];
    load_floats(s.partial + ((int64_t)chunk * 2 + 1) * s.width + column, sum);
#pragma unroll 4
    for (int c = chunk + 1; c <= last; c++) {
        load_floats(s.partial + (int64_t)c * 2 * s.width + column, part);
#pragma unroll
        for (int e = 0; e < N; e++)
            sum[e] += part[e];
    }
    finish_sum(s, key, column, sum);
}

template <class T, int N> static void launch_sums(const embed_sums<T> &s, unsigned threads) {
    unsigned chunks = (unsigned)pieces_of(s.rows, SUM_ROWS);
    ESPL_LAUNCH((embed_sum_chunks<T, N>), dim3(chunks * s.panels), dim3(threads), 0, espl__cuda->compute, s);
    ESPL_LAUNCH((embed_sum_runs<T, N>), dim3(chunks * s.panels), dim3(threads), 0, espl__cuda->compute, s);
}

/* The gradient of one table from `to` on: sums of the rows of dout0 by those of `keys` that are `first` .. `first` + n_keys - 1. */
template <class T>
static void sum_by_key(const espl_args *args, float *to, const int32_t *keys, int64_t first, int64_t n_keys, float scale, bool add) {
    const espl_attrs *attrs = args->attrs;
    const T *dout = static_cast<const T *>(args->dout[0]);
    char *work = static_cast<char *>(args->work);
    float *partial = reinterpret_cast<float *>(work + espl__sort_bytes(espl__rows_of(args)->tokens));
    espl__sorted sorted = espl__cuda_sort_keys(espl__rows_of(args), keys, first, n_keys, work);
    bool wide = whole_stretches<T>(attrs->n_out) && aligned16(dout, to);
    panel_grid grid = panel_grid_of(wide ? attrs->n_out / reals<T>::vector : attrs->n_out, 128);
    embed_sums<T> s = {dout,
                       sorted.index,
                       sorted.keys,
                       to,
                       partial,
                       espl__rows_of(args)->batch,
                       dropout_row_of(attrs),
                       scale,
                       (int)attrs->n_out,
                       (int)espl__rows_of(args)->tokens,
                       (int)n_keys,
                       grid.panels,
                       add};
    if (wide)
        launch_sums<T, reals<T>::vector>(s, grid.threads);
    else
        launch_sums<T, 1>(s, grid.threads);
}

template <class T> static void embed_backward(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const espl__rows *rows = espl__rows_of(args);
    const int64_t n_keys[] = {attrs->vocab, attrs->positions, attrs->types, attrs->prompt}, first[] = {0, 0, 0, attrs->vocab},
                  skipped[] = {0, attrs->position_offset, 0, 0};
    const int32_t *keys[] = {rows->ids, rows->positions, rows->types, rows->ids};
    for (int p = 0; p < 4; p++) {
        float *to = static_cast<float *>(args->dparam[p]);
        if (!to)
            continue;
        if (!args->dparam_add[p])
            espl__cuda_zero(to, (size_t)(n_keys[p] * attrs->n_out) * sizeof(float));
        sum_by_key<T>(args, to + skipped[p] * attrs->n_out, keys[p], first[p], n_keys[p] - skipped[p],
                      keys[p] == rows->ids ? attrs->scale : 1.0f, args->dparam_add[p]);
    }
    espl__cuda_note(cudaGetLastError(), "embed backward");
}

void espl__cuda_fp32_embed_forward(const espl_args *args) { embed_forward<float>(args); }
void espl__cuda_bf16_embed_forward(const espl_args *args) { embed_forward<__nv_bfloat16>(args); }
void espl__cuda_fp32_embed_backward(const espl_args *args) { embed_backward<float>(args); }
void espl__cuda_bf16_embed_backward(const espl_args *args) { embed_backward<__nv_bfloat16>(args); }
