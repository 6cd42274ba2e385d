/*
 * The rules of the format, as google/pprof, Parca, Pyroscope and Go's own profiles have them:
 *
 * - Sample types alloc_objects/count, alloc_space/bytes, inuse_objects/count, inuse_space/bytes, in
 * this order. Values are scaled already. A site with nothing in use is kept: it says who churns.
 * - period_type is space/bytes and the period is R: profiles can be subtracted if these are equal.
 * - Entry 0 of the string table is "". Ids are index + 1: Parca takes them for indices.
 * - A location without a line vanishes from flame graphs: one that has no name gets "[file]". Names
 * in
 *   <> are taken away by pprof, so there are none of our own. For the same reason a site without
 * any frame gets a location "[no stack]".
 * - Mapping 1 is the main executable. The flags has_... keep pprof from looking for symbols again.
 * - Label `bytes` is numeric and the size of one object. pid and comm are strings: those become
 * labels that one can query for. So does kind, which only samples of direct mappings have: "mmap".
 * - Ages are told in comments. A label would split each sample into one for each age, and the two
 *   profiles of -base would have none in common.
 * - A profile of growth has one type, growth_space/bytes, and the label kind on every sample.
 * - Comments that begin with '#' are shown by -comments only, the others atop of every report.
 * - Every string must be valid UTF-8 (protobuf, and Pyroscope insists). Control characters do not
 * belong into names either, and pprof prints what it gets: both become U+FFFD.
 */
#include "output/pprof.h"

#include "output/ages_text.h"
#include "output/alloc_frames.h"
#include "output/frame.h"
#include "profile.pb-c.h"
#include "util/cleanup.h"
#include "util/hash_index.h"
#include "util/units.h"
#include "util/utf8.h"
#include "util/vec.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

typedef Perftools__Profiles__Function pb_function;
typedef Perftools__Profiles__Label pb_label;
typedef Perftools__Profiles__Line pb_line;
typedef Perftools__Profiles__Location pb_location;
typedef Perftools__Profiles__Mapping pb_mapping;
typedef Perftools__Profiles__Profile pb_profile;
typedef Perftools__Profiles__Sample pb_sample;
typedef Perftools__Profiles__ValueType pb_value_type;

/* Sites whose ages are told. */
#define AGED_SITES 20

/*
 * The state of one encoding. The first failure sets `err`; what is made after it is NULL or 0 and
 * never used, so that callers check once per table.
 */
struct encoder {
	const struct profile *profile; /* borrowed */
	pb_profile message;	       /* everything below it is in `blocks` or `strings` */
	struct {
		void **items; /* owned */
		size_t count, capacity;
	} blocks;
	struct {
		char **items; /* owned */
		size_t count, capacity;
	} strings;
	struct hash_index string_index;
	struct {
		int64_t *items;
		size_t count, capacity;
	} comments;
	int err;
};

static void encoder_deinit(struct encoder *e)
{
	vec_for_each(block, &e->blocks)
		free(*block);
	vec_for_each(string, &e->strings)
		free(*string);
	free(e->blocks.items);
	free(e->strings.items);
	free(e->comments.items);
	hash_index_deinit(&e->string_index);
}

static void cleanup_encoder(struct encoder *e)
{
	encoder_deinit(e);
}

/* count zeroed items that live as long as the encoder. NULL, and e->err, where there is no memory.
 */
static void *make(struct encoder *e, size_t count, size_t size)
{
	void *block;

	if (e->err)
		return NULL;
	block = calloc(count ? count : 1, size); /* which checks the product */
	if (!block || vec_push(&e->blocks, block)) {
		free(block);
		e->err = -ENOMEM;
		return NULL;
	}
	return block;
}

/* `count` messages and the array of pointers to them that protobuf-c wants; the messages by *items.
 */
#define make_messages(e, count, items)                                                             \
	({                                                                                         \
		__typeof__(*(items)) messages_ = make(e, count, sizeof(**(items)));                \
		__typeof__(items) pointers_ = make(e, count, sizeof(*pointers_));                  \
		for (size_t i_ = 0; pointers_ && i_ < (count); i_++)                               \
			pointers_[i_] = &messages_[i_];                                            \
		*(items) = messages_;                                                              \
		pointers_;                                                                         \
	})

/* --- strings --- */

