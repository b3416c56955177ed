// test: libs=eval,config,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/eval/beam.h"
#include "src/eval/sampling.h"
#include "tests/unit/goldens.h"
#include "tests/unit/toy_model.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

enum { MOST_ROWS = 16, MOST_IDS = 64, MOST_VOCAB = 64 };

/* One search over the toy model: the sequences of the rows are kept here, as a model's cache would keep them. */
typedef struct search {
    espl_beam_options options;
    espl_sampling how;
    int64_t prompt;
    uint32_t grid;
    int32_t ids[MOST_ROWS][MOST_IDS], eos[8];
} search;

static int64_t whole(json_t *row, const char *key) { return json_integer_value(json_object_get(row, key)); }

static espl_beam_early early_of(json_t *row) {
    json_t *early = json_object_get(row, "early");
    return json_is_true(early) ? ESPL_BEAM_ALWAYS : json_is_string(early) ? ESPL_BEAM_NEVER : ESPL_BEAM_HEURISTIC;
}

static void load_search(json_t *row, uint32_t grid, search *s) {
    json_t *prompts = json_object_get(row, "prompts"), *eos = json_object_get(row, "eos");
    memset(s, 0, sizeof *s);
    s->grid = grid;
    s->how = (espl_sampling){.repetition_penalty = 1, .no_repeat_ngram = whole(row, "no_repeat_ngram")};
    s->options = (espl_beam_options){.batch = (int)json_array_size(prompts),
                                     .beams = (int)whole(row, "beams"),
                                     .vocab = whole(row, "vocab"),
                                     .max_new = whole(row, "max_new"),
                                     .length_penalty = json_number_value(json_object_get(row, "length_penalty")),
                                     .early = early_of(row),
                                     .eos = s->eos,
                                     .n_eos = (int)json_array_size(eos)};
    for (int i = 0; i < s->options.n_eos; i++)
        s->eos[i] = (int32_t)json_integer_value(json_array_get(eos, (size_t)i));
    s->prompt = (int64_t)json_array_size(json_array_get(prompts, 0));
    for (int r = 0; r < s->options.batch * s->options.beams; r++)
        for (int64_t i = 0; i < s->prompt; i++)
            s->ids[r][i] = (int32_t)json_integer_value(json_array_get(json_array_get(prompts, (size_t)(r / s->options.beams)), (size_t)i));
}

static void fill_log_probs(search *s, int64_t n, float *log_probs) {
    uint64_t scratch[2 * MOST_VOCAB];
    for (int r = 0; r < s->options.batch * s->options.beams; r++) {
        float *row = log_probs + r * s->options.vocab;
        toy_logits(s->ids[r], n, row, s->options.vocab, s->grid);
        espl_sampling_log_softmax(row, s->options.vocab);
        espl_sampling_penalise(&s->how, (espl_context){.ids = s->ids[r], .n = n}, row, s->options.vocab, scratch);
    }
}

static int64_t run(search *s, espl_beam *beam) {
    static float log_probs[MOST_ROWS * MOST_VOCAB];
    int32_t tokens[MOST_ROWS], source[MOST_ROWS], old[MOST_ROWS][MOST_IDS];
    int rows = s->options.batch * s->options.beams;
    int64_t n = s->prompt, generated;
    for (bool more = true; more; n++) {
        fill_log_probs(s, n, log_probs);
        more = espl_beam_step(beam, log_probs, tokens, source);
        memcpy(old, s->ids, sizeof old);
        for (int r = 0; r < rows; r++) {
            memcpy(s->ids[r], old[source[r]], sizeof old[0]);
            s->ids[r][n] = tokens[r];
            assert_memory_equal(espl_beam_running(beam, r, &generated), s->ids[r] + s->prompt, (size_t)(n + 1 - s->prompt) * 4);
            assert_int_equal(generated, n + 1 - s->prompt);
        }
    }
    return n - s->prompt;
}

/* Whether a found sequence is the golden's: the same tokens, and a score within the rounding of its summands (each of them and each
 * partial sum is a float of at most the sum's size, on both sides). */
