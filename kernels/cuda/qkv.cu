#include "kernels/cuda/entries.h"
#include "kernels/cuda/linear_lt.h"
#include "kernels/cuda/rows.cuh"

constexpr int ROPE_THREADS = 128;

/* What the kernel needs of a row: heads (q and k, side by side) of d elements, of which 2 half are rotated; width elements a row. */
struct rope_shape {
    int heads, d, half;
    int64_t width;
};

/* (a, b) becomes (a cos - b sin, b cos + a sin); with sign -1 it turns back. A block has a token, a thread W pairs of a head at a time. */
template <class R, int W>
__global__ void __launch_bounds__(ROPE_THREADS) rotate(R *x, const int32_t *positions, const float *table, rope_shape shape, float sign) {
    R *row = x + blockIdx.x * shape.width;
    const float *angle = table + (int64_t)positions[blockIdx.x] * 2 * shape.half;
    int stretches = shape.half / W;
    for (int i = threadIdx.x; i < shape.heads * stretches; i += ROPE_THREADS) {
        int element = i % stretches * W;
        R *first = row + i / stretches * shape.d + element, *second = first + shape.half;
        float a[W], b[W], c[W], s[W];
        load_stretch(first, a);
        load_stretch(second, b);
        load_floats(angle + element, c);
        load_floats(angle + shape.half + element, s);
#pragma unroll
        for (int j = 0; j < W; j++) {
            float sine = sign * s[j], turned = fmaf(a[j], c[j], -(b[j] * sine));
            b[j] = fmaf(b[j], c[j], a[j] * sine);
            a[j] = turned;
        }
        store_stretch(first, a);
        store_stretch(second, b);
    }
}

template <class R> static void rotate_rows(const espl_args *args, void *rows, float sign) {
    const espl_attrs *attrs = args->attrs;
    rope_shape shape = {attrs->heads + attrs->kv_heads, attrs->head_dim, attrs->rope_dim / 2, attrs->n_out};
    if (!args->rope || shape.half == 0)
        return;
    dim3 blocks((unsigned)espl__rows_of(args)->tokens), threads(ROPE_THREADS);
    if (whole_stretches<R>(shape.half) && whole_stretches<R>(shape.d) && aligned16((const R *)rows, (const R *)args->rope))
        ESPL_LAUNCH((rotate<R, reals<R>::vector>), blocks, threads, 0, espl__cuda->compute, (R *)rows, espl__rows_of(args)->positions,
                    args->rope, shape, sign);
    else
        ESPL_LAUNCH((rotate<R, 1>), blocks, threads, 0, espl__cuda->compute, (R *)rows, espl__rows_of(args)->positions, args->rope, shape,
                    sign);
    espl__cuda_note(cudaGetLastError(), "qkv: rope");
}

void espl__cuda_fp32_qkv_forward(const espl_args *args) {
    espl__cuda_linear_apply(args, ESPL_F32);
    rotate_rows<float>(args, args->out[0], 1.0f);
}

void espl__cuda_bf16_qkv_forward(const espl_args *args) {
    espl__cuda_linear_apply(args, ESPL_BF16);
    rotate_rows<__nv_bfloat16>(args, args->out[0], 1.0f);
}

void espl__cuda_fp32_qkv_backward(const espl_args *args) {
    rotate_rows<float>(args, args->dout[0], -1.0f);
    espl__cuda_linear_gradients(args, ESPL_F32);
}

void espl__cuda_bf16_qkv_backward(const espl_args *args) {
    rotate_rows<__nv_bfloat16>(args, args->dout[0], -1.0f);
    espl__cuda_linear_gradients(args, ESPL_BF16);
}

void espl__cuda_fp32_rope_forward(const espl_args *args) { rotate_rows<float>(args, args->out[0], 1.0f); }
void espl__cuda_bf16_rope_forward(const espl_args *args) { rotate_rows<__nv_bfloat16>(args, args->out[0], 1.0f); }
void espl__cuda_fp32_rope_backward(const espl_args *args) { rotate_rows<float>(args, args->dout[0], -1.0f); }
void espl__cuda_bf16_rope_backward(const espl_args *args) { rotate_rows<__nv_bfloat16>(args, args->dout[0], -1.0f); }