/* A copy with U+FFFD for every byte that is no UTF-8 and every character that is not for print. */
static char *clean_copy(const char *string)
{
	static const char replacement[] = "\xef\xbf\xbd";
	size_t length = strlen(string), left;
	uint32_t code;
	char *copy, *to;

	if (length > (SIZE_MAX - 1) / 3)
		return NULL;
	copy = to = malloc(length * 3 + 1);
	if (!copy)
		return NULL;
	while (*string) {
		left = utf8_decode(string, &code);
		if (!left || utf8_is_unsafe(code)) {
			memcpy(to, replacement, 3);
			to += 3;
			string += left ? left : 1;
			continue;
		}
		memcpy(to, string, left);
		to += left;
		string += left;
	}
	*to = '\0';
	return copy;
}

static bool string_equal(const void *owner, uint32_t index, const void *key)
{
	return !strcmp(((const struct encoder *)owner)->strings.items[index], key);
}

/* The string's index in the table. */
static int64_t intern(struct encoder *e, const char *string)
{
	CLEANUP(cleanup_free) char *clean = NULL;
	uint64_t hash;
	uint32_t index;

	if (e->err)
		return 0;
	clean = clean_copy(string ? string : "");
	if (!clean)
		goto no_memory;
	hash = hash_bytes(HASH_START, clean, strlen(clean));
	if (hash_index_find(&e->string_index, hash, string_equal, e, clean, &index))
		return index;
	if (hash_index_reserve(&e->string_index) || vec_push(&e->strings, clean))
		goto no_memory;
	clean = NULL;
	index = (uint32_t)(e->strings.count - 1);
	hash_index_add(&e->string_index, hash, index);
	return index;
no_memory:
	e->err = -ENOMEM;
	return 0;
}

__attribute__((format(printf, 2, 3))) static void comment(struct encoder *e, const char *format,
							  ...)
{
	CLEANUP(cleanup_free) char *text = NULL;
	va_list args;
	int length;

	va_start(args, format);
	length = vasprintf(&text, format, args);
	va_end(args);
	if (length < 0) {
		text = NULL; /* undefined after a failure */
		e->err = -ENOMEM;
		return;
	}
	if (vec_push(&e->comments, intern(e, text)))
		e->err = -ENOMEM;
}

static const char *or_unknown(const char *string)
{
	return string && *string ? string : "unknown";
}

/* --- the tables --- */

static pb_value_type *value_type(struct encoder *e, const char *type, const char *unit)
{
	pb_value_type *made = make(e, 1, sizeof(*made));

	if (!made)
		return NULL;
	perftools__profiles__value_type__init(made);
	made->type = intern(e, type);
	made->unit = intern(e, unit);
	return made;
}

static void encode_window(struct encoder *e)
{
	const struct profile_info *info = &e->profile->info;

	e->message.period = info->period > INT64_MAX ? INT64_MAX : (int64_t)info->period;
	e->message.time_nanos = info->time_nanos;
	e->message.duration_nanos = info->duration_nanos;
}

static void encode_types(struct encoder *e)
{
	pb_profile *message = &e->message;

	message->sample_type = make(e, PROFILE_VALUES, sizeof(*message->sample_type));
	if (!message->sample_type)
		return;
	message->n_sample_type = PROFILE_VALUES;
	message->sample_type[PROFILE_ALLOC_OBJECTS] = value_type(e, "alloc_objects", "count");
	message->sample_type[PROFILE_ALLOC_SPACE] = value_type(e, "alloc_space", "bytes");
	message->sample_type[PROFILE_INUSE_OBJECTS] = value_type(e, "inuse_objects", "count");
	message->sample_type[PROFILE_INUSE_SPACE] = value_type(e, "inuse_space", "bytes");
	message->default_sample_type = intern(e, "inuse_space");
	message->period_type = value_type(e, "space", "bytes");
	encode_window(e);
	message->drop_frames = intern(e, alloc_frames_regex);
}

static void encode_mappings(struct encoder *e)
{
	size_t count = e->profile->mappings.count;
	pb_mapping *items;

	e->message.mapping = make_messages(e, count, &items);
	if (!e->message.mapping)
		return;
	e->message.n_mapping = count;
	for (size_t i = 0; i < count; i++) {
		const struct profile_mapping *from = &e->profile->mappings.items[i];

		perftools__profiles__mapping__init(&items[i]);
		items[i].id = i + 1;
		items[i].memory_start = from->start;
		items[i].memory_limit = from->limit;
		items[i].file_offset = from->offset;
		items[i].filename = intern(e, from->file);
		items[i].build_id = intern(e, from->build_id);
		items[i].has_functions = from->has_functions;
		items[i].has_filenames = from->has_filenames;
		items[i].has_line_numbers = from->has_line_numbers;
		items[i].has_inline_frames = from->has_inline_frames;
	}
}

