// test: libs=train ranks=1 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/config/config.h"
#include "src/model/low_rank.h"
#include "src/train/weights/magnitudes.h"
#include "tests/unit/tiny_models.h"

static void open_or_fail(const char *name, const espl_kernels *kernels, espl_use use, int recompute, tiny *t) {
    if (tiny_open(tiny_folder(name), kernels, use, recompute, t) != ESPL_OK)
        fail_msg("%s", espl_status_message());
}

static void train_once(tiny *t) { assert_int_equal(espl_tape_run(&t->tape, &t->batch, true, NULL), ESPL_OK); }

/* ---- Distances to the goldens, each relative to the tensor's norm. */

/* Parameters that are used as one matrix count as one: the bias of keys has no gradient, softmax does not see it. */
static bool same_matrix(const espl_param *a, const espl_param *b) {
    return a->role == b->role && a->section == b->section && a->layer == b->layer;
}

static const float *golden_gradient(const tiny *t, const espl_param *p) {
    char *name = espl_format("grad.%s", p->name);
    const espl_tensor_file *golden = espl_safetensors_find(t->tensors, name);
    free(name);
    assert_non_null(golden);
    assert_int_equal(golden->n_dims, p->n_dims);
    for (int d = 0; d < p->n_dims; d++)
        assert_int_equal(golden->shape[d], p->shape[d]);
    return golden->data;
}

static double gradient_error(const tiny *t, const espl_param *p) {
    double difference = 0.0, norm = 0.0;
    const float *golden = golden_gradient(t, p);
    for (int64_t i = 0; i < p->numel; i++)
        difference += pow(tiny_gradient(t, p, i) - (double)golden[i], 2);
    for (int i = 0; i < t->model->n_params; i++) {
        const espl_param *q = &t->model->params[i];
        const float *values = same_matrix(p, q) ? golden_gradient(t, q) : NULL;
        for (int64_t e = 0; values != NULL && e < q->numel; e++)
            norm += (double)values[e] * (double)values[e];
    }
    return sqrt(difference / norm);
}

static double worst_gradient(const tiny *t, const char **name) {
    double worst = 0.0;
    for (int i = 0; i < t->model->n_params; i++) {
        double error = gradient_error(t, &t->model->params[i]);
        if (!(error <= worst)) {
            worst = error;
            *name = t->model->params[i].name;
        }
    }
    return worst;
}

static double loss_error(const tiny *t) {
    double expected = json_number_value(json_object_get(t->golden, "loss"));
    return fabs(tiny_loss(t) - expected) / expected;
}

static double parameter_at(const tiny *t, int param, int64_t i) {
    return tiny_at(t->weights, t->tape.kernels->real, tiny_start(t, &t->model->params[param]) + i);
}

/* Of an evaluation tape that has run: its last hidden values times the head, in double. */
static double logits_error(const tiny *t) {
    const espl_row *head = &t->model->rows[t->model->n_rows - 1];
    const float *golden = espl_safetensors_find(t->tensors, "logits")->data;
    const void *hidden = espl_tape_buffer(&t->tape, t->tape.hidden);
    int64_t width = head->attrs.n_in, vocab = head->attrs.vocab, rows = espl_tape_stream(&t->batch, head->attrs.stream)->n;
    double difference = 0.0, norm = 0.0;
    for (int64_t n = 0; n < rows; n++)
        for (int64_t v = 0; v < vocab; v++) {
            double logit = 0.0, expected = (double)golden[n * vocab + v];
            for (int64_t d = 0; d < width; d++)
                logit += tiny_at(hidden, t->tape.kernels->real, n * width + d) * parameter_at(t, head->param[0], v * width + d);
            logit = logit * (double)head->attrs.scale + (head->param[1] >= 0 ? parameter_at(t, head->param[1], v) : 0.0);
            difference += pow(logit - expected, 2);
            norm += expected * expected;
        }
    return sqrt(difference / norm);
}

/* ---- Against transformers. */

/* The goldens are of fp64, rounded to fp32; the bound of ref64 leaves room for that and for rope tables, which are float. */
static const struct {
    const char *name;
    bool fast;
    espl_dtype dtype;
    double bound;
} backends[] = {{"ref64", false, ESPL_F64, 1e-6}, {"ref32", false, ESPL_F32, 1e-5}, {"cpu", true, ESPL_F32, 1e-5}};
enum { N_BACKENDS = sizeof backends / sizeof backends[0] };

