#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/expand_matrix.h"
#include "kernels/cuda/gemm_lt.h"
#include "kernels/cuda/linear_lt.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/state.h"

static espl__gemm product(const espl_args *args, espl_dtype real) {
    espl__gemm g = {};
    g.in = g.out = real;
    g.alpha = 1.0f;
    g.work = args->work;
    return g;
}

/* The matrix as it lies, or where it is quantised expanded into work, behind what the product takes of that. */
static const void *matrix(const espl_args *args, espl_dtype real) {
    if (args->attrs->quant[0].format == ESPL_QUANT_NONE)
        return args->param[0];
    void *room = (char *)args->work + ESPL_GEMM_WORK;
    espl__cuda_expand(&args->attrs->quant[0], args->param[0], real, room);
    return room;
}

espl__gemm espl__cuda_linear_product(const espl_args *args, espl_dtype real) {
    int64_t K = args->attrs->n_in, M = args->attrs->n_out;
    espl__gemm g = product(args, real);
    g.m = espl__rows_of(args)->tokens, g.n = M, g.k = K;
    g.a = args->in[0], g.lda = K;
    g.b = matrix(args, real), g.trans_b = args->attrs->layout == ESPL_OUT_IN, g.ldb = g.trans_b ? K : M;
    g.c = args->out[0], g.ldc = M;
    g.epilogue = args->param[1] ? ESPL__BIAS : ESPL__PLAIN, g.bias = args->param[1];
    return g;
}

void espl__cuda_linear_apply(const espl_args *args, espl_dtype real) {
    espl__gemm g = espl__cuda_linear_product(args, real);
    espl__cuda_gemm(&g);
}

/* dx = dy W^T, in the terms of the layout. */
espl__gemm espl__cuda_linear_input_product(const espl_args *args, espl_dtype real) {
    int64_t K = args->attrs->n_in, M = args->attrs->n_out;
    espl__gemm g = product(args, real);
    g.m = espl__rows_of(args)->tokens, g.n = K, g.k = M;
    g.a = args->dout[0], g.lda = M;
    g.b = matrix(args, real), g.trans_b = args->attrs->layout == ESPL_IN_OUT, g.ldb = g.trans_b ? M : K;
    g.c = args->din[0], g.ldc = K, g.add = args->din_add[0];
    return g;
}

static void input_gradient(const espl_args *args, espl_dtype real) {
    espl__gemm g = espl__cuda_linear_input_product(args, real);
    espl__cuda_gemm(&g);
}

/* dW = dy^T x as [M,K], or x^T dy as [K,M]. */
static void weight_gradient(const espl_args *args, espl_dtype real) {
    int64_t K = args->attrs->n_in, M = args->attrs->n_out;
    bool out_in = args->attrs->layout == ESPL_OUT_IN;
    espl__gemm g = product(args, real);
    g.out = ESPL_F32;
    g.m = out_in ? M : K, g.n = out_in ? K : M, g.k = espl__rows_of(args)->tokens;
    g.a = out_in ? args->dout[0] : args->in[0], g.trans_a = true, g.lda = g.m;
    g.b = out_in ? args->in[0] : args->dout[0], g.ldb = g.n;
    g.c = args->dparam[0], g.ldc = g.n, g.add = args->dparam_add[0];
    espl__cuda_gemm(&g);
}

constexpr int SUM_WARPS = 8;

/* sums[p][c] = the sum over rows p rows_a_piece .. of x[row][c] (times[row][c]). A lane has W columns, a warp of the block every eighth row
 * of the piece.
 */
