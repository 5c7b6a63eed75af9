// Recovery and readers over arbitrary segment bytes: no crash, no unbounded work; what is accepted must carry a valid
// chain, and wiping what recovery would cut leaves a segment that scans clean with the same records.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "metering/segment_scan.hpp"

using namespace ganglion::metering;

namespace {

struct Scanned {
  ScanEnd end;
  std::vector<std::uint64_t> sequences;
};

Scanned scan(std::string_view bytes) {
  Scanned out;
  ChainState state;
  Replay replay;
  out.end = scan_segment(bytes, true, state, replay,
                         [&](const Frame& frame, const LedgerRecord&) { out.sequences.push_back(frame.sequence); });
  return out;
}

void require(bool ok) {
  if (!ok) std::abort();
}

// Re-frames the input as payloads of valid frames, so that the payload decoders are reached too.
std::string framed(std::string_view data) {
  std::string out;
  ChainHasher hasher;
  ChainState state;
  std::size_t start = begin_frame(out);
  encode_segment(out, {.epoch = 1});
  finish_frame(out, start, RecordType::segment, 0, state, hasher);
  while (data.size() >= 2) {
    const auto type = static_cast<RecordType>(1 + static_cast<std::uint8_t>(data[0]) % 7);
    const std::size_t size = std::min<std::size_t>(static_cast<std::uint8_t>(data[1]), data.size() - 2);
    start = begin_frame(out);
    out.append(data.substr(2, size));
    finish_frame(out, start, type, 0, state, hasher);
    data.remove_prefix(2 + size);
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view raw{reinterpret_cast<const char*>(data), size};
  for (const std::string& bytes : {std::string{raw}, framed(raw)}) {
    const Scanned first = scan(bytes);
    require(first.end.offset <= bytes.size());
    for (std::size_t i = 1; i < first.sequences.size(); ++i) require(first.sequences[i] == first.sequences[i - 1] + 1);
    if (first.end.kind == ScanEnd::Kind::bad)
      static_cast<void>(was_durable(bytes, first.end.offset, first.end.first_sequence));
    std::string cut = bytes;
    std::fill(cut.begin() + static_cast<std::ptrdiff_t>(first.end.offset), cut.end(), '\0');
    const Scanned second = scan(cut);
    require(second.end.kind == ScanEnd::Kind::end && second.sequences == first.sequences);
  }
  return 0;
}
