// test: libs=train ranks=1 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/config/config.h"
#include "tests/unit/tiny_models.h"

#include <math.h>

static const char *const folders[] = {"tiny-gpt2", "tiny-llama-gqa", "tiny-llama3-rope-bf16", "tiny-gpt2-realvocab-fp16"};
enum { N_FOLDERS = sizeof folders / sizeof folders[0] };

static double gradient_norm(const tiny *t, const espl_param *p) {
    double sum = 0.0;
    int64_t start = espl_model_bucket_start(t->model, p->bucket, 1) + p->offset;
    for (int64_t i = start; i < start + p->numel; i++)
        sum += pow(tiny_at(t->gradients, t->tape.kernels->stat, i), 2);
    return sqrt(sum);
}

static void check_relative(double found, double expected, double bound, const char *what) {
    if (!(fabs(found - expected) <= bound * fabs(expected)))
        fail_msg("%s: %.9g, expected %.9g (relative %.2g, bound %.2g)", what, found, expected, fabs(found / expected - 1.0), bound);
}

/* Loss and the norm of every gradient against transformers (fp32, eager attention). */
static void check_against_golden(const char *folder, const espl_kernels *kernels, double bound) {
    tiny t;
    if (tiny_open(folder, kernels, ESPL_RECOMPUTE_NONE, &t) != ESPL_OK)
        fail_msg("%s", espl_status_message());
    assert_int_equal(espl_tape_run(&t.tape, &t.batch, true, NULL), ESPL_OK);
    check_relative(tiny_loss(&t), json_number_value(json_object_get(t.golden, "loss")), bound, folder);
    for (int i = 0; i < t.model->n_params; i++) {
        const json_t *expected = json_object_get(json_object_get(t.golden, "grad_l2"), t.model->params[i].name);
        assert_non_null(expected);
        check_relative(gradient_norm(&t, &t.model->params[i]), json_number_value(expected), bound, t.model->params[i].name);
    }
    assert_int_equal(json_object_size(json_object_get(t.golden, "grad_l2")), t.model->n_params);
    tiny_close(&t);
}

static void equals_transformers(void **state) {
    (void)state;
    for (int i = 0; i < N_FOLDERS; i++) {
        const char *folder = tiny_folder(folders[i]);
        if (folder == NULL) {
            print_message("SKIP: shared data with %s are not there (ESPL_SHARED_DATA)\n", folders[i]);
            skip();
        }
        check_against_golden(folder, espl_kernels_ref(ESPL_F64), 2e-6); /* the golden itself is fp32 */
        check_against_golden(folder, espl_kernels_ref(ESPL_F32), 1e-5);
        check_against_golden(folder, espl_kernels_cpu(ESPL_F32), 1e-5);
    }
}

/* What is computed again is the same bits as what was kept. */
static void recompute_changes_nothing(void **state) {
    (void)state;
    const char *folder = tiny_folder("tiny-llama-gqa");
    if (folder == NULL) {
        print_message("SKIP: shared data are not there (ESPL_SHARED_DATA)\n");
        skip();
    }
    tiny none, other;
    assert_int_equal(tiny_open(folder, espl_kernels_cpu(ESPL_F32), ESPL_RECOMPUTE_NONE, &none), ESPL_OK);
    assert_int_equal(espl_tape_run(&none.tape, &none.batch, true, NULL), ESPL_OK);
    size_t bytes = (size_t)espl_model_flat_size(none.model, 1) * sizeof(float), act = none.tape.act_bytes;
    for (int recompute = ESPL_RECOMPUTE_SELECTIVE; recompute <= ESPL_RECOMPUTE_FULL; recompute++) {
        assert_int_equal(tiny_open(folder, espl_kernels_cpu(ESPL_F32), recompute, &other), ESPL_OK);
        assert_int_equal(espl_tape_run(&other.tape, &other.batch, true, NULL), ESPL_OK);
        assert_memory_equal(none.gradients, other.gradients, bytes);
        assert_true(other.tape.act_bytes < act);
        tiny_close(&other);
    }
    tiny_close(&none);
}

/* Running twice without `fresh` doubles every gradient. */
static void gradients_accumulate(void **state) {
    (void)state;
    const char *folder = tiny_folder("tiny-gpt2");
    if (folder == NULL) {
        print_message("SKIP: shared data are not there (ESPL_SHARED_DATA)\n");
        skip();
    }
    tiny t;
    assert_int_equal(tiny_open(folder, espl_kernels_ref(ESPL_F64), ESPL_RECOMPUTE_SELECTIVE, &t), ESPL_OK);
    assert_int_equal(espl_tape_run(&t.tape, &t.batch, true, NULL), ESPL_OK);
    size_t n = (size_t)espl_model_flat_size(t.model, 1);
    double *once = espl_malloc(n * sizeof *once);
    memcpy(once, t.gradients, n * sizeof *once);
    assert_int_equal(espl_tape_run(&t.tape, &t.batch, false, NULL), ESPL_OK);
    for (size_t i = 0; i < n; i++)
        assert_true(fabs(((double *)t.gradients)[i] - 2.0 * once[i]) <= 1e-12 * (1.0 + fabs(once[i])));
    free(once);
    tiny_close(&t);
}

/* No two buffers that are alive together share a byte. */
static void lives_do_not_meet(void **state) {
    (void)state;
    const char *folder = tiny_folder("tiny-gpt2");
    if (folder == NULL) {
        print_message("SKIP: shared data are not there (ESPL_SHARED_DATA)\n");
        skip();
    }
    for (int recompute = ESPL_RECOMPUTE_NONE; recompute <= ESPL_RECOMPUTE_FULL; recompute++) {
        tiny t;
        assert_int_equal(tiny_open(folder, espl_kernels_cpu(ESPL_F32), recompute, &t), ESPL_OK);
        for (int a = 0; a < t.tape.n_lives; a++)
            for (int b = 0; b < a; b++) {
                const espl_life *x = &t.tape.lives[a], *y = &t.tape.lives[b];
                bool together = x->first <= y->last && y->first <= x->last;
                bool meet = x->offset < y->offset + y->bytes && y->offset < x->offset + x->bytes;
                assert_false(together && meet);
            }
        tiny_close(&t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_transformers),
        cmocka_unit_test(recompute_changes_nothing),
        cmocka_unit_test(gradients_accumulate),
        cmocka_unit_test(lives_do_not_meet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
