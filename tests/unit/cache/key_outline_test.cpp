// The key of a body that parse_request has outlined is the key of the body, for any body that it accepts.

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "api/openai_request.hpp"
#include "cache/key.hpp"
#include "tests/support/corpus.hpp"

namespace ganglion::cache {
namespace {

const KeyScope kScope{.tenant = "acme", .gateway = "default", .model = "m"};
const StoreSecret kSecret{"a secret"};

// As a worker has them: one of each, for all requests.
class Scans {
 public:
  // False if the body is refused.
  bool same(api::Endpoint endpoint, std::string_view body) {
    if (!api::parse_request(endpoint, body, scratch_, &outline_)) return false;
    const CacheKey outlined = maker_.from_outline(kScope, outline_);
    text = maker_.canonical();
    const StoreKey name = maker_.store_key(kSecret);
    const auto scanned = maker_.from_body(kScope, body);
    EXPECT_TRUE(scanned) << body;
    if (!scanned) return true;
    EXPECT_EQ(outlined, *scanned) << body;
    EXPECT_EQ(text, maker_.canonical()) << body;
    EXPECT_EQ(name.bytes, maker_.store_key(kSecret).bytes) << body;
    return true;
  }

  std::string text;  // canonical, of the last body

 private:
  KeyMaker maker_{{.hash = 1, .check = 2}};
  api::JsonOutline outline_;
  api::ParserScratch scratch_;
};

TEST(CacheKeyOutline, WritesTheCanonicalTextOfTheWholeBody) {
  Scans scans;
  ASSERT_TRUE(scans.same(api::Endpoint::chat_completions,
                         R"( {"stream":true,"x": {"z":[ {"b":1,"a":"\u0041\n"} , -1.50e+3 ],"\u0061":{}} ,"model":"m",)"
                         R"("messages":[{"role":"user","extra":{"d":{},"c":[[]]},"content":"hi"}],"x":null} )"));
  EXPECT_EQ(scans.text, R"({"messages":[{"content":"hi","extra":{"c":[[]],"d":{}},"role":"user"}],)"
                        R"("x":{"a":{},"z":[{"a":"A\n","b":1},-1.50e+3]},"x":null})");
}

// JSON requests of any shape: known fields in any order with unknown ones between, keys that are given twice, escapes
// in keys and texts, white space, values as deep as they may be and texts of any length.
class Requests {
 public:
  std::string chat() { return request(R"("messages":[)" + message() + (below(2) != 0 ? "," + message() : "") + "]"); }
  std::string completion() {
    static constexpr const char* kForms[] = {R"("a\u00e9b")", R"(["x","y\n"])", "[ 1,2]", "[[1],[]]"};
    return request(std::string{R"("prompt":)"} + kForms[below(4)]);
  }

