/* Blocks and the prefix cache: the map under churn against a plain scan, the order of eviction, what is found when, and
 * what a request is told. */
#include "engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BS 32

static uint64_t rng = 1;

static uint32_t rnd(uint32_t n)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((rng >> 33) % n);
}

/* ---- block_pool ---- */

/* Keys that crowd in a few slots, the end of the map among them, so that runs are long and wrap around. */
static struct block_hash crowded(uint32_t i)
{
    static const uint64_t homes[] = {0, 1, 2, 61, 62, 63};
    struct block_hash h = {{0}};
    uint64_t low = homes[i % 6] | (uint64_t)(i % 3) << 40;
    memcpy(h.bytes, &low, sizeof(low));
    memcpy(h.bytes + 16, &i, sizeof(i));
    return h;
}

static void map_under_churn(void **state)
{
    (void)state;
    enum { N = 30, KEYS = 60 };
    struct block_pool pool;
    struct octavo_error err;
    int32_t held[N];
    int num_held = 0;
    block_pool_init(&pool, N);
    assert_int_equal(block_pool_enable_caching(&pool, &err), 0);
    assert_int_equal(pool.map_mask, 63);
    int found = 0, moved = 0;
    for (int round = 0; round < 20000; round++) {
        struct block_hash key = crowded(rnd(KEYS));
        int32_t b = block_pool_get_cached_block(&pool, &key);
        switch (rnd(3)) {
        case 0: /* compute it */
            if (num_held == N || pool.num_free == 0)
                break;
            moved += b >= 0 && pool.blocks[b].ref_cnt == 0;
            b = block_pool_take(&pool, num_held ? held[num_held - 1] : -1);
            assert_false(pool.blocks[b].cached);
            block_pool_cache_full_block(&pool, b, &key);
            assert_true(block_pool_get_cached_block(&pool, &key) >= 0);
            held[num_held++] = b;
            break;
        case 1: /* share it */
            if (num_held == N || b < 0)
                break;
            block_pool_touch(&pool, b);
            held[num_held++] = b;
            found++;
            break;
        default:
            if (num_held) {
                uint32_t i = rnd((uint32_t)num_held);
                block_pool_put(&pool, held[i]);
                held[i] = held[--num_held];
            }
        }
        for (uint32_t k = 0; k < KEYS; k++) {
            struct block_hash want = crowded(k);
            int32_t scan = -1;
            for (int32_t i = 0; i < N; i++)
                if (pool.blocks[i].cached && block_hash_equal(&pool.blocks[i].block_hash, &want)) {
                    assert_int_equal(scan, -1); /* one block for one key */
                    scan = i;
                }
            assert_int_equal(block_pool_get_cached_block(&pool, &want), scan);
        }
    }
    assert_true(found > 1000 && moved > 100);
    while (num_held)
        block_pool_put(&pool, held[--num_held]);
    assert_int_equal(pool.num_free, N);
    block_pool_release(&pool);
}

static void eviction_order(void **state)
{
    (void)state;
    struct block_pool pool;
    struct octavo_error err;
    struct block_hash key[6];
    int32_t b[6];
    block_pool_init(&pool, 6);
    assert_int_equal(block_pool_enable_caching(&pool, &err), 0);
    for (uint32_t i = 0; i < 6; i++)
        key[i] = crowded(i), b[i] = block_pool_take(&pool, -1);
    assert_int_equal(block_pool_take(&pool, -1), -1);
    for (int i = 0; i < 4; i++)
        block_pool_cache_full_block(&pool, b[i], &key[i]);
    for (int i = 0; i < 6; i++)
        block_pool_put(&pool, b[i]);
    block_pool_touch(&pool, b[0]); /* used again: now the youngest */
    assert_int_equal(pool.num_free, 5);
    block_pool_put(&pool, b[0]);
    static const int order[] = {4, 5, 1, 2, 3, 0}; /* first those without a key, then by age */
    for (int i = 0; i < 6; i++) {
        for (int k = i < 2 ? 0 : i; k < 6; k++)
            if (order[k] < 4)
                assert_int_equal(block_pool_get_cached_block(&pool, &key[order[k]]), b[order[k]]);
        assert_int_equal(block_pool_take(&pool, i ? b[order[i - 1]] : -1), b[order[i]]);
        if (order[i] < 4)
            assert_int_equal(block_pool_get_cached_block(&pool, &key[order[i]]), -1);
    }
    for (int i = 0; i < 6; i++)
        block_pool_put(&pool, b[i]);
    block_pool_release(&pool);
}

