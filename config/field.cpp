// Objects and the compound codecs: rates, listen addresses, lists of model names.

#include "config/field.hpp"

#include <algorithm>

namespace ganglion::config {
namespace {

using Kind = TypeInfo::Kind;

std::optional<std::string> read_text(Reader& reader, const Node& node, std::string_view expected) {
  auto expanded = reader.scalar(node, expected);
  if (!expanded) return std::nullopt;
  return std::move(expanded->text);
}

ValueObject burst_form(const ratelimit::RateSpec& rate) {
  return {{"rate", Value{format_rate(rate)}}, {"burst", Value{static_cast<std::int64_t>(rate.burst)}}};
}

std::optional<ratelimit::RateSpec> read_rate_map(Reader& reader, const Node& node) {
  static const FieldInfo kRate{.key = "rate", .required = true};
  static const FieldInfo kBurst{.key = "burst"};
  ratelimit::RateSpec spec;
  bool good = true;
  read_entries(reader, node, {&kRate, &kBurst}, [&](std::size_t field, const Node& value) {
    if (field == 0) {
      const auto form = read_text(reader, value, "a rate such as 60/min");
      const auto parsed = form ? parse_rate(*form) : std::unexpected(std::string{});
      if (form && !parsed) reader.error(value, parsed.error());
      if (parsed) {
        spec.amount = parsed->amount;
        spec.period_s = parsed->period_s;
      }
      good &= parsed.has_value();
    } else {
      const auto burst = integer(1, std::int64_t{1} << 53).read(reader, value);
      good &= burst.has_value();
      if (burst) spec.burst = static_cast<std::uint64_t>(*burst);
    }
  });
  if (!good) return std::nullopt;
  return spec;
}

}  // namespace

void read_entries(Reader& reader, const Node& node, const std::vector<const FieldInfo*>& fields,
                  const std::function<void(std::size_t, const Node&)>& read) {
  if (node.kind != Node::Kind::map) {
    reader.error(node, "expected a map (key: value), got " + std::string(kind_name(node)));
    return;
  }
  std::vector<int> first_line(fields.size(), 0);
  for (std::size_t i = 0; i < node.size(); ++i) {
    const Node& key = node.key(i);
    const auto found = std::ranges::find(fields, key.text, &FieldInfo::key);
    if (key.kind != Node::Kind::scalar || found == fields.end()) {
      std::vector<std::string> names;
      for (const FieldInfo* field : fields) names.push_back(field->key);
      reader.error(key, "unknown key `" + key.text + "`" + did_you_mean(key.text, names));
      continue;
    }
    const auto index = static_cast<std::size_t>(found - fields.begin());
    const Reader::Scope scope(reader, key.text);
    if (first_line[index] != 0) {
      reader.error(key, "given twice, first on line " + std::to_string(first_line[index]));
      continue;
    }
    first_line[index] = key.line;
    read(index, node.value(i));
  }
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (fields[i]->required && first_line[i] == 0) reader.error(node, "`" + fields[i]->key + "` is missing");
  }
}

Codec<ratelimit::RateSpec> rate() {
  return {
      .info = {.kind = Kind::rate, .name = "rate", .constraint = "`60/min`, `5/s`, or `{rate: 60/min, burst: 100}`"},
      .read = [](Reader& reader, const Node& node) -> std::optional<ratelimit::RateSpec> {
        if (node.kind == Node::Kind::map) return read_rate_map(reader, node);
        const auto form = read_text(reader, node, "a rate such as 60/min");
        if (!form) return std::nullopt;
        const auto parsed = parse_rate(*form);
        if (parsed) return *parsed;
        reader.error(node, parsed.error());
        return std::nullopt;
      },
      .write = [](const ratelimit::RateSpec& r,
                  Secrets) { return r.burst == 0 ? Value{format_rate(r)} : Value{burst_form(r)}; }};
}

Codec<Listen> listen() {
  return {.info = {.kind = Kind::listen,
                   .name = "address",
                   .constraint = "`127.0.0.1:8080`, `[::1]:8080`; port 0 takes any free one"},
          .read = [](Reader& reader, const Node& node) -> std::optional<Listen> {
            const auto form = read_text(reader, node, "an address and port such as 127.0.0.1:8080");
            if (!form) return std::nullopt;
            auto parsed = parse_listen(*form);
            if (parsed) return *std::move(parsed);
            reader.error(node, parsed.error());
            return std::nullopt;
          },
          .write = [](const Listen& l, Secrets) { return Value{format_listen(l)}; }};
}

Codec<std::vector<std::string>> model_patterns() {
  using Names = std::vector<std::string>;
  return {.info = {.kind = Kind::strings,
                   .name = "list of model names",
                   .constraint = "a `*` at the end stands for anything"},
          .read = [](Reader& reader, const Node& node) -> std::optional<Names> {
            if (node.kind != Node::Kind::list) {
              reader.error(node, "expected a list of model names such as [gpt-4o-mini, demo-*], got " +
                                     std::string(kind_name(node)));
              return std::nullopt;
            }
            if (node.items.empty()) {
              reader.error(
                  node,
                  "an empty list would allow no model at all; leave the key out to allow all, or set revoked: true");
              return std::nullopt;
            }
            Names names;
            for (std::size_t i = 0; i < node.size(); ++i) {
              const Reader::Scope scope(reader, i);
              auto name = read_text(reader, node.items[i], "a model name");
              if (!name) continue;
              std::string_view stem = *name;
              if (stem.ends_with('*')) stem.remove_suffix(1);
              if (!is_model_name(stem) && *name != "*") {
                reader.error(node.items[i], "\"" + *name + "\" is no model name; * may stand at the end only");
                continue;
              }
              names.push_back(*std::move(name));
            }
            return names;
          },
          .write =
              [](const Names& names, Secrets) {
                ValueList out;
                for (const std::string& name : names) out.push_back(Value{name});
                return Value{std::move(out)};
              }};
}

}  // namespace ganglion::config
