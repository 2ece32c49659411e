/* The scheduler under random arrivals, lengths, aborts, shared prefixes and memory pressure, with a fake model and a
 * virtual clock. The fake model's KV of a token is a hash of all tokens up to it, and what it says next depends on the
 * KV that it reads, so a block that is shared wrongly, or read before it is written, shows. After each step every
 * invariant is checked; a failure prints its seed, and OCTAVO_TEST_SEED=N repeats it alone. */
#include "engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include <cmocka.h>

#define MAX_LIVE 200
#define MAX_LEN 1064
#define NUM_TEXTS 6
#define CACHE_KIND "sim"

struct live {
    struct request r;     /* first: a request's address is its live's */
    uint64_t kv[MAX_LEN]; /* of each token, worked out apart from any cache; (num_kv) */
    int64_t num_kv;
    struct block_hash keys[MAX_LEN / 32]; /* (num_keys) the same for blocks */
    int64_t num_keys;
    bool admitted;
    int64_t num_cached_tokens; /* at the first admission */
};

/* What a block of the fake cache holds. */
struct fake_block {
    bool full;
    struct block_hash key; /* when full */
};

struct text {
    int32_t tokens[MAX_LEN];
    int64_t len;
};

struct sim {
    uint64_t rng, seed;
    struct scheduler s;
    bool caching;
    struct live *live[MAX_LIVE];
    int num_live;
    uint64_t next_id, finished, aborted, steps;
    int64_t max_model_len;
    uint64_t *kv;                 /* (num_blocks, block_size), 0: not written since its block was taken */
    struct fake_block *blocks;    /* (num_blocks) */
    struct text texts[NUM_TEXTS]; /* what prompts begin with: documents, and what was said before */
};

static uint32_t rnd(struct sim *sim, uint32_t n)
{
    sim->rng = sim->rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((sim->rng >> 33) % n);
}

#define CHECK(sim, cond)                                                                                               \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            fail_msg("seed %llu, step %llu: %s", (unsigned long long)(sim)->seed, (unsigned long long)(sim)->steps,    \
                     #cond);                                                                                           \
    } while (0)

static uint64_t next_kv(uint64_t before, int32_t token)
{
    uint64_t x = (before ^ (uint64_t)(uint32_t)token) * 0x9e3779b97f4a7c15u;
    return (x ^ (x >> 29)) | 1;
}

static int32_t next_token(uint64_t kv)
{
    return (int32_t)((kv >> 7) % 5);
}

static uint64_t first_kv(const struct request *r)
{
    return r->kv_salt * 2 + 12345;
}

static uint64_t *slot(const struct sim *sim, const struct request *r, int64_t pos)
{
    int64_t bs = sim->s.kv.block_size;
    return &sim->kv[r->block_table[pos / bs] * bs + pos % bs];
}

static void sha256(const void *a, size_t a_len, const void *b, size_t b_len, struct block_hash *ret)
{
    unsigned char text[4096];
    memcpy(text, a, a_len);
    memcpy(text + a_len, b, b_len);
    assert_true(EVP_Digest(text, a_len + b_len, ret->bytes, NULL, EVP_sha256(), NULL));
}

/* Brings l's own record of KV and keys up to its tokens. */
static void follow(struct sim *sim, struct live *l)
{
    const struct request *r = &l->r;
    int64_t bs = sim->s.kv.block_size;
    for (; l->num_kv < r->num_tokens; l->num_kv++)
        l->kv[l->num_kv] = next_kv(l->num_kv ? l->kv[l->num_kv - 1] : first_kv(r), r->token_ids[l->num_kv]);
    for (; l->num_keys < r->num_tokens / bs; l->num_keys++) {
        struct block_hash parent;
        if (l->num_keys)
            parent = l->keys[l->num_keys - 1];
        else
            sha256(CACHE_KIND, sizeof(CACHE_KIND), &r->kv_salt, sizeof(r->kv_salt), &parent);
        sha256(&parent, sizeof(parent), r->token_ids + l->num_keys * bs, (size_t)bs * sizeof(int32_t),
               &l->keys[l->num_keys]);
    }
}