/* Sequences that grow in turns: each has an extent to itself while there are such, and goes on in the next when that is
 * free; then what room is left, most first, until all are taken; last those with a key, in their order. */
static void place(void **state)
{
    (void)state;
    enum { E = BLOCK_POOL_EXTENT, N = 4 * E + 3 };
    struct block_pool pool;
    struct octavo_error err;
    block_pool_init(&pool, N);
    assert_int_equal(block_pool_enable_caching(&pool, &err), 0);
    int32_t at[3] = {-1, -1, -1};
    for (int i = 0; i < 5; i++)
        for (int r = 0; r < 3; r++) {
            at[r] = block_pool_take(&pool, at[r]);
            assert_int_equal(at[r], r * E + i);
        }
    for (int i = 5; i < E; i++)
        assert_int_equal(block_pool_take(&pool, 2 * E + i - 1), 2 * E + i);
    assert_int_equal(block_pool_take(&pool, 3 * E - 1), 3 * E); /* free to its end */
    assert_int_equal(block_pool_take(&pool, -1), 3 * E + 1);    /* the most room: 15 blocks */
    block_pool_put(&pool, 2 * E + 3);                           /* a hole of one, between held ones */
    block_pool_put(&pool, 1 * E + 1);
    assert_int_equal(block_pool_take(&pool, 2 * E + 2), 2 * E + 3);
    assert_int_equal(block_pool_take(&pool, 2 * E - 1), 3 * E + 2); /* 14 blocks */
    assert_int_equal(block_pool_take(&pool, -1), 3 * E + 3);
    assert_int_equal(block_pool_take(&pool, -1), 1 * E + 5); /* 12 with the one before them, but 11 in a run */
    struct block_hash key[2] = {crowded(0), crowded(1)};
    for (int i = 0; i < 2; i++)
        block_pool_cache_full_block(&pool, i, &key[i]);
    block_pool_put(&pool, 1);
    block_pool_put(&pool, 0);
    assert_int_equal(block_pool_take(&pool, N - 1), 3 * E + 4); /* nothing follows the last block */
    int64_t loose = pool.num_free - 2;
    for (int64_t i = 0; i < loose; i++)
        assert_true(block_pool_take(&pool, 0) > 1); /* though 1 would follow */
    assert_int_equal(block_pool_take(&pool, 0), 1);
    assert_int_equal(block_pool_take(&pool, -1), 0);
    assert_int_equal(block_pool_take(&pool, -1), -1);
    block_pool_release(&pool);
}

/* ---- keys ---- */

static void chain(void **state)
{
    (void)state;
    int32_t tokens[64];
    for (int i = 0; i < 64; i++)
        tokens[i] = i;
    struct block_hash all[8];
    block_hash_root("bfloat16", 0, &all[0]);
    block_hash_root("bfloat16", 1, &all[1]);
    block_hash_root("int8", 0, &all[2]);
    block_hash_next(&all[0], tokens, 32, &all[3]);
    block_hash_next(&all[1], tokens, 32, &all[4]);
    block_hash_next(&all[0], tokens + 32, 32, &all[5]);
    block_hash_next(&all[3], tokens + 32, 32, &all[6]);
    tokens[31]++;
    block_hash_next(&all[0], tokens, 32, &all[7]);
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < i; k++)
            assert_false(block_hash_equal(&all[i], &all[k]));
    /* recorded with Python's hashlib: sha256(sha256(b"bfloat16\0" + bytes(8)) + int32 0..31) */
    static const uint8_t want[] = {0x5c, 0x37, 0xdd, 0x83, 0x7b, 0x74, 0x21, 0x1a, 0xb7, 0x51, 0xf0,
                                   0x0e, 0x90, 0xb1, 0x27, 0xca, 0x35, 0xa9, 0x94, 0x1e, 0x25, 0x18,
                                   0x62, 0x20, 0x6d, 0x04, 0x20, 0x7d, 0x4f, 0x87, 0xd5, 0x92};
    assert_memory_equal(all[3].bytes, want, sizeof(want));
}

