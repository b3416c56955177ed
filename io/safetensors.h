/* Safetensors: single files and indexed shards, mapped and read without a second copy; and written.
 *
 * Format: 8 bytes little-endian header size, a JSON header {"name": {"dtype", "shape", "data_offsets"}}, then data. */
#ifndef ESPL_IO_SAFETENSORS_H
#define ESPL_IO_SAFETENSORS_H

#include "src/core/dtype.h"
#include "src/core/status.h"

#include <stdbool.h>

enum { ESPL_MAX_DIMS = 4 };

typedef struct espl_tensor_file {
    const char *name;  /* borrowed from the set */
    espl_dtype dtype;
    int n_dims;
    int64_t shape[ESPL_MAX_DIMS];
    const void *data;  /* in the mapping; valid until the set is closed */
    size_t bytes;
} espl_tensor_file;

typedef struct espl_safetensors espl_safetensors;

/* Local. Maps `path`: a .safetensors file, or a folder with model.safetensors or model.safetensors.index.json.
 * Checks header sizes, offsets, overlaps, file lengths. Errors: data, with file, tensor, found and expected. */
espl_status espl_safetensors_open(const char *path, espl_safetensors **set);

/* Local. Whether a folder holds weights at all. */
bool espl_safetensors_exist(const char *folder);

/* Local. Number of tensors, and tensor i in order of name. */
int64_t espl_safetensors_count(const espl_safetensors *set);
const espl_tensor_file *espl_safetensors_at(const espl_safetensors *set, int64_t i);

/* Local. A tensor by name, NULL when absent. */
const espl_tensor_file *espl_safetensors_find(const espl_safetensors *set, const char *name);

/* Local. Unmaps; takes the address, nulls it, accepts NULL. */
void espl_safetensors_close(espl_safetensors **set);

/* One tensor to write; data borrowed during the call. */
typedef struct espl_tensor_out {
    const char *name;
    espl_dtype dtype;
    int n_dims;
    int64_t shape[ESPL_MAX_DIMS];
    const void *data;
} espl_tensor_out;

/* Local. Writes folder/model.safetensors, or shards of at most `shard_bytes` with their index; each by temp, fsync, rename.
 * metadata {"format": "pt"} is written, as transformers wants it. */
espl_status espl_safetensors_write(const char *folder, const espl_tensor_out *tensors, int64_t n, size_t shard_bytes);

#endif
