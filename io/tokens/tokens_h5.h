/* The HDF5 side of the token store: its datasets as ranges of bytes in the file. */
#ifndef ESPL_IO_TOKENS_H5_H
#define ESPL_IO_TOKENS_H5_H

#include "src/core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ESPL_STORE_FORMAT = 2, ESPL_STORE_OLDEST = 1 };

/* The datasets, in the order of their rows in tokens_h5.c. */
enum {
    ESPL_STORE_IDS,
    ESPL_STORE_DOCUMENTS,
    ESPL_STORE_MASK,
    ESPL_STORE_BYTES,
    ESPL_STORE_TYPES,
    ESPL_STORE_WORDS,
    ESPL_STORE_LABELS,
    ESPL_STORE_SPLIT,
    ESPL_STORE_HASHES,
    ESPL_STORE_NAMES,
    ESPL_STORE_CUT,
    ESPL_STORE_SETS
};

/* What a dataset has an element for. DOCUMENTS has one more, as it holds offsets. */
typedef enum espl_store_per { ESPL_PER_TOKEN, ESPL_PER_DOCUMENT, ESPL_PER_STORE } espl_store_per;

typedef struct espl_store_row {
    const char *name;
    espl_store_per per;
    bool needed, is_signed;
    int64_t min_width, max_width;
} espl_store_row;

extern const espl_store_row espl_store_rows[ESPL_STORE_SETS];

typedef struct espl_store_set {
    int64_t n;      /* elements; 0: absent */
    int64_t width;  /* bytes of one; ids: 2 or 4 */
    int64_t offset; /* of its first byte in the file */
    uint64_t checksum;
} espl_store_set;

typedef struct espl_store_layout {
    espl_store_set sets[ESPL_STORE_SETS];
    uint64_t key;
    int64_t vocabulary;
} espl_store_layout;

/* Local. Makes the file with all datasets allocated, not written: n and width in, offset out. Errors: io. */
espl_status espl__store_create(const char *path, espl_store_layout *layout);

/* Local. Writes the attributes; from now on it is a store. Errors: io. */
espl_status espl__store_seal(const char *path, const espl_store_layout *layout);

/* Local. Reads a sealed store's layout and checks types and bounds; of the data it reads nothing. Errors: data. */
espl_status espl__store_inspect(const char *path, espl_store_layout *layout);

#endif
