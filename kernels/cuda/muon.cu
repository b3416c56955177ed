/* Muon (rules.h): momentum, the products of Newton and Schulz by cuBLASLt with passes over elements between them, and the weights. */
#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/gemm_lt.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/weights.cuh"
#include "kernels/cuda/whole_sums.cuh"

/* A matrix' update. */
struct muon_call {
    void *weight;
    float *master, *momentum;
    const float *grad;
    espl__muon_work work;
    int64_t n, parts;
    bool nesterov;
    float grad_scale, keep, take, lr, decay, scale;
    espl_rng_key rng;
    uint64_t first;
};

/* A warp a part of ESPL_PART elements: their momentum, what is to be made orthogonal, and the squares of that. */
template <class T> __global__ void __launch_bounds__(WHOLE_THREADS) muon_momentum(const muon_call c) {
    int64_t part = row_of_warp();
    T *x = static_cast<T *>(c.work.x);
    double squares = 0;
    if (part >= c.parts)
        return;
    for (int i = (int)threadIdx.x % 32; i < ESPL_PART && part * ESPL_PART + i < c.n; i += 32) {
        int64_t at = part * ESPL_PART + i;
        float g = c.grad[at] * c.grad_scale, m = c.keep * c.momentum[at] + c.take * g;
        float direction = as_stored<T>(c.nesterov ? c.take * g + c.keep * m : m);
        c.momentum[at] = m;
        reals<T>::store(x + at, direction);
        squares += (double)direction * direction;
    }
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0)
        c.work.sums[part] = squares;
}

__global__ void __launch_bounds__(ESPL_LONG_LANES) muon_norm(const muon_call c) {
    ESPL_SHARED(double, lanes, [ESPL_LONG_LANES]);
    double sum = sum_long(c.work.sums, c.parts, lanes);
    if (threadIdx.x == 0)
        c.work.numbers[0] = fmaxf((float)sqrt(sum), ESPL_MUON_EPS);
}

template <class T> __global__ void __launch_bounds__(WHOLE_THREADS) muon_normalise(const muon_call c) {
    int64_t i = (int64_t)blockIdx.x * WHOLE_THREADS + threadIdx.x;
    T *x = static_cast<T *>(c.work.x);
    if (i < c.n)
        reals<T>::store(x + i, reals<T>::load(x + i) / c.work.numbers[0]);
}

/* x = a x + b p */
template <class T> __global__ void __launch_bounds__(WHOLE_THREADS) muon_combine(T *x, float a, float b, const float *p, int64_t n) {
    int64_t i = (int64_t)blockIdx.x * WHOLE_THREADS + threadIdx.x;
    if (i < n)
        reals<T>::store(x + i, a * reals<T>::load(x + i) + b * p[i]);
}

template <class T, bool MASTER> __global__ void __launch_bounds__(WHOLE_THREADS) muon_apply(const muon_call c) {
    int64_t i = (int64_t)blockIdx.x * WHOLE_THREADS + threadIdx.x;
    if (i >= c.n)
        return;
    float x = reals<T>::load(static_cast<const T *>(c.work.x) + i), w = load_weight<T, MASTER>(c, i);
    store_weight<T, MASTER>(c, i, w - c.lr * (c.scale * x + c.decay * w));
}

/* ---- The calls. */

static dim3 blocks_for(int64_t n) { return dim3((unsigned)pieces_of(n, WHOLE_THREADS)); }

template <class T> static void combine(void *x, float a, float b, const float *p, int64_t n) {
    ESPL_LAUNCH(muon_combine<T>, blocks_for(n), dim3(WHOLE_THREADS), 0, espl__cuda->compute, static_cast<T *>(x), a, b, p, n);
}

/* A product of matrices of the work, of so many rows and columns. */
static espl__gemm product_of(const espl__muon_work *w, espl_dtype real, const void *a, const void *b, int64_t rows, int64_t columns,
                             int64_t k) {
    espl__gemm g = {};
    g.m = rows, g.n = columns, g.k = k;
    g.a = a, g.b = b, g.c = w->product;
    g.lda = k, g.ldb = g.ldc = columns;
    g.alpha = 1;
    g.in = real, g.out = ESPL_F32;
    g.work = w->of_matmul;
    return g;
}

