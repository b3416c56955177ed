/* Added tokens: contents that stand for one id wherever they are written, before or after normalisation.
 *
 * Matching takes the leftmost position and there the longest token. The tokens are sorted, so walking along the text narrows a range of
 * candidates byte by byte. */
#include "io/tokenizer/tokenizer_parts.h"
#include "src/core/log.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct token {
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special, in_vocab;
    bool skipped;            /* decodes to the content of a special token */
    char *content, *pattern; /* pattern: normalised content, where the token asks for it */
    size_t n_content, n_pattern;
} token;

typedef struct token_set {
    token **at; /* sorted by pattern */
    size_t n;
    size_t first[257]; /* where patterns that begin with a byte begin */
} token_set;

struct espl__added {
    token *at;
    size_t n, capacity;
    token_set sets[2]; /* [normalized] */
};

static token *find_content(const espl__added *added, const char *content, size_t n) {
    for (size_t i = 0; i < added->n; i++)
        if (added->at[i].n_content == n && memcmp(added->at[i].content, content, n) == 0)
            return &added->at[i];
    return NULL;
}

static token *find_id(const espl__added *added, int32_t id) {
    for (size_t i = 0; i < added->n; i++)
        if (added->at[i].id == id)
            return &added->at[i];
    return NULL;
}

/* The id is the vocabulary's, else the next free one: the file's own number is only checked, as the reference does. */
static void set_id(const espl__where *where, json_t *json, const espl__vocab *vocab, token *t, int32_t *next_id) {
    int32_t id = espl__vocab_id(vocab, t->content, t->n_content);
    t->in_vocab = id >= 0;
    t->id = id >= 0 ? id : (*next_id)++;
    json_t *said = json_object_get(json, "id");
    if (!json_is_integer(said) || json_integer_value(said) != t->id)
        ESPL_WARN("%s: added token '%s' has the id %d, not what the file says", where->path, t->content, t->id);
}

static espl_status parse_flags(const espl__where *where, json_t *json, token *t) {
    ESPL_TRY(espl__json_bool(where, json, "single_word", -1, &t->single_word));
    ESPL_TRY(espl__json_bool(where, json, "lstrip", -1, &t->lstrip));
    ESPL_TRY(espl__json_bool(where, json, "rstrip", -1, &t->rstrip));
    ESPL_TRY(espl__json_bool(where, json, "normalized", -1, &t->normalized));
    return espl__json_bool(where, json, "special", -1, &t->special);
}

static espl_status parse_token(const espl__where *where, json_t *json, const espl__vocab *vocab, espl__added *added, int32_t *next_id) {
    const char *content;
    size_t n;
    ESPL_TRY(espl__json_string(where, json, "content", &content, &n));
    if (n == 0)
        return ESPL_OK;
    token *t = find_content(added, content, n);
    if (!t) {
        ESPL__PUSH(added, (token){.n_content = n});
        t = &added->at[added->n - 1];
        t->content = memcpy(espl_calloc(n + 1, 1), content, n);
        set_id(where, json, vocab, t, next_id);
    }
    bool was_special = t->special;
    ESPL_TRY(parse_flags(where, json, t));
    t->special = t->special || was_special;
    return ESPL_OK;
}

static espl_status set_pattern(const espl__where *where, const espl__normalizers *normalizers, espl__scratch *scratch, token *t) {
    espl__text *out = &scratch->texts[0];
    espl__text_clear(out, false);
    espl__slice content = {.data = t->content, .n = t->n_content};
    if (t->normalized)
        ESPL_TRY(espl__normalizers_apply(normalizers, scratch, content, out));
    else
        espl__text_append(out, content);
    if (out->n == 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: added token '%s' is empty once normalised", where->path, t->content);
    t->pattern = memcpy(espl_malloc(out->n), out->data, out->n);
    t->n_pattern = out->n;
    return ESPL_OK;
}

static int by_pattern(const void *a, const void *b) {
    const token *x = *(token *const *)a, *y = *(token *const *)b;
    int order = memcmp(x->pattern, y->pattern, x->n_pattern < y->n_pattern ? x->n_pattern : y->n_pattern);
    return order ? order : (x->n_pattern > y->n_pattern) - (x->n_pattern < y->n_pattern);
}

static espl_status build_set(const espl__where *where, espl__added *added, bool normalized, token_set *set) {
    set->at = espl_malloc(added->n * sizeof(token *));
    for (size_t i = 0; i < added->n; i++)
        if (added->at[i].normalized == normalized)
            set->at[set->n++] = &added->at[i];
    if (set->n > 0)
        qsort(set->at, set->n, sizeof(token *), by_pattern);
    for (size_t i = 1; i < set->n; i++)
        if (by_pattern(&set->at[i - 1], &set->at[i]) == 0)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: added tokens '%s' and '%s' are the same once normalised", where->path, set->at[i - 1]->content,
                      set->at[i]->content);
    for (size_t c = 0, i = 0; c < 257; c++) {
        while (i < set->n && (unsigned char)set->at[i]->pattern[0] < c)
            i++;
        set->first[c] = i;
    }
    return ESPL_OK;
}

static void mark_skipped(espl__added *added) {
    for (size_t i = 0; i < added->n; i++) {
        const token *same = find_content(added, added->at[i].pattern, added->at[i].n_pattern);
        added->at[i].skipped = same && same->special;
    }
}

