#include "src/config/keys.h"
#include "src/config/sweep.h"

#include "src/core/buffer.h"
#include "src/core/job_files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* A document under way into a config. Statuses made below say what is wrong; `line` says where. */
typedef struct reader {
    espl_config *config;
    espl_sweep *sweep; /* NULL: a config of one run */
    yaml_document_t *document;
    int line;
} reader;

static int line_of(const yaml_node_t *node) { return (int)node->start_mark.line + 1; }

static yaml_node_t *node_at(reader *r, int index) { return yaml_document_get_node(r->document, index); }

static espl__scalar scalar_of(const yaml_node_t *node) {
    return (espl__scalar){.text = (const char *)node->data.scalar.value,
                          .size = node->data.scalar.length,
                          .plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE,
                          .line = line_of(node)};
}

/* The text of a mapping's key, NULL for anything else: no key of ours holds a NUL, so cutting there is safe. */
static const char *key_text(const yaml_node_t *node) {
    return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

static espl_status store_sequence(reader *r, const espl__key *key, const yaml_node_t *node) {
    int64_t n = node->data.sequence.items.top - node->data.sequence.items.start;
    espl__scalar *items = espl_calloc((size_t)n, sizeof *items);
    espl_status status = ESPL_OK;
    for (int64_t i = 0; i < n; i++) {
        const yaml_node_t *item = node_at(r, node->data.sequence.items.start[i]);
        if (item->type != YAML_SCALAR_NODE) {
            r->line = line_of(item);
            ESPL_FAIL_DONE(ESPL_ERR_USAGE, "%s.%s: entry %lld is not a plain value", key->section, key->name, (long long)i + 1);
        }
        items[i] = scalar_of(item);
    }
    const espl__value value = {.is_list = true, .n = n, .items = items};
    ESPL_TRY_DONE(espl__key_store(key, r->config, &value, &r->line));
done:
    free(items);
    return status;
}

static espl_status store_node(reader *r, const espl__key *key, const yaml_node_t *node) {
    if (node->type == YAML_SEQUENCE_NODE)
        return store_sequence(r, key, node);
    if (node->type != YAML_SCALAR_NODE)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s.%s is one value or list, found a mapping", key->section, key->name);
    const espl__scalar scalar = scalar_of(node);
    const espl__value value = {.n = 1, .items = &scalar};
    return espl__key_store(key, r->config, &value, &r->line);
}

/* Fails when an earlier pair of the mapping has the same key as `pair`. */
static espl_status check_repeated(reader *r, const yaml_node_t *mapping, const yaml_node_pair_t *pair, const char *section) {
    const char *text = key_text(node_at(r, pair->key));
    for (yaml_node_pair_t *other = mapping->data.mapping.pairs.start; other < pair; other++) {
        const yaml_node_t *key = node_at(r, other->key);
        if (strcmp(key_text(key), text) != 0)
            continue;
        if (section == NULL)
            ESPL_FAIL(ESPL_ERR_USAGE, "section '%s' is there twice, first on line %d", text, line_of(key));
        ESPL_FAIL(ESPL_ERR_USAGE, "key '%s.%s' is set twice, first on line %d", section, text, line_of(key));
    }
    return ESPL_OK;
}

static espl_status store_pair(reader *r, const yaml_node_t *mapping, const yaml_node_pair_t *pair, const char *section) {
    const yaml_node_t *name = node_at(r, pair->key);
    r->line = line_of(name);
    if (key_text(name) == NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "section '%s': a key must be a word", section);
    const espl__key *key = espl__key_find(section, key_text(name));
    if (key == NULL)
        return espl__key_unknown(section, key_text(name));
    ESPL_TRY(check_repeated(r, mapping, pair, section));
    return store_node(r, key, node_at(r, pair->value));
}

/* ---- The section `sweep`. */

static espl_status apply_override(espl_config *config, char *text);

/* The text that an override has for a value or a list of values. */
static espl_status print_override(reader *r, const yaml_node_t *node, espl_buffer *text) {
    bool list = node->type == YAML_SEQUENCE_NODE;
    int64_t n = list ? node->data.sequence.items.top - node->data.sequence.items.start : 1;
    espl_buffer_printf(text, "%s", list ? "[" : "");
    for (int64_t i = 0; i < n; i++) {
        const yaml_node_t *item = list ? node_at(r, node->data.sequence.items.start[i]) : node;
        r->line = line_of(item);
        if (item->type != YAML_SCALAR_NODE)
            ESPL_FAIL(ESPL_ERR_USAGE, "a value of a sweep is a plain value or a list of such");
        bool quoted = list && item->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        espl_buffer_printf(text, quoted ? "%s\"%s\"" : "%s%s", i > 0 ? ", " : "", (const char *)item->data.scalar.value);
    }
    espl_buffer_printf(text, "%s", list ? "]" : "");
    return ESPL_OK;
}

/* A value is checked by setting it in a config that is thrown away. */
static espl_status add_value(reader *r, espl_axis *axis, const yaml_node_t *node) {
    espl_buffer text = {0};
    espl_config trial;
    espl_config_make(&trial);
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(print_override(r, node, &text));
    char *override = espl_format("%s=%s", axis->key, text.data != NULL ? text.data : "");
    status = apply_override(&trial, override);
    free(override);
    ESPL_TRY_DONE(status);
    axis->values[axis->n++] = espl_strdup(text.data != NULL ? text.data : "");
done:
    espl_config_free(&trial);
    espl_buffer_free(&text);
    return status;
}

static espl_status add_axis(reader *r, const yaml_node_pair_t *pair) {
    const yaml_node_t *name = node_at(r, pair->key), *list = node_at(r, pair->value);
    espl_sweep *sweep = r->sweep;
    r->line = line_of(name);
    if (key_text(name) == NULL || strcmp(key_text(name), "run.dir") == 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "a sweep goes over keys as 'section.key: [values]', other than run.dir, which is its folder");
    for (int64_t a = 0; a < sweep->n; a++)
        if (strcmp(sweep->axes[a].key, key_text(name)) == 0)
            ESPL_FAIL(ESPL_ERR_USAGE, "sweep: '%s' is there twice", key_text(name));
    if (list->type != YAML_SEQUENCE_NODE || list->data.sequence.items.top == list->data.sequence.items.start)
        ESPL_FAIL(ESPL_ERR_USAGE, "sweep: '%s' wants a list of values, as [1e-5, 2e-5]", key_text(name));
    int64_t n = list->data.sequence.items.top - list->data.sequence.items.start;
    sweep->axes = espl_realloc(sweep->axes, (size_t)(sweep->n + 1) * sizeof *sweep->axes);
    espl_axis *axis = &sweep->axes[sweep->n++];
    *axis = (espl_axis){.key = espl_strdup(key_text(name)), .values = espl_calloc((size_t)n, sizeof *axis->values)};
    for (int64_t i = 0; i < n; i++)
        ESPL_TRY(add_value(r, axis, node_at(r, list->data.sequence.items.start[i])));
    return ESPL_OK;
}

static espl_status store_sweep(reader *r, const yaml_node_t *body) {
    if (r->sweep == NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "section 'sweep' makes several runs of this config: `espalier sweep` takes it");
    if (body->type != YAML_MAPPING_NODE)
        ESPL_FAIL(ESPL_ERR_USAGE, "section 'sweep' wants lines 'section.key: [values]', indented");
    for (yaml_node_pair_t *p = body->data.mapping.pairs.start; p < body->data.mapping.pairs.top; p++)
        ESPL_TRY(add_axis(r, p));
    return ESPL_OK;
}

/* ---- */

static espl_status store_section(reader *r, const yaml_node_t *root, const yaml_node_pair_t *pair) {
    const yaml_node_t *name = node_at(r, pair->key), *body = node_at(r, pair->value);
    r->line = line_of(name);
    if (key_text(name) == NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "a section's name must be a word");
    const char *section = key_text(name);
    if (strcmp(section, "sweep") == 0) {
        ESPL_TRY(check_repeated(r, root, pair, NULL));
        return store_sweep(r, body);
    }
    if (!espl__section_exists(section))
        return espl__key_unknown(section, NULL);
    ESPL_TRY(check_repeated(r, root, pair, NULL));
    if (body->type == YAML_SCALAR_NODE && body->data.scalar.length == 0)
        return ESPL_OK;
    if (body->type != YAML_MAPPING_NODE)
        ESPL_FAIL(ESPL_ERR_USAGE, "section '%s' wants lines 'key: value', indented", section);
    for (yaml_node_pair_t *p = body->data.mapping.pairs.start; p < body->data.mapping.pairs.top; p++)
        ESPL_TRY(store_pair(r, body, p, section));
    return ESPL_OK;
}

static espl_status store_root(reader *r) {
    const yaml_node_t *root = yaml_document_get_root_node(r->document);
    if (root == NULL || (root->type == YAML_SCALAR_NODE && root->data.scalar.length == 0))
        return ESPL_OK;
    r->line = line_of(root);
    if (root->type != YAML_MAPPING_NODE)
        ESPL_FAIL(ESPL_ERR_USAGE, "expected sections such as 'train:', found %s", root->type == YAML_SEQUENCE_NODE ? "a list" : "a value");
    for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top; p++)
        ESPL_TRY(store_section(r, root, p));
    return ESPL_OK;
}