static void arrive(struct sim *sim)
{
    int32_t prompt[MAX_LEN];
    struct octavo_sampling_params p;
    sampling_params_init(&p);
    int64_t len = 1 + rnd(sim, (uint32_t)sim->max_model_len - 1);
    if (rnd(sim, 2))
        len = 1 + len / 16;
    const struct text *text = &sim->texts[rnd(sim, NUM_TEXTS)];
    int64_t shared = rnd(sim, (uint32_t)text->len + 1);
    if (rnd(sim, 4) == 0) /* all of it, and nothing else */
        shared = len = text->len < sim->max_model_len ? text->len : sim->max_model_len - 1;
    for (int64_t i = 0; i < len; i++)
        prompt[i] = i < shared ? text->tokens[i] : (int32_t)rnd(sim, 5);
    p.max_tokens = 1 + rnd(sim, (uint32_t)(sim->max_model_len - len));
    if (rnd(sim, 10) == 0)
        p.prompt_logprobs = 0;
    struct live *l = calloc(1, sizeof(*l));
    CHECK(sim, request_init(&l->r, prompt, len, &p, sim->max_model_len, sim->s.kv.block_size, NULL) == 0);
    l->r.kv_salt = rnd(sim, 8) ? 0 : 1 + rnd(sim, 2);
    l->r.id = sim->next_id++;
    sim->live[sim->num_live++] = l;
    scheduler_add(&sim->s, &l->r);
}

static void leave(struct sim *sim, int i)
{
    struct live *l = sim->live[i];
    scheduler_remove(&sim->s, &l->r);
    request_release(&l->r);
    free(l);
    sim->live[i] = sim->live[--sim->num_live];
}

/* The pool: references are the tables that hold a block; the free queue has all others, once each, those without a key
 * before those with one; what can be found is written and is what its key says, and nothing else is in the map. */
static void check_blocks(struct sim *sim)
{
    const struct kv_manager *kv = &sim->s.kv;
    const struct block_pool *pool = &kv->pool;
    int32_t *refs = calloc((size_t)pool->num_blocks, sizeof(*refs));
    for (int i = 0; i < sim->num_live; i++) {
        const struct request *r = &sim->live[i]->r;
        for (int64_t b = 0; b < r->num_blocks; b++) {
            CHECK(sim, r->block_table[b] >= 0 && r->block_table[b] < pool->num_blocks);
            refs[r->block_table[b]]++;
        }
    }
    int64_t num_free = 0, num_cached = 0, num_mapped = 0;
    for (int64_t b = 0; b < pool->num_blocks; b++) {
        const struct kv_block *block = &pool->blocks[b];
        CHECK(sim, block->ref_cnt == refs[b]);
        if (!block->cached)
            continue;
        num_cached++;
        CHECK(sim, sim->blocks[b].full && block_hash_equal(&block->block_hash, &sim->blocks[b].key));
        CHECK(sim, block_pool_get_cached_block(pool, &block->block_hash) == b);
    }
    bool cached = false;
    int32_t last = -1;
    for (int32_t b = pool->free_head; b >= 0; last = b, b = pool->blocks[b].next) {
        CHECK(sim, refs[b] == 0 && pool->blocks[b].prev == last);
        refs[b] = -1; /* not again */
        CHECK(sim, pool->blocks[b].cached || !cached);
        cached = pool->blocks[b].cached;
        num_free++;
    }
    CHECK(sim, pool->free_tail == last && num_free == pool->num_free);
    for (int64_t i = 0; i * BLOCK_POOL_EXTENT < pool->num_blocks; i++) {
        int num_loose = 0;
        for (int64_t b = i * BLOCK_POOL_EXTENT; b < pool->num_blocks && b < (i + 1) * BLOCK_POOL_EXTENT; b++)
            num_loose += pool->blocks[b].ref_cnt == 0 && !pool->blocks[b].cached;
        CHECK(sim, num_loose == pool->num_loose[i]);
    }
    for (int64_t b = 0; b < pool->num_blocks; b++)
        CHECK(sim, refs[b] != 0);
    for (uint64_t i = 0; pool->map && i <= pool->map_mask; i++)
        num_mapped += pool->map[i] >= 0;
    CHECK(sim, num_mapped == num_cached && (sim->caching || num_cached == 0));
    free(refs);
}

