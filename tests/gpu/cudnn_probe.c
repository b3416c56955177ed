/* Makes cuDNN's plans of attention for a GPU that is described, without one: tests/gpu/test_cudnn_plans.py.
 *
 *   cudnn_probe DEVICE.json ROWS SEGMENTS LONGEST HEADS KV_HEADS HEAD_DIM CAUSAL
 *
 * Prints one JSON object a pass: the engine and the bytes of work, or why there is no plan. */
#include "kernels/cuda/cudnn_plans.h"
#include "kernels/cuda_cudnn_work.h"

#include <stdio.h>
#include <stdlib.h>

static const char *text_of(const char *path) {
    static char text[1 << 16];
    FILE *file = fopen(path, "r");
    if (file == NULL || fread(text, 1, sizeof text - 1, file) == 0) {
        fprintf(stderr, "cudnn_probe: %s cannot be read\n", path);
        exit(2);
    }
    fclose(file);
    return text;
}

static void probe(const espl__cudnn_shape *shape, const char *device, bool backward) {
    char why[512] = "";
    espl__cudnn_plan plan;
    espl_attrs attrs = {.heads = shape->heads, .kv_heads = shape->kv_heads, .head_dim = shape->head_dim, .causal = shape->causal};
    bool made = espl__cudnn_make_plan(shape, backward, device, &plan, why, sizeof why);
    printf("{\"pass\": \"%s\", \"made\": %s, \"engine\": %lld, \"work_bytes\": %lld, \"planned_bytes\": %zu, \"why\": \"%s\"}\n",
           backward ? "backward" : "forward", made ? "true" : "false", (long long)plan.engine, (long long)plan.work_bytes,
           espl__cudnn_work(&attrs, ESPL_BF16, shape->rows, backward), made ? "" : why);
    espl__cudnn_free_plan(&plan);
}

int main(int argc, char **argv) {
    if (argc != 9) {
        fprintf(stderr, "cudnn_probe DEVICE.json ROWS SEGMENTS LONGEST HEADS KV_HEADS HEAD_DIM CAUSAL\n");
        return 2;
    }
    espl__cudnn_shape shape = {.rows = atoll(argv[2]),
                               .segments = atoll(argv[3]),
                               .longest = atoll(argv[4]),
                               .heads = atoi(argv[5]),
                               .kv_heads = atoi(argv[6]),
                               .head_dim = atoi(argv[7]),
                               .causal = atoi(argv[8])};
    printf("{\"version\": %zu}\n", espl__cudnn_version());
    if (espl__cudnn_version() == 0)
        return 1;
    const char *device = text_of(argv[1]);
    probe(&shape, device, false);
    probe(&shape, device, true);
    return 0;
}
