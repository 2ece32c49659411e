/* `octavo eval` as a command: its JSON, byte for byte whatever the batch and the threads, and what it refuses.
 * argv[1]: tests/golden. */
#include "cli/cmd_eval.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MAX_ARGS 24

static const char *golden;
static char dir[] = "/tmp/octavo-test-eval-XXXXXX";
static char model[512], other[512], text[64], lines[64], out[64];

static void write_file(const char *path, const char *content)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(content, f);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(model, sizeof(model), "%s/quant/qwen3-w8a8-c8", golden);
    snprintf(other, sizeof(other), "%s/../../models/storyteller", golden);
    snprintf(text, sizeof(text), "%s/t.txt", dir);
    snprintf(lines, sizeof(lines), "%s/t.jsonl", dir);
    snprintf(out, sizeof(out), "%s/out.json", dir);
    FILE *f = fopen(text, "w");
    for (int i = 0; f && i < 40; i++)
        fprintf(f, "Page %d: the printer folds a sheet into eight leaves and sews them.\n", i);
    if (!f || fclose(f))
        return -1;
    write_file(lines, "{\"text\":\"One fold makes a folio.\"}\n{\"text\":\"Three folds make an octavo.\"}\n");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(text);
    unlink(lines);
    unlink(out);
    return rmdir(dir);
}

/* Runs the command in a child, with its standard output and error in files' place; the words end with NULL. */
static int command(struct buf *said, const char *first, ...)
{
    static char name[] = "eval";
    char *argv[MAX_ARGS] = {name};
    int argc = 1;
    va_list ap;
    va_start(ap, first);
    for (const char *word = first; word && argc < MAX_ARGS; word = va_arg(ap, const char *))
        argv[argc++] = (char *)(uintptr_t)word;
    va_end(ap);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        int r = cmd_eval(argc, argv);
        fflush(NULL);
        _exit(r);
    }
    close(ends[1]);
    buf_clear(said);
    char chunk[4096];
    for (ssize_t n; (n = read(ends[0], chunk, sizeof(chunk))) > 0;)
        buf_append(said, chunk, (size_t)n);
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_json(void **state)
{
    (void)state;
    struct buf said = {0}, first = {0}, again = {0};
    struct octavo_error err = {0};
    static const char *const cases[][2] = {{"1", "1"}, {"5", "2"}, {"3", "3"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int r =
            command(&said, model, "--against", model, "--against-kv-cache-dtype", "float32", "--text", text, "--window",
                    "64", "--stride", "48", "--batch", cases[i][0], "--threads", cases[i][1], "--json", out, NULL);
        if (r)
            fail_msg("%s", buf_str(&said));
        assert_non_null(strstr(buf_str(&said), "perplexity ratio"));
        struct buf *to = i ? &again : &first;
        buf_clear(to);
        assert_int_equal(file_read(out, 1 << 24, to, &err), 0);
        assert_true(to->len == first.len && !memcmp(to->data, first.data, to->len));
    }
    json_t *root = NULL;
    assert_int_equal(json_parse_text(first.data, first.len, "out", 0, &root, &err), 0);
    int64_t positions = json_integer_value(json_object_get(root, "num_positions")), n = 0;
    double nll = 0, kld = 0;
    const json_t *windows = json_object_get(root, "windows");
    assert_int_equal(json_array_size(windows), json_integer_value(json_object_get(root, "num_windows")));
    for (size_t w = 0; w < json_array_size(windows); w++) {
        const json_t *x = json_array_get(windows, w), *nlls = json_object_get(x, "nll"),
                     *klds = json_object_get(x, "kld");
        assert_int_equal(json_array_size(nlls), json_array_size(klds));
        assert_int_equal(json_array_size(nlls), json_array_size(json_object_get(x, "token_ids")));
        assert_int_equal(json_array_size(nlls), json_array_size(json_object_get(x, "same_top1")));
        for (size_t i = 0; i < json_array_size(nlls); i++, n++) {
            nll += json_number_value(json_array_get(nlls, i));
            kld += json_number_value(json_array_get(klds, i));
        }
    }
    assert_int_equal(n, positions);
    assert_int_equal(positions, json_integer_value(json_object_get(root, "num_tokens")) - 1);
    double mean = json_number_value(json_object_get(json_object_get(root, "model"), "mean_nll"));
    assert_true(fabs(nll / (double)n - mean) < 1e-9);
    mean = json_number_value(json_object_get(json_object_get(root, "kld"), "mean"));
    assert_true(mean > 0 && fabs(kld / (double)n - mean) < 1e-12);
    json_decref(root);
    buf_release(&said);
    buf_release(&first);
    buf_release(&again);
}

static void test_outputs(void **state)
{
    (void)state;
    struct buf said = {0};
    struct octavo_error err = {0};
    assert_int_equal(command(&said, model, "--text", lines, "--log-level", "off", "--json", "-", NULL), 0);
    json_t *root = NULL;
    assert_int_equal(json_parse_text(buf_str(&said), said.len, "out", 0, &root, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(root, "num_documents")), 2);
    assert_null(json_object_get(root, "kld"));
    json_decref(root);
    assert_int_equal(command(&said, model, "--text", text, "--max-tokens", "100", "--log-level", "off", NULL), 0);
    assert_non_null(strstr(buf_str(&said), ": 100 tokens"));
    assert_non_null(strstr(buf_str(&said), "99 tokens predicted"));
    assert_int_equal(command(&said, "--help", NULL), 0);
    assert_non_null(strstr(buf_str(&said), "a window of 512 counts 511 times"));
    buf_release(&said);
}

static void test_refused(void **state)
{
    (void)state;
    struct buf said = {0};
    unlink(out);
#define REFUSED(message, ...)                                                                                          \
    do {                                                                                                               \
        assert_int_equal(command(&said, __VA_ARGS__, NULL), 1);                                                        \
        if (!strstr(buf_str(&said), message))                                                                          \
            fail_msg("'%s' does not say '%s'", buf_str(&said), message);                                               \
        assert_false(file_exists(out));                                                                                \
    } while (0)
    REFUSED("no text", model);
    REFUSED("/nowhere", "/nowhere", "--text", text);
    REFUSED("cannot open /nowhere.txt", model, "--text", "/nowhere.txt");
    REFUSED("cannot write --json /nowhere/x", model, "--text", text, "--json", "/nowhere/x");
    REFUSED("need --against REF", model, "--text", text, "--against-kv-cache-dtype", "int8");
    REFUSED("--stride 65 is more than --window 64", model, "--text", text, "--window", "64", "--stride", "65");
    REFUSED("tokenizers of the model and the reference differ", model, "--text", text, "--against", other);
    REFUSED("cannot be compared", model, "--text", text, "--against", other, "--tokenizer", model, "--json", out);
    REFUSED("--kv-cache-dtype int8 needs", other, "--text", text, "--kv-cache-dtype", "int8", "--json", out);
    REFUSED("nothing to predict", model, "--text", text, "--max-tokens", "1", "--json", out);
    REFUSED("--window", model, "--text", text, "--window", "1");
    REFUSED("did you mean", model, "--text", text, "--agains", model);
    buf_release(&said);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    golden = argv[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_json), cmocka_unit_test(test_outputs),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
