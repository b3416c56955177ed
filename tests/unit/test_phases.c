// test: libs=train ranks=1 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/train/unfreeze.h"
#include "tests/unit/tiny_models.h"

/* What is trained by phase: a layer, norms and biases all over, all. */
static char *selections[] = {"layers.0", "*norm*", "*ln*", "*LayerNorm*", "*"};
static char *unfreeze[] = {"*@9", "*norm*@4", "*ln*@4", "*LayerNorm*@4", "layers.0@6"};
enum { N_PHASES = 3 };

/* The selections that a model has: those of phase 0, of phases 0 and 1, and of all; or those with times. */
static int64_t own_entries(const char *name, char *const *all, int64_t n, char **own) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        espl_model *m;
        char *entry[] = {all[i]}, *layer[] = {"layers.0"};
        bool timed = strchr(all[i], '@') != NULL;
        const espl_model_options options = {
            .train = timed ? layer : entry, .n_train = 1, .unfreeze = timed ? entry : NULL, .n_unfreeze = timed};
        if (espl_model_make(tiny_folder(name), &options, &m) == ESPL_OK)
            own[count++] = all[i];
        espl_model_free(&m);
    }
    return count;
}

static void open_tiny(const char *name, const espl_model_options *options, int recompute, tiny *t) {
    if (tiny_open_with(tiny_folder(name), espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, recompute, options, t) != ESPL_OK)
        fail_msg("%s: %s", name, espl_status_message());
}

/* The tape of a phase in the place of the last one's. */
static void enter(tiny *t, int phase, int recompute) {
    espl_room room = {.tokens = t->sample.n, .source_tokens = t->sample.source.n, .sequences = t->sample.n_segments};
    espl_capacity capacity[ESPL_N_STREAMS];
    espl_streams_capacity(t->model, &room, capacity);
    espl_tape_free(&t->tape);
    espl_tape_make(t->model, espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, recompute, phase, capacity, 2, &t->tape);
    t->act = realloc(t->act, t->tape.act_bytes);
    t->work = realloc(t->work, t->tape.work_bytes);
    memset(t->gradients, 0x5a, (size_t)espl_model_flat_size(t->model, 1) * sizeof(float));
    const espl_places places = {.weights = t->weights, .gradients = t->gradients, .ranks = 1, .act = t->act, .work = t->work};
    espl_tape_bind(&t->tape, &places);
    assert_int_equal(espl_tape_run(&t->tape, &t->batch, true, NULL), ESPL_OK);
}

static const float *gradient(const tiny *t, int param) { return (const float *)t->gradients + espl_model_place(t->model, param, 1); }

static int backward_calls(const espl_tape *tape) {
    int n = 0;
    for (int i = 0; i < tape->n_calls; i++)
        n += tape->calls[i].kind == ESPL_CALL_BACKWARD;
    return n;
}

/* Trained gradients have the bits of the run that trains just that, and the others are left alone. */
static void compare(const tiny *phased, const tiny *just, int phase) {
    const espl_model *m = phased->model;
    for (int i = 0; i < m->n_params; i++) {
        bool trained = espl_model_trains(m, i, phase);
        size_t bytes = (size_t)m->params[i].numel * sizeof(float);
        assert_int_equal(trained, !just->model->params[i].frozen);
        if (trained && memcmp(gradient(phased, i), gradient(just, i), bytes) != 0)
            fail_msg("phase %d: the gradient of %s has other bits", phase, m->params[i].name);
        for (size_t at = 0; !trained && at < bytes; at++)
            assert_int_equal(((const uint8_t *)gradient(phased, i))[at], 0x5a);
    }
    assert_int_equal(phased->tape.act_bytes, just->tape.act_bytes);
    assert_int_equal(backward_calls(&phased->tape), backward_calls(&just->tape));
    assert_int_equal(espl_model_phase_numel(m, phase), espl_model_trained_numel(just->model));
}

/* A mark for each bucket of which something is trained, and no other. */
static void check_marks(const tiny *t, int phase) {
    int *marks = calloc((size_t)t->model->n_buckets, sizeof *marks);
    for (int i = 0; i < t->tape.n_calls; i++)
        if (t->tape.calls[i].kind == ESPL_CALL_BUCKET)
            marks[t->tape.calls[i].bucket]++;
    for (int b = 0; b < t->model->n_buckets; b++)
        assert_int_equal(marks[b], espl_model_trains_bucket(t->model, b, phase));
    free(marks);
}

