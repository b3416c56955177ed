/* What the token store's files share. A store is made in steps: key (tokens_key.c), tokenising into parts (tokens_build.c),
 * writing the parts into one file (tokens_write.c); tokens_prepare.c orders them, tokens.c reads. */
#ifndef ESPL_IO_TOKENS_INTERNAL_H
#define ESPL_IO_TOKENS_INTERNAL_H

#include "io/tokens.h"
#include "io/tokens_h5.h"

/* Local when comm is NULL, else collective: the ranks hash a share of the chunks each. Computes the checksum of every dataset. */
espl_status espl__store_checksums(espl_comm *comm, const char *path, espl_store_layout *layout);

/* Local when comm is NULL, else collective. Compares checksums with those in the layout. Errors: data, naming the dataset. */
espl_status espl__store_verify(espl_comm *comm, const char *path, const espl_store_layout *layout);

/* Collective. Hash of the inputs' contents and of all that decides what becomes of them. */
espl_status espl__store_key(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_inputs *inputs,
                            uint64_t *key);

/* ---- Parts: what this rank's threads have tokenised, in files that have no name any more. */

/* What one share of the input became, and where: in the files of one thread. */
typedef struct espl_share_tokens {
    int thread;
    int64_t ids_at, documents_at; /* bytes */
    int64_t n_tokens, n_documents, n_bytes, n_skipped;
} espl_share_tokens;

typedef struct espl_part_files {
    int ids, documents; /* descriptors: ids of the store's width; int64 length of each document */
    char *name;         /* for messages */
} espl_part_files;

typedef struct espl_parts {
    int64_t width; /* of an id */
    int n_threads;
    espl_part_files *files;
    int64_t n_shares;
    espl_share_tokens *shares;
    int64_t n_tokens, n_documents, n_bytes, n_skipped; /* sums */
} espl_parts;

/* Local. Tokenises n shares. `prefix` begins the parts' names. Errors: data, of the first bad record in order; io. */
espl_status espl__parts_build(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_inputs *inputs,
                              const espl_share *shares, int64_t n, const char *prefix, espl_parts *parts);

/* Local. Closes and frees; accepts a zeroed struct. */
void espl__parts_free(espl_parts *parts);

/* Collective. Writes all ranks' parts, in the order of ranks, as the store `path`. `tag`, the job's own, ends the
 * name under which it is written. There is a document at least. Errors: io. The same on all ranks. */
espl_status espl__store_write(espl_comm *comm, const espl_parts *parts, uint64_t key, int64_t vocabulary, const char *path, uint64_t tag);

#endif
