/* Post-processors: special tokens around a text or a pair, and offsets without the white space that a token carries. */
#include "io/tokenizer/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

typedef struct post_kind {
    const char *type;
    espl_status (*parse)(const espl__where *where, json_t *json, espl__post *post);
} post_kind;

static espl_status push_ids(const espl__where *where, json_t *ids, const char *name, uint8_t type, espl__template *to) {
    size_t i;
    json_t *id;
    if (!json_is_array(ids))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: special token '%s' has no 'ids'", where->path, where->section, where->type, name);
    json_array_foreach(ids, i, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: special token '%s' has an id that is no number", where->path, where->section, where->type,
                      name);
        ESPL__PUSH(to, (espl__template_piece){(int32_t)json_integer_value(id), type});
    }
    return ESPL_OK;
}

/* The one key of a piece and what is under it: {"Sequence": {"id": "A", "type_id": 0}} */
static espl_status parse_piece(const espl__where *where, json_t *piece, json_t *tokens, espl__template *to) {
    json_t *sequence = json_object_get(piece, "Sequence"), *special = json_object_get(piece, "SpecialToken"),
           *type = json_object_get(sequence ? sequence : special, "type_id");
    const char *id = json_string_value(json_object_get(sequence ? sequence : special, "id"));
    if (!id || (sequence && strcmp(id, "A") != 0 && strcmp(id, "B") != 0))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: a template must be made of Sequences A and B and SpecialTokens", where->path, where->section,
                  where->type);
    if (type && (!json_is_integer(type) || json_integer_value(type) < 0 || json_integer_value(type) > UINT8_MAX))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: 'type_id' of '%s' must be an integer from 0 to 255", where->path, where->section, where->type,
                  id);
    uint8_t number = (uint8_t)json_integer_value(type);
    if (special)
        return push_ids(where, json_object_get(json_object_get(tokens, id), "ids"), id, number, to);
    ESPL__PUSH(to, (espl__template_piece){*id == 'A' ? ESPL__FIRST_TEXT : ESPL__SECOND_TEXT, number});
    return ESPL_OK;
}

static bool has_text(const espl__template *pieces, int32_t text) {
    bool has = false;
    for (size_t i = 0; i < pieces->n; i++)
        has = has || pieces->at[i].id == text;
    return has;
}

/* A template that leaves a text out would lose it without a word. */
static espl_status check_texts(const espl__where *where, const espl__post *post) {
    if (!has_text(&post->single, ESPL__FIRST_TEXT) || has_text(&post->single, ESPL__SECOND_TEXT))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: 'single' must hold Sequence A and no B", where->path, where->section, where->type);
    if (post->pair.n > 0 && (!has_text(&post->pair, ESPL__FIRST_TEXT) || !has_text(&post->pair, ESPL__SECOND_TEXT)))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: 'pair' must hold Sequences A and B", where->path, where->section, where->type);
    return ESPL_OK;
}

static espl_status one_template(const espl__where *where, const espl__post *post) {
    if (post->single.n > 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: a second template is not supported", where->path, where->section, where->type);
    return ESPL_OK;
}

static espl_status parse_list(const espl__where *where, json_t *json, const char *key, espl__template *to) {
    json_t *list = json_object_get(json, key), *piece;
    size_t i;
    if (!json_is_array(list) || json_array_size(list) == 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: '%s' must be a list", where->path, where->section, where->type, key);
    json_array_foreach(list, i, piece) { ESPL_TRY(parse_piece(where, piece, json_object_get(json, "special_tokens"), to)); }
    return ESPL_OK;
}

static espl_status parse_template(const espl__where *where, json_t *json, espl__post *post) {
    ESPL_TRY(one_template(where, post));
    ESPL_TRY(parse_list(where, json, "single", &post->single));
    if (json_object_get(json, "pair"))
        ESPL_TRY(parse_list(where, json, "pair", &post->pair));
    return check_texts(where, post);
}

/* ["token", id] */
static espl_status take_named(const espl__where *where, json_t *json, const char *key, int32_t *value) {
    json_t *id = json_array_get(json_object_get(json, key), 1);
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: '%s' must be [token, id]", where->path, where->section, where->type, key);
    *value = (int32_t)json_integer_value(id);
    return ESPL_OK;
}

static void push_pieces(espl__template *to, const espl__template_piece *pieces, size_t n) {
    for (size_t i = 0; i < n; i++)
        ESPL__PUSH(to, pieces[i]);
}

/* [CLS] A [SEP], and [CLS] A [SEP] B [SEP] with type 1 from B on */
static espl_status parse_bert(const espl__where *where, json_t *json, espl__post *post) {
    int32_t cls, sep;
    ESPL_TRY(one_template(where, post));
    ESPL_TRY(take_named(where, json, "cls", &cls));
    ESPL_TRY(take_named(where, json, "sep", &sep));
    const espl__template_piece pieces[] = {{cls, 0}, {ESPL__FIRST_TEXT, 0}, {sep, 0}, {ESPL__SECOND_TEXT, 1}, {sep, 1}};
    push_pieces(&post->single, pieces, 3);
    push_pieces(&post->pair, pieces, 5);
    return ESPL_OK;
}

static espl_status parse_byte_level(const espl__where *where, json_t *json, espl__post *post) {
    ESPL_TRY(espl__json_bool(where, json, "trim_offsets", -1, &post->trim_offsets));
    return espl__json_bool(where, json, "add_prefix_space", -1, &post->add_prefix_space);
}

/* <s> A </s>, and <s> A </s> </s> B </s>; there is one type */
static espl_status parse_roberta(const espl__where *where, json_t *json, espl__post *post) {
    int32_t cls, sep;
    ESPL_TRY(parse_byte_level(where, json, post));
    ESPL_TRY(one_template(where, post));
    ESPL_TRY(take_named(where, json, "cls", &cls));
    ESPL_TRY(take_named(where, json, "sep", &sep));
    const espl__template_piece pieces[] = {{cls, 0}, {ESPL__FIRST_TEXT, 0}, {sep, 0}, {sep, 0}, {ESPL__SECOND_TEXT, 0}, {sep, 0}};
    push_pieces(&post->single, pieces, 3);
    push_pieces(&post->pair, pieces, 6);
    return ESPL_OK;
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
    const espl__template_piece texts[] = {{ESPL__FIRST_TEXT, 0}, {ESPL__SECOND_TEXT, 1}};
    if (post->single.n == 0)
        push_pieces(&post->single, texts, 1);
    if (post->pair.n == 0)
        push_pieces(&post->pair, texts, 2);
    return ESPL_OK;
}

void espl__post_free(espl__post *post) {
    free(post->single.at);
    free(post->pair.at);
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
