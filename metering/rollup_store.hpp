#pragma once
// The rollups: usage by hour and by everything that it may be grouped by, in one SQLite file (`rollups.db`) beside the
// segments. What is in it and the sequence up to which the ledger is in it change in one transaction, so a record
// counts once whatever dies when. Neuron parts are 128-bit integers and are summed as such.

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "metering/sqlite.hpp"
#include "metering/usage_slice.hpp"

namespace ganglion::metering {

std::string rollups_path(const std::string& directory);

// Records summed in memory until they are stored.
class RollupBatch {
 public:
  void add(const LedgerRecord& record);
  bool empty() const { return slices_.empty(); }
  std::size_t slices() const { return slices_.size(); }
  bool fits() const { return fits_; }  // false: a sum did not fit 128 bits
  void clear();

 private:
  friend class RollupStore;
  struct Slice {
    std::int64_t hour = 0;
    UsageDimensions dimensions;
    UsageCounts counts;
  };
  std::unordered_map<std::string, Slice> slices_;  // by hour and dimensions
  std::string key_;
  bool fits_ = true;
};

// Which hours, in which steps.
struct RollupRange {
  std::int64_t hour_from = 0;
  std::int64_t hour_to = INT64_MAX;  // half-open
  bool by_hour = false;              // false: sums of whole days
};

class RollupStore {
 public:
  // Called between the steps of a transaction; tests die there.
  using Between = std::function<void(std::string_view step)>;
  // `hour` is the first of its step (RollupRange::by_hour).
  using Visitor = std::function<void(std::int64_t hour, const UsageDimensions&, const UsageCounts&)>;

  // Makes the file where there is none. ledger_unavailable: not a rollup file, of another ledger, or of a newer
  // version.
  static core::Result<std::unique_ptr<RollupStore>> open(const std::string& directory, const std::string& ledger_id,
                                                         Between between = {});
  // For readers in any process; nullptr: there is no file.
  static core::Result<std::unique_ptr<RollupStore>> open_to_read(const std::string& directory);

  // Records up to here are in.
  core::Result<std::uint64_t> position();
  const std::string& ledger_id() const { return ledger_id_; }

  // Adds the batch and moves the position, durably, or does neither.
  core::Result<void> apply(const RollupBatch& batch, std::uint64_t position);

  // Visits all rows of the range; returns the position that they stand for.
  core::Result<std::uint64_t> read(const RollupRange& range, const Visitor& visit);

 private:
  explicit RollupStore(Database database) : database_(std::move(database)) {}
  core::Result<void> check_or_make(const std::string& ledger_id);
  core::Result<void> prepare();
  core::Result<std::int64_t> dimension(const UsageDimensions& dimensions);
  core::Result<void> apply_slices(const RollupBatch& batch, std::uint64_t position);
  core::Result<std::unordered_map<std::int64_t, UsageDimensions>> dimensions();
  void reached(std::string_view step) const {
    if (between_) between_(step);
  }

  Database database_;
  Between between_;
  std::string ledger_id_;
  Statement find_, insert_, add_, advance_;
  std::unordered_map<std::string, std::int64_t> known_;  // ids of dimensions
};

}  // namespace ganglion::metering
