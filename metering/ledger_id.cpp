// See metering/ledger_id.hpp.

#include "metering/ledger_id.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "core/digest.hpp"

namespace ganglion::metering {
namespace {

constexpr std::size_t kUuidBytes = 36;

std::string id_path(const std::string& directory) {
  return directory + "/ledger.id";
}

std::unexpected<core::Error> io_error(const std::string& what, const std::string& path, int error) {
  return core::fail(core::ErrorKind::ledger_unavailable,
                    what + " " + path + ": " + std::system_category().message(error));
}

bool is_uuid(std::string_view text) {
  if (text.size() != kUuidBytes) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const bool digit = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
    if (dash ? text[i] != '-' : !digit) return false;
  }
  return true;
}

std::string dashed(const std::string& hex) {
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) + "-" + hex.substr(16, 4) + "-" +
         hex.substr(20);
}

// RFC 9562, version 4.
std::string random_uuid() {
  std::string hex = core::random_hex(16);
  hex[12] = '4';
  hex[16] = "89ab"[static_cast<unsigned char>(hex[16]) % 4];
  return dashed(hex);
}

int sync_directory(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  return error;
}

}  // namespace

core::Result<std::string> read_ledger_id(const std::string& directory) {
  const std::string path = id_path(directory);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return io_error("cannot open", path, errno);
  std::array<char, kUuidBytes + 2> text{};
  const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
  const int error = errno;
  ::close(fd);
  if (got < 0) return io_error("cannot read", path, error);
  std::string_view id{text.data(), static_cast<std::size_t>(got)};
  if (id.ends_with('\n')) id.remove_suffix(1);
  if (!is_uuid(id)) {
    return core::fail(core::ErrorKind::ledger_unavailable,
                      path +
                          " holds no UUID; restore it from a backup (a new one would make every sink take the "
                          "ledger's records for new ones)");
  }
  return std::string{id};
}

namespace {

core::Result<std::string> write_id(const std::string& directory, const std::string& id) {
  const std::string path = id_path(directory);
  const std::string fresh = path + ".new";
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return io_error("cannot create", fresh, errno);
  const std::string line = id + "\n";
  int error = 0;
  if (::write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) error = errno == 0 ? ENOSPC : errno;
  if (error == 0 && ::fsync(fd) != 0) error = errno;
  ::close(fd);
  if (error == 0 && std::rename(fresh.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) error = sync_directory(directory);
  if (error != 0) return io_error("cannot write", path, error);
  return id;
}

}  // namespace

core::Result<std::string> ensure_ledger_id(const std::string& directory) {
  if (::access(id_path(directory).c_str(), F_OK) == 0) return read_ledger_id(directory);
  return write_id(directory, random_uuid());
}

core::Result<std::string> adopt_ledger_id(const std::string& directory, const LedgerId& of_segments) {
  const std::string known = dashed(core::hex(of_segments));
  if (::access(id_path(directory).c_str(), F_OK) != 0) return write_id(directory, known);
  auto id = read_ledger_id(directory);
  if (id && *id != known) {
    return core::fail(core::ErrorKind::ledger_unavailable,
                      id_path(directory) + " says " + *id + ", but the segments beside it are of the ledger " + known +
                          "; put back the file or the segments that belong together. Nothing was changed.");
  }
  return id;
}

LedgerId ledger_id_bytes(std::string_view uuid) {
  LedgerId out{};
  std::size_t nibble = 0;
  for (const char c : uuid) {
    if (c == '-' || nibble == 2 * out.size()) continue;
    const int value = c <= '9' ? c - '0' : c - 'a' + 10;
    out[nibble / 2] = static_cast<std::uint8_t>(out[nibble / 2] << 4 | value);
    ++nibble;
  }
  return out;
}

}  // namespace ganglion::metering