/* ---- scheduler ---- */

struct rig {
    struct scheduler s;
    struct request r[4];
    uint64_t next_id;
};

static void rig_init(struct rig *g, int budget, int64_t num_blocks, bool caching)
{
    struct octavo_error err;
    *g = (struct rig){0};
    scheduler_init(&g->s, 8, budget, num_blocks, BS);
    if (caching)
        assert_int_equal(scheduler_enable_prefix_caching(&g->s, "test", &err), 0);
}

/* Queues request i: the numbers from 0 on, num of them, the first changed to `first`. */
static struct request *arrive(struct rig *g, int i, int64_t num, int32_t first, int64_t max_tokens, uint64_t salt,
                              bool prompt_logprobs)
{
    int32_t prompt[400];
    struct octavo_sampling_params p;
    struct octavo_error err;
    sampling_params_init(&p);
    p.max_tokens = max_tokens;
    p.prompt_logprobs = prompt_logprobs ? 0 : OCTAVO_LOGPROBS_NONE;
    for (int k = 0; k < num; k++)
        prompt[k] = k ? k : first;
    assert_int_equal(request_init(&g->r[i], prompt, num, &p, 1000, BS, &err), 0);
    g->r[i].id = g->next_id++;
    g->r[i].kv_salt = salt;
    scheduler_add(&g->s, &g->r[i]);
    return &g->r[i];
}

/* The end of a step: tokens go on as prompts do; who is finished leaves. */
static void run_step(struct rig *g, const struct sched_output *out)
{
    bool eos;
    scheduler_update_from_output(&g->s, out);
    for (int i = 0; i < out->num_entries; i++) {
        struct request *r = out->entries[i].request;
        if (r->num_computed_tokens == r->num_tokens && r->num_tokens < r->max_len)
            request_append(r, (int32_t)r->num_tokens, NULL, 0, &eos);
        if (request_finished(r)) {
            scheduler_remove(&g->s, r);
            request_release(r);
        }
    }
}

static void run_all(struct rig *g)
{
    while (g->s.running.count || g->s.waiting.count) {
        struct sched_output out = scheduler_schedule(&g->s);
        assert_true(out.num_entries > 0);
        run_step(g, &out);
    }
}

/* Runs one request alone to its end and returns the tokens it was given from the cache. */
static int64_t cached(struct rig *g, int64_t num, int32_t first, int64_t max_tokens, uint64_t salt,
                      bool prompt_logprobs)
{
    const struct request *r = arrive(g, 3, num, first, max_tokens, salt, prompt_logprobs);
    run_all(g);
    return r->num_cached_tokens;
}

