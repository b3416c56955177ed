/* rule_probe RULE INPUT.safetensors OUTPUT.safetensors KEY=NUMBER...: update steps by one rule of kernels/rules.def on the CPU, for
 * scripts.
 *
 * INPUT holds weight (float [n]) and gradients (float [steps * n]); n is a multiple of 256. OUTPUT gets weight and, under its name, every
 * state after the last step. Keys: lr, beta1, beta2, eps, decay, momentum, nesterov; lr2 and decay2 are those of the second half. */
#include "io/safetensors/safetensors.h"
#include "kernels/kernels.h"
#include "src/core/buffer.h"
#include "src/core/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LR, BETA1, BETA2, EPS, DECAY, MOMENTUM, NESTEROV, LR2, DECAY2, N_KEYS };
static const char *const keys[N_KEYS] = {"lr", "beta1", "beta2", "eps", "decay", "momentum", "nesterov", "lr2", "decay2"};

static espl_status read_keys(int argc, char **argv, double value[N_KEYS]) {
    for (int i = 0; i < argc; i++) {
        size_t length = strcspn(argv[i], "=");
        int k = 0;
        while (k < N_KEYS && (strlen(keys[k]) != length || strncmp(keys[k], argv[i], length) != 0))
            k++;
        if (k == N_KEYS || argv[i][length] != '=')
            ESPL_FAIL(ESPL_ERR_USAGE, "%s: KEY=NUMBER with a key of this probe is expected", argv[i]);
        value[k] = strtod(argv[i] + length + 1, NULL);
    }
    return ESPL_OK;
}

static void run_steps(espl_rule rule, const double value[N_KEYS], float *weight, void *const *states, const float *gradients, int64_t n,
                      int64_t steps) {
    espl_rule_range halves[] = {{.begin = 0, .end = n / 2, .lr = (float)value[LR], .decay = (float)value[DECAY]},
                                {.begin = n / 2, .end = n, .lr = (float)value[LR2], .decay = (float)value[DECAY2]}};
    espl_rule_step step = {.weight = weight,
                           .ranges = halves,
                           .n_ranges = 2,
                           .beta1 = value[BETA1],
                           .beta2 = value[BETA2],
                           .grad_scale = 1,
                           .eps = (float)value[EPS],
                           .momentum = (float)value[MOMENTUM],
                           .nesterov = value[NESTEROV] != 0};
    memcpy(step.state, states, sizeof step.state);
    for (int64_t t = 1; t <= steps; t++) {
        step.grad = gradients + (t - 1) * n;
        for (int i = 0; i < 2; i++) {
            halves[i].c1 = (float)(1 - pow(value[BETA1], (double)t));
            halves[i].c2 = (float)(1 - pow(value[BETA2], (double)t));
        }
        espl_kernels_cpu(ESPL_F32)->update[rule](&step);
    }
}

static espl_status write_all(const char *path, espl_rule rule, const float *weight, void *const *states, int64_t n) {
    const espl_rule_desc *desc = &espl_rules[rule];
    espl_tensor_out out[1 + ESPL_MAX_STATES] = {{.name = "weight", .dtype = ESPL_F32, .n_dims = 1, .shape = {n}, .data = weight}};
    for (int i = 0; i < desc->n_states; i++)
        out[1 + i] = (espl_tensor_out){.name = desc->states[i].name,
                                       .dtype = desc->states[i].dtype,
                                       .n_dims = 1,
                                       .shape = {n / desc->states[i].block},
                                       .data = states[i]};
    return espl_safetensors_write_file(path, out, 1 + desc->n_states);
}

static espl_status run(char **argv, const double value[N_KEYS]) {
    int rule = espl_rule_find(argv[1]);
    espl_safetensors *input = NULL;
    const espl_tensor_file *weight, *gradients;
    float *trained = NULL;
    void *states[ESPL_MAX_STATES] = {0};
    espl_status status = ESPL_OK;
    if (rule < 0 || espl_rules[rule].matrices != ESPL_MATRICES_NONE)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s: no rule of that name that works on elements", argv[1]);
    ESPL_TRY_DONE(espl_safetensors_open(argv[2], &input));
    ESPL_TRY_DONE(espl_safetensors_require(input, "weight", &weight));
    ESPL_TRY_DONE(espl_safetensors_require(input, "gradients", &gradients));
    int64_t n = weight->shape[0];
    ESPL_ASSERT(n % ESPL_STATE_BLOCK == 0 && gradients->shape[0] % n == 0, "the input has whole blocks and steps");
    trained = espl_malloc((size_t)n * sizeof *trained);
    memcpy(trained, weight->data, (size_t)n * sizeof *trained);
    for (int i = 0; i < espl_rules[rule].n_states; i++)
        states[i] = espl_calloc(1, espl_rule_state_bytes(&espl_rules[rule].states[i], n));
    float *rows = espl_malloc((size_t)gradients->shape[0] * sizeof *rows);
    memcpy(rows, gradients->data, (size_t)gradients->shape[0] * sizeof *rows);
    run_steps((espl_rule)rule, value, trained, states, rows, n, gradients->shape[0] / n);
    free(rows);
    status = write_all(argv[3], (espl_rule)rule, trained, states, n);
done:
    for (int i = 0; i < ESPL_MAX_STATES; i++)
        free(states[i]);
    free(trained);
    espl_safetensors_close(&input);
    return status;
}

int main(int argc, char **argv) {
    double value[N_KEYS] = {0};
    if (argc < 4) {
        fputs("usage: rule_probe RULE INPUT.safetensors OUTPUT.safetensors KEY=NUMBER...\n", stderr);
        return ESPL_ERR_USAGE;
    }
    espl_log_set(0, ESPL_LOG_WARN, NULL);
    espl_status status = read_keys(argc - 4, argv + 4, value);
    if (status == ESPL_OK)
        status = run(argv, value);
    if (status != ESPL_OK)
        espl_status_print_trail(stderr);
    return status;
}
