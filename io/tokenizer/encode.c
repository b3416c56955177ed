/* Text to ids: the stages in order. */
#include "io/tokenizer/tokenizer_state.h"

#include <stdlib.h>
#include <string.h>

typedef struct encoder {
    const espl_tokenizer *t;
    espl__scratch *scratch;
    const char *source; /* as the caller gave it */
    size_t size;
    espl_encoding *out;
} encoder;

/* What an encoding wants may change from call to call; an array that is there has its full size. */
void espl_encoding_reserve(espl_encoding *e, int64_t more) {
    bool offsets = e->want_offsets || e->begin != NULL, kinds = e->want_kinds || e->types != NULL;
    if (e->capacity - e->n >= more && offsets == (e->begin != NULL) && kinds == (e->types != NULL))
        return;
    int64_t half = e->capacity + e->capacity / 2;
    e->capacity = half > e->n + more ? half : e->n + more + 16;
    e->ids = espl_realloc(e->ids, (size_t)e->capacity * sizeof *e->ids);
    if (offsets) {
        e->begin = espl_realloc(e->begin, (size_t)e->capacity * sizeof *e->begin);
        e->end = espl_realloc(e->end, (size_t)e->capacity * sizeof *e->end);
    }
    if (kinds) {
        e->types = espl_realloc(e->types, (size_t)e->capacity);
        e->words = espl_realloc(e->words, (size_t)e->capacity);
    }
}

static void push(espl_encoding *e, int32_t id, espl__span span, uint8_t type, uint8_t word) {
    espl_encoding_reserve(e, 1);
    e->ids[e->n] = id;
    if (e->want_offsets) {
        e->begin[e->n] = span.begin;
        e->end[e->n] = span.end;
    }
    if (e->want_kinds) {
        e->types[e->n] = type;
        e->words[e->n] = word;
    }
    e->n++;
}

static size_t valid_prefix(const char *text, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t word;
        if (n - i >= sizeof word && (memcpy(&word, text + i, sizeof word), !(word & 0x8080808080808080u))) {
            i += sizeof word;
            continue;
        }
        int size = espl__utf8_next(text + i, n - i);
        if (size < 0)
            break;
        i += (size_t)size;
    }
    return i;
}

/* The source with U+FFFD for what is not UTF-8, and with its map where stages will need one. */
static void copy_source(encoder *e) {
    espl__text *copy = &e->scratch->source;
    espl__text_clear(copy, e->scratch->tracked);
    for (size_t i = 0; i < e->size;) {
        int size = espl__utf8_next(e->source + i, e->size - i);
        size_t taken = (size_t)abs(size);
        espl__text_fill(copy, size > 0 ? e->source + i : "\xEF\xBF\xBD", size > 0 ? taken : 3,
                        (espl__span){(int64_t)i, (int64_t)(i + taken)});
        i += taken;
    }
    e->scratch->text = espl__text_slice(copy);
}

static void take_source(encoder *e) {
    espl__scratch *s = e->scratch;
    bool transforms = e->t->normalizers.n > 0 || e->t->pretokenizers.transforms;
    s->turn = 0;
    s->tracked = e->out->want_offsets || e->t->pretokenizers.needs_shift;
    if ((s->tracked && transforms) || valid_prefix(e->source, e->size) < e->size) {
        copy_source(e);
        return;
    }
    s->tracked = false; /* the text is the source: offsets are its own */
    s->text = (espl__slice){.data = e->source, .n = e->size};
}

