// See gateway/router.hpp.

#include "gateway/router.hpp"

#include <array>

#include "core/limits.hpp"

namespace ganglion::gateway {
namespace {

struct PostPath {
  std::string_view path;
  api::Endpoint endpoint;
};

constexpr std::array kPosts{
    PostPath{"/v1/chat/completions", api::Endpoint::chat_completions},
    PostPath{"/v1/completions", api::Endpoint::completions},
    PostPath{"/v1/embeddings", api::Endpoint::embeddings},
};
constexpr std::string_view kModels = "/v1/models";

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Model ids may come raw (with slashes) or percent-encoded. "" if it is not a possible model name.
std::string decode_model(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size()) return {};
      const int high = hex_digit(text[i + 1]);
      const int low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0) return {};
      c = static_cast<char>(high << 4 | low);
      i += 2;
    }
    if (static_cast<unsigned char>(c) <= ' ' || static_cast<unsigned char>(c) >= 0x7F) return {};
    out.push_back(c);
  }
  return out.size() <= core::kModelNameBytesMax ? out : std::string{};
}

bool is_models(std::string_view path) {
  return path == kModels ||
         (path.starts_with(kModels) && path.size() > kModels.size() + 1 && path[kModels.size()] == '/');
}

}  // namespace

api::Endpoint endpoint_of(std::string_view path) {
  for (const PostPath& post : kPosts) {
    if (path == post.path) return post.endpoint;
  }
  return is_models(path) ? api::Endpoint::models : api::Endpoint::kCount;
}

core::Result<Route> match(std::string_view method, std::string_view path) {
  for (const PostPath& post : kPosts) {
    if (path != post.path) continue;
    if (method != "POST") {
      return core::fail(core::ErrorKind::method_not_allowed,
                        std::string{path} + " takes POST, not " + std::string{method});
    }
    return Route{.endpoint = post.endpoint};
  }
  if (is_models(path)) {
    if (method != "GET" && method != "HEAD") {
      return core::fail(core::ErrorKind::method_not_allowed,
                        std::string{kModels} + " takes GET, not " + std::string{method});
    }
    if (path == kModels) return Route{.endpoint = api::Endpoint::models};
    std::string model = decode_model(path.substr(kModels.size() + 1));
    if (model.empty())
      return core::fail(core::ErrorKind::model_not_found, "the path holds no valid model name", "model");
    return Route{.endpoint = api::Endpoint::models, .model = std::move(model)};
  }
  return core::fail(core::ErrorKind::not_found,
                    "no such path here; served are POST /v1/chat/completions, POST /v1/completions, "
                    "POST /v1/embeddings, GET /v1/models and GET /v1/models/{model}");
}

}  // namespace ganglion::gateway
