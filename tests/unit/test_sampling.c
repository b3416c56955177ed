// test: libs=eval,config,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/eval/sampling.h"
#include "tests/unit/goldens.h"
#include "tests/unit/toy_model.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 };

typedef struct sample_case {
    espl_sampling how;
    int32_t ids[MOST], eos[MOST];
    espl_context context;
    float logits[MOST], expected[MOST];
    uint64_t scratch[2 * MOST];
} sample_case;

static double number(json_t *row, const char *key, double absent) {
    json_t *value = json_object_get(row, key);
    return value != NULL ? json_number_value(value) : absent;
}

static int read_ids(json_t *list, int32_t *to) {
    size_t i;
    json_t *value;
    json_array_foreach(list, i, value) to[i] = (int32_t)json_integer_value(value);
    return (int)json_array_size(list);
}

static void load_case(json_t *row, int64_t vocab, sample_case *c) {
    c->context =
        (espl_context){.ids = c->ids, .n = read_ids(json_object_get(row, "ids"), c->ids), .n_new = (int64_t)number(row, "n_new", 0)};
    c->how = (espl_sampling){.repetition_penalty = number(row, "repetition_penalty", 1),
                             .no_repeat_ngram = (int64_t)number(row, "no_repeat_ngram", 0),
                             .min_new_tokens = (int64_t)number(row, "min_new_tokens", 0),
                             .temperature = number(row, "temperature", 1),
                             .top_k = (int64_t)number(row, "top_k", 0),
                             .top_p = number(row, "top_p", 1),
                             .min_tokens_to_keep = (int64_t)number(row, "keep", 1),
                             .eos = c->eos,
                             .n_eos = read_ids(json_object_get(row, "eos"), c->eos)};
    toy_logits(c->ids, c->context.n, c->logits, vocab, (uint32_t)number(row, "grid", 0));
    for (int64_t v = 0; v < vocab; v++) {
        json_t *value = json_array_get(json_object_get(row, "logits"), (size_t)v);
        c->expected[v] = json_is_null(value) ? -INFINITY : (float)json_number_value(value);
    }
}

/* Every logit has the same bits as after the processors of transformers. */
static void logits_equal_the_goldens(void **state) {
    int64_t vocab = (int64_t)number(*state, "vocab", 0);
    json_t *rows = json_object_get(*state, "cases"), *row;
    size_t i;
    sample_case c;
    assert_true(json_array_size(rows) >= 100 && espl_sampling_scratch(vocab) <= sizeof c.scratch);
    json_array_foreach(rows, i, row) {
        load_case(row, vocab, &c);
        espl_sampling_penalise(&c.how, c.context, c.logits, vocab, c.scratch);
        espl_sampling_warp(&c.how, c.logits, vocab, c.scratch);
        for (int64_t v = 0; v < vocab; v++)
            if (c.logits[v] != c.expected[v])
                fail_msg("case %zu, token %lld: %.9g, expected %.9g", i, (long long)v, (double)c.logits[v], (double)c.expected[v]);
    }
}

/* Negative control: without its settings no case that has some passes. */
static void goldens_tell_settings_apart(void **state) {
    int64_t vocab = (int64_t)number(*state, "vocab", 0);
    json_t *rows = json_object_get(*state, "cases"), *row;
    size_t i, changed = 0;
    sample_case c;
    json_array_foreach(rows, i, row) {
        load_case(row, vocab, &c);
        changed += memcmp(c.logits, c.expected, (size_t)vocab * sizeof(float)) != 0;
    }
    assert_in_range(changed, json_array_size(rows) * 4 / 5, json_array_size(rows) - 1);
}

