/* Values of tokenizer.json, with messages that say where one is missing or wrong. */
#include "io/tokenizer/tokenizer_parts.h"

#include <string.h>

espl_status espl__json_string(const espl__where *where, json_t *object, const char *key, const char **value, size_t *size) {
    json_t *string = json_object_get(object, key);
    if (!json_is_string(string))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: '%s' must be a string", where->path, where->section, where->type, key);
    *value = json_string_value(string);
    *size = json_string_length(string);
    return ESPL_OK;
}

espl_status espl__json_bool(const espl__where *where, json_t *object, const char *key, int fallback, bool *value) {
    json_t *item = json_object_get(object, key);
    if (json_is_null(item) || (!item && fallback >= 0))
        *value = fallback > 0;
    else if (json_is_boolean(item))
        *value = json_is_true(item);
    else
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: '%s' must be true or false", where->path, where->section, where->type, key);
    return ESPL_OK;
}

espl_status espl__json_int(const espl__where *where, json_t *object, const char *key, int64_t low, int64_t high, int64_t *value) {
    json_t *item = json_object_get(object, key);
    if (!json_is_integer(item) || json_integer_value(item) < low || json_integer_value(item) > high)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: '%s' must be an integer from %lld to %lld", where->path, where->section, where->type, key,
                  (long long)low, (long long)high);
    *value = json_integer_value(item);
    return ESPL_OK;
}

espl_status espl__json_each(const espl__where *where, json_t *value, const char *list_key,
                            espl_status (*add)(const espl__where *where, json_t *component, void *context), void *context) {
    if (!value || json_is_null(value))
        return ESPL_OK;
    const char *type = json_string_value(json_object_get(value, "type"));
    if (!type)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: a %s has no 'type'", where->path, where->section);
    espl__where here = {where->path, where->section, type};
    if (strcmp(type, "Sequence") != 0)
        return add(&here, value, context);
    json_t *list = json_object_get(value, list_key), *item;
    if (!json_is_array(list))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s Sequence: '%s' must be a list", where->path, where->section, list_key);
    size_t i;
    json_array_foreach(list, i, item) { ESPL_TRY(espl__json_each(where, item, list_key, add, context)); }
    return ESPL_OK;
}
