// test: libs=kernels,config,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernels/relative_bias.h"
#include "tests/unit/goldens.h"
#include "tests/unit/op_run.h"

#include <jansson.h>

/* The reference against torch: tests/goldens/ops.json, made by tests/reference/op_golden.py. */

static int load(void **state) { return load_goldens(state, ESPL_SOURCE_DIR "/tests/goldens/ops.json"); }

static double number(json_t *row, const char *key) { return json_number_value(json_object_get(row, key)); }
static int32_t integer(json_t *row, const char *key) { return (int32_t)json_integer_value(json_object_get(row, key)); }

static espl_op op_of(const char *name) {
    int op = 0;
    while (strcmp(espl_ops[op].name, name) != 0)
        op++;
    return (espl_op)op;
}

static op_case case_of(json_t *row, json_t *segments) {
    op_case c = {.name = json_string_value(json_object_get(row, "name")), .op = op_of(json_string_value(json_object_get(row, "op")))};
    c.flags = json_object_get(json_object_get(row, "slots"), "param1") ? OP_BIAS : 0;
    c.flags |= json_object_get(row, "token_types") ? OP_TYPES : 0;
    c.flags |= json_object_get(row, "weights") ? OP_WEIGHTS : 0;
    json_t *source = json_object_get(row, "source");
    for (size_t i = 0; i < json_array_size(segments); i++)
        c.segments[i] = (int32_t)json_integer_value(json_array_get(segments, i));
    for (size_t i = 0; i < json_array_size(source); i++)
        c.segments[json_array_size(segments) + i] = (int32_t)json_integer_value(json_array_get(source, i));
    c.attrs = (espl_attrs){
        .n_in = integer(row, "n_in"),
        .n_out = integer(row, "n_out"),
        .ffn = integer(row, "ffn"),
        .layout = integer(row, "layout"),
        .vocab = integer(row, "vocab"),
        .positions = integer(row, "positions"),
        .position_offset = integer(row, "position_offset"),
        .types = integer(row, "types"),
        .heads = integer(row, "heads"),
        .kv_heads = integer(row, "kv_heads"),
        .head_dim = integer(row, "head_dim"),
        .causal = integer(row, "causal"),
        .kind = integer(row, "kind"),
        .scale = (float)number(row, "scale"),
        .eps = (float)number(row, "eps"),
        .rope_dim = integer(row, "rope_dim"),
        .rel_buckets = integer(row, "rel_buckets"),
        .rel_distance = integer(row, "rel_distance"),
    };
    return c;
}

/* Slots of the golden go into `inputs` or, if they are results, into `results`. */
static void read_slots(json_t *row, op_values *inputs, op_values *results) {
    for (int s = 0; s < OP_SLOTS; s++) {
        json_t *list = json_object_get(json_object_get(row, "slots"), op_slot_names[s]);
        assert_int_equal(json_array_size(list), inputs->size[s]);
        for (int64_t e = 0; e < inputs->size[s]; e++)
            (op_slot_is_result(s) ? results : inputs)->slot[s][e] = json_number_value(json_array_get(list, (size_t)e));
    }
    static const char *const tokens[] = {"ids", "", "targets", "token_types"}; /* as they follow each other in `tokens` */
    for (int i = 0; i < 4; i++) {
        json_t *list = json_object_get(row, tokens[i]);
        for (size_t t = 0; t < json_array_size(list); t++)
            inputs->tokens[i * inputs->batch.n + (int64_t)t] = (int32_t)json_integer_value(json_array_get(list, t));
    }
    json_t *weights = json_object_get(row, "weights");
    for (size_t t = 0; t < json_array_size(weights); t++)
        inputs->weights[t] = (float)json_number_value(json_array_get(weights, t));
}

/* Both sides round as a chain of at most four sums of K terms does. */
static void ops_equal_torch(void **state) {
    json_t *rows = json_object_get(*state, "cases"), *row;
    size_t i;
    op_backend f64 = op_backend_of(espl_kernels_ref(ESPL_F64), 1);
    assert_true(json_array_size(rows) >= 13);
    json_array_foreach(rows, i, row) {
        op_case c = case_of(row, json_object_get(*state, "segments"));
        op_values got = op_values_make(&c, ESPL_F64), want = op_values_make(&c, ESPL_F64);
        double roundings = 4 * op_longest_sum(&c) * 0x1p-53;
        read_slots(row, &got, &want);
        op_run(&f64, &c, &got);
        assert_true(op_close_to(&c, &got, &want, OP_SLOTS - 1, roundings, stderr));
        assert_true(op_planted_is_noticed(&c, &got, &want, OP_SLOTS - 1, roundings, 1e-9));
        op_values_free(&got);
        op_values_free(&want);
    }
}

