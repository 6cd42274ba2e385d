/*
 * The ledger of a program whose operators new fail: an exception leaves one call, or each of four, of
 * which the inner ones are made by the new_handler of the one around them. That allocates besides,
 * before it throws and while what it threw is on its way.
 *
 * A round of a thread has 8 calls that allocate nothing. The memory of the exceptions themselves is
 * not in the books: it is allocated below the "fail" functions, and freed again.
 */
#include "ledger.h"

#include <new>

#define EXACT_SITES(X)                                                                             \
	X(calm, operator new(q->size), operator delete(block))                                     \
	X(calm_array, operator new[](q->size), operator delete[](block))                           \
	X(inner_malloc, malloc(q->size), free(block))                                              \
	X(inner_new, operator new(q->size), operator delete(block))                                \
	X(cleanup, operator new(q->size), operator delete(block))

EXACT_SITES(LEDGER_DEFINE_SITE)

namespace
{

enum { EXACT_SITES(LEDGER_SITE_ID) SITES };

const ledger_site sites[SITES] = {EXACT_SITES(LEDGER_SITE_ROW)};

const std::align_val_t ALIGNED{64};
const int NESTED = 3; /* calls within the outermost one */
const int FAR = 8;    /* NESTED_FRAMES_MAX */

thread_local ledger_worker *worker;
thread_local int depth, deepest;

/*
 * Calls from so far away that it is a call of its own to the tracer: who called the new_handler is
 * not among the innermost callers any more, where calls by the allocator itself are looked for.
 */
NAMED_SITE void from_afar(int frames, void (*call)(int site), int site)
{
	if (frames)
		from_afar(frames - 1, call, site);
	else
		call(site);
}

void allocate(int site)
{
	ledger_request q = {};

	q.size = 1 + ledger_draw(worker) % 500;
	ledger_plain(worker, &sites[site], &q, q.size);
}

/* Allocates while an exception is on its way. */
struct guard {
	~guard()
	{
		from_afar(FAR, allocate, SITE_cleanup);
	}
};

} // namespace

/* Two functions each: operator new hides its caller from a walk by frame pointers. */
#define DEFINE_FAILING(name, call)                                                                 \
	extern "C" NAMED_SITE void *site_##name()                                                  \
	{                                                                                          \
		return call;                                                                       \
	}                                                                                          \
	extern "C" NAMED_SITE void *path_##name()                                                  \
	{                                                                                          \
		return site_##name();                                                              \
	}

DEFINE_FAILING(fail_new, operator new(LEDGER_TOO_LARGE))
DEFINE_FAILING(fail_new_array, operator new[](LEDGER_TOO_LARGE))
DEFINE_FAILING(fail_new_aligned, operator new(LEDGER_TOO_LARGE, ALIGNED))
DEFINE_FAILING(fail_new_nothrow, operator new(LEDGER_TOO_LARGE, std::nothrow))

namespace
{

void fail(int)
{
	path_fail_new();
}

/* The new_handler. */
void on_failure()
{
	guard allocates_at_the_end;

	from_afar(FAR, allocate, SITE_inner_malloc);
	from_afar(FAR, allocate, SITE_inner_new);
	if (depth == deepest)
		throw std::bad_alloc();
	depth++;
	try {
		from_afar(FAR, fail, 0);
	} catch (const std::bad_alloc &) {
		depth--;
		if (depth % 2)
			throw;
	}
	throw std::bad_alloc();
}

void must_throw(void *(*call)(), int nested)
{
	depth = 0;
	deepest = nested;
	try {
		call();
	} catch (const std::bad_alloc &) {
		if (depth)
			target_die("at depth %d\n", depth);
		return;
	}
	target_die("no exception\n");
}

} // namespace

/* No exception leaves this one: who traces its returns is to see them all. */
extern "C" NAMED_SITE void watched_round(ledger_worker *w)
{
	worker = w;
	allocate(SITE_calm);
	must_throw(path_fail_new, 0);
	must_throw(path_fail_new_array, 0);
	allocate(SITE_calm_array);
	must_throw(path_fail_new_aligned, 0);
	must_throw(path_fail_new, NESTED);
	allocate(SITE_calm);
	/* Caught by operator new itself. */
	depth = deepest = 0;
	if (path_fail_new_nothrow())
		target_die("operator new succeeded\n");
}

namespace
{

const ledger_group throws = {sites, SITES, nullptr, watched_round};

} // namespace

int main(int argc, char **argv)
{
	std::set_new_handler(on_failure);
	ledger_add(&throws);
	return ledger_main(argc, argv);
}
