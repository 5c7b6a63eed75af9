// The outline of a text: that every value is in it, at its place, whoever reads the text.

#include "api/json_outline.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "api/json_cursor.hpp"
#include "api/openai_request.hpp"

namespace ganglion::api {
namespace {

using Kind = JsonOutline::Kind;

constexpr char letter(Kind kind) {
  return "peao"[static_cast<int>(kind)];
}

// One line a value: its depth, its kind's letter, its key if it is a member, and its text.
void list(const JsonOutline& outline, std::uint32_t index, bool member, std::size_t depth,
          std::vector<std::string>& out) {
  const JsonOutline::Node& node = outline[index];
  out.push_back(std::string(depth, ' ') + letter(node.kind) + " " +
                (member ? std::string{outline.key(node)} + "=" : "") + std::string{outline.value(node)});
  if (node.kind != Kind::array && node.kind != Kind::object) EXPECT_EQ(node.next, index + 1);
  for (std::uint32_t child = index + 1; child < node.next; child = outline[child].next) {
    list(outline, child, node.kind == Kind::object, depth + 1, out);
  }
}
std::vector<std::string> list(const JsonOutline& outline) {
  std::vector<std::string> out;
  list(outline, 0, false, 0, out);
  EXPECT_EQ(out.size(), outline.size());
  return out;
}

std::vector<std::string> skipped(std::string_view text) {
  JsonOutline outline;
  JsonCursor cursor{text, &outline};
  EXPECT_TRUE(cursor.skip() && cursor.at_end()) << text;
  return list(outline);
}

std::vector<std::string> read(std::string_view body, Endpoint endpoint = Endpoint::chat_completions) {
  JsonOutline outline;
  ParserScratch scratch;
  EXPECT_TRUE(parse_request(endpoint, body, scratch, &outline)) << body;
  return list(outline);
}

TEST(JsonOutline, HasWhatIsInsideUnknownMembers) {
  const std::string x = R"({"a":[1,{"b":[]},"t\n"],"":{"c":null}})";
  const std::string a = R"([1,{"b":[]},"t\n"])";
  const std::string messages = R"([{"role":"user","content":"hi","y":{"z":-1.5e3}}])";
  const std::string body = R"({"model":"m", "x" : )" + x + R"( ,"messages":)" + messages + "}";
  const std::vector<std::string> expected = {"o " + body,
                                             R"( p model="m")",
                                             " o x=" + x,
                                             "  a a=" + a,
                                             "   p 1",
                                             R"(   o {"b":[]})",
                                             "    a b=[]",
                                             R"(   e "t\n")",
                                             R"(  o ={"c":null})",
                                             "   p c=null",
                                             " a messages=" + messages,
                                             "  o " + messages.substr(1, messages.size() - 2),
                                             R"(   p role="user")",
                                             R"(   p content="hi")",
                                             R"(   o y={"z":-1.5e3})",
                                             "    p z=-1.5e3"};
  EXPECT_EQ(read(body), expected);
  EXPECT_EQ(skipped(body), expected);
}

TEST(JsonOutline, UndoesTheEscapesOfKeys) {
  EXPECT_EQ(skipped(R"({"\u0061b":1,"c\n":{"\ud83d\ude00":"\/"},"d":2})"),
            (std::vector<std::string>{R"(o {"\u0061b":1,"c\n":{"\ud83d\ude00":"\/"},"d":2})", " p ab=1",
                                      R"( o c)"
                                      "\n"
                                      R"(={"\ud83d\ude00":"\/"})",
                                      "  e \xF0\x9F\x98\x80=\"\\/\"", " p d=2"}));
}

TEST(JsonOutline, IsTheSameWhoeverReads) {
  const std::string chat = R"("messages":[{"role":"user","content":"x"}])";
  const std::vector<std::string> bodies = {
      R"({"model":"m",)" + chat + R"(,"n":1,"seed":-3,"temperature":0.5,"stream":true,"max_tokens":7,"user":null})",
      R"({"stream_options":{"include_usage":true,"other":[{}]},)" + chat + R"(,"model":"m"})",
      R"({"stream_options":null,)" + chat + R"(,"model":"\u006d","tools":[{"type":"function"},[],"x"]})",
      R"({"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a\"b"},)"
      R"({"type":"image_url","image_url":{"url":"u"}}]},{"role":"a","content":null,"tool_calls":[{"id":[]}]}]})",
      R"({"model":"m",)" + chat + R"(,"prompt":{"not":["read",{"here":1}]},"input":[[]],"functions":[ ]})",
  };
  for (const std::string& body : bodies) {
    EXPECT_EQ(read(body), skipped(body)) << body;
  }
  for (const char* prompt : {R"("p\t")", R"(["a","b"])", "[1, 2 ,3]", "[[1,2],[ ],[3]]"}) {
    const std::string completion = R"({"model":"m","prompt":)" + std::string{prompt} + R"(,"messages":[{"a":[1]}]})";
    EXPECT_EQ(read(completion, Endpoint::completions), skipped(completion)) << completion;
    const std::string embedding = R"({"input":)" + std::string{prompt} + R"(,"encoding_format":"base64","model":"m"})";
    EXPECT_EQ(read(embedding, Endpoint::embeddings), skipped(embedding)) << embedding;
  }
}

