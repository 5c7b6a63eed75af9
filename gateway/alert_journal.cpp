// See gateway/alert_journal.hpp.

#include "gateway/alert_journal.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/log.hpp"

namespace ganglion::gateway {
namespace {

using Json = nlohmann::ordered_json;

// The longest window, and a month.
constexpr std::int64_t kKept_s = 400 * 86'400;

std::int64_t seconds_of(core::WallTime at) {
  return std::chrono::floor<std::chrono::seconds>(at).time_since_epoch().count();
}

std::unexpected<core::Error> io_error(const std::string& path) {
  return core::fail(core::ErrorKind::internal, "cannot write " + path + ": " + std::strerror(errno));
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

std::string line_of(std::string_view id, std::string_view series, std::int64_t raised_s, std::string_view body) {
  return Json{{"id", id}, {"series", series}, {"raised", raised_s}, {"body", body}}.dump(
             -1, ' ', false, Json::error_handler_t::replace) +
         "\n";
}

}  // namespace

AlertJournal::AlertJournal(AlertJournal&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      order_(std::move(other.order_)),
      entries_(std::move(other.entries_)),
      last_by_series_(std::move(other.last_by_series_)) {}

AlertJournal::~AlertJournal() {
  if (fd_ >= 0) ::close(fd_);
}

core::Result<AlertJournal> AlertJournal::open(std::string path, core::WallTime now) {
  AlertJournal journal(std::move(path));
  std::ifstream in(journal.path_);
  for (std::string line; std::getline(in, line);) journal.take(line);
  if (auto done = journal.rewrite(now); !done) return std::unexpected(std::move(done.error()));
  return journal;
}

void AlertJournal::take(const std::string& line) {
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("id") || !json["id"].is_string()) return;  // torn by a crash
  for (const char* name : {"series", "body"})
    if (json.contains(name) && !json[name].is_string()) return;  // damaged, or somebody's own
  if (json.contains("raised") && !json["raised"].is_number_integer()) return;
  const auto id = json["id"].get<std::string>();
  if (json.contains("done")) {
    if (const auto it = entries_.find(id); it != entries_.end()) it->second.body.clear();
    return;
  }
  Entry entry{.series = json.value("series", std::string{}),
              .raised_s = json.value("raised", std::int64_t{0}),
              .body = json.value("body", std::string{})};
  auto& last = last_by_series_[entry.series];
  last = std::max(last, entry.raised_s);
  if (entries_.insert_or_assign(id, std::move(entry)).second) order_.push_back(id);
}

core::Result<void> AlertJournal::rewrite(core::WallTime now) {
  const std::int64_t oldest = seconds_of(now) - kKept_s;
  std::erase_if(order_, [&](const std::string& id) {
    const auto it = entries_.find(id);
    if (it->second.raised_s >= oldest) return false;
    entries_.erase(it);
    return true;
  });
  const std::string fresh = path_ + ".new";
  fd_ = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
  if (fd_ < 0) return io_error(fresh);
  std::string text;
  for (const std::string& id : order_) {
    const Entry& entry = entries_.at(id);
    text += line_of(id, entry.series, entry.raised_s, entry.body);
  }
  if (!write_all(fd_, text) || ::fsync(fd_) != 0 || ::rename(fresh.c_str(), path_.c_str()) != 0) return io_error(fresh);
  return {};
}

bool AlertJournal::raised(const metering::BudgetAlert& alert) const {
  if (entries_.contains(alert.id)) return true;
  if (alert.window.kind != metering::WindowKind::sliding) return false;
  const auto last = last_by_series_.find(alert.series);
  return last != last_by_series_.end() && seconds_of(alert.at) < last->second + alert.window.length.count();
}

core::Result<void> AlertJournal::append(const std::string& line) {
  if (!write_all(fd_, line) || ::fdatasync(fd_) != 0) return io_error(path_);
  return {};
}

core::Result<void> AlertJournal::raise(const metering::BudgetAlert& alert, const std::string& body) {
  const std::string line = line_of(alert.id, alert.series, seconds_of(alert.at), body);
  auto done = append(line);
  if (done) take(line);
  return done;
}

core::Result<void> AlertJournal::done(const std::string& id) {
  if (const auto it = entries_.find(id); it != entries_.end()) it->second.body.clear();
  return append(Json{{"id", id}, {"done", true}}.dump() + "\n");
}

std::vector<AlertJournal::Pending> AlertJournal::pending() const {
  std::vector<Pending> out;
  for (const std::string& id : order_) {
    const Entry& entry = entries_.at(id);
    if (!entry.body.empty()) out.push_back({.id = id, .body = entry.body});
  }
  return out;
}

}  // namespace ganglion::gateway
