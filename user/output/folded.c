#include "output/text.h"

#include "output/frame.h"

#include <errno.h>
#include <inttypes.h>

static void write_site(const struct profile *profile, const struct profile_site *site, FILE *to)
{
	struct frame_cursor cursor = frame_outermost(profile, site);
	struct frame frame;
	bool first = true;

	while (frame_next_inward(&cursor, &frame)) {
		if (!first)
			fputc(';', to);
		text_escape_also(to, frame.name, ';'); /* which separates frames */
		first = false;
	}
	if (first)
		fputs("[no stack]", to);
	if (site->mapped)
		fputs(";[mmap]", to);
	fprintf(to, " %" PRId64 "\n", site->sums[PROFILE_INUSE_SPACE]);
}

int folded_write(const struct profile *profile, FILE *to)
{
	for (size_t i = 0; i < profile->sites.count; i++) {
		const struct profile_site *site = &profile->sites.items[i];

		if (site->sums[PROFILE_INUSE_SPACE] > 0)
			write_site(profile, site, to);
	}
	if (fflush(to))
		return -errno;
	return ferror(to) ? -EIO : 0;
}
