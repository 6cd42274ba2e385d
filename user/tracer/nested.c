#include "tracer/nested.h"

#include "alloctrace.skel.h"
#include "tracer/internal.h"
#include "util/cleanup.h"
#include "util/vec.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>

/* Keys fetched by one system call. */
#define NESTED_BATCH 8192

bool nested_is_probed(bool throws, enum tracer_throwing throwing)
{
	return !throws || throwing != THROWING_LEFT_OUT;
}

/*
 * Tells the kernel side the return addresses of an allocator, key.address added to each; of the calls
 * that lead to one function, if not NULL.
 */
static int mark(const struct tracer *tracer, const struct allocator *allocator,
		const struct allocator_function *callee, enum tracer_throwing throwing,
		struct nested_key key)
{
	CLEANUP(cleanup_free) struct nested_key *keys = NULL;
	CLEANUP(cleanup_free) uint8_t *values = calloc(allocator->nested_return_count + 1, 1);
	uint64_t from = key.address;
	uint32_t count = 0;

	keys = calloc(allocator->nested_return_count + 1, sizeof(*keys));
	if (!keys || !values)
		return -ENOMEM;
	for (size_t i = 0; i < allocator->nested_return_count; i++) {
		const struct allocator_return *nested = &allocator->nested_returns[i];

		key.address = from + nested->vaddr;
		if (callee && nested->callee != callee->vaddr && nested->callee != CALLEE_LEFT_OUT)
			continue;
		/* What an allocator maps is its own, whether or not what it is asked for is seen. */
		if (key.target & NESTED_FOR_MAPPINGS ||
		    (nested->allocates && nested_is_probed(nested->throws, throwing)))
			keys[count++] = key;
	}
	return count ? bpf_map_update_batch(bpf_map__fd(tracer->bpf->maps.nested), keys, values,
					    &count, NULL)
		     : 0;
}

int nested_mark_relative(const struct tracer *tracer, uint32_t slot, uint32_t first,
			 const struct allocator *allocator, enum tracer_throwing throwing)
{
	int err = 0;

	for (size_t i = 0; i < allocator->function_count && !err; i++) {
		const struct allocator_function *function = &allocator->functions[i];

		if (shape_allocates(function->shape))
			err = mark(tracer, allocator, function, throwing,
				   (struct nested_key){
					   .address = -function->site,
					   .target = slot,
					   .epoch = NESTED_RELATIVE | (first + (uint32_t)i),
				   });
	}
	return err;
}

int tracer_nest(struct tracer *tracer, uint32_t slot, const struct process *process,
		const struct image *image, const struct allocator *allocator,
		enum tracer_throwing throwing)
{
	uint64_t bias, last_bias = 1;
	struct nested_key key = {.epoch = tracer_target(tracer, slot)->epoch};
	int err = 0;

	vec_for_each(mapping, &process->mappings) {
		if (err || mapping->image != image ||
		    !image_bias(image, mapping->start, mapping->offset, &bias) || bias == last_bias)
			continue;
		key.address = last_bias = bias;
		key.target = slot;
		err = mark(tracer, allocator, NULL, throwing, key);
		key.target |= NESTED_FOR_MAPPINGS;
		if (!err)
			err = mark(tracer, allocator, NULL, throwing, key);
	}
	return err;
}

/* Takes all keys of a slot out of `nested` that `wanted` says yes to. */
static void forget_nested(struct tracer *tracer, uint32_t slot,
			  bool (*wanted)(const struct nested_key *key, uint32_t epoch),
			  uint32_t epoch)
{
	CLEANUP(cleanup_free) struct nested_key *keys = calloc(NESTED_BATCH, sizeof(*keys));
	CLEANUP(cleanup_free) uint8_t *values = calloc(NESTED_BATCH, 1);
	int fd = bpf_map__fd(tracer->bpf->maps.nested), err;
	uint32_t position = 0, *previous = NULL;

	if (!keys || !values)
		return;
	do {
		uint32_t n = NESTED_BATCH;

		err = bpf_map_lookup_batch(fd, previous, &position, keys, values, &n, NULL);
		if (err && err != -ENOENT)
			return;
		for (uint32_t i = 0; i < n; i++) {
			if ((keys[i].target & ~NESTED_FOR_MAPPINGS) == slot &&
			    wanted(&keys[i], epoch))
				bpf_map_delete_elem(fd, &keys[i]);
		}
		previous = &position;
	} while (!err);
}

static bool is_of_earlier_program(const struct nested_key *key, uint32_t epoch)
{
	return key->epoch != epoch && !(key->epoch & NESTED_RELATIVE);
}

void tracer_unnest(struct tracer *tracer, uint32_t slot)
{
	forget_nested(tracer, slot, is_of_earlier_program, tracer_target(tracer, slot)->epoch);
}

static bool is_any(const struct nested_key *key, uint32_t epoch)
{
	(void)key;
	(void)epoch;
	return true;
}

void nested_forget(struct tracer *tracer, uint32_t slot)
{
	forget_nested(tracer, slot, is_any, 0);
}