template <class R, int W, bool TIMES>
__global__ void __launch_bounds__(32 * SUM_WARPS)
    column_sums(const R *x, const R *times, int64_t rows, int64_t columns, int64_t ld, int64_t rows_a_piece, float *sums) {
    ESPL_SHARED(float, of_warps, [SUM_WARPS * 32 * W]);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64_t column = ((int64_t)blockIdx.x * 32 + lane) * W, first = blockIdx.y * rows_a_piece, end = min(first + rows_a_piece, rows);
    float sum[W] = {};
    if (column < columns) {
#pragma unroll 4
        for (int64_t row = first + warp; row < end; row += SUM_WARPS) {
            float value[W];
            load_stretch(x + row * ld + column, value);
            if constexpr (TIMES) {
                float factor[W];
                load_stretch(times + row * ld + column, factor);
#pragma unroll
                for (int j = 0; j < W; j++)
                    value[j] *= factor[j];
            }
#pragma unroll
            for (int j = 0; j < W; j++)
                sum[j] += value[j];
        }
    }
#pragma unroll
    for (int j = 0; j < W; j++)
        of_warps[(warp * W + j) * 32 + lane] = sum[j];
    __syncthreads();
    if (warp == 0 && column < columns)
#pragma unroll
        for (int j = 0; j < W; j++) {
            float total = 0.0f;
            for (int w = 0; w < SUM_WARPS; w++)
                total += of_warps[(w * W + j) * 32 + lane];
            sums[blockIdx.y * columns + column + j] = total;
        }
}

/* to[c] (+)= the sums of the pieces, in order (over over[c]). */
__global__ void __launch_bounds__(128) sum_pieces(const float *sums, int pieces, int64_t columns, const float *over, float *to, bool add) {
    int64_t column = (int64_t)blockIdx.x * 128 + threadIdx.x;
    if (column >= columns)
        return;
    float total = 0.0f;
    for (int p = 0; p < pieces; p++)
        total += sums[p * columns + column];
    if (over)
        total /= over[column];
    to[column] = add ? to[column] + total : total;
}

template <class R, int W> static void launch_sums(const espl__columns *c) {
    int64_t rows_a_piece = espl__sum_rows(c->rows);
    int pieces = (int)pieces_of(c->rows, rows_a_piece);
    dim3 grid((unsigned)pieces_of(c->columns, 32 * W), (unsigned)pieces);
    auto *column_sums_kernel = c->times ? column_sums<R, W, true> : column_sums<R, W, false>;
    ESPL_LAUNCH(column_sums_kernel, grid, dim3(32 * SUM_WARPS), 0, espl__cuda->compute, (const R *)c->x, (const R *)c->times, c->rows,
                c->columns, c->ld, rows_a_piece, c->sums);
    ESPL_LAUNCH(sum_pieces, dim3((unsigned)pieces_of(c->columns, 128)), dim3(128), 0, espl__cuda->compute, (const float *)c->sums, pieces,
                c->columns, c->over, c->to, c->add);
    espl__cuda_note(cudaGetLastError(), "the gradient of a bias");
}

template <class R> static void sum_columns(const espl__columns *c) {
    if (whole_stretches<R>(c->columns) && whole_stretches<R>(c->ld) && aligned16((const R *)c->x, (const R *)c->times))
        launch_sums<R, reals<R>::vector>(c);
    else
        launch_sums<R, 1>(c);
}

void espl__cuda_sum_columns(const espl__columns *columns, espl_dtype real) {
    (real == ESPL_F32 ? sum_columns<float> : sum_columns<__nv_bfloat16>)(columns);
}

static void bias_gradient(const espl_args *args, espl_dtype real) {
    int64_t width = args->attrs->n_out;
    const espl__columns columns = {args->dout[0],
                                   espl__rows_of(args)->tokens,
                                   width,
                                   width,
                                   (float *)args->work,
                                   (float *)args->dparam[1],
                                   args->dparam_add[1],
                                   nullptr,
                                   nullptr};
    espl__cuda_sum_columns(&columns, real);
}

void espl__cuda_linear_gradients(const espl_args *args, espl_dtype real) {
    if (args->din[0])
        input_gradient(args, real);
    if (args->dparam[0])
        weight_gradient(args, real);
    if (args->dparam[1])
        bias_gradient(args, real);
}

void espl__cuda_fp32_linear_forward(const espl_args *args) { espl__cuda_linear_apply(args, ESPL_F32); }
void espl__cuda_bf16_linear_forward(const espl_args *args) { espl__cuda_linear_apply(args, ESPL_BF16); }
void espl__cuda_fp32_linear_backward(const espl_args *args) { espl__cuda_linear_gradients(args, ESPL_F32); }
void espl__cuda_bf16_linear_backward(const espl_args *args) { espl__cuda_linear_gradients(args, ESPL_BF16); }
