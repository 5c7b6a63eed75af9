// Text of a UsageReport: an aligned table for people, JSON for programs.

#include <algorithm>

#include "core/log.hpp"
#include "metering/ledger_reader.hpp"

namespace ganglion::metering {
namespace {

using Line = std::vector<std::string>;

// Columns as wide as their widest cell; the first `left` columns are text, the others numbers.
std::string align(const std::vector<Line>& lines, std::size_t left) {
  std::vector<std::size_t> width;
  for (const Line& line : lines) {
    width.resize(std::max(width.size(), line.size()));
    for (std::size_t i = 0; i < line.size(); ++i) width[i] = std::max(width[i], line[i].size());
  }
  std::string out;
  for (const Line& line : lines) {
    std::string text;
    for (std::size_t i = 0; i < line.size(); ++i) {
      const std::string pad(width[i] - line[i].size(), ' ');
      if (i != 0) text += "  ";
      text += i < left ? line[i] + pad : pad + line[i];
    }
    while (text.ends_with(' ')) text.pop_back();
    out += text + "\n";
  }
  return out;
}

Line cells(const UsageRow& row, Line group) {
  for (const std::uint64_t count : {row.records, row.cache_hits, row.units.input_tokens, row.units.cached_input_tokens,
                                    row.units.output_tokens, row.estimated})
    group.push_back(std::to_string(count));
  group.push_back(row.neurons);
  group.push_back(row.usd);
  return group;
}

void field(std::string& out, std::string_view key, std::string_view value) {
  core::append_json_string(out, key);
  out.push_back(':');
  core::append_json_string(out, value);
}

std::string json_row(const UsageRow& row, const std::vector<UsageKey>& by) {
  std::string out = "{";
  for (std::size_t i = 0; i < row.group.size(); ++i) {
    field(out, name(by[i]), row.group[i]);
    out.push_back(',');
  }
  const std::pair<std::string_view, std::uint64_t> counts[] = {
      {"requests", row.records},
      {"cache_hits", row.cache_hits},
      {"estimated", row.estimated},
      {"input_tokens", row.units.input_tokens},
      {"cached_input_tokens", row.units.cached_input_tokens},
      {"output_tokens", row.units.output_tokens},
      {"gpu_us", row.units.gpu_us},
      {"llm_responses", row.units.llm_responses},
      {"image_classifications", row.units.image_classifications},
      {"embeddings", row.units.embeddings}};
  for (const auto& [key, value] : counts)
    out.append("\"").append(key).append("\":").append(std::to_string(value)).append(",");
  field(out, "neurons", row.neurons);
  out.push_back(',');
  field(out, "usd", row.usd);
  out.push_back('}');
  return out;
}

}  // namespace

std::string format_table(const UsageReport& report) {
  std::vector<Line> lines;
  Line head;
  for (const UsageKey key : report.by) head.emplace_back(name(key));
  for (const char* column : {"requests", "hits", "input", "cached", "output", "estimated", "neurons", "usd"})
    head.emplace_back(column);
  lines.push_back(std::move(head));
  for (const UsageRow& row : report.rows)
    if (!row.group.empty()) lines.push_back(cells(row, row.group));
  Line group(report.by.size());
  if (!group.empty()) group.front() = "total";
  lines.push_back(cells(report.total, std::move(group)));
  std::string out = align(lines, report.by.size());
  if (report.invoices.empty()) return out;
  std::vector<Line> due{{"tenant", "neurons", "free", "billable", "usd due"}};
  for (const InvoiceLine& line : report.invoices)
    due.push_back({line.tenant, line.neurons, line.free_neurons, line.billable_neurons, line.usd});
  return out + "\n" + align(due, 1);
}

std::string format_json(const UsageReport& report) {
  std::string out = "{\"rows\":[";
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    if (i != 0) out.push_back(',');
    out += json_row(report.rows[i], report.by);
  }
  out += "],\"total\":" + json_row(report.total, {}) + ",\"invoices\":[";
  for (std::size_t i = 0; i < report.invoices.size(); ++i) {
    const InvoiceLine& line = report.invoices[i];
    out += i == 0 ? "{" : ",{";
    field(out, "tenant", line.tenant);
    out.push_back(',');
    field(out, "neurons", line.neurons);
    out.push_back(',');
    field(out, "free_neurons", line.free_neurons);
    out.push_back(',');
    field(out, "billable_neurons", line.billable_neurons);
    out.push_back(',');
    field(out, "usd", line.usd);
    out.push_back('}');
  }
  return out + "]}\n";
}

}  // namespace ganglion::metering
