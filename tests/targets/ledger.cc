/*
 * The ledger that most tests use: C, and every operator new and delete of C++.
 *
 * Where libstdc++ stands between, it asks the allocator for other sizes than it was asked for: for
 * one byte instead of none, and for whole multiples of the alignment. An allocator that has the
 * operators itself gets the sizes as they are. Here are sizes that are the same for both.
 */
#include "ledger.h"

#include <new>

namespace
{

const std::align_val_t ALIGNED{64};

struct plain_class {
	char content[72];
};

struct alignas(128) aligned_class {
	char content[256];
};

} // namespace

#define EXACT_SITES(X)                                                                             \
	X(new, operator new(q->size), operator delete(block))                                      \
	X(new_sized, operator new(q->size), operator delete(block, size))                          \
	X(new_nothrow, operator new(q->size, std::nothrow), operator delete(block))                \
	X(new_nothrow_both, operator new(q->size, std::nothrow),                                   \
			    operator delete(block, std::nothrow))                                  \
	X(new_large, operator new(q->size), operator delete(block, size))                          \
	X(new_array, operator new[](q->size), operator delete[](block))                            \
	X(new_array_sized, operator new[](q->size), operator delete[](block, size))                \
	X(new_array_nothrow, operator new[](q->size, std::nothrow),                                \
			     operator delete[](block, std::nothrow))                               \
	X(new_aligned, operator new(q->size, ALIGNED), operator delete(block, ALIGNED))            \
	X(new_aligned_sized, operator new(q->size, ALIGNED),                                       \
			     operator delete(block, size, ALIGNED))                                \
	X(new_aligned_nothrow, operator new(q->size, ALIGNED, std::nothrow),                       \
			       operator delete(block, ALIGNED, std::nothrow))                      \
	X(new_aligned_array, operator new[](q->size, ALIGNED), operator delete[](block, ALIGNED))  \
	X(new_aligned_array_sized, operator new[](q->size, ALIGNED),                               \
				   operator delete[](block, size, ALIGNED))                        \
	X(new_aligned_array_nothrow, operator new[](q->size, ALIGNED, std::nothrow),               \
				     operator delete[](block, ALIGNED, std::nothrow))              \
	X(new_class, new plain_class, delete static_cast<plain_class *>(block))                    \
	X(new_class_aligned, new aligned_class, delete static_cast<aligned_class *>(block))        \
	X(new_class_array, new plain_class[3], delete[] static_cast<plain_class *>(block))

#define BULK_SITES(X)                                                                              \
	X(bulk_64, operator new(q->size), operator delete(block), 64, 4096)                        \
	X(bulk_1k, operator new[](q->size), operator delete[](block), 1024, 1024)                  \
	X(bulk_96k, operator new(q->size), operator delete(block, size), 98304, 10)

EXACT_SITES(LEDGER_DEFINE_SITE)
BULK_SITES(LEDGER_DEFINE_SITE)

namespace
{

enum { EXACT_SITES(LEDGER_SITE_ID) BULK_SITES(LEDGER_SITE_ID) SITES };

const ledger_site sites[SITES] = {EXACT_SITES(LEDGER_SITE_ROW) BULK_SITES(LEDGER_BULK_ROW)};

#define S(name) (&sites[SITE_##name])

void cxx_round(ledger_worker *w)
{
	size_t size = 1 + ledger_draw(w) % 2000;
	ledger_request q = {};

	q.size = size;
	ledger_plain(w, S(new), &q, size);
	ledger_plain(w, S(new_sized), &q, size);
	ledger_plain(w, S(new_nothrow), &q, size);
	ledger_plain(w, S(new_nothrow_both), &q, size);
	ledger_plain(w, S(new_array), &q, size);
	ledger_plain(w, S(new_array_sized), &q, size);
	ledger_plain(w, S(new_array_nothrow), &q, size);

	q.size = (size + 63) & ~63ul;
	ledger_plain(w, S(new_aligned), &q, q.size);
	ledger_plain(w, S(new_aligned_sized), &q, q.size);
	ledger_plain(w, S(new_aligned_nothrow), &q, q.size);
	ledger_plain(w, S(new_aligned_array), &q, q.size);
	ledger_plain(w, S(new_aligned_array_sized), &q, q.size);
	ledger_plain(w, S(new_aligned_array_nothrow), &q, q.size);

	ledger_plain(w, S(new_class), &q, sizeof(plain_class));
	ledger_plain(w, S(new_class_aligned), &q, sizeof(aligned_class));
	ledger_plain(w, S(new_class_array), &q, 3 * sizeof(plain_class));

	q.size = ledger_draw_large(w);
	ledger_plain(w, S(new_large), &q, q.size);
}

const ledger_group cxx = {sites, SITES, nullptr, cxx_round};

} // namespace

int main(int argc, char **argv)
{
	ledger_add(&ledger_c);
	ledger_add(&cxx);
	return ledger_main(argc, argv);
}
