#include "src/train/weights/model_card.h"

#include "io/fsio.h"
#include "src/core/buffer.h"
#include "src/core/log.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MOST_BYTES = 1 << 24 };

static const char mark[] = "<!-- written by espalier; a file that was changed is not written again; hash ";

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static long long number_of(const json_t *object, const char *key) { return (long long)json_integer_value(json_object_get(object, key)); }

/* ---- Front matter (huggingface.co/docs/hub/model-cards). */

/* The hub's name for what a head is for. */
static const struct {
    const char *architecture, *pipeline;
} pipelines[] = {{"ForCausalLM", "text-generation"},
                 {"LMHeadModel", "text-generation"},
                 {"ForMaskedLM", "fill-mask"},
                 {"ForSequenceClassification", "text-classification"},
                 {"ForConditionalGeneration", "text2text-generation"}};

static void print_as(espl_buffer *out, const char *key, const json_t *value) {
    char *quoted = json_is_string(value) ? json_dumps(value, JSON_ENCODE_ANY) : NULL; /* a JSON string is a YAML string */
    if (quoted != NULL)
        espl_buffer_printf(out, "%s: %s\n", key, quoted);
    free(quoted);
}

static void print_key(espl_buffer *out, const json_t *object, const char *key) { print_as(out, key, json_object_get(object, key)); }

/* An adapter by itself: what made it, and what reads it. */
typedef struct kind {
    const char *method, *library, *title;
} kind;

static const kind kinds[] = {{"lora", "peft", "A LoRA adapter of a"},
                             {"bottleneck", "espalier", "Bottleneck adapters of a"},
                             {"prompt", "peft", "A soft prompt for a"},
                             {"prefix", "peft", "A prefix for a"}};

static const kind *kind_of(const json_t *record) {
    const char *method = text_of(json_object_get(record, "adapter"), "method");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].method, method) == 0)
            return &kinds[i];
    return &kinds[0];
}

static void print_front_matter(espl_buffer *out, const json_t *record, bool adapter) {
    const json_t *architectures = json_object_get(json_object_get(record, "model_config"), "architectures"),
                 *licence = json_object_get(json_object_get(json_object_get(record, "provenance"), "base"), "licence");
    const char *name = json_string_value(json_array_get(architectures, 0));
    espl_buffer_printf(out, "---\nlibrary_name: %s\n", adapter ? kind_of(record)->library : "transformers");
    if (adapter)
        print_as(out, "base_model", json_object_get(json_object_get(record, "base"), "path"));
    espl_buffer_printf(out, "tags:\n- espalier\n");
    if (adapter)
        espl_buffer_printf(out, "- %s\n", kind_of(record)->method);
    for (size_t i = 0; name != NULL && i < sizeof pipelines / sizeof pipelines[0]; i++)
        if (strstr(name, pipelines[i].architecture) != NULL)
            espl_buffer_printf(out, "pipeline_tag: %s\n", pipelines[i].pipeline);
    print_key(out, licence, "license");
    print_key(out, licence, "license_name");
    print_key(out, licence, "license_link");
    espl_buffer_printf(out, "---\n\n");
}

/* ---- The text. */

static void print_base(espl_buffer *out, const json_t *record, bool adapter) {
    const json_t *about = json_object_get(record, "provenance"), *base = json_object_get(about, "base"),
                 *licence = json_object_get(base, "licence"), *counters = json_object_get(record, "counters");
    const char *name = text_of(licence, "license"), *file = text_of(licence, "file");
    espl_buffer_printf(out, "# %s %s model trained with Espalier\n\n", adapter ? kind_of(record)->title : "A", text_of(base, "family"));
    espl_buffer_printf(out, "%lld of %lld steps over %lld tokens, starting from `%s`.", number_of(counters, "step"),
                       number_of(record, "total_steps"), number_of(counters, "tokens"), text_of(base, "path"));
    if (licence == NULL)
        espl_buffer_printf(out, " That folder says nothing about a licence.\n");
    else
        espl_buffer_printf(out, " Its licence (%s%s%s) holds for what is made from it, too.\n", name,
                           name[0] != '\0' && file[0] != '\0' ? ", file " : "", file);
}

