/* Shards: the HDF5 files that hold a checkpoint's tensors, one a writer.
 *
 * /checksums is the XXH3 of every piece of every range, one range after the other; /<group>/<name> is one range of a tensor, flat, with
 * the attributes dtype, shape (of the whole tensor), begin, end, piece (its first in /checksums) and xxh3 (of its part of
 * /checksums as little-endian uint64, hexadecimal). HDF5 lays the file out; the bytes of tensors go to their offsets directly, past the
 * page cache where they can. The file's own checksum leaves them out: it covers /checksums, which covers them. */
#ifndef ESPL_IO_SHARD_H
#define ESPL_IO_SHARD_H

#include "io/checkpoint/checkpoint.h"
#include "io/h5.h"
#include "io/checkpoint/manifest.h"

struct XXH3_state_s;

/* Elements [begin, end) of a tensor, not empty, for one file. */
typedef struct espl_shard_range {
    const espl_state_tensor *tensor; /* group, name, dtype, shape; borrowed */
    int64_t begin, end;
    void *data;            /* borrowed; read only, and must not change during the write */
    int64_t offset, piece; /* set by the write: bytes into the file, first checksum */
} espl_shard_range;

/* Local. Bytes of a range. */
int64_t espl_shard_range_bytes(const espl_shard_range *range);

/* Bytes of a write, at most. */
enum { ESPL_SHARD_WRITE = 4 << 20 };

/* What a shard is written with. Ranges that do not begin where a direct write may go through the stage; without one, through the page
 * cache. */
typedef struct espl_shard_means {
    int lanes;   /* threads */
    char *stage; /* lanes * ESPL_SHARD_WRITE bytes, aligned to ESPL_FS_BLOCK, or NULL; borrowed */
} espl_shard_means;

/* Local. Writes and syncs one shard at `path` and describes it in *file (all but its name). Errors: io. */
espl_status espl_shard_write(const char *path, int64_t step, int64_t attempt, espl_shard_range *ranges, int64_t n,
                             const espl_shard_means *means, espl_manifest_file *file);

/* Local. Writes and syncs folder/index.h5, where the manifest's tensors stand whole as virtual datasets, and describes it in *file. Errors:
 * io. */
espl_status espl_shard_write_index(const char *folder, const espl_manifest *manifest, espl_manifest_file *file);

/* Local. The boxes of a row-major tensor that elements [begin, end) are, in order; at most 2 * ESPL_MAX_DIMS - 1. Sets at, size and
 * begin (counted from `begin`) of each; returns their number. */
int64_t espl_shard_boxes(int n_dims, const int64_t *shape, int64_t begin, int64_t end, espl_h5_box boxes[2 * ESPL_MAX_DIMS - 1]);

typedef struct espl_shards espl_shards; /* the files of a checkpoint, open for reading */

/* Local. Reads through a manifest, which is borrowed. Opens nothing yet. */
void espl_shards_open(const char *folder, const espl_manifest *manifest, espl_shards **shards);

/* Local. Elements [begin, end) of a tensor of the manifest, checked piece by piece. Errors: io; data, naming file, tensor and elements. */
espl_status espl_shards_read(espl_shards *shards, const espl_manifest_tensor *tensor, int64_t begin, int64_t end, void *to);

/* Local. Bytes [from, to) of an open file into a checksum; none when from >= to. Errors: io, data. */
espl_status espl__shard_hash(int fd, const char *path, int64_t from, int64_t to, struct XXH3_state_s *state);

/* Local. Checks size and all checksums of file i; names the tensor that is damaged. Errors: io, data. */
espl_status espl_shards_check_file(espl_shards *shards, int64_t i);

/* Local. Closes; takes the address, nulls it, accepts NULL. */
void espl_shards_close(espl_shards **shards);

#endif
