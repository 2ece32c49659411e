/* The scheduler under random arrivals, lengths, aborts and memory pressure, with a fake model and a virtual clock.
 * After each step every invariant is checked; a failure prints its seed, and OCTAVO_TEST_SEED=N repeats it alone. */
#include "engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_LIVE 200

struct sim {
    uint64_t rng, seed;
    struct scheduler s;
    struct request *live[MAX_LIVE];
    int num_live;
    uint64_t next_id, finished, aborted, steps;
    int64_t max_model_len;
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

static void arrive(struct sim *sim)
{
    static const int32_t zeros[1 << 12];
    struct octavo_sampling_params p;
    sampling_params_init(&p);
    int64_t prompt = 1 + rnd(sim, (uint32_t)sim->max_model_len - 1);
    if (rnd(sim, 2))
        prompt = 1 + prompt / 16;
    p.max_tokens = 1 + rnd(sim, (uint32_t)(sim->max_model_len - prompt));
    struct request *r = malloc(sizeof(*r));
    CHECK(sim, request_init(r, zeros, prompt, &p, sim->max_model_len, sim->s.kv.block_size, NULL) == 0);
    r->id = sim->next_id++;
    sim->live[sim->num_live++] = r;
    scheduler_add(&sim->s, r);
}

static void leave(struct sim *sim, int i)
{
    struct request *r = sim->live[i];
    scheduler_remove(&sim->s, r);
    request_release(r);
    free(r);
    sim->live[i] = sim->live[--sim->num_live];
}

/* No block is held twice; held and free add up; tables are long enough for what is computed; lists and states agree;
 * both lists are in order of arrival, and nobody waits who came before one that runs. */
static void check(struct sim *sim, const struct sched_output *out)
{
    const struct kv_manager *kv = &sim->s.kv;
    char *held = calloc((size_t)kv->pool.num_blocks, 1);
    int64_t num_held = 0;
    for (int i = 0; i < sim->num_live; i++) {
        const struct request *r = sim->live[i];
        num_held += r->num_blocks;
        CHECK(sim, r->num_blocks * kv->block_size >= r->num_computed_tokens);
        CHECK(sim, (r->num_blocks > 0) == (r->status == REQUEST_RUNNING));
        CHECK(sim, r->num_computed_tokens <= r->num_tokens && r->num_tokens <= r->max_len);
        for (int64_t b = 0; b < r->num_blocks; b++) {
            CHECK(sim, r->block_table[b] >= 0 && r->block_table[b] < kv->pool.num_blocks);
            CHECK(sim, !held[r->block_table[b]]++);
            CHECK(sim, kv->pool.blocks[r->block_table[b]].ref_cnt == 1);
        }
    }
    free(held);
    CHECK(sim, num_held + kv->pool.num_free == kv->pool.num_blocks);
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

/* The fake model: whoever has caught up gets a token. */
static void execute(struct sim *sim, const struct sched_output *out)
{
    bool eos;
    for (int i = 0; i < out->num_entries; i++) {
        struct request *r = out->entries[i].request;
        if (r->num_computed_tokens == r->num_tokens && r->num_tokens < r->max_len)
            request_append(r, 7, NULL, 0, &eos);
    }
    for (int i = sim->num_live - 1; i >= 0; i--)
        if (request_finished(sim->live[i])) {
            CHECK(sim, sim->live[i]->num_tokens == sim->live[i]->max_len);
            leave(sim, i);
            sim->finished++;
        }
}

static void run(uint64_t seed)
{
    struct sim sim = {.rng = seed * 2654435761u + 1, .seed = seed};
    int block_size = 32 << rnd(&sim, 2);
    sim.max_model_len = 64 + rnd(&sim, 1000);
    int64_t one = (sim.max_model_len + block_size - 1) / block_size;
    /* from a cache that holds exactly one full request to one that never fills */
    scheduler_init(&sim.s, 1 + (int)rnd(&sim, 40), 1 + (int)rnd(&sim, 300), one + rnd(&sim, 60), block_size);
    for (int t = 0; t < 400; t++, sim.steps++) {
        while (sim.num_live < MAX_LIVE && rnd(&sim, 3) == 0)
            arrive(&sim);
        if (sim.num_live && rnd(&sim, 20) == 0) {
            leave(&sim, (int)rnd(&sim, (uint32_t)sim.num_live));
            sim.aborted++;
        }
        struct sched_output out = scheduler_schedule(&sim.s);
        check(&sim, &out);
        execute(&sim, &out);
    }
    for (int64_t t = 0; sim.num_live; t++, sim.steps++) { /* everybody gets there in the end */
        CHECK(&sim, t < 2000000);
        struct sched_output out = scheduler_schedule(&sim.s);
        check(&sim, &out);
        execute(&sim, &out);
    }
    CHECK(&sim, sim.s.kv.pool.num_free == sim.s.kv.pool.num_blocks);
    CHECK(&sim, sim.finished + sim.aborted == sim.next_id);
    scheduler_release(&sim.s);
}

static void random_load(void **state)
{
    (void)state;
    const char *s = getenv("OCTAVO_TEST_SEED");
    if (s) {
        run(strtoull(s, NULL, 0));
        return;
    }
    for (uint64_t seed = 1; seed <= 60; seed++)
        run(seed);
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
