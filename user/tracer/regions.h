/*
 * What a target has mapped by calls of its own (mmap, mremap, brk), kept up with by the events of the
 * kernel side, in their order. Each mapping that was recorded is an object, and a call may take away
 * any part of it: its head, its tail, its middle, or several at once. Its bytes are freed part by
 * part, the object with its last one.
 */
#ifndef ALLOCTRACE_REGIONS_H
#define ALLOCTRACE_REGIONS_H

#include "alloctrace.h"
#include "util/hash_index.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct region_object {
	uint64_t size;	/* bytes that were mapped */
	uint64_t left;	/* bytes of it that are mapped, or held */
	uint64_t time;	/* when it was mapped, ns of CLOCK_MONOTONIC */
	uint32_t parts; /* pieces that it is in */
	uint32_t count; /* index */
	uint32_t visit; /* the last regions_visit() that has counted it */
};

struct region_piece {
	uint64_t start, end;
	struct region_object *object; /* shared by its pieces, which own it together */
};

/* A piece that an mremap under way may take away. */
struct region_held {
	struct region_piece piece;
	uint32_t id;
};

/* The mappings of one stack in one size class, as struct count_key has them. */
struct region_count {
	uint64_t stack;
	uint32_t size_class;
	struct count count;
};

/* All zero is an empty one. */
struct regions {
	struct {
		struct region_piece *items; /* owned; sorted, without overlaps */
		size_t count, capacity;
	} pieces;
	struct {
		struct region_held *items; /* owned */
		size_t count, capacity;
	} held;
	struct {
		struct region_count *items; /* owned */
		size_t count, capacity;
	} counts;
	struct hash_index index; /* of counts */
	uint32_t epoch;		 /* of the program that all this is about */
	uint32_t visits;
	uint64_t forgotten; /* objects recorded of the programs before */
	size_t most; /* pieces; 0: any number. With more nothing is known until the next program */
	bool full;   /* there were more */
	int err;     /* the first that made this incomplete */
};

void regions_deinit(struct regions *regions);

/* One event. What goes wrong (-ENOMEM) is in regions->err. */
void regions_apply(struct regions *regions, const struct region_event *event);

/*
 * What is mapped, piece by piece: the index of its count, when its object was mapped, its bytes; and
 * whether this piece is the first of its object.
 */
void regions_visit(struct regions *regions,
		   void (*visit)(void *context, uint32_t count, uint64_t time, uint64_t bytes,
				 bool first),
		   void *context);

/* A part of an object that is mapped, or held. */
struct region_part {
	uint64_t start, end;
	uint64_t object; /* the same of all its parts, and of no other's */
	uint64_t size;	 /* of the object as it was mapped */
};

/*
 * All of them, in no order, to be freed; NULL: none. 0; -E2BIG: there were too many; or -ENOMEM, also where
 * an event was lost for that reason.
 */
int regions_list(const struct regions *regions, struct region_part **parts, size_t *count);

#endif
