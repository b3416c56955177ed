// test: libs=data,config,core ranks=1 tier=short timeout=60
/* Micro-batches of classification, seq2seq and masked LM; splits by hash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/core/buffer.h"
#include "src/core/rng.h"
#include "src/data/packing.h"
#include "src/data/placement.h"
#include "src/data/split.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CLASSES = 3, VOCABULARY = 500, START = 490, MASK = 499 };

static uint32_t number(uint64_t i) {
    espl_rng_key key = {.seed = 3, .purpose = ESPL_RNG_TEST};
    return espl_rng_u32(&key, i);
}

/* Documents of 2 .. most + 1 tokens with everything that a store may hold. */
typedef struct corpus {
    espl_source source;
    int64_t *documents;
    uint16_t *ids;
    uint8_t *types, *words;
    int32_t *labels, *split;
} corpus;

static corpus make_corpus(int64_t n, uint32_t most) {
    corpus c = {.documents = espl_calloc((size_t)n + 1, sizeof(int64_t)),
                .labels = espl_malloc((size_t)n * sizeof(int32_t)),
                .split = espl_malloc((size_t)n * sizeof(int32_t))};
    for (int64_t d = 0; d < n; d++) {
        uint32_t length = 2 + number((uint64_t)d) % most;
        c.documents[d + 1] = c.documents[d] + length;
        c.labels[d] = (int32_t)(number((uint64_t)(d + 100000)) % 5 % CLASSES);
        c.split[d] = (int32_t)(1 + number((uint64_t)(d + 200000)) % (length - 1));
    }
    int64_t tokens = c.documents[n];
    c.ids = espl_malloc((size_t)tokens * sizeof *c.ids);
    c.types = espl_malloc((size_t)tokens);
    c.words = espl_malloc((size_t)tokens);
    for (int64_t t = 0; t < tokens; t++) {
        c.ids[t] = (uint16_t)(number((uint64_t)(t + 300000)) % START);
        c.types[t] = (uint8_t)(t % 2);
        c.words[t] = number((uint64_t)(t + 900000)) % 3 == 0 ? ESPL_WORD_GOES_ON : ESPL_WORD_BEGINS;
    }
    for (int64_t d = 0; d < n; d++)
        c.words[c.documents[d]] = c.words[c.documents[d + 1] - 1] = ESPL_WORD_SPECIAL;
    c.source = (espl_source){.name = "made",
                             .n_tokens = tokens,
                             .n_documents = n,
                             .documents = c.documents,
                             .ids16 = c.ids,
                             .types = c.types,
                             .words = c.words,
                             .labels = c.labels,
                             .split = c.split};
    return c;
}

static void free_corpus(corpus *c) {
    free(c->documents);
    free(c->ids);
    free(c->types);
    free(c->words);
    free(c->labels);
    free(c->split);
}

static espl_placement *place(const corpus *c, const espl_placement_options *options) {
    espl_placement *p;
    if (espl_placement_make(&c->source, 1, options, &p) != ESPL_OK)
        fail_msg("%s", espl_status_message());
    return p;
}

static espl_sample make_sample(const espl_placement_options *options) {
    espl_sample sample;
    assert_int_equal(espl_sample_make(&options->room, &sample), ESPL_OK);
    return sample;
}

static void check_counts(espl_placement *p, int64_t epoch, int64_t k, const espl_sample *s) {
    double weight;
    assert_int_equal(espl_placement_targets(p, epoch, k, &weight), s->n_targets);
    assert_true(weight == s->weight);
}

/* ---- Classification. */

