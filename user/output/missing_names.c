/*
 * A site counts for the image of its allocating function: the innermost frame that is neither an
 * allocator's own nor hands on what its language asks of it, as in the table of sites. Of a frame
 * without a name nobody knows whether it is one of those; it counts, too.
 */
#include "output/missing_names.h"

#include "output/alloc_frames.h"
#include "output/text.h"
#include "util/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Less than this share of the bytes is not worth a line, nor are more images. */
#define SHARE_MIN  0.05
#define IMAGES_MAX 3

struct share {
	const struct profile_mapping *mapping; /* borrowed; one of the image's */
	double bytes;
};

static bool is_plumbing(const struct profile *profile, const struct profile_location *location)
{
	for (size_t i = 0; i < location->line_count; i++) {
		const char *name = profile->functions.items[location->lines[i].function].name;

		if (!alloc_frames_match(name) && !alloc_frames_plumbing(name))
			return false;
	}
	return location->line_count > 0;
}

/* The mapping of a site's allocating function, -1: none. */
static int allocating_mapping(const struct profile *profile, const struct profile_site *site)
{
	for (size_t i = 0; i < site->frame_count; i++) {
		const struct profile_location *location =
			&profile->locations.items[site->frames[i]];

		if (!is_plumbing(profile, location))
			return location->mapping;
	}
	return -1;
}

static int by_image(const void *a, const void *b)
{
	const struct share *x = a, *y = b;
	int order = strcmp(x->mapping->file, y->mapping->file);

	return order ? order : strcmp(x->mapping->build_id, y->mapping->build_id);
}

static int by_bytes(const void *a, const void *b)
{
	const struct share *x = a, *y = b;

	return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

/* Adds up what is allocated in each mapping. */
static void add_sites(const struct profile *profile, enum profile_value value, struct share *shares)
{
	for (size_t i = 0; i < profile->sites.count; i++) {
		const struct profile_site *site = &profile->sites.items[i];
		int mapping = site->mapped ? -1 : allocating_mapping(profile, site);

		if (mapping >= 0)
			shares[mapping].bytes += (double)site->sums[value];
	}
}

/* Leaves one share for each image that lacks lines, the largest first. Their number. */
static size_t merge_images(const struct profile *profile, struct share *shares)
{
	size_t used = 0, count = 0;

	for (size_t i = 0; i < profile->mappings.count; i++) {
		const struct profile_mapping *mapping = &profile->mappings.items[i];

		/* What is no file has no debug information anywhere. */
		if (shares[i].bytes > 0 && !mapping->has_line_numbers && mapping->file[0] == '/')
			shares[used++] = (struct share){mapping, shares[i].bytes};
	}
	qsort(shares, used, sizeof(*shares), by_image);
	for (size_t i = 0; i < used; i++) {
		if (count && by_image(&shares[count - 1], &shares[i]) == 0)
			shares[count - 1].bytes += shares[i].bytes;
		else
			shares[count++] = shares[i];
	}
	qsort(shares, count, sizeof(*shares), by_bytes);
	return count;
}

static void write_share(const struct share *share, double all, const char *what, FILE *to)
{
	fprintf(to, "%.0f %% of %s bytes come from ", 100 * share->bytes / all, what);
	text_escape(to, share->mapping->file);
	fprintf(to, ", which has no %s",
		share->mapping->has_functions ? "debug information" : "symbols");
	if (*share->mapping->build_id)
		fprintf(to, " (build id %s)", share->mapping->build_id);
	fputc('\n', to);
}

int missing_names_write(const struct profile *profile, const char *label, FILE *to)
{
	CLEANUP(cleanup_free)
	struct share *shares = calloc(profile->mappings.count + 1, sizeof(*shares));
	bool live = profile->total_values[PROFILE_INUSE_SPACE] > 0;
	enum profile_value value = live ? PROFILE_INUSE_SPACE : PROFILE_ALLOC_SPACE;
	double all = (double)profile->total_values[value];
	size_t count;

	if (!shares)
		return -ENOMEM;
	add_sites(profile, value, shares);
	count = merge_images(profile, shares);
	for (size_t i = 0; i < count && i < IMAGES_MAX && shares[i].bytes > SHARE_MIN * all; i++) {
		fprintf(to, "%-11s", i ? "" : label);
		write_share(&shares[i], all, live ? "live" : "allocated", to);
	}
	return 0;
}
