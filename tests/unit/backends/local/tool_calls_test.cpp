// Calls in text of every style, whole and in pieces: how a text is cut must not change what is found in it.

#include "backends/local/tool_calls.hpp"

#include <gtest/gtest.h>

#include <random>

namespace ganglion::backends {
namespace {

struct Found {
  std::string text;
  std::vector<std::pair<std::string, std::string>> calls;  // name, arguments
  friend bool operator==(const Found&, const Found&) = default;
};

std::ostream& operator<<(std::ostream& out, const Found& f) {
  out << '"' << f.text << '"';
  for (const auto& [name, arguments] : f.calls) out << ' ' << name << '(' << arguments << ')';
  return out;
}

Found find(ToolStyle style, const std::vector<std::string>& pieces) {
  ToolCallReader reader(style, {"f", "get_weather"});
  std::vector<ToolCallReader::Piece> out;
  for (const std::string& piece : pieces) reader.read(piece, out);
  reader.finish(out);
  Found found;
  for (const auto& piece : out) {
    using Kind = ToolCallReader::Piece::Kind;
    if (piece.kind == Kind::text) found.text += piece.text;
    if (piece.kind == Kind::call) found.calls.emplace_back(piece.text, "");
    if (piece.kind == Kind::arguments) found.calls.at(found.calls.size() - 1).second += piece.text;
  }
  EXPECT_EQ(static_cast<std::size_t>(reader.calls()), found.calls.size());
  return found;
}

struct Case {
  ToolStyle style;
  std::string text;
  Found expected;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {ToolStyle::hermes, "Just text.", {"Just text.", {}}},
      {ToolStyle::hermes, "a < b, <tool_cal", {"a < b, <tool_cal", {}}},
      {ToolStyle::hermes,
       "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, \"}\"]}}\n</tool_call>",
       {"", {{"f", R"({"a": [1, "}"]})"}}}},
      {ToolStyle::hermes,
       "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"arguments\": "
       "{\"x\": \"\\\"\\\\\"}, \"name\": \"get_weather\"}\n</tool_call>\n",
       {"Let me see.", {{"f", "{}"}, {"get_weather", R"({"x": "\"\\"})"}}}},
      {ToolStyle::hermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
       {"", {{"f", R"({"a": 1})"}}}},
      {ToolStyle::hermes,
       "<tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>",
       {"<tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>", {}}},
      {ToolStyle::hermes, "<tool_call>\nnot json</tool_call>", {"<tool_call>\nnot json</tool_call>", {}}},
      {ToolStyle::hermes,
       "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"cut o",
       {"", {{"f", R"({"a": "cut o)"}}}},
      {ToolStyle::hermes, "<tool_call>\n{\"na", {"<tool_call>\n{\"na", {}}},
      {ToolStyle::hermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call> Done.",
       {" Done.", {{"f", "{}"}}}},
      // A function without arguments is called with none, however the model says so.
      {ToolStyle::hermes, R"(<tool_call>{"name": "f"}</tool_call>)", {"", {{"f", "{}"}}}},
      {ToolStyle::hermes,
       R"(<tool_call>{"name": "f", "arguments": null}</tool_call> Done.)",
       {" Done.", {{"f", "{}"}}}},
      {ToolStyle::hermes, R"(<tool_call>{"arguments": null , "name": "f"}</tool_call>)", {"", {{"f", "{}"}}}},
      {ToolStyle::hermes, R"(<tool_call>{"name": "f", "arguments": ""}</tool_call>)", {"", {{"f", "{}"}}}},
      {ToolStyle::hermes, R"(<tool_call>{"name": "f", "arguments": nil}</tool_call>)", {"", {{"f", ""}}}},
      {ToolStyle::json, R"({"name": "f", "parameters": null})", {"", {{"f", "{}"}}}},
      {ToolStyle::mistral_list,
       R"([TOOL_CALLS][{"name": "f"}, {"name": "get_weather", "arguments": null}])",
       {"", {{"f", "{}"}, {"get_weather", "{}"}}}},
      // Broken behind its name: it is a call by then, whether or not the rest came with it.
      {ToolStyle::hermes,
       "<tool_call>\n{\"name\": \"f\"\"arguments\": {\"a\": 1}}\n</tool_call>",
       {"arguments\": {\"a\": 1}}\n</tool_call>", {{"f", ""}}}},
      {ToolStyle::mistral_args,
       "[TOOL_CALLS]f[CALL_ID]" + std::string(300, 'x') + "[ARGS]{}",
       {"[TOOL_CALLS]f[CALL_ID]" + std::string(300, 'x') + "[ARGS]{}", {}}},
      {ToolStyle::json, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", {"", {{"f", R"({"a": 1})"}}}},
      {ToolStyle::json,
       "<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}",
       {"", {{"f", "{}"}}}},
      {ToolStyle::json,
       "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"get_weather\", \"parameters\": {}}",
       {"", {{"f", "{}"}, {"get_weather", "{}"}}}},
      {ToolStyle::json, "{\"answer\": 42, \"list\": [1, {}]}", {"{\"answer\": 42, \"list\": [1, {}]}", {}}},
      {ToolStyle::json, " {\"name\": \"Ada\"}", {" {\"name\": \"Ada\"}", {}}},
      {ToolStyle::json,
       "Sure: {\"name\": \"f\", \"parameters\": {}}",
       {"Sure: {\"name\": \"f\", \"parameters\": {}}", {}}},
      {ToolStyle::json, "{}", {"{}", {}}},
      {ToolStyle::mistral_list,
       "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"get_weather\", \"arguments\": {}, "
       "\"id\": \"abc\"}]",
       {"", {{"f", R"({"a": 1})"}, {"get_weather", "{}"}}}},
      {ToolStyle::mistral_list, "Ok. [TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}]", {"Ok.", {{"f", "{}"}}}},
      {ToolStyle::mistral_list, "[TOOL_CALLS]f{\"a\": 1}", {"", {{"f", R"({"a": 1})"}}}},
      {ToolStyle::mistral_list, "[TOOL_CALLS][1]", {"[TOOL_CALLS][1]", {}}},
      {ToolStyle::mistral_args,
       "[TOOL_CALLS]f[ARGS]{\"a\": \"]}\"}[TOOL_CALLS]get_weather[CALL_ID]x[ARGS]{}",
       {"", {{"f", R"({"a": "]}"})"}, {"get_weather", "{}"}}}},
      {ToolStyle::mistral_args, "[TOOL_CALLS]nobody[ARGS]{}", {"[TOOL_CALLS]nobody[ARGS]{}", {}}},
      {ToolStyle::none,
       "<tool_call>{\"name\": \"f\", \"arguments\": {}}",
       {"<tool_call>{\"name\": \"f\", \"arguments\": {}}", {}}},
  };
  return all;
}

TEST(ToolCalls, AreFoundWhole) {
  for (const Case& c : cases()) EXPECT_EQ(find(c.style, {c.text}), c.expected) << c.text;
}

TEST(ToolCalls, AreFoundHoweverTheTextIsCut) {
  std::mt19937 random(3);
  for (const Case& c : cases()) {
    std::vector<std::string> bytes;
    for (const char b : c.text) bytes.emplace_back(1, b);
    EXPECT_EQ(find(c.style, bytes), c.expected) << c.text;
    for (int round = 0; round < 50; ++round) {
      std::vector<std::string> pieces;
      for (std::size_t at = 0; at < c.text.size();) {
        const std::size_t n = 1 + random() % 9;
        pieces.push_back(c.text.substr(at, n));
        at += n;
      }
      ASSERT_EQ(find(c.style, pieces), c.expected) << c.text;
    }
  }
}

TEST(ToolCalls, ArgumentsAreToldAsTheyCome) {
  ToolCallReader reader(ToolStyle::hermes, {"f"});
  std::vector<ToolCallReader::Piece> out;
  reader.read("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a", out);
  ASSERT_EQ(out.size(), 2U);
  EXPECT_EQ(out[0].text, "f");
  EXPECT_EQ(out[1].text, "{\"a");
  out.clear();
  reader.read("\": 1}", out);
  ASSERT_EQ(out.size(), 1U);
  EXPECT_EQ(out[0].text, "\": 1}");
}

TEST(ToolCalls, IdsAreWhatTheTemplatesTake) {
  EXPECT_EQ(call_id(ToolStyle::hermes, "01ABC", 0, 1), "call_01ABC_0_1");
  const std::string a = call_id(ToolStyle::mistral_list, "01ABC", 0, 0),
                    b = call_id(ToolStyle::mistral_list, "01ABC", 0, 1);
  EXPECT_EQ(a.size(), 9U);
  EXPECT_EQ(a.find_first_not_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"), std::string::npos);
  EXPECT_NE(a, b);
}

TEST(ToolStyles, AreReadOffTheTemplate) {
  EXPECT_EQ(tool_style("{% if tools %}<tool_call>{% endif %}"), ToolStyle::hermes);
  EXPECT_EQ(tool_style("{% if tools %}[TOOL_CALLS]{% endif %}"), ToolStyle::mistral_list);
  EXPECT_EQ(tool_style("{% if tools %}[TOOL_CALLS]x[ARGS]{% endif %}"), ToolStyle::mistral_args);
  EXPECT_EQ(tool_style("{% if tools %}Environment: ipython{% endif %}"), ToolStyle::json);
  EXPECT_EQ(tool_style("{% if tools %}{% endif %}"), ToolStyle::none);
  EXPECT_EQ(tool_style("<tool_call>"), ToolStyle::none);
}

}  // namespace
}  // namespace ganglion::backends
