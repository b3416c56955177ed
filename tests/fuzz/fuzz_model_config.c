// fuzz: libs=model,core runs=20000
/* config.json of a model: any bytes either make a model or a message. */
#include "src/model/model.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    espl_model *model = NULL;
    json_t *config = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (config == NULL)
        return 0;
    if (espl_model_make_json(config, "config.json", &(espl_model_options){.dropout = -1.0}, &model) == ESPL_OK)
        espl_model_free(&model);
    json_decref(config);
    return 0;
}