static const espl_kernels *kernels_of(int backend) {
    return backends[backend].fast ? espl_kernels_cpu(backends[backend].dtype) : espl_kernels_ref(backends[backend].dtype);
}

static void check(double error, int backend, const char *model, const char *what) {
    if (!(error <= backends[backend].bound))
        fail_msg("%s, %s: %s is %.2g from the golden, at most %.2g is expected", backends[backend].name, model, what, error,
                 backends[backend].bound);
}

static int count_gradients(const tiny *t) {
    int n = 0;
    for (int64_t i = 0; i < espl_safetensors_count(t->tensors); i++)
        n += strncmp(espl_safetensors_at(t->tensors, i)->name, "grad.", 5) == 0;
    return n;
}

static void loss_and_gradients_equal_transformers(void **state) {
    (void)state;
    for (int m = 0; m < N_TINY; m++)
        for (int b = 0; b < N_BACKENDS; b++) {
            const char *name = "";
            tiny t;
            open_or_fail(tiny_names[m], kernels_of(b), ESPL_USE_TRAIN, ESPL_RECOMPUTE_NONE, &t);
            train_once(&t);
            check(loss_error(&t), b, tiny_names[m], "the loss");
            double worst = worst_gradient(&t, &name);
            check(worst, b, tiny_names[m], name);
            assert_int_equal(count_gradients(&t), t.model->n_params);
            tiny_close(&t);
        }
}

static void logits_equal_transformers(void **state) {
    (void)state;
    for (int m = 0; m < N_TINY; m++)
        for (int b = 0; b < N_BACKENDS; b++) {
            tiny t;
            open_or_fail(tiny_names[m], kernels_of(b), ESPL_USE_EVAL, 0, &t);
            train_once(&t);
            check(logits_error(&t), b, tiny_names[m], "the logits");
            check(loss_error(&t), b, tiny_names[m], "the loss");
            tiny_close(&t);
        }
}

static const espl_param *first_of(const espl_model *model, espl_role role) {
    for (int i = 0; i < model->n_params; i++)
        if (model->params[i].role == role)
            return &model->params[i];
    return NULL;
}

/* Negative control: one weight off by 1 %, one position off by one (a token, where positions are relative), or a document that sees the one
 * before it break every bound. */
static void goldens_notice_faults(void **state) {
    (void)state;
    for (int fault = 0; fault < 3; fault++)
        for (int m = 0; m < N_TINY; m++) {
            const char *name = "";
            tiny t;
            open_or_fail(tiny_names[m], espl_kernels_ref(ESPL_F64), ESPL_USE_TRAIN, ESPL_RECOMPUTE_NONE, &t);
            if (fault == 0)
                ((double *)t.weights)[tiny_start(&t, first_of(t.model, ESPL_ROLE_NORM1))] *= 1.01;
            else if (fault == 1)
                ++(t.model->dims.rel_buckets > 0 ? t.sample.ids : t.sample.positions)[3];
            else
                t.sample.segments[2] = t.sample.segments[1];
            train_once(&t);
            assert_true(worst_gradient(&t, &name) > 10 * backends[N_BACKENDS - 1].bound);
            tiny_close(&t);
        }
}

/* ---- Equalities. */

/* One document of a sample as a sample of its own, over the same arrays but for the offsets of segments. */
static espl_sample document(const espl_sample *all, int32_t s, int32_t segments[2], int32_t source_segments[2]) {
    espl_sample one = *all;
    int32_t begin = all->segments[s];
    segments[0] = source_segments[0] = 0;
    one.n = segments[1] = all->segments[s + 1] - begin;
    one.n_segments = 1;
    one.segments = segments;
    one.ids += begin;
    one.positions += begin;
    one.targets += begin;
    one.types += begin;
    one.labels += s;
    one.label_weights += s;
    if (all->source.n > 0) {
        int32_t from = all->source.segments[s];
        one.source.n = source_segments[1] = all->source.segments[s + 1] - from;
        one.source.segments = source_segments;
        one.source.ids += from;
        one.source.positions += from;
    }
    return one;
}

