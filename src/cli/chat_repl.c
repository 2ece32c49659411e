/* The chat loop: see chat_repl.h. Line editing and history are libedit's. While a line is edited the terminal's own
 * interrupt is off and Ctrl-C is a key that drops the line; while an answer streams it is the signal that stops it. */
#include "cli/chat_repl.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#include <errno.h>
#include <histedit.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HISTORY_LINES 1000

static atomic_bool stop_answer;

static void on_interrupt(int sig)
{
    (void)sig;
    atomic_store(&stop_answer, true);
}

/* ---- reading lines ---- */

struct reader {
    bool tty;
    EditLine *el;
    History *history;
    char *history_path; /* NULL: not kept */
    const char *prompt;
    bool cancelled; /* Ctrl-C while editing */
    char *line;     /* getline's, when stdin is no terminal */
    size_t line_cap;
};

static char *edit_prompt(EditLine *el)
{
    struct reader *r;
    el_get(el, EL_CLIENTDATA, &r);
    return (char *)(uintptr_t)r->prompt;
}

static unsigned char edit_cancel(EditLine *el, int c)
{
    (void)c;
    struct reader *r;
    el_get(el, EL_CLIENTDATA, &r);
    r->cancelled = true;
    return CC_NEWLINE;
}

/* $XDG_STATE_HOME/octavo/chat_history, else ~/.local/state/octavo/chat_history; its folder is made. */
static char *history_file(void)
{
    const char *base = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *dir = base && base[0] == '/' ? mem_strdup(base) : home ? mem_printf("%s/.local/state", home) : NULL;
    if (!dir)
        return NULL;
    char *ours = path_join(dir, "octavo"), *path = NULL;
    for (char *p = ours + 1; *p; p++) /* mkdir -p */
        if (*p == '/') {
            *p = 0;
            mkdir(ours, 0700);
            *p = '/';
        }
    if (mkdir(ours, 0700) == 0 || errno == EEXIST)
        path = path_join(ours, "chat_history");
    free(dir);
    free(ours);
    return path;
}

