#pragma once
// The process log: one JSON object a line on stderr. Fields are typed at the call; strings are escaped and cut at
// 2 KiB. Never pass prompt text, keys or upstream bodies. Thread-safe; a line is one write().

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <variant>

namespace ganglion::core {

enum class LogLevel : std::uint8_t { debug, info, warn, error, off };

struct LogField {
  std::string_view key;
  std::variant<std::string_view, std::int64_t, double, bool> value;

  LogField(std::string_view k, std::string_view v) : key(k), value(v) {}
  LogField(std::string_view k, const char* v) : key(k), value(std::string_view{v}) {}
  LogField(std::string_view k, const std::string& v) : key(k), value(std::string_view{v}) {}
  LogField(std::string_view k, bool v) : key(k), value(v) {}
  LogField(std::string_view k, double v) : key(k), value(v) {}
  template <class Int>
    requires std::is_integral_v<Int>
  LogField(std::string_view k, Int v) : key(k), value(static_cast<std::int64_t>(v)) {}
};

void set_log_level(LogLevel level);
LogLevel log_level();
void set_log_fd(int fd);  // default: 2

void log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});

// Appends `text` as a JSON string with quotes; invalid UTF-8 becomes U+FFFD so that the line stays JSON.
void append_json_string(std::string& out, std::string_view text);

}  // namespace ganglion::core
