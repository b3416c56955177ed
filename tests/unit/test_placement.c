// test: libs=data,core ranks=1 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/core/buffer.h"
#include "src/core/rng.h"
#include "src/data/packing.h"
#include "src/data/permutation.h"
#include "src/data/placement.h"

#include <stdlib.h>
#include <string.h>

/* ---- Sources whose ids are the tokens' own numbers, so that a sample says which tokens it holds. */

typedef struct corpus {
    espl_source source;
    int64_t *documents;
    uint32_t *ids;
    uint8_t *mask;
} corpus;

static uint32_t number(uint64_t i) {
    espl_rng_key key = {.seed = 7, .purpose = ESPL_RNG_TEST};
    return espl_rng_u32(&key, i);
}

/* n documents of lengths 0 .. 2 mean, most of them short, as in real text; ids begin at `first`. */
static corpus make_corpus(int64_t n, int64_t mean, uint64_t salt, uint32_t first) {
    corpus c = {0};
    c.documents = espl_calloc((size_t)n + 1, sizeof *c.documents);
    for (int64_t d = 0; d < n; d++) {
        double u = number(salt * 1000003 + (uint64_t)d) * 0x1p-32;
        c.documents[d + 1] = c.documents[d] + (int64_t)(3 * (double)mean * u * u);
    }
    int64_t tokens = c.documents[n];
    c.ids = espl_malloc((size_t)(tokens + 1) * sizeof *c.ids);
    for (int64_t t = 0; t < tokens; t++)
        c.ids[t] = first + (uint32_t)t;
    c.source = (espl_source){.name = "made", .n_tokens = tokens, .n_documents = n, .documents = c.documents, .ids32 = c.ids};
    return c;
}

static void add_mask(corpus *c) {
    c->mask = espl_malloc((size_t)c->source.n_tokens + 1);
    for (int64_t t = 0; t < c->source.n_tokens; t++)
        c->mask[t] = number((uint64_t)t + 99) % 3 != 0;
    c->source.mask = c->mask;
}

static void free_corpus(corpus *c) {
    free(c->documents);
    free(c->ids);
    free(c->mask);
}

static void make_sample(int64_t budget, espl_sample *sample) {
    assert_int_equal(espl_sample_make(&(espl_room){.tokens = budget, .sequences = budget}, sample), ESPL_OK);
}

/* The document of token t, by search. */
static int64_t document_end(const corpus *c, int64_t t) {
    int64_t low = 0, high = c->source.n_documents;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        *(c->documents[middle] <= t ? &low : &high) = middle;
    }
    while (c->documents[low + 1] <= t)
        low++;
    return c->documents[low + 1];
}

static int32_t expected_target(const corpus *c, const espl_placement_options *options, int64_t t) {
    int64_t end = options->windows ? c->source.n_tokens : document_end(c, t);
    if (t + 1 >= end || (c->mask != NULL && !c->mask[t + 1]))
        return -1;
    return (int32_t)c->ids[t + 1];
}

/* Walks an epoch: checks bounds, positions, continuity, targets; counts how often each token was seen; returns the targets. */
static int64_t walk(espl_placement *p, const corpus *c, const espl_placement_options *options, int64_t epoch, uint8_t *seen) {
    espl_sample sample;
    int64_t n = espl_placement_count(p, epoch), targets = 0;
    make_sample(options->room.tokens, &sample);
    for (int64_t k = 0; k < n; k++) {
        espl_placement_fill(p, epoch, k, &sample);
        assert_in_range(sample.n, 1, options->room.tokens);
        assert_int_equal(sample.segments[0], 0);
        assert_int_equal(sample.segments[sample.n_segments], sample.n);
        int64_t counted = 0;
        for (int32_t s = 0; s < sample.n_segments; s++) {
            int32_t begin = sample.segments[s], end = sample.segments[s + 1];
            for (int64_t i = 0; i < options->prompt; i++, begin++) {
                assert_int_equal(sample.ids[begin], options->prompt_id + i);
                assert_int_equal(sample.positions[begin], i);
                assert_int_equal(sample.targets[begin], -1);
                assert_int_equal(sample.types[begin], 0);
            }
            assert_in_range(end - begin, 1, options->length);
            for (int32_t i = begin; i < end; i++) {
                assert_int_equal(sample.positions[i], options->prompt + i - begin);
                assert_int_equal(sample.ids[i], sample.ids[begin] + (i - begin));
                assert_int_equal(sample.targets[i], expected_target(c, options, sample.ids[i]));
                seen[sample.ids[i]]++;
                counted += sample.targets[i] >= 0;
            }
        }
        assert_int_equal(counted, sample.n_targets);
        assert_int_equal(counted, espl_placement_targets(p, epoch, k, NULL));
        targets += counted;
    }
    espl_sample_free(&sample);
    return targets;
}

