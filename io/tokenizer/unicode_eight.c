/* Characters as the reference has them where it normalises and splits words: classes from tables of Unicode 8, forms (UAX 15) from those of
 * Unicode 9, while its regular expressions and utf8proc know later ones. What was assigned or moved since then is left out here. Facts from
 * the Unicode Character Database; a range may span characters of other categories, which its category already excludes. */
#include "io/tokenizer/tokenizer_parts.h"

#include <utf8proc.h>

static const struct {
    char category; /* M mark without width, P punctuation, C format, O mark that others are ordered around, D decomposition */
    int32_t first, last;
} later[] = {
    {'M', 0x7FD, 0x7FD},     {'M', 0x897, 0x8E1},     {'M', 0x9FE, 0x9FE},     {'M', 0xAFA, 0xAFF},     {'M', 0xB55, 0xB55},
    {'M', 0xC04, 0xC3C},     {'M', 0xCF3, 0xD00},     {'M', 0xD3B, 0xD3C},     {'M', 0xD81, 0xD81},     {'M', 0xEBA, 0xEBA},
    {'M', 0xECE, 0xECE},     {'M', 0x180F, 0x1886},   {'M', 0x1ABF, 0x1AEB},   {'M', 0x1DF6, 0x1DFB},   {'M', 0xA82C, 0xA82C},
    {'M', 0xA8C5, 0xA8C5},   {'M', 0xA8FF, 0xA8FF},   {'M', 0xA9BD, 0xA9BD},   {'M', 0x10D24, 0x10F85}, {'M', 0x11070, 0x11074},
    {'M', 0x110C2, 0x110C2}, {'M', 0x111C9, 0x111C9}, {'M', 0x111CF, 0x111CF}, {'M', 0x1123E, 0x11241}, {'M', 0x1133B, 0x1133B},
    {'M', 0x113B8, 0x1145E}, {'M', 0x1182F, 0x1612F}, {'M', 0x16F4F, 0x16F4F}, {'M', 0x16FE4, 0x16FE4}, {'M', 0x1CF00, 0x1CF46},
    {'M', 0x1E000, 0x1E5EF}, {'M', 0x1E944, 0x1E94A}, {'P', 0x61D, 0x61D},     {'P', 0x9FD, 0xA76},     {'P', 0xC77, 0xC84},
    {'P', 0x1B4E, 0x1B4F},   {'P', 0x1B7D, 0x1B7F},   {'P', 0x2E43, 0x2E5D},   {'P', 0x10D6E, 0x10F89}, {'P', 0x113D4, 0x1145D},
    {'P', 0x11660, 0x116B9}, {'P', 0x1183B, 0x11FFF}, {'P', 0x12FF1, 0x12FF2}, {'P', 0x16D6D, 0x16FE2}, {'P', 0x1E5FF, 0x1E95F},
    {'C', 0x890, 0x8E2},     {'C', 0x110CD, 0x1343F}, {'O', 0x7FD, 0x7FD},     {'O', 0x897, 0x8D3},     {'O', 0x9FE, 0x9FE},
    {'O', 0xC3C, 0xC3C},     {'O', 0xCF3, 0xD3C},     {'O', 0xEBA, 0xEBA},     {'O', 0xECE, 0xECE},     {'O', 0x1715, 0x1715},
    {'O', 0x1ABF, 0x1AEB},   {'O', 0x1DF6, 0x1DFA},   {'O', 0xA82C, 0xA82C},   {'O', 0x10D24, 0x10F85}, {'O', 0x11070, 0x11070},
    {'O', 0x11241, 0x11241}, {'O', 0x1133B, 0x1133B}, {'O', 0x113B8, 0x113E2}, {'O', 0x1145E, 0x1145E}, {'O', 0x11839, 0x11A99},
    {'O', 0x11D42, 0x1612F}, {'O', 0x16FF0, 0x16FF1}, {'O', 0x1E08F, 0x1E5EF}, {'D', 0x32FF, 0x32FF},   {'D', 0xA7F2, 0xA7F4},
    {'D', 0xAB69, 0xAB69},   {'D', 0x10781, 0x107BA}, {'D', 0x11938, 0x11938}, {'D', 0x1F16C, 0x1F16C}, {'D', 0x1FBF0, 0x1FBF9},
};

bool espl__unicode_later(char category, int32_t code) {
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (later[i].category == category && code >= later[i].first && code <= later[i].last)
            return true;
    return false;
}

bool espl__is_punctuation(int32_t code) {
    if (code < 0x80)
        return code > 0x20 && code < 0x7F && !((code | 32) >= 'a' && (code | 32) <= 'z') && !(code >= '0' && code <= '9');
    int category = utf8proc_category(code);
    bool now = category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
    return (now && !espl__unicode_later('P', code)) || code == 0x166D || code == 0x111C9;
}

bool espl__is_mark(int32_t code) {
    if (code < 0x300)
        return false;
    return (utf8proc_category(code) == UTF8PROC_CATEGORY_MN && !espl__unicode_later('M', code)) || code == 0x1734;
}

bool espl__is_other(int32_t code) {
    int category = utf8proc_category(code);
    if (category == UTF8PROC_CATEGORY_CF)
        return !espl__unicode_later('C', code);
    return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CO;
}