/* Cuts at the tokens of the raw text, normalises what lies between, cuts again. */
static espl_status extract(encoder *e) {
    espl__scratch *s = e->scratch;
    s->spare.n = s->pieces.n = 0;
    espl__added_split(e->t->added, false, s->text, 0, s->text.n, 0, &s->spare);
    espl__text *out = e->t->normalizers.n > 0 ? espl__scratch_next(s) : NULL;
    espl__pieces whole = s->spare;
    s->spare = (espl__pieces){0};
    espl_status status = ESPL_OK;
    for (size_t i = 0; i < whole.n; i++) {
        espl__piece piece = whole.at[i];
        if (out) {
            size_t begin = out->n;
            espl__slice in = espl__scratch_piece(s, &piece);
            if (piece.id >= 0)
                espl__text_append(out, in);
            else
                ESPL_TRY_DONE(espl__normalizers_apply(&e->t->normalizers, s, in, out));
            piece.begin = begin;
            piece.end = out->n;
        }
        if (piece.id >= 0)
            ESPL__PUSH(&s->pieces, piece);
        else
            espl__added_split(e->t->added, true, out ? espl__text_slice(out) : s->text, piece.begin, piece.end, piece.shift, &s->pieces);
    }
    if (out)
        espl__scratch_turn(s);
done:
    s->spare = whole;
    s->spare.n = 0;
    return status;
}

/* Where bytes [begin, end) of a piece come from: whole characters, as the reference counts in those. */
static espl__span origin(const encoder *e, const espl__piece *piece, size_t begin, size_t end) {
    const espl__slice *text = &e->scratch->text;
    if (end > piece->end - piece->begin) /* an affix that the text does not hold */
        return (espl__span){(int64_t)begin, (int64_t)end};
    begin += piece->begin;
    end += piece->begin;
    if (text->map)
        return (espl__span){text->map[begin].begin, text->map[end - 1].end};
    while (begin > 0 && ((unsigned char)text->data[begin] & 0xC0) == 0x80)
        begin--;
    while (end < text->n && ((unsigned char)text->data[end] & 0xC0) == 0x80)
        end++;
    return (espl__span){(int64_t)begin, (int64_t)end};
}

static void emit(encoder *e, const espl__piece *piece, int32_t id, size_t begin, size_t end) {
    espl__span span = {0, 0};
    if (e->out->want_offsets)
        span = origin(e, piece, begin, end);
    if (e->out->want_offsets && e->t->post.trim_offsets) {
        size_t n = end - begin;
        const char *token = piece->id >= 0 ? e->scratch->text.data + piece->begin : espl__vocab_token(&e->t->vocab, id, &n);
        span = espl__post_trim(&e->t->post, token, n, e->source, e->size, span, e->out->n == 0);
    }
    bool special = e->out->want_kinds && espl__added_special(e->t->added, id);
    push(e->out, id, span, 0, special ? ESPL_TOKEN_SPECIAL : ESPL_TOKEN_GOES_ON);
}

static void emit_piece(encoder *e, const espl__piece *piece) {
    espl__scratch *s = e->scratch;
    int64_t first = e->out->n;
    if (piece->id >= 0) {
        emit(e, piece, piece->id, 0, piece->end - piece->begin);
    } else {
        size_t at = 0;
        s->symbols.n = 0;
        e->t->kind->tokenize(e->t->model, s->model_work, s->text.data + piece->begin, piece->end - piece->begin, &s->symbols);
        espl_encoding_reserve(e->out, (int64_t)s->symbols.n);
        for (size_t i = 0; i < s->symbols.n; i++) {
            espl__symbol symbol = s->symbols.at[i];
            emit(e, piece, symbol.id, at, at + (size_t)symbol.size);
            at += symbol.stays ? 0 : (size_t)symbol.size;
        }
    }
    if (e->out->want_kinds && e->out->n > first && e->out->words[first] == ESPL_TOKEN_GOES_ON)
        e->out->words[first] = ESPL_TOKEN_BEGINS_WORD;
}

static espl_status encode_text(const espl_tokenizer *tokenizer, espl__scratch *scratch, const char *text, size_t size, espl_encoding *out) {
    encoder e = {.t = tokenizer, .scratch = scratch, .source = size > 0 ? text : "", .size = size, .out = out};
    out->n = 0;
    take_source(&e);
    ESPL_TRY(extract(&e));
    ESPL_TRY(espl__pretokenizers_apply(&tokenizer->pretokenizers, scratch));
    for (size_t i = 0; i < scratch->pieces.n; i++)
        emit_piece(&e, &scratch->pieces.at[i]);
    return ESPL_OK;
}

