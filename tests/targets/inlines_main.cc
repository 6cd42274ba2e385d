#include "inlines.h"

#include <algorithm>
#include <functional>
#include <map>
#include <stdexcept>

namespace shop
{
namespace
{
__attribute__((noinline)) int hidden(int n)
{
	return *make<int>(n) + 1;
}

struct counter {
	int calls = 0;
	void *operator()(int n)
	{
		calls++;
		return take(n);
	}
};
} // namespace

struct till {
	std::map<std::string, double> sold;
	double sum = 0;

	till(const item &first)
	{
		add(first);
	}
	__attribute__((noinline)) void add(const item &one)
	{
		if (one.price < 0)
			throw std::invalid_argument("price of " + one.name);
		sum += sold[one.name] += one.price;
	}
};

static __attribute__((noinline)) double visit(const std::function<double(int)> &with)
{
	double sum = 0;
	for (int i = 0; i < 3; i++)
		sum += with(i);
	return sum;
}

void *unused(int n)
{
	return make<double>(n);
}
} // namespace shop

static int recursive(int n)
{
	if (n < 2)
		return *shop::make<char>(n);
	return recursive(n - 1) + recursive(n - 2);
}

int main(int argc, char **argv)
{
	using namespace shop;
	struct local {
		static void *grab(int n)
		{
			return take(n);
		}
		double half(int n) const
		{
			return count({{std::to_string(n), n / 2.0}});
		}
	};
	std::vector<item> items;
	counter counts;

	for (int i = 0; i < argc + 3; i++)
		items.push_back({std::string(argv[0]) + std::to_string(i), i * 1.5});
	std::sort(items.begin(), items.end(), [](const item &a, const item &b) {
		return a.price > b.price || a.name < b.name;
	});
	till till(items.front());
	try {
		for (auto &i : items)
			till.add(i);
		check(argc);
	} catch (const std::exception &e) {
		till.sum = count({{e.what(), 1}});
	}
	double sum = visit([&](int n) { return n + stock(n)->weigh(n) + till.sum; });
	sum += local().half(argc) + hidden(argc) + recursive(argc) + shop_c_entry(argc);
	return sum > 1000 || !local::grab(argc) || !counts(argc) || !nest<4>::dig(argc) ||
	       same_one(argc) == same_two(argc);
}