static void check_labelled(const corpus *c, const espl_placement_options *o, const espl_sample *s, uint8_t *seen) {
    double weight = 0;
    assert_in_range(s->n_segments, 1, o->room.sequences);
    assert_in_range(s->n, 1, o->room.tokens);
    for (int32_t i = 0; i < s->n_segments; i++) {
        int64_t d = s->documents[i], begin = c->documents[d];
        assert_int_equal(s->segments[i + 1] - s->segments[i], c->documents[d + 1] - begin); /* never split */
        assert_int_equal(s->labels[i], c->labels[d]);
        assert_true(s->label_weights[i] == (o->class_weights ? o->class_weights[c->labels[d]] : 1.0f));
        weight += (double)s->label_weights[i];
        seen[d]++;
        for (int32_t t = s->segments[i]; t < s->segments[i + 1]; t++, begin++) {
            assert_int_equal(s->ids[t], c->ids[begin]);
            assert_int_equal(s->types[t], c->types[begin]);
            assert_int_equal(s->positions[t], t - s->segments[i]);
            assert_int_equal(s->targets[t], -1);
        }
    }
    assert_int_equal(s->n_targets, s->n_segments);
    assert_true(s->weight == weight);
}

static void labelled_texts(void **state) {
    (void)state;
    static const float weights[CLASSES] = {0.5f, 2.0f, 1.25f};
    corpus c = make_corpus(9000, 60);
    uint8_t *seen = espl_calloc((size_t)c.source.n_documents, 1);
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        espl_placement_options o = {.task = ESPL_TASK_CLASSIFICATION,
                                    .room = {.tokens = 256, .sequences = 6},
                                    .length = 61,
                                    .shuffle = shuffle,
                                    .seed = 5,
                                    .n_classes = CLASSES,
                                    .class_weights = shuffle ? weights : NULL};
        espl_placement *p = place(&c, &o);
        espl_sample s = make_sample(&o);
        memset(seen, 0, (size_t)c.source.n_documents);
        for (int64_t k = 0; k < espl_placement_count(p, 1); k++) {
            espl_placement_fill(p, 1, k, &s);
            check_labelled(&c, &o, &s, seen);
            check_counts(p, 1, k, &s);
        }
        for (int64_t d = 0; d < c.source.n_documents; d++)
            assert_int_equal(seen[d], 1);
        espl_filling f = espl_placement_filling(p, 1);
        double full = fmax((double)f.tokens / (256.0 * (double)f.micro_batches), (double)f.sequences / (6.0 * (double)f.micro_batches));
        assert_int_equal(f.sequences, 9000);
        if (shuffle)
            print_message("texts: %.1f %% of the scarcer budget\n", 100 * full);
        assert_true(!shuffle || full > 0.95);
        espl_sample_free(&s);
        espl_placement_free(&p);
    }
    free(seen);
    free_corpus(&c);
}

/* Only the chosen documents, each once. */
static void chosen_documents(void **state) {
    (void)state;
    corpus c = make_corpus(3000, 60);
    int64_t chosen[1000];
    uint8_t *seen = espl_calloc((size_t)c.source.n_documents, 1);
    for (int64_t i = 0; i < 1000; i++)
        chosen[i] = 3 * i + 1;
    c.source.chosen = chosen;
    c.source.n_chosen = 1000;
    espl_placement_options o = {
        .task = ESPL_TASK_CLASSIFICATION, .room = {.tokens = 256, .sequences = 64}, .length = 61, .shuffle = true, .n_classes = CLASSES};
    espl_placement *p = place(&c, &o);
    espl_sample s = make_sample(&o);
    for (int64_t k = 0; k < espl_placement_count(p, 7); k++) {
        espl_placement_fill(p, 7, k, &s);
        check_labelled(&c, &o, &s, seen);
    }
    for (int64_t d = 0; d < c.source.n_documents; d++)
        assert_int_equal(seen[d], d % 3 == 1);
    espl_sample_free(&s);
    espl_placement_free(&p);
    free(seen);
    free_corpus(&c);
}

/* ---- Source and target. */

