// Intrusive list of registrations; see core/cancel.hpp for the contract.

#include "core/cancel.hpp"

namespace ganglion::core {

CancelSource::~CancelSource() {
  while (head_ != nullptr) head_->reset();
}

void CancelSource::cancel(CancelReason reason) {
  if (cancelled() || reason == CancelReason::none) return;
  reason_ = reason;
  // A callback may destroy any registration, so each is unlinked before it runs and the head is read anew.
  while (head_ != nullptr) {
    auto callback = std::move(head_->callback_);
    head_->reset();
    callback(reason);
  }
}

CancelRegistration::CancelRegistration(CancelSource& source, std::function<void(CancelReason)> callback) {
  if (source.cancelled()) {
    callback(source.reason());
    return;
  }
  source_ = &source;
  callback_ = std::move(callback);
  CancelRegistration** link = &source.head_;
  while (*link != nullptr) {
    previous_ = *link;
    link = &(*link)->next_;
  }
  *link = this;
}

void CancelRegistration::reset() {
  if (source_ == nullptr) return;
  (previous_ != nullptr ? previous_->next_ : source_->head_) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
  source_ = nullptr;
  previous_ = next_ = nullptr;
  callback_ = nullptr;
}

}  // namespace ganglion::core
