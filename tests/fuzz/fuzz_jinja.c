// fuzz: libs=io,core runs=20000
/* Any bytes as a chat template, rendered with two conversations: an error or a text of bounded size, within bounded steps, twice the same.
 */
#include "io/jinja/jinja.h"

#include "src/core/log.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { STEPS = 20000, BYTES = 1 << 20 };

static const char *const conversations[] = {
    "{\"messages\": [{\"role\": \"system\", \"content\": \"be\"}, {\"role\": \"user\", \"content\": \"\\u00e4 {{ x }}\"}, {\"role\": "
    "\"assistant\","
    " \"content\": \"<think>y</think>z\", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"a\": [1, 2.5, null]}}}]}],"
    " \"tools\": [{\"name\": \"f\"}], \"add_generation_prompt\": true, \"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}",
    "{\"messages\": [], \"tools\": null, \"add_generation_prompt\": false}"};

static void check(const espl_jinja *jinja, const json_t *variables) {
    const espl_jinja_limits limits = {.steps = STEPS, .bytes = BYTES};
    espl_jinja_output one = {0}, two = {0};
    espl_status status = espl_jinja_render(jinja, variables, "2026-02-01", &limits, &one);
    ESPL_ASSERT(status == ESPL_OK || status == ESPL_ERR_DATA, "status %d", (int)status);
    ESPL_ASSERT(espl_jinja_render(jinja, variables, "2026-02-01", &limits, &two) == status, "the second time it ends otherwise");
    ESPL_ASSERT(one.text.size <= BYTES, "%zu bytes", one.text.size);
    ESPL_ASSERT(one.text.size == two.text.size && memcmp(one.text.data, two.text.data, one.text.size) == 0, "the second time another text");
    for (int64_t i = 0; i < one.n; i++)
        ESPL_ASSERT(one.generated[i].begin <= one.generated[i].end && one.generated[i].end <= one.text.size, "a span outside");
    espl_jinja_output_free(&one);
    espl_jinja_output_free(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    espl_jinja *jinja;
    espl_log_set(0, ESPL_LOG_ERROR, NULL);
    if (espl_jinja_parse("template", (const char *)bytes, size, &jinja) == ESPL_OK)
        for (size_t i = 0; i < sizeof conversations / sizeof conversations[0]; i++) {
            json_t *variables = json_loads(conversations[i], 0, NULL);
            check(jinja, variables);
            json_decref(variables);
        }
    espl_status_clear();
    espl_jinja_free(&jinja);
    return 0;
}
