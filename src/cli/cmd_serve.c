/* octavo serve: the server from flags to exit code. The socket opens first and answers 503; a second thread loads the
 * model; the main thread waits for signals throughout. The first SIGTERM or SIGINT drains, the second aborts. */
#include "cli/cmd_serve.h"

#include "base/log.h"
#include "base/mem.h"
#include "cli/engine_options.h"
#include "cli/profile.h"
#include "cli/model_path.h"
#include "server/server.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define DRAIN_POLL_MS 20

struct serve_flags {
    const char *host, *uds;
    struct option_list names, api_keys;
    int64_t port, shutdown_timeout, max_body_bytes, max_connections, max_num_queued_reqs, keep_alive, client_timeout;
    bool disable_access_log;
};

#define AT(field) .offset = offsetof(struct serve_flags, field)

static const struct option_spec specs[] = {
    {"host", OPTION_STRING, AT(host), .group = "Server", .metavar = "ADDRESS",
     .help = "Address to listen on; 0.0.0.0 or :: for all interfaces. Default: 127.0.0.1."},
    {"port", OPTION_INT, AT(port), .metavar = "N", .lo = 0, .hi = 65535,
     .help = "Port to listen on; 0: any free one. Default: 8000."},
    {"uds", OPTION_STRING, AT(uds), .metavar = "PATH", .help = "Listen on a Unix socket instead."},
    {"served-model-name", OPTION_LIST, AT(names), .metavar = "NAME", .many = true,
     .help = "What clients call the model; several are aliases, and the first appears in answers. Default: MODEL as it "
             "was given."},
    {"api-key", OPTION_LIST, AT(api_keys), .metavar = "KEY", .many = true,
     .help = "Demand one of these Bearer tokens on every route but /health and /ping. Also: OCTAVO_API_KEY."},
    {"shutdown-timeout", OPTION_INT, AT(shutdown_timeout), .metavar = "SECONDS", .lo = 0, .hi = 86400,
     .help = "After SIGTERM or Ctrl-C, let running requests go on for so long; 0 aborts them at once, and so does a "
             "second signal. Default: 30."},

    {"max-num-queued-reqs", OPTION_INT, AT(max_num_queued_reqs), .group = "Limits", .metavar = "N", .lo = 0,
     .hi = 1 << 20, .help = "Answer 503 when so many requests wait already; 0: no limit. Default: 0."},
    {"max-connections", OPTION_INT, AT(max_connections), .metavar = "N", .lo = 1, .hi = 65536,
     .help = "Connections at once; more wait to be accepted. Default: 1024."},
    {"max-body-bytes", OPTION_INT, AT(max_body_bytes), .metavar = "BYTES", .lo = 1, .hi = 1 << 30,
     .help = "Largest request body; more is a 413. Default: 32MiB."},
    {"client-timeout", OPTION_INT, AT(client_timeout), .metavar = "SECONDS", .lo = 1, .hi = 86400,
     .help = "Close connections whose client stalls so long, sending or reading. Default: 60."},
    {"keep-alive", OPTION_INT, AT(keep_alive), .metavar = "SECONDS", .lo = 1, .hi = 86400,
     .help = "Close connections that are idle so long. Default: 75."},
    {"disable-access-log,disable-uvicorn-access-log", OPTION_SWITCH, AT(disable_access_log),
     .help = "Do not log a line for each request."},

    {"ssl-keyfile", OPTION_REFUSED, .metavar = "X", .lo = INT64_MIN, .help = "put a TLS proxy in front"},
    {"ssl-certfile", OPTION_REFUSED, .metavar = "X", .lo = INT64_MIN, .help = "put a TLS proxy in front"},
    {"trust-request-chat-template", OPTION_REFUSED, .lo = INT64_MIN,
     .help = "a template from a client is never run; use --chat-template"},
    {"enable-auto-tool-choice", OPTION_REFUSED, .lo = INT64_MIN,
     .help = "tools are rendered into the prompt, but answers are not parsed for calls yet; leave it out"},
    {"tool-call-parser", OPTION_REFUSED, .metavar = "X", .lo = INT64_MIN, .help = "tool calls are not parsed yet"},
    {"reasoning-parser", OPTION_REFUSED, .metavar = "X", .lo = INT64_MIN, .help = "reasoning is not parsed yet"},
    {"enable-prompt-tokens-details", OPTION_IGNORED, .help = "usage always has prompt_tokens_details"},
    {"enable-log-requests", OPTION_IGNORED, .help = "use --log-level debug"},
    {"disable-log-requests", OPTION_IGNORED, .help = "prompts are never logged"},
};

