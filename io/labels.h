/* The labels of a classification, by name: label i of a store is names[i].
 *
 * They are the names found in all training data, sorted: as numbers when all of them are integers, else by bytes. */
#ifndef ESPL_IO_LABELS_H
#define ESPL_IO_LABELS_H

#include "comm/comm.h"
#include "io/readers/readers.h"
#include "src/core/buffer.h"

typedef struct espl_labels {
    char **names; /* owned, no two alike */
    int64_t n;
} espl_labels;

/* Collective. Finds the labels of files, folders, globs and token stores; ranks read a part of them each. Bad records are left to whoever
 * reads the data next. Errors: data, when there are none or far too many; io. The same on all ranks. */
espl_status espl_labels_collect(espl_comm *comm, char *const *paths, int64_t n_paths, espl_read_format format,
                                const espl_reader_options *options, espl_labels *labels);

/* Local. The number of a name, -1 when it is none of the labels. */
int32_t espl_labels_find(const espl_labels *labels, const char *name, size_t size);

/* Local. Adds a name at the end, which no other label has. */
void espl_labels_add(espl_labels *labels, const char *name, size_t size);

/* Local. Whether they are the same names in the same order. */
bool espl_labels_equal(const espl_labels *a, const espl_labels *b);

/* Local. Appends "neg, pos": all of them, or the first few and how many more. */
void espl_labels_list(const espl_labels *labels, espl_buffer *out);

/* Local. Appends all names, a NUL behind each, and takes them back; false when they are not such. */
void espl_labels_pack(const espl_labels *labels, espl_buffer *out);
bool espl_labels_unpack(const char *bytes, size_t n, espl_labels *labels);

/* Local. Of class folders' files, drops those whose folder is none of the labels. */
void espl_labels_keep(const espl_labels *labels, espl_inputs *inputs);

/* Local. Frees and zeroes. */
void espl_labels_free(espl_labels *labels);

#endif
