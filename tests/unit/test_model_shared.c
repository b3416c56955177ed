// test: libs=train ranks=1 tier=default timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/config/config.h"
#include "tests/unit/tiny_models.h"

/* Models with real tokenizers' vocabularies, which are too large for the tree: loss and the norm of every gradient, in fp32. */
static const char *const folders[] = {"tiny-gpt2", "tiny-llama-gqa", "tiny-llama3-rope-bf16", "tiny-gpt2-realvocab-fp16"};
enum { N_FOLDERS = sizeof folders / sizeof folders[0] };

static const char *shared_folder(const char *name) {
    static char path[4096];
    const char *shared = getenv("ESPL_SHARED_DATA");
    snprintf(path, sizeof path, "%s/models/tiny/%s", shared != NULL ? shared : ESPL_SOURCE_DIR "/../shared/data", name);
    char *config = espl_format("%s/config.json", path);
    FILE *file = fopen(config, "r");
    free(config);
    if (file == NULL)
        return NULL;
    fclose(file);
    return path;
}

static double gradient_norm(const tiny *t, const espl_param *p) {
    double sum = 0.0;
    for (int64_t i = 0; i < p->numel; i++)
        sum += pow(tiny_gradient(t, p, i), 2);
    return sqrt(sum);
}

static void check_relative(double found, double expected, double bound, const char *what) {
    if (!(fabs(found - expected) <= bound * fabs(expected)))
        fail_msg("%s: %.9g, expected %.9g (relative %.2g, bound %.2g)", what, found, expected, fabs(found / expected - 1.0), bound);
}

static void check_against_golden(const char *folder, const espl_kernels *kernels, double bound) {
    tiny t;
    if (tiny_open(folder, kernels, ESPL_USE_TRAIN, ESPL_RECOMPUTE_NONE, &t) != ESPL_OK)
        fail_msg("%s", espl_status_message());
    assert_int_equal(espl_tape_run(&t.tape, &t.batch, true, NULL), ESPL_OK);
    check_relative(tiny_loss(&t), json_number_value(json_object_get(t.golden, "loss")), bound, folder);
    for (int i = 0; i < t.model->n_params; i++) {
        const json_t *expected = json_object_get(json_object_get(t.golden, "grad_l2"), t.model->params[i].name);
        bool many = t.model->params[i].numel > 65536; /* the golden's norm is a sum in fp32: of so many squares it is off by up to 1e-4 */
        assert_non_null(expected);
        check_relative(gradient_norm(&t, &t.model->params[i]), json_number_value(expected), many ? 2e-4 : bound, t.model->params[i].name);
    }
    assert_int_equal(json_object_size(json_object_get(t.golden, "grad_l2")), t.model->n_params);
    tiny_close(&t);
}

static void equals_transformers(void **state) {
    (void)state;
    for (int i = 0; i < N_FOLDERS; i++) {
        const char *folder = shared_folder(folders[i]);
        if (folder == NULL) {
            print_message("SKIP: shared data with models/tiny/%s are not there (ESPL_SHARED_DATA)\n", folders[i]);
            skip();
        }
        check_against_golden(folder, espl_kernels_ref(ESPL_F64), 2e-6);
        check_against_golden(folder, espl_kernels_cpu(ESPL_F32), 1e-5);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
