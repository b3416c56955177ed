/* A tokenizer of words as small as can be, with BERT's parts: WordPiece, templates for one text and for pairs, a mask token. */
#ifndef ESPL_TESTS_TINY_TOKENIZER_H
#define ESPL_TESTS_TINY_TOKENIZER_H

#include "io/tokenizer/tokenizer.h"
#include "src/core/buffer.h"

#include <stdio.h>
#include <string.h>

/* Ids of its vocabulary. */
enum {
    TINY_UNKNOWN = 1,
    TINY_CLS = 2,
    TINY_SEP = 3,
    TINY_MASK = 4,
    TINY_GOOD = 5,
    TINY_BAD,
    TINY_FILM,
    TINY_A,
    TINY_UN,
    TINY_LIKE, /* goes on */
    TINY_LY,   /* goes on */
    TINY_END
};

static const char *const tiny_vocabulary[TINY_END] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good",
                                                      "bad",   "film",  "a",     "un",    "##like", "##ly"};

static inline void tiny_piece(espl_buffer *json, const char *name, int type, int last) {
    espl_buffer_printf(json, "{\"%s\":{\"id\":\"%s\",\"type_id\":%d}}%s", name[1] == '\0' ? "Sequence" : "SpecialToken", name, type,
                       last ? "]," : ",");
}

static inline void tiny_write(const char *path) {
    espl_buffer json = {0};
    espl_buffer_printf(&json, "{\"added_tokens\":[");
    for (int i = 0; i <= TINY_MASK; i++)
        espl_buffer_printf(&json,
                           "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                           "\"normalized\":false,\"special\":true}",
                           i > 0 ? "," : "", i, tiny_vocabulary[i]);
    espl_buffer_printf(&json, "],\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"post_processor\":{\"type\":\"TemplateProcessing\","
                              "\"single\":[");
    tiny_piece(&json, "[CLS]", 0, 0);
    tiny_piece(&json, "A", 0, 0);
    tiny_piece(&json, "[SEP]", 0, 1);
    espl_buffer_printf(&json, "\"pair\":[");
    tiny_piece(&json, "[CLS]", 0, 0);
    tiny_piece(&json, "A", 0, 0);
    tiny_piece(&json, "[SEP]", 0, 0);
    tiny_piece(&json, "B", 1, 0);
    tiny_piece(&json, "[SEP]", 1, 1);
    espl_buffer_printf(&json, "\"special_tokens\":{\"[CLS]\":{\"id\":\"[CLS]\",\"ids\":[2],\"tokens\":[\"[CLS]\"]},\"[SEP]\":{\"id\":"
                              "\"[SEP]\",\"ids\":[3],\"tokens\":[\"[SEP]\"]}}},\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\","
                              "\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":100,\"vocab\":{");
    for (int i = 0; i < TINY_END; i++)
        espl_buffer_printf(&json, "%s\"%s\":%d", i > 0 ? "," : "", tiny_vocabulary[i], i);
    espl_buffer_printf(&json, "}}}");
    FILE *file = fopen(path, "wb");
    ESPL_ASSERT(file != NULL && fwrite(json.data, 1, json.size, file) == json.size && fclose(file) == 0, "%s cannot be written", path);
    espl_buffer_free(&json);
}

#endif