/* Tables are long enough for what is computed; lists and states agree; both lists are in order of arrival, and nobody
 * waits who came before one that runs. */
static void check(struct sim *sim, const struct sched_output *out)
{
    const struct kv_manager *kv = &sim->s.kv;
    for (int i = 0; i < sim->num_live; i++) {
        const struct request *r = &sim->live[i]->r;
        CHECK(sim, r->num_blocks * kv->block_size >= r->num_computed_tokens);
        CHECK(sim, (r->num_blocks > 0) == (r->status == REQUEST_RUNNING));
        CHECK(sim, r->num_computed_tokens <= r->num_tokens && r->num_tokens <= r->max_len);
        CHECK(sim, r->status == REQUEST_RUNNING || r->num_computed_tokens == 0);
    }
    CHECK(sim, sim->s.running.count + sim->s.waiting.count == sim->num_live);
    CHECK(sim, sim->s.running.count <= sim->s.max_num_seqs);
    int64_t n = 0;
    for (const struct request *r = sim->s.running.head; r; r = r->next, n++)
        CHECK(sim, !r->next || r->id < r->next->id);
    CHECK(sim, n == sim->s.running.count);
    for (const struct request *r = sim->s.waiting.head; r; r = r->next)
        CHECK(sim, !r->next || r->id < r->next->id);
    CHECK(sim, !sim->s.running.tail || !sim->s.waiting.head || sim->s.running.tail->id < sim->s.waiting.head->id);
    int total = 0;
    for (int i = 0; i < out->num_entries; i++) {
        const struct sched_entry *e = &out->entries[i];
        CHECK(sim, e->num_tokens > 0 && e->request->status == REQUEST_RUNNING);
        CHECK(sim, e->first_token + e->num_tokens == e->request->num_computed_tokens);
        total += e->num_tokens;
    }
    CHECK(sim, total == out->num_tokens && total <= sim->s.max_num_batched_tokens);
    CHECK(sim, !sim->num_live || out->num_entries > 0); /* progress: whoever is first can always run */
}

/* What is about to be written belongs to its writer alone and is not there yet. */
static void forget(struct sim *sim, const struct sched_entry *e)
{
    int64_t bs = sim->s.kv.block_size;
    struct request *r = e->request;
    for (int64_t pos = e->first_token; pos < r->num_blocks * bs; pos++) {
        *slot(sim, r, pos) = 0;
        if (pos != e->first_token && pos % bs)
            continue;
        int32_t b = r->block_table[pos / bs];
        CHECK(sim, sim->s.kv.pool.blocks[b].ref_cnt == 1 && !sim->s.kv.pool.blocks[b].cached);
        sim->blocks[b].full = false;
    }
}

/* What an entry builds on was written by an earlier step, for these very tokens. */
static void read_back(struct sim *sim, const struct sched_entry *e)
{
    struct live *l = (struct live *)e->request;
    follow(sim, l);
    for (int64_t pos = 0; pos < e->first_token; pos++)
        CHECK(sim, *slot(sim, &l->r, pos) == l->kv[pos]);
    if (!l->admitted) {
        l->admitted = true;
        l->num_cached_tokens = e->first_token;
        CHECK(sim, e->first_token == 0 || l->r.sampling.prompt_logprobs == OCTAVO_LOGPROBS_NONE);
        CHECK(sim, e->first_token < l->r.num_prompt_tokens && e->first_token % sim->s.kv.block_size == 0);
    }
    CHECK(sim, l->r.num_cached_tokens == l->num_cached_tokens);
}