static void print_probes(espl_buffer *out, json_t *probes) {
    const char *name;
    json_t *probe;
    if (json_object_size(probes) == 0)
        return;
    espl_buffer_printf(out, "\n## Loss on what was known before\n\n| set | before | now |\n| --- | --- | --- |\n");
    json_object_foreach(probes, name, probe)
        espl_buffer_printf(out, "| %s | %.4f | %.4f |\n", name, json_number_value(json_object_get(probe, "before")),
                           json_number_value(json_object_get(probe, "now")));
}

static void print_data(espl_buffer *out, json_t *sets) {
    const char *name;
    json_t *set, *file;
    size_t i;
    if (json_object_size(sets) == 0)
        return;
    espl_buffer_printf(out, "\n## Data\n\n| set | file | bytes | XXH3 |\n| --- | --- | --- | --- |\n");
    json_object_foreach(sets, name, set) {
        const json_t *files = json_object_get(set, "files");
        json_array_foreach(files, i, file) espl_buffer_printf(out, "| %s | `%s` | %lld | %s%s |\n", name, text_of(file, "path"),
                                                              number_of(file, "bytes"), text_of(file, "xxh3"), text_of(file, "key"));
        if (number_of(set, "n_files") > (long long)json_array_size(files))
            espl_buffer_printf(out, "| %s | and others, %lld in all | | |\n", name, number_of(set, "n_files"));
    }
    espl_buffer_printf(out, "\nOf files above 8 MiB the hash is that of their blocks' hashes; of a token store its key.\n");
}

static void print_run(espl_buffer *out, const json_t *record) {
    json_t *about = json_deep_copy(json_object_get(record, "provenance"));
    json_object_del(about, "data");
    char *text = json_dumps(about, JSON_INDENT(2));
    espl_buffer_printf(out, "\n## How\n\n`%s`, started %s, saved %s.\n", text_of(about, "command_line"), text_of(about, "started"),
                       text_of(record, "saved"));
    espl_buffer_printf(out, "\n<details><summary>Config</summary>\n\n```yaml\n%s```\n\n</details>\n", text_of(record, "config"));
    espl_buffer_printf(out, "\n<details><summary>Machine, job, libraries</summary>\n\n```json\n%s\n```\n\n</details>\n\n",
                       text != NULL ? text : "{}");
    free(text);
    json_decref(about);
}

/* ---- The file. */

static void print_mark(espl_buffer *out) {
    espl_buffer_printf(out, "%s%016llx -->\n", mark, (unsigned long long)XXH3_64bits(out->data, out->size));
}

/* Whether a file is as it was written here: nothing was changed since. */
static bool is_ours(espl_buffer *text) {
    const char *found = NULL;
    for (const char *at = text->data; at != NULL && (at = strstr(at, mark)) != NULL; at++)
        found = at;
    if (found == NULL)
        return false;
    espl_buffer again = {0};
    espl_buffer_append(&again, text->data, (size_t)(found - text->data));
    print_mark(&again);
    bool same = again.size == text->size && memcmp(again.data, text->data, text->size) == 0;
    espl_buffer_free(&again);
    return same;
}

static espl_status may_write(const char *path, bool *may) {
    espl_buffer text = {0};
    *may = true;
    if (!espl_fs_is_file(path))
        return ESPL_OK;
    espl_status status = espl_fs_read_file(path, MOST_BYTES, &text);
    *may = status == ESPL_OK && text.size > 0 && is_ours(&text);
    espl_buffer_free(&text);
    return status;
}

espl_status espl_model_card_write(const json_t *record, bool adapter, const char *folder) {
    espl_buffer out = {0};
    bool may;
    char *path = espl_format("%s/README.md", folder);
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(may_write(path, &may));
    if (!may) {
        ESPL_WARN("%s: not written by an export, or changed since: it stays as it is", path);
        goto done;
    }
    print_front_matter(&out, record, adapter);
    print_base(&out, record, adapter);
    print_probes(&out, json_object_get(record, "probes"));
    print_data(&out, json_object_get(json_object_get(record, "provenance"), "data"));
    print_run(&out, record);
    print_mark(&out);
    ESPL_TRY_DONE(espl_fs_write_file(path, out.data, out.size));
done:
    espl_buffer_free(&out);
    free(path);
    return status;
}
