// Text of a UsageReport: an aligned table for people, JSON and CSV for programs.

#include <algorithm>

#include "core/log.hpp"
#include "metering/usage.hpp"

namespace ganglion::metering {
namespace {

using Line = std::vector<std::string>;

Line cells(const UsageRow& row, Line group) {
  const UsageCounts& counts = row.counts;
  for (const std::uint64_t count : {counts.records, counts.cache_hits, counts.units.input_tokens,
                                    counts.units.cached_input_tokens, counts.units.output_tokens, counts.estimated})
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

// All counts, by name.
std::vector<std::pair<std::string_view, std::uint64_t>> named(const UsageCounts& counts) {
  const Units& units = counts.units;
  return {{"requests", counts.records},
          {"cache_hits", counts.cache_hits},
          {"estimated", counts.estimated},
          {"input_tokens", units.input_tokens},
          {"cached_input_tokens", units.cached_input_tokens},
          {"output_tokens", units.output_tokens},
          {"gpu_us", units.gpu_us},
          {"llm_responses", units.llm_responses},
          {"image_classifications", units.image_classifications},
          {"embeddings", units.embeddings}};
}

std::string json_row(const UsageRow& row, const std::vector<UsageColumn>& by) {
  std::string out = "{";
  for (std::size_t i = 0; i < row.group.size(); ++i) {
    field(out, by[i].name(), row.group[i]);
    out.push_back(',');
  }
  for (const auto& [key, value] : named(row.counts))
    out.append("\"").append(key).append("\":").append(std::to_string(value)).append(",");
  field(out, "neurons", row.neurons);
  out.push_back(',');
  field(out, "usd", row.usd);
  out.push_back('}');
  return out;
}

}  // namespace

// Columns as wide as their widest cell; the first `left` columns are text, the others numbers.
std::string align_columns(const std::vector<Line>& lines, std::size_t left) {
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

std::string csv_line(const std::vector<std::string>& cells) {
  std::string out;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (i != 0) out.push_back(',');
    if (cells[i].find_first_of(",\"\r\n") == std::string::npos) {
      out += cells[i];
      continue;
    }
    out.push_back('"');
    for (const char c : cells[i]) out.append(c == '"' ? 2 : 1, c);
    out.push_back('"');
  }
  return out + "\r\n";
}

std::string format_table(const UsageReport& report) {
  std::vector<Line> lines;
  Line head;
  for (const UsageColumn& column : report.by) head.emplace_back(column.name());
  for (const char* column : {"requests", "hits", "input", "cached", "output", "estimated", "neurons", "usd"})
    head.emplace_back(column);
  lines.push_back(std::move(head));
  for (const UsageRow& row : report.rows)
    if (!row.group.empty()) lines.push_back(cells(row, row.group));
  Line group(report.by.size());
  if (!group.empty()) group.front() = "total";
  lines.push_back(cells(report.total, std::move(group)));
  std::string out = align_columns(lines, report.by.size());
  if (report.invoices.empty()) return out;
  std::vector<Line> due{{"tenant", "neurons", "free", "billable", "usd due"}};
  for (const InvoiceLine& line : report.invoices)
    due.push_back({line.tenant, line.neurons, line.free_neurons, line.billable_neurons, line.usd});
  return out + "\n" + align_columns(due, 1);
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
  out += "]";
  if (!report.note.empty()) {
    out += ",";
    field(out, "note", report.note);
  }
  return out + "}\n";
}

std::string format_csv(const UsageReport& report) {
  Line head;
  for (const UsageColumn& column : report.by) head.push_back(column.name());
  for (const auto& [key, value] : named({})) head.emplace_back(key);
  head.emplace_back("neurons");
  head.emplace_back("usd");
  std::string out = csv_line(head);
  for (const UsageRow& row : report.rows) {
    Line line = row.group;
    for (const auto& [key, value] : named(row.counts)) line.push_back(std::to_string(value));
    line.push_back(row.neurons);
    line.push_back(row.usd);
    out += csv_line(line);
  }
  return out;
}

}  // namespace ganglion::metering