static const char intro[] =
    "usage: octavo serve [MODEL] [flags]\n"
    "\n"
    "Serves a checkpoint to OpenAI clients: /v1/completions, /v1/chat/completions, /v1/models, /tokenize,\n"
    "/detokenize, /health, /version. MODEL is a folder with config.json, *.safetensors and tokenizer.json; without\n"
    "one the bundled model is served.\n"
    "\n"
    "  octavo serve\n"
    "  octavo serve ./Qwen3-0.6B --served-model-name qwen3 --max-model-len 8k --host 0.0.0.0 --port 8080\n"
    "  octavo serve ./Qwen3-0.6B --kv-cache-memory-bytes 2GiB --api-key secret\n"
    "  curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\\n"
    "       -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 50}'\n";

/* ---- loading, on its own thread ---- */

struct loading {
    const struct engine_flags *flags;
    const char *model;
    struct octavo_engine_options opts;
    struct tokenizer *tokenizer;
    struct chat_template *template;
    struct octavo_engine *engine;
    int done_fd; /* readable when it is over */
    int result;
    struct octavo_error err;
};

static int load(struct loading *l)
{
    const struct engine_flags *f = l->flags;
    const char *dir = f->tokenizer ? f->tokenizer : l->model;
    int r;
    if (!f->skip_tokenizer_init) {
        if ((r = tokenizer_open(dir, &l->tokenizer, &l->err)) < 0 ||
            (r = chat_template_open(dir, f->chat_template, l->tokenizer, &l->template, &l->err)) < 0)
            return r;
        l->opts.tokenizer_vocab_size = tokenizer_vocab_size(l->tokenizer);
    }
    struct load_progress progress = {0};
    l->opts.progress = load_progress_update;
    l->opts.progress_arg = &progress;
    r = octavo_engine_open(&l->opts, &l->engine, &l->err);
    load_progress_end(&progress);
    return r;
}

static void *load_thread(void *arg)
{
    struct loading *l = arg;
    uint64_t one = 1;
    l->result = load(l);
    if (write(l->done_fd, &one, sizeof(one)) < 0)
        log_error("eventfd: %s", strerror(errno));
    return NULL;
}

/* ---- what is printed ---- */

static void format_url(const struct serve_flags *f, const struct server *s, char *out, size_t cap)
{
    bool any = !f->host[0] || !strcmp(f->host, "0.0.0.0") || !strcmp(f->host, "::");
    const char *host = any ? "127.0.0.1" : f->host;
    snprintf(out, cap, strchr(host, ':') ? "http://[%s]:%d" : "http://%s:%d", host, server_port(s));
}

