/* Assembly in pieces: functions whose every instruction a test knows. */
#ifndef ALLOCTRACE_TESTS_PIECES_H
#define ALLOCTRACE_TESTS_PIECES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

enum piece_kind {
	FUNCTION, /* a symbol of type function, global, with a size */
	LOCAL,	  /* the same, not global */
	SIZELESS, /* global, but without a size */
	LABEL,	  /* nothing but a label, which leaves no symbol */
	TEXT,	  /* the body as it is */
};

/* A part of an assembly file; the body's instructions are separated by semicolons. */
struct piece {
	const char *name, *body;
	enum piece_kind kind;
};

static const struct piece plain_malloc = {.name = "malloc", .body = "ret"};
static const struct piece plain_free = {.name = "free", .body = "ret"};

/* The text of an assembly file, until the next call. */
static inline const char *pieces_text(const struct piece *pieces, size_t count)
{
	static char text[8192];
	size_t length = 0;

	text[0] = 0;
	for (size_t i = 0; i < count; i++) {
		const struct piece *piece = &pieces[i];
		const char *name = piece->name;
		char *at = text + length;
		size_t left = sizeof(text) - length;

		if (piece->kind == TEXT)
			length += (size_t)snprintf(at, left, "%s\n", piece->body);
		else if (piece->kind == LABEL)
			length += (size_t)snprintf(at, left, ".L%s: %s\n", name, piece->body);
		else
			length += (size_t)snprintf(at, left, "%s %s; .type %s,@function; %s: %s\n",
						   piece->kind == LOCAL ? ".local" : ".globl", name,
						   name, name, piece->body);
		if (piece->kind == FUNCTION || piece->kind == LOCAL)
			length += (size_t)snprintf(text + length, sizeof(text) - length,
						   ".size %s, . - %s\n", name, name);
		assert_true(length < sizeof(text));
	}
	return text;
}

#endif
