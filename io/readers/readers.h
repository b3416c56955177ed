/* Readers: documents out of files of text, JSON lines, CSV and class folders.
 *
 * Inputs are found once (files, folders, globs) and cut into shares: ranges of bytes of plain files, whole files where a file cannot be
 * cut (compressed, JSON arrays, one document a file). The documents of all shares in order are the documents of the inputs in order,
 * whoever reads which share. A reader streams: it holds one document and a buffer, never a file. .gz and .zst, also of several
 * members or frames, are read through. Text is handed on as it is, invalid UTF-8 included; a byte order mark at the begin of a file
 * is dropped; lines may end in CR LF, the last one in nothing; documents of nothing but white space are left out. */
#ifndef ESPL_IO_READERS_H
#define ESPL_IO_READERS_H

#include "comm/comm.h"
#include "src/core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a file holds, and what one document of a text file is: the choices of data.format and data.document in their order. */
typedef enum espl_read_format {
    ESPL_READ_AUTO,
    ESPL_READ_TEXT,
    ESPL_READ_JSONL,   /* an object a line, or an array of objects */
    ESPL_READ_CSV,     /* RFC 4180, the first record names the columns */
    ESPL_READ_TSV,     /* the same with tabs */
    ESPL_READ_FOLDERS, /* each folder in the one named is a class, each file in it one text */
    ESPL_READ_TOKENS
} espl_read_format;
typedef enum espl_read_unit { ESPL_READ_FILE, ESPL_READ_LINE, ESPL_READ_PARAGRAPH } espl_read_unit;

/* What a record holds: a text; a text or a pair of texts, with a label; a source and its target; a prompt and its response; a JSON object
 * that is handed on as it is. */
typedef enum espl_read_kind { ESPL_READ_PLAIN, ESPL_READ_LABELLED, ESPL_READ_PAIRED, ESPL_READ_PROMPT, ESPL_READ_RECORD } espl_read_kind;

typedef enum espl_packing { ESPL_PLAIN, ESPL_GZ, ESPL_ZST } espl_packing;

typedef struct espl_input {
    char *path;
    int64_t bytes;
    espl_read_format format; /* never AUTO */
    espl_packing packing;
    char *label; /* class folders: the folder's name; else NULL */
} espl_input;

typedef struct espl_inputs {
    espl_input *items; /* owned */
    int64_t n;
} espl_inputs;

/* Bytes [begin, end) of one input: a reader of this share yields the documents that begin there. */
typedef struct espl_share {
    int64_t input, begin, end;
} espl_share;

/* Names of keys or columns; "" stands for the usual ones: text or input; text_pair, where there is one; label; of pairs input and target;
 * prompt and response.
 */
typedef struct espl_reader_options {
    espl_read_kind kind;
    const char *text_field;   /* the text, or the source of a pair */
    const char *second_field; /* the second text, or the target */
    const char *label_field;
    espl_read_unit unit; /* of text files */
    bool skip_bad;       /* a bad record is skipped, counted and warned of, instead of ending the reading */
    bool silent;         /* not warned of */
} espl_reader_options;

typedef struct espl_document {
    const char *text; /* [size], not terminated; the reader's until its next call, as are the others */
    size_t size;
    const char *second; /* second text or target; NULL: none */
    size_t second_size;
    const char *label; /* NULL: none */
    size_t label_size;
    const char *path;
    int64_t offset; /* in the file's (unpacked) bytes, where the document's record begins */
} espl_document;

typedef struct espl_reader espl_reader;

/* Local. Finds inputs: files, folders (all that is in them, but for hidden files), globs, in the order given, each sorted by bytes of
 * path. AUTO goes by the ending: .jsonl, .ndjson and .json, .csv, .tsv, .h5, else text. Of class folders files beside them are left out.
 * Errors: data, when something names no file. */
espl_status espl_inputs_find(char *const *paths, int64_t n_paths, espl_read_format format, espl_inputs *inputs);

/* Collective. The same on all ranks, which rank 0 finds for them. */
espl_status espl_inputs_share(espl_comm *comm, char *const *paths, int64_t n_paths, espl_read_format format, espl_inputs *inputs);

/* Local. Frees and zeroes. */
void espl_inputs_free(espl_inputs *inputs);

/* Local. Cuts inputs into shares of about `block` bytes where they can be cut; *shares is the caller's to free. */
espl_status espl_inputs_cut(const espl_inputs *inputs, espl_read_unit unit, int64_t block, espl_share **shares, int64_t *n);

/* Local. A reader of one share; inputs and options' strings are borrowed until it is closed. Errors: io. */
espl_status espl_reader_open(const espl_inputs *inputs, const espl_share *share, const espl_reader_options *options, espl_reader **reader);

/* Local. The next document, *found false after the last. Errors: data "FILE:LINE: what, expected"; io. */
espl_status espl_reader_next(espl_reader *reader, espl_document *document, bool *found);

/* Local. The last document is a bad record, too: an error, or skipped and counted, as the options say. */
espl_status espl_reader_reject(espl_reader *reader, const char *problem);

/* Local. Line of the file, from 1, on which the last document's record begins (in the middle of a file it is counted now). */
int64_t espl_reader_line(espl_reader *reader);

/* Local. Bad records skipped so far. */
int64_t espl_reader_skipped(const espl_reader *reader);

/* Local. Takes the address, nulls it, accepts NULL. */
void espl_reader_close(espl_reader **reader);

#endif