/* Packed documents and one document at a time have the same sum of gradients, to the rounding of another order of the sums. */
static void packing_changes_nothing(void **state) {
    (void)state;
    for (int m = 0; m < N_TINY; m++) {
        tiny packed, single;
        open_or_fail(tiny_names[m], espl_kernels_ref(ESPL_F64), ESPL_USE_TRAIN, ESPL_RECOMPUTE_NONE, &packed);
        open_or_fail(tiny_names[m], espl_kernels_ref(ESPL_F64), ESPL_USE_TRAIN, ESPL_RECOMPUTE_NONE, &single);
        train_once(&packed);
        for (int32_t s = 0; s < single.batch.n_segments; s++) {
            int32_t segments[2], source_segments[2];
            espl_batch common = {.loss_scale = single.batch.loss_scale};
            espl_sample one = document(&single.sample, s, segments, source_segments);
            espl_streams streams;
            espl_streams_fill(single.model, &one, &common, &streams);
            assert_int_equal(espl_tape_run(&single.tape, &streams.main, s == 0, NULL), ESPL_OK);
        }
        const double *a = packed.gradients, *b = single.gradients;
        for (int64_t i = 0; i < espl_model_flat_size(packed.model, 1); i++)
            assert_true(fabs(a[i] - b[i]) <= 1e-13 * (1.0 + fabs(a[i])));
        tiny_close(&packed);
        tiny_close(&single);
    }
}

/* What is computed again is the same bits as what was kept. */
static void recompute_changes_nothing(void **state) {
    (void)state;
    for (int m = 0; m < N_TINY; m++) {
        tiny none, other;
        open_or_fail(tiny_names[m], espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, ESPL_RECOMPUTE_NONE, &none);
        train_once(&none);
        size_t bytes = (size_t)espl_model_flat_size(none.model, 1) * sizeof(float), act = none.tape.act_bytes;
        for (int recompute = ESPL_RECOMPUTE_SELECTIVE; recompute <= ESPL_RECOMPUTE_FULL; recompute++) {
            open_or_fail(tiny_names[m], espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, recompute, &other);
            train_once(&other);
            assert_memory_equal(none.gradients, other.gradients, bytes);
            assert_true(other.tape.act_bytes < act || none.model->dims.layers == 1);
            tiny_close(&other);
        }
        tiny_close(&none);
    }
}

/* Gradients of what is trained have the bits that they have where all is; returns how many parameters there were. */
static int compare_trained(const tiny *all, const tiny *part) {
    int n = 0;
    assert_int_equal(all->model->n_params, part->model->n_params);
    for (int i = 0; i < part->model->n_params; i++) {
        const espl_param *p = &part->model->params[i];
        if (p->frozen)
            continue;
        const float *a = (const float *)all->gradients + tiny_start(all, &all->model->params[i]);
        const float *b = (const float *)part->gradients + tiny_start(part, p);
        if (memcmp(a, b, (size_t)p->numel * sizeof(float)) != 0)
            fail_msg("%s: the gradient of %s depends on what else is trained", part->model->family->model_type, p->name);
        n++;
    }
    return n;
}

static int64_t frozen_numel(const espl_model *m) {
    int64_t n = 0;
    for (int i = 0; i < m->n_params; i++)
        n += m->params[i].frozen ? m->params[i].numel : 0;
    return n;
}

static int backward_calls(const espl_tape *tape) {
    int n = 0;
    for (int i = 0; i < tape->n_calls; i++)
        n += tape->calls[i].kind == ESPL_CALL_BACKWARD;
    return n;
}

/* Opens it with only a selection trained. */
static espl_status open_part(const char *name, int recompute, const char *selection, tiny *t) {
    char *train[] = {(char *)(uintptr_t)selection};
    const espl_model_options options = {.train = train, .n_train = 1};
    return tiny_open_with(tiny_folder(name), espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, recompute, &options, t);
}

/* Runs it; returns how many parameters are trained. */
static int compare_part(const tiny *all, tiny *part, size_t selection) {
    bool whole = part->model->frozen_numel == 0;
    train_once(part);
    assert_true(whole || espl_model_flat_size(part->model, 1) < espl_model_flat_size(all->model, 1));
    assert_int_equal(espl_model_trained_numel(part->model) + frozen_numel(part->model), espl_model_numel(all->model));
    if (selection < 2 && !whole)
        assert_true(backward_calls(&part->tape) < backward_calls(&all->tape) / (selection == 0 ? 2 : 1));
    return compare_trained(all, part);
}

