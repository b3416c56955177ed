/* The forward of every op a second time, by other formulas and in long double: attention with a whole T x T
 * matrix, log-sum-exp without a shift, variance as E[x^2] - m^2, rotation as a complex product. */
#ifndef ESPL_TESTS_UNIT_OP_NAIVE_H
#define ESPL_TESTS_UNIT_OP_NAIVE_H

#include "tests/unit/op_cases.h"

#include <complex.h>

typedef long double naive_real;

/* 0 or 1 / (1 - p), from the definition of the stream: number e is word e mod 4 of block e / 4. */
static inline naive_real naive_keep(const op_values *v, uint64_t e) {
    float p = v->attrs.dropout;
    if (p == 0 || !v->batch.training)
        return 1;
    espl_rng_key key = v->batch.rng;
    key.op = v->attrs.rng_op;
    return (double)espl_rng_block(&key, e / 4).v[e % 4] >= floor((double)p * 4294967296.0) ? 1 / (1 - (naive_real)p) : 0;
}

static inline void naive_embed(const op_values *v, double *const out[3]) {
    int64_t width = v->attrs.n_out;
    for (int64_t e = 0; e < v->batch.n * width; e++) {
        int64_t t = e / width, c = e % width;
        int64_t id = v->batch.ids[t], vocab = v->attrs.vocab;
        naive_real x = id < vocab ? v->slot[OP_PARAM0][id * width + c] : v->slot[OP_PARAM3][(id - vocab) * width + c];
        x *= (naive_real)v->attrs.scale;
        x += v->slot[OP_PARAM1] ? v->slot[OP_PARAM1][(v->batch.positions[t] + v->attrs.position_offset) * width + c] : 0;
        x += v->slot[OP_PARAM2] ? v->slot[OP_PARAM2][(v->batch.types ? v->batch.types[t] : 0) * width + c] : 0;
        out[0][e] = (double)(x * naive_keep(v, (uint64_t)e));
    }
}

static inline void naive_norm_row(const op_values *v, const double *x, double *y, double *stats) {
    int64_t width = v->attrs.n_in;
    naive_real sum = 0, square = 0;
    for (int64_t c = 0; c < width; c++) {
        sum += x[c];
        square += (naive_real)x[c] * x[c];
    }
    naive_real mean = v->attrs.kind == ESPL_NORM_LAYER ? sum / width : 0;
    naive_real rstd = 1 / sqrtl(square / width - mean * mean + v->attrs.eps);
    for (int64_t c = 0; c < width; c++)
        y[c] = (double)((x[c] - mean) * rstd * v->slot[OP_PARAM0][c] + (v->slot[OP_PARAM1] ? v->slot[OP_PARAM1][c] : 0));
    stats[0] = (double)mean;
    stats[1] = (double)rstd;
}

static inline void naive_resnorm(const op_values *v, double *const out[3]) {
    int64_t width = v->attrs.n_in;
    for (int64_t e = 0; e < v->batch.n * width; e++)
        out[0][e] = (double)(v->slot[OP_IN0][e] + (v->slot[OP_IN1] ? v->slot[OP_IN1][e] * naive_keep(v, (uint64_t)e) : 0));
    for (int64_t t = 0; t < v->batch.n; t++)
        naive_norm_row(v, out[0] + t * width, out[1] + t * width, out[2] + t * 2);
}

static inline void naive_linear(const op_values *v, double *const out[3]) {
    int64_t k_n = v->attrs.n_in, m_n = v->attrs.n_out;
    bool out_in = v->attrs.layout == ESPL_OUT_IN;
    for (int64_t t = 0; t < v->batch.n; t++)
        for (int64_t m = 0; m < m_n; m++) {
            naive_real sum = v->slot[OP_PARAM1] ? v->slot[OP_PARAM1][m] : 0;
            for (int64_t k = k_n - 1; k >= 0; k--)
                sum += (naive_real)v->slot[OP_IN0][t * k_n + k] * v->slot[OP_PARAM0][out_in ? m * k_n + k : k * m_n + m];
            out[0][t * m_n + m] = (double)sum;
        }
}

