/* Errors: see err.h. Pure functions on the caller's struct. */
#include "base/err.h"

#include <stdio.h>
#include <string.h>

/* A message is one line of text whatever bytes a hostile file put into it: control bytes become '?'. */
static void clean(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

static int vset(struct octavo_error *err, int code, const char *param, const char *fmt, va_list ap)
{
    if (err) {
        err->code = code;
        snprintf(err->param, sizeof(err->param), "%s", param);
        vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
        clean(err->msg);
    }
    return code;
}

int error_set(struct octavo_error *err, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vset(err, code, "", fmt, ap);
    va_end(ap);
    return code;
}

int error_set_param(struct octavo_error *err, int code, const char *param, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vset(err, code, param, fmt, ap);
    va_end(ap);
    return code;
}

int error_prefix(struct octavo_error *err, const char *fmt, ...)
{
    if (!err)
        return OCTAVO_EINTERNAL;
    char rest[sizeof(err->msg)];
    memcpy(rest, err->msg, sizeof(rest));
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    clean(err->msg);
    if (n > 0 && (size_t)n + 2 < sizeof(err->msg)) {
        size_t room = sizeof(err->msg) - (size_t)n - 3, len = strlen(rest);
        len = len < room ? len : room;
        memcpy(err->msg + n, ": ", 2);
        memcpy(err->msg + n + 2, rest, len);
        err->msg[(size_t)n + 2 + len] = '\0';
    }
    return err->code;
}