/* What is frozen changes no bit of the other gradients, and costs neither gradients, nor buckets, nor calls below the lowest trained row.
 */
static void frozen_rows_change_nothing(void **state) {
    (void)state;
    static const char *const selections[] = {"head",       "layers.1", "embeddings", "*norm*", "*.bias", "*EncDecAttention.q.weight",
                                             "*relative*", "*"};
    int compared[sizeof selections / sizeof *selections] = {0};
    for (int m = 0; m < N_TINY; m++) {
        tiny all, part;
        open_or_fail(tiny_names[m], espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, ESPL_RECOMPUTE_NONE, &all);
        train_once(&all);
        for (size_t s = 0; s < sizeof selections / sizeof *selections; s++)
            for (int recompute = ESPL_RECOMPUTE_NONE; recompute <= ESPL_RECOMPUTE_FULL; recompute++) {
                if (open_part(tiny_names[m], recompute, selections[s], &part) == ESPL_OK) /* it has such parameters */
                    compared[s] += compare_part(&all, &part, s);
                tiny_close(&part);
            }
        tiny_close(&all);
    }
    for (size_t s = 0; s < sizeof selections / sizeof *selections; s++)
        assert_true(compared[s] > 0);
}

static void wrong_selections_are_refused(void **state) {
    (void)state;
    static const char *const wrong[][2] = {{"layers.7", "layers.7"}, {"nothing.*", "nothing.*"}, {"*q_proj.weight", "one matrix"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        tiny t;
        assert_int_equal(open_part("tiny-llama", ESPL_RECOMPUTE_NONE, wrong[i][0], &t), ESPL_ERR_USAGE);
        assert_non_null(strstr(espl_status_message(), wrong[i][1]));
        tiny_close(&t);
    }
}

/* ---- Methods: low-rank updates, adapters. */

static char *all_linear[] = {"all-linear"};
static const espl_model_options methods[] = {
    {.lora = {.rank = 4, .alpha = 8, .targets = all_linear, .n_targets = 1}},
    {.lora = {.rank = 4, .alpha = 8, .magnitudes = true, .targets = all_linear, .n_targets = 1}},
    {.bottleneck = {.width = 5, .activation = ESPL_ACT_SILU}},
    {.bottleneck = {.width = 8, .activation = ESPL_ACT_GELU_TANH, .mlp_only = true}, .dropout = 0.1},
};
enum { N_METHODS = sizeof methods / sizeof *methods };

static void open_method(const espl_model_options *method, const char *name, espl_use use, int recompute, tiny *t) {
    assert_int_equal(tiny_open_with(tiny_folder(name), espl_kernels_cpu(ESPL_F32), use, recompute, method, t), ESPL_OK);
}

static void start_magnitudes(tiny *t) {
    espl_engine host;
    espl_engine_host(ESPL_F32, &host);
    const espl_weights weights = {.flat = t->weights, .real = ESPL_F32, .owner = espl_owner_alone, .engine = &host};
    assert_int_equal(espl_magnitudes_start(t->model, &weights), ESPL_OK);
}

/* Random Bs and ups; the As and downs are so from the start. */
static void fill_added(tiny *t) {
    espl_rng_key key = {.seed = 5, .purpose = ESPL_RNG_TEST};
    for (int i = 0; i < t->model->n_params; i++) {
        const espl_param *p = &t->model->params[i];
        for (int64_t e = 0; e < p->numel && p->adapts >= 0 && p->init == ESPL_INIT_ZERO; e++)
            ((float *)t->weights)[tiny_start(t, p) + e] = 0.1f * (float)espl_rng_normal(&key, (uint64_t)(i * 100000 + e));
    }
}

/* With every B and up zero the losses have the bits of the base. */
static void what_begins_as_zero_is_the_base(void **state) {
    (void)state;
    for (int i = 0; i < N_METHODS * N_TINY; i++) {
        tiny base, t;
        const char *name = tiny_names[i % N_TINY];
        open_or_fail(name, espl_kernels_cpu(ESPL_F32), ESPL_USE_EVAL, 0, &base);
        open_method(&methods[i / N_TINY], name, ESPL_USE_EVAL, 0, &t);
        start_magnitudes(&t);
        train_once(&base);
        train_once(&t);
        const espl_life *loss = &t.tape.lives[t.tape.loss];
        assert_memory_equal(espl_tape_buffer(&base.tape, base.tape.loss), espl_tape_buffer(&t.tape, t.tape.loss), loss->bytes);
        assert_true(t.model->frozen_numel > 0 && espl_model_trained_numel(t.model) < espl_model_numel(base.model));
        fill_added(&t);
        train_once(&t);
        assert_memory_not_equal(espl_tape_buffer(&base.tape, base.tape.loss), espl_tape_buffer(&t.tape, t.tape.loss), loss->bytes);
        tiny_close(&base);
        tiny_close(&t);
    }
}

/* What is changed in place is changed again where it is computed again. */
static void what_is_added_recomputes_to_the_same_bits(void **state) {
    (void)state;
    for (int i = 0; i < N_METHODS * N_TINY; i++) {
        tiny none, other;
        const char *name = tiny_names[i % N_TINY];
        open_method(&methods[i / N_TINY], name, ESPL_USE_TRAIN, ESPL_RECOMPUTE_NONE, &none);
        fill_added(&none);
        train_once(&none);
        for (int recompute = ESPL_RECOMPUTE_SELECTIVE; recompute <= ESPL_RECOMPUTE_FULL; recompute++) {
            open_method(&methods[i / N_TINY], name, ESPL_USE_TRAIN, recompute, &other);
            fill_added(&other);
            train_once(&other);
            assert_memory_equal(none.gradients, other.gradients, (size_t)espl_model_flat_size(none.model, 1) * sizeof(float));
            tiny_close(&other);
        }
        tiny_close(&none);
    }
}

/* A model with a prompt as long as its batch (of an encoder-decoder, as the source), whose tokens all become ids of the prompt, with rows
 * that are the tokens' embeddings. */
static void open_as_prompt(const char *name, const espl_kernels *kernels, espl_use use, int recompute, tiny *t) {
    tiny base;
    open_or_fail(name, kernels, ESPL_USE_EVAL, 0, &base);
    bool pair = base.model->dims.source_layers > 0;
    espl_model_options options = {.prompt = {.length = pair ? base.sample.source.n : base.sample.n}};
    assert_int_equal(tiny_open_with(tiny_folder(name), kernels, use, recompute, &options, t), ESPL_OK);
    int32_t *ids = pair ? t->sample.source.ids : t->sample.ids;
    tiny_fill_prompt(t, kernels, ids);
    for (int64_t i = 0; i < options.prompt.length; i++)
        ids[i] = (int32_t)(t->model->dims.vocab + i);
    tiny_close(&base);
}

static void a_prompt_of_a_texts_embeddings_is_that_text(void **state) {
    (void)state;
    for (int m = 0; m < N_TINY; m++) {
        tiny base, t;
        open_or_fail(tiny_names[m], espl_kernels_cpu(ESPL_F32), ESPL_USE_EVAL, 0, &base);
        open_as_prompt(tiny_names[m], espl_kernels_cpu(ESPL_F32), ESPL_USE_EVAL, 0, &t);
        train_once(&base);
        train_once(&t);
        size_t bytes = t.tape.lives[t.tape.loss].bytes;
        assert_memory_equal(espl_tape_buffer(&base.tape, base.tape.loss), espl_tape_buffer(&t.tape, t.tape.loss), bytes);
        assert_int_equal(espl_model_trained_numel(t.model), t.model->prompt.length * t.model->dims.width);
        ((float *)t.weights)[0] += 1.0f; /* the prompt is all that is trained, so it comes first */
        train_once(&t);
        assert_memory_not_equal(espl_tape_buffer(&base.tape, base.tape.loss), espl_tape_buffer(&t.tape, t.tape.loss), bytes);
        tiny_close(&base);
        tiny_close(&t);
    }
}

static const char SHORT_ENCODER[] = "tiny-t5-gated"; /* of fewer layers than the decoder */

/* A model with a prefix in the place of the first two tokens of each segment; segments of fewer take some of the next one. */
static void open_with_prefix(const char *name, const espl_kernels *kernels, espl_use use, int recompute, tiny *t) {
    const espl_model_options options = {.prompt = {.length = 2, .prefix = true}};
    assert_int_equal(tiny_open_with(tiny_folder(name), kernels, use, recompute, &options, t), ESPL_OK);
    int32_t *segments = t->sample.segments;
    for (int32_t s = 0; s + 1 < t->sample.n_segments; s++)
        if (segments[s + 1] - segments[s] <= options.prompt.length)
            segments[s + 1] = segments[s] + 4;
    tiny_number(t->sample.n_segments, segments, t->sample.positions);
    tiny_fill(t);
    tiny_fill_prefix(t, kernels);
}

static double loss_with(tiny *t, int64_t element, double step) {
    ((double *)t->weights)[element] += step;
    train_once(t);
    ((double *)t->weights)[element] -= step;
    return tiny_loss(t);
}

/* By finite differences, and to the same bits however much is computed again. */
static void what_stands_in_front_has_the_gradient_of_its_loss(void **state) {
    const double step = 1e-4;
    (void)state;
    for (int i = 0; i < 2 * N_TINY; i++) {
        const char *name = tiny_names[i % N_TINY];
        tiny t, again;
        if (i >= N_TINY && strcmp(name, SHORT_ENCODER) == 0)
            continue;
        (i < N_TINY ? open_as_prompt : open_with_prefix)(name, espl_kernels_ref(ESPL_F64), ESPL_USE_TRAIN, ESPL_RECOMPUTE_NONE, &t);
        (i < N_TINY ? open_as_prompt : open_with_prefix)(name, espl_kernels_ref(ESPL_F64), ESPL_USE_TRAIN, ESPL_RECOMPUTE_FULL, &again);
        train_once(&t);
        train_once(&again);
        int64_t n = t.model->bucket_numel[0];
        assert_memory_equal(t.gradients, again.gradients, (size_t)n * sizeof(double));
        double most = 0.0, off = 0.0, *gradient = espl_malloc((size_t)n * sizeof *gradient);
        memcpy(gradient, t.gradients, (size_t)n * sizeof *gradient);
        for (int64_t e = 0; e < n; e += n / 7) {
            double difference = (loss_with(&t, e, step) - loss_with(&t, e, -step)) / (2.0 * step);
            most = fmax(most, fabs(gradient[e]));
            off = fmax(off, fabs(difference - gradient[e]));
        }
        assert_true(most > 0.0 && off < 1e-5 * most);
        free(gradient);
        tiny_close(&again);
        tiny_close(&t);
    }
}

static void prefixes_without_a_place_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int64_t length;
        const char *said[2];
    } wrong[] = {{SHORT_ENCODER, 2, {"tune.method: prefix", "layers"}},
                 {"tiny-gpt2", 4096, {"tune.prompt_length is 4096", "the vocabulary"}}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const espl_model_options options = {.prompt = {.length = wrong[i].length, .prefix = true}};
        tiny t;
        assert_int_equal(tiny_open_with(tiny_folder(wrong[i].name), espl_kernels_cpu(ESPL_F32), ESPL_USE_EVAL, 0, &options, &t),
                         ESPL_ERR_USAGE);
        assert_non_null(strstr(espl_status_message(), wrong[i].said[0]));
        assert_non_null(strstr(espl_status_message(), wrong[i].said[1]));
        tiny_close(&t);
    }
}

