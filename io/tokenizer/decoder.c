/* Decoders: from the contents of tokens back to text. */
#include "io/tokenizer/tokenizer_parts.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef struct decoder_kind {
    const char *type;
    espl_status (*parse)(const espl__where *where, json_t *json, espl__decoder *row); /* NULL: nothing to say */
    espl_status (*apply)(const espl__decoder *row, espl__scratch *scratch, const espl__strings *in, espl__strings *out);
} decoder_kind;

struct espl__decoder {
    const decoder_kind *kind;
    espl__pattern *pattern;
    char *content; /* Replace: what a match becomes; Strip, Metaspace: the character; WordPiece: the prefix */
    size_t n_content;
    int64_t start, stop; /* Strip: at most so many are taken off each end */
    bool drop_first;     /* Metaspace: marks of the first token vanish */
    bool cleanup;        /* WordPiece: no space before punctuation and contractions */
};

void espl__strings_end(espl__strings *list) { ESPL__PUSH(list, list->bytes.size); }

static espl__slice string_at(const espl__strings *list, size_t i) {
    size_t begin = i ? list->at[i - 1] : 0;
    return (espl__slice){.data = list->bytes.data + begin, .n = list->at[i] - begin};
}

static void put(espl__strings *out, const char *text, size_t n) { espl_buffer_append(&out->bytes, text, n); }

static void put_string(espl__strings *out, const char *text, size_t n) {
    put(out, text, n);
    espl__strings_end(out);
}

static espl_status parse_content(const espl__where *where, json_t *json, const char *key, espl__decoder *row) {
    const char *text;
    ESPL_TRY(espl__json_string(where, json, key, &text, &row->n_content));
    row->content = memcpy(espl_calloc(row->n_content + 1, 1), text, row->n_content);
    return ESPL_OK;
}

static espl_status parse_character(const espl__where *where, json_t *json, const char *key, espl__decoder *row) {
    int size = 0;
    ESPL_TRY(parse_content(where, json, key, row));
    if (row->n_content > 0)
        espl__utf8_decode(row->content, &size);
    if (row->n_content == 0 || (size_t)size != row->n_content)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: '%s' must be one character", where->path, where->section, where->type, key);
    return ESPL_OK;
}

static espl_status parse_replace(const espl__where *where, json_t *json, espl__decoder *row) {
    ESPL_TRY(parse_content(where, json, "content", row));
    return espl__pattern_parse(where, json, &row->pattern);
}

static espl_status parse_strip(const espl__where *where, json_t *json, espl__decoder *row) {
    ESPL_TRY(parse_character(where, json, "content", row));
    ESPL_TRY(espl__json_int(where, json, "start", 0, INT32_MAX, &row->start));
    return espl__json_int(where, json, "stop", 0, INT32_MAX, &row->stop);
}

static espl_status parse_metaspace(const espl__where *where, json_t *json, espl__decoder *row) {
    const char *scheme = json_string_value(json_object_get(json, "prepend_scheme"));
    row->drop_first = !(scheme && strcmp(scheme, "never") == 0) && !json_is_false(json_object_get(json, "add_prefix_space"));
    return parse_character(where, json, "replacement", row);
}

static espl_status parse_wordpiece(const espl__where *where, json_t *json, espl__decoder *row) {
    ESPL_TRY(parse_content(where, json, "prefix", row));
    return espl__json_bool(where, json, "cleanup", -1, &row->cleanup);
}

static void repair(const char *text, size_t n, espl_buffer *out) {
    for (size_t i = 0; i < n;) {
        int size = espl__utf8_next(text + i, n - i);
        espl_buffer_append(out, size > 0 ? text + i : "\xEF\xBF\xBD", size > 0 ? (size_t)size : 3);
        i += (size_t)abs(size);
    }
}

