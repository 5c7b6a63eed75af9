#pragma once
// Events of a stream that are handed out together. Those that lie one behind the other in the bytes as they were
// received stay there; only where something stands between them, or an event was made anew, are they copied.

#include <cstddef>
#include <string>
#include <string_view>

namespace ganglion::gateway {

class EventRun {
 public:
  void clear() {
    in_place_ = {};
    copied_.clear();
  }
  // `stays`: the event's bytes outlive the run's use.
  void add(std::string_view event, bool stays) {
    if (!stays || !copied_.empty()) return copy(event);
    if (in_place_.empty()) {
      in_place_ = event;
    } else if (in_place_.data() + in_place_.size() == event.data()) {
      in_place_ = {in_place_.data(), in_place_.size() + event.size()};
    } else {
      copy(event);
    }
  }
  void copy(std::string_view event) {
    if (copied_.empty()) copied_ = in_place_;
    copied_ += event;
  }
  std::string_view bytes() const { return copied_.empty() ? in_place_ : std::string_view{copied_}; }
  std::size_t size() const { return bytes().size(); }

 private:
  std::string_view in_place_;
  std::string copied_;
};

}  // namespace ganglion::gateway