static void wrong_targets_are_refused(void **state) {
    (void)state;
    static const struct {
        char *target, *rank, *alpha;
        const char *said[2];
    } wrong[] = {
        {"q_prog", "q_prog=1", "q_prog=1", {"tune.targets", "'q_prog'"}}, {"q_proj", "k_proj=1", "q_proj=1", {"tune.ranks", "'k_proj'"}},
        {"q_proj", "q_proj=1", "k_proj=1", {"tune.alphas", "'k_proj'"}},  {"q_proj", "q_proj=0", "q_proj=1", {"tune.ranks", "q_proj=0"}},
        {"q_proj", "q_proj=1.5", "q_proj=1", {"tune.ranks", "1.5"}},      {"q_proj", "q_proj", "q_proj=1", {"tune.ranks", "TARGET=NUMBER"}},
        {"q_proj", "q_proj=2", "q_proj=x", {"tune.alphas", "q_proj=x"}},  {"q_proj", "q_proj=2", "=1", {"tune.alphas", "=1"}}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *targets[] = {wrong[i].target}, *ranks[] = {wrong[i].rank}, *alphas[] = {wrong[i].alpha};
        const espl_model_options options = {
            .lora = {.rank = 2, .targets = targets, .n_targets = 1, .ranks = ranks, .n_ranks = 1, .alphas = alphas, .n_alphas = 1}};
        tiny t;
        assert_int_equal(tiny_open_with(tiny_folder("tiny-llama"), espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, 0, &options, &t),
                         ESPL_ERR_USAGE);
        assert_non_null(strstr(espl_status_message(), wrong[i].said[0]));
        assert_non_null(strstr(espl_status_message(), wrong[i].said[1]));
        tiny_close(&t);
    }
}