static void what_is_found(void **state)
{
    (void)state;
    struct rig g;
    rig_init(&g, 1000, 100, true);
    assert_int_equal(cached(&g, 100, 0, 1, 0, false), 0);
    assert_int_equal(g.s.prefix_cache_queries, 100);
    assert_int_equal(cached(&g, 100, 0, 1, 0, false), 96);
    assert_int_equal(cached(&g, 97, 0, 1, 0, false), 96);
    assert_int_equal(cached(&g, 96, 0, 1, 0, false), 64); /* the last token is computed, and its block with it */
    assert_int_equal(cached(&g, 65, 0, 1, 0, false), 64);
    assert_int_equal(cached(&g, 33, 0, 1, 0, false), 32);
    assert_int_equal(cached(&g, 32, 0, 1, 0, false), 0);
    assert_int_equal(cached(&g, 1, 0, 1, 0, false), 0);
    assert_int_equal(g.s.prefix_cache_queries, 100 + 100 + 97 + 96 + 65 + 33 + 32 + 1);
    assert_int_equal(g.s.prefix_cache_hits, 96 + 96 + 64 + 64 + 32);
    assert_int_equal(cached(&g, 100, 1, 1, 0, false), 0); /* all but the first token */
    assert_int_equal(cached(&g, 100, 0, 1, 7, false), 0); /* another salt */
    assert_int_equal(cached(&g, 100, 0, 1, 7, false), 96);
    uint64_t queries = g.s.prefix_cache_queries;
    assert_int_equal(cached(&g, 300, 0, 1, 0, true), 0); /* wants each position's logits, but leaves its blocks */
    assert_int_equal(g.s.prefix_cache_queries, queries);
    assert_int_equal(cached(&g, 300, 0, 1, 0, false), 288);
    /* answers count as well: 50 of prompt and 60 said, of which the last was never computed */
    assert_int_equal(cached(&g, 50, 5, 60, 0, false), 0);
    assert_int_equal(cached(&g, 200, 5, 1, 0, false), 96);
    assert_int_equal(g.s.kv.pool.num_free, 100);
    scheduler_release(&g.s);

    rig_init(&g, 1000, 100, false);
    assert_int_equal(cached(&g, 100, 0, 1, 0, false), 0);
    assert_int_equal(cached(&g, 100, 0, 1, 0, false), 0);
    assert_int_equal(g.s.prefix_cache_queries, 0);
    scheduler_release(&g.s);
}

static void not_before_it_is_written(void **state)
{
    (void)state;
    struct rig g;
    rig_init(&g, 250, 100, true);
    struct request *a = arrive(&g, 0, 100, 0, 5, 0, false), *b = arrive(&g, 1, 100, 0, 5, 0, false);
    struct sched_output out = scheduler_schedule(&g.s);
    assert_int_equal(out.num_entries, 2);
    assert_int_equal(b->num_cached_tokens, 0); /* in one step with a */
    run_step(&g, &out);
    /* a's blocks have the keys, b's are duplicates without; a third shares a's while it still runs */
    struct request *c = arrive(&g, 2, 100, 0, 5, 0, false);
    out = scheduler_schedule(&g.s);
    assert_int_equal(out.num_entries, 3);
    assert_int_equal(c->num_cached_tokens, 96);
    assert_int_equal(out.entries[2].first_token, 96);
    assert_int_equal(out.entries[2].num_tokens, 4);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(c->block_table[i], a->block_table[i]);
        assert_int_equal(g.s.kv.pool.blocks[c->block_table[i]].ref_cnt, 2);
        assert_false(g.s.kv.pool.blocks[b->block_table[i]].cached);
    }
    assert_int_not_equal(c->block_table[3], a->block_table[3]);
    run_step(&g, &out);
    run_all(&g);
    assert_int_equal(g.s.kv.pool.num_free, 100);

    /* a chunked prompt: the first chunk's full blocks can be found while the second is computed */
    a = arrive(&g, 0, 300, 9, 1, 0, false);
    out = scheduler_schedule(&g.s);
    assert_int_equal(out.num_tokens, 250);
    run_step(&g, &out);
    b = arrive(&g, 1, 300, 9, 1, 0, false);
    out = scheduler_schedule(&g.s);
    assert_int_equal(b->num_cached_tokens, 224);
    run_step(&g, &out);
    run_all(&g);
    scheduler_release(&g.s);
}