/* The name that stands in for those of a file without symbols. */
static int64_t intern_stand_in(struct encoder *e, const char *file)
{
	char name[FRAME_STAND_IN_MAX];

	frame_stand_in(file, name);
	return intern(e, name);
}

/*
 * The profile's functions are followed by stand-ins: one for each mapping, one for addresses in no
 * mapping, and one for sites without a stack.
 */
static size_t stand_in(const struct encoder *e, int mapping)
{
	return e->profile->functions.count +
	       (mapping < 0 ? e->profile->mappings.count : (size_t)mapping);
}

static size_t stand_in_no_stack(const struct encoder *e)
{
	return stand_in(e, -1) + 1;
}

static void encode_functions(struct encoder *e)
{
	const struct profile *profile = e->profile;
	size_t count = stand_in_no_stack(e) + 1;
	pb_function *items;

	e->message.function = make_messages(e, count, &items);
	if (!e->message.function)
		return;
	e->message.n_function = count;
	for (size_t i = 0; i < count; i++) {
		perftools__profiles__function__init(&items[i]);
		items[i].id = i + 1;
	}
	for (size_t i = 0; i < profile->functions.count; i++) {
		const struct profile_function *from = &profile->functions.items[i];

		items[i].name = intern(e, *from->name ? from->name : "[unknown]");
		items[i].system_name = intern(e, from->system_name);
		items[i].filename = intern(e, from->file);
		items[i].start_line = from->start_line;
	}
	for (size_t i = 0; i < profile->mappings.count; i++) {
		pb_function *to = &items[stand_in(e, (int)i)];

		to->name = intern_stand_in(e, profile->mappings.items[i].file);
		to->filename = intern(e, profile->mappings.items[i].file);
	}
	items[stand_in(e, -1)].name = intern_stand_in(e, "");
	items[stand_in_no_stack(e)].name = intern(e, "[no stack]");
	for (size_t i = profile->functions.count; i < count; i++)
		items[i].system_name = items[i].name;
}

/* The lines that are known, or else one that names `unnamed`. */
static void encode_lines(struct encoder *e, const struct profile_line *lines, size_t line_count,
			 size_t unnamed, pb_location *to)
{
	size_t count = line_count ? line_count : 1;
	pb_line *items;

	to->line = make_messages(e, count, &items);
	if (!to->line)
		return;
	to->n_line = count;
	for (size_t i = 0; i < count; i++) {
		perftools__profiles__line__init(&items[i]);
		items[i].function_id = (line_count ? lines[i].function : unnamed) + 1;
		items[i].line = line_count ? lines[i].line : 0;
	}
}

/* The profile's locations, and one more for sites without a stack. */
static void encode_locations(struct encoder *e)
{
	size_t count = e->profile->locations.count;
	pb_location *items;

	e->message.location = make_messages(e, count + 1, &items);
	if (!e->message.location)
		return;
	e->message.n_location = count + 1;
	for (size_t i = 0; i < count; i++) {
		const struct profile_location *from = &e->profile->locations.items[i];

		perftools__profiles__location__init(&items[i]);
		items[i].id = i + 1;
		items[i].mapping_id = (uint64_t)(from->mapping + 1);
		items[i].address = from->address;
		encode_lines(e, from->lines, from->line_count, stand_in(e, from->mapping),
			     &items[i]);
	}
	perftools__profiles__location__init(&items[count]);
	items[count].id = count + 1;
	encode_lines(e, NULL, 0, stand_in_no_stack(e), &items[count]);
}

static pb_label *string_label(struct encoder *e, const char *key, const char *value)
{
	pb_label *made = make(e, 1, sizeof(*made));

	if (!made)
		return NULL;
	perftools__profiles__label__init(made);
	made->key = intern(e, key);
	made->str = intern(e, value);
	return made;
}