/* The first entry that fits counts; the others keep what rank and alpha say. */
static void ranks_and_alphas_by_target(void **state) {
    (void)state;
    char *ranks[] = {"*.0.self_attn.q_proj=3", "q_proj=2"}, *alphas[] = {"k_proj=1"};
    espl_model_options options = methods[0];
    options.lora.ranks = ranks, options.lora.n_ranks = 2;
    options.lora.alphas = alphas, options.lora.n_alphas = 1;
    tiny t;
    assert_int_equal(tiny_open_with(tiny_folder("tiny-llama"), espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, 0, &options, &t), ESPL_OK);
    for (int i = 0; i < t.model->n_params; i++) {
        const espl_param *p = &t.model->params[i], *a = p->lora_a >= 0 ? &t.model->params[p->lora_a] : NULL;
        if (a == NULL)
            continue;
        int64_t rank = strstr(p->name, "q_proj") == NULL ? 4 : p->layer == 0 ? 3 : 2;
        assert_int_equal(a->shape[0], rank);
        assert_int_equal(t.model->params[p->lora_b].shape[1], rank);
        assert_true(espl_lora_scale(t.model, p->lora_b) == (strstr(p->name, "k_proj") ? 1.0f : 8.0f) / (float)rank);
    }
    tiny_close(&t);
}

