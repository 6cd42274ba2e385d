/* Time as one number: nanoseconds of a clock of clock_gettime(2). */
#ifndef ALLOCTRACE_CLOCK_H
#define ALLOCTRACE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t clock_now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

#endif