static int64_t all_targets(const corpus *c, const espl_placement_options *options) {
    int64_t n = 0;
    for (int64_t t = 0; t < c->source.n_tokens; t++)
        n += expected_target(c, options, t) >= 0;
    return n;
}

static void check_epoch(const corpus *c, const espl_placement_options *options, int64_t epoch) {
    espl_placement *p;
    uint8_t *seen = espl_calloc((size_t)c->source.n_tokens + 1, 1);
    assert_int_equal(espl_placement_make(&c->source, 1, options, &p), ESPL_OK);
    assert_int_equal(walk(p, c, options, epoch, seen), all_targets(c, options));
    for (int64_t t = 0; t < c->source.n_tokens; t++)
        assert_int_equal(seen[t], 1);
    espl_placement_free(&p);
    free(seen);
}

/* ---- Permutation and packing. */

static void permutations_are_permutations(void **state) {
    (void)state;
    espl_permutation p = {0};
    for (int64_t n = 1; n < 3000; n = n < 40 ? n + 1 : n * 3 / 2 + 1) {
        uint8_t *hit = espl_calloc((size_t)n, 1);
        espl_rng_key key = {.seed = 3, .purpose = ESPL_RNG_ORDER, .step = (uint32_t)n};
        espl__permutation_make(&key, n, &p);
        for (int64_t i = 0; i < n; i++) {
            int64_t at = espl__permutation_at(&p, i);
            assert_in_range(at, 0, n - 1);
            assert_int_equal(hit[at]++, 0);
        }
        free(hit);
    }
    espl__permutation_free(&p);
}

/* Over many keys each point goes everywhere equally often: chi-square of 10 x 10 counts, 81 degrees of freedom, p = 1e-6 at 154. */
static void permutations_are_fair(void **state) {
    (void)state;
    enum { N = 10, KEYS = 20000 };
    int64_t counts[N][N] = {{0}};
    espl_permutation p = {0};
    for (uint32_t k = 0; k < KEYS; k++) {
        espl_rng_key key = {.seed = 5, .purpose = ESPL_RNG_ORDER, .step = k};
        espl__permutation_make(&key, N, &p);
        for (int64_t i = 0; i < N; i++)
            counts[i][espl__permutation_at(&p, i)]++;
    }
    double chi = 0, expected = (double)KEYS / N;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            chi += ((double)counts[i][j] - expected) * ((double)counts[i][j] - expected) / expected;
    print_message("chi-square of 10 points under %d keys: %.1f (81 expected)\n", KEYS, chi);
    assert_true(chi < 154);
    espl__permutation_free(&p);
}

static void check_bins(const int32_t *length, int64_t n, const int32_t *bin, int64_t n_bins, int64_t budget) {
    int64_t *fill = espl_calloc((size_t)n_bins + 1, sizeof *fill);
    for (int64_t i = 0; i < n; i++) {
        assert_in_range(bin[i], 0, n_bins - 1);
        fill[bin[i]] += length[i];
    }
    for (int64_t b = 0; b < n_bins; b++)
        assert_in_range(fill[b], 1, budget);
    free(fill);
}

static int64_t pack_next(espl_packer *packer, const int32_t *length, const int32_t *second, int64_t n, int32_t *bin) {
    return espl__pack_next_fit(packer, length, second, n, bin);
}

/* Bins hold as many pieces as they may, and where that is no less than they would, the same ones. */
static void packing_respects_limits(void **state) {
    (void)state;
    enum { N = 1000, BUDGET = 256, MOST = 7 };
    static int32_t length[N], bin[N], free_bin[N], count[N];
    for (int64_t i = 0; i < N; i++)
        length[i] = 1 + (int32_t)(number((uint64_t)i) % 40);
    for (int next = 0; next < 2; next++) {
        espl_packer *packer = espl__packer_make(BUDGET, 0);
        int64_t (*pack)(espl_packer *, const int32_t *, const int32_t *, int64_t, int32_t *) = next ? pack_next : espl__pack_best_fit;
        int64_t n_free = pack(packer, length, NULL, N, free_bin);
        espl__packer_limit(packer, MOST);
        int64_t n_bins = pack(packer, length, NULL, N, bin);
        check_bins(length, N, bin, n_bins, BUDGET);
        memset(count, 0, sizeof count);
        for (int64_t i = 0; i < N; i++)
            assert_true(++count[bin[i]] <= MOST);
        assert_true(n_bins > n_free && n_bins >= (N + MOST - 1) / MOST);
        espl__packer_limit(packer, BUDGET);
        assert_int_equal(pack(packer, length, NULL, N, bin), n_free);
        assert_memory_equal(bin, free_bin, sizeof bin);
        espl__packer_free(&packer);
    }
}

