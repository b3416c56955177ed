#include "src/eval/sampling.h"

#include "src/core/rng.h"
#include "src/core/status.h"

#include <math.h>
#include <string.h>

size_t espl_sampling_scratch(int64_t vocab) { return 2 * (size_t)vocab * sizeof(uint64_t); }

/* ---- What looks at the tokens so far. */

/* Every token that occurs is punished once, however often it occurs. */
static void penalise_repetition(float penalty, espl_context context, float *logits, int64_t vocab, void *scratch) {
    uint8_t *seen = memset(scratch, 0, (size_t)vocab);
    for (int64_t i = 0; i < context.n; i++) {
        int32_t id = context.ids[i];
        if (id >= vocab || seen[id])
            continue;
        seen[id] = 1;
        logits[id] = logits[id] < 0 ? logits[id] * penalty : logits[id] / penalty;
    }
}

static void remove_repeated_ngrams(int64_t length, espl_context context, float *logits, int64_t vocab) {
    if (context.n < length)
        return;
    const int32_t *ids = context.ids, *tail = ids + context.n + 1 - length;
    size_t bytes = (size_t)(length - 1) * sizeof *ids;
    for (int64_t i = 0; i + length <= context.n; i++)
        if ((bytes == 0 || memcmp(ids + i, tail, bytes) == 0) && ids[i + length - 1] < vocab)
            logits[ids[i + length - 1]] = -INFINITY;
}

void espl_sampling_penalise(const espl_sampling *how, espl_context context, float *logits, int64_t vocab, void *scratch) {
    if (how->repetition_penalty != 1.0)
        penalise_repetition((float)how->repetition_penalty, context, logits, vocab, scratch);
    if (how->no_repeat_ngram > 0)
        remove_repeated_ngrams(how->no_repeat_ngram, context, logits, vocab);
    if (context.n_new < how->min_new_tokens)
        for (int i = 0; i < how->n_eos; i++)
            logits[how->eos[i]] = -INFINITY;
}

/* ---- Top-k and top-p, on one sorted list. */

