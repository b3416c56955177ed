/* The rows of keys.def as a table, and values on their way into a config.
 *
 * Internal to src/config. Messages made here say what is wrong but not where: the reader of a file or
 * of an override puts the place in front. */
#ifndef ESPL_CONFIG_KEYS_H
#define ESPL_CONFIG_KEYS_H

#include "src/config/config.h"

#include <stddef.h>

typedef enum espl__type { ESPL__INT, ESPL__FLOAT, ESPL__BOOL, ESPL__STR, ESPL__ENUM, ESPL__STRS, ESPL__FLOATS } espl__type;

typedef struct espl__key {
    const char *section, *name;
    espl__type type;
    const char *default_text, *range, *help;
    const char *words; /* ENUM: its choices one after another, each closed by a NUL, the last by two */
    size_t offset;     /* of the field in espl_config */
} espl__key;

extern const espl__key espl__keys[];
extern const int espl__n_keys;

/* One scalar as written; text is NUL-terminated and may hold further NULs, which no value allows. */
typedef struct espl__scalar {
    const char *text;
    size_t size;
    bool plain; /* unquoted: an empty one, ~ and null mean absent */
    int line;
} espl__scalar;

/* A scalar, or a list of them. */
typedef struct espl__value {
    bool is_list;
    int64_t n; /* 1 unless is_list */
    const espl__scalar *items;
} espl__value;

/* Local. The row of section.name (`size` bytes of name), NULL when there is none. */
const espl__key *espl__key_find(const char *section, const char *name);

/* Local. Whether a row belongs to this section. */
bool espl__section_exists(const char *section);

/* Local. Fails with "unknown key 'a.b'" or "unknown section 'a'" (name NULL) and the nearest known one. */
espl_status espl__key_unknown(const char *section, const char *name);

/* Local. The field of a key. */
void *espl__field(const espl__key *key, espl_config *config);
const void *espl__field_const(const espl__key *key, const espl_config *config);

/* Local. Checks a value against the row and stores it, freeing what was there. `line` becomes that of the bad item. */
espl_status espl__key_store(const espl__key *key, espl_config *config, const espl__value *value, int *line);

/* Local. Frees what the field owns and zeroes it. */
void espl__key_clear(const espl__key *key, espl_config *config);

/* Local. Stores the default of the row. */
void espl__key_store_default(const espl__key *key, espl_config *config);

/* Local. Number of choices of an ENUM key, and the word of one; NULL beyond them. */
const char *espl__key_word(const espl__key *key, int index);

/* Local. Bounds of an INT or FLOAT row as texts; "" where a side is open. Each holds at most 31 characters. */
typedef struct espl__bounds {
    char low[32], high[32];
} espl__bounds;
espl__bounds espl__key_bounds(const espl__key *key);

/* Local. Code point at text[*at], which moves on; -1 where the bytes are not UTF-8. */
int32_t espl__yaml_character(const char *text, size_t size, size_t *at);

#endif