 private:
  std::size_t below(std::size_t n) { return random_() % n; }
  std::string space() {
    static constexpr const char* kSpaces[] = {"", "", "", " ", "\n", "\t ", "\r\n"};
    return kSpaces[below(7)];
  }
  std::string text() {
    static constexpr const char* kPieces[] = {
        "a",    "B",        "z0", R"(\n)", R"(\u0061)", R"(\/)",           R"(\")",
        "\\\\", "\xC3\xA9", "",   R"(\t)", R"(\u00e9)", R"(\ud83d\ude00)", "/"};
    std::string out = "\"";
    for (std::size_t i = below(5); i > 0; --i) out += kPieces[below(std::size(kPieces))];
    if (below(20) == 0) out.append(400 + below(300), 'l');
    return out + "\"";
  }
  std::string value(std::size_t depth) {
    static constexpr const char* kPlain[] = {"null", "true", "false", "0", "-1.50e+3", "1e400", "12"};
    const std::size_t kind = below(depth == 0 ? 2 : 4);
    if (kind == 0) return kPlain[below(7)];
    if (kind == 1) return text();
    std::string out = kind == 2 ? "[" : "{";
    for (std::size_t i = below(4); i > 0; --i) {
      if (kind == 3) out += space() + text() + space() + ":";
      out += space() + value(depth - 1) + space() + (i > 1 ? "," : "");
    }
    return out + (kind == 2 ? "]" : "}");
  }
  std::string deep() {  // the body's own level and 63 more
    std::string out = value(0);
    for (int level = 0; level < 63; ++level) {
      const bool array = below(2) != 0;
      out = (array ? "[" + value(0) + "," : "{" + text() + ":" + value(0) + "," + text() + ":") + out +
            (array ? "]" : "}");
    }
    return out;
  }
  std::string message() {
    std::string out = R"({"role":"user")";
    if (below(2) != 0) out += "," + space() + R"("content":)" + text();
    if (below(3) == 0) out += R"(,"tool_calls":)" + value(3);
    if (below(3) == 0) out += R"(,"x)" + std::to_string(below(9)) + "\":" + value(2);
    return out + "}";
  }
  std::string request(const std::string& prompt) {
    std::vector<std::string> members = {prompt, R"("m\u006fdel":)" + std::string{R"("any")"}};
    if (below(2) != 0) members.emplace_back(R"("stream":true)");
    if (below(2) != 0) members.emplace_back(R"("stream_options":{"include_usage":false,"o":)" + value(2) + "}");
    if (below(2) != 0) members.emplace_back(R"("temperature": 0.5)");
    if (below(2) != 0) members.emplace_back(R"("tools":[)" + value(3) + "]");
    if (below(3) == 0) members.emplace_back(R"("user":)" + text());
    for (std::size_t i = below(4); i > 0; --i) members.push_back("\"u" + std::to_string(below(3)) + "\":" + value(4));
    if (below(10) == 0) members.push_back("\"deep\":" + deep());
    std::ranges::shuffle(members, random_);
    std::string out = space() + "{";
    for (const std::string& member : members) out += (&member == &members.front() ? "" : ",") + space() + member;
    return out + space() + "}" + space();
  }

  std::mt19937 random_{20261126};
};

TEST(CacheKeyOutline, IsTheKeyOfTheBodyForRandomRequests) {
  Scans scans;
  Requests requests;
  for (int i = 0; i < 2'000; ++i) {
    const bool chat = i % 2 == 0;
    const std::string body = chat ? requests.chat() : requests.completion();
    ASSERT_TRUE(scans.same(chat ? api::Endpoint::chat_completions : api::Endpoint::completions, body)) << body;
    // What another reader makes of both; numbers that no double holds are left to the comparison above.
    nlohmann::json before = nlohmann::json::parse(body, nullptr, false);
    if (before.is_discarded()) continue;
    for (const char* ignored : {"stream", "stream_options", "model"}) before.erase(ignored);
    EXPECT_EQ(nlohmann::json::parse(scans.text, nullptr, false), before) << body;
  }
}

TEST(CacheKeyOutline, IsTheKeyOfTheBodyForTheCorpora) {
  // Any JSON, in a body that is accepted for all endpoints and does not read it.
  const auto inside = [](const std::string& json) {
    return R"({"model":"m","messages":[{"role":"u"}],"prompt":"p","input":"i","x":)" + json + "}";
  };
  Scans scans;
  std::size_t accepted = 0;
  for (const char* name : {"openai_request", "cache_key"}) {
    const auto cases = test::corpus(name);
    test::Edits edits(cases);
    for (const auto& [file, bytes] : cases) {
      SCOPED_TRACE(file);
      std::vector<std::string> bodies = {bytes, inside(bytes)};
      for (std::size_t i = test::Edits::rounds(50); i > 0; --i) {
        bodies.push_back(edits.of(bytes));
        bodies.push_back(inside(bodies.back()));
      }
      for (const std::string& body : bodies) {
        for (const auto endpoint :
             {api::Endpoint::chat_completions, api::Endpoint::completions, api::Endpoint::embeddings}) {
          accepted += scans.same(endpoint, body) ? 1 : 0;
        }
      }
    }
  }
  EXPECT_GT(accepted, 40U);
}

}  // namespace
}  // namespace ganglion::cache
