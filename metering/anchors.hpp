#pragma once
// What is known of full segments apart from the segments: the file `anchors`, one line a segment once it is full and
// one more when retention drops it. So a segment that was removed, cut or exchanged afterwards is found, and one that
// was dropped on purpose is not missed. Lines are chained like records; the format is in docs/ledger.md.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/error.hpp"
#include "metering/record_codec.hpp"

namespace ganglion::metering {

struct Anchor {
  std::uint64_t epoch = 0;
  std::uint64_t first_sequence = 0;
  std::uint64_t last_sequence = 0;
  std::uint64_t bytes = 0;  // of its records
  Chain chain{};            // after its last record
  std::string sha256;       // of these bytes, hex: what sha256sum says of an archived copy
  bool retired = false;     // dropped by retention, on purpose
};

// The text of a file, checked.
struct AnchorList {
  std::map<std::uint64_t, Anchor> segments;  // by epoch
  Chain tip{};                               // what the next line continues
  std::uint64_t good_bytes = 0;              // whole, chained lines
  std::uint64_t bytes = 0;                   // of the file
  std::string problem;                       // of the first bad line, "" if all are good; it starts at good_bytes
  bool torn = false;                         // the bad line is the last one and has no end: a crash cut it
};

AnchorList parse_anchors(std::string_view text, const LedgerId& ledger);
std::string anchors_path(const std::string& directory);
// A file that is not there has no anchors.
core::Result<AnchorList> read_anchors(const std::string& directory, const LedgerId& ledger);

// Appends lines durably. One writer: the holder of the directory's lock.
class AnchorFile {
 public:
  // Cuts a torn last line. ledger_unavailable: unreadable, or a line is bad.
  static core::Result<AnchorFile> open(const std::string& directory, const LedgerId& ledger);

  const std::map<std::uint64_t, Anchor>& segments() const { return list_.segments; }
  core::Result<void> seal(const Anchor& anchor);
  core::Result<void> retire(std::uint64_t epoch);

 private:
  core::Result<void> append(std::string line);

  std::string path_;
  AnchorList list_;
};

}  // namespace ganglion::metering