/* Bits that sort as the float does; both zeros alike. */
static uint32_t sort_key(float x) {
    uint32_t bits;
    x += 0.0f;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static float key_value(uint64_t entry) {
    uint32_t key = (uint32_t)(entry >> 32), bits = key & 0x80000000u ? key & 0x7FFFFFFFu : ~key;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* One stable pass by the byte at `shift`. */
static void radix_pass(uint64_t *to, const uint64_t *from, int64_t n, int shift) {
    int64_t start[257] = {0};
    for (int64_t i = 0; i < n; i++)
        start[(from[i] >> shift & 0xFF) + 1]++;
    for (int byte = 0; byte < 256; byte++)
        start[byte + 1] += start[byte];
    for (int64_t i = 0; i < n; i++)
        to[start[from[i] >> shift & 0xFF]++] = from[i];
}

/* Entries (key of the logit, index), ascending, equal logits by index. qsort(3) would take memory. */
static const uint64_t *sort_logits(const float *logits, int64_t vocab, uint64_t *entries) {
    uint64_t *other = entries + vocab;
    for (int64_t i = 0; i < vocab; i++)
        entries[i] = (uint64_t)sort_key(logits[i]) << 32 | (uint32_t)i;
    for (int shift = 32; shift < 64; shift += 16) {
        radix_pass(other, entries, vocab, shift);
        radix_pass(entries, other, vocab, shift + 8);
    }
    return entries;
}

static int64_t index_of(uint64_t entry) { return (int64_t)(entry & 0xFFFFFFFFu); }

/* First entry of the sorted list that top-k keeps. */
static int64_t first_of_top_k(const uint64_t *sorted, int64_t vocab, int64_t k) {
    int64_t first = vocab - (k < vocab ? k : vocab);
    while (first > 0 && sorted[first - 1] >> 32 == sorted[first] >> 32)
        first--;
    return first;
}

/* First entry that top-p keeps: an entry goes when it and those before it have together a probability of at most 1 - p. As in PyTorch the
 * probabilities are floats, their running sum is a double, and it is compared as a float. */
static int64_t first_of_top_p(const uint64_t *sorted, int64_t begin, int64_t vocab, double top_p, int64_t least) {
    double largest = key_value(sorted[vocab - 1]), total = 0, before = 0;
    float border = (float)(1.0 - top_p);
    for (int64_t i = begin; i < vocab; i++)
        total += exp((double)key_value(sorted[i]) - largest);
    for (int64_t i = begin; i < vocab - least; i++) {
        before += (double)(float)(exp((double)key_value(sorted[i]) - largest) / total);
        if ((float)before > border)
            return i;
    }
    return begin > vocab - least ? begin : vocab - least;
}

void espl_sampling_warp(const espl_sampling *how, float *logits, int64_t vocab, void *scratch) {
    int64_t least = how->min_tokens_to_keep < vocab ? how->min_tokens_to_keep : vocab, first = 0;
    float temperature = (float)how->temperature;
    ESPL_ASSERT(temperature > 0 && least >= 1, "temperature %g, %lld tokens to keep", how->temperature, (long long)least);
    for (int64_t i = 0; i < vocab && temperature != 1.0f; i++)
        logits[i] /= temperature;
    if (how->top_k <= 0 && how->top_p >= 1.0)
        return;
    const uint64_t *sorted = sort_logits(logits, vocab, scratch);
    if (how->top_k > 0)
        first = first_of_top_k(sorted, vocab, how->top_k > least ? how->top_k : least);
    if (how->top_p < 1.0)
        first = first_of_top_p(sorted, first, vocab, how->top_p, least);
    for (int64_t i = 0; i < first; i++)
        logits[index_of(sorted[i])] = -INFINITY;
}

/* ---- Choosing. */

int32_t espl_sampling_argmax(const float *logits, int64_t vocab) {
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

static double sum_of_exp(const float *logits, int64_t vocab, double largest) {
    double total = 0;
    for (int64_t i = 0; i < vocab; i++)
        total += exp((double)logits[i] - largest);
    return total;
}

void espl_sampling_log_softmax(float *logits, int64_t vocab) {
    double largest = logits[espl_sampling_argmax(logits, vocab)], shift = largest + log(sum_of_exp(logits, vocab, largest));
    for (int64_t i = 0; i < vocab; i++)
        logits[i] = (float)((double)logits[i] - shift);
}

/* 53 bits: with the 24 of espl_rng_uniform tokens of small probability would come too often or never. */
static double uniform(uint64_t seed, uint32_t sequence, uint32_t position) {
    espl_rng_key key = {.seed = seed, .purpose = ESPL_RNG_SAMPLE, .step = position, .op = sequence};
    espl_rng4 bits = espl_rng_block(&key, 0);
    uint64_t whole = (uint64_t)(bits.v[0] >> 5) << 26 | bits.v[1] >> 6;
    return (double)whole * 0x1p-53;
}

int32_t espl_sampling_draw(const float *logits, int64_t vocab, uint64_t seed, uint32_t sequence, uint32_t position) {
    int32_t best = espl_sampling_argmax(logits, vocab);
    double largest = logits[best], left = uniform(seed, sequence, position) * sum_of_exp(logits, vocab, largest);
    for (int64_t i = 0; i < vocab; i++) {
        double share = exp((double)logits[i] - largest);
        if (left < share)
            return (int32_t)i;
        left -= share;
    }
    return best; /* rounding left a rest beyond the last token */
}

int32_t espl_sampling_next(const espl_sampling *how, espl_context context, float *logits, int64_t vocab, uint64_t seed, uint32_t sequence,
                           void *scratch) {
    espl_sampling_penalise(how, context, logits, vocab, scratch);
    if (how->temperature == 0)
        return espl_sampling_argmax(logits, vocab);
    espl_sampling_warp(how, logits, vocab, scratch);
    return espl_sampling_draw(logits, vocab, seed, sequence, (uint32_t)context.n);
}
