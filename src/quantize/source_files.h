/* What of a source folder goes to a quantised checkpoint besides its tensors. Called by quantize.c. */
#ifndef OCTAVO_QUANTIZE_SOURCE_FILES_H
#define OCTAVO_QUANTIZE_SOURCE_FILES_H

#include "quantize/writer.h"

/* config.json without quantization_config; the tokenizer's files, chat templates and generation_config.json as they
 * are; no indexes and no weights. */
int source_files_copy(const char *src, struct writer *w, struct octavo_error *err);
/* An error when dst is src, or lies so that replacing it would take src away. */
int source_outside(const char *src, const char *dst, struct octavo_error *err);

#endif
