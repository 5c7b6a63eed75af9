// See metering/anchors.hpp.
//
//   sealed EPOCH FIRST LAST BYTES CHAIN SHA256 LINE-CHAIN
//   retired EPOCH LINE-CHAIN
//
// LINE-CHAIN is the first 16 bytes of SHA-256(previous LINE-CHAIN, the line up to the blank before it); the first line
// continues the ledger's id.

#include "metering/anchors.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "core/digest.hpp"
#include "metering/segment_scan.hpp"

namespace ganglion::metering {
namespace {

constexpr std::size_t kHexChain = 2 * kChainBytes;

std::unexpected<core::Error> io_error(const std::string& what, const std::string& path, int error) {
  return core::fail(core::ErrorKind::ledger_unavailable,
                    what + " " + path + ": " + std::system_category().message(error));
}

std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> out;
  while (true) {
    const std::size_t blank = line.find(' ');
    out.push_back(line.substr(0, blank));
    if (blank == std::string_view::npos) return out;
    line.remove_prefix(blank + 1);
  }
}

bool number(std::string_view text, std::uint64_t& out) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), out);
  return parsed.ec == std::errc{} && parsed.ptr == text.data() + text.size() && !text.empty();
}

bool chain_value(std::string_view text, Chain& out) {
  if (text.size() != kHexChain) return false;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto parsed = std::from_chars(text.data() + 2 * i, text.data() + 2 * i + 2, out[i], 16);
    if (parsed.ec != std::errc{} || parsed.ptr != text.data() + 2 * i + 2) return false;
  }
  return true;
}

// "" or what is wrong with the line.
std::string apply(std::string_view line, AnchorList& list, ChainHasher& hasher) {
  const std::size_t last_blank = line.rfind(' ');
  Chain chain{};
  if (last_blank == std::string_view::npos || !chain_value(line.substr(last_blank + 1), chain))
    return "not an anchor line";
  const std::string_view said = line.substr(0, last_blank);
  if (hasher.next(list.tip, said) != chain) return "chain of anchors broken";
  const auto part = words(said);
  Anchor anchor;
  if (part.size() == 7 && part[0] == "sealed") {
    const bool ok = number(part[1], anchor.epoch) && number(part[2], anchor.first_sequence) &&
                    number(part[3], anchor.last_sequence) && number(part[4], anchor.bytes) &&
                    chain_value(part[5], anchor.chain);
    if (!ok) return "not an anchor line";
    anchor.sha256 = part[6];
    if (!list.segments.empty() && anchor.epoch != list.segments.rbegin()->first + 1) return "anchor out of order";
    list.segments[anchor.epoch] = std::move(anchor);
  } else if (part.size() == 2 && part[0] == "retired" && number(part[1], anchor.epoch)) {
    const auto found = list.segments.find(anchor.epoch);
    if (found == list.segments.end()) return "drops a segment that was never full";
    found->second.retired = true;
  } else {
    return "not an anchor line";
  }
  list.tip = chain;
  return {};
}

}  // namespace

std::string anchors_path(const std::string& directory) {
  return directory + "/anchors";
}

AnchorList parse_anchors(std::string_view text, const LedgerId& ledger) {
  AnchorList list;
  list.bytes = text.size();
  static_assert(sizeof(LedgerId) == sizeof(Chain));
  list.tip = ledger;
  ChainHasher hasher;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) {
      list.problem = "the last line has no end";
      list.torn = true;
      return list;
    }
    list.problem = apply(text.substr(0, end), list, hasher);
    if (!list.problem.empty()) return list;
    list.good_bytes += end + 1;
    text.remove_prefix(end + 1);
  }
  return list;
}

core::Result<AnchorList> read_anchors(const std::string& directory, const LedgerId& ledger) {
  const std::string path = anchors_path(directory);
  if (::access(path.c_str(), F_OK) != 0 && errno == ENOENT) return parse_anchors({}, ledger);
  const auto text = read_segment(path);
  if (!text) return std::unexpected(text.error());
  return parse_anchors(*text, ledger);
}

core::Result<AnchorFile> AnchorFile::open(const std::string& directory, const LedgerId& ledger) {
  auto list = read_anchors(directory, ledger);
  if (!list) return std::unexpected(list.error());
  AnchorFile out;
  out.path_ = anchors_path(directory);
  if (!list->problem.empty() && !list->torn)
    return core::fail(core::ErrorKind::ledger_unavailable, out.path_ + " is bad at offset " +
                                                               std::to_string(list->good_bytes) + ": " + list->problem +
                                                               ". Nothing was changed.");
  if (list->torn) {
    if (::truncate(out.path_.c_str(), static_cast<off_t>(list->good_bytes)) != 0)
      return io_error("cannot truncate", out.path_, errno);
  }
  out.list_ = std::move(*list);
  return out;
}

core::Result<void> AnchorFile::append(std::string line) {
  ChainHasher hasher;
  const Chain chain = hasher.next(list_.tip, line);
  line += " " + core::hex(chain) + "\n";
  const int fd = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return io_error("cannot open", path_, errno);
  int error = 0;
  std::string_view rest = line;
  std::uint64_t at = list_.good_bytes;
  while (!rest.empty() && error == 0) {
    const ssize_t wrote = ::pwrite(fd, rest.data(), rest.size(), static_cast<off_t>(at));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) {
      error = wrote < 0 ? errno : ENOSPC;
      break;
    }
    rest.remove_prefix(static_cast<std::size_t>(wrote));
    at += static_cast<std::uint64_t>(wrote);
  }
  if (error == 0 && ::fsync(fd) != 0) error = errno;
  if (error != 0) {
    // What was written of the line is overwritten by the next attempt; a shorter rest would spoil it.
    [[maybe_unused]] const int cut = ::ftruncate(fd, static_cast<off_t>(list_.good_bytes));
  }
  ::close(fd);
  if (error != 0) return io_error("cannot write", path_, error);
  list_.good_bytes += line.size();
  list_.tip = chain;
  return {};
}

core::Result<void> AnchorFile::seal(const Anchor& anchor) {
  auto done = append("sealed " + std::to_string(anchor.epoch) + " " + std::to_string(anchor.first_sequence) + " " +
                     std::to_string(anchor.last_sequence) + " " + std::to_string(anchor.bytes) + " " +
                     core::hex(anchor.chain) + " " + anchor.sha256);
  if (done) list_.segments[anchor.epoch] = anchor;
  return done;
}

core::Result<void> AnchorFile::retire(std::uint64_t epoch) {
  auto done = append("retired " + std::to_string(epoch));
  if (done) list_.segments[epoch].retired = true;
  return done;
}

}  // namespace ganglion::metering
