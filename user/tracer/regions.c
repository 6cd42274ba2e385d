#include "tracer/regions.h"

#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A piece is gone, and its object with the last one. */
static void piece_release(struct region_piece *piece)
{
	if (!--piece->object->parts)
		free(piece->object);
}

/* Forgets everything. */
static void clear(struct regions *regions)
{
	vec_for_each(piece, &regions->pieces)
		piece_release(piece);
	vec_for_each(held, &regions->held)
		piece_release(&held->piece);
	regions->pieces.count = regions->held.count = regions->counts.count = 0;
	hash_index_deinit(&regions->index);
}

void regions_deinit(struct regions *regions)
{
	clear(regions);
	free(regions->pieces.items);
	free(regions->held.items);
	free(regions->counts.items);
	*regions = (struct regions){0};
}

/* --- counts --- */

static bool count_equal(const void *owner, uint32_t index, const void *key)
{
	const struct region_count *a = &((const struct regions *)owner)->counts.items[index];
	const struct region_count *b = key;

	return a->stack == b->stack && a->size_class == b->size_class;
}

static int find_count(struct regions *regions, uint64_t stack, uint64_t size, uint32_t *index)
{
	struct region_count count = {.stack = stack, .size_class = size_class(size)};
	uint64_t hash = hash_bytes(HASH_START, &count.stack, sizeof(count.stack));

	hash = hash_bytes(hash, &count.size_class, sizeof(count.size_class));
	if (hash_index_find(&regions->index, hash, count_equal, regions, &count, index))
		return 0;
	if (hash_index_reserve(&regions->index) || vec_push(&regions->counts, count))
		return -ENOMEM;
	*index = (uint32_t)(regions->counts.count - 1);
	hash_index_add(&regions->index, hash, *index);
	return 0;
}

/* An object that was mapped at `time` is gone, as lifetime_count() of the kernel side has it. */
static void count_lifetime(struct count *count, uint64_t time, uint64_t now)
{
	uint64_t lifetime = now > time ? now - time : 0;
	uint32_t *same = &count->by_lifetime[lifetime_class(lifetime)];

	count->lifetimes += (lifetime + (1U << (LIFETIME_UNIT_SHIFT - 1))) >> LIFETIME_UNIT_SHIFT;
	if (!count->first_freed || time < count->first_freed)
		count->first_freed = time;
	*same += *same != UINT32_MAX;
}

/* The process has given a piece back. */
static void piece_free(struct regions *regions, struct region_piece *piece, uint64_t now)
{
	struct count *count = &regions->counts.items[piece->object->count].count;
	uint64_t size = piece->end - piece->start;

	count->free_bytes += size;
	piece->object->left -= size;
	if (!piece->object->left) {
		count->free_objects++;
		count_lifetime(count, piece->object->time, now);
	}
	piece_release(piece);
}

/* --- pieces --- */

