/* Normalizers: what happens to a text before it is split. */
#include "io/tokenizer/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct normalizer_kind {
    const char *type;
    espl_status (*parse)(const espl__where *where, json_t *json, espl__normalizer *row); /* NULL: nothing to say */
    espl_status (*apply)(const espl__normalizer *row, espl__scratch *scratch, espl__slice in, espl__text *out);
    int32_t (*map)(int32_t code); /* what apply_map does with each character */
} normalizer_kind;

struct espl__normalizer {
    const normalizer_kind *kind;
    espl__form form;
    espl__pattern *pattern;
    espl__charmap *charmap;
    char *content;
    size_t n_content;
    bool left, right;
};

static espl_status parse_content(const espl__where *where, json_t *json, const char *key, espl__normalizer *row) {
    const char *text;
    ESPL_TRY(espl__json_string(where, json, key, &text, &row->n_content));
    row->content = memcpy(espl_malloc(row->n_content), text, row->n_content);
    return ESPL_OK;
}

static espl_status parse_prepend(const espl__where *where, json_t *json, espl__normalizer *row) {
    return parse_content(where, json, "prepend", row);
}

static espl_status parse_replace(const espl__where *where, json_t *json, espl__normalizer *row) {
    ESPL_TRY(parse_content(where, json, "content", row));
    return espl__pattern_parse(where, json, &row->pattern);
}

static espl_status parse_strip(const espl__where *where, json_t *json, espl__normalizer *row) {
    ESPL_TRY(espl__json_bool(where, json, "strip_left", -1, &row->left));
    return espl__json_bool(where, json, "strip_right", -1, &row->right);
}

static espl_status parse_form(const espl__where *where, json_t *json, espl__normalizer *row) {
    (void)json;
    static const char *const names[] = {[ESPL__NFC] = "NFC", [ESPL__NFD] = "NFD", [ESPL__NFKC] = "NFKC", [ESPL__NFKD] = "NFKD"};
    while (strcmp(names[row->form], where->type) != 0)
        row->form++;
    return ESPL_OK;
}

static espl_status parse_precompiled(const espl__where *where, json_t *json, espl__normalizer *row) {
    return espl__charmap_parse(where, json, &row->charmap);
}

static espl_status apply_prepend(const espl__normalizer *row, espl__scratch *scratch, espl__slice in, espl__text *out) {
    (void)scratch;
    if (in.n > 0)
        espl__text_fill(out, row->content, row->n_content, espl__slice_span(&in, 0));
    espl__text_append(out, in);
    return ESPL_OK;
}

/* What replaces a match belongs to the last character that it replaces. */
static espl_status apply_replace(const espl__normalizer *row, espl__scratch *scratch, espl__slice in, espl__text *out) {
    ESPL_TRY(espl__pattern_find(row->pattern, scratch, in.data, in.n, &scratch->matches));
    for (size_t i = 0; i < scratch->matches.n; i++) {
        espl__match m = scratch->matches.at[i];
        if (m.match)
            espl__text_fill(out, row->content, row->n_content, espl__slice_span(&in, (ptrdiff_t)m.end - 1));
        else
            espl__text_append(out, espl__slice_part(in, m.begin, m.end));
    }
    return ESPL_OK;
}

static espl_status apply_strip(const espl__normalizer *row, espl__scratch *scratch, espl__slice in, espl__text *out) {
    (void)scratch;
    size_t begin = 0, end = in.n;
    int size;
    while (row->left && begin < end && espl__is_space(espl__utf8_decode(in.data + begin, &size)))
        begin += (size_t)size;
    while (row->right && end > begin) {
        size_t last = end - 1;
        while (last > begin && ((unsigned char)in.data[last] & 0xC0) == 0x80)
            last--;
        if (!espl__is_space(espl__utf8_decode(in.data + last, &size)))
            break;
        end = last;
    }
    espl__text_append(out, espl__slice_part(in, begin, end));
    return ESPL_OK;
}

static espl_status apply_form(const espl__normalizer *row, espl__scratch *scratch, espl__slice in, espl__text *out) {
    espl__unicode_form(row->form, scratch, in, out);
    return ESPL_OK;
}

/* One character at a time, so a final sigma is an ordinary one; U+0130 is the only character that becomes two. */
static espl_status apply_lowercase(const espl__normalizer *row, espl__scratch *scratch, espl__slice in, espl__text *out) {
    (void)row, (void)scratch;
    int size;
    for (size_t i = 0; i < in.n; i += (size_t)size) {
        char bytes[4];
        int32_t code = espl__utf8_decode(in.data + i, &size);
        espl__span span = espl__slice_span(&in, (ptrdiff_t)i);
        if (code == 0x130)
            espl__text_fill(out, "i\xCC\x87", 3, span);
        else
            espl__text_fill(out, bytes, (size_t)espl__utf8_encode(utf8proc_tolower(code), bytes), span);
    }
    return ESPL_OK;
}

static espl_status apply_map(const espl__normalizer *row, espl__scratch *scratch, espl__slice in, espl__text *out) {
    (void)scratch;
    int size;
    for (size_t i = 0; i < in.n; i += (size_t)size) {
        char bytes[4];
        int32_t code = row->kind->map(espl__utf8_decode(in.data + i, &size));
        if (code >= 0)
            espl__text_fill(out, bytes, (size_t)espl__utf8_encode(code, bytes), espl__slice_span(&in, (ptrdiff_t)i));
    }
    return ESPL_OK;
}

