#include "io/fsio.h"
#include "io/tokens/tokens_internal.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { BLOCK_BYTES = 8 << 20, BEAT_BLOCKS = 16 };

typedef struct hash_span {
    int64_t input, begin;
} hash_span;

static hash_span *list_blocks(const espl_inputs *inputs, int64_t *n) {
    *n = 0;
    for (int64_t i = 0; i < inputs->n; i++)
        *n += (inputs->items[i].bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
    hash_span *blocks = espl_malloc((size_t)(*n + 1) * sizeof *blocks), *at = blocks;
    for (int64_t i = 0; i < inputs->n; i++)
        for (int64_t begin = 0; begin < inputs->items[i].bytes; begin += BLOCK_BYTES)
            *at++ = (hash_span){.input = i, .begin = begin};
    return blocks;
}

static espl_status hash_block(const espl_inputs *inputs, const hash_span *block, void *memory, int64_t *hash) {
    const espl_input *input = &inputs->items[block->input];
    int64_t left = input->bytes - block->begin;
    size_t n = left < BLOCK_BYTES ? (size_t)left : (size_t)BLOCK_BYTES;
    int fd;
    ESPL_TRY(espl_fs_open_read(input->path, &fd));
    espl_status status = espl_fs_read(fd, memory, n, block->begin, input->path);
    espl_fs_close(&fd, input->path);
    *hash = (int64_t)XXH3_64bits(memory, n);
    return status;
}

/* Fills hashes[n], zero before, each rank its part of them. */
static espl_status hash_blocks(espl_comm *comm, const espl_inputs *inputs, const hash_span *blocks, int64_t n, int64_t *hashes) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    int64_t begin = n * ranks->rank / ranks->size, end = n * (ranks->rank + 1) / ranks->size;
    espl_status status = ESPL_OK;
    void *memory = espl_malloc(BLOCK_BYTES);
    for (int64_t b = begin; b < end && status == ESPL_OK; b++) {
        if (b % BEAT_BLOCKS == 0)
            espl_comm_beat(comm, 0, "hashing the data");
        status = hash_block(inputs, &blocks[b], memory, &hashes[b]);
    }
    free(memory);
    ESPL_TRY(espl_comm_agree(comm, status, "hashing the data"));
    return espl_comm_allreduce_i64(comm, hashes, (size_t)n, ESPL_SUM);
}

static void add_text(espl_buffer *facts, const char *text) {
    if (text == NULL)
        text = "";
    espl_buffer_append(facts, text, strlen(text) + 1);
}

static void add_number(espl_buffer *facts, int64_t number) { espl_buffer_append(facts, &number, sizeof number); }

/* Names of files do not matter, what they end in does: it says how they are read, and the class
 * folder that they are in. */
static void describe_inputs(const espl_inputs *inputs, espl_buffer *facts) {
    for (int64_t i = 0; i < inputs->n; i++) {
        add_number(facts, inputs->items[i].format);
        add_number(facts, inputs->items[i].packing);
        add_number(facts, inputs->items[i].bytes);
        add_text(facts, inputs->items[i].label);
    }
}

static void describe_recipe(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, espl_buffer *facts) {
    add_number(facts, ESPL_STORE_FORMAT);
    add_number(facts, (int64_t)espl_tokenizer_hash(tokenizer));
    add_number(facts, recipe->task);
    add_number(facts, recipe->document);
    add_number(facts, recipe->append_eos ? recipe->eos : -1);
    add_number(facts, recipe->skip_bad);
    add_number(facts, recipe->length);
    add_number(facts, recipe->target_length);
    add_number(facts, recipe->truncation);
    add_text(facts, recipe->text_field);
    add_text(facts, recipe->second_field);
    add_text(facts, recipe->label_field);
    add_text(facts, recipe->prefix);
    add_number(facts, recipe->chat != NULL ? (int64_t)espl_chat_hash(recipe->chat) : 0);
    add_number(facts, recipe->separator != NULL ? 1 + recipe->learns_prompt : 0);
    add_text(facts, recipe->separator);
    add_number(facts, recipe->labels != NULL ? recipe->labels->n : 0);
    if (recipe->labels != NULL)
        espl_labels_pack(recipe->labels, facts);
}

/* Ranks that see other files would cut the input in other ways and wait for each other for ever. */
static espl_status check_same(espl_comm *comm, const espl_buffer *facts) {
    int64_t mine = (int64_t)(XXH3_64bits(facts->data, facts->size) >> 1), least = mine, most = mine;
    ESPL_TRY(espl_comm_allreduce_i64(comm, &least, 1, ESPL_MIN));
    ESPL_TRY(espl_comm_allreduce_i64(comm, &most, 1, ESPL_MAX));
    if (least != most)
        ESPL_FAIL(ESPL_ERR_DATA, "ranks see different data files, number, order or sizes, expected one file system shared by all nodes");
    return ESPL_OK;
}

/* What the files are, from the hashes of their blocks. */
static void list_files(const espl_inputs *inputs, const int64_t *hashes, json_t *files) {
    for (int64_t i = 0; i < inputs->n; i++) {
        const espl_input *input = &inputs->items[i];
        size_t n = (size_t)((input->bytes + BLOCK_BYTES - 1) / BLOCK_BYTES);
        uint64_t hash = n == 1 ? (uint64_t)*hashes : XXH3_64bits(hashes, n * sizeof *hashes);
        json_array_append_new(files, json_pack("{s:s, s:I, s:o}", "path", input->path, "bytes", (json_int_t)input->bytes, "xxh3",
                                               json_sprintf("%016llx", (unsigned long long)hash)));
        hashes += n;
    }
}

espl_status espl__store_key(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_inputs *inputs,
                            uint64_t *key) {
    espl_status status = ESPL_OK;
    espl_buffer facts = {0};
    int64_t n, *hashes = NULL;
    hash_span *blocks = list_blocks(inputs, &n);
    describe_recipe(tokenizer, recipe, &facts);
    describe_inputs(inputs, &facts);
    ESPL_TRY_DONE(check_same(comm, &facts));
    hashes = espl_calloc((size_t)n + 1, sizeof *hashes);
    ESPL_TRY_DONE(hash_blocks(comm, inputs, blocks, n, hashes));
    if (recipe->files != NULL)
        list_files(inputs, hashes, recipe->files);
    espl_buffer_append(&facts, hashes, (size_t)n * sizeof *hashes);
    *key = XXH3_64bits(facts.data, facts.size);
done:
    free(hashes);
    free(blocks);
    espl_buffer_free(&facts);
    return status;
}
