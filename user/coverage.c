#include "coverage.h"

#include "util/cleanup.h"
#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char may_throw[] = "an exception may pass through it, and would end the process "
				"(--probe-throwing takes the risk)";

static bool is_safe(const struct probed_image *item, const struct allocator_function *function)
{
	return !function->throws || item->throwing != THROWING_LEFT_OUT;
}

/* "malloc+0 free+3 ...": functions, and the offsets of their probe sites. */
static void write_functions(const struct tracer *tracer, const struct probed_image *item, FILE *to)
{
	const char *separator = "";

	for (size_t i = 0; i < item->allocator->function_count; i++) {
		const struct allocator_function *function = &item->allocator->functions[i];

		if (!is_safe(item, function) || !tracer_probes(tracer, function->shape))
			continue;
		fprintf(to, "%s%s+%llu%s%s", separator, function->name,
			(unsigned long long)(function->site - function->vaddr),
			function->emulated ? "" : " (single-stepped)",
			function->throws ? " (may throw)" : "");
		separator = " ";
	}
}

/* One line for each function that is not probed. */
static void write_left_out(const struct probed_image *item, FILE *to)
{
	const struct allocator *allocator = item->allocator;

	for (size_t i = 0; i < allocator->function_count; i++) {
		if (!is_safe(item, &allocator->functions[i]))
			fprintf(to, "%s: %s\n", allocator->functions[i].name, may_throw);
	}
	vec_for_each(left_out, &allocator->left_out)
		fprintf(to, "%s: %s\n", left_out->name, left_out->reason);
}

static int report_image(const struct tracer *tracer, const struct probed_image *item,
			struct profile *profile)
{
	static const char *const throwing[] = {
		[THROWING_LEFT_OUT] = "",
		[THROWING_IF_SAFE] = "; what may throw is watched where it cannot fail",
		[THROWING_GUARDED] = "; what may throw is guarded",
		[THROWING_ANYWAY] = "; what may throw is watched as you asked",
	};
	CLEANUP(cleanup_free) char *functions = NULL;
	CLEANUP(cleanup_free) char *left_out = NULL;
	CLEANUP(cleanup_free) char *origin = NULL;
	size_t size;
	FILE *to = open_memstream(&functions, &size);

	if (!to)
		return -ENOMEM;
	write_functions(tracer, item, to);
	if (fclose(to))
		return -ENOMEM;
	to = open_memstream(&left_out, &size);
	if (!to)
		return -ENOMEM;
	write_left_out(item, to);
	if (fclose(to))
		return -ENOMEM;
	if (asprintf(&origin, "%s, by its %s%s%s", item->allocator->family, item->allocator->source,
		     throwing[item->throwing],
		     item->allocator->is_partly_known
			     ? "; too much code to follow it all: calls may count twice"
			     : "") < 0)
		return -ENOMEM;
	return profile_add_probe(profile, item->image->path, origin, functions, left_out);
}

static bool matches(const char *name, const char *wanted, bool is_prefix)
{
	return is_prefix ? !strncmp(name, wanted, strlen(wanted)) : !strcmp(name, wanted);
}

/* Has the image a function of this name, or prefix, be it probed or not? */
static bool has_function(const struct probed_image *item, const char *wanted, bool is_prefix)
{
	const struct allocator *allocator = item->allocator;

	for (size_t i = 0; allocator && i < allocator->function_count; i++) {
		if (matches(allocator->functions[i].name, wanted, is_prefix))
			return true;
	}
	if (!allocator)
		return false;
	vec_for_each(left_out, &allocator->left_out) {
		if (matches(left_out->name, wanted, is_prefix))
			return true;
	}
	return false;
}

static bool is_symbol_found(const struct target_record *target, const char *name)
{
	vec_for_each(item, &target->images) {
		if (has_function(item, name, false))
			return true;
	}
	return false;
}

static bool is_prefix_found(const struct target_record *target,
			    const struct allocator_prefix *prefix)
{
	vec_for_each(item, &target->images) {
		if (allocator_is_prefixed(item->image, prefix) &&
		    has_function(item, prefix->prefix, true))
			return true;
	}
	return false;
}

int coverage_report(const struct recording *recording, const struct target_record *target,
		    struct profile *profile)
{
	const struct allocator_extras *extras = &recording->settings->extras;
	int err = 0;

	vec_for_each(item, &target->images) {
		if (item->allocator && !item->image->expected && !err)
			err = report_image(recording->tracer, item, profile);
		if (item->search_error && !err)
			err = profile_add_warning(profile, "%s: not searched for an allocator: %s",
						  item->image->path, strerror(-item->search_error));
	}
	for (size_t i = 0; i < extras->function_count && !err; i++) {
		const char *name = extras->functions[i].name;

		if (!is_symbol_found(target, name))
			err = profile_add_warning(
				profile,
				"--symbol %s: no mapped file defines a function of this name",
				name);
	}
	for (size_t i = 0; i < extras->prefix_count && !err; i++) {
		const struct allocator_prefix *prefix = &extras->prefixes[i];

		if (!is_prefix_found(target, prefix))
			err = profile_add_warning(
				profile,
				"--allocator %s:%s: no such file is mapped, or it "
				"has no such allocator",
				prefix->path, prefix->prefix);
	}
	return err;
}