/* A large vocabulary with ties and infinities against a plain sort. */
static int by_logit(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void top_k_threshold_is_the_kth_largest(void **state) {
    (void)state;
    enum { V = 50000, K = 300 };
    float *logits = malloc(V * sizeof *logits), *sorted = malloc(V * sizeof *sorted), *out = malloc(V * sizeof *out);
    void *scratch = malloc(espl_sampling_scratch(V));
    toy_logits((int32_t[]){11, 12}, 2, logits, V, 100);
    for (int v = 0; v < V; v += 97)
        logits[v] = v % 2 == 0 ? -0.0f : -INFINITY;
    memcpy(sorted, logits, V * sizeof *logits);
    memcpy(out, logits, V * sizeof *logits);
    qsort(sorted, V, sizeof *sorted, by_logit);
    espl_sampling how = {.temperature = 1, .top_k = K, .top_p = 1, .min_tokens_to_keep = 1};
    espl_sampling_warp(&how, out, V, scratch);
    for (int v = 0; v < V; v++)
        assert_true(out[v] == (logits[v] >= sorted[V - K] ? logits[v] : -INFINITY));
    free(logits);
    free(sorted);
    free(out);
    free(scratch);
}

/* Drawn frequencies against the softmax: chi-squared over V - 1 degrees of freedom below its 1 - 1e-6 quantile (Wilson-Hilferty). */
static double chi_squared(const float *logits, int64_t vocab, const double *p, int draws) {
    double counts[MOST] = {0}, sum = 0;
    for (int i = 0; i < draws; i++)
        counts[espl_sampling_draw(logits, vocab, 7, (uint32_t)(i % 100), (uint32_t)(i / 100))]++;
    for (int64_t v = 0; v < vocab; v++)
        sum += p[v] > 0 ? pow(counts[v] - draws * p[v], 2) / (draws * p[v]) : counts[v] * 1e9;
    return sum;
}

static void draws_follow_the_softmax(void **state) {
    (void)state;
    enum { V = 12, DRAWS = 200000 };
    float logits[V];
    double p[V], total = 0, k = V - 2; /* one token is removed */
    for (int v = 0; v < V; v++)
        logits[v] = v == 4 ? -INFINITY : 0.3f * (float)v;
    for (int v = 0; v < V; v++)
        total += p[v] = exp(logits[v]);
    for (int v = 0; v < V; v++)
        p[v] /= total;
    double quantile = k * pow(1 - 2 / (9 * k) + 4.7534 * sqrt(2 / (9 * k)), 3);
    assert_true(chi_squared(logits, V, p, DRAWS) < quantile);
    p[0] *= 1.2; /* negative control: the smallest share a fifth too large is seen */
    p[V - 1] -= p[0] / 6;
    assert_true(chi_squared(logits, V, p, DRAWS) > quantile);
}

static void draws_are_functions_of_their_key(void **state) {
    (void)state;
    float logits[MOST];
    toy_logits((int32_t[]){1}, 1, logits, MOST, 64);
    int same = 0;
    for (uint32_t position = 0; position < 200; position++) {
        int32_t a = espl_sampling_draw(logits, MOST, 42, 3, position);
        assert_int_equal(a, espl_sampling_draw(logits, MOST, 42, 3, position));
        same += a == espl_sampling_draw(logits, MOST, 43, 3, position);
        same += a == espl_sampling_draw(logits, MOST, 42, 4, position);
    }
    assert_true(same < 200);
}

static void greedy_takes_the_first_largest(void **state) {
    (void)state;
    float logits[] = {1, 5, -2, 5, 4};
    uint64_t scratch[10];
    espl_sampling how = {.repetition_penalty = 1, .top_p = 1, .min_tokens_to_keep = 1};
    espl_context context = {.ids = (int32_t[]){1}, .n = 1};
    assert_int_equal(espl_sampling_next(&how, context, logits, 5, 1, 0, scratch), 1);
    how.no_repeat_ngram = 1;
    assert_int_equal(espl_sampling_next(&how, context, logits, 5, 1, 0, scratch), 3);
}

static void log_softmax_is_normalised(void **state) {
    (void)state;
    float logits[MOST];
    double total = 0;
    toy_logits((int32_t[]){1}, 1, logits, MOST, 64);
    float difference = logits[5] - logits[9];
    espl_sampling_log_softmax(logits, MOST);
    for (int v = 0; v < MOST; v++)
        total += exp(logits[v]);
    assert_true(fabs(total - 1) < 1e-6);
    assert_true(fabsf(logits[5] - logits[9] - difference) < 2e-6f);
}

static int load(void **state) { return load_goldens(state, ESPL_SOURCE_DIR "/tests/goldens/sampling.json"); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_equal_the_goldens),           cmocka_unit_test(goldens_tell_settings_apart),
        cmocka_unit_test(top_k_threshold_is_the_kth_largest), cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(draws_are_functions_of_their_key),   cmocka_unit_test(greedy_takes_the_first_largest),
        cmocka_unit_test(log_softmax_is_normalised),
    };
    return cmocka_run_group_tests(tests, load, free_goldens);
}