static void print_banner(const struct serve_flags *f, const struct server_model *m, const struct server *s)
{
    const struct octavo_engine_info *i = octavo_engine_info(m->engine);
    char weights[32], cache[32], each[32], url[300];
    format_bytes(weights, (double)i->weights_bytes);
    format_bytes(cache, (double)i->kv_cache_bytes);
    format_bytes(each, (double)i->kv_bytes_per_token);
    format_url(f, s, url, sizeof(url));
    long long tokens = (long long)i->num_blocks * i->block_size;
    fprintf(stderr,
            "octavo %s\n"
            "  model      %s: %s, %.1fM parameters, loaded in %.2f s (checkpoint %.2f s, weights %.2f s: %.2f GB/s)\n"
            "  compute    %s, %d threads\n"
            "  context    %lld tokens a request, %d requests at once, %d tokens a step\n"
            "  KV cache   %s in %s: %lld tokens (%lld blocks of %d), room for %.1f requests of full length\n"
            "  memory     %s weights + %s KV cache (%s a token)\n",
            octavo_version(), m->names[0], i->architecture, (double)i->num_parameters / 1e6, i->load_seconds,
            i->open_seconds, i->pack_seconds, (double)i->weights_bytes / MAX(i->pack_seconds, 1e-9) / 1e9, i->isa,
            i->num_threads, (long long)i->max_model_len, i->max_num_seqs, i->max_num_batched_tokens, cache,
            i->kv_cache_dtype, tokens, (long long)i->num_blocks, i->block_size,
            (double)tokens / (double)i->max_model_len, weights, cache, each);
    fprintf(stderr, "  ready at   %s\n", f->uds ? f->uds : url);
    fprintf(stderr,
            m->tokenizer ? "\n  curl %s%s%s/v1/completions -H 'Content-Type: application/json' \\\n"
                           "       -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 50}'\n\n"
                         : "\n  curl %s%s%s/v1/completions -H 'Content-Type: application/json' \\\n"
                           "       -d '{\"prompt\": [1, 2, 3], \"max_tokens\": 50, \"return_token_ids\": true}'"
                           "\n\n",
            f->uds ? "--unix-socket " : "", f->uds ? f->uds : "", f->uds ? " http://localhost" : url);
}

/* ---- the life of the server ---- */

static int wait_signal(int signal_fd)
{
    struct signalfd_siginfo info;
    ssize_t n = read(signal_fd, &info, sizeof(info));
    return n == sizeof(info) ? (int)info.ssi_signo : 0;
}

/* Waits for the loader. 0: it is done; 1: a signal came first. */
static int await_loading(struct loading *l, int signal_fd)
{
    struct pollfd fds[] = {{.fd = l->done_fd, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
    while (poll(fds, 2, -1) < 0)
        if (errno != EINTR)
            return 1;
    return fds[0].revents ? 0 : 1;
}

static void drain(struct server *s, int64_t timeout_seconds, int signal_fd)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t end = t.tv_sec + timeout_seconds;
    int active = server_num_active(s);
    struct pollfd fd = {.fd = signal_fd, .events = POLLIN};
    server_begin_drain(s);
    log_info("shutting down: %d request(s) may finish within %lld s; a second signal stops them now", active,
             (long long)timeout_seconds);
    while (server_num_active(s) > 0 && t.tv_sec < end) {
        if (poll(&fd, 1, DRAIN_POLL_MS) > 0) {
            log_warning("second signal: stopping %d request(s)", server_num_active(s));
            return;
        }
        clock_gettime(CLOCK_MONOTONIC, &t);
    }
    if (server_num_active(s) > 0)
        log_warning("time is up: stopping %d request(s)", server_num_active(s));
}

/* "models/storyteller/" is called "storyteller" only when nobody named it: vLLM's clients send the path they served. */
static const char *default_name(const char *given, const char *model)
{
    const char *slash = strrchr(model, '/');
    return given ? given : slash && slash[1] ? slash + 1 : model;
}

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit); /* a connection takes two; when refused, fewer fit */
    }
}

