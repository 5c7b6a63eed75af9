#pragma once
// Who asked for what, as the ledger writes it: the one place where a request becomes a ledger subject.

#include <span>

#include "api/tags.hpp"
#include "core/ids.hpp"
#include "gateway/snapshot.hpp"
#include "metering/record.hpp"

namespace ganglion::gateway {

// Borrows from all of them.
inline metering::Subject subject_of(const core::RequestId& id, const Principal& who, const ModelEntry& model,
                                    api::Endpoint endpoint, api::Tier tier, std::span<const api::Tag> tags) {
  return {.request_id = id.view(),
          .tenant = who.tenant,
          .key_id = who.key_id,
          .gateway = who.gateway,
          .model = model.name,
          .endpoint = endpoint,
          .tier = tier,
          .tags = tags};
}

}  // namespace ganglion::gateway
