/* The log: one line a message on stderr, "HH:MM:SS level text". Main code logs; library code reports errors instead
 * and uses log_debug at most. The level is the one mutable global besides the CPU mask. Any thread. */
#ifndef OCTAVO_BASE_LOG_H
#define OCTAVO_BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR, LOG_OFF };

void log_set_level(enum log_level level);
int log_level_parse(const char *name, enum log_level *ret_level); /* 0, or -1 for an unknown name */
void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

#endif