/* The frames of a site, and room for values and labels. */
static void begin_sample(struct encoder *e, const struct profile_site *site, size_t values,
			 size_t labels, pb_sample *to)
{
	perftools__profiles__sample__init(to);
	to->n_location_id = site->frame_count ? site->frame_count : 1;
	to->location_id = make(e, to->n_location_id, sizeof(*to->location_id));
	to->value = make(e, values, sizeof(*to->value));
	to->label = make(e, labels, sizeof(pb_label *));
	if (!to->label)
		return;
	to->n_value = values;
	to->location_id[0] = e->message.n_location; /* no stack */
	for (size_t i = 0; i < site->frame_count; i++)
		to->location_id[i] = (uint64_t)site->frames[i] + 1;
}

static bool bucket_is_empty(const struct profile_bucket *bucket)
{
	return !bucket->alloc_hits && !bucket->inuse_hits;
}

static void encode_sample(struct encoder *e, const struct profile_bucket *from,
			  pb_label *const *shared, pb_sample *to)
{
	const struct profile_site *site = &e->profile->sites.items[from->site];
	pb_label *bytes = make(e, 1, sizeof(*bytes));

	begin_sample(e, site, PROFILE_VALUES, 4, to);
	if (e->err)
		return;
	perftools__profiles__label__init(bytes);
	bytes->key = intern(e, "bytes");
	bytes->num = from->object_bytes > INT64_MAX ? INT64_MAX : (int64_t)from->object_bytes;
	bytes->num_unit = intern(e, "bytes");
	to->label[to->n_label++] = bytes;
	to->label[to->n_label++] = shared[0];
	to->label[to->n_label++] = shared[1];
	if (site->mapped)
		to->label[to->n_label++] = shared[2];
	memcpy(to->value, from->values, sizeof(from->values));
}

static void encode_samples(struct encoder *e)
{
	size_t count = e->profile->buckets.count, used = 0;
	pb_label *shared[3] = {NULL};
	char pid[16];
	pb_sample *items;

	snprintf(pid, sizeof(pid), "%d", e->profile->info.pid);
	shared[0] = string_label(e, "pid", pid);
	shared[1] = string_label(e, "comm", or_unknown(e->profile->info.comm));
	if (e->profile->info.mmap)
		shared[2] = string_label(e, "kind", "mmap");
	e->message.sample = make_messages(e, count, &items);
	if (!e->message.sample)
		return;
	for (size_t i = 0; i < count && !e->err; i++) {
		if (!bucket_is_empty(&e->profile->buckets.items[i]))
			encode_sample(e, &e->profile->buckets.items[i], shared, &items[used++]);
	}
	e->message.n_sample = used;
}

/* --- comments --- */

static void comment_losses(struct encoder *e)
{
	uint64_t losses = profile_losses(e->profile);

	if (losses)
		comment(e,
			"WARNING: %" PRIu64 " of %" PRIu64 " samples were lost: values are too low",
			losses, e->profile->info.sampled);
	for (size_t i = 0; i < e->profile->warnings.count; i++)
		comment(e, "WARNING: %s", e->profile->warnings.items[i]);
	for (size_t i = 0; i < e->profile->counters.count; i++) {
		const struct profile_counter *counter = &e->profile->counters.items[i];

		comment(e, "# %s%s: %" PRIu64, counter->kind == PROFILE_LOSS ? "lost, " : "",
			counter->name, counter->count);
	}
}

/* One line of its own for each function that is not probed. */
static void comment_probe(struct encoder *e, const struct profile_probe *probe)
{
	comment(e, "# probes in %s: %s", probe->file, probe->functions);
	comment(e, "# found in %s: %s", probe->file, probe->origin);
	for (const char *line = probe->left_out; *line;) {
		size_t length = strcspn(line, "\n");

		comment(e, "# not probed in %s: %.*s", probe->file, (int)length, line);
		line += length + (line[length] == '\n');
	}
}

/* What stands for a site in a comment: the function that allocates. */
static void comment_site_ages(struct encoder *e, const struct profile_site *site)
{
	CLEANUP(cleanup_free) char *words = NULL;
	struct frame_cursor cursor = {.profile = e->profile, .site = site};
	struct frame frame;
	size_t size;
	FILE *to;

	if (!ages_text_any(e->profile, &site->ages) || !frame_find_allocating(&cursor, &frame))
		return;
	to = open_memstream(&words, &size);
	if (to)
		ages_text_site(e->profile, &site->ages, to);
	if (!to || fclose(to))
		e->err = -ENOMEM;
	else
		comment(e, "# ages, %s: %s", frame.name, words);
}

