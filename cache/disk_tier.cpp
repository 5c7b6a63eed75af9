// See cache/disk_tier.hpp. A record is a head of kHeadBytes (magic, size, expiry, key, CRC-32C of these) and the
// encoded entry. Purges are cache/disk_purges.hpp.

#include "cache/disk_tier.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/log.hpp"

namespace ganglion::cache {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

constexpr std::string_view kMagic = "GCS1";
constexpr std::size_t kHeadBytes = 48;
constexpr std::string_view kSuffix = ".seg";
constexpr std::size_t kScanStep = 4096;  // records
constexpr std::uint64_t kSegmentsWanted = 64;
constexpr std::uint64_t kSegmentBytesMin = 256UL * 1024;
constexpr std::uint64_t kSegmentBytesMax = 1024UL * 1024 * 1024;
constexpr std::uint64_t kCarriedBytesMax = 8UL * 1024 * 1024;
constexpr std::chrono::seconds kPauseMax{60};

std::string reason() {
  return std::strerror(errno);
}

void put32(char* at, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) at[i] = static_cast<char>(value >> (8 * i));
}
std::uint32_t get32(const char* at) {
  std::uint32_t out = 0;
  for (int i = 0; i < 4; ++i) out |= std::uint32_t{static_cast<unsigned char>(at[i])} << (8 * i);
  return out;
}

using Head = std::array<char, kHeadBytes>;

Head head_of(const StoreKey& key, std::uint32_t bytes, std::uint32_t expires) {
  Head head{};
  std::memcpy(head.data(), kMagic.data(), 4);
  put32(head.data() + 4, bytes);
  put32(head.data() + 8, expires);
  std::memcpy(head.data() + 12, key.bytes.data(), 32);
  put32(head.data() + 44, core::crc32c({head.data(), 44}));
  return head;
}

bool intact(const Head& head) {
  return std::memcmp(head.data(), kMagic.data(), 4) == 0 && get32(head.data() + 44) == core::crc32c({head.data(), 44});
}

StoreKey key_in(const Head& head) {
  StoreKey key;
  std::memcpy(key.bytes.data(), head.data() + 12, 32);
  return key;
}

// All of it, or false with errno set.
bool read_at(int fd, char* to, std::size_t size, std::uint64_t offset) {
  while (size > 0) {
    const ssize_t got = ::pread(fd, to, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      if (got == 0) errno = ENODATA;
      return false;
    }
    to += got;
    size -= static_cast<std::size_t>(got);
    offset += static_cast<std::uint64_t>(got);
  }
  return true;
}

bool write_at(int fd, std::string_view bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
  return true;
}

std::uint32_t unix_seconds(core::WallTime time) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(seconds, 0, UINT32_MAX));
}

constexpr std::uint64_t position_of(std::uint32_t segment, std::uint64_t offset) {
  return (std::uint64_t{segment} << 32) | offset;
}

}  // namespace

// Segments that are still to be read again, and where in the newest of them we are.
struct DiskTier::Scan {
  struct Found {
    StoreKey key;
    Place place;
  };
  std::vector<std::uint32_t> numbers;  // oldest first
  std::uint64_t offset = 0;
  std::vector<Found> found;  // of the current segment
};

DiskTier::DiskTier(const DiskOptions& options, const core::Clock& clock)
    : options_(options), clock_(clock), purges_(options.directory) {
  segment_bytes_ = std::clamp(options_.bytes_max / kSegmentsWanted, kSegmentBytesMin, kSegmentBytesMax);
}

