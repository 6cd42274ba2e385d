/*
 * server [THREADS]: what the demo traces. A web server without a web: its workers parse requests,
 * render pages and write a log all day; sessions go into a cache that nobody ever empties.
 *
 * Prints its pid and runs until SIGTERM or SIGINT.
 */
#include "target.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <time.h>

#define MAX_THREADS	32
#define HEADERS		12
#define LOG_LIMIT	(512 << 10)
#define ACCEPT_NANOS	1000000 /* between two requests of a worker */
#define SESSION_BYTES	4096
#define SESSION_BUCKETS 4096

struct header {
	char *name, *value;
};

struct session {
	struct session *next; /* in the bucket */
	uint64_t id;
	char *user;
	char *state;
};

struct request {
	uint64_t id;
	struct header headers[HEADERS];
	char *body;
};

struct worker {
	pthread_t thread;
	uint64_t random;
	char *log;
	size_t log_used, log_size;
};

static struct worker workers[MAX_THREADS];
static struct session *sessions[SESSION_BUCKETS];
static pthread_mutex_t sessions_lock = PTHREAD_MUTEX_INITIALIZER;
static volatile sig_atomic_t stop;

static uint64_t draw(struct worker *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

static void *must(void *block)
{
	if (!block)
		target_die("out of memory\n");
	return block;
}

NAMED_SITE static char *copy_text(const char *text, size_t padded_to)
{
	char *copy = must(calloc(1, padded_to));

	strncpy(copy, text, padded_to - 1);
	return copy;
}

NAMED_SITE static void parse_headers(struct worker *w, struct request *r)
{
	for (int i = 0; i < HEADERS; i++) {
		r->headers[i].name = copy_text("X-Header", 16 + draw(w) % 16);
		r->headers[i].value = copy_text("value", 32 + draw(w) % 200);
	}
}

NAMED_SITE static void read_body(struct worker *w, struct request *r)
{
	size_t size = 1024 + draw(w) % (16 << 10);

	r->body = must(malloc(size));
	memset(r->body, 'b', size);
}

/* The leak: sessions are found again, but nothing ever takes one out. */
NAMED_SITE static void session_cache_insert(struct worker *w, const struct request *r)
{
	struct session *session = must(malloc(sizeof(*session)));
	struct session **bucket = &sessions[r->id % SESSION_BUCKETS];

	session->id = r->id;
	session->user = copy_text("somebody", 48);
	session->state = must(malloc(SESSION_BYTES));
	memset(session->state, (int)draw(w), SESSION_BYTES);
	pthread_mutex_lock(&sessions_lock);
	session->next = *bucket;
	*bucket = session;
	pthread_mutex_unlock(&sessions_lock);
}

NAMED_SITE static char *render_partial(struct worker *w, size_t *size)
{
	char *html;

	*size = 512 + draw(w) % 2048;
	html = must(malloc(*size));
	memset(html, '<', *size);
	return html;
}

NAMED_SITE static char *render_template(struct worker *w)
{
	char *page = NULL;
	size_t used = 0;

	for (int i = 0; i < 8; i++) {
		size_t size;
		char *part = render_partial(w, &size);

		page = must(realloc(page, used + size));
		memcpy(page + used, part, size);
		used += size;
		free(part);
	}
	return page;
}

NAMED_SITE static void log_append(struct worker *w, uint64_t id)
{
	char line[128];
	size_t length =
		(size_t)snprintf(line, sizeof(line), "request %llu done\n", (unsigned long long)id);

	if (w->log_used + length > w->log_size) {
		w->log_size = w->log_size ? w->log_size * 2 : 1024;
		w->log = must(realloc(w->log, w->log_size));
	}
	memcpy(w->log + w->log_used, line, length);
	w->log_used += length;
	if (w->log_used > LOG_LIMIT) { /* rotated */
		free(w->log);
		w->log = NULL;
		w->log_used = w->log_size = 0;
	}
}

NAMED_SITE static void free_request(struct request *r)
{
	for (int i = 0; i < HEADERS; i++) {
		free(r->headers[i].name);
		free(r->headers[i].value);
	}
	free(r->body);
}

NAMED_SITE static void handle_request(struct worker *w)
{
	struct request r = {.id = draw(w)};
	char *page;

	parse_headers(w, &r);
	read_body(w, &r);
	if (r.id % 4 == 0)
		session_cache_insert(w, &r);
	page = render_template(w);
	log_append(w, r.id);
	free(page);
	free_request(&r);
}

NAMED_SITE static void *worker_main(void *argument)
{
	struct worker *w = argument;
	struct timespec pause = {.tv_nsec = ACCEPT_NANOS};

	while (!stop) {
		handle_request(w);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static void on_stop(int signal)
{
	(void)signal;
	stop = 1;
}

int main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 4;

	if (threads < 1 || threads > MAX_THREADS)
		target_die("1 to %d threads\n", MAX_THREADS);
	signal(SIGTERM, on_stop);
	signal(SIGINT, on_stop);
	for (int i = 0; i < threads; i++) {
		workers[i].random = 88172645463325252u + (uint64_t)i * 7919;
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]))
			target_die("no thread\n");
	}
	target_say("%d\n", (int)getpid());
	for (int i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	return 0;
}
