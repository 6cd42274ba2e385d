#include "output/sweep_json.h"

const char *sweep_verdict_name(enum verdict_kind kind)
{
	static const char *const names[] = {
		[VERDICT_TOO_SHORT] = "too short", [VERDICT_FLAT] = "flat",
		[VERDICT_STEADY] = "steady",	   [VERDICT_STEP] = "step",
		[VERDICT_SAWTOOTH] = "sawtooth",   [VERDICT_UNEVEN] = "uneven",
		[VERDICT_SHRANK] = "shrank",
	};

	return names[kind];
}

/* What is plain already: the names in it are escaped. */
static json_t *plain_text(const char *string)
{
	return string ? json_string(string) : json_null();
}

static json_t *integer_if(bool known, int64_t value)
{
	return known ? json_integer(value) : json_null();
}

static json_t *real_if(bool known, double value)
{
	return known ? json_real(value) : json_null();
}

static json_t *site(const struct sweep_site *from)
{
	if (!from->function)
		return json_null();
	return json_pack("{s:o, s:o, s:o, s:f, s:o}", "function", sweep_json_text(from->function),
			 "file", sweep_json_text(from->file ? from->file : ""), "line",
			 json_integer(from->line), "share", from->share, "callers",
			 plain_text(from->callers));
}

/* An object, or null. */
static json_t *ages(const struct sweep_ages *from)
{
	if (!from->known)
		return json_null();
	return json_pack("{s:f, s:f, s:f, s:f}", "older_than_1s", from->older[1], "older_than_10s",
			 from->older[2], "older_than_1min", from->older[3], "older_than_10min",
			 from->older[4]);
}

/* Was nothing freed of what was allocated in the first third of the window? */
static json_t *keeps(enum ages_fate fate)
{
	return fate == AGES_UNKNOWN ? json_null() : json_boolean(fate == AGES_KEPT);
}

static json_t *site_ages(const struct sweep_ages *from)
{
	json_t *object = ages(from), *freed;

	if (!from->known || !object)
		return object;
	freed = json_pack("{s:I, s:o, s:o, s:o, s:o}", "freed_samples", (json_int_t)from->freed,
			  "median_lifetime_seconds", real_if(from->freed_known, from->median / 1e9),
			  "mean_lifetime_seconds", real_if(from->freed_known, from->mean / 1e9),
			  "keeps", keeps(from->fate), "text", plain_text(from->text));
	if (freed && !json_object_update(object, freed)) {
		json_decref(freed);
		return object;
	}
	json_decref(freed);
	json_decref(object);
	return NULL;
}

static json_t *top_site(const struct sweep_row *row)
{
	json_t *object = site(&row->site);

	if (!row->site.function || !object)
		return object;
	if (!json_object_set_new(object, "ages", site_ages(&row->site_ages)))
		return object;
	json_decref(object);
	return NULL;
}

static json_t *live(const struct sweep_row *row)
{
	if (!row->zoomed)
		return json_null();
	return json_pack("{s:f, s:f, s:f}", "value", row->live, "low", row->live_low, "high",
			 row->live_high);
}

static json_t *figure(const struct ledger_figure *from)
{
	return json_pack("{s:I, s:I, s:I}", "value", (json_int_t)from->value, "low",
			 (json_int_t)from->low, "high", (json_int_t)from->high);
}

static json_t *ledger(const struct sweep_row *row)
{
	const struct ledger *from = &row->ledger;

	if (!row->account)
		return json_null();
	return json_pack("{s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I}", "rss_start",
			 (json_int_t)from->rss_start, "rss_end", (json_int_t)from->rss_end, "live",
			 figure(&from->live), "direct_mappings",
			 from->direct_known ? figure(&from->direct) : json_null(), "stacks",
			 (json_int_t)from->stacks, "file", (json_int_t)from->file, "shmem",
			 (json_int_t)from->shmem, "swapped_out", (json_int_t)from->swapped_out,
			 "not_explained", (json_int_t)from->not_explained, "direct_mappings_lost",
			 (json_int_t)from->direct_lost);
}

static json_t *verdict(const struct sweep_row *row)
{
	return json_pack("{s:s, s:i, s:i, s:f, s:o}", "kind", sweep_verdict_name(row->verdict.kind),
			 "parts", (int)row->verdict.parts, "grown", (int)row->verdict.grown,
			 "per_second", row->verdict.per_second, "text",
			 plain_text(row->verdict_text));
}