/* z = a + i b turned by exp(i position theta_i), theta_i = 10000^(-2 i / r), in the table's float. */
static inline void naive_rotate(const op_values *v, double *rows) {
    int64_t half = v->attrs.rope_dim / 2, d = v->attrs.head_dim;
    for (int64_t t = 0; t < v->batch.n; t++)
        for (int64_t pair = 0; pair < (v->attrs.heads + v->attrs.kv_heads) * half; pair++) {
            double *x = rows + t * v->attrs.n_out + pair / half * d + pair % half;
            double angle = v->batch.positions[t] * pow(10000, -2.0 * (double)(pair % half) / (double)v->attrs.rope_dim);
            double complex z = (x[0] + I * x[half]) * ((float)cos(angle) + I * (float)sin(angle));
            x[0] = creal(z);
            x[half] = cimag(z);
        }
}

static inline void naive_qkv(const op_values *v, double *const out[3]) {
    naive_linear(v, out);
    naive_rotate(v, out[0]);
}

static inline bool naive_sees(const op_values *v, int64_t i, int64_t j) {
    for (int32_t s = 0; s < v->batch.n_segments; s++)
        if ((i < v->batch.segments[s + 1]) != (j < v->batch.segments[s + 1]))
            return false;
    return (!v->attrs.causal || j <= i) && (v->attrs.window == 0 || i - j < v->attrs.window);
}

static inline int64_t naive_start(const op_values *v, int64_t i) {
    int32_t s = 0;
    while (v->batch.segments[s + 1] <= i)
        s++;
    return v->batch.segments[s];
}

/* Hugging Face's T5Attention._relative_position_bucket, clause by clause; a bound that is a whole number is not missed by rounding. */
static inline int64_t naive_bucket(const espl_attrs *attrs, int64_t offset) {
    int64_t n = attrs->causal ? attrs->rel_buckets : attrs->rel_buckets / 2, base = offset > 0 && !attrs->causal ? n : 0;
    int64_t distance = offset < 0 ? -offset : attrs->causal ? 0 : offset, exact = n / 2;
    if (distance < exact)
        return base + distance;
    double steps = log((double)distance / (double)exact) / log((double)attrs->rel_distance / (double)exact) * (double)(n - exact);
    int64_t large = exact + (int64_t)(steps + 1e-9);
    return base + (large < n - 1 ? large : n - 1);
}

static inline naive_real naive_bias(const op_values *v, int64_t h, int64_t offset) {
    return v->attrs.rel_buckets > 0 ? v->slot[OP_PARAM0][naive_bucket(&v->attrs, offset) * v->attrs.heads + h] : 0;
}

/* Row i of the matrix of one head: exp(scale q k + bias) where seen, and what becomes of the values. */
static inline void naive_attention_row(const op_values *v, int64_t h, int64_t i, naive_real *row, double *const out[3]) {
    int64_t n = v->batch.n, heads = v->attrs.heads, groups = v->attrs.kv_heads, d = v->attrs.head_dim, width = (heads + 2 * groups) * d;
    int64_t key = (heads + h * groups / heads) * d, value = key + groups * d;
    const double *qkv = v->slot[OP_IN0];
    naive_real sum = 0;
    for (int64_t j = 0; j < n; j++) {
        naive_real score = 0;
        for (int64_t c = 0; c < d; c++)
            score += (naive_real)qkv[i * width + h * d + c] * qkv[j * width + key + c];
        row[j] = naive_sees(v, i, j) ? expl(score * v->attrs.scale + naive_bias(v, h, j - i)) : 0;
        sum += row[j];
    }
    out[1][i * heads + h] = (double)logl(sum);
    for (int64_t c = 0; c < d; c++) {
        naive_real mix = 0;
        for (int64_t j = 0; j < n; j++)
            if (row[j] > 0)
                mix += row[j] / sum * naive_keep(v, (uint64_t)(h * n + i) * 1048576 + (uint64_t)(j - naive_start(v, i))) *
                       qkv[j * width + value + c];
        out[0][(i * heads + h) * d + c] = (double)mix;
    }
}

