// test: libs=train ranks=1 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/eval/generate.h"
#include "tests/unit/tiny_models.h"

enum { MOST_PROMPTS = 4, MOST_PROMPT = 16, PASS_TOKENS = 64 };

/* A golden's prompts and one of its cases. */
typedef struct job {
    tiny t;
    const espl_kernels *kernels;
    int n;
    int32_t ids[MOST_PROMPTS][MOST_PROMPT], eos;
    espl_prompt prompts[MOST_PROMPTS];
    espl_generate_options options;
    espl_generated found[MOST_PROMPTS];
} job;

static double number(const json_t *row, const char *key) { return json_number_value(json_object_get(row, key)); }

static void open_job_with(const char *model, const espl_kernels *kernels, const espl_model_options *options, job *j) {
    const json_t *prompts, *prompt, *id;
    size_t i, k;
    memset(j, 0, sizeof *j);
    j->kernels = kernels;
    if (tiny_open_weights(tiny_folder(model), kernels, options, &j->t) != ESPL_OK)
        fail_msg("%s", espl_status_message());
    prompts = json_object_get(j->t.golden, "prompts");
    json_array_foreach(prompts, i, prompt) {
        json_array_foreach(prompt, k, id) j->ids[i][k] = (int32_t)json_integer_value(id);
        j->prompts[i] = (espl_prompt){.ids = j->ids[i], .n = (int64_t)json_array_size(prompt)};
    }
    j->n = (int)json_array_size(prompts);
}

static void open_job(const char *model, const espl_kernels *kernels, job *j) { open_job_with(model, kernels, NULL, j); }

static void choose_case(const json_t *row, job *j) {
    const json_t *eos = json_object_get(row, "eos");
    j->eos = (int32_t)json_integer_value(json_array_get(eos, 0));
    j->options = (espl_generate_options){.sampling = {.repetition_penalty = number(row, "repetition_penalty"),
                                                      .no_repeat_ngram = (int64_t)number(row, "no_repeat_ngram"),
                                                      .min_new_tokens = (int64_t)number(row, "min_new"),
                                                      .top_p = 1.0,
                                                      .min_tokens_to_keep = 1,
                                                      .eos = &j->eos,
                                                      .n_eos = (int)json_array_size(eos)},
                                         .beams = (int)number(row, "beams"),
                                         .length_penalty = number(row, "length_penalty"),
                                         .max_new = (int64_t)number(j->t.golden, "max_new")};
}

static void free_found(job *j) {
    for (int i = 0; i < j->n; i++)
        free(j->found[i].ids);
    memset(j->found, 0, sizeof j->found);
}

static void close_job(job *j) {
    free_found(j);
    tiny_close(&j->t);
}

/* `pass_tokens`: most tokens of one pass; few of them make a prompt go in pieces. */
static espl_status generate(job *j, int64_t pass_tokens, espl_token_sink *sink, void *context) {
    espl_decoder *decoder = NULL;
    espl_engine engine;
    espl_status status = ESPL_OK;
    free_found(j);
    espl_engine_host(ESPL_F32, &engine);
    engine.kernels = j->kernels;
    const espl_decoder_use use = {.engine = &engine, .model = j->t.model, .weights = j->t.weights, .threads = 2};
    ESPL_TRY_DONE(espl_decoder_make(&use, j->n * j->options.beams, TINY_POSITIONS, pass_tokens, &decoder));
    ESPL_TRY_DONE(espl_generate(decoder, &j->options, j->n, j->prompts, j->t.model->dims.vocab, sink, context, j->found));
done:
    espl_decoder_free(&decoder);
    return status;
}

static bool same_ids(const espl_generated *found, const json_t *golden) {
    if (found->n != (int64_t)json_array_size(golden))
        return false;
    for (int64_t i = 0; i < found->n; i++)
        if (found->ids[i] != json_integer_value(json_array_get(golden, (size_t)i)))
            return false;
    return true;
}

static int differences(const job *j, const json_t *row) {
    int different = 0;
    for (int i = 0; i < j->n; i++)
        different += !same_ids(&j->found[i], json_array_get(json_object_get(row, "found"), (size_t)i));
    return different;
}

