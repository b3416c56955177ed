#include "src/model/model.h"

#include <math.h>

static const double TWO_PI = 6.283185307179586;

/* llama3 scaling (Llama 3.1 report; transformers' _compute_llama3_parameters): long waves are slowed by `factor`, short ones kept,
 * those between blended by where they lie between the two cut-offs. */
static double llama3_frequency(const espl_rope *rope, double frequency) {
    double wavelength = TWO_PI / frequency, original = (double)rope->original_positions;
    if (wavelength < original / rope->high_freq_factor)
        return frequency;
    if (wavelength > original / rope->low_freq_factor)
        return frequency / rope->factor;
    double smooth = (original / wavelength - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return (1.0 - smooth) * frequency / rope->factor + smooth * frequency;
}

/* Dynamic NTK scaling: theta grows with the length that will be run, once that exceeds the original positions. */
static double theta_for(const espl_dims *dims, int64_t positions) {
    const espl_rope *rope = &dims->rope;
    double original = (double)rope->original_positions, length = (double)positions, d = dims->head_dim;
    if (rope->kind != ESPL_ROPE_DYNAMIC || length <= original)
        return rope->theta;
    return rope->theta * pow(rope->factor * length / original - (rope->factor - 1.0), d / (d - 2.0));
}

void espl_rope_fill(const espl_dims *dims, int64_t positions, float *table) {
    int half = dims->head_dim / 2;
    double theta = theta_for(dims, positions);
    for (int i = 0; i < half; i++) {
        double frequency = pow(theta, -2.0 * i / dims->head_dim);
        if (dims->rope.kind == ESPL_ROPE_LINEAR)
            frequency /= dims->rope.factor;
        else if (dims->rope.kind == ESPL_ROPE_LLAMA3)
            frequency = llama3_frequency(&dims->rope, frequency);
        float f = (float)frequency; /* the reference keeps frequencies in float */
        for (int64_t p = 0; p < positions; p++) {
            float angle = (float)p * f;
            table[p * dims->head_dim + i] = (float)cos((double)angle);
            table[p * dims->head_dim + half + i] = (float)sin((double)angle);
        }
    }
}
