/*
 * The frames of a site as a person reads them: with the calls that were inlined, and with a name
 * for those that have none.
 */
#ifndef ALLOCTRACE_FRAME_H
#define ALLOCTRACE_FRAME_H

#include "profile/profile.h"

#include <limits.h>

/* "[", a file's last name, "]" */
#define FRAME_STAND_IN_MAX (NAME_MAX + 3)

struct frame {
	const char *name; /* not escaped, never ""; in the profile, or in stand_in: not to be copied
			     then */
	const char *file; /* borrowed, "" where unknown */
	uint32_t line;	  /* 0: unknown */
	uint64_t offset;  /* of a frame with nothing but a stand-in, in its image's file; else 0 */
	bool named;	  /* by a symbol, not only by where it is */
	bool interpreted; /* run by an interpreter */
	bool interpreter; /* a function of the interpreter itself */
	char stand_in[FRAME_STAND_IN_MAX];
};

/* Frame 0 is the innermost: its position in a stack, and in the inlined calls at one address. */
struct frame_cursor {
	const struct profile *profile;
	const struct profile_site *site;
	size_t location, line;
};

/* The next frame outwards, or false. Start with location and line 0. */
bool frame_next_outward(struct frame_cursor *cursor, struct frame *frame);

/* The next frame inwards, or false. Start with frame_outermost(). */
struct frame_cursor frame_outermost(const struct profile *profile, const struct profile_site *site);
bool frame_next_inward(struct frame_cursor *cursor, struct frame *frame);

/*
 * The function that allocates: the innermost named frame from the cursor on outwards that is neither an
 * allocator's own nor hands on what its language asks of it: of an interpreter, which allocates for what it
 * runs, the function that it runs. The cursor is left behind it. False: no such frame has a name.
 */
bool frame_find_allocating(struct frame_cursor *cursor, struct frame *frame);

/* The same for a stack that touches memory: the innermost that does so on its own account. */
bool frame_find_touching(struct frame_cursor *cursor, struct frame *frame);

/*
 * Where a profile of growth grows, and by how many bytes there: its largest stack's function that
 * touches memory on its own account, or the innermost frame, if that has no name. Where all of that
 * stack that is known lies in an allocator, the next one that tells such a function, if it holds a
 * tenth of all growth. *cursor is left behind that frame. False: none does.
 */
bool frame_find_growth(const struct profile *profile, struct frame_cursor *cursor,
		       struct frame *frame, int64_t *bytes);

/* "[libfoo.so]" for code of which only its file is known, "[unknown]" for "". Never with < or >. */
void frame_stand_in(const char *file, char name[FRAME_STAND_IN_MAX]);

#endif
