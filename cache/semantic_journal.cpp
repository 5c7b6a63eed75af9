// See cache/semantic_journal.hpp. A record: magic, size of what follows, keys, vector, seal; little endian.

#include "cache/semantic_journal.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>
#include <string_view>
#include <utility>

#include "core/log.hpp"
#include "core/secret.hpp"

namespace ganglion::cache {
namespace {

static_assert(std::endian::native == std::endian::little, "records are written as they lie in memory");

constexpr std::string_view kMagic = "GQS1";
constexpr std::size_t kHeadBytes = 8;
constexpr std::size_t kSealBytes = 16;
constexpr std::size_t kFixedBytes = 2 * 5 * 8 + 32 + 4 * 8;

template <class T>
void put(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put(std::string& out, const CacheKey& key) {
  for (const std::uint64_t part : {key.hash.low, key.hash.high, key.check.low, key.check.high, key.bytes})
    put(out, part);
}

template <class T>
T get(std::string_view& in) {
  T out{};
  std::memcpy(&out, in.data(), sizeof out);
  in.remove_prefix(sizeof out);
  return out;
}

CacheKey get_key(std::string_view& in) {
  CacheKey key;
  for (std::uint64_t* part : {&key.hash.low, &key.hash.high, &key.check.low, &key.check.high, &key.bytes})
    *part = get<std::uint64_t>(in);
  return key;
}

std::string encode(const SemanticRecord& record, const StoreSecret& secret) {
  const std::size_t vector_bytes = record.vector.size() * sizeof(float);
  std::string out{kMagic};
  put(out, static_cast<std::uint32_t>(kFixedBytes + vector_bytes + kSealBytes));
  put(out, record.partition);
  put(out, record.answer);
  out.append(record.name.view());
  put(out, record.text_bytes);
  put(out, record.numbers);
  put(out, record.text_digest);
  put(out, std::chrono::duration_cast<std::chrono::seconds>(record.expires.time_since_epoch()).count());
  out.append(reinterpret_cast<const char*>(record.vector.data()), vector_bytes);
  const auto seal = secret.seal(out);
  out.append(reinterpret_cast<const char*>(seal.data()), seal.size());
  return out;
}

// The bytes of the next record, whole; nullopt at the end and where it is torn.
std::optional<std::string> next_raw(std::istream& in) {
  std::string out(kHeadBytes, '\0');
  if (!in.read(out.data(), kHeadBytes) || !out.starts_with(kMagic)) return std::nullopt;
  std::uint32_t size = 0;
  std::memcpy(&size, out.data() + kMagic.size(), sizeof size);
  constexpr std::size_t kLeast = kFixedBytes + kSealBytes;
  if (size < kLeast || (size - kLeast) % sizeof(float) != 0 ||
      (size - kLeast) / sizeof(float) > SemanticJournal::kDimensionsMax) {
    return std::nullopt;
  }
  out.resize(kHeadBytes + size);
  if (!in.read(out.data() + kHeadBytes, size)) return std::nullopt;
  return out;
}

std::optional<SemanticRecord> decode(std::string_view raw, const StoreSecret& secret) {
  const std::string_view sealed = raw.substr(0, raw.size() - kSealBytes);
  const auto seal = secret.seal(sealed);
  const std::string_view expected{reinterpret_cast<const char*>(seal.data()), seal.size()};
  if (!core::equal_constant_time(raw.substr(sealed.size()), expected)) return std::nullopt;
  std::string_view in = sealed.substr(kHeadBytes);
  SemanticRecord record;
  record.partition = get_key(in);
  record.answer = get_key(in);
  std::memcpy(record.name.bytes.data(), in.data(), record.name.bytes.size());
  in.remove_prefix(record.name.bytes.size());
  record.text_bytes = get<std::uint64_t>(in);
  record.numbers = get<std::uint64_t>(in);
  record.text_digest = get<std::uint64_t>(in);
  record.expires = core::WallTime{std::chrono::seconds{get<std::int64_t>(in)}};
  record.vector.resize(in.size() / sizeof(float));
  std::memcpy(record.vector.data(), in.data(), in.size());
  return record;
}

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return true;
}

}  // namespace

SemanticJournal::SemanticJournal(std::string file, const StoreSecret& secret, std::size_t records_max)
    : file_(std::move(file)), secret_(secret), records_max_(std::max<std::size_t>(records_max, 1)) {}

SemanticJournal::~SemanticJournal() {
  if (fd_ >= 0) ::close(fd_);
}

bool SemanticJournal::load(core::WallTime now, const std::function<void(SemanticRecord)>& each) {
  return rewrite(now, each);
}

void SemanticJournal::append(const SemanticRecord& record, core::WallTime now) {
  if (fd_ < 0 || record.vector.empty() || record.vector.size() > kDimensionsMax) return;
  if (records_ >= 2 * records_max_ && !rewrite(now, {})) {
    ::close(std::exchange(fd_, -1));  // it must not grow; the next start tries again
    return;
  }
  struct stat info{};
  const bool known = ::fstat(fd_, &info) == 0;
  if (known && write_all(fd_, encode(record, secret_))) {
    ++records_;
    told_ = false;
    return;
  }
  failed("cannot write");
  // Half a record would end what is read of those that follow.
  if (known) [[maybe_unused]]
    const int cut = ::ftruncate(fd_, info.st_size);
}

// Two passes, so that a file is never held in memory: how many there are, then the newest of them.
bool SemanticJournal::rewrite(core::WallTime now, const std::function<void(SemanticRecord)>& each) {
  std::size_t found = 0;
  {
    std::ifstream in(file_, std::ios::binary);
    while (next_raw(in)) ++found;
  }
  const std::string aside = file_ + ".new";
  const int fd = ::open(aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  bool written = fd >= 0;
  std::size_t kept = 0;
  std::ifstream in(file_, std::ios::binary);
  for (std::size_t at = 0; written && at < found; ++at) {
    const auto raw = next_raw(in);
    if (!raw) break;
    if (found - at > records_max_) continue;
    auto record = decode(*raw, secret_);
    if (!record) break;
    if (record->expires <= now) continue;
    written = write_all(fd, *raw);
    ++kept;
    if (written && each) each(*std::move(record));
  }
  written = written && ::rename(aside.c_str(), file_.c_str()) == 0;
  if (!written) {
    failed("cannot write anew");
    if (fd >= 0) ::close(fd);
    return false;
  }
  if (const int before = std::exchange(fd_, fd); before >= 0) ::close(before);
  records_ = kept;
  return true;
}

void SemanticJournal::failed(const char* what) {
  if (std::exchange(told_, true)) return;
  core::log(core::LogLevel::warn, "semantic_journal_failed",
            {{"file", file_}, {"what", what}, {"why", std::strerror(errno)}});
}

}  // namespace ganglion::cache
