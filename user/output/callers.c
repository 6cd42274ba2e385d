#include "output/callers.h"

#include "output/short_name.h"
#include "output/text.h"
#include "util/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_WIDTH  40
#define CALLERS_MAX 8

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* "handle_request server.c:310" */
static int format_caller(const struct frame *frame, char **text)
{
	CLEANUP(cleanup_free) char *name = short_name(frame->name, NAME_WIDTH);
	int length;

	if (!name)
		return -ENOMEM;
	if (*frame->file && frame->line)
		length =
			asprintf(text, "%s %s:%" PRIu32, name, base_name(frame->file), frame->line);
	else
		length = asprintf(text, "%s", name);
	if (length < 0) {
		*text = NULL; /* undefined after a failure */
		return -ENOMEM;
	}
	return 0;
}

static int write_callers(struct frame_cursor *cursor, size_t width, FILE *to)
{
	CLEANUP(cleanup_free) char *before = NULL;
	size_t used = 0, callers = 0;
	struct frame frame;

	while (frame_next_outward(cursor, &frame)) {
		CLEANUP(cleanup_free) char *text = NULL;
		int err = format_caller(&frame, &text);

		if (err)
			return err;
		if (before && !frame.named && !strcmp(before, text))
			continue;
		used += strlen(text) + 3;
		if (callers && (used > width || callers == CALLERS_MAX)) {
			fputs(" < ...", to);
			break;
		}
		fputs(callers ? " < " : "< ", to);
		text_escape(to, text);
		callers++;
		free(before);
		before = TAKE(text);
	}
	if (!cursor->site->complete && cursor->site->frame_count)
		fputs(callers ? " < (stack cut short)" : "< (stack cut short)", to);
	return 0;
}

int callers_format(struct frame_cursor *cursor, size_t width, char **text)
{
	size_t size;
	FILE *to;
	int err;

	*text = NULL;
	to = open_memstream(text, &size);
	if (!to)
		return -ENOMEM;
	err = write_callers(cursor, width, to);
	if (fclose(to) && !err)
		err = -ENOMEM;
	if (err || !size) {
		free(*text);
		*text = NULL;
	}
	return err;
}