static espl_status apply_byte_level(const espl__decoder *row, espl__scratch *scratch, const espl__strings *in, espl__strings *out) {
    (void)row, (void)scratch;
    espl_buffer bytes = {0};
    for (size_t i = 0; i < in->n; i++) {
        espl__slice token = string_at(in, i);
        if (!espl__bytes_of(token.data, token.n, &bytes))
            espl_buffer_append(&bytes, token.data, token.n);
    }
    repair(bytes.data, bytes.size, &out->bytes);
    espl__strings_end(out);
    espl_buffer_free(&bytes);
    return ESPL_OK;
}

static espl_status apply_replace(const espl__decoder *row, espl__scratch *scratch, const espl__strings *in, espl__strings *out) {
    for (size_t i = 0; i < in->n; i++) {
        espl__slice token = string_at(in, i);
        ESPL_TRY(espl__pattern_find(row->pattern, scratch, token.data, token.n, &scratch->matches));
        for (size_t k = 0; k < scratch->matches.n; k++) {
            espl__match m = scratch->matches.at[k];
            put(out, m.match ? row->content : token.data + m.begin, m.match ? row->n_content : m.end - m.begin);
        }
        espl__strings_end(out);
    }
    return ESPL_OK;
}

static espl_status apply_fuse(const espl__decoder *row, espl__scratch *scratch, const espl__strings *in, espl__strings *out) {
    (void)row, (void)scratch;
    put_string(out, in->bytes.data, in->bytes.size);
    return ESPL_OK;
}

static bool begins(const espl__decoder *row, const char *text, size_t n) {
    return n >= row->n_content && memcmp(text, row->content, row->n_content) == 0;
}

static espl_status apply_strip(const espl__decoder *row, espl__scratch *scratch, const espl__strings *in, espl__strings *out) {
    (void)scratch;
    for (size_t i = 0; i < in->n; i++) {
        espl__slice t = string_at(in, i);
        for (int64_t k = 0; k < row->start && begins(row, t.data, t.n); k++)
            t = espl__slice_part(t, row->n_content, t.n);
        for (int64_t k = 0; k < row->stop && t.n >= row->n_content && begins(row, t.data + t.n - row->n_content, row->n_content); k++)
            t.n -= row->n_content;
        put_string(out, t.data, t.n);
    }
    return ESPL_OK;
}

/* <0xHH> */
static int fallback_byte(espl__slice token) {
    if (token.n != 6 || memcmp(token.data, "<0x", 3) != 0 || token.data[5] != '>')
        return -1;
    char digits[3] = {token.data[3], token.data[4], '\0'};
    bool plus = digits[0] == '+' && isxdigit((unsigned char)digits[1]);
    if (!plus && (!isxdigit((unsigned char)digits[0]) || !isxdigit((unsigned char)digits[1])))
        return -1;
    return (int)strtol(digits, NULL, 16);
}

/* A run of bytes becomes its text, or as many U+FFFD as it has bytes. */
static void end_run(espl_buffer *run, espl__strings *out) {
    if (run->size == 0)
        return;
    bool valid = true;
    for (size_t i = 0; valid && i < run->size;) {
        int size = espl__utf8_next(run->data + i, run->size - i);
        valid = size > 0;
        i += (size_t)abs(size);
    }
    for (size_t i = 0; !valid && i < run->size; i++)
        put_string(out, "\xEF\xBF\xBD", 3);
    if (valid)
        put_string(out, run->data, run->size);
    run->size = 0;
}

static espl_status apply_byte_fallback(const espl__decoder *row, espl__scratch *scratch, const espl__strings *in, espl__strings *out) {
    (void)row, (void)scratch;
    espl_buffer run = {0};
    for (size_t i = 0; i < in->n; i++) {
        espl__slice token = string_at(in, i);
        int byte = fallback_byte(token);
        if (byte >= 0) {
            espl_buffer_append(&run, &(char){(char)byte}, 1);
            continue;
        }
        end_run(&run, out);
        put_string(out, token.data, token.n);
    }
    end_run(&run, out);
    espl_buffer_free(&run);
    return ESPL_OK;
}