static void packing_respects_budgets(void **state) {
    (void)state;
    enum { N = 2000 };
    static int32_t length[N], bin[N];
    int64_t budgets[] = {1, 63, 64, 1000, 4096, 70000};
    for (size_t b = 0; b < sizeof budgets / sizeof budgets[0]; b++) {
        espl_packer *packer = espl__packer_make(budgets[b], 0);
        for (int round = 0; round < 3; round++) {
            for (int64_t i = 0; i < N; i++)
                length[i] = 1 + (int32_t)(number((uint64_t)(i + N * round)) % (uint64_t)(round == 2 ? budgets[b] : (budgets[b] + 3) / 4));
            int64_t best = espl__pack_best_fit(packer, length, NULL, N, bin);
            check_bins(length, N, bin, best, budgets[b]);
            int64_t next = espl__pack_next_fit(packer, length, NULL, N, bin);
            check_bins(length, N, bin, next, budgets[b]);
            assert_true(best <= next);
        }
        espl__packer_free(&packer);
    }
}

/* Pieces made by cutting full bins: the best packing is known, best fit must come within 11/9 of it. */
static void packing_is_near_the_best(void **state) {
    (void)state;
    enum { BINS = 400, BUDGET = 1024 };
    static int32_t length[BINS * 4], bin[BINS * 4];
    int64_t n = 0;
    for (int b = 0; b < BINS; b++)
        for (int32_t left = BUDGET, part = 0; left > 0 && part < 4; part++) {
            int32_t take = part == 3 ? left : 1 + (int32_t)(number((uint64_t)n) % (uint32_t)left);
            length[n++] = take;
            left -= take;
        }
    espl_packer *packer = espl__packer_make(BUDGET, 0);
    int64_t n_bins = espl__pack_best_fit(packer, length, NULL, n, bin);
    print_message("%d full bins cut up and packed again: %lld bins\n", BINS, (long long)n_bins);
    assert_in_range(n_bins, BINS, BINS * 11 / 9 + 1);
    espl__packer_free(&packer);
}

/* ---- Epochs. */