static void make_gram(const espl__muon_work *w, espl_dtype real, const espl_rule_tensor *t) {
    bool wide = t->rows <= t->columns;
    int64_t side = espl__side(t);
    espl__gemm g = product_of(w, real, w->x, w->x, side, side, wide ? t->columns : t->rows);
    g.lda = g.ldb = t->columns;
    g.trans_a = !wide, g.trans_b = wide;
    g.c = w->gram, g.out = real;
    espl__cuda_gemm(&g);
}

template <class T> static void orthogonalise(const espl__muon_work *w, espl_dtype real, const espl_rule_tensor *t) {
    bool wide = t->rows <= t->columns;
    int64_t side = espl__side(t);
    espl__gemm square = product_of(w, real, w->gram, w->gram, side, side, side);
    espl__gemm turn = product_of(w, real, wide ? w->gram : w->x, wide ? w->x : w->gram, t->rows, t->columns, side);
    for (int step = 0; step < ESPL_MUON_STEPS; step++) {
        make_gram(w, real, t);
        espl__cuda_gemm(&square);
        combine<T>(w->gram, ESPL_MUON_B, ESPL_MUON_C, w->product, side * side);
        espl__cuda_gemm(&turn);
        combine<T>(w->x, ESPL_MUON_A, 1.0f, w->product, t->rows * t->columns);
    }
}

static muon_call call_of(const espl_rule_step *s, const espl_rule_range *r, size_t real_size) {
    const espl_rule_tensor *t = r->tensor;
    muon_call c = {};
    c.weight = s->weight;
    c.master = s->master;
    c.momentum = static_cast<float *>(s->state[0]);
    c.grad = s->grad;
    espl__muon_layout(t, real_size, ESPL_GEMM_WORK, static_cast<char *>(s->work), &c.work);
    c.n = t->rows * t->columns;
    c.parts = espl__parts(t);
    c.nesterov = s->nesterov;
    c.grad_scale = s->grad_scale;
    c.keep = s->momentum;
    c.take = 1.0f - s->momentum;
    c.lr = r->lr;
    c.decay = r->decay;
    c.scale = t->scale;
    c.rng = s->rng;
    c.first = s->first;
    return c;
}

template <class T, bool MASTER> static void update_matrix(const espl_rule_step *s, const espl_rule_range *r) {
    muon_call c = call_of(s, r, sizeof(T));
    cudaStream_t stream = espl__cuda->compute;
    ESPL_LAUNCH(muon_momentum<T>, dim3((unsigned)pieces_of(c.parts, WHOLE_WARPS)), dim3(WHOLE_THREADS), 0, stream, c);
    ESPL_LAUNCH(muon_norm, dim3(1), dim3(ESPL_LONG_LANES), 0, stream, c);
    ESPL_LAUNCH(muon_normalise<T>, blocks_for(c.n), dim3(WHOLE_THREADS), 0, stream, c);
    orthogonalise<T>(&c.work, sizeof(T) == sizeof(float) ? ESPL_F32 : ESPL_BF16, r->tensor);
    ESPL_LAUNCH((muon_apply<T, MASTER>), blocks_for(c.n), dim3(WHOLE_THREADS), 0, stream, c);
    espl__cuda_note(cudaGetLastError(), "muon");
}

template <class T, bool MASTER> static void muon(const espl_rule_step *step, espl_rule_kernel *adamw) {
    for (int i = 0; i < step->n_ranges; i++) {
        const espl_rule_range *r = &step->ranges[i];
        espl_rule_step s = espl__tensor_step(step, r, sizeof(T));
        if (r->tensor->matrix) {
            update_matrix<T, MASTER>(&s, r);
            continue;
        }
        espl_rule_range all;
        espl__make_adamw(&s, r, &all);
        adamw(&s);
    }
}

void espl__cuda_fp32_muon(const espl_rule_step *step) { muon<float, false>(step, espl__cuda_fp32_adamw); }
void espl__cuda_bf16_muon(const espl_rule_step *step) {
    step->master ? muon<__nv_bfloat16, true>(step, espl__cuda_bf16_adamw) : muon<__nv_bfloat16, false>(step, espl__cuda_bf16_adamw);
}
