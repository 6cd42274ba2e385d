#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

extern "C" void *shop_take(size_t n);
extern "C" int shop_c_entry(int n);

namespace shop
{
struct item {
	std::string name;
	double price;
};

class ware
{
      public:
	virtual ~ware() = default;
	virtual double weigh(int n) const = 0;
};

/* Inlined into both units, three levels deep. */
static inline __attribute__((always_inline)) void *take(size_t n)
{
	return shop_take(n + 1);
}

template <typename T> inline __attribute__((always_inline)) T *make(size_t n)
{
	return static_cast<T *>(take(n * sizeof(T)));
}

template <int N> struct nest {
	static inline __attribute__((always_inline)) void *dig(int n)
	{
		return n ? nest<N - 1>::dig(n - 1) : take(N);
	}
};

template <> struct nest<0> {
	static void *dig(int n);
};

double count(const std::vector<item> &items);
std::unique_ptr<ware> stock(int kind);
void check(int n);
int same_one(int n);
int same_two(int n);
} // namespace shop
