/*
 * Calls that one allocating function makes of another are told by their return addresses: the kernel side's map
 * `nested`.
 */
#ifndef ALLOCTRACE_NESTED_H
#define ALLOCTRACE_NESTED_H

#include "tracer/tracer.h"

/* Are functions that throw, or do not, probed? */
bool nested_is_probed(bool throws, enum tracer_throwing throwing);

/* Return addresses as seen from the probe sites that they lead to; these are numbered from `first` on. 0 or -errno. */
int nested_mark_relative(const struct tracer *tracer, uint32_t slot, uint32_t first,
			 const struct allocator *allocator, enum tracer_throwing throwing);

/* Forgets all of a slot. */
void nested_forget(struct tracer *tracer, uint32_t slot);

#endif