/* How its anonymous memory went: what the parts are told by that the verdict counts. */
static json_t *series(const struct sweep_row *row)
{
	const struct reading *ends = row->ends;
	json_t *seconds, *bytes;
	int failed = 0;

	if (!row->verdict.parts || row->verdict.kind == VERDICT_FLAT)
		return json_null();
	seconds = json_array();
	bytes = json_array();
	for (unsigned int i = 1; i <= row->verdict.parts; i++) {
		double length = (double)(ends[i].time - ends[i - 1].time) / 1e9;

		failed |= json_array_append_new(seconds, json_real(length));
		failed |= json_array_append_new(bytes, json_integer((int64_t)ends[i].bytes));
	}
	if (!failed)
		return json_pack("{s:f, s:I, s:o, s:o}", "start_seconds",
				 (double)ends[0].time / 1e9, "start_bytes",
				 (json_int_t)ends[0].bytes, "parts_seconds", seconds, "parts_bytes",
				 bytes);
	json_decref(seconds);
	json_decref(bytes);
	return NULL;
}

struct member {
	const char *name;
	json_t *value; /* given away; NULL: no memory */
};

/* Not 0: no memory. */
static int add_members(json_t *object, const struct member *members, size_t count)
{
	int failed = 0;

	for (size_t i = 0; i < count; i++)
		failed |= json_object_set_new(object, members[i].name, members[i].value);
	return failed;
}

static int add_identity(json_t *object, const struct sweep_row *row)
{
	const struct member members[] = {
		{"pid", json_integer(row->pid)},
		{"comm", sweep_json_text(row->comm)},
		{"uid", json_integer(row->uid)},
		{"cgroup", sweep_json_text(row->cgroup)},
		{"container", sweep_json_text(row->container)},
		{"ended", json_boolean(row->ended)},
		{"reason", sweep_json_text(row->reason)},
	};

	return add_members(object, members, sizeof(members) / sizeof(*members));
}

static int add_memory(json_t *object, const struct sweep_row *row)
{
	const struct member members[] = {
		{"rss_start", json_integer((int64_t)row->rss_start)},
		{"rss_end", json_integer((int64_t)row->rss_end)},
		{"growth", json_integer((int64_t)row->rss_end - (int64_t)row->rss_start)},
		{"anon_growth", json_integer(row->anon_growth)},
		{"shared_growth", json_integer(row->shared_growth)},
		{"file_growth", integer_if(row->kinds_known, row->file_growth)},
		{"shmem_growth", integer_if(row->kinds_known, row->shmem_growth)},
		{"pss", integer_if(row->share_known, (int64_t)row->pss)},
		{"swap_pss", integer_if(row->share_known, (int64_t)row->swap_pss)},
		{"verdict", verdict(row)},
		{"series", series(row)},
	};

	return add_members(object, members, sizeof(members) / sizeof(*members));
}

/* Of its heap, from when probes were placed. */
static int add_heap(json_t *object, const struct sweep_row *row)
{
	const struct member members[] = {
		{"zoomed", json_boolean(row->zoomed)},
		{"zoomed_after_seconds", real_if(row->zoomed, (double)row->zoomed_after / 1e9)},
		{"live_bytes", live(row)},
		{"alloc_bytes_per_second", real_if(row->zoomed, row->alloc_per_second)},
		{"account", plain_text(row->account)},
		{"ledger", ledger(row)},
		{"ages", ages(&row->ages)},
		{"top_site", top_site(row)},
		{"profile", sweep_json_text(row->profile)},
		{"samples", integer_if(row->profile != NULL, (int64_t)row->sampled)},
		{"lost_samples", integer_if(row->profile != NULL, (int64_t)row->lost)},
		{"losses", plain_text(row->losses)},
	};

	return add_members(object, members, sizeof(members) / sizeof(*members));
}

/* Of its new pages. */
static int add_growth(json_t *object, const struct sweep_row *row)
{
	const struct member members[] = {
		{"growth_site", site(&row->growth_site)},
		{"growth_profile", sweep_json_text(row->growth_profile)},
	};

	return add_members(object, members, sizeof(members) / sizeof(*members));
}

json_t *sweep_json_process(const struct sweep_row *row)
{
	json_t *object = json_object();
	int failed = !object;

	failed |= add_identity(object, row);
	failed |= add_memory(object, row);
	failed |= add_heap(object, row);
	failed |= add_growth(object, row);
	if (!failed)
		return object;
	json_decref(object);
	return NULL;
}
