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
    int64_t first; /* of the text's tokens in out */
} encoder;

static void reserve(espl_encoding *e, int64_t more) {
    if (e->capacity - e->n >= more && (!e->want_offsets || e->begin || e->capacity == 0))
        return;
    int64_t half = e->capacity + e->capacity / 2;
    e->capacity = half > e->n + more ? half : e->n + more + 16;
    e->ids = espl_realloc(e->ids, (size_t)e->capacity * sizeof *e->ids);
    if (!e->want_offsets)
        return;
    e->begin = espl_realloc(e->begin, (size_t)e->capacity * sizeof *e->begin);
    e->end = espl_realloc(e->end, (size_t)e->capacity * sizeof *e->end);
}

static void push(espl_encoding *e, int32_t id, espl__span span) {
    reserve(e, 1);
    e->ids[e->n] = id;
    if (e->want_offsets) {
        e->begin[e->n] = span.begin;
        e->end[e->n] = span.end;
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
        span = espl__post_trim(&e->t->post, token, n, e->source, e->size, span, e->out->n == e->first);
    }
    push(e->out, id, span);
}

static void emit_piece(encoder *e, const espl__piece *piece) {
    espl__scratch *s = e->scratch;
    if (piece->id >= 0) {
        emit(e, piece, piece->id, 0, piece->end - piece->begin);
        return;
    }
    size_t at = 0;
    s->symbols.n = 0;
    e->t->kind->tokenize(e->t->model, s->model_work, s->text.data + piece->begin, piece->end - piece->begin, &s->symbols);
    reserve(e->out, (int64_t)s->symbols.n);
    for (size_t i = 0; i < s->symbols.n; i++) {
        espl__symbol symbol = s->symbols.at[i];
        emit(e, piece, symbol.id, at, at + (size_t)symbol.size);
        at += symbol.stays ? 0 : (size_t)symbol.size;
    }
}

static espl_status encode_text(encoder *e) {
    e->first = e->out->n;
    take_source(e);
    ESPL_TRY(extract(e));
    ESPL_TRY(espl__pretokenizers_apply(&e->t->pretokenizers, e->scratch));
    for (size_t i = 0; i < e->scratch->pieces.n; i++)
        emit_piece(e, &e->scratch->pieces.at[i]);
    return ESPL_OK;
}

/* A template may hold the text again. */
static void repeat_text(espl_encoding *out, int64_t first, int64_t n) {
    reserve(out, n);
    for (int64_t i = first; i < first + n; i++)
        push(out, out->ids[i], out->want_offsets ? (espl__span){out->begin[i], out->end[i]} : (espl__span){0, 0});
}

static espl_status fill_template(encoder *e, bool special) {
    int64_t n_text = -1;
    for (size_t i = 0; i < e->t->post.n; i++) {
        int32_t id = e->t->post.at[i].id;
        if (id >= 0 && special) {
            push(e->out, id, (espl__span){0, 0});
        } else if (id < 0 && n_text >= 0) {
            repeat_text(e->out, e->first, n_text);
        } else if (id < 0) {
            ESPL_TRY(encode_text(e));
            n_text = e->out->n - e->first;
        }
    }
    return ESPL_OK;
}

espl_status espl_tokenizer_encode(const espl_tokenizer *tokenizer, const char *text, size_t size, bool special, espl_encoding *out) {
    encoder e = {.t = tokenizer, .scratch = espl__tokenizer_borrow(tokenizer), .source = size > 0 ? text : "", .size = size, .out = out};
    espl_status status = fill_template(&e, special);
    espl__tokenizer_return(tokenizer, e.scratch);
    return status;
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
    *encoding = (espl_encoding){.want_offsets = encoding->want_offsets};
}