static void a_phase_is_the_run_that_trains_just_that(void **state) {
    (void)state;
    for (int i = 0; i < N_TINY; i++)
        for (int recompute = ESPL_RECOMPUTE_NONE; recompute <= ESPL_RECOMPUTE_FULL; recompute += 2) {
            char *own[5], *times[5];
            tiny phased, just;
            espl_model_options options = {.train = own, .n_train = 1, .unfreeze = times};
            int64_t n = own_entries(tiny_names[i], selections, 5, own);
            options.n_unfreeze = own_entries(tiny_names[i], unfreeze, 5, times);
            open_tiny(tiny_names[i], &options, recompute, &phased);
            if (n <= 2 || phased.model->n_phases != N_PHASES + 1)
                fail_msg("%s has %lld selections, %d phases", tiny_names[i], (long long)n, phased.model->n_phases);
            const int64_t n_train[] = {1, n - 1, n - 1, n}; /* layers.0@6 begins a phase that nothing joins */
            for (int phase = 0; phase < phased.model->n_phases; phase++) {
                open_tiny(tiny_names[i], &(espl_model_options){.train = own, .n_train = n_train[phase]}, recompute, &just);
                enter(&phased, phase, recompute);
                enter(&just, 0, recompute);
                compare(&phased, &just, phase);
                check_marks(&phased, phase);
                tiny_close(&just);
            }
            tiny_close(&phased);
        }
}

static void wrong_phases_are_refused(void **state) {
    (void)state;
    static char *wrong[] = {"layers.0",     "@3",           "layers.0@",  "layers.0@0",      "layers.0@-1",
                            "layers.0@1.5", "layers.0@1ee", "layers.9@3", "*q_proj.weight@3"};
    char *train[] = {"layers.0"}, *units[] = {"*norm.weight@3", "embeddings@1e"};
    espl_model *m;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const espl_model_options options = {.train = train, .n_train = 1, .unfreeze = &wrong[i], .n_unfreeze = 1};
        assert_int_equal(espl_model_make(tiny_folder("tiny-llama"), &options, &m), ESPL_ERR_USAGE);
        assert_non_null(strstr(espl_status_message(), "tune.unfreeze"));
    }
    const espl_model_options all = {.unfreeze = units, .n_unfreeze = 1},
                             mixed = {.train = train, .n_train = 1, .unfreeze = units, .n_unfreeze = 2};
    assert_int_equal(espl_model_make(tiny_folder("tiny-llama"), &all, &m), ESPL_ERR_USAGE);
    assert_int_equal(espl_model_make(tiny_folder("tiny-llama"), &mixed, &m), ESPL_ERR_USAGE);
}

/* Phases of tiny-llama whose epochs have two and a half steps. */
static espl_model *open_phases(char **entries, int64_t n, espl_phases *phases) {
    char *train[] = {"layers.0"};
    espl_model *m;
    const espl_model_options options = {.train = train, .n_train = 1, .unfreeze = entries, .n_unfreeze = n};
    assert_int_equal(espl_model_make(tiny_folder("tiny-llama"), &options, &m), ESPL_OK);
    espl_phases_open(m, 2.5, phases);
    return m;
}

/* A run that skipped two of its first five steps, stopped inside a phase, and went on. */
static void updates_before_a_phase_are_remembered(void **state) {
    (void)state;
    char *entries[] = {"layers.1@1e", "embeddings@2e", "head@9e"}, *others[] = {"layers.1@2e", "embeddings@3e"};
    espl_phases first, again;
    espl_model *m = open_phases(entries, 3, &first), *same = open_phases(entries, 3, &again);
    assert_int_equal(first.steps[1], 3); /* the first step that begins behind 2.5 */
    assert_int_equal(first.steps[2], 5);
    assert_true(espl_phases_enter(&first, 0, 0) && !espl_phases_enter(&first, 2, 1) && first.now == 0);
    assert_true(espl_phases_enter(&first, 3, 1) && !espl_phases_enter(&first, 4, 2) && first.now == 1);
    for (int b = 0; b < m->n_buckets; b++)
        assert_int_equal(first.buckets[b], espl_model_trains_bucket(m, b, 1));
    json_t *list = espl_phases_to_json(&first);
    assert_int_equal(espl_phases_from_json(list, "step-4", &again), ESPL_OK);
    assert_true(espl_phases_enter(&again, 4, 2) && again.now == 1 && again.born[0] == 0 && again.born[1] == 1);
    assert_true(espl_phases_enter(&again, 5, 3) && again.now == 2 && again.born[1] == 1 && again.born[2] == 3);
    espl_phases_free(&again);
    espl_model_free(&same);
    same = open_phases(others, 2, &again);
    assert_int_equal(espl_phases_from_json(list, "step-4", &again), ESPL_ERR_USAGE);
    assert_non_null(strstr(espl_status_message(), "layers.1 has been trained since step 3"));
    json_decref(list);
    espl_phases_free(&first);
    espl_phases_free(&again);
    espl_model_free(&m);
    espl_model_free(&same);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_phase_is_the_run_that_trains_just_that),
        cmocka_unit_test(wrong_phases_are_refused),
        cmocka_unit_test(updates_before_a_phase_are_remembered),
    };
    espl_kernels_set_threads(1); /* bits do not depend on it */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
