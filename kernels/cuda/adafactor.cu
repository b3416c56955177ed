/* Adafactor (rules.h): the operations of kernels/cpu/adafactor.c one by one, so the bits are the CPU's. */
#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/weights.cuh"
#include "kernels/cuda/whole_sums.cuh"

/* A tensor's update. What is no matrix is looked at as rows of ESPL_PART. */
struct adafactor_call {
    void *weight;
    float *master, *row, *column, *moment;
    const float *grad;
    espl__adafactor_work work;
    int64_t rows, columns, n, piece; /* n elements; rows of a piece of a column */
    bool matrix;
    float grad_scale, lr, decay, b2, a2, clip;
    espl_rng_key rng;
    uint64_t first;
};

__device__ __forceinline__ float gradient_at(const adafactor_call &a, int64_t at) { return a.grad[at] * a.grad_scale; }

/* ---- Moments. */

__global__ void __launch_bounds__(WHOLE_THREADS) row_moments(const adafactor_call a) {
    int64_t i = row_of_warp();
    double squares = 0;
    if (i >= a.rows)
        return;
    for (int64_t j = threadIdx.x % 32; j < a.columns; j += 32) {
        float g = gradient_at(a, i * a.columns + j);
        squares += (double)g * g;
    }
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0) {
        float moment = a.b2 * a.row[i] + a.a2 * (float)(squares / (double)a.columns + ESPL_ADAFACTOR_EPS);
        a.row[i] = moment;
        a.work.sums[i] = moment;
    }
}

__global__ void __launch_bounds__(ESPL_LONG_LANES) mean_of_rows(const adafactor_call a) {
    ESPL_SHARED(double, lanes, [ESPL_LONG_LANES]);
    double sum = sum_long(a.work.sums, a.rows, lanes);
    if (threadIdx.x == 0)
        a.work.numbers[0] = (float)(sum / (double)a.rows);
}

/* Block (x, y) has WHOLE_THREADS columns of piece y. */
__global__ void __launch_bounds__(WHOLE_THREADS) column_pieces(const adafactor_call a) {
    int64_t j = (int64_t)blockIdx.x * WHOLE_THREADS + threadIdx.x;
    int64_t from = blockIdx.y * a.piece, to = from + a.piece < a.rows ? from + a.piece : a.rows;
    double sum = 0;
    if (j >= a.columns)
        return;
    for (int64_t i = from; i < to; i++) {
        float g = gradient_at(a, i * a.columns + j);
        sum += (double)g * g;
    }
    a.work.partial[blockIdx.y * a.columns + j] = sum;
}

__global__ void __launch_bounds__(WHOLE_THREADS) column_moments(const adafactor_call a, int n_pieces) {
    int64_t j = (int64_t)blockIdx.x * WHOLE_THREADS + threadIdx.x;
    double sum = 0;
    if (j >= a.columns)
        return;
    for (int p = 0; p < n_pieces; p++)
        sum += a.work.partial[p * a.columns + j];
    float moment = a.b2 * a.column[j] + a.a2 * (float)(sum / (double)a.rows + ESPL_ADAFACTOR_EPS);
    a.column[j] = moment;
    a.work.column[j] = 1.0f / sqrtf(moment);
}

/* Of what is no matrix. */
__global__ void __launch_bounds__(WHOLE_THREADS) moments(const adafactor_call a) {
    int64_t i = (int64_t)blockIdx.x * WHOLE_THREADS + threadIdx.x;
    if (i >= a.n)
        return;
    float g = gradient_at(a, i);
    a.moment[i] = a.b2 * a.moment[i] + a.a2 * (g * g + (float)ESPL_ADAFACTOR_EPS);
}

/* ---- The direction. */

__device__ __forceinline__ int64_t width_of(const adafactor_call &a) { return a.matrix ? a.columns : (int64_t)ESPL_PART; }

/* What all of a row is multiplied with. */
__device__ __forceinline__ float row_factor(const adafactor_call &a, int64_t row) {
    return a.matrix ? 1.0f / sqrtf(a.row[row] / a.work.numbers[0]) : 0.0f;
}

__device__ __forceinline__ float direction(const adafactor_call &a, float factor, int64_t column, int64_t at) {
    float g = gradient_at(a, at);
    return a.matrix ? factor * a.work.column[column] * g : g * (1.0f / sqrtf(a.moment[at]));
}

__global__ void __launch_bounds__(WHOLE_THREADS) direction_squares(const adafactor_call a, int64_t rows) {
    int64_t row = row_of_warp(), width = width_of(a);
    double squares = 0;
    if (row >= rows)
        return;
    float factor = row_factor(a, row);
    for (int64_t j = threadIdx.x % 32; j < width && row * width + j < a.n; j += 32) {
        float u = direction(a, factor, j, row * width + j);
        squares += (double)u * u;
    }
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0)
        a.work.sums[row] = squares;
}

