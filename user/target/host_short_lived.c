#include "target/host_short_lived.h"

#include "util/vec.h"

#include <string.h>
#include <unistd.h>

struct names {
	const char *parent, *comm;
};

static bool has_names(const void *owner, uint32_t index, const void *key)
{
	const struct host *host = owner;
	const struct host_short_lived *item = &host->short_lived.items[index];
	const struct names *names = key;

	return strcmp(item->parent, names->parent) == 0 && strcmp(item->comm, names->comm) == 0;
}

static int count_names(struct host *host, const struct names *names)
{
	uint64_t hash = hash_bytes(HASH_START, names->parent, strlen(names->parent) + 1);
	struct host_short_lived item = {.count = 1};
	uint32_t index;
	int err;

	hash = hash_bytes(hash, names->comm, strlen(names->comm));
	if (hash_index_find(&host->by_names, hash, has_names, host, names, &index)) {
		host->short_lived.items[index].count++;
		return 0;
	}
	if (host->short_lived.count == HOST_SHORT_MAX) {
		host->short_lived_unnamed++;
		return 0;
	}
	memcpy(item.parent, names->parent, strlen(names->parent));
	memcpy(item.comm, names->comm, strlen(names->comm));
	err = hash_index_reserve(&host->by_names);
	if (!err)
		err = vec_push(&host->short_lived, item);
	if (!err)
		hash_index_add(&host->by_names, hash, (uint32_t)(host->short_lived.count - 1));
	return err;
}

/* An exec alone may be the late news of one that has ended before: it is no proof of another. */
int host_count_short_lived(struct host *host, const struct host_process *process)
{
	struct names names = {process->parent_comm, process->comm};

	if (!process->forked_at || !process->in_scope ||
	    !host_filter_takes_comm(&host->filter, process->comm) ||
	    (host->ignores_own && process->parent == getpid()))
		return 0;
	host->short_lived_total++;
	return count_names(host, &names);
}
