#include "src/config/keys.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* Code points that libyaml does not take as they are, or that it takes for a line break. */
static bool needs_escape(int32_t code) {
    return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x2028 || code == 0x2029 || code == 0xFEFF || code == 0xFFFE ||
           code == 0xFFFF;
}

static void print_string(const char *text, FILE *out) {
    size_t size = strlen(text);
    fputc('"', out);
    for (size_t at = 0, start = 0; at < size; start = at) {
        int32_t code = espl__yaml_character(text, size, &at);
        ESPL_ASSERT(code > 0, "a config string is not UTF-8");
        if (code == '"' || code == '\\')
            fprintf(out, "\\%c", (char)code);
        else if (code == '\n' || code == '\t')
            fputs(code == '\n' ? "\\n" : "\\t", out);
        else if (needs_escape(code))
            fprintf(out, "\\u%04X", (unsigned)code);
        else
            fwrite(text + start, 1, at - start, out);
    }
    fputc('"', out);
}

/* The shortest of 15 to 17 digits that reads back to the same double. */
static void print_float(double x, FILE *out) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    fputs(text, out);
}

static void print_strings(const espl_strings *strings, FILE *out) {
    fputc('[', out);
    for (int64_t i = 0; i < strings->n; i++) {
        fputs(i > 0 ? ", " : "", out);
        print_string(strings->items[i], out);
    }
    fputc(']', out);
}

static void print_floats(const espl_floats *floats, FILE *out) {
    fputc('[', out);
    for (int64_t i = 0; i < floats->n; i++) {
        fputs(i > 0 ? ", " : "", out);
        print_float(floats->items[i], out);
    }
    fputc(']', out);
}

static void print_field(const espl__key *key, const void *field, FILE *out) {
    switch (key->type) {
    case ESPL__INT: fprintf(out, "%lld", (long long)*(const int64_t *)field); break;
    case ESPL__FLOAT: print_float(*(const double *)field, out); break;
    case ESPL__BOOL: fputs(*(const bool *)field ? "true" : "false", out); break;
    case ESPL__STR: print_string(*(char *const *)field, out); break;
    case ESPL__ENUM: fputs(espl__key_word(key, *(const int *)field), out); break;
    case ESPL__STRS: print_strings(field, out); break;
    default: print_floats(field, out); break;
    }
}

void espl_config_print(const espl_config *config, FILE *out) {
    for (int i = 0; i < espl__n_keys; i++) {
        const espl__key *key = &espl__keys[i];
        if (i == 0 || strcmp(key->section, key[-1].section) != 0)
            fprintf(out, "%s:\n", key->section);
        fprintf(out, "  %s: ", key->name);
        print_field(key, espl__field_const(key, config), out);
        fputc('\n', out);
    }
}

uint64_t espl_config_hash(const espl_config *config) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ESPL_ASSERT(out != NULL, "out of host memory");
    espl_config_print(config, out);
    fclose(out);
    uint64_t hash = XXH3_64bits(text, size);
    free(text);
    return hash;
}
