#include "profile/profile.h"

#include "util/cleanup.h"
#include "util/hash_index.h"
#include "util/vec.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What profile_new() really makes: the plain data, and the tables that find shared items. */
struct profile_tables {
	struct profile profile; /* first: the address of one is the address of the other */
	struct hash_index locations;
	struct hash_index functions;
};

static struct profile_tables *tables_of(struct profile *profile)
{
	_Static_assert(!offsetof(struct profile_tables, profile), "the cast below needs it first");
	return (struct profile_tables *)profile;
}

int profile_new(struct profile **out)
{
	struct profile_tables *tables = calloc(1, sizeof(*tables));

	if (!tables)
		return -ENOMEM;
	*out = &tables->profile;
	return 0;
}

static void info_deinit(struct profile_info *info)
{
	free(info->comm);
	free(info->exe);
	free(info->version);
	free(info->command_line);
	free(info->kernel);
	free(info->attach);
	free(info->origin);
	free(info->children);
}

static void probe_deinit(struct profile_probe *probe)
{
	free(probe->file);
	free(probe->origin);
	free(probe->functions);
	free(probe->left_out);
}

void profile_free(struct profile *profile)
{
	if (!profile)
		return;
	info_deinit(&profile->info);
	vec_for_each(mapping, &profile->mappings) {
		free(mapping->file);
		free(mapping->build_id);
	}
	vec_for_each(function, &profile->functions) {
		free(function->name);
		free(function->system_name);
		free(function->file);
	}
	vec_for_each(location, &profile->locations)
		free(location->lines);
	vec_for_each(site, &profile->sites)
		free(site->frames);
	vec_for_each(probe, &profile->probes)
		probe_deinit(probe);
	vec_for_each(warning, &profile->warnings)
		free(*warning);
	free(profile->mappings.items);
	free(profile->functions.items);
	free(profile->locations.items);
	free(profile->sites.items);
	free(profile->buckets.items);
	free(profile->growths.items);
	free(profile->counters.items);
	free(profile->probes.items);
	free(profile->warnings.items);
	hash_index_deinit(&tables_of(profile)->locations);
	hash_index_deinit(&tables_of(profile)->functions);
	free(tables_of(profile));
}

/* --- adding --- */

static char *copy(const char *string)
{
	return strdup(string ? string : "");
}

int profile_add_mapping(struct profile *profile, uint64_t start, uint64_t limit, uint64_t offset,
			const char *file, const char *build_id, uint32_t *index)
{
	CLEANUP(cleanup_free) char *own_file = copy(file);
	CLEANUP(cleanup_free) char *own_id = copy(build_id);
	struct profile_mapping mapping = {
		.start = start,
		.limit = limit,
		.offset = offset,
		.file = own_file,
		.build_id = own_id,
	};

	if (!own_file || !own_id || vec_push(&profile->mappings, mapping))
		return -ENOMEM;
	own_file = own_id = NULL;
	if (index)
		*index = (uint32_t)(profile->mappings.count - 1);
	return 0;
}

static int find_mapping(const struct profile *profile, uint64_t address)
{
	for (size_t i = 0; i < profile->mappings.count; i++) {
		const struct profile_mapping *mapping = &profile->mappings.items[i];

		if (address >= mapping->start && address < mapping->limit)
			return (int)i;
	}
	return -1;
}

static bool location_equal(const void *owner, uint32_t index, const void *key)
{
	const struct profile *profile = owner;

	return profile->locations.items[index].address == *(const uint64_t *)key;
}

static int add_location(struct profile *profile, uint64_t address, uint32_t *index)
{
	struct hash_index *table = &tables_of(profile)->locations;
	uint64_t hash = hash_bytes(HASH_START, &address, sizeof(address));
	struct profile_location location = {.address = address};

	if (hash_index_find(table, hash, location_equal, profile, &address, index))
		return 0;
	location.mapping = find_mapping(profile, address);
	if (hash_index_reserve(table) || vec_push(&profile->locations, location))
		return -ENOMEM;
	*index = (uint32_t)(profile->locations.count - 1);
	hash_index_add(table, hash, *index);
	return 0;
}

