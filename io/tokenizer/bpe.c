/* Byte pair encoding: a piece becomes its characters (or bytes), then the pair whose merge ranks first is merged until none is left.
 *
 * Sennrich et al., "Neural machine translation of rare words with subword units", ACL 2016. The pairs wait in a heap ordered by rank, then
 * position, and the symbols form a linked list, so n characters cost O(n log n). Pieces up to a few dozen bytes are remembered. Where no
 * merge joins anything to a following U+2581 (sentencepiece's space), running text is cut before those without changing the result. */
#include "io/tokenizer/bpe_parts.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* ---- merging ---- */

static void heap_push(espl__bpe_work *work, uint64_t key, int32_t id) {
    ESPL__RESERVE(&work->heap, 1);
    espl__bpe_entry *heap = work->heap.at;
    size_t i = work->heap.n++;
    for (; i > 0 && heap[(i - 1) / 2].key > key; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = (espl__bpe_entry){key, id};
}

static espl__bpe_entry heap_pop(espl__bpe_work *work) {
    espl__bpe_entry *heap = work->heap.at, top = heap[0], last = heap[--work->heap.n];
    size_t i = 0, n = work->heap.n;
    for (size_t child = 1; child < n; i = child, child = 2 * i + 1) {
        if (child + 1 < n && heap[child + 1].key < heap[child].key)
            child++;
        if (heap[child].key >= last.key)
            break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

static void offer(const espl__bpe *bpe, espl__bpe_work *work, int32_t left, int32_t right) {
    const espl__bpe_merge *merge = espl__bpe_find(bpe, work->nodes.at[left].id, work->nodes.at[right].id);
    if (merge)
        heap_push(work, (uint64_t)merge->rank << 32 | (uint32_t)left, merge->id);
}

static void merge_all(const espl__bpe *bpe, espl__bpe_work *work) {
    espl__bpe_node *nodes = work->nodes.at;
    work->heap.n = 0;
    for (int32_t i = 0; i + 1 < (int32_t)work->nodes.n; i++)
        offer(bpe, work, i, i + 1);
    while (work->heap.n > 0) {
        espl__bpe_entry top = heap_pop(work);
        int32_t left = (int32_t)(uint32_t)top.key, right = nodes[left].next;
        if (nodes[left].size == 0 || right < 0)
            continue;
        const espl__bpe_merge *merge = espl__bpe_find(bpe, nodes[left].id, nodes[right].id);
        if (!merge || merge->id != top.id) /* what it was offered for is gone */
            continue;
        nodes[left].id = top.id;
        nodes[left].size += nodes[right].size;
        nodes[left].next = nodes[right].next;
        nodes[right].size = 0;
        if (nodes[left].next >= 0) {
            nodes[nodes[left].next].previous = left;
            offer(bpe, work, left, nodes[left].next);
        }
        if (nodes[left].previous >= 0)
            offer(bpe, work, nodes[left].previous, left);
    }
}

/* ---- from a piece to symbols ---- */

static void add_node(espl__bpe_work *work, int32_t id, int32_t size) {
    int32_t n = (int32_t)work->nodes.n;
    if (n > 0)
        work->nodes.at[n - 1].next = n;
    ESPL__PUSH(&work->nodes, (espl__bpe_node){.id = id, .size = size, .previous = n - 1, .next = -1});
}

static void flush_unknown(const espl__bpe *bpe, espl__bpe_work *work, int32_t *unknown) {
    if (*unknown > 0)
        add_node(work, bpe->unk, *unknown);
    *unknown = 0;
}

/* What stands for a character outside the vocabulary: its bytes' tokens, if all exist, else the unknown token. Bytes do not flush unknown
 * characters that wait before them: the reference lets those move behind the bytes. */
static void add_missing(const espl__bpe *bpe, espl__bpe_work *work, const char *text, size_t n, int32_t size, int32_t *unknown) {
    bool bytes = bpe->byte_fallback;
    for (size_t i = 0; bytes && i < n; i++)
        bytes = bpe->byte_ids[(unsigned char)text[i]] >= 0;
    for (size_t i = 0; bytes && i < n; i++)
        add_node(work, bpe->byte_ids[(unsigned char)text[i]], 1);
    if (bytes || bpe->unk < 0)
        return;
    if (!bpe->fuse_unk)
        flush_unknown(bpe, work, unknown);
    *unknown += size;
}

/* A character with the prefix and suffix that its place asks for. */
static int32_t affixed_id(const espl__bpe *bpe, espl__bpe_work *work, const char *text, size_t n, bool first, bool last) {
    work->affixed.size = 0;
    if (!first)
        espl_buffer_append(&work->affixed, bpe->prefix.data, bpe->prefix.size);
    espl_buffer_append(&work->affixed, text, n);
    if (last)
        espl_buffer_append(&work->affixed, bpe->suffix.data, bpe->suffix.size);
    return espl__vocab_id(bpe->vocab, work->affixed.data, work->affixed.size);
}

static int32_t char_id(const espl__bpe *bpe, const char *text, int32_t code, int size) {
    return code < ESPL__BPE_CHARS ? bpe->char_ids[code] : espl__vocab_id(bpe->vocab, text, (size_t)size);
}

static void add_chars(const espl__bpe *bpe, espl__bpe_work *work, const char *piece, size_t n) {
    bool affixes = bpe->prefix.size + bpe->suffix.size > 0;
    int32_t unknown = 0;
    int size;
    for (size_t i = 0; i < n; i += (size_t)size) {
        int32_t code = espl__utf8_decode(piece + i, &size);
        int32_t id =
            affixes ? affixed_id(bpe, work, piece + i, (size_t)size, i == 0, i + (size_t)size == n) : char_id(bpe, piece + i, code, size);
        if (id >= 0) {
            flush_unknown(bpe, work, &unknown);
            add_node(work, id, size);
        } else if (affixes) {
            add_missing(bpe, work, work->affixed.data, work->affixed.size, size, &unknown);
        } else {
            add_missing(bpe, work, piece + i, (size_t)size, size, &unknown);
        }
    }
    flush_unknown(bpe, work, &unknown);
}

static void merge_piece(const espl__bpe *bpe, espl__bpe_work *work, const char *piece, size_t n, espl__symbols *out) {
    work->nodes.n = 0;
    ESPL__RESERVE(&work->nodes, n);
    if (bpe->raw_bytes)
        for (size_t i = 0; i < n; i++)
            add_node(work, bpe->raw_ids[(unsigned char)piece[i]], 1);
    else
        add_chars(bpe, work, piece, n);
    merge_all(bpe, work);
    ESPL__RESERVE(out, work->nodes.n);
    for (size_t i = 0; i < work->nodes.n; i++)
        if (work->nodes.at[i].size > 0)
            out->at[out->n++] = (espl__symbol){work->nodes.at[i].id, work->nodes.at[i].size, false};
}

static bool recall(const espl__bpe_memo *memo, uint32_t hash, const char *piece, size_t n, espl__symbols *out) {
    if (memo->hash != hash || memo->n_key != n || memcmp(memo->key, piece, n) != 0)
        return false;
    ESPL__RESERVE(out, memo->n_ids);
    for (int i = 0; i < memo->n_ids; i++)
        out->at[out->n++] = (espl__symbol){memo->ids[i], memo->sizes[i], false};
    return true;
}

/* What the piece has added to `out`, from `first` on; nothing, where it has no tokens. */
static void remember(espl__bpe_memo *memo, uint32_t hash, const char *piece, size_t n, const espl__symbols *out, size_t first) {
    const size_t n_symbols = out->n - first;
    if (n_symbols > ESPL__MEMO_IDS)
        return;
    memo->hash = hash;
    memo->n_key = (uint8_t)n;
    memo->n_ids = (uint8_t)n_symbols;
    memcpy(memo->key, piece, n);
    for (size_t i = 0; i < n_symbols; i++) {
        memo->ids[i] = out->at[first + i].id;
        memo->sizes[i] = (uint8_t)out->at[first + i].size;
    }
}

static void tokenize_part(const espl__bpe *bpe, espl__bpe_work *work, const char *piece, size_t n, espl__symbols *out) {
    if (n > ESPL__MEMO_KEY) {
        merge_piece(bpe, work, piece, n, out);
        return;
    }
    uint64_t hash = XXH3_64bits(piece, n);
    espl__bpe_memo *memo = &work->memos[hash >> 32 & (ESPL__MEMOS - 1)];
    size_t before = out->n;
    if (recall(memo, (uint32_t)hash, piece, n, out))
        return;
    merge_piece(bpe, work, piece, n, out);
    remember(memo, (uint32_t)hash, piece, n, out, before);
}

static const char mark[] = "\xE2\x96\x81"; /* U+2581 */

/* Where the part that begins the piece ends: before the first mark that follows something else. */
static size_t part_end(const char *piece, size_t n) {
    size_t i = 0;
    while (i + 3 <= n && memcmp(piece + i, mark, 3) == 0)
        i += 3;
    const char *next = i < n ? memmem(piece + i, n - i, mark, 3) : NULL;
    return next ? (size_t)(next - piece) : n;
}

static void tokenize(const void *model, void *model_work, const char *piece, size_t n, espl__symbols *out) {
    const espl__bpe *bpe = model;
    espl__bpe_work *work = model_work;
    if (bpe->ignore_merges) {
        int32_t whole = espl__vocab_id(bpe->raw_bytes ? &bpe->raw_vocab : bpe->vocab, piece, n);
        if (whole >= 0) {
            ESPL__PUSH(out, (espl__symbol){whole, (int32_t)n, false});
            return;
        }
    }
    while (n > 0) {
        size_t part = bpe->cuts_at_mark ? part_end(piece, n) : n;
        tokenize_part(bpe, work, piece, part, out);
        piece += part;
        n -= part;
    }
}

static void *work_make(const void *model) {
    (void)model;
    espl__bpe_work *work = espl_calloc(1, sizeof *work);
    work->memos = espl_calloc(ESPL__MEMOS, sizeof *work->memos);
    return work;
}

static void work_free(void *model_work) {
    espl__bpe_work *work = model_work;
    free(work->nodes.at);
    free(work->heap.at);
    free(work->memos);
    espl_buffer_free(&work->affixed);
    free(work);
}

const espl__model_kind espl__bpe_kind = {
    .type = "BPE",
    .telling_key = "merges",
    .parse = espl__bpe_parse,
    .free = espl__bpe_free,
    .takes_bytes = espl__bpe_takes_bytes,
    .use_bytes = espl__bpe_use_bytes,
    .work_make = work_make,
    .work_free = work_free,
    .tokenize = tokenize,
};