static void every_token_once_an_epoch(void **state) {
    (void)state;
    const struct {
        int64_t documents, mean;
        espl_placement_options options;
        bool masked;
    } cases[] = {
        {3000, 60, {.room = {256, 0, 256}, .length = 256, .shuffle = true, .seed = 1}, false},
        {3000, 60, {.room = {256, 0, 256}, .length = 100, .shuffle = true, .seed = 1}, true},
        {9000, 20, {.room = {64, 0, 64}, .length = 17, .shuffle = true, .seed = 2}, false},
        {5, 4000, {.room = {128, 0, 128}, .length = 128, .shuffle = true, .seed = 3}, false},
        {1, 50000, {.room = {8, 0, 8}, .length = 1, .shuffle = true, .seed = 3}, true},
        {2, 3, {.room = {4096, 0, 4096}, .length = 4096, .shuffle = true, .seed = 4}, false},
        {3000, 60, {.room = {256, 0, 256}, .length = 256, .shuffle = false}, true},
        {3000, 60, {.room = {300, 0, 300}, .length = 77, .shuffle = false}, false},
        {3000, 60, {.room = {256, 0, 256}, .length = 128, .windows = true, .shuffle = true, .seed = 1}, false},
        {300, 60, {.room = {256, 0, 256}, .length = 100, .windows = true, .shuffle = true, .seed = 2}, true},
        {300, 60, {.room = {256, 0, 256}, .length = 256, .windows = true, .shuffle = false}, false},
        {2, 30, {.room = {4096, 0, 4096}, .length = 4096, .windows = true, .shuffle = true, .seed = 5}, false},
        {3000, 60, {.room = {256, 0, 256}, .length = 100, .prompt = 20, .prompt_id = 1 << 20, .shuffle = true, .seed = 6}, true},
        {300,
         60,
         {.room = {64, 0, 64}, .length = 44, .prompt = 20, .prompt_id = 1 << 20, .windows = true, .shuffle = true, .seed = 7},
         false},
        {300, 60, {.room = {64, 0, 64}, .length = 61, .prompt = 3, .prompt_id = 1 << 20, .shuffle = false}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        corpus c = make_corpus(cases[i].documents, cases[i].mean, i, 0);
        if (cases[i].masked)
            add_mask(&c);
        check_epoch(&c, &cases[i].options, 0);
        check_epoch(&c, &cases[i].options, 5);
        free_corpus(&c);
    }
}

static void random_lengths_keep_the_properties(void **state) {
    (void)state;
    for (uint64_t round = 0; round < 60; round++) {
        int64_t budget = 1 + number(10 * round) % 400, length = 1 + number(10 * round + 1) % budget;
        corpus c = make_corpus(2 + number(10 * round + 2) % 500, 1 + number(10 * round + 3) % 300, round + 50, 0);
        espl_placement_options options = {.room = {budget, 0, budget},
                                          .length = length,
                                          .windows = number(10 * round + 4) & 1,
                                          .shuffle = number(10 * round + 5) % 4 != 0,
                                          .seed = round};
        if (number(10 * round + 6) & 1)
            add_mask(&c);
        if (all_targets(&c, &options) > 0)
            check_epoch(&c, &options, number(10 * round + 7) % 4);
        free_corpus(&c);
    }
}

static uint64_t digest(espl_placement *p, int64_t epoch, int64_t k, int64_t budget) {
    espl_sample sample;
    uint64_t hash = 14695981039346656037u;
    make_sample(budget, &sample);
    espl_placement_fill(p, epoch, k, &sample);
    for (int64_t i = 0; i < sample.n; i++)
        hash = (hash ^ (uint32_t)sample.ids[i]) * 1099511628211u;
    espl_sample_free(&sample);
    return hash;
}

/* Asked in any order, by any placement of the same options, a micro-batch is the same; another seed or epoch gives another. */
static void pure_function_of_seed_epoch_and_k(void **state) {
    (void)state;
    corpus c = make_corpus(20000, 50, 1, 0);
    espl_placement_options options = {.room = {512, 0, 512}, .length = 512, .shuffle = true, .seed = 11};
    espl_placement *a, *b, *other;
    assert_int_equal(espl_placement_make(&c.source, 1, &options, &a), ESPL_OK);
    assert_int_equal(espl_placement_make(&c.source, 1, &options, &b), ESPL_OK);
    options.seed = 12;
    assert_int_equal(espl_placement_make(&c.source, 1, &options, &other), ESPL_OK);
    int64_t n = espl_placement_count(a, 3), same = 0;
    for (int64_t k = 0; k < n; k += 37) {
        uint64_t expected = digest(a, 3, k, 512);
        espl_placement_count(b, k % 3);
        assert_int_equal(digest(b, 3, n - 1 - k, 512), digest(a, 3, n - 1 - k, 512));
        assert_int_equal(digest(b, 3, k, 512), expected);
        same += expected == digest(a, 4, k, 512);
        same += expected == digest(other, 3, k, 512);
    }
    assert_int_equal(same, 0);
    espl_placement_free(&a);
    espl_placement_free(&b);
    espl_placement_free(&other);
    free_corpus(&c);
}

/* Best fit places long documents first; their bins must not lead the epoch. */
static void order_does_not_depend_on_length(void **state) {
    (void)state;
    enum { BUDGET = 1024 };
    corpus c = make_corpus(30000, 200, 4, 0);
    espl_placement_options options = {.room = {BUDGET, 0, BUDGET}, .length = BUDGET, .shuffle = true, .seed = 2};
    espl_placement *p;
    espl_sample sample;
    double sum[2] = {0}, n[2] = {0};
    assert_int_equal(espl_placement_make(&c.source, 1, &options, &p), ESPL_OK);
    make_sample(BUDGET, &sample);
    for (int64_t k = 0; k < 1200; k++) {
        espl_placement_fill(p, 0, k, &sample);
        sum[k >= 600] += (double)sample.n;
        n[k >= 600] += sample.n_segments;
    }
    print_message("mean piece in the first and second 600 micro-batches: %.1f, %.1f tokens\n", sum[0] / n[0], sum[1] / n[1]);
    assert_true(sum[0] / n[0] < 1.15 * sum[1] / n[1] && sum[1] / n[1] < 1.15 * sum[0] / n[0]);
    espl_sample_free(&sample);
    espl_placement_free(&p);
    free_corpus(&c);
}

/* ---- Mixing. */

enum { SOURCES = 3, MIX_BUDGET = 256 };

static void count_mix(espl_placement *p, int64_t epoch, int64_t from, int64_t to, const uint32_t *first, double *share) {
    espl_sample sample;
    double total = 0;
    make_sample(MIX_BUDGET, &sample);
    memset(share, 0, SOURCES * sizeof *share);
    for (int64_t k = from; k < to; k++) {
        espl_placement_fill(p, epoch, k, &sample);
        for (int64_t i = 0; i < sample.n; i++)
            share[((uint32_t)sample.ids[i] >= first[1]) + ((uint32_t)sample.ids[i] >= first[2])]++;
        total += (double)sample.n;
    }
    for (int s = 0; s < SOURCES; s++)
        share[s] /= total;
    espl_sample_free(&sample);
}

static void mixes_by_weight(void **state) {
    (void)state;
    const uint32_t first[SOURCES] = {0, 100000000, 200000000};
    const double weight[SOURCES] = {3, 1, 1};
    corpus c[SOURCES] = {make_corpus(40000, 50, 1, first[0]), make_corpus(30000, 50, 2, first[1]), make_corpus(500, 50, 3, first[2])};
    espl_source sources[SOURCES];
    double share[SOURCES];
    int64_t tokens = 0;
    for (int s = 0; s < SOURCES; s++) {
        sources[s] = c[s].source;
        sources[s].weight = weight[s];
        tokens += sources[s].n_tokens;
    }
    for (int windows = 0; windows < 2; windows++) {
        espl_placement_options options = {
            .room = {MIX_BUDGET, 0, MIX_BUDGET}, .length = MIX_BUDGET, .windows = windows, .shuffle = true, .seed = 9};
        espl_placement *p;
        assert_int_equal(espl_placement_make(sources, SOURCES, &options, &p), ESPL_OK);
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            int64_t n = espl_placement_count(p, epoch);
            count_mix(p, epoch, 0, n, first, share);
            print_message("%s, epoch %lld: shares %.4f %.4f %.4f in %lld micro-batches\n", windows ? "windows" : "packed", (long long)epoch,
                          share[0], share[1], share[2], (long long)n);
            for (int s = 0; s < SOURCES; s++)
                assert_true(share[s] > weight[s] / 5 - 0.01 && share[s] < weight[s] / 5 + 0.01);
            assert_true((double)n * MIX_BUDGET > 0.999 * (double)tokens && (double)n * MIX_BUDGET < 1.05 * (double)tokens);
        }
        int64_t n = espl_placement_count(p, 0); /* a stretch of an epoch has the mix of the whole */
        count_mix(p, 0, n / 2, n / 2 + n / 10, first, share);
        for (int s = 0; s < SOURCES; s++)
            assert_true(share[s] > weight[s] / 5 - 0.05 && share[s] < weight[s] / 5 + 0.05);
        espl_placement_free(&p);
    }
    for (int s = 0; s < SOURCES; s++)
        free_corpus(&c[s]);
}