int profile_add_site(struct profile *profile, const uint64_t *addresses, size_t count,
		     bool complete, uint32_t *index)
{
	/* One more than needed: calloc(0) may be NULL. */
	CLEANUP(cleanup_free) uint32_t *frames = calloc(count + 1, sizeof(*frames));
	struct profile_site site = {
		.frames = frames,
		.frame_count = count,
		.complete = complete,
	};

	if (!frames || profile->sites.count >= UINT32_MAX)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		int err = add_location(profile, addresses[i], &frames[i]);

		if (err)
			return err;
	}
	if (vec_push(&profile->sites, site))
		return -ENOMEM;
	frames = NULL;
	if (index)
		*index = (uint32_t)(profile->sites.count - 1);
	return 0;
}

int profile_add_bucket(struct profile *profile, uint32_t site, uint64_t alloc_hits,
		       uint64_t alloc_bytes, uint64_t inuse_hits, uint64_t inuse_bytes)
{
	struct profile_bucket bucket = {
		.site = site,
		.alloc_hits = alloc_hits,
		.alloc_bytes = alloc_bytes,
		.inuse_hits = inuse_hits,
		.inuse_bytes = inuse_bytes,
	};

	if (site >= profile->sites.count)
		return -EINVAL;
	if (alloc_hits)
		bucket.object_bytes = alloc_bytes / alloc_hits;
	else if (inuse_hits)
		bucket.object_bytes = inuse_bytes / inuse_hits;
	return vec_push(&profile->buckets, bucket);
}

int profile_add_ages(struct profile *profile, uint32_t site, double object_bytes,
		     const struct age_counts *live, const struct lifetimes *freed)
{
	uint64_t period = profile->info.period;
	struct profile_young *young;
	struct profile_site *to;
	double weight;

	if (site >= profile->sites.count || !period)
		return -EINVAL;
	to = &profile->sites.items[site];
	young = to->mapped ? &profile->mapped_young : &profile->young;
	weight = 1 / estimate_probability(object_bytes, period);
	estimate_add_rest(&young->objects, &young->space, live->young_objects, live->young_bytes,
			  object_bytes, period);
	ages_add(&to->ages, live, freed, weight);
	if (!to->mapped)
		ages_add(&profile->ages, live, freed, weight);
	return 0;
}

int profile_add_counter(struct profile *profile, const char *name, uint64_t count,
			enum profile_counter_kind kind)
{
	return vec_push(&profile->counters,
			(struct profile_counter){.name = name, .count = count, .kind = kind});
}

int profile_add_probe(struct profile *profile, const char *file, const char *origin,
		      const char *functions, const char *left_out)
{
	struct profile_probe probe = {
		.file = strdup(file),
		.origin = strdup(origin),
		.functions = strdup(functions),
		.left_out = strdup(left_out),
	};

	if (probe.file && probe.origin && probe.functions && probe.left_out &&
	    !vec_push(&profile->probes, probe))
		return 0;
	probe_deinit(&probe);
	return -ENOMEM;
}

int profile_add_warning(struct profile *profile, const char *format, ...)
{
	CLEANUP(cleanup_free) char *text = NULL;
	va_list args;
	int length;

	va_start(args, format);
	length = vasprintf(&text, format, args);
	va_end(args);
	if (length < 0) {
		text = NULL; /* undefined after a failure */
		return -ENOMEM;
	}
	if (vec_push(&profile->warnings, text))
		return -ENOMEM;
	text = NULL;
	return 0;
}

static bool function_equal(const void *owner, uint32_t index, const void *key)
{
	const struct profile_function *a = &((const struct profile *)owner)->functions.items[index];
	const struct profile_function *b = key;

	return a->start_line == b->start_line && !strcmp(a->name, b->name) &&
	       !strcmp(a->system_name, b->system_name) && !strcmp(a->file, b->file);
}

static uint64_t function_hash(const struct profile_function *function)
{
	uint64_t hash = hash_bytes(HASH_START, &function->start_line, sizeof(function->start_line));

	/* With their NULs, so that "ab" "c" is not "a" "bc". */
	hash = hash_bytes(hash, function->name, strlen(function->name) + 1);
	hash = hash_bytes(hash, function->system_name, strlen(function->system_name) + 1);
	return hash_bytes(hash, function->file, strlen(function->file) + 1);
}