static inline void naive_attention(const op_values *v, double *const out[3]) {
    naive_real *row = malloc((size_t)v->batch.n * sizeof *row);
    for (int64_t h = 0; h < v->attrs.heads; h++)
        for (int64_t i = 0; i < v->batch.n; i++)
            naive_attention_row(v, h, i, row, out);
    free(row);
}

/* Of all pairs of a token and one of its source: softmax over those whose segments go together. */
static inline void naive_cross_attention(const op_values *v, double *const out[3]) {
    const espl_batch *batch = &v->batch, *source = batch->source;
    int64_t heads = v->attrs.heads, groups = v->attrs.kv_heads, d = v->attrs.head_dim;
    for (int32_t s = 0; s < batch->n_segments; s++)
        for (int64_t row = batch->segments[s] * heads; row < batch->segments[s + 1] * heads; row++) {
            int32_t seen = batch->source_segment ? batch->source_segment[s] : s;
            int64_t h = row % heads, first = source->segments[seen];
            naive_real sum = 0, mix[512] = {0};
            for (int64_t j = first; j < source->segments[seen + 1]; j++) {
                const double *key = v->slot[OP_IN1] + j * 2 * groups * d + h * groups / heads * d, *value = key + groups * d;
                naive_real score = 0;
                for (int64_t c = 0; c < d; c++)
                    score += (naive_real)v->slot[OP_IN0][row * d + c] * key[c];
                naive_real weight = expl(score * v->attrs.scale);
                naive_real keep = naive_keep(v, (uint64_t)(h * batch->n + row / heads) * 1048576 + (uint64_t)(j - first));
                sum += weight;
                for (int64_t c = 0; c < d; c++)
                    mix[c] += weight * keep * value[c];
            }
            out[1][row] = (double)logl(sum);
            for (int64_t c = 0; c < d; c++)
                out[0][row * d + c] = (double)(mix[c] / sum);
        }
}

static inline naive_real naive_activation(int32_t kind, naive_real x) {
    naive_real pi = 3.14159265358979323846264338327950288L;
    switch (kind) {
    case ESPL_ACT_GELU_TANH: return x / (1 + expl(-2 * sqrtl(2 / pi) * (x + 0.044715L * x * x * x)));
    case ESPL_ACT_GELU: return x * (1 + erfl(x / sqrtl(2))) / 2;
    case ESPL_ACT_RELU: return (x + fabsl(x)) / 2;
    case ESPL_ACT_SILU: return x * (1 + tanhl(x / 2)) / 2;
    case ESPL_ACT_NONE:
    case ESPL_ACT_REST: return x;
    default: return (expl(2 * x) - 1) / (expl(2 * x) + 1);
    }
}

static inline void naive_act(const op_values *v, double *const out[3]) {
    for (int64_t e = 0; e < v->batch.n * v->attrs.n_in; e++)
        out[0][e] = (double)(naive_activation(v->attrs.kind, v->slot[OP_IN0][e]) * naive_keep(v, (uint64_t)e));
    for (int64_t e = 0; e < v->batch.n * v->attrs.n_in && v->attrs.kind == ESPL_ACT_REST; e++)
        out[0][e] = v->slot[OP_IN0][e] - out[0][e];
}

static inline void naive_glu(const op_values *v, double *const out[3]) {
    int64_t width = v->attrs.n_out;
    for (int64_t e = 0; e < v->batch.n * width; e++) {
        const double *row = v->slot[OP_IN0] + e / width * 2 * width;
        out[0][e] = (double)(naive_activation(v->attrs.kind, row[e % width]) * row[width + e % width] * naive_keep(v, (uint64_t)e));
    }
}

