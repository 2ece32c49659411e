/* What the code over AMX tiles shares. */
#ifndef OCTAVO_KERNEL_X86_AVX512AMX_H
#define OCTAVO_KERNEL_X86_AVX512AMX_H

#include <stdint.h>

/* How _tile_loadconfig takes the shapes of tiles. */
struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* The intrinsics of gcc do not tell it what memory they read. */
#define AMX_MEMORY_IS_READ() __asm__ __volatile__("" ::: "memory")

#endif