/* Owns s. */
static int run(const struct serve_flags *f, const struct engine_flags *engine_flags, const char *model, int signal_fd,
               struct server *s, struct octavo_error *err)
{
    char url[300];
    format_url(f, s, url, sizeof(url));
    log_info("listening on %s, loading %s", f->uds ? f->uds : url, model);
    struct loading l = {.flags = engine_flags, .model = model, .done_fd = eventfd(0, EFD_CLOEXEC)};
    pthread_t thread;
    int r = engine_flags_apply(engine_flags, model, &l.opts, err);
    if (r == 0 && (l.done_fd < 0 || pthread_create(&thread, NULL, load_thread, &l)))
        r = error_set(err, OCTAVO_ENOMEM, "cannot start the loading thread");
    if (r < 0) {
        server_stop(s);
        return r;
    }
    if (await_loading(&l, signal_fd)) {
        /* nothing runs and nothing is owed to anyone: do not wait for gigabytes to be read */
        log_info("stopped while loading");
        if (f->uds)
            unlink(f->uds);
        _exit(0);
    }
    pthread_join(thread, NULL);
    close(l.done_fd);
    r = l.result;
    if (r < 0) {
        *err = l.err;
    } else {
        const struct octavo_engine_info *info = octavo_engine_info(l.engine);
        const char *name = default_name(engine_flags->model, model);
        struct server_model m = {
            .engine = l.engine,
            .tokenizer = l.tokenizer,
            .chat_template = l.template,
            .root = model,
            .names = f->names.len ? f->names.items : &name,
            .num_names = f->names.len ? f->names.len : 1,
            .sampling = info->default_sampling,
        };
        if (!strcmp(engine_flags->generation_config, "vllm"))
            octavo_sampling_params_init(&m.sampling);
        server_set_model(s, &m);
        print_banner(f, &m, s);
        wait_signal(signal_fd);
        drain(s, f->shutdown_timeout, signal_fd);
    }
    server_stop(s);
    profile_print(l.engine, stderr);
    octavo_engine_close(l.engine);
    chat_template_free(l.template);
    tokenizer_free(l.tokenizer);
    return r;
}

static int serve(struct serve_flags *f, struct engine_flags *engine_flags, struct octavo_error *err)
{
    struct server_options opts;
    struct server *s;
    char *model = NULL;
    sigset_t signals;
    server_options_init(&opts);
    opts.host = f->host;
    opts.port = (int)f->port;
    opts.uds = f->uds;
    opts.api_keys = f->api_keys.items;
    opts.num_api_keys = f->api_keys.len;
    opts.max_body_bytes = (size_t)f->max_body_bytes;
    opts.max_connections = (int)f->max_connections;
    opts.max_num_queued_reqs = (int)f->max_num_queued_reqs;
    opts.keep_alive_seconds = (int)f->keep_alive;
    opts.stall_seconds = (int)f->client_timeout;
    opts.access_log = !f->disable_access_log;

    int r = model_path_find(engine_flags->model, &model, err);
    if (r < 0)
        return r;
    /* every thread inherits the mask, so that signals reach signal_fd only */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    if (signal_fd < 0) {
        r = error_set(err, OCTAVO_EIO, "signalfd: %s", strerror(errno));
        goto out;
    }
    raise_file_limit();
    r = server_start(&opts, &s, err);
    if (r == 0)
        r = run(f, engine_flags, model, signal_fd, s, err);
    close(signal_fd);
out:
    free(model);
    return r;
}

int cmd_serve(int argc, char **argv)
{
    struct serve_flags flags = {
        .host = "127.0.0.1",
        .port = 8000,
        .shutdown_timeout = 30,
        .max_connections = 1024,
        .max_body_bytes = 32 << 20,
        .keep_alive = 75,
        .client_timeout = 60,
    };
    struct engine_flags engine;
    struct option_list words = {0};
    struct octavo_error err = {0};
    engine_flags_init(&engine);
    const struct option_set sets[] = {{specs, ARRAY_LEN(specs), &flags}, engine_flags_set(&engine)};
    int r = options_parse(sets, ARRAY_LEN(sets), argc, argv, &words, 1, &err);
    if (r == 1) {
        fputs(intro, stdout);
        options_print_help(stdout, sets, ARRAY_LEN(sets));
        r = 0;
    } else if (r == 0) {
        if (words.len)
            engine.model = words.items[0];
        const char *key = getenv("OCTAVO_API_KEY");
        if (key && *key)
            option_list_add(&flags.api_keys, key);
        r = serve(&flags, &engine, &err);
    }
    if (r < 0)
        fprintf(stderr, "octavo serve: %s\n", err.msg);
    option_list_release(&words);
    option_list_release(&flags.names);
    option_list_release(&flags.api_keys);
    return r < 0 ? 1 : 0;
}
