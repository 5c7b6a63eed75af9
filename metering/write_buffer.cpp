// See metering/write_buffer.hpp. The map has two halves: one takes appends while the other is being written, so that at
// every instant each record that was appended stands in the segment or in the map.

#include "metering/write_buffer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "core/log.hpp"
#include "metering/segment_scan.hpp"

namespace ganglion::metering {
namespace {

// Of a gateway that does 50,000 requests a second, what comes in 8 ms.
constexpr std::size_t kHalfBytes = 256UL * 1024;
constexpr std::string_view kName = "/unwritten";

}  // namespace

class WriteBuffer::Wrapped final : public LedgerFile {
 public:
  Wrapped(WriteBuffer& buffer, std::shared_ptr<LedgerFile> file, std::uint64_t bytes)
      : buffer_(buffer), file_(std::move(file)), bytes_(bytes) {}

  core::Result<void> write(std::uint64_t offset, std::string_view data, bool& out_of_space) override {
    out_of_space = false;
    // A segment's beginning is written at once: whoever starts after us must find it before what follows it.
    const bool may_wait = offset != 0 && offset + data.size() <= bytes_;
    if (may_wait && buffer_.hold(file_, offset, data)) return {};
    if (auto flushed = buffer_.flush(&out_of_space); !flushed) return flushed;
    if (may_wait && buffer_.hold(file_, offset, data)) return {};
    return file_->write(offset, data, out_of_space);
  }

  core::Result<void> sync() override {
    if (auto flushed = buffer_.flush(); !flushed) return flushed;
    return file_->sync();
  }

  core::Result<void> truncate(std::uint64_t bytes) override {
    if (auto flushed = buffer_.flush(); !flushed) return flushed;
    return file_->truncate(bytes);
  }

 private:
  WriteBuffer& buffer_;
  const std::shared_ptr<LedgerFile> file_;
  const std::uint64_t bytes_;
};

WriteBuffer::WriteBuffer(const std::string& directory, LedgerStorage& storage) {
  auto map = storage.map(directory + std::string{kName}, 2 * kHalfBytes);
  if (!map) {
    core::log(core::LogLevel::warn, "ledger_unbuffered",
              {{"why", map.error().message}, {"effect", "every record is written by a system call of its own"}});
    return;
  }
  map_ = std::move(*map);
  held_.bytes.reserve(kHalfBytes);
  leaving_.bytes.reserve(kHalfBytes);
}

WriteBuffer::~WriteBuffer() = default;

bool WriteBuffer::buffering() const {
  return map_ != nullptr && !map_->lost();
}

std::shared_ptr<LedgerFile> WriteBuffer::wrap(std::shared_ptr<LedgerFile> file, std::uint64_t bytes) {
  return std::make_shared<Wrapped>(*this, std::move(file), bytes);
}

// False: it must be written by the caller, after what is held. Nothing was taken then.
bool WriteBuffer::hold(const std::shared_ptr<LedgerFile>& file, std::uint64_t offset, std::string_view data) {
  const std::lock_guard lock(mutex_);
  if (!buffering()) return false;
  std::string& bytes = held_.bytes;
  if (bytes.empty()) {
    held_.file = file;
    held_.offset = offset;
  } else if (held_.file != file || held_.offset + bytes.size() != offset) {
    return false;
  }
  if (bytes.size() + data.size() > kHalfBytes) return false;
  std::memcpy(map_->data() + half_ * kHalfBytes + bytes.size(), data.data(), data.size());
  if (map_->lost()) {
    core::log(core::LogLevel::error, "ledger_unbuffered",
              {{"why", "the kernel could not give a page of the buffer"},
               {"effect", "every record is written by a system call of its own until the gateway is restarted"}});
    return false;
  }
  bytes.append(data);
  return true;
}

// Writes leaving_, under flushing_.
core::Result<void> WriteBuffer::write_stretch(bool& out_of_space) {
  auto wrote = leaving_.file->write(leaving_.offset, leaving_.bytes, out_of_space);
  if (!wrote) return wrote;
  const std::lock_guard lock(mutex_);
  leaving_.bytes.clear();
  leaving_.file.reset();
  return {};
}

core::Result<void> WriteBuffer::flush(bool* out_of_space) {
  bool ignored = false;
  bool& no_space = out_of_space != nullptr ? *out_of_space : ignored;
  const std::lock_guard one_at_a_time(flushing_);
  // What an earlier flush could not write comes first.
  if (!leaving_.bytes.empty()) {
    if (auto wrote = write_stretch(no_space); !wrote) return wrote;
  }
  {
    const std::lock_guard lock(mutex_);
    if (held_.bytes.empty()) return {};
    std::swap(held_, leaving_);
    half_ ^= 1;
  }
  return write_stretch(no_space);
}

std::string read_unwritten(const std::string& directory, const ChainState& state) {
  const std::string path = directory + std::string{kName};
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  const auto read = read_bytes(fd, 0, 2 * kHalfBytes, path);
  ::close(fd);
  if (!read) {
    core::log(core::LogLevel::warn, "ledger_buffer_unreadable", {{"error", read.error().message}});
    return {};
  }
  // Each half begins with a record and holds one run of them; what stands behind it is of an earlier use.
  const std::string_view bytes = *read;
  std::array<std::string_view, 2> halves{bytes.substr(0, kHalfBytes),
                                         bytes.size() > kHalfBytes ? bytes.substr(kHalfBytes) : std::string_view{}};
  std::string out;
  ChainState at = state;
  ChainHasher hasher;
  for (bool grew = true; grew;) {
    grew = false;
    for (std::string_view& half : halves) {
      Frame frame;
      while (parse_frame(half, frame) == FrameStatus::ok) {
        if (frame.sequence > at.next_sequence) break;  // the other half's turn
        if (frame.sequence == at.next_sequence) {
          if (chain_of(half, frame, at.chain, hasher) != frame.chain) break;
          out.append(half.substr(0, frame.bytes));
          at = {.next_sequence = frame.sequence + 1, .chain = frame.chain};
          grew = true;
        }
        half.remove_prefix(frame.bytes);
      }
    }
  }
  return out;
}

}  // namespace ganglion::metering