static espl_status apply_metaspace(const espl__decoder *row, espl__scratch *scratch, const espl__strings *in, espl__strings *out) {
    (void)scratch;
    int size;
    for (size_t i = 0; i < in->n; i++) {
        espl__slice t = string_at(in, i);
        for (size_t k = 0; k < t.n; k += (size_t)size) {
            bool mark = begins(row, t.data + k, t.n - k);
            espl__utf8_decode(t.data + k, &size);
            if (!mark)
                put(out, t.data + k, (size_t)size);
            else if (i > 0 || !row->drop_first)
                put(out, " ", 1);
        }
        espl__strings_end(out);
    }
    return ESPL_OK;
}

/* What the reference's cleanup replaces, in this order. */
static const char *const cleanups[][2] = {
    {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},    {" n't", "n't"},
    {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
};

/* Replaces in the string that begins at `begin`, the last of `bytes`; replacements are never longer. */
static void replace_all(espl_buffer *bytes, size_t begin, const char *from, const char *to) {
    size_t n_from = strlen(from), n_to = strlen(to), write = begin;
    for (size_t read = begin; read < bytes->size;) {
        bool found = bytes->size - read >= n_from && memcmp(bytes->data + read, from, n_from) == 0;
        memmove(bytes->data + write, found ? to : bytes->data + read, found ? n_to : 1);
        write += found ? n_to : 1;
        read += found ? n_from : 1;
    }
    bytes->size = write;
}

static espl_status apply_wordpiece(const espl__decoder *row, espl__scratch *scratch, const espl__strings *in, espl__strings *out) {
    (void)scratch;
    for (size_t i = 0; i < in->n; i++) {
        espl__slice t = string_at(in, i);
        size_t begin = out->bytes.size, skipped = i > 0 && begins(row, t.data, t.n) ? row->n_content : 0;
        if (i > 0 && !begins(row, t.data, t.n))
            put(out, " ", 1);
        put(out, t.data + skipped, t.n - skipped);
        for (size_t k = 0; row->cleanup && k < sizeof cleanups / sizeof *cleanups; k++)
            replace_all(&out->bytes, begin, cleanups[k][0], cleanups[k][1]);
        espl__strings_end(out);
    }
    return ESPL_OK;
}

static const decoder_kind kinds[] = {
    {"ByteLevel", NULL, apply_byte_level},
    {"Replace", parse_replace, apply_replace},
    {"Fuse", NULL, apply_fuse},
    {"ByteFallback", NULL, apply_byte_fallback},
    {"Strip", parse_strip, apply_strip},
    {"Metaspace", parse_metaspace, apply_metaspace},
    {"WordPiece", parse_wordpiece, apply_wordpiece},
};

static espl_status add(const espl__where *where, json_t *json, void *context) {
    espl__decoders *list = context;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].type, where->type) != 0)
            continue;
        ESPL__PUSH(list, (espl__decoder){.kind = &kinds[i]});
        return kinds[i].parse ? kinds[i].parse(where, json, &list->at[list->n - 1]) : ESPL_OK;
    }
    ESPL_FAIL(ESPL_ERR_DATA, "%s: decoder '%s' is not supported", where->path, where->type);
}

espl_status espl__decoders_parse(const char *path, json_t *value, espl__decoders *list) {
    list->given = value && !json_is_null(value);
    return espl__json_each(&(espl__where){path, "decoder", ""}, value, "decoders", add, list);
}

void espl__decoders_free(espl__decoders *list) {
    for (size_t i = 0; i < list->n; i++) {
        espl__pattern_free(&list->at[i].pattern);
        free(list->at[i].content);
    }
    free(list->at);
    *list = (espl__decoders){0};
}

espl_status espl__decoders_apply(const espl__decoders *list, espl__scratch *scratch, espl__strings *tokens) {
    espl_status status = ESPL_OK;
    espl__strings out = {0};
    for (size_t i = 0; i < list->n; i++) {
        espl_buffer_append(&tokens->bytes, "", 0);
        out.bytes.size = out.n = 0;
        ESPL_TRY_DONE(list->at[i].kind->apply(&list->at[i], scratch, tokens, &out));
        espl__strings swap = *tokens;
        *tokens = out;
        out = swap;
    }
done:
    espl_buffer_free(&out.bytes);
    free(out.at);
    return status;
}
