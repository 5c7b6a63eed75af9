// See gateway/access_log.hpp.

#include "gateway/access_log.hpp"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <ctime>

#include "core/log.hpp"

namespace ganglion::gateway {
namespace {

constexpr std::size_t kFlushBytes = 32 * 1024;
constexpr std::chrono::milliseconds kFlushAfter{100};

void append_number(std::string& out, std::int64_t value) {
  char digits[24];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

void field(std::string& out, std::string_view key, std::string_view value) {
  if (value.empty()) return;
  out += ",\"";
  out += key;
  out += "\":";
  core::append_json_string(out, value);
}

void field(std::string& out, std::string_view key, std::int64_t value) {
  out += ",\"";
  out += key;
  out += "\":";
  append_number(out, value);
}

// The seconds part is formatted once a second.
void append_time(std::string& out, core::WallTime time) {
  thread_local std::time_t last = -1;
  thread_local char text[24];
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count();
  const auto seconds = static_cast<std::time_t>(us / 1'000'000);
  if (seconds != last) {
    std::tm utc{};
    gmtime_r(&seconds, &utc);
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    last = seconds;
  }
  out += text;
  char fraction[8];
  auto rest = us % 1'000'000;
  fraction[0] = '.';
  for (int i = 6; i >= 1; --i, rest /= 10) fraction[i] = static_cast<char>('0' + rest % 10);
  out.append(fraction, 7);
  out.push_back('Z');
}

}  // namespace

void append_neurons(std::string& out, api::NanoNeurons nano) {
  if (nano < 0) {
    out.push_back('-');
    nano = -nano;
  }
  append_number(out, nano / api::kNanoPerNeuron);
  std::int64_t fraction = nano % api::kNanoPerNeuron;
  if (fraction == 0) return;
  char digits[9];
  for (int i = 8; i >= 0; --i, fraction /= 10) digits[i] = static_cast<char>('0' + fraction % 10);
  std::size_t length = 9;
  while (digits[length - 1] == '0') --length;
  out.push_back('.');
  out.append(digits, length);
}

std::string neurons_text(api::NanoNeurons nano) {
  std::string out;
  append_neurons(out, nano);
  return out;
}

AccessLog::AccessLog(boost::asio::io_context& io, int fd, metrics::Counter dropped)
    : fd_(fd), dropped_(dropped), timer_(io) {}

void AccessLog::write(const AccessLine& line) {
  if (!on()) return;
  std::string& out = buffer_;
  out += "{\"time\":\"";
  append_time(out, line.time);
  out += "\",\"request_id\":\"";
  out += line.request_id;
  out.push_back('"');
  field(out, "peer", line.peer);
  field(out, "method", line.method);
  field(out, "path", line.path);
  field(out, "status", line.status);
  field(out, "endpoint", line.endpoint);
  field(out, "tenant", line.tenant);
  field(out, "key", line.key);
  field(out, "gateway", line.gateway);
  field(out, "model", line.model);
  field(out, "backend", line.backend);
  field(out, "tier", line.tier);
  field(out, "cache", line.cache);
  field(out, "outcome", line.outcome);
  field(out, "error", line.error);
  out += line.stream ? ",\"stream\":true" : ",\"stream\":false";
  field(out, "bytes_in", static_cast<std::int64_t>(line.bytes_in));
  field(out, "bytes_out", static_cast<std::int64_t>(line.bytes_out));
  field(out, "input_tokens", static_cast<std::int64_t>(line.usage.input_tokens));
  field(out, "cached_input_tokens", static_cast<std::int64_t>(line.usage.cached_input_tokens));
  field(out, "output_tokens", static_cast<std::int64_t>(line.usage.output_tokens));
  if (line.usage.estimated) out += ",\"estimated\":true";
  out += ",\"neurons\":";
  append_neurons(out, line.nano_neurons);
  field(out, "attempts", static_cast<std::int64_t>(line.attempts));
  field(out, "duration_us", line.duration_us);
  if (line.upstream_us >= 0) field(out, "upstream_us", line.upstream_us);
  if (line.first_token_us >= 0) field(out, "first_token_us", line.first_token_us);
  out += "}\n";
  if (out.size() >= kFlushBytes) {
    flush();
  } else if (!armed_) {
    armed_ = true;
    timer_.expires_after(kFlushAfter);
    timer_.async_wait([this](boost::system::error_code error) {
      if (error) return;  // the log is gone, or the timer was set anew
      armed_ = false;
      flush();
    });
  }
}

void AccessLog::flush() {
  std::string_view rest = buffer_;
  while (!rest.empty()) {
    const auto written = ::write(fd_, rest.data(), rest.size());
    if (written <= 0) {
      dropped_.add(static_cast<std::uint64_t>(std::count(rest.begin(), rest.end(), '\n')));
      break;
    }
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  buffer_.clear();
}

}  // namespace ganglion::gateway