/* Every case of every model: all prompts at once find what transformers finds for each by itself. */
static void tokens_equal_transformers(void **state) {
    const espl_kernels *kernels[] = {espl_kernels_cpu(ESPL_F32), espl_kernels_ref(ESPL_F64)};
    (void)state;
    for (int m = 0; m < N_TINY_DECODERS * 2; m++) {
        json_t *row;
        size_t i;
        job j;
        open_job(tiny_names[m / 2], kernels[m % 2], &j);
        assert_true(json_array_size(json_object_get(j.t.golden, "cases")) >= 9 && j.n == 3);
        json_array_foreach(json_object_get(j.t.golden, "cases"), i, row) {
            choose_case(row, &j);
            assert_int_equal(generate(&j, PASS_TOKENS, NULL, NULL), ESPL_OK);
            if (differences(&j, row) > 0)
                fail_msg("%s, case %zu: %d prompts differ from the golden", tiny_names[m / 2], i, differences(&j, row));
        }
        close_job(&j);
    }
}

/* Prompts that do not fit into one pass give the same tokens, greedily and with beams. */
static void long_prompts_go_in_pieces(void **state) {
    (void)state;
    for (int m = 0; m < N_TINY_DECODERS; m++) {
        json_t *row;
        size_t i;
        job j;
        open_job(tiny_names[m], espl_kernels_ref(ESPL_F64), &j);
        json_array_foreach(json_object_get(j.t.golden, "cases"), i, row) {
            choose_case(row, &j);
            assert_int_equal(generate(&j, j.n * j.options.beams * 2, NULL, NULL), ESPL_OK);
            assert_int_equal(differences(&j, row), 0);
        }
        close_job(&j);
    }
}

/* A prompt whose first tokens are a soft prompt of their embeddings: the golden's tokens follow, however small the pieces are. */
static void soft_prompts_stand_in_front(void **state) {
    (void)state;
    for (int i = 0; i < 3 * N_TINY_DECODERS; i++) {
        json_t *row;
        size_t c, compared = 0;
        job j;
        const espl_model_options options = {.prompt = {.length = 2 + i / N_TINY_DECODERS}};
        open_job_with(tiny_names[i % N_TINY_DECODERS], espl_kernels_ref(ESPL_F64), &options, &j);
        for (int p = 0; p < j.n; p++) {
            job one = j;
            if (j.prompts[p].n <= options.prompt.length)
                continue;
            tiny_fill_prompt(&one.t, one.kernels, j.prompts[p].ids);
            one.n = 1;
            one.prompts[0] = (espl_prompt){.ids = j.prompts[p].ids + options.prompt.length, .n = j.prompts[p].n - options.prompt.length};
            json_array_foreach(json_object_get(j.t.golden, "cases"), c, row) {
                choose_case(row, &one);
                if (one.options.sampling.repetition_penalty != 1.0 || one.options.sampling.no_repeat_ngram > 0)
                    continue; /* they count the prompt's tokens, too */
                assert_int_equal(generate(&one, c % 2 ? PASS_TOKENS : one.options.beams, NULL, NULL), ESPL_OK);
                assert_true(same_ids(&one.found[0], json_array_get(json_object_get(row, "found"), (size_t)p)));
                compared++;
            }
            free_found(&one);
        }
        assert_true(compared > 1);
        close_job(&j);
    }
}

/* Keys and values in front of every layer's: however small the pieces are, the same tokens follow, and others than without. */
static void prefixes_stand_in_front(void **state) {
    (void)state;
    for (int m = 0; m < N_TINY_DECODERS; m++) {
        const espl_model_options options = {.prompt = {.length = 5, .prefix = true}};
        int differ = 0;
        json_t *row;
        size_t c;
        job j, pieces;
        open_job_with(tiny_names[m], espl_kernels_ref(ESPL_F64), &options, &j);
        tiny_fill_prefix(&j.t, j.kernels);
        pieces = j;
        json_array_foreach(json_object_get(j.t.golden, "cases"), c, row) {
            choose_case(row, &j);
            choose_case(row, &pieces);
            assert_int_equal(generate(&j, PASS_TOKENS, NULL, NULL), ESPL_OK);
            assert_int_equal(generate(&pieces, j.n * j.options.beams * 2, NULL, NULL), ESPL_OK);
            for (int p = 0; p < j.n; p++) {
                assert_int_equal(j.found[p].n, pieces.found[p].n);
                assert_memory_equal(j.found[p].ids, pieces.found[p].ids, (size_t)j.found[p].n * sizeof *j.found[p].ids);
            }
            differ += differences(&j, row);
        }
        assert_true(differ > 0);
        free_found(&pieces);
        close_job(&j);
    }
}

