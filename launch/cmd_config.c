#include "launch/commands.h"
#include "launch/recipe.h"

#include <inttypes.h>

static const char text[] =
    "Reads a config, applies overrides, checks every key and prints the result as YAML. Without a file: the defaults.\n"
    "An unknown key, a wrong type or a value out of range is named with its line.\n";

typedef struct wish {
    espl_words sets;
    bool reference, schema, hash;
} wish;

static espl_status answer(const espl_words *operands, const wish *wanted) {
    espl_status status = ESPL_OK;
    espl_config config;
    espl_config_make(&config);
    ESPL_TRY_DONE(espl_recipe_read(operands->n > 0 ? operands->items[0] : NULL, &wanted->sets, &config));
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
        {"set", "KEY=VALUE", "override one key, as section.key=value", ESPL_OPTION_TEXTS, &wanted.sets},
        {"reference", NULL, "print the documentation of every key (Markdown)", ESPL_OPTION_SWITCH, &wanted.reference},
        {"schema", NULL, "print the JSON Schema of configs", ESPL_OPTION_SWITCH, &wanted.schema},
        {"hash", NULL, "print the hash of the resolved config", ESPL_OPTION_SWITCH, &wanted.hash},
    };
    const espl_usage usage = {.verb = "config",
                              .operands = "[CONFIG.yaml]",
                              .text = text,
                              .options = options,
                              .n_options = sizeof options / sizeof options[0],
                              .max_operands = 1};
    espl_words operands = {0};
    bool done;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_options_parse(&usage, argc, argv, &operands, &done));
    if (!done)
        ESPL_TRY_DONE(answer(&operands, &wanted));
done:
    espl_words_free(&operands);
    espl_words_free(&wanted.sets);
    return status;
}
