#include "src/config/keys.h"

#include <stdlib.h>
#include <string.h>

void espl__key_clear(const espl__key *key, espl_config *config) {
    void *field = espl__field(key, config);
    if (key->type == ESPL__STR) {
        free(*(char **)field);
        *(char **)field = NULL;
    } else if (key->type == ESPL__STRS) {
        espl_strings *strings = field;
        for (int64_t i = 0; i < strings->n; i++)
            free(strings->items[i]);
        free(strings->items);
        *strings = (espl_strings){0};
    } else if (key->type == ESPL__FLOATS) {
        free(((espl_floats *)field)->items);
        *(espl_floats *)field = (espl_floats){0};
    }
}

void espl__key_store_default(const espl__key *key, espl_config *config) {
    const espl__scalar scalar = {.text = key->default_text, .size = strlen(key->default_text), .plain = true};
    const espl__value value = {.n = 1, .items = &scalar};
    int line = 0;
    espl_status status = espl__key_store(key, config, &value, &line);
    ESPL_ASSERT(status == ESPL_OK, "the default of %s.%s in keys.def is not valid", key->section, key->name);
}

void espl_config_make(espl_config *config) {
    memset(config, 0, sizeof *config);
    for (int i = 0; i < espl__n_keys; i++)
        espl__key_store_default(&espl__keys[i], config);
}

void espl_config_resolve(espl_config *config) {
    const char *optimizer = espl_config_choice("optim", "name", config->optim_name);
    bool muon = strcmp(optimizer, "muon") == 0;
    if (config->optim_beta2 < 0.0)
        config->optim_beta2 = strcmp(optimizer, "lion") == 0 ? 0.99 : 0.999;
    if (config->optim_momentum < 0.0)
        config->optim_momentum = muon ? 0.95 : 0.9;
    config->optim_nesterov |= muon;
}

void espl_config_free(espl_config *config) {
    for (int i = 0; i < espl__n_keys; i++)
        espl__key_clear(&espl__keys[i], config);
    memset(config, 0, sizeof *config);
}

int espl_config_choice_of(const char *section, const char *name, const char *word) {
    const espl__key *key = espl__key_find(section, name);
    ESPL_ASSERT(key != NULL && key->type == ESPL__ENUM, "%s.%s is no enum key", section, name);
    const char *choice;
    for (int i = 0; (choice = espl__key_word(key, i)) != NULL; i++)
        if (strcmp(choice, word) == 0)
            return i;
    return -1;
}

const char *espl_config_choice(const char *section, const char *name, int index) {
    const espl__key *key = espl__key_find(section, name);
    ESPL_ASSERT(key != NULL && key->type == ESPL__ENUM, "%s.%s is no enum key", section, name);
    const char *word = espl__key_word(key, index);
    ESPL_ASSERT(word != NULL, "%s.%s has no choice %d", section, name, index);
    return word;
}