espl_status espl__added_parse(const char *path, json_t *list, const espl__vocab *vocab, const espl__normalizers *normalizers,
                              espl__scratch *scratch, espl__added **out) {
    espl__where where = {path, "added_tokens", ""};
    espl__added *added = *out = espl_calloc(1, sizeof *added);
    int32_t next_id = (int32_t)vocab->n_entries;
    size_t i;
    json_t *item;
    if (list && !json_is_null(list) && !json_is_array(list))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: 'added_tokens' must be a list", path);
    json_array_foreach(list, i, item) { ESPL_TRY(parse_token(&where, item, vocab, added, &next_id)); }
    for (i = 0; i < added->n; i++)
        ESPL_TRY(set_pattern(&where, normalizers, scratch, &added->at[i]));
    mark_skipped(added);
    ESPL_TRY(build_set(&where, added, false, &added->sets[0]));
    return build_set(&where, added, true, &added->sets[1]);
}

void espl__added_free(espl__added **added) {
    if (!*added)
        return;
    for (size_t i = 0; i < (*added)->n; i++) {
        free((*added)->at[i].content);
        free((*added)->at[i].pattern);
    }
    free((*added)->at);
    free((*added)->sets[0].at);
    free((*added)->sets[1].at);
    free(*added);
    *added = NULL;
}

/* First of [low, high) whose byte at `depth` is at least `byte`; all are longer than depth. */
static size_t lower_bound(const token_set *set, size_t low, size_t high, size_t depth, int byte) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)set->at[middle]->pattern[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token that the text begins with, or NULL. */
static const token *longest(const token_set *set, const char *text, size_t n) {
    const token *best = NULL;
    size_t low = set->first[(unsigned char)text[0]], high = set->first[(unsigned char)text[0] + 1];
    for (size_t depth = 1; low < high; depth++) {
        if (set->at[low]->n_pattern == depth)
            best = set->at[low++];
        if (depth == n)
            break;
        int byte = (unsigned char)text[depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
    }
    return best;
}

/* Letters, marks, digits, connectors, joiners: \w of UTS 18. The ranges are Other_Alphabetic outside the marks. */
static bool is_word(int32_t code) {
    static const int32_t symbols[][2] = {{0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}, {0x200C, 0x200D}};
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
        if (code >= symbols[i][0] && code <= symbols[i][1])
            return true;
    int category = utf8proc_category(code);
    if (category == UTF8PROC_CATEGORY_CN)
        return espl__unicode_newer('L', code) || espl__unicode_newer('M', code) || espl__unicode_newer('D', code);
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) || category == UTF8PROC_CATEGORY_PC;
}

static size_t last_begin(const char *text, size_t end) {
    do
        end--;
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80);
    return end;
}

static bool is_single_word(const char *text, size_t n, size_t begin, size_t end) {
    int size;
    if (begin > 0 && is_word(espl__utf8_decode(text + last_begin(text, begin), &size)))
        return false;
    return end >= n || !is_word(espl__utf8_decode(text + end, &size));
}

static size_t skip_left(const char *text, size_t at) {
    int size;
    while (at > 0 && espl__is_space(espl__utf8_decode(text + last_begin(text, at), &size)))
        at = last_begin(text, at);
    return at;
}

static size_t skip_right(const char *text, size_t n, size_t at) {
    int size;
    while (at < n && espl__is_space(espl__utf8_decode(text + at, &size)))
        at += (size_t)size;
    return at;
}

typedef struct cut_state {
    espl__slice text;
    size_t origin; /* of the text in the pieces' text */
    espl__pieces *out;
} cut_state;

static void cut(const cut_state *cutter, size_t begin, size_t end, int32_t id) {
    if (begin >= end)
        return;
    int64_t shift = cutter->text.map ? cutter->text.map[begin].begin : cutter->text.shift + (int64_t)begin;
    ESPL__PUSH(cutter->out, (espl__piece){cutter->origin + begin, cutter->origin + end, shift, id});
}

void espl__added_split(const espl__added *added, bool normalized, espl__slice whole, size_t from, size_t to, int64_t shift,
                       espl__pieces *out) {
    const token_set *set = &added->sets[normalized];
    cut_state cutter = {espl__slice_part(whole, from, to), from, out};
    cutter.text.shift = shift;
    const char *text = cutter.text.data;
    size_t n = cutter.text.n, done = 0;
    for (size_t i = 0; set->n > 0 && i < n;) {
        const token *t = longest(set, text + i, n - i);
        if (!t) {
            i++;
            continue;
        }
        size_t begin = i, end = i + t->n_pattern;
        i = end;
        if (t->single_word && !is_single_word(text, n, begin, end))
            continue;
        if (t->lstrip)
            begin = skip_left(text, begin) > done ? skip_left(text, begin) : done;
        if (t->rstrip)
            end = skip_right(text, n, end);
        if (done < begin)
            cut(&cutter, done, begin, -1);
        cut(&cutter, begin, end, t->id);
        done = end;
    }
    cut(&cutter, done, n, -1);
}

int32_t espl__added_id(const espl__added *added, const char *content, size_t n) {
    const token *t = find_content(added, content, n);
    return t ? t->id : -1;
}

int64_t espl__added_count(const espl__added *added) {
    int64_t count = 0;
    for (size_t i = 0; i < added->n; i++)
        count += !added->at[i].in_vocab;
    return count;
}

const char *espl__added_text(const espl__added *added, int32_t id, size_t *n) {
    const token *t = find_id(added, id);
    if (!t)
        return NULL;
    *n = t->n_pattern;
    return t->pattern;
}

bool espl__added_special(const espl__added *added, int32_t id) {
    const token *t = find_id(added, id);
    return t && t->skipped;
}
