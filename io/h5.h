/* HDF5, as little of it as storage needs; hdf5.h itself stays behind this header.
 *
 * Files are written with the newest object formats (checksummed metadata), datasets contiguous, allocated at once and never
 * filled, so that their bytes can be written at their file offset by io/fsio.h. Formats fp16 and bf16: fp16 is a 16-bit IEEE
 * float, bf16, which HDF5 lacks, its bits as uint16; every dataset says its own in the attribute "dtype".
 * HDF5 may have been built without thread safety: whoever uses it holds espl_h5_lock meanwhile. */
#ifndef ESPL_IO_H5_H
#define ESPL_IO_H5_H

#include "io/safetensors/safetensors.h"
#include "src/core/buffer.h"

typedef int64_t espl_h5_id; /* a file or dataset of HDF5; -1 none */

enum { ESPL_H5_U64 = ESPL_N_DTYPES }; /* beside espl_dtype as a type of elements */

/* A box of a virtual dataset and the run of elements of a one-dimensional dataset that it shows. */
typedef struct espl_h5_box {
    const char *file, *dataset; /* file relative to the file of the virtual dataset */
    int64_t begin, n_source;    /* first element of the run, and elements of the dataset */
    int64_t at[ESPL_MAX_DIMS], size[ESPL_MAX_DIMS];
} espl_h5_box;

/* Local. "1.14.3". */
const char *espl_h5_version(void);

/* Local. One thread at a time uses HDF5. Starts the library on first use: quiet, and with no code of its own at exit. */
void espl_h5_lock(void);
void espl_h5_unlock(void);

/* Local. Makes a file, NULL: one in memory; opens one to read. Errors: io, with HDF5's reason. */
espl_status espl_h5_create(const char *path, espl_h5_id *file);
espl_status espl_h5_open(const char *path, espl_h5_id *file);

/* Local. Appends the bytes of a file made in memory. Errors: io. */
espl_status espl_h5_image(espl_h5_id file, espl_buffer *image);

/* Local. Closes a file and all that is open in it; sets -1, accepts -1. Errors: io (what was written may be lost). */
espl_status espl_h5_close(espl_h5_id *file, const char *path);

/* Local. Closes a file that is given up, without a word: the failure in hand stays. */
void espl_h5_discard(espl_h5_id *file);

/* Local. Makes a dataset and the groups above it; n_dims 0 is one element in one dimension. Errors: io. */
espl_status espl_h5_dataset(espl_h5_id file, const char *name, int type, int n_dims, const int64_t *shape, espl_h5_id *dataset);

/* Local. The same, virtual: its elements are those of the boxes; outside of them, and where a file is missing, it reads NaN
 * (integers: the lowest value). */
espl_status espl_h5_virtual(espl_h5_id file, const char *name, int type, int n_dims, const int64_t *shape, const espl_h5_box *boxes,
                            int64_t n_boxes, espl_h5_id *dataset);

/* Local. Where in the file the dataset's bytes lie. Errors: io. */
espl_status espl_h5_offset(espl_h5_id dataset, int64_t *offset);

/* Local. Closes a dataset; sets -1, accepts -1. */
espl_status espl_h5_dataset_close(espl_h5_id *dataset);

/* Local. Attributes of a file or dataset: a number, a list of numbers, text. Errors: io. */
espl_status espl_h5_set_number(espl_h5_id object, const char *name, int64_t value);
espl_status espl_h5_set_numbers(espl_h5_id object, const char *name, const int64_t *values, int64_t n);
espl_status espl_h5_set_text(espl_h5_id object, const char *name, const char *text);

/* Local. Reads a whole dataset of n elements of `type`. Errors: io; data, when it has another count. */
espl_status espl_h5_read(espl_h5_id file, const char *name, int type, int64_t n, void *to);

#endif