DiskTier::~DiskTier() {
  for (const Segment& segment : segments_) ::close(segment.fd);
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

core::Result<std::unique_ptr<DiskTier>> DiskTier::open(const DiskOptions& options, const core::Clock& clock) {
  std::unique_ptr<DiskTier> tier(new DiskTier(options, clock));
  if (auto done = tier->take_directory(); !done) return std::unexpected(std::move(done.error()));
  if (auto done = tier->find_segments(); !done) return std::unexpected(std::move(done.error()));
  if (auto done = tier->load_purges(); !done) return std::unexpected(std::move(done.error()));
  return tier;
}

core::Result<void> DiskTier::take_directory() {
  std::error_code error;
  const fs::path directory = options_.directory;
  fs::create_directories(directory.parent_path(), error);
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return core::fail(ErrorKind::internal, "cannot make the cache directory " + options_.directory + ": " + reason());
  }
  lock_fd_ = ::open((directory / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_fd_ < 0) {
    return core::fail(ErrorKind::internal, "cannot use the cache directory " + options_.directory + ": " + reason());
  }
  if (::flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    return core::fail(ErrorKind::internal, "the cache directory " + options_.directory + " is another process's");
  }
  return {};
}

core::Result<void> DiskTier::find_segments() {
  std::error_code error;
  std::vector<std::uint32_t> numbers;
  for (const fs::directory_entry& file : fs::directory_iterator(options_.directory, error)) {
    const std::string name = file.path().filename().string();
    if (!name.ends_with(kSuffix)) continue;
    std::uint32_t number = 0;
    const char* const end = name.data() + name.size() - kSuffix.size();
    const auto [stop, bad] = std::from_chars(name.data(), end, number, 16);
    if (bad != std::errc{} || stop != end || number == UINT32_MAX) continue;
    numbers.push_back(number);
  }
  if (error) return core::fail(ErrorKind::internal, "cannot list " + options_.directory + ": " + error.message());
  std::ranges::sort(numbers);
  scan_ = std::make_unique<Scan>();
  for (const std::uint32_t number : numbers) {
    next_number_ = number + 1;
    struct stat info{};
    const int fd = ::open(path(number).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ::fstat(fd, &info) != 0 || info.st_size == 0) {
      if (fd >= 0) ::close(fd);
      fs::remove(path(number), error);
      continue;
    }
    segments_.push_back({.number = number, .fd = fd, .bytes = static_cast<std::uint64_t>(info.st_size), .keys = {}});
    stats_.bytes_now += segments_.back().bytes;
    scan_->numbers.push_back(number);
  }
  while (stats_.bytes_now > options_.bytes_max && !segments_.empty()) evict_oldest();
  return {};
}

core::Result<void> DiskTier::load_purges() {
  if (!purges_.load()) {
    while (!segments_.empty()) evict_oldest();
  }
  return purges_.begin(segments_.empty() ? UINT64_MAX : position_of(segments_.front().number, 0));
}

bool DiskTier::holds(const StoreKey& key) const {
  const std::lock_guard guard{lock_};
  return index_.contains(key);
}

DiskStats DiskTier::stats() const {
  const std::lock_guard guard{lock_};
  DiskStats out = stats_;
  out.entries_now = index_.size();
  return out;
}

bool DiskTier::scan_some() {
  if (!scan_) return false;
  if (scan_->numbers.empty()) {
    scan_.reset();
    const std::lock_guard guard{lock_};
    stats_.scanned = true;
    return false;
  }
  const std::uint32_t number = scan_->numbers.back();
  Segment* const segment = segment_of(number);
  bool more = segment != nullptr;  // else it was evicted meanwhile
  const std::uint32_t now = unix_seconds(clock_.wall());
  for (std::size_t i = 0; more && i < kScanStep; ++i) {
    Head head;
    const std::uint64_t at = scan_->offset;
    more = at + kHeadBytes <= segment->bytes && read_at(segment->fd, head.data(), kHeadBytes, at) && intact(head);
    if (!more) break;
    const std::uint32_t bytes = get32(head.data() + 4);
    scan_->offset = at + kHeadBytes + bytes;
    more = scan_->offset <= segment->bytes;
    const std::uint32_t expires = get32(head.data() + 8);
    if (!more || expires <= now) continue;
    scan_->found.push_back(
        {.key = key_in(head),
         .place = {.segment = number, .offset = static_cast<std::uint32_t>(at), .bytes = bytes, .expires = expires}});
  }
  if (more) return true;
  // The last record of a key counts; and those of segments read before are newer.
  for (auto found = scan_->found.rbegin(); segment != nullptr && found != scan_->found.rend(); ++found) {
    if (!holds(found->key)) publish(found->key, found->place, *segment);
  }
  scan_->numbers.pop_back();
  scan_->offset = 0;
  scan_->found.clear();
  return true;
}

std::optional<DiskTier::Record> DiskTier::read(const StoreKey& key) {
  Place place;
  {
    const std::lock_guard guard{lock_};
    const auto it = index_.find(key);
    if (it == index_.end()) return std::nullopt;
    if (it->second.expires <= unix_seconds(clock_.wall())) {
      index_.erase(it);
      return std::nullopt;
    }
    it->second.used = true;
    place = it->second;
    ++stats_.reads;
    stats_.bytes_read += place.bytes;
  }
  Record out{.bytes = std::string(kHeadBytes + place.bytes, '\0'),
             .position = position_of(place.segment, place.offset)};
  const Segment* const segment = segment_of(place.segment);
  Head head;
  if (segment != nullptr && read_at(segment->fd, out.bytes.data(), out.bytes.size(), place.offset)) {
    std::memcpy(head.data(), out.bytes.data(), kHeadBytes);
    if (intact(head) && key_in(head) == key && get32(head.data() + 4) == place.bytes) {
      out.bytes.erase(0, kHeadBytes);
      return out;
    }
  }
  forget(key);
  const std::lock_guard guard{lock_};
  ++stats_.read_errors;
  return std::nullopt;
}

bool DiskTier::purged(std::uint64_t position, const Entry& entry) const {
  return purges_.purged(position, entry);
}

void DiskTier::forget(const StoreKey& key) {
  const std::lock_guard guard{lock_};
  index_.erase(key);
}

bool DiskTier::write(const StoreKey& key, std::string_view encoded, core::WallTime expires) {
  const std::uint64_t record = kHeadBytes + encoded.size();
  const bool paused = clock_.steady() < paused_until_;
  if (paused || encoded.size() > options_.entry_bytes_max || record > segment_bytes_) {
    const std::lock_guard guard{lock_};
    ++stats_.refused;
    return false;
  }
  make_room(record);
  if (!append(key, encoded, unix_seconds(expires))) return false;
  pause_ = std::chrono::seconds{0};
  const std::lock_guard guard{lock_};
  ++stats_.writes;
  stats_.bytes_written += record;
  stats_.writing = true;
  return true;
}

void DiskTier::make_room(std::size_t bytes) {
  while (!segments_.empty()) {
    {
      const std::lock_guard guard{lock_};
      if (stats_.bytes_now + bytes <= options_.bytes_max && index_.size() < kEntriesMax) return;
    }
    evict_oldest();
  }
}

void DiskTier::evict_oldest() {
  Segment segment = std::move(segments_.front());
  segments_.pop_front();
  if (segments_.empty()) writable_ = false;
  struct Carried {
    StoreKey key;
    Place place;
    std::string bytes;
  };
  std::vector<Carried> carried;
  std::uint64_t carried_bytes = 0;
  const std::uint64_t carried_max = std::min(segment_bytes_ / 4, kCarriedBytesMax);
  const std::uint32_t now = unix_seconds(clock_.wall());
  {
    const std::lock_guard guard{lock_};
    for (const StoreKey& key : segment.keys) {
      const auto it = index_.find(key);
      if (it == index_.end() || it->second.segment != segment.number) continue;
      const Place place = it->second;
      index_.erase(it);
      // A purge later than its place might mean it, and carrying would move it past that: then it goes.
      const bool safe = !purges_.any_after(position_of(place.segment, place.offset));
      if (place.used && place.expires > now && safe && carried_bytes + place.bytes <= carried_max) {
        carried_bytes += place.bytes;
        carried.push_back({.key = key, .place = place, .bytes = {}});
      } else {
        ++stats_.evicted;
      }
    }
    stats_.bytes_now -= segment.bytes;
  }
  std::erase_if(carried, [&](Carried& each) {
    each.bytes.resize(each.place.bytes);
    return !read_at(segment.fd, each.bytes.data(), each.bytes.size(), each.place.offset + kHeadBytes);
  });
  ::close(segment.fd);
  ::unlink(path(segment.number).c_str());
  for (const Carried& each : carried) {
    if (!append(each.key, each.bytes, each.place.expires)) return;
    const std::lock_guard guard{lock_};
    ++stats_.carried;
  }
}

bool DiskTier::roll() {
  const std::uint32_t number = next_number_++;
  const int fd = ::open(path(number).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) {
    write_failed("cannot make a segment", errno);
    return false;
  }
  segments_.push_back({.number = number, .fd = fd, .bytes = 0, .keys = {}});
  writable_ = true;
  return true;
}

bool DiskTier::append(const StoreKey& key, std::string_view encoded, std::uint32_t expires) {
  const bool full = writable_ && segments_.back().bytes + kHeadBytes + encoded.size() > segment_bytes_;
  if ((!writable_ || full) && !roll()) return false;
  Segment& segment = segments_.back();
  const Head head = head_of(key, static_cast<std::uint32_t>(encoded.size()), expires);
  std::string record{head.data(), head.size()};
  record += encoded;
  if (!write_at(segment.fd, record, segment.bytes)) {
    const int error = errno;
    [[maybe_unused]] const int cut = ::ftruncate(segment.fd, static_cast<off_t>(segment.bytes));
    write_failed("cannot write a segment", error);
    return false;
  }
  publish(key,
          {.segment = segment.number,
           .offset = static_cast<std::uint32_t>(segment.bytes),
           .bytes = static_cast<std::uint32_t>(encoded.size()),
           .expires = expires},
          segment);
  segment.bytes += record.size();
  const std::lock_guard guard{lock_};
  stats_.bytes_now += record.size();
  return true;
}

void DiskTier::publish(const StoreKey& key, Place place, Segment& segment) {
  segment.keys.push_back(key);
  const std::lock_guard guard{lock_};
  index_.insert_or_assign(key, place);
}

// A full disk gets back what we can spare: somebody else may need it more than a cache does.
void DiskTier::write_failed(std::string_view what, int error) {
  const bool full = error == ENOSPC || error == EDQUOT;
  pause_ = pause_.count() == 0 ? std::chrono::seconds{1} : std::min(pause_ * 2, kPauseMax);
  paused_until_ = clock_.steady() + pause_;
  {
    const std::lock_guard guard{lock_};
    ++stats_.write_errors;
    stats_.writing = false;
  }
  core::log(core::LogLevel::error, "cache_disk_write_failed",
            {{"what", what}, {"why", std::strerror(error)}, {"pause_s", pause_.count()}});
  if (full && segments_.size() > 1) {
    for (const StoreKey& key : segments_.front().keys) {
      const std::lock_guard guard{lock_};
      if (const auto it = index_.find(key); it != index_.end()) it->second.used = false;
    }
    evict_oldest();
  }
}

core::Result<void> DiskTier::purge(const PurgeScope& scope) {
  if (scope.all()) {
    const std::lock_guard guard{lock_};
    index_.clear();
  }
  return purges_.add(position_now(), scope);
}

std::uint64_t DiskTier::position_now() const {
  if (!writable_) return position_of(next_number_, 0);
  return position_of(segments_.back().number, segments_.back().bytes);
}

DiskTier::Segment* DiskTier::segment_of(std::uint32_t number) {
  const auto it = std::ranges::lower_bound(segments_, number, {}, &Segment::number);
  return it != segments_.end() && it->number == number ? &*it : nullptr;
}

std::string DiskTier::path(std::uint32_t number) const {
  char name[16];
  std::snprintf(name, sizeof name, "%08x", number);
  return options_.directory + "/" + name + std::string{kSuffix};
}

}  // namespace ganglion::cache
