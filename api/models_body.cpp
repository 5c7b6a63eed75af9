// See api/models_body.hpp.

#include "api/models_body.hpp"

#include "api/json_text.hpp"

namespace ganglion::api {
namespace {

void append_model(std::string& out, const ModelCard& card) {
  out += R"({"id":)";
  append_json_string(out, card.id);
  out += R"(,"object":"model","created":)";
  append_number(out, card.created_s);
  out += R"(,"owned_by":)";
  append_json_string(out, card.owned_by);
  out.push_back('}');
}

}  // namespace

std::string model_body(const ModelCard& card) {
  std::string out;
  append_model(out, card);
  return out;
}

std::string models_body(std::span<const ModelCard> cards) {
  std::string out = R"({"object":"list","data":[)";
  for (const ModelCard& card : cards) {
    if (out.back() != '[') out.push_back(',');
    append_model(out, card);
  }
  out += "]}";
  return out;
}

}  // namespace ganglion::api