static bool same_sequence(json_t *golden, const int32_t *ids, int64_t n, float score, double length_penalty) {
    json_t *list = json_object_get(golden, "ids");
    if (ids == NULL || n != (int64_t)json_array_size(list))
        return false;
    for (int64_t i = 0; i < n; i++)
        if (ids[i] != json_integer_value(json_array_get(list, (size_t)i)))
            return false;
    double expected = json_number_value(json_object_get(golden, "score")), sum = fabs(expected) * pow((double)n, length_penalty);
    return fabs(score - expected) <= 2 * (double)(n + 1) * FLT_EPSILON * fmax(sum, 1.0) / pow((double)n, length_penalty);
}

static int differences(json_t *row, search *s) {
    espl_beam *beam = espl_beam_make(&s->options);
    json_t *found = json_object_get(row, "found");
    int different = 0;
    run(s, beam);
    for (int item = 0; item < s->options.batch; item++)
        for (int rank = 0; rank < s->options.beams; rank++) {
            int64_t n = 0;
            float score = 0;
            const int32_t *ids = espl_beam_result(beam, item, rank, &n, &score);
            json_t *golden = json_array_get(json_array_get(found, (size_t)item), (size_t)rank);
            different += !same_sequence(golden, ids, n, score, s->options.length_penalty);
        }
    espl_beam_free(&beam);
    return different;
}

static void sequences_equal_the_goldens(void **state) {
    json_t *rows = json_object_get(*state, "cases"), *row;
    size_t i;
    search s;
    assert_true(json_array_size(rows) >= 30);
    json_array_foreach(rows, i, row) {
        load_search(row, (uint32_t)whole(*state, "grid"), &s);
        int different = differences(row, &s);
        if (different > 0)
            fail_msg("case %zu: %d sequences differ", i, different);
    }
}

/* Negative control: the goldens notice another length penalty and another stopping rule. */
static void goldens_tell_settings_apart(void **state) {
    json_t *rows = json_object_get(*state, "cases"), *row;
    size_t i, penalty = 0, early = 0;
    search s;
    json_array_foreach(rows, i, row) {
        load_search(row, (uint32_t)whole(*state, "grid"), &s);
        s.options.length_penalty += 0.25;
        penalty += differences(row, &s) > 0;
        load_search(row, (uint32_t)whole(*state, "grid"), &s);
        s.options.early = s.options.early == ESPL_BEAM_ALWAYS ? ESPL_BEAM_HEURISTIC : ESPL_BEAM_ALWAYS;
        early += differences(row, &s) > 0;
    }
    assert_true(penalty > json_array_size(rows) / 2 && early > 5);
}

/* Items of a batch do not see each other, and one beam is greedy decoding. */
static void one_beam_is_greedy(void **state) {
    (void)state;
    int32_t eos[] = {0};
    search s = {.options = {.batch = 3, .beams = 1, .vocab = 16, .max_new = 20, .length_penalty = 1, .eos = eos, .n_eos = 1},
                .how = {.repetition_penalty = 1},
                .prompt = 2,
                .grid = 4096};
    for (int r = 0; r < 3; r++)
        s.ids[r][0] = s.ids[r][1] = r + 1;
    espl_beam *beam = espl_beam_make(&s.options);
    run(&s, beam);
    for (int r = 0; r < 3; r++) {
        int32_t greedy[MOST_IDS] = {r + 1, r + 1};
        int64_t n = 2, found;
        float logits[MOST_VOCAB], score;
        do {
            toy_logits(greedy, n, logits, 16, 4096);
            greedy[n] = espl_sampling_argmax(logits, 16);
        } while (greedy[n++] != 0 && n < 22);
        const int32_t *ids = espl_beam_result(beam, r, 0, &found, &score);
        assert_int_equal(found, n - 2);
        assert_memory_equal(ids, greedy + 2, (size_t)found * 4);
        assert_null(espl_beam_result(beam, r, 1, &found, &score));
    }
    espl_beam_free(&beam);
    assert_null(beam);
}

static int load(void **state) { return load_goldens(state, ESPL_SOURCE_DIR "/tests/goldens/beam.json"); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_equal_the_goldens),
        cmocka_unit_test(goldens_tell_settings_apart),
        cmocka_unit_test(one_beam_is_greedy),
    };
    return cmocka_run_group_tests(tests, load, free_goldens);
}
