// test: libs=train ranks=1 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/tiny_models.h"

#include <math.h>

/* Opens it with these rates. */
static espl_status open_rates(const char *name, double decay, const char *const *rates, int64_t n, espl_model **model) {
    const espl_model_options options = {.layer_decay = decay, .rates = (char *const *)(uintptr_t)rates, .n_rates = n};
    return espl_model_make(tiny_folder(name), &options, model);
}

/* Places below the head. */
static int places(const espl_model *m, const espl_param *p) {
    int layers = (int)m->dims.layers, all = layers + (int)m->dims.source_layers;
    switch (p->section) {
    case ESPL_SECTION_HEAD: return 0;
    case ESPL_SECTION_LAYER: return layers - p->layer;
    case ESPL_SECTION_SOURCE_LAYER: return all - p->layer;
    case ESPL_SECTION_SOURCE_HEAD: return layers + 1;
    default: return all + 1;
    }
}

static void rates_fall_from_the_head(void **state) {
    (void)state;
    for (int i = 0; i < N_TINY; i++) {
        espl_model *m;
        double low, high;
        assert_int_equal(open_rates(tiny_names[i], 0.5, NULL, 0, &m), ESPL_OK);
        for (int p = 0; p < m->n_params; p++)
            assert_true(m->params[p].rate == pow(0.5, places(m, &m->params[p])));
        espl_model_rate_span(m, &low, &high);
        assert_true(low == pow(0.5, (double)(m->dims.layers + m->dims.source_layers + 1)) && high >= low && high <= 1.0);
        espl_model_free(&m);
    }
}

static void later_rates_win(void **state) {
    (void)state;
    static const char *const rates[] = {"*=3", "layers.1=0.25", "*.h.1.ln_1.*=7"};
    espl_model *m;
    assert_int_equal(open_rates("tiny-gpt2", 0.5, rates, 3, &m), ESPL_OK);
    for (int p = 0; p < m->n_params; p++) {
        bool norm = strstr(m->params[p].name, "h.1.ln_1.") != NULL;
        assert_true(m->params[p].rate == (norm ? 7.0 : m->params[p].layer == 1 ? 0.25 : 3.0));
    }
    espl_model_free(&m);
}

static void wrong_rates_are_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {"head",        "=1",           "layers.0=",   "layers.0=1x",
                                        "layers.0=-1", "layers.0=nan", "layers.77=1", "nothing.*=1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        espl_model *m;
        assert_int_equal(open_rates("tiny-gpt2", 0, &wrong[i], 1, &m), ESPL_ERR_USAGE);
        assert_non_null(strstr(espl_status_message(), "optim.rates"));
        espl_model_free(&m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_fall_from_the_head),
        cmocka_unit_test(later_rates_win),
        cmocka_unit_test(wrong_rates_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
