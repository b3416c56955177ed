/* Normalizers that look at one character at a time: what each becomes, or -1 where it vanishes. */
#include "io/tokenizer/tokenizer_parts.h"

/* BERT's "clean_text" (tokenization.py of its release): no control characters, one kind of space. */
int32_t espl__map_clean(int32_t code) {
    if (code == '\t' || code == '\n' || code == '\r')
        return ' ';
    if (code == 0 || code == 0xFFFD || espl__is_other(code))
        return -1;
    return espl__is_space(code) ? ' ' : code;
}

int32_t espl__map_marks(int32_t code) { return espl__is_mark(code) ? -1 : code; }

/* The rule "nmt" of sentencepiece. */
int32_t espl__map_nmt(int32_t code) {
    static const int32_t spaces[][2] = {{0x9, 0xA},       {0xC, 0xD},       {0x1680, 0x1680}, {0x200B, 0x200F},
                                        {0x2028, 0x2029}, {0x2581, 0x2581}, {0xFEFF, 0xFEFF}, {0xFFFD, 0xFFFD}};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (code >= spaces[i][0] && code <= spaces[i][1])
            return ' ';
    bool control = (code >= 1 && code < 0x20) || code == 0x7F || code == 0x8F || code == 0x9F;
    return control ? -1 : code;
}

/* The blocks that BERT takes for Chinese. */
bool espl__is_ideograph(int32_t code) {
    static const int32_t blocks[][2] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},  {0x20000, 0x2A6DF},
                                        {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (code >= blocks[i][0] && code <= blocks[i][1])
            return true;
    return false;
}
