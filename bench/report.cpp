// See bench/report.hpp.

#include "bench/report.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace ganglion::bench {
namespace {

using nlohmann::json;

constexpr std::array kQuantiles = {0.0, 0.1,  0.2,  0.3,  0.4,   0.5,   0.6,   0.7,    0.8,
                                   0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999};

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[512];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

std::string duration(double us) {
  if (us < 1'000) return format("%.0f us", us);
  if (us < 100'000) return format("%.2f ms", us / 1e3);
  return us < 1'000'000 ? format("%.0f ms", us / 1e3) : format("%.2f s", us / 1e6);
}

json quantiles_of(const Histogram& h) {
  json distribution = json::array();
  for (const double q : kQuantiles) distribution.push_back({q, h.quantile_us(q)});
  return {{"n", h.total()},
          {"p50", h.quantile_us(0.5)},
          {"p90", h.quantile_us(0.9)},
          {"p99", h.quantile_us(0.99)},
          {"p999", h.quantile_us(0.999)},
          {"max", h.max_us()},
          {"distribution", std::move(distribution)}};
}

std::string line_of(const char* name, const Histogram& h) {
  return format("  %-12s%10s%10s%10s%10s%10s\n", name, duration(h.quantile_us(0.5)).c_str(),
                duration(h.quantile_us(0.9)).c_str(), duration(h.quantile_us(0.99)).c_str(),
                duration(h.quantile_us(0.999)).c_str(), duration(h.max_us()).c_str());
}

// The share of answers between one power of the square root of two and the next.
std::string chart(const Histogram& h) {
  constexpr int kWidth = 50;
  constexpr int kSteps = 4'096;
  std::vector<std::pair<double, int>> bars;  // upper bound in us, samples of kSteps
  for (int i = 0; i < kSteps; ++i) {
    const double us = std::max(h.quantile_us((i + 0.5) / kSteps), 0.001);
    const double upper = std::exp2(std::ceil(std::log2(us) * 2) / 2);
    if (bars.empty() || bars.back().first < upper * 0.999) bars.emplace_back(upper, 0);
    ++bars.back().second;
  }
  int highest = 1;
  for (const auto& [upper, count] : bars) highest = std::max(highest, count);
  std::string out;
  for (const auto& [upper, count] : bars) {
    const int width = count * kWidth / highest;
    out += format("  %10s  %s%s %.1f %%\n", ("<= " + duration(upper)).c_str(),
                  std::string(static_cast<std::size_t>(width), '#').c_str(), width == 0 ? "." : "",
                  100.0 * count / kSteps);
  }
  return out;
}

struct Run {
  std::string name;
  json all;
  double us(const char* histogram, const char* quantile) const { return all.at(histogram).at(quantile).get<double>(); }
  bool streamed() const { return all.at("chunk_us").at("n").get<std::int64_t>() > 0; }
};

std::expected<std::vector<Run>, std::string> parse(const std::vector<std::string>& texts) {
  std::vector<Run> runs;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    Run run{.name = {}, .all = json::parse(texts[i], nullptr, false)};
    try {
      run.name = run.all.at("name").get<std::string>();
      for (const char* histogram : {"latency_us", "first_byte_us", "chunk_us"}) (void)run.us(histogram, "p999");
      (void)run.all.at("latency_us").at("distribution").at(0).at(1).get<double>();
      (void)run.all.at("answered").get<std::int64_t>();
      (void)run.all.at("errors").get<std::int64_t>();
      (void)run.all.at("per_second").get<double>();
    } catch (const json::exception&) {
      return std::unexpected("result " + std::to_string(i + 1) + " is not what `ganglion bench load --json` prints");
    }
    runs.push_back(std::move(run));
  }
  if (runs.empty()) return std::unexpected("no results given");
  return runs;
}

std::string cell(std::string text) {
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, "\\");
  std::ranges::replace(text, '\n', ' ');
  return text;
}

std::string markdown_of(const std::vector<Run>& runs, const Run& baseline) {
  std::string out =
      "| run | answers/s | errors | CPU us/request | p50 | p90 | p99 | p99.9 | added p50 | added p99 |\n"
      "|---|---|---|---|---|---|---|---|---|---|\n";
  for (const Run& run : runs) {
    const json& cpu = run.all.contains("cpu_us_per_request") ? run.all["cpu_us_per_request"] : json{};
    out += "| " + cell(run.name) +
           format(" | %.0f | %lld | ", run.all["per_second"].get<double>(),
                  static_cast<long long>(run.all["errors"].get<std::int64_t>()));
    out += cpu.is_number() ? format("%.1f", cpu.get<double>()) : std::string{"-"};
    for (const char* q : {"p50", "p90", "p99", "p999"}) out += " | " + duration(run.us("latency_us", q));
    for (const char* q : {"p50", "p99"}) {
      out += &run == &baseline ? " | -" : format(" | %+.0f us", run.us("latency_us", q) - baseline.us("latency_us", q));
    }
    out += " |\n";
  }
  if (std::ranges::none_of(runs, &Run::streamed)) return out;
  out +=
      "\n| run | first byte p50 | first byte p99 | chunk p50 | chunk p99 | added chunk p99 |\n"
      "|---|---|---|---|---|---|\n";
  for (const Run& run : runs) {
    if (!run.streamed()) continue;
    out += "| " + cell(run.name) + " | " + duration(run.us("first_byte_us", "p50")) + " | " +
           duration(run.us("first_byte_us", "p99")) + " | " + duration(run.us("chunk_us", "p50")) + " | " +
           duration(run.us("chunk_us", "p99"));
    out += &run == &baseline ? std::string{" | -"}
                             : format(" | %+.0f us", run.us("chunk_us", "p99") - baseline.us("chunk_us", "p99"));
    out += " |\n";
  }
  return out;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

// Latency over quantile, both logarithmic: the tail takes as much room as the middle.
std::string svg_of(const std::vector<Run>& runs) {
  constexpr double kLeft = 80, kTop = 20, kPlotWidth = 600, kPlotHeight = 300, kTail = 4;  // nines shown
  constexpr std::array kColours = {"#1f77b4", "#d62728", "#2ca02c", "#ff7f0e",
                                   "#9467bd", "#8c564b", "#17becf", "#7f7f7f"};
  double low = 1e18;
  double high = 1;
  for (const Run& run : runs) {
    for (const json& point : run.all["latency_us"]["distribution"]) {
      low = std::min(low, std::max(point[1].get<double>(), 1.0));
      high = std::max(high, point[1].get<double>());
    }
  }
  const double low_decade = std::floor(std::log10(low));
  const double decades = std::max(std::ceil(std::log10(high)) - low_decade, 1.0);
  const auto x = [&](double q) { return kLeft + kPlotWidth * -std::log10(std::max(1 - q, 1e-4)) / kTail; };
  const auto y = [&](double us) {
    return kTop + kPlotHeight * (1 - (std::log10(std::max(us, 1.0)) - low_decade) / decades);
  };
  const double height = kTop + kPlotHeight + 50 + 18 * static_cast<double>(runs.size());
  std::string out = format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"%.0f\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
      height);
  for (const auto& [q, label] :
       {std::pair{0.0, "0"}, {0.5, "50 %"}, {0.9, "90 %"}, {0.99, "99 %"}, {0.999, "99.9 %"}, {0.9999, "99.99 %"}}) {
    out += format(
        "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#ddd\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
        x(q), kTop, kTop + kPlotHeight, x(q), kTop + kPlotHeight + 16, label);
  }
  for (double decade = 0; decade <= decades; ++decade) {
    const double us = std::pow(10, low_decade + decade);
    out += format(
        "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#ddd\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
        kLeft, y(us), kLeft + kPlotWidth, kLeft - 6, y(us) + 4, duration(us).c_str());
  }
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const char* const colour = kColours[i % kColours.size()];
    std::string points;
    for (const json& point : runs[i].all["latency_us"]["distribution"])
      points += format("%.1f,%.1f ", x(point[0].get<double>()), y(point[1].get<double>()));
    const double legend = kTop + kPlotHeight + 40 + 18 * static_cast<double>(i);
    out += "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"" + std::string{colour} + "\" points=\"" + points +
           "\"/>\n";
    out += format("<path d=\"M%.1f %.1fh20\" stroke-width=\"2\" stroke=\"%s\"/>", kLeft, legend - 4, colour);
    out += format("<text x=\"%.1f\" y=\"%.1f\">", kLeft + 28, legend) + escaped(runs[i].name) + "</text>\n";
  }
  return out + "</svg>\n";
}

}  // namespace