/* out1 first, whole rows of it; the sums from their other ends. */
static inline void naive_mlp(const op_values *v, double *const out[3]) {
    int64_t n_in = v->attrs.n_in, width = v->attrs.ffn, n_out = v->attrs.n_out;
    bool out_in = v->attrs.layout == ESPL_OUT_IN;
    for (int64_t e = 0; e < v->batch.n * width; e++) {
        naive_real sum = v->slot[OP_PARAM1] ? v->slot[OP_PARAM1][e % width] : 0;
        for (int64_t k = n_in - 1; k >= 0; k--)
            sum += (naive_real)v->slot[OP_IN0][e / width * n_in + k] *
                   v->slot[OP_PARAM0][out_in ? e % width * n_in + k : k * width + e % width];
        out[1][e] = (double)sum;
    }
    for (int64_t e = 0; e < v->batch.n * n_out; e++) {
        naive_real sum = v->slot[OP_PARAM3] ? v->slot[OP_PARAM3][e % n_out] : 0;
        for (int64_t k = width - 1; k >= 0; k--)
            sum += naive_activation(v->attrs.kind, out[1][e / n_out * width + k]) *
                   v->slot[OP_PARAM2][out_in ? e % n_out * width + k : k * n_out + e % n_out];
        out[0][e] = (double)(sum + (v->attrs.residual ? v->slot[OP_IN0][e] : 0));
    }
}

static inline void naive_linear_xent(const op_values *v, double *const out[3]) {
    int64_t width = v->attrs.n_in;
    for (int64_t t = 0; t < v->batch.n; t++) {
        naive_real sum = 0, right = 0;
        for (int64_t word = 0; word < v->attrs.vocab; word++) {
            naive_real z = 0;
            for (int64_t k = 0; k < width; k++)
                z += (naive_real)v->slot[OP_IN0][t * width + k] * v->slot[OP_PARAM0][word * width + k];
            z = z * v->attrs.scale + (v->slot[OP_PARAM1] ? v->slot[OP_PARAM1][word] : 0);
            sum += expl(z);
            right = word == v->batch.targets[t] ? z : right;
        }
        out[0][t] = v->batch.targets[t] < 0 ? 0 : (double)((logl(sum) - right) * (v->batch.weights ? v->batch.weights[t] : 1));
    }
}

static inline void naive_pool(const op_values *v, double *const out[3]) {
    int64_t width = v->attrs.n_in;
    for (int64_t t = 0; t < v->batch.n; t++)
        for (int32_t s = 0; s < v->batch.n_segments; s++)
            if (v->attrs.kind == ESPL_POOL_FIRST ? t == v->batch.segments[s] + v->attrs.prompt : t + 1 == v->batch.segments[s + 1])
                memcpy(out[0] + s * width, v->slot[OP_IN0] + t * width, (size_t)width * sizeof(double));
}

static inline void naive_lora(const op_values *v, double *const out[3]) {
    const espl_attrs *a = &v->attrs;
    memcpy(out[0], v->slot[OP_IN1], (size_t)(v->batch.n * a->n_out) * sizeof(double));
    int64_t at = 0, weight = 0;
    for (int p = 0; p < a->n_parts; p++) {
        for (int64_t e = 0; e < v->batch.n * a->part[p].width; e++) {
            int64_t t = e / a->part[p].width, j = e % a->part[p].width;
            naive_real sum = 0;
            for (int64_t i = a->part[p].rank - 1; i >= 0; i--) {
                int64_t place = a->layout == ESPL_OUT_IN ? j * a->part[p].rank + i : i * a->part[p].width + j;
                sum += (naive_real)v->slot[OP_IN0][t * a->n_in + at + i] * v->slot[OP_PARAM0][weight + place];
            }
            out[0][t * a->n_out + a->part[p].column + j] += (double)(sum * a->part[p].scale);
        }
        at += a->part[p].rank;
        weight += a->part[p].rank * a->part[p].width;
    }
}

