#pragma once
// Events of a stream that are handed out together, in two places: copies first, of events that did not lie whole in the
// bytes received or were made anew, then what lies there one behind the other, where it lies.

#include <cstddef>
#include <string>
#include <string_view>

namespace ganglion::gateway {

class EventRun {
 public:
  void clear() {
    copied_.clear();
    in_place_ = {};
  }
  // `stays`: the event's bytes outlive the run's use.
  void add(std::string_view event, bool stays) {
    if (stays && in_place_.empty()) {
      in_place_ = event;
    } else if (stays && in_place_.data() + in_place_.size() == event.data()) {
      in_place_ = {in_place_.data(), in_place_.size() + event.size()};
    } else {
      copy(event);
    }
  }
  void copy(std::string_view event) {
    copied_ += in_place_;
    copied_ += event;
    in_place_ = {};
  }
  // In this order.
  std::string_view copied() const { return copied_; }
  std::string_view in_place() const { return in_place_; }
  std::size_t size() const { return copied_.size() + in_place_.size(); }

 private:
  std::string copied_;
  std::string_view in_place_;
};

}  // namespace ganglion::gateway
