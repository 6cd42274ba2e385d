/* What the compile of the benchmark compiles: much of the standard library, and some use of it. */
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

struct shape {
	virtual ~shape() = default;
	virtual double area() const = 0;
};

struct box : shape {
	box(double w, double h) : width(w), height(h)
	{
	}
	double area() const override
	{
		return width * height;
	}
	double width, height;
};

struct disc : shape {
	explicit disc(double r) : radius(r)
	{
	}
	double area() const override
	{
		return 3.14159 * radius * radius;
	}
	double radius;
};

template <typename Map> static std::string join(const Map &map)
{
	std::ostringstream out;

	for (const auto &[key, value] : map)
		out << key << '=' << value << ' ';
	return out.str();
}

int main()
{
	std::vector<std::unique_ptr<shape>> shapes;
	std::unordered_map<std::string, std::function<double(double)>> functions;
	std::map<std::string, double> totals;
	std::vector<int> numbers(100);

	shapes.push_back(std::make_unique<box>(2, 3));
	shapes.push_back(std::make_unique<disc>(1));
	functions["double"] = [](double x) { return 2 * x; };
	functions["square"] = [](double x) { return x * x; };
	std::iota(numbers.begin(), numbers.end(), 0);
	std::sort(numbers.begin(), numbers.end(), std::greater<int>());
	for (const auto &item : shapes)
		for (const auto &[name, function] : functions)
			totals[name] += function(item->area());
	totals["numbers"] = std::accumulate(numbers.begin(), numbers.end(), 0.0);
	std::cout << join(totals) << std::endl;
	return 0;
}
