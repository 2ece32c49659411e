/* Chat templates of real models against transformers: the conversations that tests/golden/chat/record.py recorded, and
 * how a checkpoint's template is found. */
#include "text/chat_template.h"

#include "base/file.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/octavo-chat-XXXXXX";
static const char *const files[] = {"tokenizer_config.json", "chat_template.jinja", "chat_template.json",
                                    "additional_chat_templates/tool_use.jinja"};

static void put(const char *name, const char *text)
{
    char *path = path_join(dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    free(path);
}

static void clean(void)
{
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char *path = path_join(dir, files[i]);
        unlink(path);
        free(path);
    }
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    char *sub = path_join(dir, "additional_chat_templates");
    int rc = mkdir(sub, 0700);
    free(sub);
    return rc;
}

static int teardown(void **state)
{
    (void)state;
    clean();
    char *sub = path_join(dir, "additional_chat_templates");
    rmdir(sub);
    free(sub);
    return rmdir(dir);
}

static void test_recorded(void **state)
{
    (void)state;
    json_t *root = json_load_file(GOLDEN_DIR "/chats.json", JSON_ALLOW_NUL, NULL);
    assert_non_null(root);
    const json_t *cases = json_object_get(root, "cases");
    size_t failed = 0;
    assert_true(json_array_size(cases) >= 150);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *want = json_object_get(c, "o"),
                     *tools = json_object_get(c, "tools");
        char *path = mem_printf(GOLDEN_DIR "/%s.jinja", json_string_value(json_object_get(c, "template")));
        char *tokens = json_dumps(json_object_get(c, "tokens"), 0);
        put("tokenizer_config.json", tokens);
        struct chat_template *t = NULL;
        struct octavo_error err = {0};
        struct buf out = {0};
        struct chat_template_input in = {
            .messages = json_object_get(c, "messages"),
            .tools = json_is_null(tools) ? NULL : tools,
            .kwargs = json_object_get(c, "kwargs"),
            .add_generation_prompt = json_is_true(json_object_get(c, "gen")),
            .continue_final_message = json_is_true(json_object_get(c, "cont")),
        };
        int rc = chat_template_open(dir, path, NULL, &t, &err);
        if (rc == 0)
            rc = chat_template_render(t, &in, &out, &err);
        bool same = want ? rc == 0 && out.len == json_string_length(want) &&
                               !memcmp(buf_str(&out), json_string_value(want), out.len)
                         : rc == OCTAVO_EINVAL;
        if (!same) {
            print_error("case %zu, %s\n  want: %s\n  got:  %s\n", i, path,
                        want ? json_string_value(want) : json_string_value(json_object_get(c, "e")),
                        rc < 0 ? err.msg : buf_str(&out));
            failed++;
        }
        chat_template_free(t);
        buf_release(&out);
        free(tokens);
        free(path);
    }
    json_decref(root);
    clean();
    assert_int_equal(failed, 0);
}

/* What the folder's template prints with or without tools; NULL when opening or rendering fails. */
static char *print(bool tools, const char *kwargs_json, struct octavo_error *err)
{
    struct chat_template *t = NULL;
    struct buf out = {0};
    json_t *messages = json_pack("[{s:s,s:s}]", "role", "user", "content", "hi"),
           *list = json_pack("[{s:s}]", "type", "function");
    json_t *kwargs = kwargs_json ? json_loads(kwargs_json, 0, NULL) : NULL;
    int rc = chat_template_open(dir, NULL, NULL, &t, err);
    struct chat_template_input in = {.messages = messages, .tools = tools ? list : NULL, .kwargs = kwargs};
    if (rc == 0)
        rc = chat_template_render(t, &in, &out, err);
    json_decref(messages);
    json_decref(list);
    json_decref(kwargs);
    chat_template_free(t);
    if (rc == 0)
        return buf_steal(&out, NULL);
    buf_release(&out);
    return NULL;
}

static void assert_prints(bool tools, const char *kwargs, const char *want)
{
    struct octavo_error err = {0};
    char *got = print(tools, kwargs, &err);
    if (!got)
        fail_msg("%s", err.msg);
    assert_string_equal(got, want);
    free(got);
}

static void assert_refused(const char *kwargs, const char *msg)
{
    struct octavo_error err = {0};
    assert_null(print(false, kwargs, &err));
    if (!strstr(err.msg, msg))
        fail_msg("%s", err.msg);
}

static void test_sources(void **state)
{
    (void)state;
    assert_refused(NULL, "no chat template");
    put("chat_template.json", "{\"chat_template\": \"legacy\"}");
    assert_prints(false, NULL, "legacy");
    put("tokenizer_config.json",
        "{\"chat_template\": \"config {{ bos_token }}\", \"bos_token\": {\"content\": \"<s>\"}}");
    assert_prints(false, NULL, "config <s>");
    assert_prints(false, "{\"bos_token\": \"x\"}", "config x");
    put("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\", \"template\": \"d\"},"
                                 "{\"name\": \"tool_use\", \"template\": \"t{{ tools | length }}\"}]}");
    assert_prints(false, NULL, "d");
    assert_prints(true, NULL, "t1");
    put("chat_template.jinja", "file {{ messages[0].content }} {{ tools }}\n");
    assert_prints(false, NULL, "file hi None");
    put("additional_chat_templates/tool_use.jinja", "more");
    assert_prints(true, NULL, "more");
    assert_refused("{\"messages\": []}", "messages");
    assert_refused("{\"chat_template\": \"x\"}", "chat_template");
    put("chat_template.jinja", "\n{{ x");
    assert_refused(NULL, "line 2");
    put("chat_template.jinja", "{{ raise_exception('no ' ~ messages[0].role) }}");
    assert_refused(NULL, "no user");
    clean();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_sources),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
