// The catalog written out: docs/metrics.md for people, JSON for the tools that check dashboards and rules.

#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "metrics/catalog.hpp"

namespace ganglion::metrics {
namespace {

constexpr std::string_view kHead = R"(# Metrics

<!-- Generated from metrics/catalog.cpp; edit the catalog, then run the metrics tests with GANGLION_UPDATE_DOCS=1. -->

`GET /metrics` on the admin listener answers in Prometheus text format 0.0.4. Times are in seconds, sizes in bytes.
`model` and `tenant` keep at most `metrics.max_label_values` values; later ones are counted under `other`, and a
request without one under `unknown`. A series appears with its first event. Histograms also have `_bucket`, `_sum`
and `_count` series.

)";

void append_item(std::string& list, std::string_view item, std::string_view quote = "`") {
  if (!list.empty()) list += ", ";
  list.append(quote).append(item).append(quote);
}

std::string label_list(const FamilySpec& s) {
  std::string out;
  for (const std::string_view label : s.labels.view()) append_item(out, label);
  return out.empty() ? "-" : out;
}

std::string bucket_list(const FamilySpec& s) {
  std::string out;
  for (const double bound : s.buckets) {
    char text[32];
    const auto end = std::to_chars(text, text + sizeof text, bound, std::chars_format::fixed).ptr;
    append_item(out, {text, static_cast<std::size_t>(end - text)}, "");
  }
  return out;
}

void append_row(std::string& out, std::initializer_list<std::string_view> cells) {
  for (const std::string_view cell : cells) out.append("| ").append(cell.empty() ? "-" : cell).append(" ");
  out += "|\n";
}

}  // namespace

std::string catalog_markdown() {
  std::string out{kHead};
  append_row(out, {"metric", "type", "unit", "labels", "meaning"});
  out += "|---|---|---|---|---|\n";
  std::map<std::string, std::string> names_by_buckets;
  for (const FamilySpec& s : catalog()) {
    append_row(out, {"`" + std::string(s.name) + "`", name(s.type), s.unit, label_list(s), s.help});
    if (!s.buckets.empty()) append_item(names_by_buckets[bucket_list(s)], s.name);
  }
  out += "\n## Histogram buckets\n\nUpper bounds, in the metric's unit; `+Inf` is always there.\n\n";
  for (const auto& [bounds, names] : names_by_buckets)
    out.append("- ").append(names).append(": ").append(bounds).append("\n");
  return out;
}

std::string catalog_json() {
  nlohmann::ordered_json families = nlohmann::ordered_json::array();
  for (const FamilySpec& s : catalog()) {
    nlohmann::ordered_json labels = nlohmann::ordered_json::array();
    for (const std::string_view label : s.labels.view()) labels.push_back(label);
    families.push_back({{"name", s.name},
                        {"type", name(s.type)},
                        {"unit", s.unit},
                        {"labels", std::move(labels)},
                        {"buckets", std::vector<double>(s.buckets.begin(), s.buckets.end())},
                        {"help", s.help}});
  }
  return families.dump(2) + "\n";
}

}  // namespace ganglion::metrics
