/* Safetensors: single files and indexed shards, mapped and read without a second copy; and written.
 *
 * Format: 8 bytes little-endian header size, a JSON header {"name": {"dtype", "shape", "data_offsets"}}, then data without
 * holes or overlaps (github.com/huggingface/safetensors, README). A tensor of a dtype that espl_dtype lacks, or of more than
 * ESPL_MAX_DIMS dimensions, is no error until someone requires it: it is not among count, at and find. Data that a file leaves
 * unaligned is copied, all other data is mapped; a file that shrinks while it is mapped ends the process (SIGBUS). */
#ifndef ESPL_IO_SAFETENSORS_H
#define ESPL_IO_SAFETENSORS_H

#include "src/core/dtype.h"
#include "src/core/status.h"

#include <stdbool.h>

enum { ESPL_MAX_DIMS = 4 };

typedef struct espl_tensor_file {
    const char *name; /* borrowed from the set */
    espl_dtype dtype;
    int n_dims;
    int64_t shape[ESPL_MAX_DIMS];
    const void *data; /* in the mapping; valid until the set is closed */
    size_t bytes;
} espl_tensor_file;

typedef struct espl_safetensors espl_safetensors;

/* Local. Maps `path`: a .safetensors file, or a folder with model.safetensors or, that being absent, model.safetensors.index.json.
 * Checks header sizes, offsets, overlaps, file lengths. Errors: data, with file, tensor, found and expected; io, when the system
 * cannot open or map it. */
espl_status espl_safetensors_open(const char *path, espl_safetensors **set);

/* Local. Whether a folder holds weights at all. */
bool espl_safetensors_exist(const char *folder);

/* Local. Number of tensors, and tensor i in order of name. */
int64_t espl_safetensors_count(const espl_safetensors *set);
const espl_tensor_file *espl_safetensors_at(const espl_safetensors *set, int64_t i);

/* Local. A tensor by name, NULL when absent. */
const espl_tensor_file *espl_safetensors_find(const espl_safetensors *set, const char *name);

/* Local. A tensor by name. Errors: data, when absent, or there in a form that is not read; names file, tensor and form. */
espl_status espl_safetensors_require(const espl_safetensors *set, const char *name, const espl_tensor_file **tensor);

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

/* Local. Writes folder/model.safetensors, or, when the tensors have more than `shard_bytes` (0: no limit), shards with their index;
 * a tensor is never cut. Each file by temp, fsync, rename; weights of the other form that lay in the folder are removed last.
 * metadata {"format": "pt"} is written, as transformers wants it. Errors: io; data, when a name comes twice. */
espl_status espl_safetensors_write(const char *folder, const espl_tensor_out *tensors, int64_t n, size_t shard_bytes);

/* Local. Writes one file with the same care; for adapters, whose file has another name. */
espl_status espl_safetensors_write_file(const char *path, const espl_tensor_out *tensors, int64_t n);

#endif
