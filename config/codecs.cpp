// The codecs: one per kind of scalar, each with its message for what is wrong.

#include <algorithm>
#include <charconv>

#include "config/field.hpp"
#include "core/limits.hpp"

namespace ganglion::config {
namespace {

using Kind = TypeInfo::Kind;

std::string range_text(std::string_view min, std::string_view max) {
  return std::string(min) + " to " + std::string(max);
}

// A codec whose text form has a parser of units.hpp, with bounds.
template <class M>
Codec<M> bounded(TypeInfo info, Parsed<M> (*parse)(std::string_view), M min, M max,
                 std::function<std::string(M)> form) {
  info.constraint = range_text(form(min), form(max));
  const std::string range = info.constraint;
  return {.info = info,
          .read = [=, name = info.name](Reader& reader, const Node& node) -> std::optional<M> {
            const auto expanded = reader.scalar(node, "a " + name);
            if (!expanded) return std::nullopt;
            const Parsed<M> value = parse(expanded->text);
            if (!value) {
              reader.error(node, value.error());
            } else if (*value < min || *value > max) {
              reader.error(node, form(*value) + " is out of range, allowed are " + range);
            } else {
              return *value;
            }
            return std::nullopt;
          },
          .write = {}};
}

std::optional<std::string> read_text(Reader& reader, const Node& node, std::string_view expected) {
  auto expanded = reader.scalar(node, expected);
  if (!expanded) return std::nullopt;
  return std::move(expanded->text);
}

Value write_text(const std::string& value, Secrets) {
  return Value{value};
}

// Text that passes `good`; `expected` says what that is.
Codec<std::string> checked(std::string name, std::string constraint, std::string pattern,
                           std::function<bool(std::string_view)> good) {
  const std::string expected = name + " (" + constraint + ")";
  return {.info = {.kind = Kind::text,
                   .name = std::move(name),
                   .constraint = std::move(constraint),
                   .pattern = std::move(pattern)},
          .read = [=](Reader& reader, const Node& node) -> std::optional<std::string> {
            auto value = read_text(reader, node, expected);
            if (!value || good(*value)) return value;
            reader.error(node, "expected " + expected + ", got \"" + *value + "\"");
            return std::nullopt;
          },
          .write = write_text};
}

bool is_alnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool all_of_set(std::string_view text, std::string_view also) {
  return std::ranges::all_of(text, [also](char c) { return is_alnum(c) || also.find(c) != std::string_view::npos; });
}

// What is wrong with a base URL, or "".
std::string url_problem(std::string_view url) {
  const bool tls = url.starts_with("https://");
  if (!tls && !url.starts_with("http://")) return "must begin with http:// or https://";
  std::string_view rest = url.substr(tls ? 8 : 7);
  if (rest.find_first_of("?#") != std::string_view::npos) return "must have no query and no fragment";
  if (std::ranges::any_of(rest, [](char c) { return c <= ' ' || c == 0x7f || c == '"' || c == '\\'; }))
    return "has a character that no URL has";
  std::string_view authority = rest.substr(0, rest.find('/'));
  if (authority.find('@') != std::string_view::npos) return "must not hold a user or password; use api_key";
  if (authority.starts_with('[')) {
    const std::size_t close = authority.find(']');
    if (close == std::string_view::npos || close < 3) return "has a broken IPv6 address";
    authority.remove_prefix(close + 1);
    if (!authority.empty() && authority.front() != ':') return "has a broken IPv6 address";
  } else {
    const std::size_t colon = authority.find(':');
    if (authority.substr(0, colon).empty()) return "has no host";
    authority.remove_prefix(colon == std::string_view::npos ? authority.size() : colon);
  }
  if (authority.empty()) return "";
  const auto port = parse_integer(authority.substr(1));
  return port && *port >= 1 && *port <= 65'535 ? "" : "has a port that is not a number from 1 to 65535";
}

}  // namespace

bool is_identifier(std::string_view name) {
  return !name.empty() && name.size() <= 64 && all_of_set(name, "._-");
}

bool is_model_name(std::string_view name) {
  return !name.empty() && name.size() <= core::kModelNameBytesMax && all_of_set(name, "._-/@:+");
}

Codec<bool> boolean() {
  return {.info = {.kind = Kind::boolean, .name = "boolean"},
          .read = [](Reader& reader, const Node& node) -> std::optional<bool> {
            const auto value = reader.scalar(node, "true or false");
            if (!value) return std::nullopt;
            if (value->text == "true" && (!node.quoted || value->used_env)) return true;
            if (value->text == "false" && (!node.quoted || value->used_env)) return false;
            reader.error(node, "expected true or false, got \"" + value->text + "\"");
            return std::nullopt;
          },
          .write = [](bool value, Secrets) { return Value{value}; }};
}

Codec<std::int64_t> integer_or(std::string word, std::int64_t value, std::int64_t min, std::int64_t max) {
  const std::string range = range_text(std::to_string(min), std::to_string(max));
  const std::string expected = "a whole number from " + range + (word.empty() ? "" : " or " + word);
  TypeInfo info{.kind = Kind::integer, .name = "integer", .constraint = range, .min = min, .max = max};
  if (!word.empty()) {
    info.choices = {word};
    info.constraint += ", or `" + word + "`";
  }
  return {.info = std::move(info),
          .read = [=](Reader& reader, const Node& node) -> std::optional<std::int64_t> {
            const auto form = reader.scalar(node, expected);
            if (!form) return std::nullopt;
            if (!word.empty() && form->text == word) return value;
            const auto parsed = parse_integer(form->text);
            const bool is_string = node.quoted && !form->used_env;
            if (parsed && !is_string && *parsed >= min && *parsed <= max) return *parsed;
            reader.error(node, "expected " + expected + ", got " +
                                   (is_string || !parsed ? "\"" + form->text + "\"" : form->text));
            return std::nullopt;
          },
          .write = [=](std::int64_t n, Secrets) { return !word.empty() && n == value ? Value{word} : Value{n}; }};
}

Codec<std::int64_t> integer(std::int64_t min, std::int64_t max) {
  return integer_or("", 0, min, max);
}

Codec<std::int64_t> percent(std::int64_t min, std::int64_t max) {
  const std::string constraint = std::to_string(min) + "% to " + std::to_string(max) + "%";
  return {.info = {.kind = Kind::text, .name = "percentage", .constraint = constraint, .pattern = "^[0-9]{1,3}%$"},
          .read = [=](Reader& reader, const Node& node) -> std::optional<std::int64_t> {
            const auto text = read_text(reader, node, "a percentage (" + constraint + ")");
            if (!text) return std::nullopt;
            std::int64_t value = -1;
            const char* const end = text->data() + text->size();
            const auto [stop, error] = std::from_chars(text->data(), end, value);
            if (error == std::errc{} && end - stop == 1 && *stop == '%' && value >= min && value <= max) return value;
            reader.error(node, "expected a percentage (" + constraint + "), got \"" + *text + "\"");
            return std::nullopt;
          },
          .write = [](const std::int64_t& value, Secrets) { return Value{std::to_string(value) + "%"}; }};
}

Codec<double> fraction(double min, double max) {
  const auto text_of = [](double value) {
    char text[32];
    return std::string(text, std::to_chars(text, text + sizeof text, value).ptr);
  };
  const std::string constraint = text_of(min) + " to " + text_of(max);
  return {.info = {.kind = Kind::decimal, .name = "fraction", .constraint = constraint},
          .read = [=](Reader& reader, const Node& node) -> std::optional<double> {
            const auto text = read_text(reader, node, "a number (" + constraint + ")");
            if (!text) return std::nullopt;
            double value = 0;
            const char* const end = text->data() + text->size();
            const auto [stop, error] = std::from_chars(text->data(), end, value, std::chars_format::fixed);
            if (error == std::errc{} && stop == end && value >= min && value <= max) return value;
            reader.error(node, "expected a number (" + constraint + "), got \"" + *text + "\"");
            return std::nullopt;
          },
          .write = [=](const double& value, Secrets) { return Value{text_of(value)}; }};
}

Codec<std::uint64_t> size(std::uint64_t min, std::uint64_t max) {
  auto codec = bounded<std::uint64_t>({.kind = Kind::size, .name = "size"}, parse_size, min, max, format_size);
  codec.write = [](std::uint64_t bytes, Secrets) { return Value{format_size(bytes)}; };
  return codec;
}

Codec<std::chrono::microseconds> duration(std::chrono::microseconds min, std::chrono::microseconds max,
                                          std::chrono::microseconds step) {
  auto codec = bounded<std::chrono::microseconds>({.kind = Kind::duration, .name = "duration"}, parse_duration, min,
                                                  max, format_duration);
  codec.read = [read = codec.read, step](Reader& reader, const Node& node) -> std::optional<std::chrono::microseconds> {
    const auto value = read(reader, node);
    if (!value || value->count() % step.count() == 0) return value;
    reader.error(node, format_duration(*value) + " is too fine, the step is " + format_duration(step));
    return std::nullopt;
  };
  codec.write = [](std::chrono::microseconds time, Secrets) { return Value{format_duration(time)}; };
  return codec;
}

Codec<std::chrono::microseconds> instant() {
  const Codec<std::string> text = checked("time", "UTC, such as 2026-12-01T00:00:00Z or 2026-12-01",
                                          "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?$",
                                          [](std::string_view t) { return parse_instant(t).has_value(); });
  return {.info = text.info,
          .read = [read = text.read](Reader& reader, const Node& node) -> std::optional<std::chrono::microseconds> {
            const auto written = read(reader, node);
            if (!written) return std::nullopt;
            return parse_instant(*written).value_or(std::chrono::microseconds{0});
          },
          .write = [](std::chrono::microseconds time,
                      Secrets) { return time.count() == 0 ? Value{} : Value{format_instant(time)}; }};
}

Codec<std::string> path(std::size_t length_min) {
  constexpr std::size_t kPathMax = 4096;
  Codec<std::string> codec = checked("path", "at most 4096 bytes", "", [=](std::string_view t) {
    return t.size() >= length_min && t.size() <= kPathMax && t.find('\0') == std::string_view::npos;
  });
  codec.info.constraint.clear();  // no operator needs to be told
  return codec;
}

Codec<std::string> identifier() {
  return checked("name", "1 to 64 letters, digits, . _ -", "^[A-Za-z0-9._-]{1,64}$", is_identifier);
}

Codec<std::string> model_name() {
  return checked("model name", "1 to 128 letters, digits, . _ - / @ : +", "^[A-Za-z0-9._/@:+-]{1,128}$", is_model_name);
}

Codec<std::string> device() {
  return checked(
      "device", "auto, cpu, cuda:<number> or cuda:<number>,<number>...",
      "^(auto|cpu|cuda:[0-9]{1,2}(,[0-9]{1,2}){0,15})$", [](std::string_view t) {
        if (t == "auto" || t == "cpu") return true;
        constexpr std::string_view kPrefix = "cuda:";
        if (!t.starts_with(kPrefix)) return false;
        t.remove_prefix(kPrefix.size());
        for (int left = 16; left > 0; --left) {
          const std::string_view number = t.substr(0, t.find(','));
          if (number.empty() || number.size() > 2 || number.find_first_not_of("0123456789") != std::string_view::npos) {
            return false;
          }
          if (number.size() == t.size()) return true;
          t.remove_prefix(number.size() + 1);
        }
        return false;
      });
}

Codec<std::string> hex64() {
  auto codec =
      checked("hash", "64 hex digits, as `ganglion keys create` prints", "^[0-9a-fA-F]{64}$", [](std::string_view t) {
        return t.size() == 64 && t.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos;
      });
  // A key pasted in place of its hash must not be echoed.
  codec.read = [read = codec.read](Reader& reader, const Node& node) -> std::optional<std::string> {
    auto value = read_text(reader, node, "a hash");
    if (!value) return value;
    if (value->size() != 64 || value->find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
      reader.error(node,
                   "expected 64 hex digits, as `ganglion keys create` prints; a key itself belongs into `secret`");
      return std::nullopt;
    }
    std::ranges::transform(*value, value->begin(),
                           [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c; });
    return value;
  };
  return codec;
}

Codec<std::string> url() {
  return {.info = {.kind = Kind::text,
                   .name = "URL",
                   .constraint = "http(s)://host[:port][/prefix]",
                   .pattern = "^(https?://|\\$\\{)"},
          .read = [](Reader& reader, const Node& node) -> std::optional<std::string> {
            auto value = read_text(reader, node, "a URL");
            if (!value) return value;
            if (const std::string problem = url_problem(*value); !problem.empty()) {
              const bool shown = problem.find("password") == std::string::npos;
              reader.error(node, (shown ? "\"" + *value + "\" " : "the URL ") + problem);
              return std::nullopt;
            }
            while (value->ends_with('/')) value->pop_back();
            return value;
          },
          .write = write_text};
}

Codec<std::string> choice(std::vector<std::string> choices) {
  std::string all;
  for (const std::string& c : choices) all += (all.empty() ? "" : ", ") + c;
  return {.info = {.kind = Kind::choice, .name = "choice", .constraint = "one of " + all, .choices = choices},
          .read = [=](Reader& reader, const Node& node) -> std::optional<std::string> {
            auto value = read_text(reader, node, "one of " + all);
            if (!value || std::ranges::find(choices, *value) != choices.end()) return value;
            reader.error(node, "expected one of " + all + ", got \"" + *value + "\"" + did_you_mean(*value, choices));
            return std::nullopt;
          },
          .write = write_text};
}

Codec<std::string> decimal() {
  return {.info = {.kind = Kind::decimal,
                   .name = "decimal",
                   .constraint = "0 or more, at most nine digits after the point"},
          .read = [](Reader& reader, const Node& node) -> std::optional<std::string> {
            const auto value = read_text(reader, node, "a decimal number");
            if (!value) return std::nullopt;
            auto parsed = parse_decimal(*value);
            if (parsed) return *std::move(parsed);
            reader.error(node, parsed.error());
            return std::nullopt;
          },
          .write = [](const std::string& value, Secrets) { return value.empty() ? Value{} : Value{value}; }};
}

Codec<core::Secret> secret() {
  return {.info = {.kind = Kind::secret, .name = "secret", .constraint = "from the environment: `${NAME}`"},
          .read = [](Reader& reader, const Node& node) -> std::optional<core::Secret> {
            auto value = reader.scalar(node, "a secret such as ${OPENAI_API_KEY}");
            if (!value) return std::nullopt;
            if (value->text.empty()) {
              reader.error(node,
                           value->used_env ? "the environment variable is set to nothing" : "the secret is empty");
              return std::nullopt;
            }
            // It goes into a header or an HMAC: a stray newline from a file would break the one and change the other.
            if (std::ranges::any_of(value->text,
                                    [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == 0x7f; })) {
              reader.error(node, "the secret holds a space, newline or control character");
              return std::nullopt;
            }
            if (!value->used_env) {
              reader.warn(node, "a secret stands in the file itself; take it from the environment with ${NAME}");
            }
            return core::Secret{std::move(value->text)};
          },
          .write =
              [](const core::Secret& value, Secrets secrets) {
                if (value.empty()) return Value{};
                return Value{secrets == Secrets::reveal ? std::string(value.reveal()) : std::string("[redacted]")};
              }};
}

}  // namespace ganglion::config
