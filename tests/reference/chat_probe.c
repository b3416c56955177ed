/* chat_probe: renders chat templates for scripts. Each line of standard input is an object: template (text), variables (object), date
 * (text, may be absent). Each line of output is {"text", "generated": [[begin, end], ...]} in bytes, or {"error"}. With file (of the
 * template), tokenizer (a folder) and record (an object) instead: {"ids", "mask"} of what the token store gets. */
#include "io/tokens/tokens_internal.h"

#include <string.h>
#include <stdlib.h>

static json_t *render(const json_t *request) {
    const json_t *text = json_object_get(request, "template");
    espl_jinja *jinja = NULL;
    espl_jinja_output output = {0};
    json_t *answer;
    espl_status status = espl_jinja_parse("template", json_string_value(text), json_string_length(text), &jinja);
    if (status == ESPL_OK)
        status = espl_jinja_render(jinja, json_object_get(request, "variables"), json_string_value(json_object_get(request, "date")), NULL,
                                   &output);
    if (status == ESPL_OK) {
        json_t *spans = json_array();
        for (int64_t i = 0; i < output.n; i++)
            json_array_append_new(spans, json_pack("[II]", (json_int_t)output.generated[i].begin, (json_int_t)output.generated[i].end));
        answer = json_pack("{s:s#,s:o}", "text", output.text.data, (int)output.text.size, "generated", spans);
    } else {
        answer = json_pack("{s:s}", "error", espl_status_message());
        espl_status_clear();
    }
    espl_jinja_output_free(&output);
    espl_jinja_free(&jinja);
    return answer;
}

static json_t *tokens_of(const espl_document_tokens *made) {
    json_t *ids = json_array(), *mask = json_array();
    for (int64_t i = 0; i < made->tokens.n; i++) {
        json_array_append_new(ids, json_integer(made->tokens.ids[i]));
        json_array_append_new(mask, json_integer(made->mask.data[i]));
    }
    return json_pack("{s:o,s:o}", "ids", ids, "mask", mask);
}

static json_t *tokenise(const json_t *request) {
    const espl_chat_options options = {.template = json_string_value(json_object_get(request, "file")),
                                       .folder = json_string_value(json_object_get(request, "tokenizer"))};
    char *text = json_dumps(json_object_get(request, "record"), 0), *problem = NULL;
    espl_document_tokens made = {.n = 0};
    espl_tokenizer *tokenizer = NULL;
    espl_chat *chat = NULL;
    const espl_document document = {.text = text, .size = strlen(text)};
    espl_status status = espl_tokenizer_open(options.folder, &tokenizer);
    if (status == ESPL_OK)
        status = espl_chat_open(&options, &chat);
    const espl_tokens_recipe recipe = {.chat = chat};
    if (status == ESPL_OK)
        status = espl__document_tokenise(tokenizer, &recipe, &document, &made, &problem);
    bool good = status == ESPL_OK && problem == NULL;
    json_t *answer = good ? tokens_of(&made) : json_pack("{s:s}", "error", problem != NULL ? problem : espl_status_message());
    espl_status_clear();
    espl__document_free(&made);
    espl_chat_close(&chat);
    espl_tokenizer_close(&tokenizer);
    free(problem);
    free(text);
    return answer;
}

int main(void) {
    char *line = NULL;
    size_t capacity = 0;
    json_error_t error;
    while (getline(&line, &capacity, stdin) > 0) {
        json_t *request = json_loads(line, JSON_ALLOW_NUL, &error);
        if (!json_is_object(request)) {
            fprintf(stderr, "expected an object a line: %s\n", error.text);
            return 1;
        }
        json_t *answer = json_object_get(request, "record") != NULL ? tokenise(request) : render(request);
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(answer);
        json_decref(request);
    }
    free(line);
    return 0;
}
