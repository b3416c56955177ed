/* The manifest of a checkpoint: which files it has, and where in them every range of every tensor lies.
 *
 * manifest.json is one JSON object. Its first line holds format, version and the XXH3 (64 bits) of all bytes after that line, so a
 * torn or altered manifest is told from a foreign one. "files": name, bytes, XXH3 of what is outside of its ranges, and where its
 * checksums of pieces lie (outside too, so both together cover each byte once); "tensors": group, name, dtype, shape, ranges [file, begin,
 * end, offset in bytes, first piece], in order of group and name; "record": the caller's object. A range's bytes are checked in pieces of
 * ESPL_PIECE_BYTES counted from its begin, so a reader verifies just what it reads. Reading trusts nothing: a parsed manifest tiles its
 * tensors and stays within its files.
 */
#ifndef ESPL_IO_MANIFEST_H
#define ESPL_IO_MANIFEST_H

#include "io/safetensors/safetensors.h"
#include "src/core/buffer.h"

#include <jansson.h>

enum { ESPL_PIECE_BYTES = 1 << 20, ESPL_MANIFEST_VERSION = 3 };

#define ESPL_MANIFEST_NAME "manifest.json"

typedef struct espl_manifest_file {
    char *name; /* within the checkpoint's folder */
    int64_t bytes;
    uint64_t xxh3;       /* of the file's bytes, those of ranges left out */
    int64_t sums_offset; /* bytes into the file: XXH3 of every piece, uint64 */
    int64_t n_sums;
    uint64_t sums_xxh3; /* of those n_sums * 8 bytes */
} espl_manifest_file;

typedef struct espl_manifest_range {
    int64_t file, begin, end; /* elements */
    int64_t offset;           /* bytes into the file */
    int64_t piece;            /* index of the range's first piece among the file's sums */
} espl_manifest_range;

typedef struct espl_manifest_tensor {
    char *group, *name;
    espl_dtype dtype;
    int n_dims;
    int64_t shape[ESPL_MAX_DIMS];
    int64_t count;               /* elements */
    espl_manifest_range *ranges; /* tile [0, count) in order */
    int64_t n_ranges;
} espl_manifest_tensor;

typedef struct espl_manifest {
    int64_t step, attempt;
    double rating; /* lower is better; NAN: none */
    espl_manifest_file *files;
    int64_t n_files;
    espl_manifest_tensor *tensors; /* in order of group and name */
    int64_t n_tensors;
    json_t *record;
} espl_manifest;

/* Local. Elements of a shape; -1 when it is no shape (negative, or more than 2^62 bytes at 8 a number). */
int64_t espl_manifest_count(int n_dims, const int64_t *shape);

/* Local. Pieces of so many bytes. */
int64_t espl_manifest_pieces(int64_t bytes);

/* Local. Brings the tensors in their order; the writer's duty before writing. */
void espl_manifest_sort(espl_manifest *manifest);

/* Local. Appends the text of a manifest. */
void espl_manifest_print(const espl_manifest *manifest, espl_buffer *text);

/* Local. Parses a text; `where` is for messages. Errors: data (torn, foreign version, or what contradicts what). */
espl_status espl_manifest_parse(const char *text, size_t size, const char *where, espl_manifest **manifest);

/* Local. Appends the text of folder/manifest.json; reads and parses it; writes it by temp, fsync, rename. Errors: io, data. */
espl_status espl_manifest_load_text(const char *folder, espl_buffer *text);
espl_status espl_manifest_read(const char *folder, espl_manifest **manifest);
espl_status espl_manifest_write(const char *folder, const espl_manifest *manifest);

/* Local. A tensor, NULL when absent. */
const espl_manifest_tensor *espl_manifest_find(const espl_manifest *manifest, const char *group, const char *name);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl_manifest_free(espl_manifest **manifest);

#endif