/* ---- Cutting, and the template. */

/* What stays of a text: its tokens before `head` and from `tail` on. */
typedef struct kept {
    const espl_encoding *text;
    int64_t begin, head, tail, end;
} kept;

/* The first n tokens stay under each policy by `protect`. */
static void keep(kept *part, int64_t length, espl_truncation truncation, int64_t protect) {
    int64_t n = part->end, head = truncation == ESPL_KEEP_HEAD ? length : truncation == ESPL_KEEP_TAIL ? 0 : length / 4;
    if (length >= n)
        return;
    head = head > protect ? head : protect < length ? protect : length;
    part->head = head;
    part->tail = n - (length - head);
}

/* Longest first: the shorter text stays whole as long as it takes no more than half. */
static void share_length(int64_t length, int64_t n[2]) {
    int64_t shorter = n[0] < n[1] ? n[0] : n[1], longer = length - shorter;
    if (n[0] + n[1] <= length)
        return;
    if (longer < shorter) {
        shorter = length / 2;
        longer = shorter + length % 2;
    }
    bool first = n[0] <= n[1];
    n[0] = first ? shorter : longer;
    n[1] = first ? longer : shorter;
}

static void push_range(espl_encoding *out, const espl_encoding *text, int64_t begin, int64_t end, uint8_t type) {
    espl_encoding_reserve(out, end - begin);
    for (int64_t i = begin; i < end; i++)
        push(out, text->ids[i], out->want_offsets ? (espl__span){text->begin[i], text->end[i]} : (espl__span){0, 0}, type,
             out->want_kinds ? text->words[i] : 0);
}

static void fill_template(const espl__template *pieces, bool special, const kept parts[2], espl_encoding *out) {
    for (size_t i = 0; i < pieces->n; i++) {
        const espl__template_piece *piece = &pieces->at[i];
        if (piece->id >= 0) {
            if (special)
                push(out, piece->id, (espl__span){0, 0}, piece->type, ESPL_TOKEN_SPECIAL);
            continue;
        }
        const kept *part = &parts[piece->id == ESPL__SECOND_TEXT];
        push_range(out, part->text, part->begin, part->head, piece->type);
        push_range(out, part->text, part->tail, part->end, piece->type);
    }
}

int64_t espl_tokenizer_specials(const espl_tokenizer *tokenizer, bool pair) {
    const espl__template *pieces = pair ? &tokenizer->post.pair : &tokenizer->post.single;
    int64_t n = 0;
    for (size_t i = 0; i < pieces->n; i++)
        n += pieces->at[i].id >= 0;
    return n;
}

static int64_t prefix_tokens(const espl_encode_input *input, const espl_encoding *text) {
    int64_t n = 0;
    while (input->prefix > 0 && n < text->n && text->end[n] <= (int64_t)input->prefix)
        n++;
    return n;
}

static int64_t cut(const espl_tokenizer *tokenizer, const espl_encode_input *input, kept parts[2]) {
    bool pair = input->second != NULL;
    int64_t n[2] = {parts[0].end, parts[1].end}, total = n[0] + n[1],
            length = input->length - (input->special ? espl_tokenizer_specials(tokenizer, pair) : 0);
    if (input->length == 0 || total <= length)
        return 0;
    ESPL_ASSERT(length > 0, "%lld tokens are too few for special tokens and a text", (long long)input->length);
    if (pair)
        share_length(length, n);
    else
        n[0] = length;
    keep(&parts[0], n[0], input->truncation, prefix_tokens(input, parts[0].text));
    keep(&parts[1], n[1], input->truncation, 0);
    return total - length;
}

