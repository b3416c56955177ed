#include "launch/commands.h"
#include "launch/recipe.h"

#include <inttypes.h>

static const char text[] =
    "Reads a config, applies overrides, checks every key and prints the result as YAML. Without a file: the defaults.\n"
    "An unknown key, a wrong type or a value out of range is named with its line.\n";

typedef struct wish {
    espl_words operands, sets;
    bool reference, schema, hash;
} wish;

static espl_status answer(void *job) {
    const wish *wanted = job;
    espl_status status = ESPL_OK;
    espl_config config;
    espl_config_make(&config);
    ESPL_TRY_DONE(espl_recipe_read(wanted->operands.n > 0 ? wanted->operands.items[0] : NULL, &wanted->sets, &config));
    if (wanted->reference)
        espl_config_print_reference(stdout);
    else if (wanted->schema)
        espl_config_print_schema(stdout);
    else if (wanted->hash)
        printf("%016" PRIx64 "\n", espl_config_hash(&config));
    else
        espl_config_print(&config, stdout);
done:
    espl_config_free(&config);
    return status;
}

espl_status espl_cmd_config(int argc, char **argv) {
    wish wanted = {0};
    const espl_option options[] = {
        ESPL_OPTION_SET(&wanted.sets),
        {"reference", NULL, "print the documentation of every key (Markdown)", ESPL_OPTION_SWITCH, &wanted.reference},
        {"schema", NULL, "print the JSON Schema of configs", ESPL_OPTION_SWITCH, &wanted.schema},
        {"hash", NULL, "print the hash of the resolved config", ESPL_OPTION_SWITCH, &wanted.hash},
    };
    const espl_usage usage = {.verb = "config", .operands = "[CONFIG.yaml]", .text = text, ESPL_OPTIONS(options), .max_operands = 1};
    return espl_options_run(&usage, argc, argv, &wanted.operands, answer, &wanted);
}