/* How many offsets, from -200 on, have another bucket than transformers' T5 gives them, with `shift` added to the distances. */
static int wrong_buckets(json_t *list, int32_t shift) {
    espl_attrs attrs = {.rel_buckets = integer(list, "rel_buckets"), .rel_distance = integer(list, "rel_distance") + shift};
    espl__rel_buckets buckets = espl__rel_buckets_of(&attrs, integer(list, "causal"));
    json_t *of = json_object_get(list, "of");
    int wrong = 0;
    assert_int_equal(json_array_size(of), 401);
    for (int32_t i = 0; i < 401; i++)
        wrong += espl__rel_bucket(&buckets, i - 200) != json_integer_value(json_array_get(of, (size_t)i));
    return wrong;
}

static void buckets_equal_transformers(void **state) {
    json_t *lists = json_object_get(*state, "buckets"), *list;
    size_t i;
    assert_int_equal(json_array_size(lists), 4);
    json_array_foreach(lists, i, list) {
        assert_int_equal(wrong_buckets(list, 0), 0);
        assert_true(wrong_buckets(list, 9) > 0);
    }
}

enum { ADAM_N = 8, ADAM_STEPS = 10 };

static void read_floats(json_t *list, float *x, size_t n) {
    assert_int_equal(json_array_size(list), n);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)json_number_value(json_array_get(list, i));
}

/* Largest error of weights after all steps, in roundings of 1; `decay` to spoil. */
static double adam_error(json_t *golden, float decay, float *m, float *v) {
    float weight[ADAM_N], want[ADAM_N], grads[ADAM_STEPS * ADAM_N];
    double worst = 0;
    read_floats(json_object_get(golden, "start"), weight, ADAM_N);
    read_floats(json_object_get(golden, "weight"), want, ADAM_N);
    read_floats(json_object_get(golden, "grads"), grads, ADAM_STEPS * ADAM_N);
    for (int t = 1; t <= ADAM_STEPS; t++) {
        espl_rule_range all = {
            .begin = 0, .end = ADAM_N, .lr = 0.01f, .decay = decay, .c1 = (float)(1 - pow(0.9, t)), .c2 = (float)(1 - pow(0.999, t))};
        espl_rule_step step = {.weight = weight,
                               .state = {m, v},
                               .grad = grads + (t - 1) * ADAM_N,
                               .ranges = &all,
                               .n_ranges = 1,
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .grad_scale = 1,
                               .eps = 1e-8f};
        espl_kernels_ref(ESPL_F32)->update[ESPL_RULE_ADAMW](&step);
    }
    for (int i = 0; i < ADAM_N; i++)
        worst = fmax(worst, fabs((double)weight[i] - want[i]) / (0x1p-24 * fmax(1, fabs(want[i]))));
    return worst;
}

/* Both round each weight twice a step (decay, update) and the update, at most some lr (1 + decay), some ten times. */
static void adamw_equals_torch(void **state) {
    json_t *golden = json_object_get(*state, "adamw");
    float m[ADAM_N] = {0}, v[ADAM_N] = {0}, want_m[ADAM_N], want_v[ADAM_N];
    assert_true(adam_error(golden, 0.1f, m, v) <= 4 * ADAM_STEPS);
    read_floats(json_object_get(golden, "m"), want_m, ADAM_N);
    read_floats(json_object_get(golden, "v"), want_v, ADAM_N);
    for (int i = 0; i < ADAM_N; i++) {
        assert_true(fabsf(m[i] - want_m[i]) <= 6 * ADAM_STEPS * 0x1p-24f);
        assert_true(fabsf(v[i] - want_v[i]) <= 6 * ADAM_STEPS * 0x1p-24f * want_v[i]);
    }
    memset(m, 0, sizeof m);
    memset(v, 0, sizeof v);
    assert_true(adam_error(golden, 0.101f, m, v) > 4 * ADAM_STEPS); /* control: 1 % on the decay */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(ops_equal_torch), cmocka_unit_test(buckets_equal_transformers),
                                       cmocka_unit_test(adamw_equals_torch)};
    return cmocka_run_group_tests(tests, load, free_goldens);
}