static espl_status encode_texts(const espl_tokenizer *tokenizer, espl__scratch *scratch, const espl_encode_input *input,
                                espl_encoding *out) {
    espl_encoding *encoded = scratch->encoded;
    for (int i = 0; i < 2; i++) {
        encoded[i].n = 0;
        encoded[i].want_offsets = out->want_offsets || input->prefix > 0;
        encoded[i].want_kinds = out->want_kinds;
    }
    ESPL_TRY(encode_text(tokenizer, scratch, input->text, input->size, &encoded[0]));
    return input->second != NULL ? encode_text(tokenizer, scratch, input->second, input->second_size, &encoded[1]) : ESPL_OK;
}

espl_status espl_tokenizer_encode_input(const espl_tokenizer *tokenizer, const espl_encode_input *input, espl_encoding *out,
                                        int64_t *lost) {
    espl__scratch *scratch = espl__tokenizer_borrow(tokenizer);
    espl_status status = encode_texts(tokenizer, scratch, input, out);
    if (status == ESPL_OK) {
        kept parts[2];
        for (int i = 0; i < 2; i++) {
            const espl_encoding *text = &scratch->encoded[i];
            parts[i] = (kept){.text = text, .head = text->n, .tail = text->n, .end = text->n};
        }
        int64_t n = cut(tokenizer, input, parts);
        fill_template(input->second != NULL ? &tokenizer->post.pair : &tokenizer->post.single, input->special, parts, out);
        if (lost != NULL)
            *lost = n;
    }
    espl__tokenizer_return(tokenizer, scratch);
    return status;
}

espl_status espl_tokenizer_encode(const espl_tokenizer *tokenizer, const char *text, size_t size, bool special, espl_encoding *out) {
    return espl_tokenizer_encode_input(tokenizer, &(espl_encode_input){.text = text, .size = size, .special = special}, out, NULL);
}

void espl_tokenizer_wrap(const espl_tokenizer *tokenizer, const espl_encoding *text, int64_t begin, int64_t end, espl_encoding *out) {
    const kept parts[2] = {{.text = text, .begin = begin, .head = end, .tail = end, .end = end}};
    fill_template(&tokenizer->post.single, true, parts, out);
}

static void take_token(const espl_tokenizer *t, int32_t id, bool skip_special, espl__strings *tokens) {
    size_t n;
    const char *token = espl__added_text(t->added, id, &n);
    if (token && skip_special && espl__added_special(t->added, id))
        return;
    token = token ? token : espl__vocab_token(&t->vocab, id, &n);
    if (!token)
        return; /* the reference leaves out ids that it does not know */
    if (!t->decoders.given && tokens->n > 0)
        espl_buffer_append(&tokens->bytes, " ", 1);
    espl_buffer_append(&tokens->bytes, token, n);
    espl__strings_end(tokens);
}

espl_status espl_tokenizer_decode(const espl_tokenizer *tokenizer, const int32_t *ids, int64_t n, bool skip_special, espl_buffer *out) {
    espl__strings tokens = {0};
    espl__scratch *scratch = espl__tokenizer_borrow(tokenizer);
    for (int64_t i = 0; i < n; i++)
        take_token(tokenizer, ids[i], skip_special, &tokens);
    espl_status status = espl__decoders_apply(&tokenizer->decoders, scratch, &tokens);
    if (status == ESPL_OK)
        espl_buffer_append(out, tokens.bytes.data, tokens.bytes.size);
    espl__tokenizer_return(tokenizer, scratch);
    espl_buffer_free(&tokens.bytes);
    free(tokens.at);
    return status;
}

void espl_encoding_free(espl_encoding *encoding) {
    free(encoding->ids);
    free(encoding->begin);
    free(encoding->end);
    free(encoding->types);
    free(encoding->words);
    *encoding = (espl_encoding){.want_offsets = encoding->want_offsets, .want_kinds = encoding->want_kinds};
}
