#include "src/config/keys.h"

#include "src/config/nearest.h"

#include <stdlib.h>
#include <string.h>

/* The ranges as writable text: in those of ENUM rows the bars become NULs before main, so that every choice is a string. */
static struct {
#define KEY(section, name, type, default_text, range, help) char section##_##name[sizeof(range) + 1];
#include "src/config/keys.def"
#undef KEY
} words = {
#define KEY(section, name, type, default_text, range, help) range,
#include "src/config/keys.def"
#undef KEY
};

const espl__key espl__keys[] = {
#define KEY(section, name, type, default_text, range, help)                                                                                \
    {#section, #name, ESPL__##type, default_text, range, help, words.section##_##name, offsetof(espl_config, section##_##name)},
#include "src/config/keys.def"
#undef KEY
};

const int espl__n_keys = (int)(sizeof espl__keys / sizeof espl__keys[0]);

__attribute__((constructor)) static void split_words(void) {
    char *text = (char *)&words;
    for (size_t i = 0; i < sizeof words; i++)
        if (text[i] == '|')
            text[i] = '\0';
}

const espl__key *espl__key_find(const char *section, const char *name) {
    for (int i = 0; i < espl__n_keys; i++)
        if (strcmp(espl__keys[i].section, section) == 0 && strcmp(espl__keys[i].name, name) == 0)
            return &espl__keys[i];
    return NULL;
}

bool espl__section_exists(const char *section) {
    for (int i = 0; i < espl__n_keys; i++)
        if (strcmp(espl__keys[i].section, section) == 0)
            return true;
    return false;
}

/* The nearest row; a name in another section counts one edit more than in its own. */
static const espl__key *nearest_key(const char *section, const char *name) {
    const espl__key *best = NULL;
    int best_distance = espl_word_distance_limit(name) + 1;
    for (int i = 0; i < espl__n_keys; i++) {
        bool same_section = strcmp(espl__keys[i].section, section) == 0;
        int distance = espl_word_distance(name, espl__keys[i].name) + !same_section;
        if (distance < best_distance) {
            best_distance = distance;
            best = &espl__keys[i];
        }
    }
    return best;
}

static const char *nearest_section(const char *section) {
    const char *best = NULL;
    int best_distance = espl_word_distance_limit(section) + 1;
    for (int i = 0; i < espl__n_keys; i++) {
        int distance = espl_word_distance(section, espl__keys[i].section);
        if (distance < best_distance) {
            best_distance = distance;
            best = espl__keys[i].section;
        }
    }
    return best;
}

static espl_status unknown_section(const char *section) {
    const char *near = nearest_section(section);
    if (near != NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "unknown section '%s'; did you mean '%s'?", section, near);
    const espl__key *key = nearest_key("", section);
    if (key != NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "unknown section '%s'; did you mean '%s.%s'?", section, key->section, key->name);
    ESPL_FAIL(ESPL_ERR_USAGE, "unknown section '%s'; `espalier config --reference` lists all keys", section);
}

espl_status espl__key_unknown(const char *section, const char *name) {
    if (!espl__section_exists(section)) {
        const char *near = nearest_section(section);
        if (name != NULL && near != NULL && espl__key_find(near, name) != NULL)
            ESPL_FAIL(ESPL_ERR_USAGE, "unknown key '%s.%s'; did you mean '%s.%s'?", section, name, near, name);
        return unknown_section(section);
    }
    const espl__key *key = nearest_key(section, name);
    if (key != NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "unknown key '%s.%s'; did you mean '%s.%s'?", section, name, key->section, key->name);
    ESPL_FAIL(ESPL_ERR_USAGE, "unknown key '%s.%s'; `espalier config --reference` lists all keys", section, name);
}

void *espl__field(const espl__key *key, espl_config *config) { return (char *)config + key->offset; }

const void *espl__field_const(const espl__key *key, const espl_config *config) { return (const char *)config + key->offset; }

const char *espl__key_word(const espl__key *key, int index) {
    const char *word = key->words;
    for (int i = 0; i < index && *word != '\0'; i++)
        word += strlen(word) + 1;
    return index < 0 || *word == '\0' ? NULL : word;
}

espl__bounds espl__key_bounds(const espl__key *key) {
    espl__bounds bounds = {"", ""};
    const char *dots = strstr(key->range, "..");
    if (dots != NULL) {
        snprintf(bounds.low, sizeof bounds.low, "%.*s", (int)(dots - key->range), key->range);
        snprintf(bounds.high, sizeof bounds.high, "%s", dots + 2);
    }
    return bounds;
}
