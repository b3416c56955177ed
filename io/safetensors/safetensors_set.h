/* A set of tensors as the reader builds it up; shared by the files of the safetensors reader and its fuzzer. */
#ifndef ESPL_IO_SAFETENSORS_SET_H
#define ESPL_IO_SAFETENSORS_SET_H

#include "io/safetensors/safetensors.h"

#define ESPL__SAFETENSORS_FILE "model.safetensors"
#define ESPL__SAFETENSORS_INDEX "model.safetensors.index.json"

/* A tensor that stands in a file but has no place in espl_tensor_file. */
typedef struct espl__unread {
    char *name;
    char *form; /* "dtype F8_E4M3" */
} espl__unread;

typedef struct espl__mapping {
    void *base;
    size_t bytes;
} espl__mapping;

struct espl_safetensors {
    char *path;
    espl_tensor_file *tensors; /* names owned */
    int64_t n_tensors;
    espl__unread *unread;
    int64_t n_unread;
    espl__mapping *mappings;
    int64_t n_mappings;
    void **copies; /* of unaligned data */
    int64_t n_copies;
};

/* Local. Adds the tensors of one file, whose contents lie at `bytes`, to the set. `file` is for messages. Errors: data. */
espl_status espl__safetensors_parse(espl_safetensors *set, const char *file, const char *bytes, size_t size);

/* Local. What the format calls a dtype; NULL for none. */
const char *espl__safetensors_dtype_name(espl_dtype dtype);

#endif
