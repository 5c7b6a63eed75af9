#pragma once
// The questions of the semantic index on disk, so that a restarted gateway finds the answers that its tiers still have:
// one file of sealed records (cache/store_key.hpp), appended to as questions are stored and written anew at the start
// and when it has grown to twice its bound. Texts are not kept. Nothing is synced: losing the newest is no loss, and a
// torn or damaged record ends what is read. One thread.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cache/key.hpp"
#include "cache/store_key.hpp"
#include "core/clock.hpp"

namespace ganglion::cache {

struct SemanticRecord {
  CacheKey partition, answer;  // of a KeySeed that outlives the process
  StoreKey name;               // of the answer, in the tiers below memory
  std::vector<float> vector;
  std::uint64_t text_bytes = 0;
  std::uint64_t numbers = 0;
  std::uint64_t text_digest = 0;
  core::WallTime expires;  // whole seconds
};

class SemanticJournal {
 public:
  static constexpr std::size_t kDimensionsMax = 16'384;

  // `records_max`: that are read again, the newest of them.
  SemanticJournal(std::string file, const StoreSecret& secret, std::size_t records_max);
  ~SemanticJournal();
  SemanticJournal(const SemanticJournal&) = delete;
  SemanticJournal& operator=(const SemanticJournal&) = delete;

  // Hands on what is not expired, oldest first, and drops the rest from the file. False: the file cannot be used (said
  // in the log); then append() does nothing.
  bool load(core::WallTime now, const std::function<void(SemanticRecord)>& each);
  void append(const SemanticRecord& record, core::WallTime now);

 private:
  bool rewrite(core::WallTime now, const std::function<void(SemanticRecord)>& each);
  void failed(const char* what);

  const std::string file_;
  const StoreSecret secret_;
  const std::size_t records_max_;
  int fd_ = -1;
  std::size_t records_ = 0;  // in the file
  bool told_ = false;        // of a failure
};

}  // namespace ganglion::cache
