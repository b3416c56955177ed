/* The known word that a mistyped one most likely stands for: keys, sections, verbs, options. */
#ifndef ESPL_CONFIG_NEAREST_H
#define ESPL_CONFIG_NEAREST_H

#include <stdint.h>

/* Local. How far `word` is from `known`: edits (insert, delete, replace, swap of neighbours), but 1 when one begins with the other
 * or `known` is made of the initials of `word` (learning_rate, lr), 2 when `known` is among the words of `word` (max_steps, steps). */
int espl_word_distance(const char *word, const char *known);

/* Local. The farthest that is still worth suggesting for a word. */
int espl_word_distance_limit(const char *word);

/* Local. Index of the nearest of n known words, -1 when none is near. */
int64_t espl_word_nearest(const char *word, const char *const *known, int64_t n);

#endif
