/* Unicode as Hugging Face's tokenizers sees it, whatever version the machine's libraries know. */
#ifndef OCTAVO_TEXT_TOKENIZER_UNICODE_H
#define OCTAVO_TEXT_TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A character that every supported PCRE2 knows and that has cp's category (Unicode 16) and length in UTF-8; mostly cp.
 */
uint32_t unicode_stand_in(uint32_t cp);
/* A copy of text (valid UTF-8) to match in its place, every character by its stand-in, offsets unchanged. NULL when
 * text itself will do. False when memory ran out. Caller frees. */
bool unicode_shadow(const char *text, size_t len, char **ret_shadow);
/* Characters that normalize as starters, without decomposition or composition, because they came after Unicode 9. */
bool unicode_is_young(uint32_t cp, bool compat);
bool unicode_is_space(uint32_t cp);  /* White_Space */
bool unicode_is_word(uint32_t cp);   /* \w of UTS 18: letters, marks, decimal digits, connectors, join controls */
uint32_t unicode_lower(uint32_t cp); /* simple lower case, Unicode 16 */

#endif
