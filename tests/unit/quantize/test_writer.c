/* The checkpoint writer: what it lays down, and that a folder is absent or whole whenever its process is killed. */
#include "quantize/writer.h"

#include "base/mem.h"

#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define TENSORS 6

static char base[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int setup(void **state)
{
    (void)state;
    snprintf(base, sizeof(base), "/tmp/octavo_writer_XXXXXX");
    return mkdtemp(base) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static char *at(const char *name)
{
    return mem_printf("%s/%s", base, name);
}

static int entries(const char *path)
{
    int n = 0;
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    if (dir)
        closedir(dir);
    return n;
}

/* A folder of six tensors of mixed widths, in small parts; fill marks the version. 0, or the writer's error. */
static int write_folder(const char *dst, bool overwrite, uint8_t fill, struct octavo_error *err)
{
    static const enum dtype types[TENSORS] = {DTYPE_I8, DTYPE_F32, DTYPE_BF16, DTYPE_I8, DTYPE_F32, DTYPE_BF16};
    struct writer *w;
    int r = writer_open(dst, overwrite, &w, err), ids[TENSORS];
    if (r < 0)
        return r;
    for (int i = 0; i < TENSORS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "t%d", i);
        ids[i] = writer_add(w, name, types[i], 2, (int64_t[]){3, 5 + i}, "FLOAT");
    }
    r = writer_begin(w, 100, err);
    for (int i = 0; i < TENSORS && r == 0; i++) {
        uint8_t bytes[200];
        size_t n = 3 * (size_t)(5 + i) * (size_t)dtype_bits(types[i]) / 8;
        memset(bytes, fill + i, sizeof(bytes));
        r = writer_put(w, ids[i], n / 2, bytes, n - n / 2, err);
        if (r == 0)
            r = writer_put(w, ids[i], 0, bytes, n / 2, err);
    }
    if (r == 0)
        r = writer_text(w, "config.json", "{}", 2, err);
    if (r == 0)
        r = writer_text(w, "sub/file.jinja", "x", 1, err);
    json_t *head = json_pack("{s:s}", "version", "1.0.0");
    if (r == 0)
        r = writer_commit(w, head, err);
    json_decref(head);
    writer_free(w);
    return r;
}

/* The folder is complete, every tensor aligned and with the bytes of its version. Returns the version. */
static int check_whole(const char *dst)
{
    struct octavo_error err;
    json_t *index, *description;
    char *path = mem_printf("%s/quant_model_weights.safetensors.index.json", dst);
    if (json_parse_file(path, 1 << 20, 0, &index, &err) < 0)
        fail_msg("%s", err.msg);
    free(path);
    path = mem_printf("%s/quant_model_description.json", dst);
    assert_int_equal(json_parse_file(path, 1 << 20, 0, &description, &err), 0);
    free(path);
    assert_string_equal(json_string_value(json_object_get(description, "version")), "1.0.0");
    const json_t *map = json_object_get(index, "weight_map");
    int fill = -1;
    assert_int_equal(json_object_size(map), TENSORS);
    for (int i = 0; i < TENSORS; i++) {
        char name[16];
        bool found = false;
        struct safetensors_file f;
        snprintf(name, sizeof(name), "t%d", i);
        assert_string_equal(json_string_value(json_object_get(description, name)), "FLOAT");
        path = mem_printf("%s/%s", dst, json_string_value(json_object_get(map, name)));
        if (safetensors_open(path, &f, &err) < 0)
            fail_msg("%s", err.msg);
        for (size_t t = 0; t < f.num_tensors; t++) {
            const struct tensor *x = &f.tensors[t];
            if (strcmp(x->name, name))
                continue;
            found = true;
            assert_int_equal((size_t)(x->data - f.map.data) % ((size_t)dtype_bits(x->dtype) / 8), 0);
            fill = fill < 0 ? x->data[0] - i : fill;
            for (size_t b = 0; b < x->bytes; b++)
                assert_int_equal(x->data[b], (uint8_t)(fill + i));
        }
        assert_true(found);
        safetensors_close(&f);
        free(path);
    }
    json_decref(index);
    json_decref(description);
    return fill;
}

static void writes_what_it_was_given(void **state)
{
    (void)state;
    struct octavo_error err = {0};
    char *dst = at("dst");
    assert_int_equal(write_folder(dst, false, 10, &err), 0);
    assert_int_equal(check_whole(dst), 10);
    assert_int_equal(entries(base), 1);
    struct stat st;
    char *first = mem_printf("%s/quant_model_weights-00001-of-00004.safetensors", dst);
    assert_int_equal(stat(first, &st), 0); /* parts of at most 100 bytes of tensors */
    assert_int_equal(write_folder(dst, false, 20, &err), OCTAVO_EINVAL);
    assert_non_null(strstr(err.msg, "exists already; name another folder, or replace it with --overwrite"));
    assert_int_equal(check_whole(dst), 10);
    assert_int_equal(write_folder(dst, true, 30, &err), 0);
    assert_int_equal(check_whole(dst), 30);
    assert_int_equal(entries(base), 1);
    free(first);
    free(dst);
}

static void refuses_what_is_not_its_own(void **state)
{
    (void)state;
    struct octavo_error err = {0};
    char *dst = at("photos"), *file = at("photos/cat.jpg"), *deep = at("no/such/folder");
    assert_int_equal(mkdir(dst, 0777), 0);
    assert_int_equal(write_folder(dst, true, 1, &err), 0); /* an empty one may be filled */
    char *description = at("photos/quant_model_description.json");
    assert_int_equal(unlink(description), 0);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(write_folder(dst, true, 1, &err), OCTAVO_EINVAL);
    assert_non_null(strstr(err.msg, "is not a quantised checkpoint"));
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(write_folder(deep, false, 1, &err), OCTAVO_EIO);
    assert_non_null(strstr(err.msg, "make the folder first"));
    assert_int_equal(write_folder("/tmp/..", false, 1, &err), OCTAVO_EINVAL);
    assert_int_equal(entries(base), 1);
    free(dst), free(file), free(deep), free(description);
}

static void incomplete_is_not_committed(void **state)
{
    (void)state;
    struct octavo_error err = {0};
    struct writer *w;
    char *dst = at("dst");
    json_t *head = json_object();
    assert_int_equal(writer_open(dst, false, &w, &err), 0);
    int t = writer_add(w, "t", DTYPE_I8, 1, (int64_t[]){4}, "FLOAT");
    assert_int_equal(writer_begin(w, 100, &err), 0);
    assert_int_equal(writer_put(w, t, 0, "abc", 3, &err), 0);
    assert_int_equal(writer_commit(w, head, &err), OCTAVO_EINTERNAL);
    writer_free(w);
    assert_int_equal(entries(base), 0);
    json_decref(head);
    free(dst);
}

/* Where a disk is full, the file system says so in begin or in put: a limit on file sizes does the same. */
static void no_space_leaves_nothing(void **state)
{
    (void)state;
    char *dst = at("dst");
    pid_t pid = fork();
    if (pid == 0) {
        struct octavo_error err = {0};
        struct writer *w;
        if (writer_open("/dev/shm/../full/none/dst", false, &w, &err) != OCTAVO_EIO)
            _exit(1);
        if (writer_open(dst, false, &w, &err) < 0)
            _exit(2);
        /* 1 EiB is more than any disk here has, and than a file may be */
        writer_add(w, "t", DTYPE_I8, 1, (int64_t[]){(int64_t)1 << 60}, "FLOAT");
        int r = writer_begin(w, WRITER_PART_BYTES, &err);
        writer_free(w);
        _exit(r == OCTAVO_EIO && strstr(err.msg, "cannot write") && strstr(err.msg, "nothing was left") ? 0 : 3);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(entries(base), 0);
    free(dst);
}

/* A child writes over and over and is killed at a random moment: what is there is always whole, and the next run
 * removes what the dead one left. */
static void killed_at_any_moment(void **state)
{
    (void)state;
    struct octavo_error err = {0};
    char *dst = at("dst");
    unsigned seed = 1, longest_us = 1 << 14; /* of a round: follows how long a write takes here and now */
    int absent = 0, whole = 0;
    for (int round = 0; round < 120; round++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            if (round % 2 == 0) { /* the first write: absent until whole */
                write_folder(dst, true, 1, NULL);
                _exit(0);
            }
            for (int i = 0; i < 200; i++) /* replacing: the old or the new one */
                write_folder(dst, true, (uint8_t)(1 + i), NULL);
            _exit(0);
        }
        seed = seed * 1103515245u + 12345u;
        usleep((seed >> 8) % longest_us);
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (access(dst, F_OK) == 0) {
            check_whole(dst);
            whole++;
            longest_us = longest_us > 64 ? longest_us / 2 : longest_us;
            if (round % 3 == 2)
                nftw(dst, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        } else {
            absent++;
            longest_us = longest_us < 1 << 20 ? longest_us * 2 : longest_us;
        }
    }
    assert_true(absent > 0 && whole > 0);
    assert_int_equal(write_folder(dst, true, 99, &err), 0);
    assert_int_equal(check_whole(dst), 99);
    assert_int_equal(entries(base), 1); /* no leftovers */
    free(dst);
}

/* A writer that lives keeps its folder, whatever another one does. */
static void leaves_the_living_alone(void **state)
{
    (void)state;
    struct octavo_error err = {0};
    struct writer *w;
    char *dst = at("dst");
    assert_int_equal(writer_open(dst, false, &w, &err), 0);
    pid_t pid = fork();
    if (pid == 0)
        _exit(write_folder(dst, false, 5, &err) == 0 ? 0 : 1);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(access(writer_dir(w), F_OK), 0);
    writer_free(w);
    assert_int_equal(check_whole(dst), 5);
    assert_int_equal(entries(base), 1);
    free(dst);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writes_what_it_was_given, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_what_is_not_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(incomplete_is_not_committed, setup, teardown),
        cmocka_unit_test_setup_teardown(no_space_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(killed_at_any_moment, setup, teardown),
        cmocka_unit_test_setup_teardown(leaves_the_living_alone, setup, teardown),
    };
    return cmocka_run_group_tests_name("writer", tests, NULL, NULL);
}
