#pragma once
// Answers of GET /v1/models and /v1/models/{id}.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ganglion::api {

struct ModelCard {
  std::string_view id;
  std::int64_t created_s = 0;  // Unix seconds
  std::string_view owned_by;
};

std::string model_body(const ModelCard& card);
std::string models_body(std::span<const ModelCard> cards);

}  // namespace ganglion::api