static void check_pair(const corpus *c, const espl_placement_options *o, const espl_sample *s, int32_t i) {
    int64_t d = s->documents[i], begin = c->documents[d], split = c->split[d];
    assert_int_equal(s->source.segments[i + 1] - s->source.segments[i], o->source_prompt + split);
    assert_int_equal(s->segments[i + 1] - s->segments[i], c->documents[d + 1] - begin - split);
    for (int32_t t = s->source.segments[i]; t < s->source.segments[i + 1]; t++) {
        int64_t place = t - s->source.segments[i];
        assert_int_equal(s->source.ids[t], place < o->source_prompt ? o->prompt_id + place : c->ids[begin + place - o->source_prompt]);
        assert_int_equal(s->source.positions[t], place);
    }
    begin += split;
    for (int32_t t = s->segments[i]; t < s->segments[i + 1]; t++, begin++) {
        bool first = t == s->segments[i];
        assert_int_equal(s->targets[t], c->ids[begin]);
        assert_int_equal(s->ids[t], first ? START : c->ids[begin - 1]);
        assert_int_equal(s->positions[t], t - s->segments[i]);
        assert_int_equal(s->types[t], 0);
    }
}

static void sources_and_targets(void **state) {
    (void)state;
    corpus c = make_corpus(9000, 60);
    for (int i = 0; i < 4; i++) {
        bool shuffle = i % 2;
        espl_placement_options o = {.task = ESPL_TASK_SEQ2SEQ,
                                    .room = {.tokens = 200, .source_tokens = i < 2 ? 260 : 400, .sequences = 200},
                                    .length = 60,
                                    .source_prompt = i < 2 ? 0 : 5,
                                    .prompt_id = 1 << 20,
                                    .shuffle = shuffle,
                                    .seed = 5,
                                    .start = START};
        espl_placement *p = place(&c, &o);
        espl_sample s = make_sample(&o);
        int64_t documents = 0, tokens = 0;
        for (int64_t k = 0; k < espl_placement_count(p, 2); k++) {
            espl_placement_fill(p, 2, k, &s);
            assert_in_range(s.n, 1, 200);
            assert_in_range(s.source.n, 1, o.room.source_tokens);
            assert_int_equal(s.source.segments[s.n_segments], s.source.n);
            assert_int_equal(s.n_targets, s.n);
            for (int32_t d = 0; d < s.n_segments; d++)
                check_pair(&c, &o, &s, d);
            check_counts(p, 2, k, &s);
            documents += s.n_segments;
            tokens += s.n + s.source.n;
        }
        espl_filling f = espl_placement_filling(p, 2);
        assert_int_equal(documents, 9000);
        assert_int_equal(tokens, c.source.n_tokens + 9000 * o.source_prompt);
        assert_int_equal(f.tokens + f.source_tokens, tokens);
        assert_true(!shuffle || o.source_prompt > 0 ||
                    (double)f.tokens / (200.0 * (double)f.micro_batches) > 0.95); /* of the scarcer budget */
        espl_sample_free(&s);
        espl_placement_free(&p);
    }
    free_corpus(&c);
}

/* ---- Masked LM. */

typedef struct mask_counts {
    int64_t ordinary, guessed, masked, other, words_torn;
} mask_counts;

