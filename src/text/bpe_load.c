/* Loading tokenizer.json's "model": vocabulary and merges, everything checked, so that encoding need not. Called by
 * tokenizer_parse, on its thread. */
#include "text/bpe.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/bpe_merges.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHAT "tokenizer.json: model"
#define MAX_TOKEN_BYTES (1 << 20)

/* What a message shows of a token: all of a short one. */
static int show(size_t len)
{
    return (int)MIN(len, (size_t)80);
}

static int load_vocab(struct bpe *bpe, const json_t *vocab, struct octavo_error *err)
{
    if (!json_is_object(vocab))
        return error_set(err, OCTAVO_EINVAL, WHAT ".vocab must be an object of tokens and ids");
    const char *key;
    json_t *value;
    json_int_t highest = -1;
    json_object_foreach ((json_t *)vocab, key, value) {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= BPE_MAX_ID)
            return error_set(err, OCTAVO_EINVAL, WHAT ".vocab: the id of \"%.80s\" must be an integer from 0 to %d",
                             key, BPE_MAX_ID - 1);
        highest = MAX(highest, id);
    }
    if (highest < 0)
        return error_set(err, OCTAVO_EINVAL, WHAT ".vocab is empty");
    bpe->num_ids = (int32_t)highest + 1;
    bpe->tokens = mem_try_calloc((size_t)bpe->num_ids, sizeof(*bpe->tokens));
    if (!bpe->tokens)
        return error_set(err, OCTAVO_ENOMEM, "no memory for a vocabulary of %d ids", bpe->num_ids);
    json_object_foreach ((json_t *)vocab, key, value) {
        struct bpe_token *t = &bpe->tokens[json_integer_value(value)];
        size_t len = strlen(key);
        if (t->used)
            return error_set(err, OCTAVO_EINVAL, WHAT ".vocab: \"%.80s\" and \"%.80s\" have the same id %lld",
                             bpe->strings.data + t->at, key, (long long)json_integer_value(value));
        if (len > MAX_TOKEN_BYTES)
            return error_set(err, OCTAVO_EINVAL, WHAT ".vocab: a token of %zu bytes is too long", len);
        *t = (struct bpe_token){bpe->strings.len, (uint32_t)len, true};
        buf_append(&bpe->strings, key, len + 1);
        strmap_add(&bpe->vocab, key, len, (int32_t)json_integer_value(value), NULL);
        bpe->longest = MAX(bpe->longest, len);
    }
    for (int b = 0; b < 256; b++) {
        char c[4], name[8];
        int n = utf8_encode(byte_level_char((uint8_t)b), c);
        bpe->byte_ids[b] = strmap_get(&bpe->vocab, c, (size_t)n, -1);
        snprintf(name, sizeof(name), "<0x%02X>", (unsigned)b);
        bpe->fallback_ids[b] = strmap_get(&bpe->vocab, name, 6, -1);
    }
    return 0;
}

/* The two sides of merge number i, in either of the two forms. */
static int merge_sides(const json_t *m, size_t i, const char *side[2], size_t len[2], struct octavo_error *err)
{
    if (json_is_string(m)) {
        const char *s = json_string_value(m), *space = strchr(s, ' ');
        if (space && !strchr(space + 1, ' ')) {
            side[0] = s, len[0] = (size_t)(space - s);
            side[1] = space + 1, len[1] = json_string_length(m) - len[0] - 1;
            return 0;
        }
    } else if (json_array_size(m) == 2 && json_is_string(json_array_get(m, 0)) &&
               json_is_string(json_array_get(m, 1))) {
        for (size_t k = 0; k < 2; k++) {
            side[k] = json_string_value(json_array_get(m, k));
            len[k] = json_string_length(json_array_get(m, k));
        }
        return 0;
    }
    return error_set(err, OCTAVO_EINVAL, WHAT ".merges[%zu] must be \"left right\" or [\"left\", \"right\"]", i);
}

static int add_merge(struct bpe *bpe, const json_t *m, size_t i, uint32_t rank, struct buf *joined,
                     struct octavo_error *err)
{
    const char *side[2];
    size_t len[2];
    int r = merge_sides(m, i, side, len, err);
    if (r)
        return r;
    int32_t id[2];
    for (int k = 0; k < 2; k++) {
        id[k] = strmap_get(&bpe->vocab, side[k], len[k], -1);
        if (id[k] < 0)
            return error_set(err, OCTAVO_EINVAL, WHAT ".merges[%zu]: \"%.*s\" is not in the vocabulary", i,
                             show(len[k]), side[k]);
    }
    size_t cut = strlen(bpe->prefix);
    if (len[1] < cut)
        return error_set(err, OCTAVO_EINVAL,
                         WHAT ".merges[%zu]: \"%.*s\" is shorter than continuing_subword_prefix \"%.80s\"", i,
                         show(len[1]), side[1], bpe->prefix);
    buf_clear(joined);
    buf_append(joined, side[0], len[0]);
    buf_append(joined, side[1] + cut, len[1] - cut);
    int32_t merged = strmap_get(&bpe->vocab, buf_str(joined), joined->len, -1);
    if (merged < 0)
        return error_set(err, OCTAVO_EINVAL, WHAT ".merges[%zu]: the merged token \"%.*s\" is not in the vocabulary", i,
                         show(joined->len), buf_str(joined));
    uint64_t pair = bpe_pair(id[0], id[1]);
    size_t at = bpe_pair_hash(pair) & bpe->merges_mask;
    while (bpe->merges[at].pair != BPE_NO_PAIR && bpe->merges[at].pair != pair)
        at = (at + 1) & bpe->merges_mask;
    bpe->merges[at] = (struct bpe_merge){pair, rank, merged}; /* a pair listed twice has its last rank */
    return 0;
}

