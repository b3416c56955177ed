#include "src/data/split.h"

#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct labelled_hash {
    uint64_t hash;
    int32_t label;
} labelled_hash;

static int by_label_and_hash(const void *a, const void *b) {
    const labelled_hash *x = a, *y = b;
    if (x->label != y->label)
        return x->label < y->label ? -1 : 1;
    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

static int by_hash_and_label(const void *a, const void *b) {
    const labelled_hash *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->label < y->label ? -1 : x->label > y->label;
}

static labelled_hash text_at(const espl_texts *source, int64_t i) {
    int64_t d = source->chosen != NULL ? source->chosen[i] : i;
    return (labelled_hash){source->hashes[d], source->labels != NULL ? source->labels[d] : 0};
}

static labelled_hash *gather(const espl_texts *sources, int64_t n_sources, int64_t *n) {
    *n = 0;
    for (int64_t s = 0; s < n_sources; s++)
        *n += sources[s].n;
    labelled_hash *all = espl_malloc((size_t)(*n + 1) * sizeof *all), *at = all;
    for (int64_t s = 0; s < n_sources; s++)
        for (int64_t i = 0; i < sources[s].n; i++)
            *at++ = text_at(&sources[s], i);
    return all;
}

void espl_split_make(const espl_texts *sources, int64_t n_sources, int64_t n_labels, double fraction, espl_split *split) {
    int64_t n;
    labelled_hash *all = gather(sources, n_sources, &n);
    qsort(all, (size_t)n, sizeof *all, by_label_and_hash);
    *split = (espl_split){.last = espl_calloc((size_t)n_labels, sizeof *split->last),
                          .some = espl_calloc((size_t)n_labels, sizeof *split->some),
                          .n_labels = n_labels};
    for (int64_t begin = 0, end; begin < n; begin = end) {
        int32_t label = all[begin].label;
        for (end = begin; end < n && all[end].label == label; end++)
            ;
        int64_t kept = (int64_t)round(fraction * (double)(end - begin));
        split->some[label] = kept > 0;
        if (kept > 0)
            split->last[label] = all[begin + kept - 1].hash;
    }
    free(all);
}

int64_t *espl_split_choose(const espl_split *split, const espl_texts *source, bool kept, int64_t *n) {
    int64_t *chosen = espl_malloc((size_t)(source->n + 1) * sizeof *chosen);
    *n = 0;
    for (int64_t d = 0; d < source->n; d++) {
        labelled_hash text = text_at(source, d);
        bool in = split->some[text.label] && text.hash <= split->last[text.label];
        if (in == kept)
            chosen[(*n)++] = d;
    }
    return chosen;
}

void espl_split_free(espl_split *split) {
    free(split->last);
    free(split->some);
    *split = (espl_split){0};
}

/* First place of a hash in a sorted list, -1: none. */
static int64_t find_hash(const labelled_hash *list, int64_t n, uint64_t hash) {
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        *(list[middle].hash < hash ? &low : &high) = list[middle].hash < hash ? middle + 1 : middle;
    }
    return low < n && list[low].hash == hash ? low : -1;
}

/* The texts of the smaller side lie sorted; the other side, which may be large, is walked once. */
espl_repeats espl_repeats_across(const espl_texts *of, int64_t n_of, const espl_texts *in, int64_t n_in) {
    int64_t n;
    labelled_hash *list = gather(of, n_of, &n);
    uint8_t *met = espl_calloc((size_t)n + 1, 1); /* 1: elsewhere; 2: with another label */
    espl_repeats repeats = {0};
    qsort(list, (size_t)n, sizeof *list, by_hash_and_label);
    for (int64_t s = 0; s < n_in; s++)
        for (int64_t i = 0; i < in[s].n; i++) {
            labelled_hash text = text_at(&in[s], i);
            int64_t at = find_hash(list, n, text.hash);
            for (; at >= 0 && at < n && list[at].hash == text.hash; at++)
                met[at] |= list[at].label != text.label ? 3 : 1;
        }
    for (int64_t i = 0; i < n; i++) {
        repeats.texts += met[i] != 0;
        repeats.conflicting += met[i] == 3;
    }
    free(met);
    free(list);
    return repeats;
}

espl_repeats espl_repeats_within(const espl_texts *sources, int64_t n_sources) {
    int64_t n;
    labelled_hash *list = gather(sources, n_sources, &n);
    espl_repeats repeats = {0};
    qsort(list, (size_t)n, sizeof *list, by_hash_and_label);
    for (int64_t i = 1; i < n; i++) {
        repeats.texts += list[i].hash == list[i - 1].hash;
        repeats.conflicting += list[i].hash == list[i - 1].hash && list[i].label != list[i - 1].label;
    }
    free(list);
    return repeats;
}
