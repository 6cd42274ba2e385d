#include "inlines.h"

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace shop
{
class box : public ware
{
	std::vector<int> inside;

      public:
	box(int n) : inside(n)
	{
	}
	double weigh(int n) const override
	{
		return inside.size() * n + *make<short>(n);
	}
};

class bag : public ware
{
	double weigh(int n) const override
	{
		auto more = [n](int k) { return *make<long>(n + k); };
		return more(1) + more(2);
	}
};

double count(const std::vector<item> &items)
{
	double sum = 0;
	for (auto &i : items)
		sum += i.price + *make<char>(i.name.size());
	return sum;
}

std::unique_ptr<ware> stock(int kind)
{
	if (kind == 1)
		return std::make_unique<bag>();
	return std::make_unique<box>(kind + 1);
}

void *nest<0>::dig(int n)
{
	return take(n);
}

__attribute__((noinline, cold)) static void give_up(int n)
{
	std::fprintf(stderr, "no more than %d\n", n);
	std::abort();
}

void check(int n)
{
	if (n > 100) {
		give_up(n);
		give_up(*make<int>(n));
	}
	if (n > 10)
		throw std::runtime_error(std::to_string(n));
}

__attribute__((noinline)) int same_one(int n)
{
	return *make<int>(n * 3) - 7;
}

__attribute__((noinline)) int same_two(int n)
{
	return *make<int>(n * 3) - 7;
}
} // namespace shop
