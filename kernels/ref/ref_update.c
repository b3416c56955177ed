#include "kernels/dynamic_map.h"
#include "kernels/ref/ref.h"

/* Formulas in rules.h; in float in both variants, as the state of the optimizer is. Each takes w of element i and returns the new one. */
typedef float element_fn(const espl_rule_step *step, const espl_rule_range *r, float w, int64_t i);

static float adamw_element(const espl_rule_step *step, const espl_rule_range *r, float w, int64_t i) {
    float b1 = (float)step->beta1, b2 = (float)step->beta2, a1 = (float)(1 - step->beta1), a2 = (float)(1 - step->beta2);
    float *m = step->state[0], *v = step->state[1], g = step->grad[i] * step->grad_scale;
    m[i] = b1 * m[i] + a1 * g;
    v[i] = b2 * v[i] + a2 * g * g;
    return w - r->lr * ((m[i] / r->c1) / (sqrtf(v[i] / r->c2) + step->eps) + r->decay * w);
}

static float lion_element(const espl_rule_step *step, const espl_rule_range *r, float w, int64_t i) {
    float b1 = (float)step->beta1, b2 = (float)step->beta2, a1 = (float)(1 - step->beta1), a2 = (float)(1 - step->beta2);
    float *m = step->state[0], g = step->grad[i] * step->grad_scale, ahead = b1 * m[i] + a1 * g;
    m[i] = b2 * m[i] + a2 * g;
    return w - r->lr * ((float)((ahead > 0) - (ahead < 0)) + r->decay * w);
}

static float sgd_element(const espl_rule_step *step, const espl_rule_range *r, float w, int64_t i) {
    float *m = step->state[0], g = step->grad[i] * step->grad_scale + r->decay * w;
    m[i] = step->momentum * m[i] + g;
    return w - r->lr * (step->nesterov ? g + step->momentum * m[i] : m[i]);
}

static void update(const espl_rule_step *step, element_fn *element) {
    real *weight = step->weight;
    for (const espl_rule_range *r = step->ranges; r < step->ranges + step->n_ranges; r++)
        for (int64_t i = r->begin; i < r->end; i++) {
            float w = element(step, r, step->master ? step->master[i] : (float)weight[i], i);
            weight[i] = (real)w;
            if (step->master)
                step->master[i] = w;
        }
}

void REF(adamw)(const espl_rule_step *step) { update(step, adamw_element); }
void REF(lion)(const espl_rule_step *step) { update(step, lion_element); }
void REF(sgd)(const espl_rule_step *step) { update(step, sgd_element); }

static void widen(const float *map, const uint8_t *code, float scale, float *x) {
    for (int i = 0; i < ESPL_STATE_BLOCK; i++)
        x[i] = map[code[i]] * scale;
}

static float narrow(const float *map, const float *x, uint8_t *code) {
    float scale = 0;
    for (int i = 0; i < ESPL_STATE_BLOCK; i++)
        scale = fmaxf(scale, fabsf(x[i]));
    for (int i = 0; i < ESPL_STATE_BLOCK; i++)
        code[i] = (uint8_t)espl_map_nearest(map, scale > 0 ? x[i] / scale : 0);
    return scale;
}

/* What of the range lies in the block, counted from there; whether that is anything. */
static bool clip(const espl_rule_range *range, int64_t block, espl_rule_range *part) {
    int64_t begin = range->begin - block, end = range->end - block;
    *part = *range;
    part->begin = begin > 0 ? begin : 0;
    part->end = end < ESPL_STATE_BLOCK ? end : ESPL_STATE_BLOCK;
    return part->begin < part->end;
}

static void clear(float *m, float *v, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++)
        m[i] = v[i] = 0;
}

static void adamw8bit_block(const espl_rule_step *step, const float *with_sign, const float *without, int64_t at) {
    float m[ESPL_STATE_BLOCK], v[ESPL_STATE_BLOCK];
    float *m_scale = (float *)step->state[2] + at / ESPL_STATE_BLOCK, *v_scale = (float *)step->state[3] + at / ESPL_STATE_BLOCK;
    uint8_t *m_code = (uint8_t *)step->state[0] + at, *v_code = (uint8_t *)step->state[1] + at;
    espl_rule_range part;
    espl_rule_step block = *step;
    int64_t done = 0;
    block.weight = (real *)step->weight + at;
    block.master = step->master ? step->master + at : NULL;
    block.grad = step->grad + at;
    block.state[0] = m;
    block.state[1] = v;
    block.ranges = &part;
    block.n_ranges = 1;
    widen(with_sign, m_code, *m_scale, m);
    widen(without, v_code, *v_scale, v);
    for (int r = 0; r < step->n_ranges; r++)
        if (clip(&step->ranges[r], at, &part)) {
            update(&block, adamw_element);
            clear(m, v, done, part.begin);
            done = part.end;
        }
    if (done > 0) {
        clear(m, v, done, ESPL_STATE_BLOCK);
        *m_scale = narrow(with_sign, m, m_code);
        *v_scale = narrow(without, v, v_code);
    }
}

void REF(adamw8bit)(const espl_rule_step *step) {
    float with_sign[ESPL_MAP_SIZE], without[ESPL_MAP_SIZE];
    int64_t end = step->n_ranges > 0 ? step->ranges[step->n_ranges - 1].end : 0;
    espl_map_fill(with_sign, true);
    espl_map_fill(without, false);
    for (int64_t at = 0; at < end; at += ESPL_STATE_BLOCK)
        adamw8bit_block(step, with_sign, without, at);
}

void REF(sum_squares)(const float *x, int64_t n, espl_exact *sum) {
    for (int64_t start = 0; start < n; start += 256) {
        int64_t end = start + 256 < n ? start + 256 : n;
        double lane[8] = {0};
        for (int64_t i = start; i < end; i++)
            lane[(i - start) % 8] += (double)x[i] * x[i];
        double block = ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
        if (isfinite(block))
            espl_exact_add(sum, block);
        for (int64_t i = start; i < end && !isfinite(block); i++)
            espl_exact_add(sum, (double)x[i] * x[i]);
    }
}

void REF(sum)(const float *x, int64_t n, espl_exact *sum) {
    for (int64_t i = 0; i < n; i++)
        espl_exact_add(sum, x[i]);
}

void REF(add)(float *to, const float *from, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

void REF(round_parts)(const espl_rank_parts *to, const float *from, int64_t from_stride) {
    for (int r = 0; r < to->size; r++)
        for (int64_t i = 0; i < to->n && r != to->rank; i++)
            to->data[r * to->stride + i] = espl_bf16_from_float(from[r * from_stride + i]);
}

void REF(add_parts)(float *own, const espl_rank_parts *from) {
    for (int64_t i = 0; i < from->n; i++) {
        float sum = 0;
        for (int r = 0; r < from->size; r++) {
            float part = r == from->rank ? own[i] : espl_bf16_to_float(from->data[r * from->stride + i]);
            sum = r == 0 ? part : sum + part;
        }
        own[i] = sum;
    }
}