static inline void naive_weight_norm(const op_values *v, double *const out[3]) {
    const espl_attrs *a = &v->attrs;
    int64_t down = 0, up = 0, at = 0;
    for (int p = 0; p < a->n_parts; p++) {
        const espl_lora_part *part = &a->part[p];
        for (int64_t j = 0; j < part->width; j++) {
            naive_real squares = 0;
            for (int64_t k = a->n_in - 1; k >= 0; k--) {
                int64_t column = part->column + j;
                naive_real update = 0;
                for (int64_t r = 0; r < part->rank; r++)
                    update += (naive_real)v->slot[OP_PARAM2][up + j * part->rank + r] * v->slot[OP_PARAM1][down + r * a->n_in + k];
                update = update * part->scale + v->slot[OP_PARAM0][a->layout == ESPL_OUT_IN ? column * a->n_in + k : k * a->n_out + column];
                squares += update * update;
            }
            out[0][at + j] = (double)sqrtl(squares);
        }
        down += part->rank * a->n_in;
        up += part->rank * part->width;
        at += part->width;
    }
}

static inline void naive_magnitude(const op_values *v, double *const out[3]) {
    const espl_attrs *a = &v->attrs;
    for (int64_t e = 0; e < v->batch.n * a->n_out; e++)
        out[0][e] = v->slot[OP_IN0][e];
    for (int64_t p = 0, at = 0; p < a->n_parts; at += a->part[p++].width)
        for (int64_t e = 0; e < v->batch.n * a->part[p].width; e++) {
            int64_t j = e % a->part[p].width, to = e / a->part[p].width * a->n_out + a->part[p].column + j;
            out[0][to] = (double)((naive_real)out[0][to] * v->slot[OP_PARAM0][at + j] / v->slot[OP_IN1][at + j]);
        }
    for (int64_t e = 0; e < v->batch.n * a->n_out && v->slot[OP_PARAM1]; e++)
        out[0][e] += v->slot[OP_PARAM1][e % a->n_out];
}

static inline void naive_rope(const op_values *v, double *const out[3]) {
    memcpy(out[0], v->slot[OP_IN0], (size_t)(v->batch.n * v->attrs.n_out) * sizeof(double));
    naive_rotate(v, out[0]);
}

static inline void naive_prefix(const op_values *v, double *const out[3]) {
    const espl_attrs *a = &v->attrs;
    memcpy(out[0], v->slot[OP_IN0], (size_t)(v->batch.n * a->n_out) * sizeof(double));
    for (int32_t s = 0; s < v->batch.n_segments; s++)
        for (int64_t p = 0; p < a->prompt && v->batch.segments[s] + p < v->batch.segments[s + 1]; p++)
            memcpy(out[0] + (v->batch.segments[s] + p + 1) * a->n_out - a->part[0].width,
                   v->slot[OP_PARAM0] + p * a->n_in + a->part[0].column, (size_t)a->part[0].width * sizeof(double));
}

typedef void naive_forward(const op_values *v, double *const out[3]);

static naive_forward *const op_naive[ESPL_N_OPS] = {
    [ESPL_OP_EMBED] = naive_embed,
    [ESPL_OP_RESNORM] = naive_resnorm,
    [ESPL_OP_LINEAR] = naive_linear,
    [ESPL_OP_QKV] = naive_qkv,
    [ESPL_OP_ATTENTION] = naive_attention,
    [ESPL_OP_CROSS_ATTENTION] = naive_cross_attention,
    [ESPL_OP_ACT] = naive_act,
    [ESPL_OP_MLP] = naive_mlp,
    [ESPL_OP_GLU] = naive_glu,
    [ESPL_OP_LINEAR_XENT] = naive_linear_xent,
    [ESPL_OP_POOL] = naive_pool,
    [ESPL_OP_LORA] = naive_lora,
    [ESPL_OP_WEIGHT_NORM] = naive_weight_norm,
    [ESPL_OP_MAGNITUDE] = naive_magnitude,
    [ESPL_OP_ROPE] = naive_rope,
    [ESPL_OP_PREFIX] = naive_prefix,
};

#endif
