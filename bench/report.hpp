#pragma once
// What a load run says: to a person at a terminal, as JSON, and several runs side by side as Markdown and SVG.

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "bench/load.hpp"

namespace ganglion::bench {

// How the run was made, beside its options.
struct RunFacts {
  std::string name;
  double cpu_us_per_request = -1;  // of the process that was watched; negative: none was
};

// Quantiles and a bar chart of the latencies, for a terminal.
std::string to_text(const LoadOptions& options, const LoadResult& result, const RunFacts& facts);

// One object. Times are microseconds; "distribution" lists [quantile, microseconds].
std::string to_json(const LoadOptions& options, const LoadResult& result, const RunFacts& facts);

struct Report {
  std::string markdown;
  std::string svg;
};

// `runs`: texts that to_json() made, in the order of the table. `baseline`: the name of the run whose times are taken
// off the others'; empty: the first. `picture`: what the Markdown calls the SVG; empty: nothing. An error says which
// run is not one, or that no run has the baseline's name.
std::expected<Report, std::string> make_report(const std::vector<std::string>& runs, std::string_view baseline,
                                               std::string_view picture);

}  // namespace ganglion::bench
