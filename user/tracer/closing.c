#include "tracer/closing.h"

#include "util/vec.h"

#include <bpf/libbpf.h>
#include <unistd.h>

void closing_init(struct closing *closing)
{
	*closing = (struct closing){
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.changed = PTHREAD_COND_INITIALIZER,
	};
}

void closing_deinit(struct closing *closing)
{
	closing_finish(closing);
	free(closing->queue.items);
	pthread_cond_destroy(&closing->changed);
	pthread_mutex_destroy(&closing->lock);
}

static void close_link(struct probe_link *link)
{
	if (link->fd >= 0)
		close(link->fd);
	bpf_link__destroy(link->link);
}

/* Closes what is in the queue, and what comes, until the end. */
static void *run(void *argument)
{
	struct closing *closing = argument;

	pthread_mutex_lock(&closing->lock);
	for (;;) {
		struct probe_link link;

		closing->idle++;
		while (!closing->queue.count && !closing->finishing)
			pthread_cond_wait(&closing->changed, &closing->lock);
		closing->idle--;
		if (!closing->queue.count)
			break;
		link = closing->queue.items[--closing->queue.count];
		pthread_mutex_unlock(&closing->lock);
		close_link(&link);
		pthread_mutex_lock(&closing->lock);
	}
	pthread_mutex_unlock(&closing->lock);
	return NULL;
}

void closing_add(struct closing *closing, struct probe_link link)
{
	int err;

	pthread_mutex_lock(&closing->lock);
	err = vec_push(&closing->queue, link);
	/* Without any thread, closing_finish() does it. */
	if (!err && closing->queue.count > closing->idle &&
	    closing->thread_count < CLOSING_THREADS &&
	    !pthread_create(&closing->threads[closing->thread_count], NULL, run, closing))
		closing->thread_count++;
	pthread_cond_signal(&closing->changed);
	pthread_mutex_unlock(&closing->lock);
	if (err)
		close_link(&link);
}

void closing_finish(struct closing *closing)
{
	pthread_mutex_lock(&closing->lock);
	closing->finishing = true;
	pthread_cond_broadcast(&closing->changed);
	pthread_mutex_unlock(&closing->lock);
	run(closing);
	for (size_t i = 0; i < closing->thread_count; i++)
		pthread_join(closing->threads[i], NULL);
	closing->thread_count = 0;
	closing->finishing = false;
}
