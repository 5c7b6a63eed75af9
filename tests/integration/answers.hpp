#pragma once
// What scripted upstreams of the integration tests answer, whole and in pieces.

#include <cstdio>
#include <string>

#include "tests/support/scripted_upstream.hpp"

namespace ganglion::test {

inline constexpr const char* kNoCache = "gateways: [{name: default, cache: {ttl: 0s}, retry: {attempts: 1}}]\n";

inline const std::string kAnswer =
    R"({"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}})";

inline std::string delta(const std::string& text) {
  return R"(data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":")" + text +
         R"("},"finish_reason":null}]})" + "\n\n";
}
inline const std::string kFinish =
    "data: "
    "{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":"
    "\"stop\"}]}\n\n";
inline const std::string kUsageEvent =
    "data: "
    "{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_"
    "tokens\":4,\"total_tokens\":13}}\n\n";
inline const std::string kDone = "data: [DONE]\n\n";
inline const std::string kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

inline std::string chunk(const std::string& data) {
  char size[20];
  std::snprintf(size, sizeof size, "%zx\r\n", data.size());
  return size + data + "\r\n";
}
inline std::string stream_of(const std::string& events) {
  return kStreamHead + chunk(events) + "0\r\n\r\n";
}

// An upstream that answers every request the same way.
class Answering {
 public:
  explicit Answering(std::string answer)
      : upstream_({[this, answer = std::move(answer)](RawSocket& socket) {
          while (!upstream_.read_request(socket).empty()) {
            if (!socket.send(answer)) return;
          }
        }}) {}
  ScriptedUpstream& operator*() { return upstream_; }
  ScriptedUpstream* operator->() { return &upstream_; }

 private:
  ScriptedUpstream upstream_;
};

}  // namespace ganglion::test
