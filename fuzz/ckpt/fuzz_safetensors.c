/* safetensors_parse on any bytes. What it accepts must lie within them. */
#include "ckpt/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors_file f = {0};
    struct octavo_error err;
    if (safetensors_parse(data, size, "fuzz", &f, &err) < 0)
        return 0;
    const uint8_t *at = f.num_tensors ? f.tensors[0].data : data + size;
    for (size_t i = 0; i < f.num_tensors; i++) {
        const struct tensor *t = &f.tensors[i];
        if (t->data != at || t->data < data || t->bytes > (size_t)(data + size - t->data) || !strlen(t->name))
            abort();
        at += t->bytes;
    }
    if (at != data + size)
        abort();
    safetensors_close(&f);
    return 0;
}
