// test: libs=train,config,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/train/health/judge.h"

#include <math.h>

static void open_with(const char *watch, const char *window, espl_spikes *s) {
    espl_config config;
    char text[64];
    espl_config_make(&config);
    snprintf(text, sizeof text, "train.spike_watch=%s", watch);
    assert_int_equal(espl_config_set(&config, text), ESPL_OK);
    snprintf(text, sizeof text, "train.spike_window=%s", window);
    assert_int_equal(espl_config_set(&config, text), ESPL_OK);
    assert_int_equal(espl_config_set(&config, "train.spike_factor=4"), ESPL_OK);
    espl_spikes_open(&config, s);
    espl_config_free(&config);
}

/* Losses 1 to 8: median 4.5, distances from it 0.5, 0.5, 1.5, ... 3.5, their median 2: the limit is 4.5 + 4 * 1.4826 * 2. */
static void the_limit_is_the_formula(void **state) {
    (void)state;
    const double limit = 4.5 + 4.0 * 1.4826 * 2.0;
    espl_spikes s;
    espl_spike spike;
    open_with("loss", "8", &s);
    for (int i = 1; i <= 8; i++) {
        assert_false(espl_spikes_judge(&s, 1e9, 1e9, &spike)); /* the window is not full */
        espl_spikes_add(&s, 9 - i, 1.0);
    }
    assert_false(espl_spikes_judge(&s, limit, 1e9, &spike)); /* the norm is not watched */
    assert_true(espl_spikes_judge(&s, nextafter(limit, 100.0), 0.0, &spike));
    assert_float_equal(spike.median, 4.5, 0.0);
    assert_float_equal(spike.limit, limit, 0.0);
    espl_spikes_free(&s);
}

/* Equal values have no deviation: a hundredth of the median stands for it. Older values than the window's are forgotten. */
static void equal_values_and_old_ones(void **state) {
    (void)state;
    espl_spikes s;
    espl_spike spike;
    open_with("grad_norm", "8", &s);
    for (int i = 0; i < 8; i++)
        espl_spikes_add(&s, 0.0, 1e6);
    for (int i = 0; i < 8; i++)
        espl_spikes_add(&s, 0.0, 2.0);
    assert_false(espl_spikes_judge(&s, 1e9, 2.079, &spike));
    assert_true(espl_spikes_judge(&s, 0.0, 2.081, &spike));
    assert_string_equal(spike.what, "gradient norm");
    espl_spikes_free(&s);
}

static void either_is_both(void **state) {
    (void)state;
    espl_spikes s;
    espl_spike spike;
    open_with("either", "8", &s);
    for (int i = 0; i < 8; i++)
        espl_spikes_add(&s, 1.0, 1.0);
    assert_true(espl_spikes_judge(&s, 2.0, 1.0, &spike));
    assert_true(espl_spikes_judge(&s, 1.0, 2.0, &spike));
    assert_false(espl_spikes_judge(&s, 1.0, 1.0, &spike));
    espl_spikes_free(&s);
}

/* Through a checkpoint every judgement is the same to the bit; a smaller window takes the latest values. */
static void a_checkpoint_keeps_them(void **state) {
    (void)state;
    espl_spikes a, b, small;
    espl_spike x, y;
    open_with("loss", "16", &a);
    open_with("loss", "16", &b);
    open_with("loss", "8", &small);
    for (int i = 0; i < 21; i++)
        espl_spikes_add(&a, 1.0 / (3 + i), sqrt(i));
    a.rollbacks = 2;
    json_array_append_new(a.left_out, json_pack("{s:i}", "after", 24));
    json_t *object = espl_spikes_to_json(&a);
    char *text = json_dumps(object, 0);
    json_t *again = json_loads(text, 0, NULL);
    espl_spikes_add(&b, 7.0, 7.0); /* what was there goes */
    assert_int_equal(espl_spikes_from_json(again, "test", &b), ESPL_OK);
    assert_int_equal(espl_spikes_from_json(again, "test", &small), ESPL_OK);
    assert_int_equal(b.rollbacks, 2);
    assert_true(json_equal(a.left_out, b.left_out));
    assert_true(espl_spikes_judge(&a, 1.0, 0.0, &x) && espl_spikes_judge(&b, 1.0, 0.0, &y));
    assert_true(x.limit == y.limit && x.median == y.median);
    assert_true(espl_spikes_judge(&small, 1.0, 0.0, &y) && y.median < x.median);
    assert_int_equal(espl_spikes_from_json(NULL, "test", &b), ESPL_OK);
    assert_int_equal(b.n, 0);
    json_object_del(again, "norms");
    assert_int_equal(espl_spikes_from_json(again, "test", &b), ESPL_ERR_DATA);
    espl_status_clear();
    json_decref(object);
    json_decref(again);
    free(text);
    espl_spikes_free(&a);
    espl_spikes_free(&b);
    espl_spikes_free(&small);
}

