/* chat_probe: renders chat templates for scripts. Each line of standard input is an object: template (text), variables (object), date
 * (text, may be absent). Each line of output is {"text", "generated": [[begin, end], ...]} in bytes, or {"error"}. */
#include "io/jinja/jinja.h"

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

int main(void) {
    char *line = NULL;
    size_t capacity = 0;
    json_error_t error;
    while (getline(&line, &capacity, stdin) > 0) {
        json_t *request = json_loads(line, JSON_ALLOW_NUL, &error);
        if (!json_is_string(json_object_get(request, "template"))) {
            fprintf(stderr, "expected an object with 'template' a line\n");
            return 1;
        }
        json_t *answer = render(request);
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(answer);
        json_decref(request);
    }
    free(line);
    return 0;
}