/* `shown` [n_tokens] gets what the model saw of each token, -2 where none was seen. */
static mask_counts walk_masked(const corpus *c, const espl_placement_options *o, int64_t epoch, int32_t *shown) {
    espl_placement *p = place(c, o);
    espl_sample s = make_sample(o);
    mask_counts n = {0};
    for (int64_t t = 0; t < c->source.n_tokens; t++)
        shown[t] = -2;
    for (int64_t k = 0; k < espl_placement_count(p, epoch); k++) {
        espl_placement_fill(p, epoch, k, &s);
        check_counts(p, epoch, k, &s);
        for (int32_t i = 0; i < s.n_segments; i++) {
            int64_t token = c->documents[s.documents[i]];
            for (int32_t t = s.segments[i]; t < s.segments[i + 1]; t++, token++) {
                bool guessed = s.targets[t] >= 0, special = c->words[token] == ESPL_WORD_SPECIAL;
                assert_false(guessed && special);
                assert_int_equal(guessed ? s.targets[t] : s.ids[t], c->ids[token]);
                n.ordinary += !special;
                n.guessed += guessed;
                n.masked += guessed && s.ids[t] == MASK;
                n.other += guessed && s.ids[t] != MASK && s.ids[t] != c->ids[token];
                if (t > s.segments[i] && c->words[token] == ESPL_WORD_GOES_ON && c->words[token - 1] != ESPL_WORD_SPECIAL)
                    n.words_torn += guessed != (s.targets[t - 1] >= 0);
                shown[token] = guessed ? s.ids[t] : -1;
            }
        }
    }
    espl_sample_free(&s);
    espl_placement_free(&p);
    return n;
}

/* Within five standard deviations of a binomial count. */
static void check_share(int64_t n, int64_t of, double share) {
    double deviation = sqrt((double)of * share * (1 - share));
    if (fabs((double)n - share * (double)of) > 5 * deviation)
        fail_msg("%lld of %lld, expected %g of them", (long long)n, (long long)of, share);
}

static void masks_are_drawn(void **state) {
    (void)state;
    corpus c = make_corpus(9000, 60);
    size_t bytes = (size_t)c.source.n_tokens * sizeof(int32_t);
    int32_t *first = espl_malloc(bytes), *other = espl_malloc(bytes);
    espl_placement_options o = {.task = ESPL_TASK_MLM,
                                .room = {.tokens = 256, .sequences = 256},
                                .length = 61,
                                .shuffle = true,
                                .seed = 5,
                                .masking = {.probability = 0.15, .mask = MASK, .vocabulary = VOCABULARY}};
    mask_counts n = walk_masked(&c, &o, 0, first);
    check_share(n.guessed, n.ordinary, 0.15);
    check_share(n.masked, n.guessed, 0.8 + 0.1 / VOCABULARY);
    check_share(n.other, n.guessed, 0.1 * (1 - 2.0 / VOCABULARY));
    assert_true(n.words_torn > 1000); /* a check of what whole words are checked with */
    o.room = (espl_room){.tokens = 999, .sequences = 999};
    walk_masked(&c, &o, 0, other); /* wherever a text stands */
    assert_memory_equal(first, other, bytes);
    o.shuffle = false;
    walk_masked(&c, &o, 0, other); /* an evaluation sees the masks of the first epoch */
    assert_memory_equal(first, other, bytes);
    o.shuffle = true;
    walk_masked(&c, &o, 1, other);
    assert_memory_not_equal(first, other, bytes);
    o.masking.whole_words = true;
    n = walk_masked(&c, &o, 0, other);
    assert_int_equal(n.words_torn, 0);
    assert_true(fabs((double)n.guessed / (double)n.ordinary - 0.15) < 0.01);
    o.masking.probability = 1;
    n = walk_masked(&c, &o, 0, other);
    assert_int_equal(n.guessed, n.ordinary);
    free(first);
    free(other);
    free_corpus(&c);
}

/* A word that begins in one piece and goes on in the next is masked as one. */
static void words_go_on_in_the_next_piece(void **state) {
    (void)state;
    enum { N = 4000 };
    int64_t documents[] = {0, N};
    uint16_t ids[N];
    uint8_t words[N];
    int32_t whole[N], cut[N];
    for (int t = 0; t < N; t++) {
        ids[t] = (uint16_t)(t % 100);
        words[t] = t % 5 == 0 ? ESPL_WORD_BEGINS : ESPL_WORD_GOES_ON;
    }
    corpus c = {.documents = documents, .ids = ids, .words = words};
    c.source = (espl_source){.name = "made", .n_tokens = N, .n_documents = 1, .documents = documents, .ids16 = ids, .words = words};
    espl_placement_options o = {.task = ESPL_TASK_MLM,
                                .room = {.tokens = N, .sequences = N},
                                .length = N,
                                .seed = 5,
                                .masking = {.probability = 0.3, .whole_words = true, .mask = MASK, .vocabulary = VOCABULARY}};
    int64_t lengths[] = {N, 7};
    for (int i = 0; i < 2; i++) {
        o.length = lengths[i];
        espl_placement *p = place(&c, &o);
        espl_sample s = make_sample(&o);
        espl_placement_fill(p, 0, 0, &s);
        assert_int_equal(s.n, N);
        memcpy(i == 0 ? whole : cut, s.targets, sizeof whole);
        espl_sample_free(&s);
        espl_placement_free(&p);
    }
    assert_memory_equal(whole, cut, sizeof whole);
}