/* Free cached blocks count as free, but not those that the request is about to take itself. */
static void all_or_nothing(void **state)
{
    (void)state;
    struct rig g;
    rig_init(&g, 1000, 6, true);
    assert_int_equal(cached(&g, 65, 0, 1, 0, false), 0); /* leaves two keys */
    struct request *a = arrive(&g, 0, 70, 9, 20, 0, false);
    struct sched_output out = scheduler_schedule(&g.s); /* three blocks, of those without a key */
    run_step(&g, &out);
    assert_int_equal(g.s.kv.pool.num_free, 3);
    struct request *b =
        arrive(&g, 1, 130, 0, 1, 0, false); /* five blocks: two cached and three more, but one is there */
    out = scheduler_schedule(&g.s);
    assert_int_equal(out.num_entries, 1);
    assert_int_equal(b->num_blocks, 0);
    assert_int_equal(b->num_computed_tokens, 0);
    assert_int_equal(g.s.kv.pool.num_free, 3);
    run_step(&g, &out);
    scheduler_remove(&g.s, b);
    request_release(b);
    struct request *c = arrive(&g, 2, 96, 0, 1, 0, false); /* three: two cached and the last */
    out = scheduler_schedule(&g.s);
    assert_int_equal(out.num_entries, 2);
    assert_int_equal(c->num_cached_tokens, 64);
    assert_int_equal(g.s.kv.pool.num_free, 0);
    assert_true(a->num_blocks == 3 && c->num_blocks == 3);
    run_step(&g, &out);
    run_all(&g);
    assert_int_equal(g.s.kv.pool.num_free, 6);
    scheduler_release(&g.s);
}

/* What a step takes is in the order of memory, also where it was another sequence's, freed from its end on. */
static void as_they_lie(void **state)
{
    (void)state;
    struct rig g;
    rig_init(&g, 200, 10, true);
    assert_int_equal(cached(&g, 10 * BS, 0, 1, 0, false), 0); /* all blocks, and all but one get keys */
    struct request *a = arrive(&g, 0, 9 * BS, 1, 1, 0, false);
    struct sched_output out = scheduler_schedule(&g.s);
    assert_int_equal(a->num_blocks, 7); /* 200 tokens */
    for (int i = 1; i < 7; i++)
        assert_true(a->block_table[i] > a->block_table[i - 1]);
    run_step(&g, &out);
    int32_t first[7];
    memcpy(first, a->block_table, sizeof(first));
    out = scheduler_schedule(&g.s);
    assert_int_equal(a->num_blocks, 9);
    assert_memory_equal(first, a->block_table, sizeof(first)); /* those stay where they are */
    assert_true(a->block_table[8] > a->block_table[7]);
    run_step(&g, &out);
    run_all(&g);
    scheduler_release(&g.s);
}

/* A request that was put out finds its own blocks again, but what it was given at first is what it reports. */
static void after_preemption(void **state)
{
    (void)state;
    struct rig g;
    rig_init(&g, 1000, 12, true);
    struct request *a = arrive(&g, 0, 150, 1, 100, 0, false), *b = arrive(&g, 1, 150, 2, 60, 0, false);
    bool out_once = false, back = false;
    while (g.s.running.count || g.s.waiting.count) {
        bool before = b->status == REQUEST_PREEMPTED;
        struct sched_output out = scheduler_schedule(&g.s);
        out_once |= b->status == REQUEST_PREEMPTED;
        for (int i = 0; before && i < out.num_entries; i++)
            if (out.entries[i].request == b) {
                back = true;
                assert_int_equal(out.entries[i].first_token, 4 * BS); /* a had to take two of its six */
                assert_int_equal(b->num_cached_tokens, 0);
            }
        run_step(&g, &out);
    }
    assert_true(out_once && back && a->num_preemptions == 0);
    assert_int_equal(g.s.prefix_cache_hits, 0); /* counted at the first admission only */
    assert_int_equal(g.s.kv.pool.num_free, 12);
    scheduler_release(&g.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_under_churn), cmocka_unit_test(eviction_order), cmocka_unit_test(place),
        cmocka_unit_test(chain),           cmocka_unit_test(what_is_found),  cmocka_unit_test(not_before_it_is_written),
        cmocka_unit_test(all_or_nothing),  cmocka_unit_test(as_they_lie),    cmocka_unit_test(after_preemption),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
