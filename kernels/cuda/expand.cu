#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/expand_matrix.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/state.h"
#include "kernels/dynamic_map.h"

constexpr int EXPAND_THREADS = 256;
constexpr int WORDS = ESPL_QUANT_BLOCK / 8; /* a block's codes */
constexpr unsigned MOST_ROWS = 65535;       /* of a grid */

/* Of NF4, and of its scales: what codes stand for. */
struct code_tables {
    float levels[16], map[ESPL_MAP_SIZE];
};

struct nf4_part {
    const uint32_t *codes;
    const float *scales; /* of blocks; or, where those are quantised, too: */
    const uint8_t *scale_codes;
    const float *second;       /* of groups, then the mean */
    int64_t n, blocks, groups; /* elements */
    bool whole_vectors;        /* the destination takes four reals at a time */
};

template <bool TWICE> static __device__ __forceinline__ float scale_of(const nf4_part &p, const float *map, int64_t block) {
    if constexpr (TWICE)
        return map[p.scale_codes[block]] * p.second[block / ESPL_QUANT_GROUP] + p.second[p.groups];
    else
        return p.scales[block];
}

template <class R> static __device__ __forceinline__ void put_four(const nf4_part &p, R *to, int64_t element, const float (&x)[4]) {
    if (p.whole_vectors && element + 4 <= p.n) {
        store_narrow(to + element, x);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (element + i < p.n)
            reals<R>::store(to + element + i, x[i]);
}

/* A thread has a word of codes: four elements of a block's first half, and the four that lie 32 behind them. The 16 levels lie in 16 banks,
 * so that no lookups meet. */
template <class R, bool TWICE>
__global__ void __launch_bounds__(EXPAND_THREADS) expand_nf4(R *to, const nf4_part p, const code_tables tables) {
    ESPL_SHARED(float, levels, [16]);
    ESPL_SHARED(float, map, [ESPL_MAP_SIZE]);
    if (threadIdx.x < 16)
        levels[threadIdx.x] = tables.levels[threadIdx.x];
    if constexpr (TWICE)
        map[threadIdx.x] = tables.map[threadIdx.x];
    __syncthreads();
    int64_t word = (int64_t)blockIdx.x * EXPAND_THREADS + threadIdx.x, block = word / WORDS;
    if (block >= p.blocks)
        return;
    float scale = scale_of<TWICE>(p, map, block), low[4], high[4];
    uint32_t codes = p.codes[word];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        low[i] = levels[codes >> 8 * i & 15] * scale;
        high[i] = levels[codes >> (8 * i + 4) & 15] * scale;
    }
    int64_t element = block * ESPL_QUANT_BLOCK + word % WORDS * 4;
    put_four(p, to, element, low);
    put_four(p, to, element + ESPL_QUANT_BLOCK / 2, high);
}

struct int8_part {
    const int8_t *codes;
    const float *scales;
    int64_t rows, columns;
    bool across; /* scales are of columns */
};

/* A row of blocks has a row of the matrix, a thread W of its elements at a time. */
template <class R, int W> __global__ void __launch_bounds__(EXPAND_THREADS) expand_int8(R *to, const int8_part p) {
    int64_t column = ((int64_t)blockIdx.x * EXPAND_THREADS + threadIdx.x) * W;
    if (column >= p.columns)
        return;
    for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
        int8_t code[W];
        float x[W];
        if constexpr (W == 4)
            *reinterpret_cast<uint32_t *>(code) = *reinterpret_cast<const uint32_t *>(p.codes + row * p.columns + column);
        else
            code[0] = p.codes[row * p.columns + column];
#pragma unroll
        for (int i = 0; i < W; i++)
            x[i] = (float)code[i] * p.scales[p.across ? column + i : row] * ESPL_INT8_STEP;
        store_narrow(to + row * p.columns + column, x);
    }
}

template <class R> static void launch_nf4(const espl_quant *quant, const nf4_part &p, R *to) {
    code_tables tables = {ESPL_NF4_LEVELS, {}};
    dim3 blocks((unsigned)pieces_of(p.blocks * WORDS, EXPAND_THREADS));
    if (quant->format == ESPL_QUANT_NF4_DOUBLE) {
        espl_map_fill(tables.map, true);
        ESPL_LAUNCH((expand_nf4<R, true>), blocks, dim3(EXPAND_THREADS), 0, espl__cuda->compute, to, p, tables);
    } else {
        ESPL_LAUNCH((expand_nf4<R, false>), blocks, dim3(EXPAND_THREADS), 0, espl__cuda->compute, to, p, tables);
    }
}

template <class R> static void launch_int8(const int8_part &p, bool whole_vectors, R *to) {
    int width = whole_vectors && p.columns % 4 == 0 ? 4 : 1;
    dim3 blocks((unsigned)pieces_of(p.columns, (int64_t)width * EXPAND_THREADS), (unsigned)(p.rows < MOST_ROWS ? p.rows : MOST_ROWS));
    if (width == 4)
        ESPL_LAUNCH((expand_int8<R, 4>), blocks, dim3(EXPAND_THREADS), 0, espl__cuda->compute, to, p);
    else
        ESPL_LAUNCH((expand_int8<R, 1>), blocks, dim3(EXPAND_THREADS), 0, espl__cuda->compute, to, p);
}

template <class R> static void expand_part(const espl_quant *quant, int part, const char *from, R *to) {
    espl_quant_places at = espl_quant_places_of(quant, part);
    const float *scales = (const float *)(from + at.scales), *second = (const float *)(from + at.second);
    bool whole_vectors = (uintptr_t)to % (4 * sizeof(R)) == 0;
    if (quant->format == ESPL_QUANT_INT8)
        launch_int8<R>({(const int8_t *)from, scales, quant->rows[part], quant->columns, quant->outputs_across != 0}, whole_vectors, to);
    else
        launch_nf4<R>(
            quant, {(const uint32_t *)from, scales, (const uint8_t *)scales, second, at.n, at.n_scales, at.n_seconds, whole_vectors}, to);
    espl__cuda_note(cudaGetLastError(), "expanding a quantised matrix");
}

template <class R> static void expand(const espl_quant *quant, const void *matrix, R *to) {
    const char *from = (const char *)matrix;
    for (int part = 0; part < quant->n_parts; part++) {
        expand_part(quant, part, from, to);
        from += espl_quant_places_of(quant, part).bytes;
        to += quant->rows[part] * quant->columns;
    }
}

void espl__cuda_expand(const espl_quant *quant, const void *from, espl_dtype real, void *to) {
    if (real == ESPL_F32)
        expand(quant, from, (float *)to);
    else
        expand(quant, from, (__nv_bfloat16 *)to);
}