__global__ void __launch_bounds__(ESPL_LONG_LANES) divisor_of(const adafactor_call a, int64_t rows) {
    ESPL_SHARED(double, lanes, [ESPL_LONG_LANES]);
    double sum = sum_long(a.work.sums, rows, lanes);
    if (threadIdx.x == 0)
        a.work.numbers[1] = fmaxf(1.0f, (float)sqrt(sum / (double)a.n) / a.clip);
}

/* Block (x, y) has row x, and columns from y on. */
template <class T, bool MASTER> __global__ void __launch_bounds__(WHOLE_THREADS) adafactor_apply(const adafactor_call a) {
    int64_t row = blockIdx.x, width = width_of(a), j = (int64_t)blockIdx.y * blockDim.x + threadIdx.x, at = row * width + j;
    if (j >= width || at >= a.n)
        return;
    float d = a.work.numbers[1], lr = a.lr / d, decay = a.decay * d;
    float u = direction(a, row_factor(a, row), j, at), w = load_weight<T, MASTER>(a, at);
    store_weight<T, MASTER>(a, at, w - lr * (u + decay * w));
}

/* ---- The calls. */

static adafactor_call call_of(const espl_rule_step *s, const espl_rule_range *r) {
    const espl_rule_tensor *t = r->tensor;
    adafactor_call a = {};
    a.weight = s->weight;
    a.master = s->master;
    a.row = static_cast<float *>(s->state[0]);
    a.column = static_cast<float *>(s->state[1]);
    a.moment = static_cast<float *>(s->state[2]);
    a.grad = s->grad;
    espl__adafactor_layout(t, static_cast<char *>(s->work), &a.work);
    a.rows = t->rows;
    a.columns = t->columns;
    a.n = t->rows * t->columns;
    a.piece = espl__piece_rows(t->rows);
    a.matrix = t->matrix;
    a.grad_scale = s->grad_scale;
    a.lr = r->lr;
    a.decay = r->decay;
    a.b2 = 1.0f - r->c2;
    a.a2 = r->c2;
    a.clip = s->clip;
    a.rng = s->rng;
    a.first = s->first;
    return a;
}

static dim3 blocks_for(int64_t n, int64_t each) { return dim3((unsigned)pieces_of(n, each)); }

static void matrix_moments(const adafactor_call &a) {
    unsigned n_pieces = (unsigned)espl__column_pieces(a.rows), across = (unsigned)pieces_of(a.columns, WHOLE_THREADS);
    cudaStream_t stream = espl__cuda->compute;
    ESPL_LAUNCH(row_moments, blocks_for(a.rows, WHOLE_WARPS), dim3(WHOLE_THREADS), 0, stream, a);
    ESPL_LAUNCH(mean_of_rows, dim3(1), dim3(ESPL_LONG_LANES), 0, stream, a);
    ESPL_LAUNCH(column_pieces, dim3(across, n_pieces), dim3(WHOLE_THREADS), 0, stream, a);
    ESPL_LAUNCH(column_moments, dim3(across), dim3(WHOLE_THREADS), 0, stream, a, (int)n_pieces);
}

template <class T, bool MASTER> static void update_tensor(const adafactor_call &a) {
    int64_t width = a.matrix ? a.columns : (int64_t)ESPL_PART, rows = pieces_of(a.n, width);
    panel_grid grid = panel_grid_of(width, WHOLE_THREADS);
    cudaStream_t stream = espl__cuda->compute;
    if (a.matrix)
        matrix_moments(a);
    else
        ESPL_LAUNCH(moments, blocks_for(a.n, WHOLE_THREADS), dim3(WHOLE_THREADS), 0, stream, a);
    ESPL_LAUNCH(direction_squares, blocks_for(rows, WHOLE_WARPS), dim3(WHOLE_THREADS), 0, stream, a, rows);
    ESPL_LAUNCH(divisor_of, dim3(1), dim3(ESPL_LONG_LANES), 0, stream, a, rows);
    ESPL_LAUNCH((adafactor_apply<T, MASTER>), dim3((unsigned)rows, grid.panels), dim3(grid.threads), 0, stream, a);
    espl__cuda_note(cudaGetLastError(), "adafactor");
}

template <class T, bool MASTER> static void adafactor(const espl_rule_step *step) {
    for (int i = 0; i < step->n_ranges; i++) {
        espl_rule_step s = espl__tensor_step(step, &step->ranges[i], sizeof(T));
        update_tensor<T, MASTER>(call_of(&s, &step->ranges[i]));
    }
}

void espl__cuda_fp32_adafactor(const espl_rule_step *step) { adafactor<float, false>(step); }
void espl__cuda_bf16_adafactor(const espl_rule_step *step) {
    step->master ? adafactor<__nv_bfloat16, true>(step) : adafactor<__nv_bfloat16, false>(step);
}
