// See core/log.hpp. A line is built in a thread-local buffer and leaves in one write().

#include "core/log.hpp"

#include <unistd.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>

namespace ganglion::core {
namespace {

constexpr std::size_t kStringBytesMax = 2048;
std::atomic<LogLevel> g_level{LogLevel::info};
std::atomic<int> g_fd{2};

void append_time(std::string& out) {
  const auto now = std::chrono::system_clock::now();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  const std::time_t seconds = static_cast<std::time_t>(ms / 1000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[40];
  const std::size_t n = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  out.append(text, n);
  const int fraction = static_cast<int>(ms % 1000);
  out.push_back('.');
  out.push_back(static_cast<char>('0' + fraction / 100));
  out.push_back(static_cast<char>('0' + fraction / 10 % 10));
  out.push_back(static_cast<char>('0' + fraction % 10));
  out.push_back('Z');
}

// Length of the valid UTF-8 sequence at the front of `text`, 0 if it is not one.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(0);
  std::size_t length = 0;
  std::uint8_t low = 0x80;
  std::uint8_t high = 0xBF;
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  }
  if (length == 0 || text.size() < length || byte(1) < low || byte(1) > high) return 0;
  for (std::size_t i = 2; i < length; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xBF) return 0;
  }
  return length;
}

void append_value(std::string& out, const LogField& field) {
  char digits[40];
  if (const auto* text = std::get_if<std::string_view>(&field.value)) {
    append_json_string(out, text->substr(0, kStringBytesMax));
  } else if (const auto* flag = std::get_if<bool>(&field.value)) {
    out += *flag ? "true" : "false";
  } else if (const auto* integer = std::get_if<std::int64_t>(&field.value)) {
    out.append(digits, std::to_chars(digits, digits + sizeof digits, *integer).ptr);
  } else {
    const double number = std::get<double>(field.value);
    if (!std::isfinite(number)) {
      out += "null";
    } else {
      out.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
    }
  }
}

}  // namespace

void set_log_level(LogLevel level) {
  g_level = level;
}
LogLevel log_level() {
  return g_level;
}
void set_log_fd(int fd) {
  g_fd = fd;
}

void append_json_string(std::string& out, std::string_view text) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  out.push_back('"');
  while (!text.empty()) {
    const char c = text.front();
    const std::size_t length = utf8_length(text);
    if (length == 0) {
      out += "\\ufffd";
      text.remove_prefix(1);
      continue;
    }
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<std::uint8_t>(c) < 0x20) {
      out += "\\u00";
      out.push_back(kDigits[static_cast<std::uint8_t>(c) >> 4]);
      out.push_back(kDigits[c & 15]);
    } else {
      out.append(text.substr(0, length));
    }
    text.remove_prefix(length);
  }
  out.push_back('"');
}

void log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  static constexpr std::string_view kNames[] = {"debug", "info", "warn", "error"};
  if (level < g_level.load(std::memory_order_relaxed) || level == LogLevel::off) return;
  thread_local std::string line;
  line.assign("{\"time\":\"");
  append_time(line);
  line += "\",\"level\":\"";
  line += kNames[static_cast<std::size_t>(level)];
  line += "\",\"event\":";
  append_json_string(line, event);
  for (const LogField& field : fields) {
    line.push_back(',');
    append_json_string(line, field.key);
    line.push_back(':');
    append_value(line, field);
  }
  line += "}\n";
  // A log that cannot be written must not stop the proxy; there is nowhere to report it.
  [[maybe_unused]] const auto written = ::write(g_fd.load(), line.data(), line.size());
}

}  // namespace ganglion::core