static void comment_ages(struct encoder *e)
{
	const struct profile *profile = e->profile;
	char text[UNITS_TEXT_MAX];

	if (profile->info.window.min_age)
		comment(e,
			"inuse without what was younger than %s at the end: %.0f objects, %.0f "
			"bytes",
			units_format_duration(profile->info.window.min_age, text),
			profile->young.objects.value + profile->mapped_young.objects.value,
			profile->young.space.value + profile->mapped_young.space.value);
	if (!profile->info.aged)
		return;
	comment(e, "# live bytes of all ages: %.0f", ages_bytes(&profile->ages));
	for (unsigned int band = 1; band < AGE_BANDS; band++)
		comment(e, "# live bytes older than %s: %.0f",
			units_format_duration(age_band_from[band], text),
			ages_older(&profile->ages, band));
	for (size_t i = 0; i < profile->sites.count && i < AGED_SITES; i++)
		comment_site_ages(e, &profile->sites.items[i]);
}

static void encode_comments(struct encoder *e)
{
	const struct profile_info *info = &e->profile->info;
	char size[UNITS_TEXT_MAX];

	if (info->period == 1)
		comment(e, "alloctrace %s: pid %d (%s), every allocation",
			or_unknown(info->version), info->pid, or_unknown(info->comm));
	else
		comment(e, "alloctrace %s: pid %d (%s), one sample per %s on average",
			or_unknown(info->version), info->pid, or_unknown(info->comm),
			units_format_size((double)info->period, size));
	if (info->children)
		comment(e, "children: %s", info->children);
	if (info->mmap)
		comment(e,
			"with direct mappings, label kind=mmap: they are address space, and what "
			"of it was touched is resident (-tagignore=mmap leaves them out, "
			"-tagfocus=mmap the heap)");
	comment(e, "# inuse: allocated since attach and not freed");
	comment_ages(e);
	comment(e, "# command line: %s", or_unknown(info->command_line));
	comment(e, "# executable: %s", or_unknown(info->exe));
	comment(e, "# kernel: %s", or_unknown(info->kernel));
	comment(e, "# attached by: %s", or_unknown(info->attach));
	if (info->origin)
		comment(e, "# followed: %s", info->origin);
	comment(e, "# ended: %s", or_unknown(info->end_reason));
	vec_for_each(probe, &e->profile->probes)
		comment_probe(e, probe);
	comment(e, "# calls: %" PRIu64, info->calls);
	comment(e, "# frees: %" PRIu64, info->frees);
	if (info->mmap) {
		comment(e, "# mapping calls: %" PRIu64, info->maps);
		comment(e, "# unmapping calls: %" PRIu64, info->unmaps);
	}
	comment(e, "# sampled: %" PRIu64, info->sampled);
	comment(e, "# recorded: %" PRIu64, info->recorded);
	comment_losses(e);
	e->message.comment = e->comments.items;
	e->message.n_comment = e->comments.count;
}

/* --- bytes --- */

/* Feeds zlib, whose counters are 32 bits wide, piece by piece. */
static int deflate_all(z_stream *stream, const uint8_t *from, size_t size, uint8_t *to, size_t room)
{
	size_t fed = 0, taken = 0;
	int status;

	do {
		size_t in = size - fed < UINT_MAX ? size - fed : UINT_MAX;
		size_t out = room - taken < UINT_MAX ? room - taken : UINT_MAX;

		stream->next_in = (Bytef *)(from + fed);
		stream->avail_in = (uInt)in;
		stream->next_out = to + taken;
		stream->avail_out = (uInt)out;
		status = deflate(stream, fed + in == size ? Z_FINISH : Z_NO_FLUSH);
		fed += in - stream->avail_in;
		taken += out - stream->avail_out;
	} while (status == Z_OK && taken < room);
	return status == Z_STREAM_END ? 0 : -EIO;
}

static int compress_gzip(const uint8_t *from, size_t size, uint8_t **data, size_t *data_size)
{
	CLEANUP(cleanup_free) uint8_t *to = NULL;
	z_stream stream = {0};
	size_t room;
	int err;

	/* 15: the largest window; + 16: with gzip's header, whose time stays 0. */
	if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8,
			 Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	room = deflateBound(&stream, size);
	to = malloc(room);
	err = to ? deflate_all(&stream, from, size, to, room) : -ENOMEM;
	if (!err) {
		*data_size = stream.total_out;
		*data = TAKE(to);
	}
	deflateEnd(&stream);
	return err;
}

