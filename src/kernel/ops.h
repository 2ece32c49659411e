/* The kernel table: what the forward pass and the sampler compute with. One table for each tier of instructions, all
 * bit-identical (docs/KERNELS.md). Kernels are pure: they own nothing and run on any thread. */
#ifndef OCTAVO_KERNEL_OPS_H
#define OCTAVO_KERNEL_OPS_H

#include "base/cpu.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GEMM_NR 32         /* output columns of a packed weight panel */
#define SWIGLU_NR 16       /* of gate, and of up, in a panel that holds both */
#define ATTN_TILE 32       /* keys of an attention tile; tiles begin at multiples of it */
#define ATTN_MAX_ROWS 64   /* rows of a call: tokens times query heads of a group */
#define ATTN_CHUNK_ROWS 60 /* as many as are best, but where a tier has its own number: whole sixes that stay in L1 */
#define SCAN_BLOCK 64      /* numbers that block_max and block_sum make one of */
#define ATTN_MAX_DIM 1024  /* config.c's limit of head_dim */

/* Static per-channel scales of one KV head's INT8 cache, (d) each; value = (q - offset) * scale. */
struct c8_scales {
    const float *k_scale, *k_inv, *k_offset;
    const float *v_scale, *v_inv, *v_offset;
};

/* Channels of a K tile are held in fours. */
static inline int c8_padded_dim(int d)
{
    return (d + 3) / 4 * 4;
}

/* Query rows that see one KV head: tokens [position, position + tokens) of one request, the heads of a group each.
 * A row's result does not depend on the others of its call. */
struct attn_args {
    float *out; /* (tokens, ldout), of which (group, d) is written */
    size_t ldout;
    const float *q; /* (tokens, ldq), of which (group, d) is read */
    size_t ldq;
    int tokens, group, d;         /* tokens * group <= ATTN_MAX_ROWS */
    float scale;                  /* of q.k, 1/sqrt(d) */
    int64_t position;             /* of the first token; it sees keys [max(0, position - window + 1), position] */
    int64_t window;               /* 0: as far as there are */
    const int32_t *block_table;   /* block of position p: block_table[p / block_size] */
    int block_size;               /* a multiple of ATTN_TILE */
    const uint8_t *k, *v;         /* this layer and KV head in the first tile of block 0 */
    size_t tile_stride;           /* bytes from one tile to the next, as far as blocks lie together */
    int run_blocks;               /* so many do, */
    size_t run_stride;            /* with so many bytes from one such run to the next */
    const struct c8_scales *c8;   /* of this KV head, for attn_c8 */
    const struct attn_args *next; /* what this worker will call with next, to ask for its keys in time, or NULL */
};

/* Bytes to the tile that holds position p. */
static inline size_t attn_tile_at(const struct attn_args *a, int64_t p)
{
    uint32_t block = (uint32_t)a->block_table[p / a->block_size], run = (uint32_t)a->run_blocks;
    size_t slot = (size_t)(block % run) * (size_t)a->block_size + (size_t)(p % a->block_size);
    return block / run * a->run_stride + slot / ATTN_TILE * a->tile_stride;
}

/* Keys [begin, end) of token i of a call. */
static inline int64_t attn_begin(const struct attn_args *a, int i)
{
    int64_t position = a->position + i;
    return a->window && position >= a->window ? position - a->window + 1 : 0;
}

static inline int64_t attn_end(const struct attn_args *a, int i)
{
    return a->position + i + 1;
}

/* INT8 GEMM. With a = sum over k of (x[r][k] - 128) * w[j][k], exact in int32 (wrapping),
 *     a += col_add[j];  a -= row_zero[r] * col_sum[j];  a -= col_zero[j] * row_sum[r]      (where not NULL)
 *     f[j] = (float)a * col_scale[j] * row_scale[r] + bias[j]                              (left to right)
 * w is packed as (panel, k4 / 4, GEMM_NR, 4), zero beyond n and k. y[r*ldy + j] = f[j] for j < n; with swiglu a panel
 * holds SWIGLU_NR columns of gate and then the same of up, and y[r*ldy + j] = silu(gate[j]) * up[j] for j < n, as
 * silu_mul has it. What is given for columns has a value for every column of the panels, padding included. */
struct gemm_i8_args {
    float *y;
    size_t ldy;
    const uint8_t *x; /* (rows, ldx), q + 128 */
    size_t ldx;
    int rows, k4, n; /* k4: k rounded up to a multiple of 4 (of 8 for gemm_w4a8; x is read so far); n: columns of y */
    bool swiglu;
    const int8_t *w;
    const int32_t *w_sum;    /* (columns) sum of w over k: what u8 x s8 kernels take off, 128 times */
    const int32_t *col_add;  /* (columns) or NULL */
    const float *col_scale;  /* (columns) */
    const float *row_scale;  /* (rows) or NULL */
    const int32_t *row_zero; /* (rows) or NULL, with */
    const int32_t *col_sum;  /* (columns) sum of (w - col_zero) */
    const int32_t *col_zero; /* (columns) or NULL, with */
    const int32_t *row_sum;  /* (rows) sum of q over k */
    const float *bias;       /* (columns) or NULL */
};

/* Float activations over integer weights, in groups of group_size along k:
 *     y[r*ldy + j] = bias[j] + chain over groups g: fma(scale[g][j], c_g, chain) from 0,
 *     c_g = chain over the group's k: fma(x[r][k], (float)w[j][k] - zero[g][j], c_g) from 0
 * w is packed as (panel, k, GEMM_NR), by gemm_w4a16 as kernels.def has it; scale and zero as (panel, groups, GEMM_NR),
 * zero beyond n. */
struct gemm_w8a16_args {
    float *y;
    size_t ldy;
    const float *x;
    size_t ldx;
    int rows, k, n, group_size;
    const int8_t *w;
    const float *scale, *zero; /* zero may be NULL */
    const float *bias;         /* (n) or NULL */
};

struct kernel_ops {
    enum cpu_isa isa;
    int attn_rows; /* ATTN_CHUNK_ROWS, or what is best for this tier */
#define KERNEL(name, args) void(*name) args;
#include "kernel/kernels.def"
#undef KERNEL
};

#define KERNEL(name, args) void name##_ref args;
#include "kernel/kernels.def"
#undef KERNEL

/* The tables of the other tiers, each in its own file: kernel/tier.h. */
extern const struct kernel_ops kernel_ops_avx2, kernel_ops_avx512, kernel_ops_avxvnni, kernel_ops_avx512vnni,
    kernel_ops_avx512amx, kernel_ops_dotprod, kernel_ops_i8mm;

/* The table of a tier; ref's for a tier of another architecture. */
const struct kernel_ops *kernel_ops_get(enum cpu_isa isa);

/* Packs rows [row_begin, row_begin + rows) of a weight (n, k), row-major, elem_bytes each, into panels of GEMM_NR
 * columns: element (j, i) goes to ((j / NR) * k + i) * NR + j % NR. src need not be aligned. dst must be zeroed. */
void gemm_pack(void *dst, const void *src, int elem_bytes, int row_begin, int rows, int k);
/* Elements of the packed form: n rounded up to GEMM_NR, times k. */
static inline size_t gemm_packed_elems(int n, int k)
{
    return (size_t)((n + GEMM_NR - 1) / GEMM_NR) * GEMM_NR * (size_t)k;
}

#endif
