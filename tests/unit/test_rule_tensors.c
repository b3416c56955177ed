// test: libs=train ranks=1 tier=short timeout=60
/* Where rules of whole tensors keep their numbers: places that do not depend on ranks, pieces that make up each tensor, and which tensors
 * are matrices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/plan/rule_tensors.h"
#include "tests/unit/tiny_models.h"

static espl_model *open_tiny(const char *name) {
    const espl_model_options options = {0};
    espl_model *m;
    assert_int_equal(espl_model_make(tiny_folder(name), &options, &m), ESPL_OK);
    return m;
}

/* Every number of every tensor lies in exactly one rank's piece, behind those of the tensor before. */
static void check_pieces(const espl_model *m, espl_rule rule, const espl_rule_tensors *t, int ranks) {
    for (int k = 0; k < espl_rules[rule].n_states; k++) {
        const espl_rule_state *state = &espl_rules[rule].states[k];
        int64_t last = 0;
        assert_int_equal(t->size[k] % ((int64_t)ESPL_PIECE * ranks), 0);
        for (int p = 0; p < m->n_params; p++) {
            int64_t at = t->of[p].state[k];
            assert_true(at >= last);
            for (int r = 0; r < ranks; r++) {
                int64_t begin, end;
                espl_rule_tensors_piece(t, state, k, p, r, ranks, &begin, &end);
                assert_true(begin <= end && (begin == end || begin == at));
                at = end > begin ? end : at;
            }
            last = at;
            assert_int_equal(at - t->of[p].state[k], espl_rule_state_count(state, &t->of[p]));
        }
        assert_true(last <= t->size[k]);
    }
}

static void pieces_make_up_tensors(void **state) {
    (void)state;
    for (int i = 0; i < N_TINY; i++) {
        espl_model *m = open_tiny(tiny_names[i]);
        for (int rule = 0; rule < ESPL_N_RULES; rule++) {
            espl_rule_tensors one, four;
            espl_rule_tensors_make(m, (espl_rule)rule, true, 1, &one);
            espl_rule_tensors_make(m, (espl_rule)rule, true, 4, &four);
            assert_true((one.of == NULL) == (espl_rules[rule].matrices == ESPL_MATRICES_NONE));
            if (one.of != NULL) {
                check_pieces(m, (espl_rule)rule, &one, 1);
                check_pieces(m, (espl_rule)rule, &four, 4);
                for (int p = 0; p < m->n_params; p++)
                    assert_memory_equal(one.of[p].state, four.of[p].state, sizeof one.of[p].state);
            }
            espl_rule_tensors_free(&one);
            espl_rule_tensors_free(&four);
        }
        espl_model_free(&m);
    }
}

/* Of a rule's matrices with their scale, and the parameters that they are. */
static void check_matrices(const espl_model *m, espl_rule rule, bool layers_only) {
    espl_rule_tensors t;
    espl_rule_tensors_make(m, rule, false, 2, &t);
    for (int p = 0; p < m->n_params; p++) {
        const espl_param *param = &m->params[p];
        assert_int_equal(t.of[p].rows * t.of[p].columns, param->numel);
        assert_int_equal(t.of[p].matrix, param->n_dims == 2 && (!layers_only || espl_section_has_layers(param->section)));
        if (t.of[p].matrix)
            assert_true(t.of[p].rows == param->shape[0] && t.of[p].columns == param->shape[1]);
        double ratio = (double)t.of[p].rows / (double)t.of[p].columns;
        assert_true(fabs((double)t.of[p].scale - (t.of[p].matrix && ratio > 1 ? sqrt(ratio) : 1)) < 1e-6);
    }
    espl_rule_tensors_free(&t);
}

static void matrices_are_what_the_row_says(void **state) {
    (void)state;
    for (int i = 0; i < N_TINY; i++) {
        espl_model *m = open_tiny(tiny_names[i]);
        check_matrices(m, ESPL_RULE_ADAFACTOR, false);
        check_matrices(m, ESPL_RULE_MUON, true);
        espl_model_free(&m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(pieces_make_up_tensors), cmocka_unit_test(matrices_are_what_the_row_says)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
