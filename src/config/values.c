#include "src/config/keys.h"

#include "src/core/buffer.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const wanted[] = {
    [ESPL__INT] = "a whole number", [ESPL__FLOAT] = "a number",         [ESPL__BOOL] = "true or false",      [ESPL__STR] = "text",
    [ESPL__ENUM] = "one word",      [ESPL__STRS] = "a list of strings", [ESPL__FLOATS] = "a list of numbers"};

int32_t espl__yaml_character(const char *text, size_t size, size_t *at) {
    unsigned char lead = (unsigned char)text[*at];
    int more = lead < 0x80 ? 0 : lead >> 5 == 6 ? 1 : lead >> 4 == 14 ? 2 : lead >> 3 == 30 ? 3 : -1;
    if (more < 0 || size - *at <= (size_t)more)
        return -1;
    int32_t code = more == 0 ? lead : lead & (0x3F >> more);
    for (int i = 1; i <= more; i++) {
        unsigned char next = (unsigned char)text[*at + (size_t)i];
        if (next >> 6 != 2)
            return -1;
        code = code << 6 | (next & 0x3F);
    }
    static const int32_t lowest[] = {0, 0x80, 0x800, 0x10000};
    if (code < lowest[more] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        return -1;
    *at += (size_t)more + 1;
    return code;
}

static bool is_absent(const espl__scalar *s) {
    return s->plain && (s->size == 0 || strcmp(s->text, "~") == 0 || strcmp(s->text, "null") == 0);
}

static espl_status wrong_type(const espl__key *key, const espl__scalar *s) {
    const char *found = is_absent(s) ? "nothing" : s->text;
    const char *quote = is_absent(s) ? "" : "'";
    ESPL_FAIL(ESPL_ERR_USAGE, "%s.%s wants %s, found %s%s%s", key->section, key->name, wanted[key->type], quote, found, quote);
}

static espl_status out_of_range(const espl__key *key, const espl__scalar *s) {
    espl__bounds b = espl__key_bounds(key);
    if (b.low[0] != '\0' && b.high[0] != '\0')
        ESPL_FAIL(ESPL_ERR_USAGE, "%s.%s is %s, expected %s to %s", key->section, key->name, s->text, b.low, b.high);
    bool low = b.low[0] != '\0';
    ESPL_FAIL(ESPL_ERR_USAGE, "%s.%s is %s, expected %s %s", key->section, key->name, s->text, low ? b.low : b.high,
              low ? "or more" : "or less");
}

/* Decimal only: neither strtod's hexadecimal and infinities nor leading blanks. */
static bool looks_like_number(const espl__scalar *s, const char *characters) {
    return s->plain && s->size > 0 && strlen(s->text) == s->size && strspn(s->text, characters) == s->size;
}

static espl_status store_int(const espl__key *key, int64_t *field, const espl__scalar *s) {
    char *end;
    errno = 0;
    long long x = strtoll(s->text, &end, 10);
    if (!looks_like_number(s, "+-0123456789") || *end != '\0')
        return wrong_type(key, s);
    if (errno == ERANGE)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s.%s is %s, which does not fit 64 bits", key->section, key->name, s->text);
    espl__bounds b = espl__key_bounds(key);
    if ((b.low[0] != '\0' && x < strtoll(b.low, NULL, 10)) || (b.high[0] != '\0' && x > strtoll(b.high, NULL, 10)))
        return out_of_range(key, s);
    *field = x;
    return ESPL_OK;
}

static espl_status store_float(const espl__key *key, double *field, const espl__scalar *s) {
    char *end;
    double x = strtod(s->text, &end);
    if (!looks_like_number(s, "+-.0123456789eE") || *end != '\0')
        return wrong_type(key, s);
    if (!isfinite(x))
        ESPL_FAIL(ESPL_ERR_USAGE, "%s.%s is %s, which is too large", key->section, key->name, s->text);
    espl__bounds b = espl__key_bounds(key);
    if ((b.low[0] != '\0' && x < strtod(b.low, NULL)) || (b.high[0] != '\0' && x > strtod(b.high, NULL)))
        return out_of_range(key, s);
    *field = x;
    return ESPL_OK;
}

static espl_status store_bool(const espl__key *key, bool *field, const espl__scalar *s) {
    if (!s->plain || (strcmp(s->text, "true") != 0 && strcmp(s->text, "false") != 0))
        return wrong_type(key, s);
    *field = s->text[0] == 't';
    return ESPL_OK;
}

static espl_status store_enum(const espl__key *key, int *field, const espl__scalar *s) {
    espl_buffer choices = {0};
    const char *word;
    for (int i = 0; (word = espl__key_word(key, i)) != NULL; i++) {
        if (strcmp(word, s->text) == 0 && strlen(word) == s->size) {
            *field = i;
            espl_buffer_free(&choices);
            return ESPL_OK;
        }
        espl_buffer_printf(&choices, "%s%s", i > 0 ? ", " : "", word);
    }
    espl_status status = espl_status_fail(ESPL_ERR_USAGE, __FILE__, __LINE__, "%s.%s is '%s', expected one of %s", key->section, key->name,
                                          s->text, choices.data);
    espl_buffer_free(&choices);
    return status;
}

static espl_status store_str(const espl__key *key, char **field, const espl__scalar *s) {
    for (size_t at = 0; at < s->size;) {
        int32_t code = espl__yaml_character(s->text, s->size, &at);
        if (code <= 0)
            ESPL_FAIL(ESPL_ERR_USAGE, "%s.%s holds %s", key->section, key->name,
                      code == 0 ? "a NUL character" : "bytes that are not UTF-8");
    }
    char *copy = espl_strdup(is_absent(s) ? "" : s->text);
    free(*field);
    *field = copy;
    return ESPL_OK;
}

static espl_status store_strs(const espl__key *key, espl_strings *field, const espl__value *value, int *line) {
    for (int64_t i = 0; i < value->n; i++) {
        *line = value->items[i].line;
        ESPL_TRY(store_str(key, &field->items[i], &value->items[i]));
        field->n = i + 1;
    }
    return ESPL_OK;
}

static espl_status store_floats(const espl__key *key, espl_floats *field, const espl__value *value, int *line) {
    for (int64_t i = 0; i < value->n; i++) {
        *line = value->items[i].line;
        ESPL_TRY(store_float(key, &field->items[i], &value->items[i]));
        field->n = i + 1;
    }
    return ESPL_OK;
}

static espl_status store_list(const espl__key *key, espl_config *config, const espl__value *value, int *line) {
    void *field = espl__field(key, config);
    espl__key_clear(key, config);
    if (value->n == 0)
        return ESPL_OK;
    if (key->type == ESPL__STRS) {
        ((espl_strings *)field)->items = espl_calloc((size_t)value->n, sizeof(char *));
        return store_strs(key, field, value, line);
    }
    ((espl_floats *)field)->items = espl_calloc((size_t)value->n, sizeof(double));
    return store_floats(key, field, value, line);
}

espl_status espl__key_store(const espl__key *key, espl_config *config, const espl__value *value, int *line) {
    void *field = espl__field(key, config);
    bool wants_list = key->type == ESPL__STRS || key->type == ESPL__FLOATS;
    if (value->is_list && !wants_list)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s.%s wants %s, found a list", key->section, key->name, wanted[key->type]);
    const espl__value nothing = {.is_list = true};
    if (wants_list && !value->is_list && is_absent(value->items))
        value = &nothing;
    switch (key->type) {
    case ESPL__INT: return store_int(key, field, value->items);
    case ESPL__FLOAT: return store_float(key, field, value->items);
    case ESPL__BOOL: return store_bool(key, field, value->items);
    case ESPL__STR: return store_str(key, field, value->items);
    case ESPL__ENUM: return store_enum(key, field, value->items);
    default: return store_list(key, config, value, line);
    }
}
