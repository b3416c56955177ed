/* Porter's suffix stripping, as ROUGE uses it. */
#ifndef ESPL_EVAL_PORTER_STEM_H
#define ESPL_EVAL_PORTER_STEM_H

#include <stddef.h>

/* Local. Stems a word of a-z and 0-9 in place and returns its new length, never longer. The rules are Porter's ("An algorithm for
 * suffix stripping", 1980) with the changes of NLTK's default mode, because that is what rouge-score reports: short -ies and -ied,
 * y -> i behind a consonant only, -alli first, -fulli, -logi, and a few irregular words. */
size_t espl_porter_stem(char *word, size_t length);

#endif
