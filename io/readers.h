/* Readers: documents out of files of text and JSON lines.
 *
 * Inputs are found once (files, folders, globs) and cut into shares: ranges of bytes of plain files, whole files where a file cannot be
 * cut (compressed, JSON arrays, one document a file). The documents of all shares in order are the documents of the inputs in order,
 * whoever reads which share. A reader streams: it holds one document and a buffer, never a file. .gz and .zst, also of several
 * members or frames, are read through. Text is handed on as it is, invalid UTF-8 included; a byte order mark at the begin of a file
 * is dropped; lines may end in CR LF, the last one in nothing; documents of nothing but white space are left out. */
#ifndef ESPL_IO_READERS_H
#define ESPL_IO_READERS_H

#include "src/core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a file holds, and what one document of a text file is: the choices of data.format and data.document in their order. */
typedef enum espl_read_format { ESPL_READ_AUTO, ESPL_READ_TEXT, ESPL_READ_JSONL, ESPL_READ_TOKENS } espl_read_format;
typedef enum espl_read_unit { ESPL_READ_FILE, ESPL_READ_LINE, ESPL_READ_PARAGRAPH } espl_read_unit;

typedef enum espl_packing { ESPL_PLAIN, ESPL_GZ, ESPL_ZST } espl_packing;

typedef struct espl_input {
    char *path;
    int64_t bytes;
    espl_read_format format; /* never AUTO */
    espl_packing packing;
} espl_input;

typedef struct espl_inputs {
    espl_input *items; /* owned */
    int64_t n;
} espl_inputs;

/* Bytes [begin, end) of one input: a reader of this share yields the documents that begin there. */
typedef struct espl_share {
    int64_t input, begin, end;
} espl_share;

typedef struct espl_reader_options {
    const char *text_field; /* key of the text in JSON; "": text, then input */
    espl_read_unit unit;    /* of text files */
    bool skip_bad;          /* a bad record is skipped, counted and warned of, instead of ending the reading */
} espl_reader_options;

typedef struct espl_document {
    const char *text; /* [size], not terminated; the reader's until its next call */
    size_t size;
    const char *path;
    int64_t offset; /* in the file's (unpacked) bytes, where the document's record begins */
} espl_document;

typedef struct espl_reader espl_reader;

/* Local. Finds inputs: files, folders (all that is in them, but for hidden files), globs, in the order given, each sorted by bytes of
 * path. AUTO goes by the ending: .jsonl, .ndjson and .json, .h5, else text. Errors: data, when something names no file. */
espl_status espl_inputs_find(char *const *paths, int64_t n_paths, espl_read_format format, espl_inputs *inputs);

/* Local. Frees and zeroes. */
void espl_inputs_free(espl_inputs *inputs);

/* Local. Cuts inputs into shares of about `block` bytes where they can be cut; *shares is the caller's to free. */
espl_status espl_inputs_cut(const espl_inputs *inputs, espl_read_unit unit, int64_t block, espl_share **shares, int64_t *n);

/* Local. A reader of one share; inputs and options' strings are borrowed until it is closed. Errors: io. */
espl_status espl_reader_open(const espl_inputs *inputs, const espl_share *share, const espl_reader_options *options, espl_reader **reader);

/* Local. The next document, *found false after the last. Errors: data "FILE:LINE: what, expected"; io. */
espl_status espl_reader_next(espl_reader *reader, espl_document *document, bool *found);

/* Local. Line of the file, from 1, on which the last document's record begins (in the middle of a file it is counted now). */
int64_t espl_reader_line(espl_reader *reader);

/* Local. Bad records skipped so far. */
int64_t espl_reader_skipped(const espl_reader *reader);

/* Local. Takes the address, nulls it, accepts NULL. */
void espl_reader_close(espl_reader **reader);

#endif
