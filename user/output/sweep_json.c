#include "output/sweep_json.h"

#include "output/text.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

json_t *sweep_json_text(const char *string)
{
	char *escaped;
	json_t *made;

	if (!string)
		return json_null();
	escaped = text_escaped(string);
	made = escaped ? json_string(escaped) : NULL;
	free(escaped);
	return made;
}

static json_t *processes(const struct sweep_result *result)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < result->rows.count; i++) {
		if (json_array_append_new(array, sweep_json_process(&result->rows.items[i]))) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

static json_t *short_lived(const struct sweep_result *result)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < result->brief.count; i++) {
		const struct sweep_brief *from = &result->brief.items[i];
		json_t *object =
			json_pack("{s:o, s:o, s:I}", "comm", sweep_json_text(from->comm), "parent",
				  sweep_json_text(from->parent), "count", (json_int_t)from->count);

		if (json_array_append_new(array, object)) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

static json_t *counts(const struct sweep_result *result)
{
	return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i}", "processes", (int)result->processes,
			 "ended", (int)result->ended, "short_lived", (int)result->short_lived,
			 "kernel_threads", (int)result->kernel_threads, "not_read",
			 (int)result->not_read, "readings_missed", (int)result->readings_missed);
}

static json_t *intervals(const struct sweep_numbered *numbered)
{
	if (!numbered->every)
		return json_null();
	return json_pack("{s:f, s:i, s:i, s:f}", "seconds", (double)numbered->every / 1e9,
			 "last_number", (int)numbered->last, "missed", (int)numbered->missed,
			 "longest_write_seconds", (double)numbered->longest / 1e9);
}

int sweep_json_write(const struct sweep_result *result, FILE *to)
{
	time_t start = (time_t)(result->time_nanos / 1000000000);
	char when[64] = "";
	struct tm tm;
	json_t *root;
	int err;

	if (gmtime_r(&start, &tm))
		strftime(when, sizeof(when), "%FT%TZ", &tm);
	root = json_pack("{s:s, s:o, s:s, s:f, s:o, s:o, s:o, s:o}", "version", result->version,
			 "kernel", sweep_json_text(result->kernel), "start", when,
			 "duration_seconds", (double)result->duration / 1e9, "counts",
			 counts(result), "intervals", intervals(&result->numbered), "short_lived",
			 short_lived(result), "processes", processes(result));
	if (!root)
		return -ENOMEM;
	err = json_dumpf(root, to, JSON_INDENT(2));
	json_decref(root);
	if (err || fputc('\n', to) == EOF || fflush(to))
		return errno ? -errno : -EIO;
	return 0;
}
