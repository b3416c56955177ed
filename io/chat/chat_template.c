/* Where a chat template and the special tokens that it is given come from. */
#include "io/chat/chat_parts.h"
#include "io/fsio.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MOST_BYTES = 16 << 20 };

static espl_status read_object(const char *path, json_t **object) {
    espl_buffer text = {0};
    json_error_t error;
    ESPL_TRY(espl_fs_read_file(path, MOST_BYTES, &text));
    /* A model_max_length of 1e30, which stands in many of these files, is no integer for jansson. */
    *object = json_loadb(text.data, text.size, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
    espl_buffer_free(&text);
    if (!json_is_object(*object)) {
        json_decref(*object);
        *object = NULL;
        ESPL_FAIL(ESPL_ERR_DATA, "%s: not a JSON object: %s", path, error.text);
    }
    return ESPL_OK;
}

/* Takes the special tokens of one file that are not there yet: texts, or objects with their "content". */
static void take_specials(const json_t *from, json_t *specials) {
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_t *token = json_object_get(from, names[i]);
        if (json_is_object(token))
            token = json_object_get(token, "content");
        if (json_is_string(token) && json_object_get(specials, names[i]) == NULL)
            json_object_set(specials, names[i], token);
    }
}

/* One template, or the one called "default" of several. */
static const json_t *choose_template(const json_t *config) {
    const json_t *found = json_object_get(config, "chat_template"), *item;
    size_t i;
    if (!json_is_array(found))
        return json_is_string(found) ? found : NULL;
    json_array_foreach(found, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name != NULL && strcmp(name, "default") == 0 && json_is_string(json_object_get(item, "template")))
            return json_object_get(item, "template");
    }
    return NULL;
}

static espl_status parse_file(const char *path, espl_jinja **jinja) {
    espl_buffer text = {0};
    ESPL_TRY(espl_fs_read_file(path, MOST_BYTES, &text));
    espl_status status = espl_jinja_parse(path, text.data, text.size, jinja);
    espl_buffer_free(&text);
    return status;
}

static espl_status parse_template(const char *folder, const char *given, const json_t *config, espl_jinja **jinja) {
    espl_status status = ESPL_OK;
    char *file = espl_format("%s/chat_template.jinja", folder), *place = espl_format("%s/tokenizer_config.json: chat_template", folder);
    const json_t *found = choose_template(config);
    if (given != NULL && given[0] != '\0')
        ESPL_TRY_DONE(parse_file(given, jinja));
    else if (espl_fs_is_file(file))
        ESPL_TRY_DONE(parse_file(file, jinja));
    else if (found != NULL)
        ESPL_TRY_DONE(espl_jinja_parse(place, json_string_value(found), json_string_length(found), jinja));
    else
        ESPL_FAIL_DONE(ESPL_ERR_USAGE,
                       "data.records is chat, but %s has neither chat_template.jinja nor a chat_template in tokenizer_config.json; "
                       "data.chat_template names a file",
                       folder);
done:
    free(file);
    free(place);
    return status;
}

static espl_status read_config(const char *folder, const char *name, json_t *specials, json_t **config) {
    char *path = espl_format("%s/%s", folder, name);
    espl_status status = espl_fs_is_file(path) ? read_object(path, config) : ESPL_OK;
    if (status == ESPL_OK && *config != NULL)
        take_specials(*config, specials);
    free(path);
    return status;
}

/* The folder itself, or the one that a file lies in. */
static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (espl_fs_is_folder(path))
        return espl_strdup(path);
    return slash != NULL ? espl_format("%.*s", (int)(slash - path), path) : espl_strdup(".");
}

static char *name_or(const char *name, const char *usual) { return espl_strdup(name != NULL && name[0] != '\0' ? name : usual); }

espl_status espl_chat_open(const espl_chat_options *options, espl_chat **chat) {
    espl_status status = ESPL_OK;
    json_t *config = NULL, *map = NULL;
    char *folder = folder_of(options->folder);
    espl_chat *made = *chat = espl_calloc(1, sizeof *made);
    made->specials = json_object();
    made->date = espl_strdup(options->date != NULL ? options->date : "");
    made->prompt_field = name_or(options->prompt_field, "prompt");
    made->response_field = name_or(options->response_field, "response");
    made->loss = options->loss;
    ESPL_TRY_DONE(read_config(folder, "tokenizer_config.json", made->specials, &config));
    ESPL_TRY_DONE(read_config(folder, "special_tokens_map.json", made->specials, &map));
    ESPL_TRY_DONE(parse_template(folder, options->template, config, &made->jinja));
done:
    json_decref(config);
    json_decref(map);
    free(folder);
    if (status != ESPL_OK)
        espl_chat_close(chat);
    return status;
}

uint64_t espl_chat_hash(const espl_chat *chat) {
    char *specials = json_dumps(chat->specials, JSON_SORT_KEYS | JSON_COMPACT);
    char *facts = espl_format("%llx\n%s\n%s\n%s\n%s\n%d", (unsigned long long)espl_jinja_hash(chat->jinja), specials, chat->date,
                              chat->prompt_field, chat->response_field, (int)chat->loss);
    uint64_t hash = XXH3_64bits(facts, strlen(facts));
    free(facts);
    free(specials);
    return hash;
}

bool espl_chat_learns_all(const espl_chat *chat) { return chat->loss == ESPL_CHAT_ALL; }

void espl_chat_close(espl_chat **chat) {
    if (*chat == NULL)
        return;
    espl_jinja_free(&(*chat)->jinja);
    json_decref((*chat)->specials);
    free((*chat)->date);
    free((*chat)->prompt_field);
    free((*chat)->response_field);
    free(*chat);
    *chat = NULL;
}