int profile_add_function(struct profile *profile, const char *name, const char *system_name,
			 const char *file, uint32_t start_line, uint32_t *index)
{
	struct hash_index *table = &tables_of(profile)->functions;
	CLEANUP(cleanup_free) char *own_name = copy(name);
	CLEANUP(cleanup_free) char *own_system_name = copy(system_name);
	CLEANUP(cleanup_free) char *own_file = copy(file);
	struct profile_function function = {
		.name = own_name,
		.system_name = own_system_name,
		.file = own_file,
		.start_line = start_line,
	};
	uint32_t found;
	uint64_t hash;

	if (!own_name || !own_system_name || !own_file)
		return -ENOMEM;
	hash = function_hash(&function);
	if (!hash_index_find(table, hash, function_equal, profile, &function, &found)) {
		if (hash_index_reserve(table) || vec_push(&profile->functions, function))
			return -ENOMEM;
		own_name = own_system_name = own_file = NULL;
		found = (uint32_t)(profile->functions.count - 1);
		hash_index_add(table, hash, found);
	}
	if (index)
		*index = found;
	return 0;
}

int profile_set_lines(struct profile *profile, uint32_t location, const struct profile_line *lines,
		      size_t count)
{
	struct profile_location *at;
	struct profile_line *own;

	if (location >= profile->locations.count)
		return -EINVAL;
	for (size_t i = 0; i < count; i++) {
		if (lines[i].function >= profile->functions.count)
			return -EINVAL;
	}
	own = calloc(count + 1, sizeof(*own));
	if (!own)
		return -ENOMEM;
	if (count)
		memcpy(own, lines, count * sizeof(*own));
	at = &profile->locations.items[location];
	free(at->lines);
	at->lines = own;
	at->line_count = count;
	return 0;
}

/* --- finishing --- */

static int64_t round_value(double value)
{
	/* 2^63 is a double, INT64_MAX is not. */
	return value >= 0x1p63 ? INT64_MAX : llround(value);
}

static void add_saturating(int64_t *to, int64_t more)
{
	if (__builtin_add_overflow(*to, more, to))
		*to = INT64_MAX;
}

/*
 * What rounding has left over so far, for the next bucket to take up. Rounded by itself, each of a
 * thousand buckets of one hit that stands for 1.4 objects would be 1, and their sum far too low.
 * What is live and what was freed are rounded, and what was allocated is both: so it is never less.
 */
struct rounding {
	double objects[2], space[2]; /* live, freed */
};

/* Nearer than this to a whole number, a value becomes that one, and what is left waits. */
#define NEARLY_WHOLE 0.02

/* One of the two whole numbers around value, and at least what was observed. */
static int64_t round_next(double *left, double value, double observed)
{
	double wanted, result;

	value = value > observed ? value : observed;
	wanted = value + *left;
	if (fabs(value - round(value)) < NEARLY_WHOLE && fabs(*left) < 1)
		result = round(value);
	else
		result = fmax(fmin(round(wanted), ceil(value)), floor(value));
	*left = wanted - result;
	return round_value(result);
}

static void scale_bucket(struct profile *profile, struct profile_bucket *bucket,
			 struct rounding *rounding)
{
	struct profile_site *site = &profile->sites.items[bucket->site];
	struct estimate values[PROFILE_VALUES] = {0};
	const struct estimate *alloc = &values[PROFILE_ALLOC_OBJECTS];
	const struct estimate *inuse = &values[PROFILE_INUSE_OBJECTS];
	const double observed[2][2] = {
		{(double)bucket->inuse_hits, (double)bucket->inuse_bytes},
		{(double)(bucket->alloc_hits - bucket->inuse_hits),
		 (double)(bucket->alloc_bytes - bucket->inuse_bytes)},
	};
	double *left[2] = {rounding->objects, rounding->space};