static void write_kv(struct sim *sim, const struct sched_entry *e)
{
    int64_t bs = sim->s.kv.block_size;
    struct live *l = (struct live *)e->request;
    struct request *r = &l->r;
    for (int64_t pos = e->first_token; pos < e->first_token + e->num_tokens; pos++) {
        *slot(sim, r, pos) = next_kv(pos ? *slot(sim, r, pos - 1) : first_kv(r), r->token_ids[pos]);
        if ((pos + 1) % bs == 0)
            sim->blocks[r->block_table[pos / bs]] = (struct fake_block){true, l->keys[pos / bs]};
    }
}

/* The blocks that this step filled can be found, whoever filled them. */
static void find(struct sim *sim, const struct sched_entry *e)
{
    const struct live *l = (const struct live *)e->request;
    int64_t bs = sim->s.kv.block_size;
    for (int64_t b = e->first_token / bs; sim->caching && b < (e->first_token + e->num_tokens) / bs; b++)
        CHECK(sim, block_pool_get_cached_block(&sim->s.kv.pool, &l->keys[b]) >= 0);
}

/* The fake model: whoever has caught up gets a token. What it said in the end is what it would have said alone. */
static void execute(struct sim *sim, const struct sched_output *out)
{
    bool eos;
    for (int i = 0; i < out->num_entries; i++)
        forget(sim, &out->entries[i]);
    check_blocks(sim);
    for (int i = 0; i < out->num_entries; i++)
        read_back(sim, &out->entries[i]);
    for (int i = 0; i < out->num_entries; i++)
        write_kv(sim, &out->entries[i]);
    for (int i = 0; i < out->num_entries; i++) {
        struct request *r = out->entries[i].request;
        if (r->num_computed_tokens == r->num_tokens && r->num_tokens < r->max_len)
            request_append(r, next_token(*slot(sim, r, r->num_tokens - 1)), NULL, 0, &eos);
    }
    scheduler_update_from_output(&sim->s, out);
    check_blocks(sim);
    for (int i = 0; i < out->num_entries; i++)
        find(sim, &out->entries[i]);
    for (int i = sim->num_live - 1; i >= 0; i--) {
        struct live *l = sim->live[i];
        if (!request_finished(&l->r))
            continue;
        follow(sim, l);
        CHECK(sim, l->r.num_tokens == l->r.max_len);
        for (int64_t pos = l->r.num_prompt_tokens; pos < l->r.num_tokens; pos++)
            CHECK(sim, l->r.token_ids[pos] == next_token(l->kv[pos - 1]));
        if (rnd(sim, 3) == 0) { /* the conversation goes on */
            struct text *t = &sim->texts[rnd(sim, NUM_TEXTS)];
            t->len = l->r.num_tokens;
            memcpy(t->tokens, l->r.token_ids, (size_t)t->len * sizeof(int32_t));
        }
        leave(sim, i);
        sim->finished++;
    }
}

static void step(struct sim *sim)
{
    struct sched_output out = scheduler_schedule(&sim->s);
    check(sim, &out);
    execute(sim, &out);
}