TEST(JsonOutline, OneTextLeavesNothingToTheNext) {
  JsonOutline outline;
  EXPECT_EQ(outline.sequence(), 0U);
  const std::string first = R"({"\u0061":[[[1]],{"b":2}],"c":3})";
  const std::string second = R"({"\u0078":{"y":[]}})";
  const std::string cut = first.substr(0, 14);
  for (const std::string_view text : {std::string_view{first}, std::string_view{cut}, std::string_view{second}}) {
    JsonCursor cursor{text, &outline};
    EXPECT_EQ(cursor.skip(), text.back() == '}');
  }
  EXPECT_EQ(outline.sequence(), 3U);
  EXPECT_EQ(outline.text(), second);
  EXPECT_EQ(list(outline), skipped(second));
}

// What is recorded must not change what is read.
TEST(JsonOutline, ALargeTextsNodesAreGivenBackAndASmallOnesStay) {
  JsonOutline outline;
  std::string large = "[1";
  for (int i = 0; i < 200'000; ++i) large += ",1";
  large += "]";
  for (const std::string& text : {std::string{"[1,2]"}, large}) {
    JsonCursor cursor{text, &outline};
    ASSERT_TRUE(cursor.skip());
    const std::uint32_t size = outline.size();
    const std::uint64_t sequence = outline.sequence();
    outline.trim();
    const bool stays = text.size() < 100;
    EXPECT_EQ(outline.size(), stays ? size : 0);
    EXPECT_EQ(outline.sequence() == sequence, stays);
  }
}

TEST(JsonOutline, ChangesNoVerdict) {
  const std::string deep = R"({"x":)" + std::string(64, '[') + std::string(64, ']') + "}";
  const std::vector<std::string> bad = {deep,
                                        R"({"model":"m","x":[1,{"a":tru}],"messages":[]})",
                                        R"({"model":"m","messages":[}")",
                                        R"({"model":"m","x":{"a":"\ud800"}})",
                                        R"({"model":1})",
                                        R"({"x":[1 2]})",
                                        "{\"x\":\"\xFF\"}"};
  for (const std::string& body : bad) {
    ParserScratch scratch;
    JsonOutline outline;
    const auto plain = parse_request(Endpoint::chat_completions, body, scratch);
    const auto outlined = parse_request(Endpoint::chat_completions, body, scratch, &outline);
    ASSERT_FALSE(plain);
    ASSERT_FALSE(outlined);
    EXPECT_EQ(plain.error().message, outlined.error().message);
    EXPECT_EQ(plain.error().kind, outlined.error().kind);
  }
}

}  // namespace
}  // namespace ganglion::api