	estimate_add(&values[PROFILE_ALLOC_OBJECTS], &values[PROFILE_ALLOC_SPACE],
		     bucket->alloc_hits, bucket->alloc_bytes, profile->info.period);
	if (site->mapped)
		estimate_add_rest(&values[PROFILE_INUSE_OBJECTS], &values[PROFILE_INUSE_SPACE],
				  bucket->inuse_hits, bucket->inuse_bytes,
				  (double)bucket->object_bytes, profile->info.period);
	else
		estimate_add(&values[PROFILE_INUSE_OBJECTS], &values[PROFILE_INUSE_SPACE],
			     bucket->inuse_hits, bucket->inuse_bytes, profile->info.period);
	for (int i = 0; i < 2; i++) {
		int64_t live = round_next(&left[i][0], inuse[i].value, observed[0][i]);
		int64_t all =
			round_next(&left[i][1], alloc[i].value - inuse[i].value, observed[1][i]);

		add_saturating(&all, live);
		bucket->values[PROFILE_ALLOC_OBJECTS + i] = all;
		bucket->values[PROFILE_INUSE_OBJECTS + i] = live;
	}
	for (int v = 0; v < PROFILE_VALUES; v++) {
		add_saturating(&site->sums[v], bucket->values[v]);
		add_saturating(site->mapped ? &profile->mapped_values[v]
					    : &profile->total_values[v],
			       bucket->values[v]);
		estimate_sum(&site->values[v], &values[v]);
		estimate_sum(site->mapped ? &profile->mapped[v] : &profile->total[v], &values[v]);
	}
}

static int descending(int64_t a, int64_t b)
{
	return (a < b) - (a > b);
}

static int compare_sites(const void *a, const void *b, void *sites)
{
	uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
	const struct profile_site *left = (const struct profile_site *)sites + i;
	const struct profile_site *right = (const struct profile_site *)sites + j;
	int order = left->mapped - right->mapped;

	if (!order)
		order = descending(left->sums[PROFILE_INUSE_SPACE],
				   right->sums[PROFILE_INUSE_SPACE]);
	if (!order)
		order = descending(left->sums[PROFILE_ALLOC_SPACE],
				   right->sums[PROFILE_ALLOC_SPACE]);
	return order ? order : (i > j) - (i < j);
}

static int compare_buckets(const void *a, const void *b)
{
	const struct profile_bucket *left = a, *right = b;

	if (left->site != right->site)
		return left->site < right->site ? -1 : 1;
	return (left->object_bytes > right->object_bytes) -
	       (left->object_bytes < right->object_bytes);
}

/* Sorts the sites, and the buckets in their order. */
static int sort_sites(struct profile *profile)
{
	size_t count = profile->sites.count;
	CLEANUP(cleanup_free) uint32_t *order = calloc(count + 1, sizeof(*order));
	CLEANUP(cleanup_free) uint32_t *place = calloc(count + 1, sizeof(*place));
	struct profile_site *sorted = calloc(count + 1, sizeof(*sorted));

	if (!order || !place || !sorted) {
		free(sorted);
		return -ENOMEM;
	}
	for (size_t i = 0; i < count; i++)
		order[i] = (uint32_t)i;
	qsort_r(order, count, sizeof(*order), compare_sites, profile->sites.items);
	for (size_t i = 0; i < count; i++) {
		sorted[i] = profile->sites.items[order[i]];
		place[order[i]] = (uint32_t)i;
	}
	free(profile->sites.items);
	profile->sites.items = sorted;
	profile->sites.capacity = count + 1;
	vec_for_each(bucket, &profile->buckets)
		bucket->site = place[bucket->site];
	if (profile->buckets.count)
		qsort(profile->buckets.items, profile->buckets.count,
		      sizeof(*profile->buckets.items), compare_buckets);
	return 0;
}

int profile_finish(struct profile *profile)
{
	struct rounding rounding = {0};

	if (!profile->info.period)
		return -EINVAL;
	vec_for_each(bucket, &profile->buckets)
		scale_bucket(profile, bucket, &rounding);
	return sort_sites(profile);
}

uint64_t profile_losses(const struct profile *profile)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < profile->counters.count; i++) {
		const struct profile_counter *counter = &profile->counters.items[i];

		if (counter->kind == PROFILE_LOSS &&
		    __builtin_add_overflow(sum, counter->count, &sum))
			return UINT64_MAX;
	}
	return sum;
}
