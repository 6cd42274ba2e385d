#include "output/frame.h"

#include "util/vec.h"

#include "output/alloc_frames.h"

#include <stdio.h>
#include <string.h>

void frame_stand_in(const char *file, char name[FRAME_STAND_IN_MAX])
{
	const char *base = strrchr(file, '/');
	size_t length;

	base = base ? base + 1 : file;
	length = strcspn(base, "("); /* "libfoo.so (deleted)" */
	while (length && base[length - 1] == ' ')
		length--;
	if (length > NAME_MAX)
		length = NAME_MAX;
	if (!length)
		snprintf(name, FRAME_STAND_IN_MAX, "[unknown]");
	else if (base[0] == '[') /* "[vdso]" */
		snprintf(name, FRAME_STAND_IN_MAX, "%.*s", (int)length, base);
	else
		snprintf(name, FRAME_STAND_IN_MAX, "[%.*s]", (int)length, base);
	for (char *at = name; *at; at++) {
		if (*at == '<' || *at == '>')
			*at = '_';
	}
}

static size_t line_count(const struct profile_location *location)
{
	return location->line_count ? location->line_count : 1;
}

static const struct profile_location *location_at(const struct profile *profile,
						  const struct profile_site *site, size_t index)
{
	return &profile->locations.items[site->frames[index]];
}

static void describe(const struct profile *profile, const struct profile_location *location,
		     size_t index, struct frame *frame)
{
	const struct profile_mapping *mapping = NULL;
	const struct profile_function *function = NULL;

	if (location->mapping >= 0)
		mapping = &profile->mappings.items[location->mapping];
	*frame = (struct frame){
		.file = "",
		.interpreted = location->interpreted,
		.interpreter = mapping && mapping->is_interpreter,
	};
	if (index < location->line_count) {
		function = &profile->functions.items[location->lines[index].function];
		frame->line = location->lines[index].line;
		frame->file = function->file;
	}
	/* Where there is no symbol, "[libfoo.so+0x1234]" is given for a name. */
	if (function && function->name[0]) {
		frame->name = function->name;
		frame->named = function->name[0] != '[';
		return;
	}
	frame_stand_in(mapping ? mapping->file : "", frame->stand_in);
	frame->offset = location->address;
	if (mapping)
		frame->offset += mapping->offset - mapping->start;
	frame->name = frame->stand_in;
}

bool frame_next_outward(struct frame_cursor *cursor, struct frame *frame)
{
	const struct profile_location *location;

	if (cursor->location >= cursor->site->frame_count)
		return false;
	location = location_at(cursor->profile, cursor->site, cursor->location);
	describe(cursor->profile, location, cursor->line, frame);
	if (++cursor->line >= line_count(location)) {
		cursor->location++;
		cursor->line = 0;
	}
	return true;
}

/* On the way inwards, location and line count what is left. */
struct frame_cursor frame_outermost(const struct profile *profile, const struct profile_site *site)
{
	struct frame_cursor cursor = {
		.profile = profile,
		.site = site,
		.location = site->frame_count,
	};

	return cursor;
}

bool frame_next_inward(struct frame_cursor *cursor, struct frame *frame)
{
	const struct profile_location *location;

	if (!cursor->line) {
		if (!cursor->location)
			return false;
		cursor->location--;
		cursor->line =
			line_count(location_at(cursor->profile, cursor->site, cursor->location));
	}
	location = location_at(cursor->profile, cursor->site, cursor->location);
	describe(cursor->profile, location, --cursor->line, frame);
	return true;
}

/*
 * From a frame of an interpreter outwards to the function that it runs: the frame and the cursor go there, or stay
 * where there is none before code of others.
 */
static void find_interpreted(struct frame_cursor *cursor, struct frame *frame)
{
	struct frame_cursor ahead = *cursor;
	struct frame next = *frame;

	while (next.interpreter && !next.interpreted) {
		if (!frame_next_outward(&ahead, &next))
			return;
	}
	if (next.interpreted && next.named) {
		*cursor = ahead;
		*frame = next;
	}
}

static bool find(struct frame_cursor *cursor, struct frame *frame, bool (*passes)(const char *name))
{
	while (frame_next_outward(cursor, frame)) {
		if (frame->named && !passes(frame->name)) {
			find_interpreted(cursor, frame);
			return true;
		}
	}
	return false;
}

bool frame_find_allocating(struct frame_cursor *cursor, struct frame *frame)
{
	return find(cursor, frame, alloc_frames_plumbing);
}

bool frame_find_touching(struct frame_cursor *cursor, struct frame *frame)
{
	return find(cursor, frame, alloc_frames_touch);
}

/* Of all growth, in parts of this: what a stack has to hold that is not the largest. */
#define FAIR_PARTS 10

bool frame_find_growth(const struct profile *profile, struct frame_cursor *cursor,
		       struct frame *frame, int64_t *bytes)
{
	vec_for_each(growth, &profile->growths) {
		struct frame_cursor innermost = {
			.profile = profile,
			.site = &profile->sites.items[growth->site],
		};
		bool first = growth == profile->growths.items;

		if (growth->value <= 0 ||
		    (!first && growth->value < profile->growth_value / FAIR_PARTS))
			return false;
		*cursor = innermost;
		*bytes = growth->value;
		if (frame_find_touching(cursor, frame))
			return true;
		*cursor = innermost;
		if (first && frame_next_outward(cursor, frame) && !frame->named)
			return true;
	}
	return false;
}
