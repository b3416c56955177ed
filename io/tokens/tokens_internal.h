/* What the token store's files share. A store is made in steps: key (tokens_key.c), tokenising (tokens_document.c) into parts
 * (tokens_build.c), writing the parts into one file (tokens_write.c); tokens_prepare.c orders them, tokens.c reads. */
#ifndef ESPL_IO_TOKENS_INTERNAL_H
#define ESPL_IO_TOKENS_INTERNAL_H

#include "io/tokens/tokens.h"
#include "io/tokens/tokens_h5.h"

/* Local when comm is NULL, else collective: the ranks hash a share of the chunks each. Computes the checksum of every dataset. */
espl_status espl__store_checksums(espl_comm *comm, const char *path, espl_store_layout *layout);

/* Local when comm is NULL, else collective. Compares checksums with those in the layout. Errors: data, naming the dataset. */
espl_status espl__store_verify(espl_comm *comm, const char *path, const espl_store_layout *layout);

/* Collective. Rank 0 inspects a store for all, whose ranks then open its file by one descriptor a host; until
 * espl_job_files_drop. */
espl_status espl__store_share(espl_comm *comm, const char *path, espl_store_layout *layout);

/* Collective. Hash of the inputs' contents and of all that decides what becomes of them. */
espl_status espl__store_key(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_inputs *inputs,
                            uint64_t *key);

/* ---- What a record becomes. */

typedef struct espl_document_tokens {
    espl_encoding tokens;
    int64_t *lengths; /* [n] of the store's documents that it became: one, of mlm several, 0: none */
    int64_t n, capacity;
    int32_t label, split;
    uint64_t hash;
    espl_buffer mask; /* [tokens.n] 1: a target; where the recipe makes one */
    int64_t n_bytes;  /* of the text behind the tokens */
    int64_t n_lost;
    bool left_out;       /* no part of it fits */
    bool typed;          /* some token is of a type that is not 0 */
    espl_encoding whole; /* private */
    espl_buffer source;
    espl_chat_text chat;
} espl_document_tokens;

/* Local. Tokenises a document; *problem (the caller frees it) says what is wrong with it, NULL: nothing. */
espl_status espl__document_tokenise(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_document *document,
                                    espl_document_tokens *result, char **problem);
void espl__document_free(espl_document_tokens *result);

/* Local. The same of a conversation, or of a prompt and its response: tokens, what of them is learned, all within the recipe's length. */
espl_status espl__document_converse(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_document *document,
                                    espl_document_tokens *result, char **problem);
espl_status espl__document_answer(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_document *document,
                                  espl_document_tokens *result, char **problem);

/* Local. One document of the store, of so many tokens. */
void espl__document_add(espl_document_tokens *result, int64_t length);

/* Local. Closes the text by the recipe's end-of-text token where there is none. */
void espl__document_close(const espl_tokens_recipe *recipe, espl_encoding *tokens);

/* Local. Which datasets a recipe makes. */
void espl__recipe_sets(const espl_tokens_recipe *recipe, bool makes[ESPL_STORE_SETS]);

/* Local. Errors: usage, when lengths leave no room for text, or a token that the task needs is missing. */
espl_status espl__recipe_check(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe);

/* ---- Parts: what this rank's threads have tokenised, in files that have no name any more. */

/* What one share of the input became, and where: in the files of one thread. */
typedef struct espl_share_tokens {
    int thread;
    int64_t at[ESPL_STORE_SETS]; /* bytes */
    int64_t n_tokens, n_documents, n_bytes, n_skipped, n_cut, n_lost, n_left_out;
    int64_t n_typed; /* documents with token types */
} espl_share_tokens;

/* Of documents a part holds lengths, not offsets. */
typedef struct espl_part_files {
    int of[ESPL_STORE_SETS]; /* descriptors, -1: none */
    char *name;              /* for messages */
} espl_part_files;

typedef struct espl_parts {
    int64_t widths[ESPL_STORE_SETS]; /* of an element; 0: not made */
    int n_threads;
    espl_part_files *files;
    int64_t n_shares;
    espl_share_tokens *shares;
    espl_share_tokens sum; /* its counts */
} espl_parts;

/* Local. Tokenises n shares. `prefix` begins the parts' names. Errors: data, of the first bad record in order; io. */
espl_status espl__parts_build(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_inputs *inputs,
                              const espl_share *shares, int64_t n, const char *prefix, espl_parts *parts);

/* Local. Closes and frees; accepts a zeroed struct. */
void espl__parts_free(espl_parts *parts);

/* Collective. Writes all ranks' parts, in the order of ranks, as the store `path`. `tag`, the job's own, ends the
 * name under which it is written. There is a document at least. Errors: io. The same on all ranks. */
espl_status espl__store_write(espl_comm *comm, const espl_parts *parts, const espl_labels *labels, uint64_t key, int64_t vocabulary,
                              const char *path, uint64_t tag);

#endif