/* Judges step `step` of a loss, so many skipped right before it. */
static espl_status judged(const espl_config *config, espl_spikes *s, int64_t step, double loss, int64_t in_row, espl_verdict *verdict) {
    const espl_vitals vitals = {.step = step, .loss = loss, .grad_norm = 1.0, .skipped_in_row = in_row};
    return espl_judge(config, &vitals, s, NULL, verdict);
}

static void set(espl_config *config, const char *text) { assert_int_equal(espl_config_set(config, text), ESPL_OK); }

/* What each train.on_spike makes of the same spike; only sound steps join the others. */
static void spikes_are_judged(void **state) {
    (void)state;
    static const struct {
        const char *how;
        bool skip;
        int64_t bad_since, joined;
        espl_status status;
    } rows[] = {{"train.on_spike=ignore", false, 0, 1, ESPL_OK},
                {"train.on_spike=warn", false, 0, 1, ESPL_OK},
                {"train.on_spike=skip", true, 0, 0, ESPL_OK},
                {"train.on_spike=rollback", false, 9, 0, ESPL_OK},
                {"train.on_spike=stop", false, 0, 0, ESPL_ERR_NUMERIC}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        espl_config config;
        espl_spikes s;
        espl_verdict v;
        espl_config_make(&config);
        set(&config, "train.spike_window=8");
        set(&config, rows[i].how);
        espl_spikes_open(&config, &s);
        for (int64_t k = 1; k <= 8; k++) {
            assert_int_equal(judged(&config, &s, k, 2.0, 0, &v), ESPL_OK);
            assert_true(!v.skip && v.bad_since == 0);
        }
        assert_int_equal(judged(&config, &s, 9, 3.0, 0, &v), rows[i].status);
        assert_int_equal(v.skip, rows[i].skip);
        assert_int_equal(v.bad_since, rows[i].bad_since);
        assert_int_equal(s.n, 8 + rows[i].joined);
        espl_status_clear();
        espl_spikes_free(&s);
        espl_config_free(&config);
    }
}

/* Two may be skipped in a row; the third ends the run, or names the step before which all was well. */
static void too_many_in_a_row(void **state) {
    (void)state;
    for (int back = 0; back < 2; back++) {
        espl_config config;
        espl_spikes s;
        espl_verdict v;
        espl_config_make(&config);
        set(&config, "train.max_nonfinite_steps=2");
        set(&config, back ? "train.on_nonfinite=rollback" : "train.on_nonfinite=stop");
        espl_spikes_open(&config, &s);
        for (int64_t k = 0; k < 2; k++) {
            assert_int_equal(judged(&config, &s, 7 + k, (double)NAN, k, &v), ESPL_OK);
            assert_true(v.skip && v.bad_since == 0);
        }
        assert_int_equal(judged(&config, &s, 9, (double)INFINITY, 2, &v), back ? ESPL_OK : ESPL_ERR_NUMERIC);
        assert_true(v.skip && (!back || v.bad_since == 7));
        assert_int_equal(s.n, 0);
        espl_status_clear();
        espl_spikes_free(&s);
        espl_config_free(&config);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_limit_is_the_formula), cmocka_unit_test(equal_values_and_old_ones), cmocka_unit_test(either_is_both),
        cmocka_unit_test(a_checkpoint_keeps_them),  cmocka_unit_test(spikes_are_judged),         cmocka_unit_test(too_many_in_a_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