/* Everything but types, samples and comments, in the order in which references go. */
static void encode_tables(struct encoder *e)
{
	encode_mappings(e);
	encode_functions(e);
	encode_locations(e);
}

static int finish(struct encoder *e, uint8_t **data, size_t *size)
{
	CLEANUP(cleanup_free) uint8_t *packed = NULL;
	size_t packed_size;

	if (e->err)
		return e->err;
	e->message.string_table = e->strings.items;
	e->message.n_string_table = e->strings.count;
	packed_size = perftools__profiles__profile__get_packed_size(&e->message);
	if (packed_size > INT32_MAX) /* protobuf's own limit, which readers enforce */
		return -EFBIG;
	packed = malloc(packed_size);
	if (!packed)
		return -ENOMEM;
	perftools__profiles__profile__pack(&e->message, packed);
	return compress_gzip(packed, packed_size, data, size);
}

int pprof_encode(const struct profile *profile, uint8_t **data, size_t *size)
{
	CLEANUP(cleanup_encoder)
	struct encoder e = {.profile = profile, .message = PERFTOOLS__PROFILES__PROFILE__INIT};

	intern(&e, "");
	encode_types(&e);
	encode_tables(&e);
	encode_samples(&e);
	encode_comments(&e);
	return finish(&e, data, size);
}

/* --- growth --- */

static void encode_growth_type(struct encoder *e)
{
	pb_profile *message = &e->message;

	message->sample_type = make(e, 1, sizeof(*message->sample_type));
	if (!message->sample_type)
		return;
	message->n_sample_type = 1;
	message->sample_type[0] = value_type(e, "growth_space", "bytes");
	message->default_sample_type = intern(e, "growth_space");
	message->drop_frames = intern(e, alloc_frames_regex);
	message->period_type = value_type(e, "page_faults", "count");
	encode_window(e);
}

static void encode_growths(struct encoder *e)
{
	const struct profile *profile = e->profile;
	pb_label *shared[2], *kinds[PROFILE_KINDS];
	char pid[16];
	pb_sample *items;

	snprintf(pid, sizeof(pid), "%d", profile->info.pid);
	shared[0] = string_label(e, "pid", pid);
	shared[1] = string_label(e, "comm", or_unknown(profile->info.comm));
	for (int kind = 0; kind < PROFILE_KINDS; kind++)
		kinds[kind] = string_label(e, "kind", profile_kind_names[kind]);
	e->message.sample = make_messages(e, profile->growths.count, &items);
	for (size_t i = 0; i < profile->growths.count && !e->err; i++) {
		const struct profile_growth *from = &profile->growths.items[i];
		pb_sample *to = &items[i];

		begin_sample(e, &profile->sites.items[from->site], 1, 3, to);
		if (e->err)
			return;
		to->value[0] = from->value;
		to->label[to->n_label++] = shared[0];
		to->label[to->n_label++] = shared[1];
		to->label[to->n_label++] = kinds[from->kind];
	}
	e->message.n_sample = profile->growths.count;
}

static void encode_growth_comments(struct encoder *e)
{
	const struct profile_info *info = &e->profile->info;

	comment(e,
		"alloctrace %s: pid %d (%s), growth: memory that was touched for the first time in "
		"the window and is there at its end, from sampled page faults",
		or_unknown(info->version), info->pid, or_unknown(info->comm));
	comment(e, "# command line: %s", or_unknown(info->command_line));
	comment(e, "# executable: %s", or_unknown(info->exe));
	comment(e, "# kernel: %s", or_unknown(info->kernel));
	comment(e, "# ended: %s", or_unknown(info->end_reason));
	comment_losses(e);
	e->message.comment = e->comments.items;
	e->message.n_comment = e->comments.count;
}

int pprof_encode_growth(const struct profile *profile, uint8_t **data, size_t *size)
{
	CLEANUP(cleanup_encoder)
	struct encoder e = {.profile = profile, .message = PERFTOOLS__PROFILES__PROFILE__INIT};

	intern(&e, "");
	encode_growth_type(&e);
	encode_tables(&e);
	encode_growths(&e);
	encode_growth_comments(&e);
	return finish(&e, data, size);
}