/* Negative control: another penalty, another n-gram or another end token is noticed. */
static void goldens_tell_settings_apart(void **state) {
    int penalty = 0, ngram = 0, length = 0;
    (void)state;
    for (int m = 0; m < N_TINY_DECODERS; m++) {
        json_t *row;
        size_t i;
        job j;
        open_job(tiny_names[m], espl_kernels_cpu(ESPL_F32), &j);
        json_array_foreach(json_object_get(j.t.golden, "cases"), i, row) {
            choose_case(row, &j);
            j.options.sampling.repetition_penalty *= 1.5;
            assert_int_equal(generate(&j, PASS_TOKENS, NULL, NULL), ESPL_OK);
            penalty += differences(&j, row) > 0;
            choose_case(row, &j);
            j.options.sampling.no_repeat_ngram = j.options.sampling.no_repeat_ngram == 2 ? 3 : 2;
            assert_int_equal(generate(&j, PASS_TOKENS, NULL, NULL), ESPL_OK);
            ngram += differences(&j, row) > 0;
            choose_case(row, &j);
            j.options.length_penalty = 0.0;
            assert_int_equal(generate(&j, PASS_TOKENS, NULL, NULL), ESPL_OK);
            length += j.options.beams > 1 && differences(&j, row) > 0;
        }
        close_job(&j);
    }
    assert_true(penalty >= 20 && ngram >= 15 && length >= 5);
}

typedef struct heard {
    int64_t n[MOST_PROMPTS];
    int32_t ids[MOST_PROMPTS][TINY_POSITIONS];
} heard;

static void hear(void *context, int prompt, int32_t token) {
    heard *h = context;
    h->ids[prompt][h->n[prompt]++] = token;
}

static void choose_sampling(job *j, uint64_t seed) {
    choose_case(json_array_get(json_object_get(j->t.golden, "cases"), 0), j);
    j->options.sampling.temperature = 0.8;
    j->options.sampling.top_k = 40;
    j->options.sampling.top_p = 0.95;
    j->options.seed = seed;
}

/* A seed is a text: the same whether a prompt stands alone or with others behind it; another seed is another text. The sink hears it all.
 */
static void seeds_are_texts(void **state) {
    (void)state;
    for (int m = 0; m < N_TINY_DECODERS; m++) {
        int32_t first[TINY_POSITIONS];
        heard h = {0};
        job j;
        open_job(tiny_names[m], espl_kernels_cpu(ESPL_F32), &j);
        choose_sampling(&j, 7);
        assert_int_equal(generate(&j, PASS_TOKENS, hear, &h), ESPL_OK);
        for (int i = 0; i < j.n; i++) {
            assert_int_equal(h.n[i], j.found[i].n);
            assert_memory_equal(h.ids[i], j.found[i].ids, (size_t)h.n[i] * sizeof(int32_t));
        }
        memcpy(first, j.found[0].ids, (size_t)j.found[0].n * sizeof *first);
        free_found(&j);
        j.n = 1;
        assert_int_equal(generate(&j, PASS_TOKENS, NULL, NULL), ESPL_OK);
        assert_memory_equal(first, j.found[0].ids, (size_t)j.found[0].n * sizeof *first);
        choose_sampling(&j, 8);
        assert_int_equal(generate(&j, PASS_TOKENS, NULL, NULL), ESPL_OK);
        assert_memory_not_equal(first, j.found[0].ids, (size_t)j.found[0].n * sizeof *first);
        close_job(&j);
    }
}

static void too_long_is_refused(void **state) {
    job j;
    (void)state;
    open_job(tiny_names[0], espl_kernels_cpu(ESPL_F32), &j);
    choose_case(json_array_get(json_object_get(j.t.golden, "cases"), 0), &j);
    j.options.max_new = TINY_POSITIONS;
    assert_int_equal(generate(&j, PASS_TOKENS, NULL, NULL), ESPL_ERR_USAGE);
    assert_non_null(strstr(espl_status_message(), "max_new_tokens"));
    close_job(&j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_equal_transformers),   cmocka_unit_test(long_prompts_go_in_pieces),
        cmocka_unit_test(goldens_tell_settings_apart), cmocka_unit_test(seeds_are_texts),
        cmocka_unit_test(too_long_is_refused),         cmocka_unit_test(soft_prompts_stand_in_front),
        cmocka_unit_test(prefixes_stand_in_front),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
