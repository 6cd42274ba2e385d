/*
 * A lot of code and debug information from little source, for the symbolizer: containers of COUNT
 * types, and what is done with them. All of it is local to the file but inlines_many(), so that the
 * object can be linked more than once when that is made local, too. MAIN: the main function instead.
 */
#ifdef MAIN

int main()
{
	return 0;
}

#else

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace depot
{
namespace
{
template <int N> struct crate {
	std::string label;
	std::optional<double> weight;
	int count = N;

	bool operator<(const crate &other) const
	{
		return label < other.label;
	}
};

template <int N> struct shelf {
	std::map<std::string, std::vector<crate<N>>> by_label;
	std::unordered_map<int, std::shared_ptr<crate<N>>> by_number;
	std::set<crate<N>> sorted;

	void put(crate<N> c)
	{
		by_label[c.label].push_back(c);
		by_number[c.count] = std::make_shared<crate<N>>(c);
		sorted.insert(std::move(c));
	}

	template <typename F> void each(F f)
	{
		for (auto &[label, crates] : by_label)
			for (auto &c : crates)
				f(c);
	}

	double total()
	{
		double sum = 0;
		each([&](crate<N> &c) { sum += c.weight.value_or(N); });
		return sum;
	}

	std::vector<crate<N>> heaviest(size_t n)
	{
		std::vector<crate<N>> all;
		each([&](crate<N> &c) { all.push_back(c); });
		std::stable_sort(all.begin(), all.end(), [](auto &a, auto &b) {
			return a.weight.value_or(0) > b.weight.value_or(0);
		});
		if (all.size() > n)
			all.erase(all.begin() + n, all.end());
		return all;
	}
};

template <int N> using thing = std::variant<crate<N>, std::string, std::tuple<int, crate<N>>>;

template <int N> struct weigher {
	double operator()(const crate<N> &c) const
	{
		return c.weight.value_or(N);
	}
	double operator()(const std::string &s) const
	{
		return s.size();
	}
	double operator()(const std::tuple<int, crate<N>> &t) const
	{
		return std::get<0>(t) * (*this)(std::get<1>(t));
	}
};

template <int N> __attribute__((noinline)) double one(int n)
{
	shelf<N> s;
	std::vector<thing<N>> things;
	std::function<double(thing<N> &)> weigh = [&](thing<N> &t) {
		return std::visit(weigher<N>{}, t);
	};
	double sum = 0;

	for (int i = 0; i < n; i++)
		s.put({std::to_string(i), i * 1.5});
	for (auto &c : s.heaviest(3)) {
		things.emplace_back(c);
		things.emplace_back(c.label);
		things.emplace_back(std::tuple<int, crate<N>>(n, c));
	}
	for (auto &t : things)
		sum += weigh(t);
	return sum + s.total();
}

template <int... N> double all(int n, std::integer_sequence<int, N...>)
{
	return (one<N>(n) + ...);
}
} // namespace
} // namespace depot

extern "C" double inlines_many(int n)
{
	return depot::all(n, std::make_integer_sequence<int, COUNT>());
}

#endif