std::string to_text(const LoadOptions& options, const LoadResult& result, const RunFacts& facts) {
  std::string out = "  http://" + options.authority + options.path;
  out += options.rate > 0 ? format(", open loop at %.0f/s over %zu connections", options.rate, options.connections)
                          : format(", closed loop, %zu connections", options.connections);
  out += format(", %.1f s\n  answered %lld   %.0f/s   errors %lld   cache hits %lld", result.seconds,
                static_cast<long long>(result.answered), result.per_second(), static_cast<long long>(result.errors),
                static_cast<long long>(result.hits));
  if (facts.cpu_us_per_request >= 0) out += format("   CPU %.1f us/request", facts.cpu_us_per_request);
  out += format("\n\n  %-12s%10s%10s%10s%10s%10s\n", "", "p50", "p90", "p99", "p99.9", "max");
  out += line_of("latency", result.latency) + line_of("first byte", result.first_byte);
  if (result.token.total() > 0) out += line_of("per token", result.token);
  if (result.chunk.total() > 0) out += line_of("per chunk", result.chunk);
  return result.latency.total() > 0 ? out + "\n" + chart(result.latency) : out;
}

std::string to_json(const LoadOptions& options, const LoadResult& result, const RunFacts& facts) {
  return json{{"name", facts.name},
              {"url", "http://" + options.authority + options.path},
              {"connections", options.connections},
              {"rate", options.rate},
              {"body_bytes", options.body_bytes},
              {"stream", options.stream},
              {"seconds", result.seconds},
              {"answered", result.answered},
              {"errors", result.errors},
              {"hits", result.hits},
              {"per_second", result.per_second()},
              {"cpu_us_per_request", facts.cpu_us_per_request < 0 ? json{} : json(facts.cpu_us_per_request)},
              {"latency_us", quantiles_of(result.latency)},
              {"first_byte_us", quantiles_of(result.first_byte)},
              {"token_us", quantiles_of(result.token)},
              {"chunk_us", quantiles_of(result.chunk)}}
      .dump();
}

std::expected<Report, std::string> make_report(const std::vector<std::string>& texts, std::string_view baseline,
                                               std::string_view picture) {
  const auto runs = parse(texts);
  if (!runs) return std::unexpected(runs.error());
  const auto base = baseline.empty() ? runs->begin() : std::ranges::find(*runs, baseline, &Run::name);
  if (base == runs->end()) {
    std::string names;
    for (const Run& run : *runs) names += " '" + run.name + "'";
    return std::unexpected("no result is named '" + std::string{baseline} + "'; there are" + names);
  }
  Report report{.markdown = markdown_of(*runs, *base), .svg = svg_of(*runs)};
  if (!picture.empty()) report.markdown += "\n![latency over quantile](" + std::string{picture} + ")\n";
  return report;
}

}  // namespace ganglion::bench
