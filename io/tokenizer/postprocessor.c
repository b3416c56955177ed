/* Post-processors: special tokens around a text, and offsets without the white space that a token carries. */
#include "io/tokenizer/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

typedef struct post_kind {
    const char *type;
    espl_status (*parse)(const espl__where *where, json_t *json, espl__post *post);
} post_kind;

static espl_status push_ids(const espl__where *where, json_t *ids, const char *name, espl__post *post) {
    size_t i;
    json_t *id;
    if (!json_is_array(ids))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: special token '%s' has no 'ids'", where->path, where->section, where->type, name);
    json_array_foreach(ids, i, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: special token '%s' has an id that is no number", where->path, where->section, where->type,
                      name);
        ESPL__PUSH(post, (espl__template_piece){(int32_t)json_integer_value(id)});
    }
    return ESPL_OK;
}

static espl_status parse_piece(const espl__where *where, json_t *piece, json_t *tokens, espl__post *post) {
    const char *sequence = json_string_value(json_object_get(json_object_get(piece, "Sequence"), "id"));
    const char *special = json_string_value(json_object_get(json_object_get(piece, "SpecialToken"), "id"));
    if (sequence && strcmp(sequence, "A") == 0)
        ESPL__PUSH(post, (espl__template_piece){-1});
    else if (special)
        ESPL_TRY(push_ids(where, json_object_get(json_object_get(tokens, special), "ids"), special, post));
    else
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: 'single' must be made of Sequence A and SpecialTokens", where->path, where->section,
                  where->type);
    return ESPL_OK;
}

static espl_status one_template(const espl__where *where, const espl__post *post) {
    if (post->n > 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: a second template is not supported", where->path, where->section, where->type);
    return ESPL_OK;
}

static espl_status parse_template(const espl__where *where, json_t *json, espl__post *post) {
    json_t *list = json_object_get(json, "single"), *piece;
    size_t i;
    ESPL_TRY(one_template(where, post));
    if (!json_is_array(list) || json_array_size(list) == 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: 'single' must be a list", where->path, where->section, where->type);
    json_array_foreach(list, i, piece) { ESPL_TRY(parse_piece(where, piece, json_object_get(json, "special_tokens"), post)); }
    return ESPL_OK;
}

/* ["token", id] */
static espl_status push_named(const espl__where *where, json_t *json, const char *key, espl__post *post) {
    json_t *id = json_array_get(json_object_get(json, key), 1);
    if (!json_is_integer(id))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: '%s' must be [token, id]", where->path, where->section, where->type, key);
    ESPL__PUSH(post, (espl__template_piece){(int32_t)json_integer_value(id)});
    return ESPL_OK;
}

static espl_status parse_bert(const espl__where *where, json_t *json, espl__post *post) {
    ESPL_TRY(one_template(where, post));
    ESPL_TRY(push_named(where, json, "cls", post));
    ESPL__PUSH(post, (espl__template_piece){-1});
    return push_named(where, json, "sep", post);
}

static espl_status parse_byte_level(const espl__where *where, json_t *json, espl__post *post) {
    ESPL_TRY(espl__json_bool(where, json, "trim_offsets", -1, &post->trim_offsets));
    return espl__json_bool(where, json, "add_prefix_space", -1, &post->add_prefix_space);
}

static espl_status parse_roberta(const espl__where *where, json_t *json, espl__post *post) {
    ESPL_TRY(parse_byte_level(where, json, post));
    return parse_bert(where, json, post);
}

static const post_kind kinds[] = {
    {"TemplateProcessing", parse_template},
    {"BertProcessing", parse_bert},
    {"RobertaProcessing", parse_roberta},
    {"ByteLevel", parse_byte_level},
};

static espl_status add(const espl__where *where, json_t *json, void *context) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].type, where->type) == 0)
            return kinds[i].parse(where, json, context);
    ESPL_FAIL(ESPL_ERR_DATA, "%s: post-processor '%s' is not supported", where->path, where->type);
}

espl_status espl__post_parse(const char *path, json_t *value, espl__post *post) {
    ESPL_TRY(espl__json_each(&(espl__where){path, "post_processor", ""}, value, "processors", add, post));
    if (post->n == 0)
        ESPL__PUSH(post, (espl__template_piece){-1});
    return ESPL_OK;
}

void espl__post_free(espl__post *post) {
    free(post->at);
    *post = (espl__post){0};
}

/* U+0120 is a space in the byte-level alphabet. */
static bool blank(int32_t code) { return code == 0x120 || espl__is_space(code); }

static int64_t leading(const char *token, size_t n) {
    int64_t count = 0;
    int size;
    for (size_t i = 0; i < n && blank(espl__utf8_decode(token + i, &size)); i += (size_t)size)
        count++;
    return count;
}

static int64_t trailing(const char *token, size_t n) {
    int64_t count = 0;
    int size;
    for (size_t i = n; i > 0; count++) {
        do
            i--;
        while (i > 0 && ((unsigned char)token[i] & 0xC0) == 0x80);
        if (!blank(espl__utf8_decode(token + i, &size)))
            break;
    }
    return count;
}

static bool starts(const char *text, size_t size, int64_t at) { return (size_t)at >= size || ((unsigned char)text[at] & 0xC0) != 0x80; }

espl__span espl__post_trim(const espl__post *post, const char *token, size_t n, const char *text, size_t size, espl__span span,
                           bool first) {
    int64_t left = leading(token, n), right = trailing(token, n), end = span.end;
    if (left == 1 && post->add_prefix_space && (first || span.begin == 0))
        left = 0; /* the space was ours, not the text's */
    for (; left > 0 && span.begin < span.end; left--)
        do
            span.begin++;
        while (span.begin < span.end && !starts(text, size, span.begin));
    for (; right > 0 && end > 0; right--)
        do
            end--;
        while (end > 0 && !starts(text, size, end));
    if (right == 0)
        span.end = end > span.begin ? end : span.begin;
    return span;
}