static void reader_init(struct reader *r)
{
    *r = (struct reader){.tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    if (!r->tty)
        return;
    HistEvent ev;
    r->history = history_init();
    history(r->history, &ev, H_SETSIZE, HISTORY_LINES);
    history(r->history, &ev, H_SETUNIQUE, 1);
    r->history_path = history_file();
    if (r->history_path)
        history(r->history, &ev, H_LOAD, r->history_path);
    r->el = el_init("octavo", stdin, stdout, stderr);
    el_set(r->el, EL_CLIENTDATA, r);
    el_set(r->el, EL_PROMPT, edit_prompt);
    el_set(r->el, EL_EDITOR, "emacs");
    el_set(r->el, EL_HIST, history, r->history);
    el_set(r->el, EL_ADDFN, "octavo-cancel", "Drop the line", edit_cancel);
    el_set(r->el, EL_BIND, "^C", "octavo-cancel", NULL);
    el_set(r->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(r->el, EL_SETTY, "-d", "-isig", NULL);
    el_source(r->el, NULL);
}

static void reader_release(struct reader *r)
{
    if (r->history) {
        HistEvent ev;
        if (r->history_path && history(r->history, &ev, H_SAVE, r->history_path) >= 0)
            chmod(r->history_path, 0600);
        el_end(r->el);
        history_end(r->history);
    }
    free(r->history_path);
    free(r->line);
}

/* One line without its newline into *out. 1: a line; 0: end of input; -1: Ctrl-C. */
static int read_line(struct reader *r, const char *prompt, struct buf *out)
{
    const char *line;
    int n;
    if (r->tty) {
        r->prompt = prompt;
        r->cancelled = false;
        line = el_gets(r->el, &n);
        if (r->cancelled) {
            puts("^C");
            return -1;
        }
    } else {
        n = (int)getline(&r->line, &r->line_cap, stdin);
        line = n < 0 ? NULL : r->line;
    }
    if (!line || n <= 0)
        return 0;
    if (line[n - 1] == '\n')
        n--;
    buf_append(out, line, (size_t)n);
    return 1;
}

/* A message: one line, or several where each but the last ends in a backslash. */
static int read_message(struct reader *r, const char *prompt, struct buf *out)
{
    buf_clear(out);
    int got = read_line(r, prompt, out);
    while (got > 0 && out->len && out->data[out->len - 1] == '\\') {
        out->data[out->len - 1] = '\n';
        got = read_line(r, "... ", out);
    }
    if (got > 0 && r->tty && out->len) {
        HistEvent ev;
        history(r->history, &ev, H_ENTER, out->data);
    }
    return got;
}

/* ---- the conversation ---- */

static void say(json_t *messages, const char *role, const char *text, size_t len)
{
    json_t *content = json_stringn(text, len);
    if (!content) { /* typed bytes that are not UTF-8 */
        struct buf quoted = {0};
        json_write_string(&quoted, text, len);
        content = json_loadb(quoted.data, quoted.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        buf_release(&quoted);
    }
    json_array_append_new(messages, json_pack("{s:s, s:o}", "role", role, "content", content));
}

static int render(struct session *s, const json_t *messages, struct token_ids *ids, struct octavo_error *err)
{
    struct chat_template_input in = {.messages = messages, .add_generation_prompt = true};
    struct buf text = {0};
    int r = chat_template_render(s->template, &in, &text, err);
    ids->len = 0;
    if (r == 0)
        r = tokenizer_encode(s->tok, buf_str(&text), text.len, 0, ids, err);
    buf_release(&text);
    return r;
}

/* The prompt of the conversation; turns that no longer fit in the context are forgotten, the oldest first. */
static int make_prompt(struct session *s, json_t *messages, bool has_system,
                       const struct octavo_sampling_params *sampling, struct token_ids *ids, struct octavo_error *err)
{
    int64_t room = octavo_engine_info(s->engine)->max_model_len - (sampling->max_tokens > 0 ? sampling->max_tokens : 1);
    size_t first = has_system ? 1 : 0;
    int r;
    bool told = false;
    while ((r = render(s, messages, ids, err)) == 0 && (int64_t)ids->len > room &&
           json_array_size(messages) > first + 2) {
        json_array_remove(messages, first);
        json_array_remove(messages, first);
        if (!told)
            fprintf(stderr, "(the conversation is longer than the model's context; forgetting its beginning)\n");
        told = true;
    }
    return r;
}

static const char help[] = "/help            this\n"
                           "/reset           forget the conversation\n"
                           "/system TEXT     start again with TEXT as the system message\n"
                           "/exit, Ctrl-D    leave\n"
                           "A line that ends in \\ goes on in the next. Ctrl-C stops an answer or drops a line;\n"
                           "the arrows and Ctrl-R walk through what you said before.\n";

/* Starts over, with a system message when text is not empty. */
static bool reset(json_t *messages, const char *text)
{
    json_array_clear(messages);
    if (!text || !*text)
        return false;
    say(messages, "system", text, strlen(text));
    return true;
}

static int answer(struct session *s, const struct chat_options *opts, json_t *messages, bool has_system, bool tty,
                  struct octavo_error *err)
{
    struct token_ids ids = {0};
    struct buf text = {0};
    struct answer a;
    int r = make_prompt(s, messages, has_system, &opts->sampling, &ids, err);
    if (r == 0) {
        atomic_store(&stop_answer, false);
        r = session_answer(s, &ids, &opts->sampling, &opts->det, &stop_answer, stdout, &text, &a, err);
    }
    if (r == 0) {
        putchar('\n');
        if (a.interrupted)
            puts("(stopped)");
        else if (a.reason == OCTAVO_FINISH_LENGTH)
            puts("(cut off: the limit of tokens is reached)");
        if (opts->stats && a.num_tokens > 1)
            fprintf(stderr, "%s(%zu tokens in, %zu out, first after %.2f s, then %.1f tokens/s)%s\n",
                    tty ? "\033[2m" : "", a.num_prompt_tokens, a.num_tokens, a.first_seconds,
                    (double)(a.num_tokens - 1) / (a.total_seconds - a.first_seconds), tty ? "\033[0m" : "");
        say(messages, "assistant", buf_str(&text), text.len);
    } else {
        json_array_remove(messages, json_array_size(messages) - 1);
    }
    fflush(stdout);
    buf_release(&text);
    token_ids_release(&ids);
    return r;
}

int chat_repl(struct session *s, const struct chat_options *opts, struct octavo_error *err)
{
    struct reader reader;
    struct buf line = {0};
    json_t *messages = json_array();
    bool has_system = reset(messages, opts->system);
    struct sigaction act = {.sa_handler = on_interrupt}, old;
    sigaction(SIGINT, &act, &old);
    reader_init(&reader);
    int r = 0, got;
    while (r == 0 && (got = read_message(&reader, "> ", &line)) != 0) {
        const char *text = buf_str(&line);
        if (got < 0 || text[strspn(text, " \t")] == 0)
            continue;
        if (!strcmp(text, "/exit") || !strcmp(text, "/quit"))
            break;
        if (!strcmp(text, "/help")) {
            fputs(help, stdout);
        } else if (!strcmp(text, "/reset")) {
            has_system = reset(messages, opts->system);
        } else if (!strncmp(text, "/system ", 8)) {
            has_system = reset(messages, text + 8);
        } else if (text[0] == '/' && reader.tty && !strchr(text, ' ')) {
            printf("There is no command %s; /help lists them.\n", text);
        } else {
            say(messages, "user", text, line.len);
            r = answer(s, opts, messages, has_system, reader.tty, err);
            if (r == OCTAVO_EINVAL && reader.tty) { /* this message cannot be answered; the next one may */
                fprintf(stderr, "%s\n", err->msg);
                r = 0;
            }
        }
    }
    if (reader.tty)
        putchar('\n');
    reader_release(&reader);
    sigaction(SIGINT, &old, NULL);
    buf_release(&line);
    json_decref(messages);
    return r;
}