static void run(uint64_t seed, struct sim *sim)
{
    *sim = (struct sim){.rng = seed * 2654435761u + 1, .seed = seed, .caching = seed % 5 != 0};
    int block_size = 32 << rnd(sim, 2);
    sim->max_model_len = 64 + rnd(sim, 1000);
    int64_t one = (sim->max_model_len + block_size - 1) / block_size;
    for (int i = 0; i < NUM_TEXTS; i++) {
        struct text *t = &sim->texts[i];
        t->len = sim->max_model_len / (1 + rnd(sim, 4));
        for (int64_t k = 0; k < t->len; k++)
            t->tokens[k] = (int32_t)rnd(sim, 5);
        if (i % 2) /* two texts that part somewhere */
            memcpy(t->tokens, sim->texts[i - 1].tokens, rnd(sim, (uint32_t)t->len) * sizeof(int32_t));
    }
    /* from a cache that holds exactly one full request to one that never fills */
    int64_t num_blocks = one + rnd(sim, 60);
    scheduler_init(&sim->s, 1 + (int)rnd(sim, 40), 1 + (int)rnd(sim, 300), num_blocks, block_size);
    if (sim->caching)
        CHECK(sim, scheduler_enable_prefix_caching(&sim->s, CACHE_KIND, NULL) == 0);
    sim->kv = calloc((size_t)(num_blocks * block_size), sizeof(*sim->kv));
    sim->blocks = calloc((size_t)num_blocks, sizeof(*sim->blocks));
    for (int t = 0; t < 400; t++, sim->steps++) {
        while (sim->num_live < MAX_LIVE && rnd(sim, 3) == 0)
            arrive(sim);
        if (sim->num_live && rnd(sim, 20) == 0) {
            leave(sim, (int)rnd(sim, (uint32_t)sim->num_live));
            sim->aborted++;
        }
        step(sim);
    }
    for (int64_t t = 0; sim->num_live; t++, sim->steps++) { /* everybody gets there in the end */
        CHECK(sim, t < 2000000);
        step(sim);
    }
    CHECK(sim, sim->s.kv.pool.num_free == sim->s.kv.pool.num_blocks);
    CHECK(sim, sim->finished + sim->aborted == sim->next_id);
    free(sim->kv);
    free(sim->blocks);
    scheduler_release(&sim->s);
}

static void random_load(void **state)
{
    (void)state;
    static struct sim sim;
    const char *s = getenv("OCTAVO_TEST_SEED");
    if (s) {
        run(strtoull(s, NULL, 0), &sim);
        return;
    }
    uint64_t hits = 0, preemptions = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        run(seed, &sim);
        hits += sim.s.prefix_cache_hits;
        preemptions += sim.s.num_preemptions;
        CHECK(&sim, sim.s.prefix_cache_hits <= sim.s.prefix_cache_queries);
        CHECK(&sim, sim.caching || sim.s.prefix_cache_queries == 0);
    }
    assert_true(hits > 100000 && preemptions > 1000); /* or the load does not show what it is for */
}

/* Two requests that fit alone but not together: the later one is put out, and comes back when the first is done. */
static void preemption(void **state)
{
    (void)state;
    int32_t prompt[64] = {0};
    struct octavo_sampling_params p;
    sampling_params_init(&p);
    p.max_tokens = 64;
    struct request a, b;
    struct scheduler s;
    scheduler_init(&s, 8, 1000, 5, 32);
    assert_int_equal(request_init(&a, prompt, 64, &p, 128, 32, NULL), 0);
    assert_int_equal(request_init(&b, prompt, 64, &p, 128, 32, NULL), 0);
    a.id = 0, b.id = 1;
    scheduler_add(&s, &a), scheduler_add(&s, &b);
    bool eos, b_was_out = false;
    for (int step = 0; step < 200 && !(request_finished(&a) && request_finished(&b)); step++) {
        struct sched_output out = scheduler_schedule(&s);
        for (int i = 0; i < out.num_entries; i++) {
            struct request *r = out.entries[i].request;
            if (r->num_computed_tokens == r->num_tokens && request_append(r, 1, NULL, 0, &eos) > REQUEST_PREEMPTED)
                scheduler_remove(&s, r);
        }
        if (b.status == REQUEST_PREEMPTED) {
            b_was_out = true;
            assert_int_equal(b.num_computed_tokens, 0);
            assert_true(b.num_tokens > b.num_prompt_tokens); /* what it had said is kept */
        }
    }
    assert_true(b_was_out && request_finished(&a) && request_finished(&b));
    assert_int_equal(a.num_preemptions, 0);
    request_release(&a), request_release(&b);
    scheduler_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_load), cmocka_unit_test(preemption)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
