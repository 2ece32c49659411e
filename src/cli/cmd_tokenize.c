/* octavo tokenize: shows how a checkpoint's tokenizer cuts a text, or what ids say. No model is loaded. Main thread. */
#include "cli/cmd_tokenize.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "cli/input.h"
#include "cli/model_path.h"
#include "cli/options.h"
#include "text/tokenizer.h"

#include <errno.h>
#include <stdlib.h>

struct tokenize_flags {
    const char *model, *text, *file;
    bool decode, ids, json, special, skip_special;
};

#define AT(field) .offset = offsetof(struct tokenize_flags, field)

static const struct option_spec specs[] = {
    {"p,prompt", OPTION_STRING, AT(text), .group = "Input", .metavar = "TEXT",
     .help = "The text. Without it and --file, standard input is read."},
    {"f,file", OPTION_STRING, AT(file), .metavar = "FILE", .help = "Read the text from FILE."},
    {"model", OPTION_STRING, AT(model), .metavar = "DIR",
     .help = "Folder with tokenizer.json; the same as the positional argument. Default: the bundled model."},
    {"decode", OPTION_SWITCH, AT(decode), .group = "What to do",
     .help = "The input is token ids, separated by spaces or commas: print their text."},
    {"add-special-tokens", OPTION_SWITCH, AT(special),
     .help = "Add what the tokenizer puts around a text (bos). Default: on."},
    {"skip-special-tokens", OPTION_SWITCH, AT(skip_special), .help = "With --decode: leave special tokens out."},
    {"ids", OPTION_SWITCH, AT(ids), .group = "Output", .help = "Print the ids alone, on one line."},
    {"json", OPTION_SWITCH, AT(json), .help = "Print {\"count\", \"tokens\", \"token_strs\"}."},
};

static const char intro[] = "usage: octavo tokenize [MODEL] [-p TEXT] [flags]\n"
                            "\n"
                            "Shows how a text is cut into tokens, one on a line: its id and its bytes.\n"
                            "\n"
                            "  octavo tokenize -p \"Once upon a time\"\n"
                            "  octavo tokenize ./Qwen3-0.6B --file story.txt --ids\n"
                            "  octavo tokenize --decode -p \"397 2700 265\"\n";

static int parse_ids(const char *text, struct token_ids *ids, struct octavo_error *err)
{
    const char *p = text;
    for (;;) {
        while (*p == ' ' || *p == ',' || *p == '\n' || *p == '\t' || *p == '[' || *p == ']')
            p++;
        if (!*p)
            return 0;
        char *end;
        errno = 0;
        long id = strtol(p, &end, 10);
        if (end == p || errno || id < 0 || id > INT32_MAX)
            return error_set(err, OCTAVO_EINVAL, "'%.20s' is not a token id", p);
        token_ids_push(ids, (int32_t)id);
        p = end;
    }
}

/* One token's bytes as a quoted string: a part of a character is shown as \xNN. */
static void print_token(const struct tokenizer *tok, int32_t id, struct buf *piece)
{
    buf_clear(piece);
    tokenizer_token_bytes(tok, id, piece);
    printf("%8d  \"", (int)id);
    for (size_t i = 0; i < piece->len;) {
        uint32_t cp;
        int n = utf8_decode(piece->data + i, piece->len - i, &cp);
        unsigned char c = (unsigned char)piece->data[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c == '\n')
            fputs("\\n", stdout);
        else if (n < 0 || cp < 0x20 || (cp >= 0x7f && cp < 0xa0))
            printf("\\x%02x", c);
        else
            fwrite(piece->data + i, 1, (size_t)n, stdout);
        i += n < 0 || cp < 0xa0 ? 1 : (size_t)n;
    }
    fputs(tokenizer_is_special(tok, id) ? "\"  special\n" : "\"\n", stdout);
}

static void print_json(const struct tokenizer *tok, const struct token_ids *ids)
{
    struct buf out = {0};
    buf_printf(&out, "{\"count\": %zu, \"tokens\": [", ids->len);
    for (size_t i = 0; i < ids->len; i++)
        buf_printf(&out, "%s%d", i ? ", " : "", (int)ids->ids[i]);
    buf_puts(&out, "], \"token_strs\": [");
    for (size_t i = 0; i < ids->len; i++) {
        size_t len = 0;
        const char *s = tokenizer_token_string(tok, ids->ids[i], &len);
        buf_puts(&out, i ? ", " : "");
        json_write_string(&out, s ? s : "", len);
    }
    buf_puts(&out, "]}\n");
    fwrite(out.data, 1, out.len, stdout);
    buf_release(&out);
}

static int tokenize(const struct tokenize_flags *flags, struct octavo_error *err)
{
    char *model = NULL;
    struct tokenizer *tok = NULL;
    struct buf text = {0}, piece = {0};
    struct token_ids ids = {0};
    int r;
    if ((r = model_path_find(flags->model, &model, err)) < 0 || (r = tokenizer_open(model, &tok, err)) < 0 ||
        (r = input_read(flags->text, flags->file, &text, err)) < 0)
        goto out;
    if (flags->decode) {
        if ((r = parse_ids(buf_str(&text), &ids, err)) < 0)
            goto out;
        tokenizer_decode(tok, ids.ids, ids.len, flags->skip_special, &piece);
        fwrite(buf_str(&piece), 1, piece.len, stdout);
        putchar('\n');
        goto out;
    }
    r = tokenizer_encode(tok, buf_str(&text), text.len, flags->special ? TOKENIZER_ADD_SPECIAL : 0, &ids, err);
    if (r < 0)
        goto out;
    if (flags->json) {
        print_json(tok, &ids);
    } else if (flags->ids) {
        for (size_t i = 0; i < ids.len; i++)
            printf("%s%d", i ? " " : "", (int)ids.ids[i]);
        putchar('\n');
    } else {
        for (size_t i = 0; i < ids.len; i++)
            print_token(tok, ids.ids[i], &piece);
        printf("%zu tokens, %zu bytes\n", ids.len, text.len);
    }
out:
    token_ids_release(&ids);
    buf_release(&text);
    buf_release(&piece);
    tokenizer_free(tok);
    free(model);
    return r;
}

int cmd_tokenize(int argc, char **argv)
{
    struct tokenize_flags flags = {.special = true};
    const struct option_set sets[] = {{specs, ARRAY_LEN(specs), &flags}};
    struct option_list words = {0};
    struct octavo_error err = {0};
    int r = options_parse(sets, ARRAY_LEN(sets), argc, argv, &words, 1, &err);
    if (r == 1) {
        fputs(intro, stdout);
        options_print_help(stdout, sets, ARRAY_LEN(sets));
        r = 0;
    } else if (r == 0) {
        if (words.len)
            flags.model = words.items[0];
        r = tokenize(&flags, &err);
    }
    if (r < 0)
        fprintf(stderr, "octavo tokenize: %s\n", err.msg);
    option_list_release(&words);
    return r < 0 ? 1 : 0;
}
