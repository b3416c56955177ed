// fuzz: libs=config,core runs=30000
/* Configs as YAML text and as overrides. What is accepted must print, and read back to the same text. */
#include "src/config/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *printed(const espl_config *config) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    espl_config_print(config, out);
    fclose(out);
    return text;
}

static void check_round_trip(const espl_config *config) {
    espl_config again;
    espl_config_make(&again);
    char *first = printed(config);
    ESPL_ASSERT(espl_config_read_text(&again, first, strlen(first), "printed") == ESPL_OK, "a printed config is not read");
    char *second = printed(&again);
    ESPL_ASSERT(strcmp(first, second) == 0, "a printed config reads back to another one");
    free(first);
    free(second);
    espl_config_free(&again);
}

static void try_override(espl_config *config, const uint8_t *data, size_t size) {
    char *text = strndup((const char *)data, size);
    if (espl_config_set(config, text) == ESPL_OK)
        check_round_trip(config);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    espl_config config;
    espl_config_make(&config);
    if (espl_config_read_text(&config, (const char *)data, size, "fuzz") == ESPL_OK)
        check_round_trip(&config);
    try_override(&config, data, size);
    espl_config_free(&config);
    espl_status_clear();
    return 0;
}