/* A source that gives less than itself an epoch goes on where the last epoch ended: over the epochs all counts differ by at most one. */
static void weighted_epochs_continue(void **state) {
    (void)state;
    enum { EPOCHS = 5 };
    const uint32_t first = 1000000;
    corpus large = make_corpus(5000, 50, 1, 0), small = make_corpus(700, 50, 2, first);
    espl_source sources[2] = {large.source, small.source};
    sources[0].weight = sources[1].weight = 1;
    espl_placement_options options = {.room = {MIX_BUDGET, 0, MIX_BUDGET}, .length = MIX_BUDGET, .shuffle = true, .seed = 1};
    espl_placement *p;
    espl_sample sample;
    uint8_t *seen[2] = {espl_calloc((size_t)large.source.n_tokens, 1), espl_calloc((size_t)small.source.n_tokens, 1)};
    assert_int_equal(espl_placement_make(sources, 2, &options, &p), ESPL_OK);
    make_sample(MIX_BUDGET, &sample);
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++)
        for (int64_t k = 0; k < espl_placement_count(p, epoch); k++) {
            espl_placement_fill(p, epoch, k, &sample);
            for (int64_t i = 0; i < sample.n; i++)
                seen[(uint32_t)sample.ids[i] >= first][(uint32_t)sample.ids[i] % first]++;
        }
    for (int s = 0; s < 2; s++) {
        uint8_t least = 255, most = 0;
        for (int64_t t = 0; t < sources[s].n_tokens; t++) {
            least = seen[s][t] < least ? seen[s][t] : least;
            most = seen[s][t] > most ? seen[s][t] : most;
        }
        assert_true(least > 0 && most - least <= 1);
        free(seen[s]);
    }
    espl_sample_free(&sample);
    espl_placement_free(&p);
    free_corpus(&large);
    free_corpus(&small);
}