/* Running twice without `fresh` doubles every gradient. */
static void gradients_accumulate(void **state) {
    (void)state;
    for (int m = 0; m < N_TINY; m++) {
        tiny t;
        open_or_fail(tiny_names[m], espl_kernels_ref(ESPL_F64), ESPL_USE_TRAIN, ESPL_RECOMPUTE_SELECTIVE, &t);
        train_once(&t);
        size_t n = (size_t)espl_model_flat_size(t.model, 1);
        double *once = espl_malloc(n * sizeof *once);
        memcpy(once, t.gradients, n * sizeof *once);
        assert_int_equal(espl_tape_run(&t.tape, &t.batch, false, NULL), ESPL_OK);
        for (size_t i = 0; i < n; i++)
            assert_true(fabs(((double *)t.gradients)[i] - 2.0 * once[i]) <= 1e-12 * (1.0 + fabs(once[i])));
        free(once);
        tiny_close(&t);
    }
}

/* No two buffers that are alive together share a byte. */
static void lives_do_not_meet(void **state) {
    (void)state;
    for (int m = 0; m < N_TINY; m++)
        for (int recompute = ESPL_RECOMPUTE_NONE; recompute <= ESPL_RECOMPUTE_FULL; recompute++) {
            tiny t;
            open_or_fail(tiny_names[m], espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, recompute, &t);
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
        cmocka_unit_test(loss_and_gradients_equal_transformers),
        cmocka_unit_test(logits_equal_transformers),
        cmocka_unit_test(goldens_notice_faults),
        cmocka_unit_test(packing_changes_nothing),
        cmocka_unit_test(recompute_changes_nothing),
        cmocka_unit_test(frozen_rows_change_nothing),
        cmocka_unit_test(wrong_selections_are_refused),
        cmocka_unit_test(what_begins_as_zero_is_the_base),
        cmocka_unit_test(what_is_added_recomputes_to_the_same_bits),
        cmocka_unit_test(a_prompt_of_a_texts_embeddings_is_that_text),
        cmocka_unit_test(what_stands_in_front_has_the_gradient_of_its_loss),
        cmocka_unit_test(prefixes_without_a_place_are_refused),
        cmocka_unit_test(wrong_targets_are_refused),
        cmocka_unit_test(ranks_and_alphas_by_target),
        cmocka_unit_test(gradients_accumulate),
        cmocka_unit_test(lives_do_not_meet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
