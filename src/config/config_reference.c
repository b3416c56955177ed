#include "src/config/keys.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *const type_names[] = {
    [ESPL__INT] = "integer", [ESPL__FLOAT] = "number",         [ESPL__BOOL] = "true or false",    [ESPL__STR] = "text",
    [ESPL__ENUM] = "choice", [ESPL__STRS] = "list of strings", [ESPL__FLOATS] = "list of numbers"};

static bool starts_section(int i) { return i == 0 || strcmp(espl__keys[i].section, espl__keys[i - 1].section) != 0; }

static void print_values(const espl__key *key, FILE *out) {
    espl__bounds b = espl__key_bounds(key);
    if (key->type == ESPL__ENUM) {
        const char *word;
        for (int i = 0; (word = espl__key_word(key, i)) != NULL; i++)
            fprintf(out, "%s`%s`", i > 0 ? ", " : "", word);
    } else if (b.low[0] != '\0' && b.high[0] != '\0') {
        fprintf(out, "%s, %s to %s", type_names[key->type], b.low, b.high);
    } else if (b.low[0] != '\0') {
        fprintf(out, "%s, %s or more", type_names[key->type], b.low);
    } else {
        fputs(type_names[key->type], out);
    }
}

static void print_default(const espl__key *key, FILE *out) {
    const char *quote = key->default_text[0] != '\0' ? "`" : "";
    fprintf(out, " | %s", quote);
    for (const char *c = key->default_text; *c != '\0'; c++)
        *c == '\n' ? fputs("\\n", out) : putc(*c, out);
    fputs(quote, out);
}

void espl_config_print_reference(FILE *out) {
    fputs("# Config keys\n\nA config is YAML: sections, each with its keys. `--set section.key=value` overrides one.\n", out);
    for (int i = 0; i < espl__n_keys; i++) {
        const espl__key *key = &espl__keys[i];
        if (starts_section(i))
            fprintf(out, "\n## %s\n\n| key | value | default | |\n| --- | --- | --- | --- |\n", key->section);
        fprintf(out, "| `%s.%s` | ", key->section, key->name);
        print_values(key, out);
        print_default(key, out);
        fprintf(out, " | %s |\n", key->help);
    }
}

/* null in a section or a text stands for what is absent. */
static json_t *type_or_null(const char *type) { return json_pack("[s, s]", type, "null"); }

static json_t *list_type(const char *item) {
    return json_pack("[{s: s, s: {s: s}}, {s: o}]", "type", "array", "items", "type", item, "type", type_or_null(item));
}

static json_t *enum_words(const espl__key *key) {
    json_t *words = json_array();
    const char *word;
    for (int i = 0; (word = espl__key_word(key, i)) != NULL; i++)
        json_array_append_new(words, json_string(word));
    return words;
}

static void set_bound(json_t *schema, const char *name, const char *bound, espl__type type) {
    if (bound[0] != '\0')
        json_object_set_new(schema, name, type == ESPL__INT ? json_integer(strtoll(bound, NULL, 10)) : json_real(strtod(bound, NULL)));
}

static void set_number(json_t *schema, const espl__key *key) {
    espl__bounds b = espl__key_bounds(key);
    json_object_set_new(schema, "type", json_string(key->type == ESPL__INT ? "integer" : "number"));
    set_bound(schema, "minimum", b.low, key->type);
    set_bound(schema, "maximum", b.high, key->type);
    set_bound(schema, "default", key->default_text, key->type);
}

static json_t *key_schema(const espl__key *key) {
    json_t *schema = json_pack("{s: s}", "description", key->help);
    switch (key->type) {
    case ESPL__INT:
    case ESPL__FLOAT: set_number(schema, key); break;
    case ESPL__BOOL:
        json_object_set_new(schema, "type", json_string("boolean"));
        json_object_set_new(schema, "default", json_boolean(strcmp(key->default_text, "true") == 0));
        break;
    case ESPL__STR:
        json_object_set_new(schema, "type", type_or_null("string"));
        json_object_set_new(schema, "default", json_string(key->default_text));
        break;
    case ESPL__ENUM:
        json_object_set_new(schema, "enum", enum_words(key));
        json_object_set_new(schema, "default", json_string(key->default_text));
        break;
    default: json_object_set_new(schema, "anyOf", list_type(key->type == ESPL__STRS ? "string" : "number")); break;
    }
    return schema;
}

void espl_config_print_schema(FILE *out) {
    json_t *sections = json_object(), *keys = NULL;
    for (int i = 0; i < espl__n_keys; i++) {
        if (starts_section(i)) {
            keys = json_object();
            json_object_set_new(
                sections, espl__keys[i].section,
                json_pack("{s: o, s: b, s: o}", "type", type_or_null("object"), "additionalProperties", 0, "properties", keys));
        }
        json_object_set_new(keys, espl__keys[i].name, key_schema(&espl__keys[i]));
    }
    json_object_set_new(sections, "sweep",
                        json_pack("{s: s, s: s, s: {s: s, s: i}}", "type", "object", "description",
                                  "Values that `espalier sweep` goes over, as section.key: [values]; every combination is a run",
                                  "additionalProperties", "type", "array", "minItems", 1));
    json_t *schema = json_pack("{s: s, s: s, s: o, s: b, s: o}", "$schema", "https://json-schema.org/draft/2020-12/schema", "title",
                               "Espalier config", "type", type_or_null("object"), "additionalProperties", 0, "properties", sections);
    json_dumpf(schema, out, JSON_INDENT(2));
    fputc('\n', out);
    json_decref(schema);
}