/* A space on both sides, so that each will be a word. */
static espl_status apply_ideographs(const espl__normalizer *row, espl__scratch *scratch, espl__slice in, espl__text *out) {
    (void)row, (void)scratch;
    int size;
    for (size_t i = 0; i < in.n; i += (size_t)size) {
        bool apart = espl__is_ideograph(espl__utf8_decode(in.data + i, &size));
        espl__span span = espl__slice_span(&in, (ptrdiff_t)i);
        if (apart)
            espl__text_fill(out, " ", 1, span);
        espl__text_fill(out, in.data + i, (size_t)size, span);
        if (apart)
            espl__text_fill(out, " ", 1, span);
    }
    return ESPL_OK;
}

static espl_status apply_precompiled(const espl__normalizer *row, espl__scratch *scratch, espl__slice in, espl__text *out) {
    return espl__charmap_apply(row->charmap, scratch, in, out);
}

static espl_status apply_byte_level(const espl__normalizer *row, espl__scratch *scratch, espl__slice in, espl__text *out) {
    (void)row, (void)scratch;
    espl__text_byte_level(out, in);
    return ESPL_OK;
}

static const normalizer_kind kinds[] = {
    {"Prepend", parse_prepend, apply_prepend, NULL},
    {"Replace", parse_replace, apply_replace, NULL},
    {"Strip", parse_strip, apply_strip, NULL},
    {"Lowercase", NULL, apply_lowercase, NULL},
    {"ByteLevel", NULL, apply_byte_level, NULL},
    {"NFC", parse_form, apply_form, NULL},
    {"NFD", parse_form, apply_form, NULL},
    {"NFKC", parse_form, apply_form, NULL},
    {"NFKD", parse_form, apply_form, NULL},
    {"Nmt", NULL, apply_map, espl__map_nmt},
    {"Precompiled", parse_precompiled, apply_precompiled, NULL},
};

/* BertNormalizer is a row for each of its switches. */
static const normalizer_kind clean_text = {"BertNormalizer", NULL, apply_map, espl__map_clean};
static const normalizer_kind ideographs_apart = {"BertNormalizer", NULL, apply_ideographs, NULL};
static const normalizer_kind decomposed = {"BertNormalizer", NULL, apply_form, NULL};
static const normalizer_kind without_marks = {"BertNormalizer", NULL, apply_map, espl__map_marks};
static const normalizer_kind lower_case = {"BertNormalizer", NULL, apply_lowercase, NULL};

static espl_status add_bert(const espl__where *where, json_t *json, espl__normalizers *list) {
    bool clean, ideographs, accents, lowercase;
    ESPL_TRY(espl__json_bool(where, json, "clean_text", -1, &clean));
    ESPL_TRY(espl__json_bool(where, json, "handle_chinese_chars", -1, &ideographs));
    ESPL_TRY(espl__json_bool(where, json, "lowercase", -1, &lowercase));
    ESPL_TRY(espl__json_bool(where, json, "strip_accents", 0, &accents));
    if (!json_is_boolean(json_object_get(json, "strip_accents"))) /* not said: accents go where capitals go */
        accents = lowercase;
    const struct {
        bool wanted;
        const normalizer_kind *kind;
    } steps[] = {
        {clean, &clean_text}, {ideographs, &ideographs_apart}, {accents, &decomposed}, {accents, &without_marks}, {lowercase, &lower_case}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (steps[i].wanted)
            ESPL__PUSH(list, (espl__normalizer){.kind = steps[i].kind, .form = ESPL__NFD});
    return ESPL_OK;
}

static espl_status add(const espl__where *where, json_t *json, void *context) {
    espl__normalizers *list = context;
    if (strcmp(where->type, clean_text.type) == 0)
        return add_bert(where, json, list);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].type, where->type) != 0)
            continue;
        ESPL__PUSH(list, (espl__normalizer){.kind = &kinds[i]});
        return kinds[i].parse ? kinds[i].parse(where, json, &list->at[list->n - 1]) : ESPL_OK;
    }
    ESPL_FAIL(ESPL_ERR_DATA, "%s: normalizer '%s' is not supported", where->path, where->type);
}

espl_status espl__normalizers_parse(const char *path, json_t *value, espl__normalizers *list) {
    return espl__json_each(&(espl__where){path, "normalizer", ""}, value, "normalizers", add, list);
}

void espl__normalizers_free(espl__normalizers *list) {
    for (size_t i = 0; i < list->n; i++) {
        espl__pattern_free(&list->at[i].pattern);
        espl__charmap_free(&list->at[i].charmap);
        free(list->at[i].content);
    }
    free(list->at);
    *list = (espl__normalizers){0};
}

espl_status espl__normalizers_apply(const espl__normalizers *list, espl__scratch *scratch, espl__slice in, espl__text *out) {
    if (list->n == 0)
        espl__text_append(out, in);
    for (size_t i = 0; i < list->n; i++) {
        espl__text *to = i + 1 == list->n ? out : &scratch->chain[i % 2];
        if (to != out)
            espl__text_clear(to, scratch->tracked);
        ESPL_TRY(list->at[i].kind->apply(&list->at[i], scratch, in, to));
        int64_t shift = in.shift;
        in = espl__text_slice(to);
        in.shift = shift;
    }
    return ESPL_OK;
}