/* ---- What does not fit. */

static void unfit_sources_are_named(void **state) {
    (void)state;
    corpus c = make_corpus(100, 60);
    const struct {
        espl_placement_options options;
        const char *says;
    } cases[] = {
        {{.task = ESPL_TASK_CLASSIFICATION, .room = {.tokens = 30, .sequences = 4}, .length = 30, .n_classes = CLASSES},
         "more than a micro-batch's 30"},
        {{.task = ESPL_TASK_CLASSIFICATION, .room = {.tokens = 64, .sequences = 4}, .length = 64, .n_classes = 2},
         "has label 2, expected one below 2"},
        {{.task = ESPL_TASK_SEQ2SEQ, .room = {.tokens = 64, .source_tokens = 20, .sequences = 64}, .length = 64}, "in its source"},
        {{.task = ESPL_TASK_SEQ2SEQ, .room = {.tokens = 20, .source_tokens = 64, .sequences = 20}, .length = 20}, "in its target"},
    };
    espl_placement *p;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(espl_placement_make(&c.source, 1, &cases[i].options, &p), ESPL_ERR_DATA);
        if (strstr(espl_status_message(), cases[i].says) == NULL)
            fail_msg("'%s' does not say '%s'", espl_status_message(), cases[i].says);
        espl_status_clear();
    }
    espl_source plain = c.source;
    plain.labels = plain.split = NULL;
    plain.words = NULL;
    const char *const lacks[] = {NULL, "without begins of words, expected data made with data.task: mlm", "without labels",
                                 "without targets"};
    for (int task = ESPL_TASK_MLM; task <= ESPL_TASK_SEQ2SEQ; task++) {
        espl_placement_options o = {.task = task, .room = {.tokens = 64, .source_tokens = 64, .sequences = 64}, .length = 64};
        assert_int_equal(espl_placement_make(&plain, 1, &o, &p), ESPL_ERR_DATA);
        assert_non_null(strstr(espl_status_message(), lacks[task]));
        espl_status_clear();
    }
    free_corpus(&c);
}

/* ---- Packing by two measures. */

static void two_measures_pack(void **state) {
    (void)state;
    enum { N = 4096, BUDGET = 512, SECOND = 128 };
    static int32_t length[N], second[N], bin[N];
    static int64_t fill[N], other[N];
    for (int i = 0; i < N; i++) {
        length[i] = 1 + (int32_t)(number((uint64_t)i) % (i % 3 == 0 ? 400 : 60));
        second[i] = 1 + (int32_t)(number((uint64_t)(i + N)) % (i % 5 == 0 ? 100 : 20));
    }
    espl_packer *packer = espl__packer_make(BUDGET, SECOND);
    int64_t bins[2] = {espl__pack_next_fit(packer, length, second, N, bin), 0};
    bins[1] = espl__pack_best_fit(packer, length, second, N, bin);
    int64_t lengths = 0, seconds = 0;
    for (int i = 0; i < N; i++) {
        assert_in_range(bin[i], 0, bins[1] - 1);
        fill[bin[i]] += length[i];
        other[bin[i]] += second[i];
        lengths += length[i];
        seconds += second[i];
    }
    for (int64_t b = 0; b < bins[1]; b++) {
        assert_in_range(fill[b], 1, BUDGET);
        assert_in_range(other[b], 1, SECOND);
    }
    double least = fmax((double)lengths / BUDGET, (double)seconds / SECOND);
    print_message("two measures: %lld bins, %lld in order, at least %.1f\n", (long long)bins[1], (long long)bins[0], least);
    assert_true((double)bins[1] < 1.05 * least && bins[1] < bins[0]);
    espl__packer_free(&packer);
}

