/*
 * Growing arrays: three plain fields in the owner's struct, `T *items; size_t count, capacity;`,
 * and these two macros. Growth is geometric and its arithmetic is checked.
 */
#ifndef ALLOCTRACE_VEC_H
#define ALLOCTRACE_VEC_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Makes room for one item more. 0 or -ENOMEM; the array is untouched on failure. */
static inline int vec_reserve(void **items, size_t *capacity, size_t count, size_t item_size)
{
	size_t wanted;
	void *grown;

	if (count < *capacity)
		return 0;
	wanted = *capacity ? *capacity * 2 : 16;
	if (wanted < *capacity || wanted > SIZE_MAX / item_size)
		return -ENOMEM;
	grown = realloc(*items, wanted * item_size);
	if (!grown)
		return -ENOMEM;
	*items = grown;
	*capacity = wanted;
	return 0;
}

/* vec_push(v, item): v has fields items, count, capacity. 0 or -ENOMEM. */
#define vec_push(v, ...)                                                                           \
	({                                                                                         \
		int vec_err_ = vec_reserve((void **)&(v)->items, &(v)->capacity, (v)->count,       \
					   sizeof(*(v)->items));                                   \
		if (!vec_err_)                                                                     \
			(v)->items[(v)->count++] = (__VA_ARGS__);                                  \
		vec_err_;                                                                          \
	})

/* An empty one may have no items at all, and to NULL nothing may be added, not even 0. */
#define vec_for_each(item, v)                                                                      \
	for (__typeof__(*(v)->items) *item = (v)->items,                                           \
				     *vec_end_##item = (v)->count ? item + (v)->count : item;      \
	     item < vec_end_##item; item++)

#endif