static int line_at(const char *text, size_t size, size_t offset) {
    int line = 1;
    for (size_t i = 0; i < size && i < offset; i++)
        line += text[i] == '\n';
    return line;
}

/* Loads the next document. An error of the reader has an offset, all others have a mark. */
static espl_status load(yaml_parser_t *parser, yaml_document_t *document, const char *text, size_t size, int *line) {
    if (yaml_parser_load(parser, document))
        return ESPL_OK;
    *line = parser->error == YAML_READER_ERROR ? line_at(text, size, parser->problem_offset) : (int)parser->problem_mark.line + 1;
    ESPL_FAIL(ESPL_ERR_USAGE, "not YAML: %s%s%s", parser->problem, parser->context != NULL ? " " : "",
              parser->context != NULL ? parser->context : "");
}

static espl_status refuse_second_document(yaml_parser_t *parser, const char *text, size_t size, int *line) {
    yaml_document_t document;
    ESPL_TRY(load(parser, &document, text, size, line));
    const yaml_node_t *root = yaml_document_get_root_node(&document);
    if (root != NULL)
        *line = line_of(root);
    yaml_document_delete(&document);
    if (root != NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "a second YAML document begins here; a config is one");
    return ESPL_OK;
}

static espl_status read_document(espl_config *config, espl_sweep *sweep, const char *text, size_t size, int *line) {
    yaml_parser_t parser;
    yaml_document_t document;
    ESPL_ASSERT(yaml_parser_initialize(&parser), "libyaml is out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    espl_status status = load(&parser, &document, text, size, line);
    if (status == ESPL_OK) {
        reader r = {.config = config, .sweep = sweep, .document = &document};
        bool empty = yaml_document_get_root_node(&document) == NULL;
        status = store_root(&r);
        *line = r.line;
        yaml_document_delete(&document);
        if (status == ESPL_OK && !empty)
            status = refuse_second_document(&parser, text, size, line);
    }
    yaml_parser_delete(&parser);
    return status;
}

static espl_status read_text(espl_config *config, espl_sweep *sweep, const char *text, size_t size, const char *name) {
    int line = 0;
    espl_status status = read_document(config, sweep, text, size, &line);
    if (status != ESPL_OK)
        espl_status_set_message("%s:%d: %s", name, line, espl_status_message());
    return status;
}

espl_status espl_config_read_text(espl_config *config, const char *text, size_t size, const char *name) {
    return read_text(config, NULL, text, size, name);
}

static espl_status read_file(espl_config *config, espl_sweep *sweep, const char *path) {
    espl_status status = ESPL_OK;
    espl_buffer text = {0};
    int error = espl_file_read(path, &text);
    if (error != 0)
        ESPL_FAIL_DONE(ESPL_ERR_USAGE, "%s: cannot be opened: %s", path, strerror(error));
    ESPL_TRY_DONE(read_text(config, sweep, text.data, text.size, path));
done:
    espl_buffer_free(&text);
    return status;
}

espl_status espl_config_read(espl_config *config, const char *path) { return read_file(config, NULL, path); }

espl_status espl_sweep_read(espl_config *config, espl_sweep *sweep, const char *path) {
    *sweep = (espl_sweep){0};
    ESPL_TRY(read_file(config, sweep, path));
    if (sweep->n == 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s: no section 'sweep' with lines 'section.key: [values]'; one run is `espalier train`", path);
    return ESPL_OK;
}

/* The value of an override: a list when it begins with a bracket, else its text taken literally, without YAML's quoting. */
static espl_status store_override(espl_config *config, const espl__key *key, const char *text) {
    if (text[0] != '[' || (key->type != ESPL__STRS && key->type != ESPL__FLOATS)) {
        const espl__scalar scalar = {.text = text, .size = strlen(text), .plain = true};
        const espl__value value = {.n = 1, .items = &scalar};
        int line;
        return espl__key_store(key, config, &value, &line);
    }
    yaml_parser_t parser;
    yaml_document_t document;
    int line;
    ESPL_ASSERT(yaml_parser_initialize(&parser), "libyaml is out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, strlen(text));
    espl_status status = load(&parser, &document, text, strlen(text), &line);
    if (status == ESPL_OK) {
        reader r = {.config = config, .document = &document};
        status = store_node(&r, key, yaml_document_get_root_node(&document));
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    return status;
}

static espl_status apply_override(espl_config *config, char *text) {
    char *equals = strchr(text, '='), *dot = strchr(text, '.');
    if (equals == NULL || dot == NULL || dot > equals)
        ESPL_FAIL(ESPL_ERR_USAGE, "'%s' is not of the form section.key=value", text);
    *equals = *dot = '\0';
    const espl__key *key = espl__key_find(text, dot + 1);
    return key != NULL ? store_override(config, key, equals + 1) : espl__key_unknown(text, dot + 1);
}

espl_status espl_config_set(espl_config *config, const char *override) {
    char *text = espl_strdup(override);
    espl_status status = apply_override(config, text);
    if (status != ESPL_OK)
        espl_status_set_message("--set: %s", espl_status_message());
    free(text);
    return status;
}
