#pragma once
// The first text events of a stream, kept in case its provider does not say what it used. Events of one stream differ
// in little more than their text, so each is kept as what it does not share with the first: some 10 bytes in place of
// 200.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ganglion::gateway {

class Tape {
 public:
  // Of the stream; past it a count by events has to do, and only the first event stays.
  static constexpr std::size_t kEventBytesMax = 64 * 1024;

  void keep(std::string_view event);
  bool empty() const { return first_.empty(); }
  bool full() const { return full_; }
  std::string_view first() const { return first_; }
  std::string events() const;  // all, as they came; of a full tape the first
  std::size_t bytes_held() const { return first_.capacity() + rest_.capacity(); }

 private:
  std::string first_;
  std::string rest_;  // each further event: shared beginning, shared end, length of what lies between; these bytes
  std::size_t event_bytes_ = 0;
  // The least that events shared with the first: others will too.
  std::size_t likely_ahead_ = 0;
  std::size_t likely_behind_ = 0;
  bool full_ = false;
};

}  // namespace ganglion::gateway