/* The first piece that ends behind an address. */
static size_t find_piece(const struct regions *regions, uint64_t address)
{
	size_t low = 0, high = regions->pieces.count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (regions->pieces.items[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Puts a piece where none is, at its place in the order. */
static int insert_piece(struct regions *regions, struct region_piece piece)
{
	size_t at = find_piece(regions, piece.start);
	int err = vec_push(&regions->pieces, piece);

	if (err)
		return err;
	memmove(&regions->pieces.items[at + 1], &regions->pieces.items[at],
		(regions->pieces.count - 1 - at) * sizeof(piece));
	regions->pieces.items[at] = piece;
	return 0;
}

/* Makes a piece end at an address within it, and another one begin there. */
static int split_piece(struct regions *regions, size_t at, uint64_t address)
{
	struct region_piece *piece = &regions->pieces.items[at];
	struct region_piece second = *piece;
	int err;

	second.start = address;
	piece->end = address;
	err = insert_piece(regions, second);
	if (err) {
		regions->pieces.items[at].end = second.end;
		return err;
	}
	second.object->parts++;
	return 0;
}

/* What an event does to the pieces, or parts of such, in [start, end): it frees or holds them. */
static int take_range(struct regions *regions, const struct region_event *event, bool hold)
{
	size_t first = find_piece(regions, event->start), last;
	struct region_piece *pieces = regions->pieces.items;
	int err = 0;

	if (event->start >= event->end)
		return 0;
	if (first < regions->pieces.count && pieces[first].start < event->start)
		err = split_piece(regions, first++, event->start);
	for (last = first; !err && last < regions->pieces.count; last++) {
		pieces = regions->pieces.items;
		if (pieces[last].start >= event->end)
			break;
		if (pieces[last].end > event->end)
			err = split_piece(regions, last, event->end);
		if (hold && !err)
			err = vec_push(&regions->held, (struct region_held){
							       .piece = regions->pieces.items[last],
							       .id = event->id,
						       });
		else if (!err)
			piece_free(regions, &regions->pieces.items[last], event->time);
		if (err)
			break;
	}
	pieces = regions->pieces.items;
	if (last > first) {
		memmove(&pieces[first], &pieces[last],
			(regions->pieces.count - last) * sizeof(*pieces));
		regions->pieces.count -= last - first;
	}
	return err;
}

/* What was held for a call: back to its place, or freed. */
static int settle_held(struct regions *regions, const struct region_event *event, bool back)
{
	size_t kept = 0;
	int err = 0;

	for (size_t i = 0; i < regions->held.count; i++) {
		struct region_held *held = &regions->held.items[i];

		if (held->id != event->id || err)
			regions->held.items[kept++] = *held;
		else if (!back)
			piece_free(regions, &held->piece, event->time);
		else if ((err = insert_piece(regions, held->piece)))
			regions->held.items[kept++] = *held;
	}
	regions->held.count = kept;
	return err;
}

static int add_object(struct regions *regions, const struct region_event *event)
{
	uint64_t size = event->end - event->start;
	struct region_object *object = malloc(sizeof(*object));
	struct region_piece piece = {event->start, event->end, object};
	uint32_t count;

	if (!object)
		return -ENOMEM;
	if (find_count(regions, event->stack, size, &count) || insert_piece(regions, piece)) {
		free(object);
		return -ENOMEM;
	}
	*object = (struct region_object){
		.size = size,
		.left = size,
		.time = event->time,
		.parts = 1,
		.count = count,
	};
	regions->counts.items[count].count.alloc_objects++;
	regions->counts.items[count].count.alloc_bytes += size;
	return 0;
}

/* --- events --- */

static void begin_epoch(struct regions *regions, uint32_t epoch)
{
	vec_for_each(count, &regions->counts)
		regions->forgotten += count->count.alloc_objects;
	clear(regions);
	regions->epoch = epoch;
	regions->full = false;
}

/* Each event has to move those behind it, and a process can have as many as there are addresses. */
static void check_room(struct regions *regions)
{
	if (!regions->most || regions->pieces.count + regions->held.count <= regions->most)
		return;
	clear(regions);
	regions->full = true;
}

void regions_apply(struct regions *regions, const struct region_event *event)
{
	int err = 0;

	if (event->epoch != regions->epoch)
		begin_epoch(regions, event->epoch);
	if (regions->full)
		return;
	switch (event->type) {
	case REGION_MAPPED:
		if (event->id)
			err = settle_held(regions, event, false);
		/* At a fixed address; or what was there has been unmapped by other means. */
		if (!err)
			err = take_range(regions, event, false);
		if (!err && event->stack)
			err = add_object(regions, event);
		break;
	case REGION_UNMAPPED:
		err = take_range(regions, event, false);
		break;
	case REGION_HELD:
		err = take_range(regions, event, true);
		break;
	case REGION_KEPT:
		err = settle_held(regions, event, true);
		break;
	}
	if (!regions->err)
		regions->err = err;
	check_room(regions);
}

void regions_visit(struct regions *regions,
		   void (*visit)(void *context, uint32_t count, uint64_t time, uint64_t bytes,
				 bool first),
		   void *context)
{
	size_t pieces = regions->pieces.count;

	regions->visits++;
	for (size_t i = 0; i < pieces + regions->held.count; i++) {
		const struct region_piece *piece = i < pieces
							   ? &regions->pieces.items[i]
							   : &regions->held.items[i - pieces].piece;
		struct region_object *object = piece->object;

		visit(context, object->count, object->time, piece->end - piece->start,
		      object->visit != regions->visits);
		object->visit = regions->visits;
	}
}

int regions_list(const struct regions *regions, struct region_part **parts, size_t *count)
{
	size_t pieces = regions->pieces.count, all = pieces + regions->held.count;
	struct region_part *list;

	if (regions->full)
		return -E2BIG;
	list = all ? calloc(all, sizeof(*list)) : NULL;
	if (regions->err || (all && !list)) {
		free(list);
		return -ENOMEM;
	}
	for (size_t i = 0; i < all; i++) {
		const struct region_piece *piece = i < pieces
							   ? &regions->pieces.items[i]
							   : &regions->held.items[i - pieces].piece;

		list[i] = (struct region_part){
			.start = piece->start,
			.end = piece->end,
			.object = (uintptr_t)piece->object,
			.size = piece->object->size,
		};
	}
	*parts = list;
	*count = all;
	return 0;
}
