// See cache/disk_purges.hpp. File `purges`: "<crc> <position> <scope>" a line. File `generation`: "<crc> <generation>",
// written after the purges that it speaks of are durable.

#include "cache/disk_purges.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "core/digest.hpp"
#include "core/log.hpp"

namespace ganglion::cache {
namespace {

using core::ErrorKind;

constexpr std::size_t kMarksMax = 1024;

std::string reason() {
  return std::strerror(errno);
}

std::string checked(std::string_view text) {
  return std::to_string(core::crc32c(text)) + " " + std::string{text} + "\n";
}

// What a line says, or nullopt if it is not as it was written.
std::optional<std::string_view> unchecked(std::string_view line) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const std::string_view text = line.substr(space + 1);
  if (std::to_string(core::crc32c(text)) != line.substr(0, space)) return std::nullopt;
  return text;
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t out = 0;
  const auto [stop, bad] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (bad != std::errc{} || stop != text.data() + text.size()) return std::nullopt;
  return out;
}

std::string read_file(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Anew: aside, synced, renamed. False with errno set.
bool write_file(const std::string& file, std::string_view text) {
  const std::string aside = file + ".new";
  const int fd = ::open(aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  bool written = true;
  while (written && !text.empty()) {
    const ssize_t put = ::write(fd, text.data(), text.size());
    if (put < 0 && errno == EINTR) continue;
    written = put > 0;
    if (written) text.remove_prefix(static_cast<std::size_t>(put));
  }
  written = written && ::fdatasync(fd) == 0;
  const int error = errno;
  ::close(fd);
  errno = error;
  return written && ::rename(aside.c_str(), file.c_str()) == 0;
}

std::string purge_line(std::uint64_t position, const PurgeScope& scope) {
  return checked(std::to_string(position) + " " + to_text(scope));
}

}  // namespace

DiskPurges::DiskPurges(std::string directory) : directory_(std::move(directory)), file_(directory_ + "/purges") {}

DiskPurges::~DiskPurges() {
  if (fd_ >= 0) ::close(fd_);
}

bool DiskPurges::load() {
  const std::string text = read_file(file_);
  std::string_view rest = text;
  // What follows the last line's end is a purge that was never acknowledged.
  for (std::size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
    const auto line = unchecked(rest.substr(0, end));
    rest.remove_prefix(end + 1);
    const std::size_t space = line ? line->find(' ') : std::string_view::npos;
    const auto position = space == std::string_view::npos ? std::nullopt : number(line->substr(0, space));
    if (!position) {
      core::log(core::LogLevel::error, "cache_purges_damaged",
                {{"file", file_}, {"why", "starting with an empty tier"}});
      marks_.clear();
      return false;
    }
    // A scope of a later version may say more than we understand: everything, then.
    marks_.push_back({.position = *position, .scope = scope_from_text(line->substr(space + 1)).value_or(PurgeScope{})});
  }
  // Missing or damaged: purges are made once more.
  std::string known = read_file(directory_ + "/generation");
  if (known.ends_with('\n')) known.pop_back();
  generation_ = unchecked(known).and_then(number).value_or(0);
  return true;
}

core::Result<void> DiskPurges::begin(std::uint64_t oldest) {
  std::erase_if(marks_, [&](const Mark& mark) { return mark.position <= oldest; });
  while (marks_.size() > kMarksMax) {
    before_ = std::max(before_, marks_.front().position);
    marks_.pop_front();
  }
  if (!rewrite()) return core::fail(ErrorKind::internal, "cannot write " + file_ + ": " + reason());
  return {};
}

bool DiskPurges::purged(std::uint64_t position, const Entry& entry) const {
  if (position < before_) return true;
  return std::ranges::any_of(marks_,
                             [&](const Mark& mark) { return position < mark.position && mark.scope.matches(entry); });
}

bool DiskPurges::any_after(std::uint64_t position) const {
  return position < before_ || std::ranges::any_of(marks_, [&](const Mark& mark) { return mark.position > position; });
}

core::Result<void> DiskPurges::add(std::uint64_t position, const PurgeScope& scope) {
  marks_.push_back({.position = position, .scope = scope});
  bool durable = true;
  if (marks_.size() > kMarksMax) {
    // Half of them at once: the file is written anew.
    for (std::size_t i = 0; i < kMarksMax / 2; ++i) {
      before_ = std::max(before_, marks_.front().position);
      marks_.pop_front();
    }
    durable = rewrite();
  } else {
    durable = append(marks_.back());
  }
  if (durable) return {};
  unwritten_ = true;
  return core::fail(ErrorKind::internal, "the purge could not be written to " + directory_ + ": " + reason());
}

void DiskPurges::caught_up(std::uint64_t generation) {
  if (generation <= generation_ || (unwritten_ && !rewrite())) return;
  generation_ = generation;
  if (write_file(directory_ + "/generation", checked(std::to_string(generation)))) return;
  core::log(core::LogLevel::warn, "cache_generation_not_written", {{"directory", directory_}, {"why", reason()}});
}

// Without those that nothing is left of.
bool DiskPurges::save() const {
  std::string text;
  if (before_ != 0) text = purge_line(before_, {});
  for (const Mark& mark : marks_) text += purge_line(mark.position, mark.scope);
  return write_file(file_, text);
}

bool DiskPurges::rewrite() {
  if (!save()) return false;
  const int fd = ::open(file_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0) return false;
  if (const int before = std::exchange(fd_, fd); before >= 0) ::close(before);
  unwritten_ = false;
  return true;
}

bool DiskPurges::append(const Mark& mark) {
  const std::string line = purge_line(mark.position, mark.scope);
  struct stat info{};
  const bool known = ::fstat(fd_, &info) == 0;
  const bool durable =
      known && ::write(fd_, line.data(), line.size()) == static_cast<ssize_t>(line.size()) && ::fdatasync(fd_) == 0;
  const int error = errno;
  // Half a line would spoil those that follow.
  if (known && !durable) [[maybe_unused]]
    const int cut = ::ftruncate(fd_, info.st_size);
  errno = error;
  return durable;
}

}  // namespace ganglion::cache