static void evaluation_is_in_natural_order(void **state) {
    (void)state;
    corpus c[2] = {make_corpus(900, 40, 1, 0), make_corpus(700, 40, 2, 1000000)};
    espl_source sources[2] = {c[0].source, c[1].source};
    sources[0].weight = 1;
    sources[1].weight = 9;
    espl_placement_options options = {.room = {512, 0, 512}, .length = 256};
    espl_placement *p;
    espl_sample sample;
    int64_t at = 0;
    assert_int_equal(espl_placement_make(sources, 2, &options, &p), ESPL_OK);
    make_sample(512, &sample);
    for (int64_t k = 0; k < espl_placement_count(p, 8); k++) {
        espl_placement_fill(p, 8, k, &sample);
        for (int64_t i = 0; i < sample.n; i++, at++) {
            int64_t second = at - sources[0].n_tokens;
            assert_int_equal(sample.ids[i], second < 0 ? at : 1000000 + second);
        }
    }
    assert_int_equal(at, sources[0].n_tokens + sources[1].n_tokens);
    espl_sample_free(&sample);
    espl_placement_free(&p);
    free_corpus(&c[0]);
    free_corpus(&c[1]);
}

/* ---- Edges. */

static void beyond_the_end_there_is_nothing(void **state) {
    (void)state;
    corpus c = make_corpus(3, 40, 1, 0);
    espl_placement_options options = {.room = {1024, 0, 1024}, .length = 1024, .shuffle = true};
    espl_placement *p;
    espl_sample sample;
    assert_int_equal(espl_placement_make(&c.source, 1, &options, &p), ESPL_OK);
    make_sample(1024, &sample);
    assert_int_equal(espl_placement_count(p, 0), 1);
    espl_placement_fill(p, 0, 1, &sample);
    assert_int_equal(sample.n, 0);
    assert_int_equal(sample.n_segments, 0);
    assert_int_equal(sample.n_targets, 0);
    assert_int_equal(espl_placement_targets(p, 0, 1, NULL), 0);
    espl_sample_free(&sample);
    espl_placement_free(&p);
    espl_placement_free(&p);
    free_corpus(&c);
}

static void nothing_to_learn_is_an_error(void **state) {
    (void)state;
    const int64_t documents[] = {0, 1, 2};
    const uint16_t ids[] = {5, 6};
    const uint8_t mask[] = {1, 0};
    espl_source source = {.name = "tiny.jsonl", .n_tokens = 2, .n_documents = 2, .documents = documents, .ids16 = ids};
    espl_placement_options options = {.room = {8, 0, 8}, .length = 8, .shuffle = true};
    espl_placement *p = NULL;
    assert_int_equal(espl_placement_make(&source, 1, &options, &p), ESPL_ERR_DATA);
    assert_non_null(strstr(espl_status_message(), "tiny.jsonl"));
    options.windows = true;
    source.mask = mask;
    assert_int_equal(espl_placement_make(&source, 1, &options, &p), ESPL_ERR_DATA);
    assert_null(p);
    source.mask = NULL;
    assert_int_equal(espl_placement_make(&source, 1, &options, &p), ESPL_OK);
    assert_int_equal(espl_placement_targets(p, 0, 0, NULL) + espl_placement_targets(p, 0, 1, NULL), 1);
    espl_placement_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permutations_are_permutations),      cmocka_unit_test(permutations_are_fair),
        cmocka_unit_test(packing_respects_budgets),           cmocka_unit_test(packing_respects_limits),
        cmocka_unit_test(packing_is_near_the_best),           cmocka_unit_test(every_token_once_an_epoch),
        cmocka_unit_test(random_lengths_keep_the_properties), cmocka_unit_test(pure_function_of_seed_epoch_and_k),
        cmocka_unit_test(order_does_not_depend_on_length),    cmocka_unit_test(mixes_by_weight),
        cmocka_unit_test(weighted_epochs_continue),           cmocka_unit_test(evaluation_is_in_natural_order),
        cmocka_unit_test(beyond_the_end_there_is_nothing),    cmocka_unit_test(nothing_to_learn_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