static int load_merges(struct bpe *bpe, const json_t *merges, struct octavo_error *err)
{
    if (!json_is_array(merges))
        return error_set(err, OCTAVO_EINVAL, WHAT ".merges must be an array");
    size_t n = json_array_size(merges), cap = 16;
    if (n > UINT32_MAX / 8)
        return error_set(err, OCTAVO_EINVAL, WHAT ".merges: %zu are too many", n);
    while (cap < n * 2)
        cap *= 2;
    bpe->merges = mem_try_array(cap, sizeof(*bpe->merges));
    if (!bpe->merges)
        return error_set(err, OCTAVO_ENOMEM, "no memory for %zu merges", n);
    for (size_t i = 0; i < cap; i++)
        bpe->merges[i].pair = BPE_NO_PAIR;
    bpe->merges_mask = cap - 1;
    struct buf joined = {0};
    int r = 0;
    uint32_t rank = 0;
    for (size_t i = 0; i < n && !r; i++) {
        const json_t *m = json_array_get(merges, i);
        if (json_is_string(m) && !strncmp(json_string_value(m), "#version", 8))
            continue;
        r = add_merge(bpe, m, i, rank++, &joined, err);
    }
    buf_release(&joined);
    return r;
}

static int load_unk(struct bpe *bpe, const json_t *model, struct octavo_error *err)
{
    const char *unk = NULL;
    int r = json_get_string(model, WHAT, "unk_token", &unk, err);
    if (r || !unk)
        return r;
    bpe->unk_id = strmap_get(&bpe->vocab, unk, strlen(unk), -1);
    if (bpe->unk_id < 0)
        return error_set(err, OCTAVO_EINVAL, WHAT ".unk_token \"%.80s\" is not in the vocabulary", unk);
    return 0;
}

int bpe_load(struct bpe *bpe, const json_t *model, struct octavo_error *err)
{
    *bpe = (struct bpe){.unk_id = -1};
    if (!json_is_object(model))
        return error_set(err, OCTAVO_EINVAL, WHAT " is missing; it must be an object of type BPE");
    const char *type = NULL, *prefix = "", *suffix = "";
    double dropout = 0;
    int r;
    if ((r = json_get_string(model, WHAT, "type", &type, err)) ||
        (r = json_get_double(model, WHAT, "dropout", &dropout, err)) ||
        (r = json_get_string(model, WHAT, "continuing_subword_prefix", &prefix, err)) ||
        (r = json_get_string(model, WHAT, "end_of_word_suffix", &suffix, err)) ||
        (r = json_get_bool(model, WHAT, "fuse_unk", &bpe->fuse_unk, err)) ||
        (r = json_get_bool(model, WHAT, "byte_fallback", &bpe->byte_fallback, err)) ||
        (r = json_get_bool(model, WHAT, "ignore_merges", &bpe->ignore_merges, err)))
        return r;
    if (type ? strcmp(type, "BPE") != 0 : !json_object_get(model, "merges"))
        return error_set(err, OCTAVO_EUNSUPPORTED, WHAT " of type \"%.80s\" is not supported; only BPE is",
                         type ? type : "null");
    if (dropout != 0)
        return error_set(err, OCTAVO_EUNSUPPORTED,
                         WHAT ".dropout is %g: random merges are for training; set it to null to serve", dropout);
    if (strlen(prefix) > 64 || strlen(suffix) > 64)
        return error_set(err, OCTAVO_EINVAL,
                         WHAT ": continuing_subword_prefix and end_of_word_suffix may have 64 bytes at most");
    bpe->prefix = mem_strdup(prefix);
    bpe->suffix = mem_strdup(suffix);
    if ((r = load_vocab(bpe, json_object_get(model, "vocab"), err)) || (r = load_unk(bpe, model, err)))
        return r;
    return load_merges(bpe, json_object_get(model, "merges"), err);
}

void bpe_release(struct bpe *bpe)
{
    strmap_release(&bpe->vocab);
    free(bpe->tokens);
    buf_release(&bpe->strings);
    free(bpe->merges);
    free(bpe->prefix);
    free(bpe->suffix);
    *bpe = (struct bpe){0};
}