/* ---- Splits. */

static void splits_keep_labels_and_copies_together(void **state) {
    (void)state;
    enum { N = 3000 };
    static uint64_t hashes[N];
    static int32_t labels[N];
    int64_t counts[2][CLASSES] = {{0}}, n[2];
    for (int i = 0; i < N; i++) {
        hashes[i] = (uint64_t)number((uint64_t)(i % 2900)) << 32 | (uint32_t)(i % 2900); /* 100 copies */
        labels[i] = i % 2900 % 10 == 0 ? 2 : i % 2900 % 3 == 0 ? 1 : 0;
    }
    espl_texts sources[] = {{.hashes = hashes, .labels = labels, .n = 1000}, {.hashes = hashes + 1000, .labels = labels + 1000, .n = 2000}};
    espl_split split;
    espl_split_make(sources, 2, CLASSES, 0.2, &split);
    int64_t total = 0;
    for (int s = 0; s < 2; s++) {
        int64_t *kept = espl_split_choose(&split, &sources[s], true, &n[0]), *rest = espl_split_choose(&split, &sources[s], false, &n[1]);
        for (int64_t i = 0; i < n[0]; i++)
            counts[1][sources[s].labels[kept[i]]]++;
        for (int64_t i = 0; i < n[1]; i++)
            counts[0][sources[s].labels[rest[i]]]++;
        espl_texts kept_texts = sources[s], rest_texts = sources[s];
        kept_texts.chosen = kept;
        kept_texts.n = n[0];
        rest_texts.chosen = rest;
        rest_texts.n = n[1];
        assert_int_equal(espl_repeats_across(&kept_texts, 1, &rest_texts, 1).texts, 0);
        total += n[0] + n[1];
        free(kept);
        free(rest);
    }
    assert_int_equal(total, N);
    for (int l = 0; l < CLASSES; l++) {
        double share = (double)counts[1][l] / (double)(counts[0][l] + counts[1][l]);
        assert_true(fabs(share - 0.2) < 0.01);
    }
    espl_split_free(&split);
}

static void repeats_are_counted(void **state) {
    (void)state;
    const uint64_t train[] = {5, 7, 5, 9, 7, 7}, valid[] = {7, 1, 5, 9, 9};
    const int32_t train_labels[] = {0, 1, 0, 1, 0, 1}, valid_labels[] = {1, 0, 0, 1, 0};
    espl_texts a = {.hashes = train, .labels = train_labels, .n = 6}, b = {.hashes = valid, .labels = valid_labels, .n = 5};
    espl_repeats across = espl_repeats_across(&b, 1, &a, 1), within = espl_repeats_within(&a, 1);
    assert_int_equal(across.texts, 4);
    assert_int_equal(across.conflicting, 2); /* 7, which has both labels there, and the 9 that says 0 */
    assert_int_equal(within.texts, 3);
    assert_int_equal(within.conflicting, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labelled_texts),
        cmocka_unit_test(chosen_documents),
        cmocka_unit_test(sources_and_targets),
        cmocka_unit_test(masks_are_drawn),
        cmocka_unit_test(words_go_on_in_the_next_piece),
        cmocka_unit_test(unfit_sources_are_named),
        cmocka_unit_test(two_measures_pack),
        cmocka_unit_test(splits_keep_labels_and_copies_together),
        cmocka_unit_test(repeats_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
